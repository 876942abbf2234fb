//! Batches: of records that wait for others, and on their way.

use lakebed_wire::v1;
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::Instant;

use super::{Pending, Stored};
use crate::error::ClientError;

/// Records of one partition, in order.
pub(super) struct Batch {
    pub(super) partition: i32,
    /// Its place among all batches of the producer; its correlation id too.
    pub(super) number: u64,
    pub(super) bytes: usize,
    /// When it may be tried no more. Set when it is complete.
    pub(super) deadline: Instant,
    /// When its first record came.
    pub(super) begun: Instant,
    /// The offset that its first record must get.
    pub(super) expected: Option<i64>,
    /// An earlier attempt may have stored it.
    pub(super) maybe_stored: bool,
    records: Vec<v1::Record>,
    waiting: Vec<Waiting>,
}

struct Waiting {
    answer: oneshot::Sender<Result<Stored, ClientError>>,
    _room: OwnedSemaphorePermit,
}

impl Batch {
    pub(super) fn new(partition: i32, now: Instant) -> Self {
        Self {
            partition,
            number: 0,
            bytes: 0,
            deadline: now,
            begun: now,
            expected: None,
            maybe_stored: false,
            records: Vec::new(),
            waiting: Vec::new(),
        }
    }

    pub(super) fn push(&mut self, pending: Pending) {
        let Pending { record, bytes, answer, _room, .. } = pending;
        self.bytes += bytes;
        self.records.push(record);
        self.waiting.push(Waiting { answer, _room });
    }

    pub(super) fn len(&self) -> usize {
        self.records.len()
    }

    /// The offset after its last record, if it got the one that it must get.
    pub(super) fn expected_end(&self) -> Option<i64> {
        self.expected.map(|expected| expected + self.records.len() as i64)
    }

    /// What goes down the stream. Values are shared, not copied.
    pub(super) fn message(&self) -> v1::ProduceBatch {
        v1::ProduceBatch {
            correlation_id: self.number,
            partition: Some(self.partition),
            payload: Some(v1::produce_batch::Payload::Records(v1::Records { records: self.records.clone() })),
            expected_next_offset: self.expected,
        }
    }

    /// Tells every record that it is stored, from `base_offset` on.
    pub(super) fn stored(self, base_offset: i64, log_append_time: Option<i64>) {
        let partition = self.partition;
        for (offset, waiting) in (base_offset..).zip(self.waiting) {
            // Who does not wait does not want to know.
            drop(waiting.answer.send(Ok(Stored { partition, offset, log_append_time })));
        }
    }

    /// Tells every record that it failed.
    pub(super) fn failed(self, error: &ClientError) {
        for waiting in self.waiting {
            drop(waiting.answer.send(Err(error.clone())));
        }
    }
}
