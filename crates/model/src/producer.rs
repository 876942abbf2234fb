//! Idempotence: what a partition remembers of a producer, and the rule that judges its next batch.
//!
//! The rule is Kafka's (KIP-98, KIP-360): the last five batches are remembered, a batch that equals one of them is a duplicate,
//! anything else must continue the sequence.

use std::collections::VecDeque;

use crate::commit::{BatchRefusal, ProducerStamp};
use crate::ids::{Offset, ProducerEpoch, Sequence};

/// How many batches are remembered per producer and partition (Kafka's number; clients keep at most five in flight).
pub const RECENT_BATCHES: usize = 5;

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

/// What the partition remembers after the batch was appended.
pub fn remember(known: Option<&Producer>, stamp: &ProducerStamp, rows: u32, base_offset: Offset) -> Producer {
    let mut recent = match known {
        Some(known) if known.epoch == stamp.epoch => known.recent.clone(),
        _ => VecDeque::new(),
    };
    if recent.len() == RECENT_BATCHES {
        recent.pop_front();
    }
    recent.push_back(RecentBatch { first: stamp.sequence, rows, base_offset });
    Producer { epoch: stamp.epoch, recent }
}
