//! Who waits for which partitions: a publication wakes exactly those.
//!
//! Invariant: a request is registered for as long as its [`Waiting`] lives, and no longer.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lakebed_model::PartitionKey;
use tokio::sync::{Notify, watch};

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Waiters {
    registry: Mutex<Registry>,
    /// Whether nobody should wait any more.
    is_ended: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct Registry {
    waiting: BTreeMap<(PartitionKey, u64), Arc<Notify>>,
    registered: u64,
}

impl Waiters {
    /// Registers a request for some partitions. What is published from now on wakes it, even before it waits.
    pub(crate) fn register(self: &Arc<Self>, keys: impl Iterator<Item = PartitionKey>) -> Waiting {
        let woken = Arc::new(Notify::new());
        let mut registry = self.lock();
        registry.registered += 1;
        let id = registry.registered;
        let keys: Vec<PartitionKey> = keys.collect();
        for key in &keys {
            registry.waiting.insert((*key, id), Arc::clone(&woken));
        }
        Waiting { waiters: Arc::clone(self), id, keys, woken }
    }

    /// Wakes whoever waits for one of the partitions.
    pub(crate) fn wake(&self, keys: impl Iterator<Item = PartitionKey>) {
        let registry = self.lock();
        if registry.waiting.is_empty() {
            return;
        }
        let mut last = None;
        for key in keys.filter(|key| last.replace(*key) != Some(*key)) {
            for (_, woken) in registry.waiting.range((key, 0)..=(key, u64::MAX)) {
                woken.notify_one();
            }
        }
    }

    /// Wakes everybody, for good: nobody should wait any more.
    pub(crate) fn end(&self) {
        self.is_ended.send_replace(true);
        self.lock().waiting.values().for_each(|woken| woken.notify_one());
    }

    /// Whether nobody should wait any more.
    pub(crate) fn is_ended(&self) -> bool {
        *self.is_ended.borrow()
    }

    /// Waits until nobody should wait any more.
    pub(crate) async fn ended(&self) {
        // The sender lives as long as this.
        drop(self.is_ended.subscribe().wait_for(|is_ended| *is_ended).await);
    }

    fn lock(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many partitions are waited for, each as often as it is.
    pub(crate) fn count(&self) -> usize {
        self.lock().waiting.len()
    }
}

/// A registered request.
#[derive(Debug)]
pub(crate) struct Waiting {
    waiters: Arc<Waiters>,
    id: u64,
    keys: Vec<PartitionKey>,
    woken: Arc<Notify>,
}

impl Waiting {
    /// Waits until one of the partitions was published since the registration, or since the last time that this returned.
    pub(crate) async fn woken(&self) {
        self.woken.notified().await;
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut registry = self.waiters.lock();
        for key in &self.keys {
            registry.waiting.remove(&(*key, self.id));
        }
    }
}

#[cfg(test)]
mod tests {
    use lakebed_model::{PartitionIndex, TopicId};

    use super::*;

    fn key(partition: u32) -> PartitionKey {
        PartitionKey::new(TopicId::new(Default::default()), PartitionIndex::new(partition))
    }

    #[tokio::test]
    async fn a_publication_wakes_exactly_those_who_wait_for_its_partition_and_nothing_leaks() {
        let waiters = Arc::new(Waiters::default());
        let (one, both) = (waiters.register([key(1)].into_iter()), waiters.register([key(1), key(2)].into_iter()));
        waiters.wake([key(2), key(2), key(3)].into_iter());
        assert!(futures::poll!(Box::pin(one.woken())).is_pending());
        both.woken().await;
        assert!(futures::poll!(Box::pin(both.woken())).is_pending(), "woken once");
        assert_eq!(waiters.count(), 3);
        drop((one, both));
        assert_eq!(waiters.count(), 0);
    }
}
