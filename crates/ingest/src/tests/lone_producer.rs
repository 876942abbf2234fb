//! A lone producer with a window of requests: what Little's law allows it, in time that is simulated.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use lakebed_log::Log;
use lakebed_model::{Change, TopicName};
use lakebed_store::faults::{Fault, FaultBackend, Operation, Outcome};
use lakebed_store::{MemoryBackend, Store, StoreOptions};
use tokio::time::Instant;

use super::{Ingest, Options, at_once, base, batch_from, key, seams};

/// Kafka's idempotent producers keep at most so many requests in flight.
const WINDOW: usize = 5;
const REQUESTS: usize = 1_000;

/// A log over a store whose PUTs take so long.
async fn log_over(latency: Duration) -> Log {
    let faults = move |operation: &Operation<'_>| match operation {
        Operation::Create { .. } => Fault { before: Duration::ZERO, after: latency, outcome: Outcome::Answered },
        _ => Fault::NONE,
    };
    let backend = FaultBackend::new(Arc::new(MemoryBackend::default()), faults);
    let store = Store::new("memory://", Arc::new(backend), &StoreOptions::default());
    let log = Log::open(store, lakebed_log::Options::default(), seams(1)).await.unwrap();
    let name = TopicName::new("orders").unwrap();
    let topic = Change::CreateTopic { id: key(0).topic, name, partitions: 4, config: Default::default() };
    log.change(topic).await.unwrap();
    log
}

/// Sends requests of one batch, [`WINDOW`] of them in flight, each a little after the answer that makes room for it. How long it took.
async fn produce(log: &Log, options: Options) -> Duration {
    let (ingest, mut listener) = Ingest::start(log.clone(), options);
    tokio::spawn(async move { while listener.recv().await.is_some() {} });
    let begun = Instant::now();
    let mut in_flight = VecDeque::new();
    for sequence in 0..REQUESTS {
        if in_flight.len() == WINDOW {
            let answer = in_flight.pop_front().unwrap();
            assert_eq!(base(&answer.await) as usize, sequence - WINDOW);
            // What its way to the producer and back takes.
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let batch = batch_from(7, i32::try_from(sequence).unwrap(), 1);
        in_flight.push_back(ingest.produce(vec![(key(0), batch)]).await.pop().unwrap());
    }
    for answer in in_flight {
        answer.await.unwrap();
    }
    begun.elapsed()
}

#[tokio::test(start_paused = true)]
async fn five_requests_in_flight_take_one_latency_of_the_store_and_not_two() {
    let log = log_over(Duration::from_millis(100)).await;
    let (ingest, mut listener) = Ingest::start(log.clone(), at_once());
    tokio::spawn(async move { while listener.recv().await.is_some() {} });
    let begun = Instant::now();
    let mut tickets = Vec::new();
    for sequence in 0..WINDOW {
        // One by one, so that no two share a flush.
        tokio::time::sleep(Duration::from_millis(1)).await;
        let batch = batch_from(7, i32::try_from(sequence).unwrap(), 1);
        tickets.extend(ingest.produce(vec![(key(0), batch)]).await);
    }
    assert!(tickets.iter_mut().all(|ticket| ticket.now_or_never().is_none()));
    let before = log.state().number().get();
    super::all(tickets).await;
    assert_eq!(log.state().number().get() - before, WINDOW as u64, "each was a flush of its own");
    assert_eq!(begun.elapsed(), Duration::from_millis(100 + WINDOW as u64));
}

#[tokio::test(start_paused = true)]
async fn a_lone_producer_reaches_nine_tenths_of_its_window_over_the_latency_of_the_store() {
    for latency in [25, 100, 400].map(Duration::from_millis) {
        let took = produce(&log_over(latency).await, at_once()).await;
        // Little: requests in flight = throughput * time in flight.
        let allowed = latency * u32::try_from(REQUESTS / WINDOW).unwrap();
        assert!(took.mul_f64(0.9) <= allowed, "{latency:?}: {took:?}, {allowed:?} are allowed");
    }
}

#[tokio::test(start_paused = true)]
async fn with_a_spacing_of_flushes_the_whole_window_goes_out_in_every_one() {
    let options = Options { flush_interval: Duration::from_millis(250), ..Options::default() };
    let took = produce(&log_over(Duration::from_millis(100)).await, options).await;
    let allowed = Duration::from_millis(250) * u32::try_from(REQUESTS / WINDOW).unwrap();
    assert!(took.mul_f64(0.9) <= allowed, "{took:?}, {allowed:?} are allowed");
}
