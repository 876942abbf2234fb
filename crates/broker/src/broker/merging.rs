//! Merging and compaction, and what the write path has to know of merging.

use lakebed_compact::{Cleaner, Compactor, Merger};
use lakebed_ingest::Ingest;

/// Merges and compacts, keys too, and tells the write path when nothing is left to merge. Ends with the log.
pub(super) async fn merge(merger: Merger, compactor: Compactor, cleaner: Cleaner, ingest: Ingest) {
    let mut exhausted = merger.exhausted();
    let telling = async {
        while exhausted.changed().await.is_ok() {
            let at = *exhausted.borrow_and_update();
            at.into_iter().for_each(|at| ingest.merging_exhausted(at));
        }
    };
    tokio::select! {
        biased;
        () = merger.run() => {}
        () = compactor.run() => {}
        () = cleaner.run() => {}
        () = telling => {}
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use lakebed_ingest::{Obstacle, ProduceError};
    use lakebed_log::{Log, Offload, Seams};
    use lakebed_model::{Change, PartitionIndex, PartitionKey, TopicId, TopicName};
    use lakebed_store::{MemoryBackend, Store, StoreOptions};
    use uuid::Uuid;

    use super::*;
    use crate::one_record;
    use crate::reason::Reason;

    fn key(topic: u128, partition: u32) -> PartitionKey {
        PartitionKey::new(TopicId::new(Uuid::from_u128(topic)), PartitionIndex::new(partition))
    }

    async fn create_topic(log: &Log, topic: u128, partitions: u32) {
        let name = TopicName::new(&format!("topic-{topic}")).unwrap();
        let id = key(topic, 0).topic;
        log.change(Change::CreateTopic { id, name, partitions, config: BTreeMap::new() }).await.unwrap();
    }

    /// Produces one record to each of some partitions of a topic; what became of each.
    async fn produce(ingest: &Ingest, topic: u128, partitions: u32) -> Vec<Result<(), ProduceError>> {
        let batch = one_record::batch(None);
        let mut answers = Vec::new();
        for ticket in ingest.produce((0..partitions).map(|index| (key(topic, index), batch.clone())).collect()).await {
            answers.push(ticket.await.map(|_| ()));
        }
        answers
    }

    #[tokio::test(start_paused = true)]
    async fn producers_are_refused_when_no_merge_would_help_and_go_on_when_a_topic_is_deleted() {
        let store = Store::new("memory://", Arc::new(MemoryBackend::default()), &StoreOptions::default());
        let seams = Seams { wall: Arc::new(|| 1_700_000_000_000), seed: 1, offload: Offload::Inline };
        let log = Log::open(store.clone(), lakebed_log::Options::default(), seams).await.unwrap();
        create_topic(&log, 1, 2).await;
        create_topic(&log, 2, 6).await;
        let options = lakebed_ingest::Options { live_runs_max: 8, ..Default::default() };
        let (ingest, mut committed) = Ingest::start(log.clone(), options);
        tokio::spawn(async move { while committed.recv().await.is_some() {} });
        let options = lakebed_compact::Options { runs_high: 4, ..Default::default() };
        let compactor = Compactor::new(log.clone(), store.clone(), Default::default(), Default::default());
        let cleaner = Cleaner::new(log.clone(), store.clone(), Default::default(), &compactor);
        let merging = tokio::spawn(merge(Merger::new(log.clone(), store, options), compactor, cleaner, ingest.clone()));
        // One run a partition: no merge makes them fewer.
        assert!(produce(&ingest, 1, 2).await.iter().chain(&produce(&ingest, 2, 6).await).all(Result::is_ok));
        assert_eq!(log.state().run_count(), 8);
        let number = log.state().number();
        for answer in produce(&ingest, 2, 6).await {
            let error = answer.unwrap_err();
            let why = Obstacle::RunsExhausted { live_runs: 8, live_runs_max: 8 };
            assert_eq!(error, ProduceError::NotDone { why });
            assert_eq!(Reason::from(&error), Reason::Overloaded);
            let told = error.to_string();
            assert!(told.contains("8 runs are live of at most 8") && told.contains("delete topics"), "{told}");
        }
        assert_eq!(log.state().number(), number, "nothing was stored");
        log.change(Change::DeleteTopic { id: key(1, 0).topic }).await.unwrap();
        assert_eq!(log.state().run_count(), 6, "fewer than 8, but not by an eighth of it more than one");
        assert_eq!(produce(&ingest, 2, 1).await, [Ok(())]);
        merging.abort();
    }
}
