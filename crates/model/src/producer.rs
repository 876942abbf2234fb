//! Idempotence: what a partition remembers of a producer, and the rule that judges its next batch.
//!
//! The rule is Kafka's (KIP-98, KIP-360): the last five batches are remembered, a batch that equals one of them is a duplicate,
//! anything else must continue the sequence. It was compared with Kafka 4's `ProducerAppendInfo` and `ProducerStateEntry`: an older epoch is
//! refused before anything else, a new epoch begins at sequence 0, and a producer of which nothing is remembered may begin anywhere.
//!
//! A producer id is the cell that gave it and a number that the cell gives once: see [`ProducerId::of`].

use std::collections::VecDeque;

use crate::commit::{BatchRefusal, ProducerStamp};
use crate::ids::{Cell, Offset, ProducerEpoch, ProducerId, Sequence};

/// How many batches are remembered per producer and partition (Kafka's number; clients keep at most five in flight).
pub const RECENT_BATCHES: usize = 5;

/// How many ids a cell can give: the rest of the 63 bits names the cell.
pub const NUMBERS_MAX: u64 = 1 << NUMBER_BITS;
const NUMBER_BITS: u32 = 47;

impl ProducerId {
    /// The id that `cell` makes of a number that was allotted to it; `None` from [`NUMBERS_MAX`] on. Bits 0 to 46 hold the number, 47 to 62
    /// the cell; bit 63 is 0, since Kafka's ids are not negative.
    pub const fn of(cell: Cell, number: u64) -> Option<Self> {
        if number < NUMBERS_MAX { Some(Self::new(((cell.get() as i64) << NUMBER_BITS) | number as i64)) } else { None }
    }

    /// The cell that gave it, if a cell did; `None` of a negative one.
    pub const fn cell(self) -> Option<Cell> {
        if self.get() < 0 { None } else { Some(Cell::new((self.get() >> NUMBER_BITS) as u16)) }
    }
}

/// One remembered batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecentBatch {
    /// Sequence of its first record.
    pub first: Sequence,
    /// How many records it had.
    pub rows: u32,
    /// Offset of its first record.
    pub base_offset: Offset,
}

/// What a partition remembers of one producer. Invariant: 1 to [`RECENT_BATCHES`] batches, oldest first, all of `epoch`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Producer {
    /// The highest epoch seen.
    pub epoch: ProducerEpoch,
    /// When its last batch that was appended was sealed: the ingest time of that flush, in milliseconds since 1970.
    pub last_ms: i64,
    /// The last batches, oldest first.
    pub recent: VecDeque<RecentBatch>,
}

/// What becomes of a batch with a producer's stamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judgement {
    /// It continues the sequence.
    Append,
    /// It was appended before, at this offset.
    Duplicate(Offset),
    /// It is refused.
    Refuse(BatchRefusal),
}

/// Judges a batch of `rows` records against what the partition remembers of its producer.
pub fn judge(known: Option<&Producer>, stamp: &ProducerStamp, rows: u32) -> Judgement {
    // A partition that remembers nothing accepts any sequence: what it remembered may have been deleted (KIP-360).
    let Some(known) = known else { return Judgement::Append };
    if stamp.epoch < known.epoch {
        return Judgement::Refuse(BatchRefusal::InvalidProducerEpoch);
    }
    if stamp.epoch > known.epoch {
        return if stamp.sequence == Sequence::ZERO {
            Judgement::Append
        } else {
            Judgement::Refuse(BatchRefusal::OutOfOrderSequence)
        };
    }
    if let Some(same) = known.recent.iter().find(|batch| batch.first == stamp.sequence && batch.rows == rows) {
        return Judgement::Duplicate(same.base_offset);
    }
    match known.recent.back() {
        Some(last) if last.first.advance(last.rows) != stamp.sequence => {
            Judgement::Refuse(BatchRefusal::OutOfOrderSequence)
        }
        _ => Judgement::Append,
    }
}

/// What the partition remembers after `batch` was appended by a flush of `ingest_time_ms`.
pub fn remember(known: Option<&Producer>, epoch: ProducerEpoch, batch: RecentBatch, ingest_time_ms: i64) -> Producer {
    let mut recent = match known {
        Some(known) if known.epoch == epoch => known.recent.clone(),
        _ => VecDeque::new(),
    };
    if recent.len() == RECENT_BATCHES {
        recent.pop_front();
    }
    recent.push_back(batch);
    Producer { epoch, last_ms: ingest_time_ms, recent }
}
