//! Producer ids for clients: taken from blocks that the log has allotted to this broker.
//!
//! 1. An id is given once: a block is durable before its first id is given, and is never given back.
//! 2. One block is asked for at a time; whoever needs an id meanwhile waits for that one.

use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

use lakebed_log::{AppendError, Log};
use lakebed_model::ProducerId;
use tokio::sync::Semaphore;

use crate::reason::Reason;
use crate::topics::{CHANGE_TIME_MAX, Unanswered};

/// Ids of one block (as Kafka's): one commit for so many new producers.
const BLOCK: u32 = 1000;

/// See the module.
#[derive(Debug)]
pub struct ProducerIds {
    log: Log,
    block: Mutex<Range<u64>>,
    /// The turn to ask for a block.
    asking: Semaphore,
}

/// Why no id was given.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProducerIdError {
    /// No block could be allotted.
    #[error("no producer ids could be allotted: {0}")]
    Append(#[from] AppendError),
    /// The store did not say in time.
    #[error("no producer ids could be allotted: {0}")]
    Unanswered(#[from] Unanswered),
    /// The cell has given all that it has.
    #[error("the cell has no producer ids left")]
    Exhausted,
}

impl From<&ProducerIdError> for Reason {
    fn from(error: &ProducerIdError) -> Self {
        match error {
            ProducerIdError::Append(AppendError::Refused(_)) | ProducerIdError::Exhausted => Self::Internal,
            ProducerIdError::Append(error) => Self::from(error),
            ProducerIdError::Unanswered(_) => Self::StoreUnavailable,
        }
    }
}

impl ProducerIds {
    /// Ids of the log's cell.
    pub fn new(log: Log) -> Self {
        Self { log, block: Mutex::new(0..0), asking: Semaphore::new(1) }
    }

    /// An id that nobody was given before.
    ///
    /// # Errors
    /// [`ProducerIdError`]
    /// # Cancel
    /// An id may be lost.
    /// # Cost
    /// One commit for every thousandth.
    pub async fn next(&self) -> Result<ProducerId, ProducerIdError> {
        if let Some(number) = self.block().next() {
            return self.id(number);
        }
        let _turn = self.asking.acquire().await.expect("nobody closes the turn");
        // Whoever had the turn before may have brought a block.
        if let Some(number) = self.block().next() {
            return self.id(number);
        }
        let allotting = tokio::time::timeout(CHANGE_TIME_MAX, self.log.allot_producer_ids(BLOCK));
        let mut allotted = allotting.await.map_err(|_| Unanswered)??;
        let number = allotted.next().ok_or(ProducerIdError::Exhausted)?;
        *self.block() = allotted;
        self.id(number)
    }

    fn block(&self) -> MutexGuard<'_, Range<u64>> {
        self.block.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn id(&self, number: u64) -> Result<ProducerId, ProducerIdError> {
        ProducerId::of(self.log.identity().cell, number).ok_or(ProducerIdError::Exhausted)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;

    use lakebed_log::{Closed, Offload, Options, Seams};
    use lakebed_store::{MemoryBackend, Store, StoreOptions};

    use super::*;

    async fn log_on(backend: &Arc<MemoryBackend>) -> Log {
        let store = Store::new("memory://", Arc::clone(backend) as _, &StoreOptions::default());
        let seams = Seams { wall: Arc::new(|| 0), seed: 1, offload: Offload::Inline };
        Log::open(store, Options::default(), seams).await.unwrap()
    }

    async fn take(ids: &ProducerIds, count: usize, given: &mut BTreeSet<ProducerId>) {
        let taken = futures::future::join_all((0..count).map(|_| ids.next())).await;
        for id in taken {
            assert!(given.insert(id.unwrap()), "given twice");
        }
    }

    #[tokio::test]
    async fn no_id_is_given_twice_and_a_thousand_cost_one_commit() {
        let log = log_on(&Arc::default()).await;
        let ids = ProducerIds::new(log.clone());
        let (before, mut given) = (log.state().number().get(), BTreeSet::new());
        take(&ids, 1000, &mut given).await;
        assert_eq!(log.state().number().get(), before + 1);
        take(&ids, 1, &mut given).await;
        assert_eq!(log.state().number().get(), before + 2);
        assert_eq!(given.last().map(|id| id.get()), Some(1000), "cell 0 counts from 0");
    }

    #[tokio::test]
    async fn a_successor_gives_other_ids_and_the_fenced_broker_none_beyond_its_block() {
        let backend = Arc::default();
        let (first, mut given) = (ProducerIds::new(log_on(&backend).await), BTreeSet::new());
        take(&first, 10, &mut given).await;
        let second = ProducerIds::new(log_on(&backend).await);
        take(&second, 1500, &mut given).await;
        take(&first, 990, &mut given).await;
        let refused = first.next().await.unwrap_err();
        assert!(
            matches!(refused, ProducerIdError::Append(AppendError::NotDone { why: Closed::Fenced { .. } })),
            "{refused}"
        );
        assert_eq!(Reason::from(&refused), Reason::Fenced);
    }
}
