//! Objects that can't be read, and places that are taken.

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use futures::FutureExt;
use lakebed_model::ObjectId;
use lakebed_store::Payload;
use lakebed_store::backend::Backend;
use lakebed_store::faults::{Fault, FaultBackend, Operation, Outcome, Symptom};
use tokio::time::Instant;

use super::*;

fn store_with(faults: impl lakebed_store::faults::Faults, memory: Arc<MemoryBackend>) -> Store {
    Store::new("memory://", Arc::new(FaultBackend::new(memory, faults)), &StoreOptions::default())
}

#[tokio::test(start_paused = true)]
async fn an_object_that_cant_be_read_is_left_alone_for_a_while_and_the_rest_is_merged() {
    let unreadable: Arc<std::sync::Mutex<Option<String>>> = Arc::default();
    let refused = Arc::clone(&unreadable);
    let faults = move |operation: &Operation<'_>| match operation {
        Operation::Get { key, .. } if refused.lock().unwrap().as_deref() == Some(key.as_str()) => {
            Fault::at_once(Outcome::LostWith(Symptom::Refused))
        }
        _ => Fault::NONE,
    };
    let store = store_with(faults, Arc::default());
    let log = open(&store, 1).await;
    create_topic(&log).await;
    for index in 0..6 {
        append(&log, &format!("record {index}")).await;
    }
    let (victim, _) = log.state().objects().next().unwrap();
    let ObjectId::Commit(number) = victim else { panic!("{victim:?}") };
    let text = lakebed_segment::layout::commit_key(log.identity().cell, log.state().place_of(number).unwrap());
    *unreadable.lock().unwrap() = Some(text);
    let merger = Arc::new(Merger::new(log.clone(), store.clone(), options(4)));
    while merger.step().await {}
    let state = log.state();
    assert_eq!(merger.counts().failures.load(Ordering::Relaxed), 2, "once may be chance");
    assert_eq!(merger.damaged(), 0, "it may well be whole");
    assert!(state.object(victim).is_some() && state.object_count() == 2, "{} objects", state.object_count());
    assert_eq!(*merger.exhausted().borrow(), Some(state.number()));
    // With it there would be enough to merge, and that is tried as soon as its time is over.
    append(&log, "x").await;
    append(&log, "y").await;
    while merger.step().await {}
    assert!(log.state().object(victim).is_some());
    *unreadable.lock().unwrap() = None;
    let mut commits = log.watch();
    let began = Instant::now();
    let merging = tokio::spawn(async move { merger.run().await });
    while log.state().object(victim).is_some() {
        commits.changed().await.unwrap();
    }
    assert!(began.elapsed() > Duration::from_secs(500), "{:?}", began.elapsed());
    assert_eq!(log.state().object_count(), 1);
    merging.abort();
}

#[tokio::test(start_paused = true)]
async fn an_outage_of_the_store_sets_no_object_aside() {
    let away = Arc::new(AtomicBool::new(false));
    let gone = Arc::clone(&away);
    let faults = move |operation: &Operation<'_>| match operation {
        Operation::Get { .. } if gone.load(Ordering::Relaxed) => Fault::at_once(Outcome::LostWith(Symptom::NotSent)),
        _ => Fault::NONE,
    };
    let store = store_with(faults, Arc::default());
    let log = open(&store, 1).await;
    create_topic(&log).await;
    for index in 0..6 {
        append(&log, &format!("record {index}")).await;
    }
    let merger = Merger::new(log.clone(), store.clone(), options(4));
    away.store(true, Ordering::Relaxed);
    for _ in 0..5 {
        assert!(merger.step().await, "there is something to merge");
    }
    assert_eq!(merger.counts().failures.load(Ordering::Relaxed), 5);
    away.store(false, Ordering::Relaxed);
    let back = Instant::now();
    while merger.step().await {}
    assert_eq!((log.state().object_count(), merger.counts().set_aside.load(Ordering::Relaxed)), (1, 0));
    assert!(back.elapsed() < Duration::from_secs(1), "at once: {:?}", back.elapsed());
}

/// Counts what is logged as an error.
struct Errors(Arc<std::sync::Mutex<Vec<String>>>);

impl tracing::Subscriber for Errors {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.is_event() && *metadata.level() == tracing::Level::ERROR
    }
    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }
    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn event(&self, event: &tracing::Event<'_>) {
        self.0.lock().unwrap().push(format!("{event:?}"));
    }
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}

#[tokio::test(start_paused = true)]
async fn another_object_in_the_place_of_a_merged_segment_is_told_as_the_bug_that_it_is() {
    let errors = Arc::new(std::sync::Mutex::new(Vec::new()));
    let _listening = tracing::dispatcher::set_default(&tracing::Dispatch::new(Errors(Arc::clone(&errors))));
    let memory = Arc::new(MemoryBackend::default());
    let (takes, squatted) = (Arc::new(AtomicBool::new(true)), Arc::clone(&memory));
    let taking = Arc::clone(&takes);
    let faults = move |operation: &Operation<'_>| {
        if let Operation::Create { key, .. } = operation
            && key.as_str().contains("/segments/")
            && taking.swap(false, Ordering::Relaxed)
        {
            let other = Payload::from("another's");
            squatted.create(key, &other).now_or_never().expect("memory does not wait").unwrap();
        }
        Fault::NONE
    };
    let store = store_with(faults, memory);
    let log = open(&store, 1).await;
    create_topic(&log).await;
    for index in 0..4 {
        append(&log, &format!("record {index}")).await;
    }
    let state = log.state();
    let all = Plan::whole(state.objects().map(|(id, _)| id).collect());
    let taken = merge(&log, &store, &state, &all).await;
    assert!(matches!(&taken, Err(RewriteError::Taken { key }) if key.contains("/segments/")), "{taken:?}");
    takes.store(true, Ordering::Relaxed);
    let merger = Merger::new(log.clone(), store.clone(), options(4));
    assert!(merger.step().await);
    assert_eq!(log.state().number(), state.number(), "nothing was swapped");
    let told = errors.lock().unwrap().clone();
    assert!(told.len() == 1 && told[0].contains("another object stands at"), "{told:?}");
    assert!(merger.step().await, "its next id is another");
    assert_eq!((log.state().object_count(), merger.damaged()), (1, 0));
}
