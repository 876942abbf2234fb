//! A cache with a bound in bytes, in which a value is made once however many ask for it at the same time.
//!
//! 1. The values that are kept cost at most the capacity together; the least recently used ones go first.
//! 2. While a value is being made, others who want it wait for it instead of making it too. If its maker gives up or is dropped,
//!    one of those who wait takes over. An error is answered to the one whose attempt it was and is never kept.
//! 3. Nothing is remembered of a value that nobody made.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::OnceCell;

use crate::counts::CacheUse;

/// See the module. `V` is cheap to clone.
pub(crate) struct Cache<K, V> {
    slots: Mutex<Slots<K, V>>,
    capacity_bytes: usize,
    cost_bytes: fn(&V) -> usize,
    hits: AtomicU64,
    misses: AtomicU64,
}

struct Slots<K, V> {
    entries: BTreeMap<K, Slot<V>>,
    /// Kept entries by their last use, oldest first.
    order: BTreeMap<u64, K>,
    uses: u64,
    kept_bytes: usize,
}

struct Slot<V> {
    cell: Arc<OnceCell<V>>,
    kept: Option<Kept>,
}

#[derive(Clone, Copy)]
struct Kept {
    used: u64,
    cost_bytes: usize,
}

impl<K: Ord + Clone, V: Clone> Cache<K, V> {
    /// An empty cache. `cost_bytes` says what a value counts for; it never changes for a value.
    pub(crate) fn new(capacity_bytes: usize, cost_bytes: fn(&V) -> usize) -> Self {
        let slots = Slots { entries: BTreeMap::new(), order: BTreeMap::new(), uses: 0, kept_bytes: 0 };
        Self {
            slots: Mutex::new(slots),
            capacity_bytes,
            cost_bytes,
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
        }
    }

    /// The value of `key`, made by `make` if there is none.
    ///
    /// # Errors
    /// Those of `make`.
    /// # Cancel Somebody else who waits for the value makes it.
    pub(crate) async fn get<E, Made>(&self, key: &K, make: impl FnOnce() -> Made) -> Result<V, E>
    where
        Made: Future<Output = Result<V, E>>,
    {
        let claim = Claim { cache: self, key, cell: self.claim(key) };
        let made = AtomicBool::new(false);
        let making = || {
            made.store(true, Ordering::Relaxed);
            make()
        };
        let value = claim.cell.get_or_try_init(making).await.cloned();
        let counter = if made.load(Ordering::Relaxed) { &self.misses } else { &self.hits };
        counter.fetch_add(1, Ordering::Relaxed);
        let value = value?;
        self.keep(key, &claim.cell, (self.cost_bytes)(&value));
        Ok(value)
    }

    /// Forgets the value of `key`. One that is being made is made for those who wait for it, and not kept.
    pub(crate) fn forget(&self, key: &K) {
        let mut slots = self.lock();
        if let Some(slot) = slots.entries.remove(key)
            && let Some(kept) = slot.kept
        {
            slots.order.remove(&kept.used);
            slots.kept_bytes -= kept.cost_bytes;
        }
    }

    /// What is kept, in bytes.
    pub(crate) fn kept_bytes(&self) -> usize {
        self.lock().kept_bytes
    }

    /// What was asked of it, and what it keeps.
    pub(crate) fn use_so_far(&self) -> CacheUse {
        CacheUse {
            hits: self.hits.load(Ordering::Relaxed),
            misses: self.misses.load(Ordering::Relaxed),
            bytes: self.kept_bytes(),
            bytes_max: self.capacity_bytes,
        }
    }

    fn claim(&self, key: &K) -> Arc<OnceCell<V>> {
        let mut slots = self.lock();
        if let Some(slot) = slots.entries.get(key) {
            return Arc::clone(&slot.cell);
        }
        let cell = Arc::new(OnceCell::new());
        slots.entries.insert(key.clone(), Slot { cell: Arc::clone(&cell), kept: None });
        cell
    }

