//! What is asked of [`Fetch`](crate::Fetch), and what it answers.

use std::time::Duration;

use bytes::Bytes;
use lakebed_model::{Offset, PartitionKey};
use lakebed_segment::batch::{Codec, Encoder, Fields, Header, TimestampType};

/// A fetch of several partitions, in the order in which they are served.
#[derive(Debug, Clone)]
pub struct FetchRequest {
    /// The partitions. Those in front are served first when `bytes_max` does not suffice for all: whoever asks again should turn the
    /// order.
    pub partitions: Vec<FetchPartition>,
    /// Most bytes of batches in the answer. The first batch of the answer comes whole even if it is larger.
    pub bytes_max: usize,
    /// The answer waits for so many bytes, an error, or the end of `wait_max`. 0 does not wait.
    pub bytes_min: usize,
    /// Longest wait for `bytes_min`.
    pub wait_max: Duration,
}

/// One partition of a fetch.
#[derive(Debug, Clone, Copy)]
pub struct FetchPartition {
    /// The partition.
    pub key: PartitionKey,
    /// The first offset that is wanted.
    pub offset: Offset,
    /// Most bytes of batches. One batch comes whole even if it is larger, as long as it fits into the request's limit.
    pub bytes_max: usize,
}

/// What a partition has from the wanted offset on.
#[derive(Debug, Clone)]
pub struct Fetched {
    /// Whole batches, ascending by offset. The first holds the wanted offset, and may begin before it; where compaction of keys left a gap, it may
    /// begin after it, or hold nothing from it on.
    pub batches: Vec<FetchedBatch>,
    /// The offset behind the last record that may be read.
    pub high_watermark: Offset,
    /// The first offset that can be read.
    pub log_start: Offset,
    /// Where to go on: behind the last batch, or the wanted offset if there is none.
    pub next_offset: Offset,
}

impl Fetched {
    /// Bytes of all batches.
    pub fn size_bytes(&self) -> usize {
        self.batches.iter().map(FetchedBatch::size_bytes).sum()
    }

    /// The batches as pieces of one stream, to be written one after another. No payload is copied.
    pub fn chunks(&self) -> impl Iterator<Item = Bytes> {
        self.batches.iter().flat_map(FetchedBatch::chunks)
    }
}

/// One record batch with its place in the partition. A clone shares the bytes.
#[derive(Debug, Clone)]
pub struct FetchedBatch {
    /// Offset of its first record.
    pub base_offset: Offset,
    /// The last offset that it covers: that of its last record, unless compaction of keys left a gap behind it.
    pub last_offset: Offset,
    /// Takes the place of the first bytes of `batch`; empty if `batch` is right as it is.
    pub(crate) head: Bytes,
    /// The batch; the base offset in it counts only if `head` is empty.
    pub(crate) batch: Bytes,
}

impl FetchedBatch {
    /// Its bytes with the base offset in place, in one or two pieces.
    pub fn chunks(&self) -> impl Iterator<Item = Bytes> + use<> {
        let head = Some(self.head.clone()).filter(|head| !head.is_empty());
        head.into_iter().chain([self.batch.slice(self.head.len()..)])
    }

    /// How many bytes it has.
    pub fn size_bytes(&self) -> usize {
        self.batch.len()
    }

    /// Whether its records must be decompressed.
    pub fn is_compressed(&self) -> bool {
        let header = Header::peek(&self.batch).map(|header| header.attributes.codec());
        !matches!(header, Ok(Ok(Codec::None)))
    }

    /// How many records it has.
    pub fn records(&self) -> u64 {
        Header::peek(&self.batch).map_or(0, |header| u64::from(header.count))
    }

    /// A batch without records over offsets that no record has, or over as many of them as a batch can cover.
    pub(crate) fn covering(offsets: std::ops::Range<Offset>) -> Self {
        let fields = Fields {
            codec: Codec::None,
            timestamp_type: TimestampType::Create,
            producer: None,
            is_transactional: false,
        };
        let wire = |offset: Offset| i64::try_from(offset.get()).unwrap_or(i64::MAX);
        let (batch, last) = Encoder::empty(fields, wire(offsets.start), wire(offsets.end) - 1);
        let last_offset = u64::try_from(last).map_or(offsets.start, Offset::new);
        Self { base_offset: offsets.start, last_offset, head: Bytes::new(), batch }
    }

    /// The offset behind the last that it covers.
    pub fn next_offset(&self) -> Offset {
        Offset::new(self.last_offset.get() + 1)
    }

    /// The batch for decoding; the base offset in it is without meaning.
    pub(crate) fn encoded(&self) -> &Bytes {
        &self.batch
    }
}

/// Why a partition can't be read. It says nothing of the other partitions of the request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// No such topic or partition; proven behind a barrier.
    #[error("topic or partition does not exist")]
    UnknownTopicOrPartition,
    /// The offset lies outside of the log; proven behind a barrier.
    #[error("offset {offset} is outside of {log_start}..={high_watermark}")]
    OffsetOutOfRange {
        /// What was asked for.
        offset: Offset,
        /// The first offset that can be read.
        log_start: Offset,
        /// The offset that the next record gets.
        high_watermark: Offset,
    },
    /// An object that the log names is gone or has other bytes than were written. Offsets that lie in other objects can be read.
    #[error("object {object} is damaged: {what}")]
    Damaged {
        /// Its key.
        object: String,
        /// What is wrong with it.
        what: String,
    },
    /// Not now; asking again may help.
    #[error("not available: {why}")]
    Unavailable {
        /// What stood in the way.
        why: String,
    },
}
