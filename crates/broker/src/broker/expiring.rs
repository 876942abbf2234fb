//! The expiry of idle producers, as Kafka's `producer.id.expiration.ms` has it: what a partition remembers of a producer that has not
//! written for so long is forgotten, by an entry of the log.
//!
//! It is looked for from time to time; nothing is committed while nobody is idle for long enough.

use std::time::Duration;

use lakebed_log::{AppendError, Log};

/// Kafka's `producer.id.expiration.check.interval.ms`: so often at most is looked.
const CHECK_EVERY_MAX: Duration = Duration::from_secs(600);
/// And so often at least, in parts of the expiration: a producer is remembered that much longer than it must be.
const CHECK_PART: u32 = 4;

/// Forgets producers that were idle for `expiration`. Ends when the log is closed.
pub(super) async fn expire_idle_producers(log: Log, expiration: Duration) {
    let every = (expiration / CHECK_PART).min(CHECK_EVERY_MAX);
    let expiration_ms = i64::try_from(expiration.as_millis()).unwrap_or(i64::MAX);
    loop {
        tokio::select! {
            biased;
            _ = log.closed() => return,
            () = tokio::time::sleep(every) => {}
        }
        // One that wrote exactly so long ago is expired, as in Kafka.
        let before_ms = (log.seams().wall)().saturating_sub(expiration_ms).saturating_add(1);
        match log.expire_producers(before_ms).await {
            Ok(0) => {}
            Ok(forgotten) => tracing::info!(forgotten, "producers that were idle for too long are forgotten"),
            Err(AppendError::Refused(refusal)) => {
                tracing::error!(%refusal, "idle producers could not be forgotten");
            }
            // The log closes.
            Err(AppendError::NotDone { .. } | AppendError::Unknown { .. }) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicI64, Ordering};

    use lakebed_ingest::{Ingest, Produced};
    use lakebed_log::{Offload, Options, Seams};
    use lakebed_model::{Change, PartitionIndex, PartitionKey, TopicId, TopicName};
    use lakebed_segment::batch::Producer;
    use lakebed_store::{MemoryBackend, Store, StoreOptions};
    use uuid::Uuid;

    use super::*;
    use crate::one_record;

    const HOUR: Duration = Duration::from_secs(3600);
    const START_MS: i64 = 1_700_000_000_000;

    async fn produce(ingest: &Ingest, key: PartitionKey, producer: i64, sequence: i32) -> Produced {
        let producer = Some(Producer { id: producer, epoch: 0, base_sequence: sequence });
        let batch = one_record::batch(producer);
        ingest.produce(vec![(key, batch)]).await.pop().unwrap().await.unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_producer_is_forgotten_after_a_day_without_a_batch_and_an_idle_log_stays_as_it_is() {
        let (now_ms, store) = (
            Arc::new(AtomicI64::new(START_MS)),
            Store::new("memory://", Arc::new(MemoryBackend::default()), &StoreOptions::default()),
        );
        let clock = Arc::clone(&now_ms);
        let wall = Arc::new(move || clock.load(Ordering::SeqCst));
        let log =
            Log::open(store, Options::default(), Seams { wall, seed: 1, offload: Offload::Inline }).await.unwrap();
        let key = PartitionKey::new(TopicId::new(Uuid::from_u128(1)), PartitionIndex::ZERO);
        let name = TopicName::new("orders").unwrap();
        log.change(Change::CreateTopic { id: key.topic, name, partitions: 1, config: BTreeMap::new() }).await.unwrap();
        let (ingest, mut committed) = Ingest::start(log.clone(), lakebed_ingest::Options::default());
        tokio::spawn(async move { while committed.recv().await.is_some() {} });
        let expiring = tokio::spawn(expire_idle_producers(log.clone(), 24 * HOUR));
        let pass = |time: Duration| {
            now_ms.fetch_add(i64::try_from(time.as_millis()).unwrap(), Ordering::SeqCst);
            tokio::time::sleep(time)
        };
        assert_eq!(produce(&ingest, key, 1, 0).await.base_offset.get(), 0);
        pass(12 * HOUR).await;
        assert_eq!(produce(&ingest, key, 2, 0).await.base_offset.get(), 1);
        let quiet_at = log.state().number();
        pass(12 * HOUR - CHECK_EVERY_MAX).await;
        assert_eq!((log.state().producer_count(), log.state().number()), (2, quiet_at));
        pass(2 * CHECK_EVERY_MAX).await;
        assert_eq!(log.state().producers_of(key).map(|(id, _)| id.get()).collect::<Vec<_>>(), [2]);
        assert_eq!(log.state().number(), quiet_at.next(), "one commit says so, and no other");
        assert!(produce(&ingest, key, 2, 0).await.duplicate, "the other is remembered");
        let anew = produce(&ingest, key, 1, 77).await;
        assert!(!anew.duplicate && anew.base_offset.get() == 2, "one that was forgotten goes on anywhere (KIP-360)");
        expiring.abort();
    }
}
