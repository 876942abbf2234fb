//! The memory that requests take while they are read and worked on, whatever the protocol: accounted broker-wide, step by step as
//! their bytes arrive.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Memory is accounted in this unit.
const UNIT_BYTES: usize = 1024;

/// Memory that requests of all connections share.
#[derive(Debug, Clone)]
pub(crate) struct RequestBudget {
    units: Arc<Semaphore>,
    /// The right to go beyond the budget, for one request at a time.
    overdraft: Arc<Semaphore>,
}

/// The budgets of all requests: producers that wait, for whatever reason, leave room for everybody else.
#[derive(Debug, Clone)]
pub(crate) struct RequestBudgets {
    pub(crate) produce: RequestBudget,
    pub(crate) other: RequestBudget,
}

impl RequestBudgets {
    /// Budgets of `bytes` together; most of it is for Produce.
    pub(crate) fn new(bytes: usize) -> Self {
        let other = bytes / 4;
        Self { produce: RequestBudget::new(bytes - other), other: RequestBudget::new(other) }
    }
}

/// A request's share of the budget; given back when it is dropped.
#[derive(Debug, Default)]
pub(crate) struct RequestMemory {
    units: Option<OwnedSemaphorePermit>,
    overdraft: Option<OwnedSemaphorePermit>,
}

impl RequestBudget {
    /// A budget of `bytes`.
    pub(crate) fn new(bytes: usize) -> Self {
        let units = (bytes / UNIT_BYTES).clamp(1, Semaphore::MAX_PERMITS);
        Self { units: Arc::new(Semaphore::new(units)), overdraft: Arc::new(Semaphore::new(1)) }
    }

    /// Waits until there is room for `bytes` more of a request.
    ///
    /// SUBTLE: requests that each hold a part of the budget and wait for more would wait for one another for ever. One of them at a
    /// time may go beyond the budget until it is whole, so what is held is at most the budget and one request.
    pub(crate) async fn grow(&self, memory: &mut RequestMemory, bytes: usize) {
        if memory.overdraft.is_some() {
            return;
        }
        let units = u32::try_from(bytes.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX);
        tokio::select! {
            biased;
            more = Arc::clone(&self.units).acquire_many_owned(units) => {
                let more = more.expect("the semaphore is never closed");
                memory.add(more);
            }
            overdraft = Arc::clone(&self.overdraft).acquire_owned(), if memory.units.is_some() => {
                memory.overdraft = Some(overdraft.expect("the semaphore is never closed"));
            }
        }
    }
}

impl RequestMemory {
    fn add(&mut self, more: OwnedSemaphorePermit) {
        match &mut self.units {
            Some(held) => held.merge(more),
            None => self.units = Some(more),
        }
    }

    /// How many bytes are accounted for; one that goes beyond the budget holds more.
    pub(crate) fn bytes(&self) -> usize {
        self.units.as_ref().map_or(0, |units| units.num_permits() * UNIT_BYTES)
    }

    /// Gives back what is not needed for `bytes`.
    pub(crate) fn shrink(&mut self, bytes: usize) {
        let beyond = self.bytes().saturating_sub(bytes) / UNIT_BYTES;
        if let Some(units) = &mut self.units {
            drop(units.split(beyond));
        }
        if self.bytes() >= bytes {
            self.overdraft = None;
        }
    }
}

impl RequestBudget {
    /// As [`RequestBudget::grow`], if there is room at once.
    pub(crate) fn try_grow(&self, memory: &mut RequestMemory, bytes: usize) -> bool {
        if memory.overdraft.is_some() {
            return true;
        }
        let units = u32::try_from(bytes.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX);
        match Arc::clone(&self.units).try_acquire_many_owned(units) {
            Ok(more) => memory.add(more),
            Err(_) => return false,
        }
        true
    }
}