    /// Marks a value as just used, and makes room for it if it is new.
    fn keep(&self, key: &K, cell: &Arc<OnceCell<V>>, cost_bytes: usize) {
        let mut slots = self.lock();
        let slots = &mut *slots;
        // SUBTLE: the slot may have been forgotten and claimed again meanwhile; only the one that holds this very value is marked.
        let Some(slot) = slots.entries.get_mut(key).filter(|slot| Arc::ptr_eq(&slot.cell, cell)) else { return };
        slots.uses += 1;
        match slot.kept.replace(Kept { used: slots.uses, cost_bytes }) {
            Some(before) => drop(slots.order.remove(&before.used)),
            None => slots.kept_bytes += cost_bytes,
        }
        slots.order.insert(slots.uses, key.clone());
        while slots.kept_bytes > self.capacity_bytes {
            let (_, oldest) = slots.order.pop_first().expect("what is kept has an order");
            let gone = slots.entries.remove(&oldest).and_then(|slot| slot.kept).expect("what has an order is kept");
            slots.kept_bytes -= gone.cost_bytes;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Slots<K, V>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Somebody's interest in a value; the last to lose it takes an empty slot away.
struct Claim<'a, K: Ord + Clone, V: Clone> {
    cache: &'a Cache<K, V>,
    key: &'a K,
    cell: Arc<OnceCell<V>>,
}

impl<K: Ord + Clone, V: Clone> Drop for Claim<'_, K, V> {
    fn drop(&mut self) {
        let mut slots = self.cache.lock();
        let mine = |slot: &Slot<V>| Arc::ptr_eq(&slot.cell, &self.cell);
        // Two: the slot's and this one. Claims are made under the lock, so nobody can come in between.
        let last = Arc::strong_count(&self.cell) == 2;
        if last && !self.cell.initialized() && slots.entries.get(self.key).is_some_and(mine) {
            slots.entries.remove(self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::future::join_all;

    use super::*;

    fn cache(capacity_bytes: usize) -> Cache<u32, Arc<Vec<u8>>> {
        Cache::new(capacity_bytes, |value| value.len())
    }

    async fn get(cache: &Cache<u32, Arc<Vec<u8>>>, key: u32, size: usize, made: &AtomicUsize) -> Arc<Vec<u8>> {
        let make = async || {
            made.fetch_add(1, Ordering::Relaxed);
            tokio::task::yield_now().await;
            Ok::<_, Infallible>(Arc::new(vec![0; size]))
        };
        cache.get(&key, make).await.unwrap()
    }

    #[tokio::test]
    async fn a_value_that_many_want_at_once_is_made_once() {
        let (cache, made) = (cache(100), AtomicUsize::new(0));
        join_all((0..50).map(|_| get(&cache, 7, 10, &made))).await;
        get(&cache, 7, 10, &made).await;
        assert_eq!((made.load(Ordering::Relaxed), cache.kept_bytes()), (1, 10));
    }

    #[tokio::test]
    async fn the_least_recently_used_value_makes_room_and_the_bound_holds() {
        let (cache, made) = (cache(25), AtomicUsize::new(0));
        get(&cache, 1, 10, &made).await;
        get(&cache, 2, 10, &made).await;
        get(&cache, 1, 10, &made).await;
        get(&cache, 3, 10, &made).await;
        assert_eq!((made.load(Ordering::Relaxed), cache.kept_bytes()), (3, 20));
        get(&cache, 1, 10, &made).await;
        assert_eq!(made.load(Ordering::Relaxed), 3, "the value used last is still there");
        get(&cache, 2, 10, &made).await;
        assert_eq!(made.load(Ordering::Relaxed), 4, "the value not used for longest is gone");
    }

    #[tokio::test]
    async fn a_value_larger_than_the_cache_is_answered_and_not_kept() {
        let (cache, made) = (cache(25), AtomicUsize::new(0));
        assert_eq!(get(&cache, 1, 26, &made).await.len(), 26);
        assert_eq!(cache.kept_bytes(), 0);
    }

    #[tokio::test]
    async fn when_the_maker_is_dropped_another_takes_over_and_nothing_leaks() {
        let (cache, made) = (cache(100), AtomicUsize::new(0));
        let mut first = Box::pin(cache.get(&1, async || std::future::pending::<Result<_, Infallible>>().await));
        assert!(futures::poll!(first.as_mut()).is_pending());
        let mut second = Box::pin(get(&cache, 1, 10, &made));
        assert!(futures::poll!(second.as_mut()).is_pending());
        assert_eq!(made.load(Ordering::Relaxed), 0);
        drop(first);
        assert_eq!(second.await.len(), 10);
        assert_eq!(made.load(Ordering::Relaxed), 1);

        let mut alone = Box::pin(cache.get(&2, async || std::future::pending::<Result<_, Infallible>>().await));
        assert!(futures::poll!(alone.as_mut()).is_pending());
        drop(alone);
        assert_eq!(cache.lock().entries.len(), 1);
    }

    #[tokio::test]
    async fn an_error_is_not_kept_and_a_forgotten_value_is_made_again() {
        let (cache, made) = (cache(100), AtomicUsize::new(0));
        let failed = cache.get(&1, async || Err::<Arc<Vec<u8>>, _>("no")).await;
        assert_eq!(failed, Err("no"));
        assert!(cache.lock().entries.is_empty());
        get(&cache, 1, 10, &made).await;
        cache.forget(&1);
        assert_eq!(cache.kept_bytes(), 0);
        get(&cache, 1, 10, &made).await;
        assert_eq!(made.load(Ordering::Relaxed), 2);
    }
}
