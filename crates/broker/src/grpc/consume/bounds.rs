//! Where a stream ends by itself: what its `StopBounds` say, checked.

use lakebed_model::Offset;
use lakebed_wire::v1;
use tonic::Status;

use crate::grpc::status::invalid;

/// The bounds of a stream; those that are absent never hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Bounds {
    /// Each partition ends before this offset.
    pub(super) offset: Option<Offset>,
    /// Each partition ends before the first record of this time or later.
    pub(super) timestamp_ms: Option<i64>,
    /// Each partition ends where it ended when the stream began.
    pub(super) latest: bool,
    /// How many more records may be sent.
    pub(super) records_left: Option<u64>,
    /// How many more bytes must be sent for the stream to be over.
    pub(super) bytes_left: Option<u64>,
}

impl Bounds {
    /// The bounds of a request.
    pub(super) fn check(stop: Option<v1::StopBounds>) -> Result<Self, Status> {
        let Some(stop) = stop else { return Ok(Self::default()) };
        let offset = match stop.offset.map(u64::try_from) {
            None => None,
            Some(Ok(offset)) => Some(Offset::new(offset)),
            Some(Err(_)) => return Err(invalid("init.stop.offset", "stop.offset must not be negative")),
        };
        if stop.timestamp.is_some_and(|timestamp_ms| timestamp_ms < 0) {
            return Err(invalid("init.stop.timestamp", "stop.timestamp must not be negative"));
        }
        Ok(Self {
            offset,
            timestamp_ms: stop.timestamp,
            latest: stop.latest,
            records_left: stop.records,
            bytes_left: stop.bytes,
        })
    }

    /// Whether there is any.
    pub(super) fn are_any(&self) -> bool {
        *self != Self::default()
    }

    /// The offset before which a partition ends that ended at `high_watermark` when the stream began.
    pub(super) fn end(&self, high_watermark: Offset) -> Option<Offset> {
        let latest = self.latest.then_some(high_watermark);
        [self.offset, latest].into_iter().flatten().min()
    }

    /// Whether the whole stream has sent what it should.
    pub(super) fn are_reached(&self) -> bool {
        self.records_left == Some(0) || self.bytes_left == Some(0)
    }

    /// Counts what was sent.
    pub(super) fn sent(&mut self, records: u64, bytes: u64) {
        self.records_left = self.records_left.map(|left| left.saturating_sub(records));
        self.bytes_left = self.bytes_left.map(|left| left.saturating_sub(bytes));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_ends_at_the_first_of_its_bounds() {
        let check = |offset, latest| {
            let stop = v1::StopBounds { offset, latest, ..Default::default() };
            Bounds::check(Some(stop)).unwrap().end(Offset::new(10)).map(Offset::get)
        };
        assert_eq!(check(None, false), None);
        assert_eq!(check(Some(5), true), Some(5));
        assert_eq!(check(Some(50), true), Some(10));
        assert_eq!(check(Some(50), false), Some(50));
    }

    #[test]
    fn bounds_that_are_absent_never_hold_and_zero_is_reached_at_once() {
        let mut none = Bounds::check(None).unwrap();
        none.sent(u64::MAX, u64::MAX);
        assert!(!none.are_any() && !none.are_reached());
        let mut some =
            Bounds::check(Some(v1::StopBounds { records: Some(3), bytes: Some(100), ..Default::default() })).unwrap();
        some.sent(2, 99);
        assert!(some.are_any() && !some.are_reached());
        some.sent(0, 50);
        assert!(some.are_reached());
        let zero = v1::StopBounds { records: Some(0), ..Default::default() };
        assert!(Bounds::check(Some(zero)).unwrap().are_reached());
        assert!(Bounds::check(Some(v1::StopBounds { offset: Some(-1), ..Default::default() })).is_err());
        assert!(Bounds::check(Some(v1::StopBounds { timestamp: Some(-1), ..Default::default() })).is_err());
    }
}
