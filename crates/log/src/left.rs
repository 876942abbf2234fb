//! What stands where `lakebed.json` is missing. A log must not be begun beside it: what is there would be lost out of sight, and its tables would be
//! taken for those of deleted topics.
//!
//! Whoever begins a log creates `lakebed.json` before anything else, so of a broker that was interrupted nothing is left without it.

use std::fmt;

use lakebed_segment::layout;
use lakebed_store::{Directory, Key, Store};

use crate::bucket::key;
use crate::open::OpenError;

/// What was found, of each kind the first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Left {
    /// Whether a recovery was begun and has not come to its end.
    pub recovery: bool,
    /// An object of a log.
    pub log: Option<Key>,
    /// An object of a table.
    pub table: Option<Key>,
}

impl fmt::Display for Left {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let recovery = self.recovery.then(|| format!("'{}' of a recovery that has not ended", layout::RECOVERY_KEY));
        let log = self.log.as_ref().map(|key| format!("'{key}' of a log"));
        let table = self.table.as_ref().map(|key| format!("'{key}' of a table"));
        let all: Vec<String> = [recovery, log, table].into_iter().flatten().collect();
        write!(f, "{} is missing, but there is {}", layout::ROOT_KEY, all.join(", and "))
    }
}

/// Looks for what stands without a root.
///
/// # Cost One HEAD, two LISTs.
pub(crate) async fn left(store: &Store) -> Result<Option<Left>, OpenError> {
    let recovery = store.exists(&key(layout::RECOVERY_KEY)).await.map_err(|source| OpenError::Read { source })?;
    let tables = format!("{}{}", layout::TABLES_PREFIX, layout::NAMESPACE);
    let (log, table) = (first_in(store, layout::CELLS).await?, first_in(store, &tables).await?);
    Ok((recovery || log.is_some() || table.is_some()).then_some(Left { recovery, log, table }))
}

async fn first_in(store: &Store, directory: &str) -> Result<Option<Key>, OpenError> {
    let directory = Directory::new(directory).expect("directories of the layout are portable");
    let listed = store.list(&directory, None, 1).await.map_err(|source| OpenError::List { source })?;
    Ok(listed.objects.into_iter().next().map(|listed| listed.key))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use futures::FutureExt;
    use lakebed_store::faults::{Fault, FaultBackend, Operation, Outcome};
    use lakebed_store::{Backend, MemoryBackend, Payload, StoreOptions};

    use super::*;
    use crate::Log;
    use crate::open::Options;
    use crate::seams::{Offload, Seams};

    fn store() -> Store {
        Store::new("memory://", Arc::new(MemoryBackend::default()), &StoreOptions::default())
    }

    async fn open(store: &Store, seed: u64) -> Result<Log, OpenError> {
        let seams = Seams { wall: Arc::new(|| 0), seed, offload: Offload::Inline };
        Log::open(store.clone(), Options::default(), seams).await
    }

    #[tokio::test]
    async fn no_log_is_begun_beside_what_has_lost_its_root() {
        const LOG: &str = "cells/0/log/0000000000-0000000000000001/000000000000.parquet";
        const FILE: &str = "tables/default/orders/data/01ARZ3NDEKTSV4RRFFQ69G5FAV.parquet";
        for (stands, told) in [
            (
                &[LOG][..],
                "lakebed.json is missing, but there is 'cells/0/log/0000000000-0000000000000001/000000000000.parquet' of a log",
            ),
            (
                &[FILE],
                "lakebed.json is missing, but there is 'tables/default/orders/data/01ARZ3NDEKTSV4RRFFQ69G5FAV.parquet' of a table",
            ),
            (
                &["lakebed-recovery.json", FILE],
                "lakebed.json is missing, but there is 'lakebed-recovery.json' of a recovery that has not ended, and \
                 'tables/default/orders/data/01ARZ3NDEKTSV4RRFFQ69G5FAV.parquet' of a table",
            ),
        ] {
            let store = store();
            for one in stands {
                store.create(&key(one), &b"{}"[..]).await.unwrap();
            }
            let refused = open(&store, 1).await.unwrap_err();
            assert!(matches!(&refused, OpenError::Rootless { left } if left.to_string() == told), "{refused}");
            let everything = store.list(&Directory::root(), None, 100).await.unwrap().objects;
            assert_eq!(everything.len(), stands.len(), "nothing was made");
        }
    }

    #[tokio::test]
    async fn what_is_none_of_a_log_or_a_table_keeps_none_from_beginning() {
        let store = store();
        for foreign in ["notes.txt", "lakebed-check.json", "check/1", "tables/other/orders/data/x", "backup/cells/0/x"]
        {
            store.create(&key(foreign), &b"{}"[..]).await.unwrap();
        }
        open(&store, 1).await.unwrap().abort();
        open(&store, 2).await.unwrap().abort();
    }

    /// However far a broker came that began the log, the next one goes on.
    #[tokio::test]
    async fn a_broker_that_ended_between_its_first_objects_keeps_none_from_beginning() {
        let whole = store();
        open(&whole, 1).await.unwrap().abort();
        let root = key(layout::ROOT_KEY);
        let store = store();
        store.create(&root, whole.get(&root).await.unwrap()).await.unwrap();
        open(&store, 2).await.unwrap().abort();
        assert_eq!(store.get(&root).await.unwrap(), whole.get(&root).await.unwrap());
    }

    /// Another broker begins the log between any two of our requests: its objects are seen, and its root then.
    #[tokio::test]
    async fn a_root_that_another_makes_meanwhile_is_taken() {
        let whole = store();
        open(&whole, 1).await.unwrap().abort();
        let mut objects = Vec::new();
        for listed in whole.list(&Directory::root(), None, 100).await.unwrap().objects {
            objects.push((listed.key.clone(), Payload::from(whole.get(&listed.key).await.unwrap())));
        }
        assert!(objects.len() >= 2, "a root and a takeover");
        for number in 0..5 {
            let backend = Arc::new(MemoryBackend::default());
            let (other, objects, mut requests) = (Arc::clone(&backend), objects.clone(), 0);
            let faults = move |_: &Operation<'_>| {
                if requests == number {
                    for (key, payload) in &objects {
                        other.create(key, payload).now_or_never().expect("memory answers at once").unwrap();
                    }
                }
                requests += 1;
                Fault { before: Duration::ZERO, after: Duration::ZERO, outcome: Outcome::Answered }
            };
            let store = Store::new("memory://", Arc::new(FaultBackend::new(backend, faults)), &StoreOptions::default());
            open(&store, 2).await.unwrap().abort();
            let root = key(layout::ROOT_KEY);
            assert_eq!(store.get(&root).await.unwrap(), whole.get(&root).await.unwrap(), "before request {number}");
        }
    }
}
