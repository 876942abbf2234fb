//! Which flush each flush follows: the log commits a broker's flushes in that order or not at all.
//!
//! A flush follows the last one that was submitted. If the log refuses a flush as a whole, those that follow it are refused too; what is
//! submitted after that follows the last one that was committed.

use std::sync::{Mutex, MutexGuard, PoisonError};

use lakebed_model::FlushId;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Chain {
    ends: Mutex<Ends>,
}

#[derive(Debug, Default)]
struct Ends {
    submitted: Option<FlushId>,
    committed: Option<FlushId>,
}

impl Chain {
    /// `id` is submitted now; gives the flush that it follows.
    pub(crate) fn submit(&self, id: FlushId) -> Option<FlushId> {
        self.lock().submitted.replace(id)
    }

    /// `id` was committed. Flushes are committed in order.
    pub(crate) fn committed(&self, id: FlushId) {
        self.lock().committed = Some(id);
    }

    /// A flush will never be committed.
    pub(crate) fn refused(&self) {
        let mut ends = self.lock();
        ends.submitted = ends.committed;
    }

    fn lock(&self) -> MutexGuard<'_, Ends> {
        self.ends.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_refusal_flushes_follow_the_last_committed_one() {
        let id = |number: u128| FlushId::new(number.into());
        let chain = Chain::default();
        assert_eq!([chain.submit(id(1)), chain.submit(id(2)), chain.submit(id(3))], [None, Some(id(1)), Some(id(2))]);
        chain.committed(id(1));
        chain.refused();
        assert_eq!([chain.submit(id(4)), chain.submit(id(5))], [Some(id(1)), Some(id(4))]);
        chain.refused();
        chain.committed(id(4));
        assert_eq!(chain.submit(id(6)), Some(id(1)), "in order all the same, since the log takes them in this order");
    }
}
