//! How many bytes of requests one connection may have in flight: started, and not answered.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes are counted in this unit.
const UNIT_BYTES: usize = 1024;

/// One connection's share of what the broker holds for all of them. A request that is larger than the whole share gets through when
/// it is alone.
#[derive(Debug)]
pub(super) struct InFlightBytes {
    units: Arc<Semaphore>,
    max: u32,
}

/// What a request takes of it; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Taken {
    _units: OwnedSemaphorePermit,
}

impl InFlightBytes {
    /// A share of `bytes_max`.
    pub(super) fn new(bytes_max: usize) -> Self {
        let max = u32::try_from((bytes_max / UNIT_BYTES).clamp(1, Semaphore::MAX_PERMITS)).unwrap_or(u32::MAX);
        Self { units: Arc::new(Semaphore::new(max as usize)), max }
    }

    /// Waits until there is room for a request of `bytes`.
    pub(super) async fn take(&self, bytes: usize) -> Taken {
        let units = u32::try_from(bytes.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX).min(self.max);
        let units = Arc::clone(&self.units).acquire_many_owned(units).await;
        Taken { _units: units.expect("nobody closes it") }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures::poll;

    use super::*;

    #[tokio::test]
    async fn a_connection_holds_as_much_as_its_share_and_a_larger_request_waits_until_it_is_alone() {
        let share = InFlightBytes::new(100 * UNIT_BYTES);
        let first = share.take(60 * UNIT_BYTES).await;
        let second = share.take(40 * UNIT_BYTES - 1).await;
        let mut third = pin!(share.take(1));
        assert!(poll!(&mut third).is_pending());
        drop(second);
        let third = third.await;
        let mut large = pin!(share.take(1 << 30));
        assert!(poll!(&mut large).is_pending());
        drop(third);
        assert!(poll!(&mut large).is_pending());
        drop(first);
        large.await;
    }
}
