//! A store that fails while batches are under way: each of them gets its true fate.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use lakebed_broker::Config;
use lakebed_store::faults::{Fault, FaultBackend, Operation, Outcome, Symptom};
use lakebed_store::{MemoryBackend, Store, StoreOptions};
use tokio::sync::watch;

use crate::client::{Running, Stream, batch, memory, values};

/// While it is closed, the store creates nothing: it says so for a while, over and over.
#[derive(Clone)]
pub(crate) struct Gate {
    is_closed: watch::Sender<bool>,
    refused: watch::Sender<u64>,
}

impl Default for Gate {
    fn default() -> Self {
        Self { is_closed: watch::channel(false).0, refused: watch::channel(0).0 }
    }
}

impl Gate {
    pub(crate) fn close(&self) {
        self.is_closed.send_replace(true);
    }

    pub(crate) fn open(&self) {
        self.is_closed.send_replace(false);
    }

    /// Waits until the store has been asked in vain.
    pub(crate) async fn asked(&self) {
        self.refused.subscribe().wait_for(|refused| *refused > 0).await.unwrap();
    }

    pub(crate) fn decide(&self, operation: &Operation<'_>) -> Fault {
        if !matches!(operation, Operation::Create { .. }) || !*self.is_closed.borrow() {
            return Fault::NONE;
        }
        self.refused.send_modify(|refused| *refused += 1);
        Fault::at_once(Outcome::LostWith(Symptom::SlowDown))
    }
}

/// A store behind a gate.
pub(crate) fn gated() -> (Gate, Store) {
    let gate = Gate::default();
    let held = gate.clone();
    let backend =
        FaultBackend::new(Arc::new(MemoryBackend::default()), move |operation: &Operation<'_>| held.decide(operation));
    (gate, Store::new("memory://", Arc::new(backend), &StoreOptions::default()))
}

#[tokio::test]
async fn answers_of_the_store_that_are_lost_or_wrong_change_nothing_about_what_is_told() {
    // Every third create fails in one of the ways in which stores do.
    let count = AtomicU64::new(0);
    let faults = move |operation: &Operation<'_>| {
        if !matches!(operation, Operation::Create { .. }) {
            return Fault::NONE;
        }
        let outcomes = [
            Outcome::AppliedWith(Symptom::ServerError),
            Outcome::LostWith(Symptom::SlowDown),
            Outcome::AppliedWith(Symptom::Conflict),
            Outcome::LostWith(Symptom::NotSent),
            Outcome::AppliedWith(Symptom::Cut),
        ];
        let count = count.fetch_add(1, Ordering::SeqCst);
        match (count % 3, outcomes[count as usize / 3 % outcomes.len()]) {
            (2, outcome) => Fault::at_once(outcome),
            _ => Fault::NONE,
        }
    };
    let backend = FaultBackend::new(Arc::new(MemoryBackend::default()), faults);
    let store = Store::new("memory://", Arc::new(backend), &StoreOptions::default());
    let config = Config { flush_interval: Some(Duration::ZERO), ..Config::default() };
    let broker = Running::on(store, config).await;
    broker.topic("t", 1).await;
    let mut stream = Stream::open(broker.http, "t", Some(0)).await;
    for id in 0..60 {
        stream.send(batch(id, &[format!("{id}").as_bytes()])).await;
        // Most go out in a flush of their own.
        if id % 2 == 0 {
            tokio::task::yield_now().await;
        }
    }
    stream.close();
    let (told, ended) = stream.rest().await;
    assert!(ended.is_none(), "{ended:?}");
    let expected: Vec<_> = (0..60).map(|id| (id as u64, Ok((0, id, id)))).collect();
    assert_eq!(told, expected);
    let sent: Vec<_> = (0..60).map(|id| bytes::Bytes::from(format!("{id}"))).collect();
    assert_eq!(values(&broker.rooms, "t", 0).await, sent);
    broker.stop().await;
}

#[tokio::test]
async fn when_another_broker_takes_over_every_batch_is_told_its_fate_and_the_stream_ends_with_fenced() {
    let backend = Arc::new(MemoryBackend::default());
    let first = Running::on(memory(&backend), Config::default()).await;
    first.topic("t", 1).await;
    let mut stream = Stream::open(first.http, "t", Some(0)).await;
    stream.send(batch(0, &[b"0"])).await;
    assert_eq!(stream.hear().await.unwrap().unwrap(), (0, Ok((0, 0, 0))));
    let second = Running::on(memory(&backend), Config::default()).await;
    let requests = stream.requests.take().unwrap();
    let sending = tokio::spawn(async move {
        let mut sent = 0;
        for id in 1.. {
            let batch = crate::client::say(lakebed_wire::v1::produce_stream_request::Request::Batch(batch(
                id,
                &[format!("{id}").as_bytes()],
            )));
            if requests.send(batch).await.is_err() {
                break;
            }
            sent = id;
        }
        sent
    });
    let (told, ended) = stream.rest().await;
    assert_eq!(crate::client::reason(&ended.unwrap()), "Unavailable FENCED");
    assert!(sending.await.unwrap() >= told.len() as u64);
    assert!(!told.is_empty());
    for (place, (id, outcome)) in told.iter().enumerate() {
        assert_eq!(*id, place as u64 + 1, "in order, none left out");
        assert_eq!(outcome.as_ref().unwrap_err(), "Unavailable FENCED", "nothing was stored after the takeover");
    }
    drop(first.rooms);
    first.ended.await.unwrap().unwrap_err();
    assert_eq!(values(&second.rooms, "t", 0).await, ["0"]);
    second.stop().await;
}
