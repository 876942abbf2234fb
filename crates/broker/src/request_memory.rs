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
        if memory.overdraft.is_none() {
            let more = self.more(bytes, memory.holds_some()).await;
            memory.add(more);
        }
    }

    /// As [`RequestBudget::grow`], for a request that keeps what it has at hand meanwhile: what it is given, to be
    /// [added](RequestMemory::add). `holds_some` says whether it has anything.
    pub(crate) async fn more(&self, bytes: usize, holds_some: bool) -> RequestMemory {
        let units = u32::try_from(bytes.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX);
        let held = |permit: Result<_, _>| Some(permit.expect("the semaphore is never closed"));
        tokio::select! {
            biased;
            units = Arc::clone(&self.units).acquire_many_owned(units) => {
                RequestMemory { units: held(units), overdraft: None }
            }
            overdraft = Arc::clone(&self.overdraft).acquire_owned(), if holds_some => {
                RequestMemory { units: None, overdraft: held(overdraft) }
            }
        }
    }
}

impl RequestMemory {
    /// Whether it holds anything.
    pub(crate) fn holds_some(&self) -> bool {
        self.units.is_some()
    }

    /// Adds what was given besides.
    pub(crate) fn add(&mut self, more: Self) {
        match (&mut self.units, more.units) {
            (Some(held), Some(units)) => held.merge(units),
            (none, units) => *none = none.take().or(units),
        }
        self.overdraft = self.overdraft.take().or(more.overdraft);
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
    /// How many units are free.
    #[cfg(test)]
    pub(crate) fn units_free(&self) -> usize {
        self.units.available_permits()
    }

    /// As [`RequestBudget::grow`], if there is room at once.
    pub(crate) fn try_grow(&self, memory: &mut RequestMemory, bytes: usize) -> bool {
        if memory.overdraft.is_some() {
            return true;
        }
        let units = u32::try_from(bytes.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX);
        match Arc::clone(&self.units).try_acquire_many_owned(units) {
            Ok(more) => memory.add(RequestMemory { units: Some(more), overdraft: None }),
            Err(_) => return false,
        }
        true
    }
}
