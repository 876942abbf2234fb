//! One refresh for all who ask while another runs.
//!
//! 1. Who asks gets the outcome of a refresh that *began after it asked*: it joins the next one, never the one that is running.
//! 2. Of one key at most one refresh runs at a time, and at most one more is due.
//! 3. A refresh goes on when those who wait for it go away: others may have joined it meanwhile.

use std::collections::BTreeMap;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// A refresh that ended without an outcome: its task was ended, with the broker or by a bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the refresh was given up")]
pub struct GivenUp;

type Running<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Refreshes by key. Clones share them.
pub struct Refreshes<K, T> {
    inner: Arc<Inner<K, T>>,
}

struct Inner<K, T> {
    refresh: Box<dyn Fn(K) -> Running<T> + Send + Sync>,
    /// Those who wait for the next refresh, of the keys of which one is running.
    waiting: Mutex<BTreeMap<K, Vec<oneshot::Sender<T>>>>,
}

impl<K: Ord + Clone + Send + Sync + 'static, T: Clone + Send + 'static> Refreshes<K, T> {
    /// Refreshes by calling `refresh`.
    pub fn new<F: Future<Output = T> + Send + 'static>(refresh: impl Fn(K) -> F + Send + Sync + 'static) -> Self {
        let refresh = Box::new(move |key| Box::pin(refresh(key)) as Running<T>);
        Self { inner: Arc::new(Inner { refresh, waiting: Mutex::default() }) }
    }

    /// The outcome of a refresh of `key` that begins after this call.
    ///
    /// # Cancel
    /// A refresh that has begun goes on.
    /// # Errors
    /// [`GivenUp`]
    pub async fn next(&self, key: K) -> Result<T, GivenUp> {
        let (sender, receiver) = oneshot::channel();
        let begins = {
            let mut waiting = self.inner.waiting();
            let begins = !waiting.contains_key(&key);
            waiting.entry(key.clone()).or_default().push(sender);
            begins
        };
        if begins {
            tokio::spawn(run(self.inner.clone(), key));
        }
        receiver.await.map_err(|_| GivenUp)
    }
}

impl<K: Ord, T> Inner<K, T> {
    fn waiting(&self) -> MutexGuard<'_, BTreeMap<K, Vec<oneshot::Sender<T>>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Refreshes until nobody waits.
async fn run<K: Ord + Clone, T: Clone>(inner: Arc<Inner<K, T>>, key: K) {
    let ended = Ended { inner: &inner, key: &key };
    loop {
        let joined = {
            let mut waiting = inner.waiting();
            match waiting.get_mut(&key) {
                Some(joined) if !joined.is_empty() => std::mem::take(joined),
                _ => {
                    // Under the same lock that is held to join: nobody joins what has ended.
                    waiting.remove(&key);
                    break;
                }
            }
        };
        let outcome = (inner.refresh)(key.clone()).await;
        for sender in joined {
            // One that does not wait any more is none of ours.
            sender.send(outcome.clone()).ok();
        }
    }
    std::mem::forget(ended);
}

/// Lets the waiting ones go if the task ends before its time.
struct Ended<'a, K: Ord, T> {
    inner: &'a Inner<K, T>,
    key: &'a K,
}

impl<K: Ord, T> Drop for Ended<'_, K, T> {
    fn drop(&mut self) {
        self.inner.waiting().remove(self.key);
    }
}

impl<K, T> Clone for Refreshes<K, T> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone() }
    }
}

impl<K, T> fmt::Debug for Refreshes<K, T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Refreshes")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use futures::future::join_all;
    use tokio::sync::Semaphore;

    use super::*;

    /// Refreshes that take a permit to end, and say which they are: the first is 1.
    fn gated() -> (Refreshes<&'static str, u64>, Arc<AtomicU64>, Arc<Semaphore>) {
        let (begun, gate) = (Arc::new(AtomicU64::new(0)), Arc::new(Semaphore::new(0)));
        let (counted, gated) = (begun.clone(), gate.clone());
        let refreshes = Refreshes::new(move |_| {
            let number = counted.fetch_add(1, Ordering::SeqCst) + 1;
            let gate = gated.clone();
            async move {
                gate.acquire().await.unwrap().forget();
                number
            }
        });
        (refreshes, begun, gate)
    }

    async fn settle() {
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn who_asks_while_one_runs_joins_the_next() {
        let (refreshes, begun, gate) = gated();
        let ask = |key| {
            let refreshes = refreshes.clone();
            tokio::spawn(async move { refreshes.next(key).await })
        };
        let first = ask("a");
        settle().await;
        assert_eq!(begun.load(Ordering::SeqCst), 1);
        let later: Vec<_> = (0..50).map(|_| ask("a")).collect();
        settle().await;
        assert_eq!(begun.load(Ordering::SeqCst), 1, "one at a time");
        gate.add_permits(1);
        assert_eq!(first.await.unwrap(), Ok(1));
        settle().await;
        assert_eq!(begun.load(Ordering::SeqCst), 2);
        let last = ask("a");
        settle().await;
        gate.add_permits(2);
        for one in join_all(later).await {
            assert_eq!(one.unwrap(), Ok(2), "all of them share the next one");
        }
        assert_eq!(last.await.unwrap(), Ok(3));
        settle().await;
        assert!(refreshes.inner.waiting().is_empty(), "nothing is left");
    }

    #[tokio::test]
    async fn keys_do_not_wait_for_each_other() {
        let (refreshes, begun, gate) = gated();
        let (a, b) = (refreshes.clone(), refreshes.clone());
        let a = tokio::spawn(async move { a.next("a").await });
        let b = tokio::spawn(async move { b.next("b").await });
        settle().await;
        assert_eq!(begun.load(Ordering::SeqCst), 2);
        gate.add_permits(2);
        assert!(a.await.unwrap().is_ok() && b.await.unwrap().is_ok());
    }

    #[tokio::test]
    async fn one_that_goes_away_takes_nothing_from_the_others() {
        let (refreshes, _, gate) = gated();
        let (first, second) = (refreshes.clone(), refreshes.clone());
        let first = tokio::spawn(async move { first.next("a").await });
        settle().await;
        let second = tokio::spawn(async move { second.next("a").await });
        settle().await;
        first.abort();
        gate.add_permits(2);
        assert_eq!(second.await.unwrap(), Ok(2));
    }

    #[tokio::test]
    async fn a_refresh_that_panics_lets_its_askers_go() {
        let tries = AtomicU64::new(0);
        let refreshes = Refreshes::new(move |(): ()| {
            let number = tries.fetch_add(1, Ordering::SeqCst);
            async move {
                assert!(number > 0, "the first one fails");
                number
            }
        });
        assert_eq!(refreshes.next(()).await, Err(GivenUp));
        assert_eq!(refreshes.next(()).await, Ok(1));
    }
}
