//! Producer ids from the log, and the expiry of producers.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use lakebed_model::{Change, State};
use tokio::sync::oneshot;

use crate::append_error::{AppendError, ChangeError, Closed};
use crate::handle::Log;

impl Log {
    /// Allots `count` producer ids (1 to [`PRODUCER_IDS_AT_ONCE_MAX`](lakebed_model::PRODUCER_IDS_AT_ONCE_MAX)) and waits until that is
    /// durable: nobody else is ever given these numbers of the cell.
    ///
    /// # Errors
    /// [`ChangeError`]: no number is given; those that may have been allotted are given to nobody.
    /// # Cancel The numbers may be allotted, and are given to nobody.
    /// # Cost   A part of one commit.
    pub async fn allot_producer_ids(&self, count: u32) -> Result<Range<u64>, ChangeError> {
        let (told, decided) = oneshot::channel();
        let allot = self.alter(move |state: &State| {
            let first = state.producer_ids_allotted();
            // Whoever asked may be gone.
            let _gone = told.send(first);
            Ok(vec![Change::AllotProducerIds { first, count }])
        });
        if self.broken().gives_ids_in_flight() {
            return self.allot_in_flight(allot, decided, count).await;
        }
        allot.await?;
        let first = decided.await.map_err(|_| AppendError::Unknown { why: Closed::ShuttingDown })?;
        Ok(first..first + u64::from(count))
    }

    /// The broken rule: does not wait for the allotment to become durable.
    async fn allot_in_flight(
        &self,
        allot: impl Future<Output = Result<lakebed_model::Changed, ChangeError>>,
        decided: oneshot::Receiver<u64>,
        count: u32,
    ) -> Result<Range<u64>, ChangeError> {
        let known = async { decided.await.map_err(|_| AppendError::Unknown { why: Closed::ShuttingDown }) };
        tokio::select! {
            biased;
            first = known => first.map(|first| first..first + u64::from(count)),
            allotted = allot => Err(allotted.err().unwrap_or(AppendError::Unknown { why: Closed::ShuttingDown })),
        }
    }

    /// Has the log forget every producer whose last batch was sealed before `before_ms` (milliseconds since 1970); says how many there
    /// were, counted once a partition. Commits nothing if there are none.
    ///
    /// # Errors
    /// [`ChangeError`]
    /// # Cancel It may still happen.
    /// # Cost   Visits all remembered producers; a part of one commit if any are to be forgotten.
    pub async fn expire_producers(&self, before_ms: i64) -> Result<u64, ChangeError> {
        if self.state().idle_producers(before_ms) == 0 {
            return Ok(0);
        }
        self.expire_producers_by(move |_| before_ms).await
    }

    /// As [`Log::expire_producers`]; `choose` names the time, given everything that has been decided before.
    ///
    /// # Errors
    /// [`ChangeError`]
    pub async fn expire_producers_by(
        &self,
        choose: impl FnOnce(&State) -> i64 + Send + 'static,
    ) -> Result<u64, ChangeError> {
        let told = Arc::new(Mutex::new(0));
        let (count, forgets_all) = (Arc::clone(&told), self.broken().forgets_busy_producers());
        self.alter(move |state: &State| {
            let before_ms = if forgets_all { i64::MAX } else { choose(state) };
            let forgotten = state.idle_producers(before_ms);
            *count.lock().unwrap_or_else(PoisonError::into_inner) = forgotten;
            let expire = Change::ExpireProducers { before_ms, forgotten };
            Ok(if forgotten == 0 { Vec::new() } else { vec![expire] })
        })
        .await?;
        let forgotten = *told.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(forgotten)
    }
}
