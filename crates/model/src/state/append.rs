//! How a flush is appended: the rules that give each batch its outcome.

use std::sync::Arc;

use super::{FlushFacts, FlushOutcome, ObjectId, Refusal, Run, State};
use crate::commit::{BatchFacts, BatchRefusal, FlushBody, Outcome, TimestampRange};
use crate::hash::RowsHash;
use crate::ids::{Offset, PartitionKey, SegmentId};
use crate::producer::{Judgement, judge, remember};

impl State {
    /// Decides the outcome of every batch of a flush, and appends what is appended.
    ///
    /// # Errors
    /// [`Refusal`] of the flush as a whole: an id below the boundary or committed before, or rows that overlap. On an error the
    /// caller drops this state.
    pub(crate) fn append_flush(&mut self, flush: &FlushFacts<'_>) -> Result<Arc<FlushOutcome>, Refusal> {
        let segment = SegmentId::from(flush.id);
        if segment < self.boundary {
            return Err(Refusal::BelowReclaimBoundary { id: segment, boundary: self.boundary });
        }
        if self.flushes.contains_key(&flush.id) || self.objects.contains_key(&ObjectId::Segment(segment)) {
            return Err(Refusal::SegmentKnown { segment });
        }
        check_rows(flush)?;
        let object = match flush.body {
            FlushBody::Inline => ObjectId::Commit(self.number),
            FlushBody::Segment => ObjectId::Segment(segment),
        };
        let mut runs = Vec::with_capacity(flush.runs.len());
        for (key, first_row, batches) in &flush.runs {
            runs.push((*key, self.append_run(object, *key, *first_row, batches)));
        }
        self.highest = self.highest.max(segment);
        let outcome = Arc::new(FlushOutcome { number: self.number, runs });
        self.flushes.insert(flush.id, Arc::clone(&outcome));
        Ok(outcome)
    }

    fn append_run(
        &mut self,
        object: ObjectId,
        key: PartitionKey,
        first_row: u64,
        batches: &[&BatchFacts],
    ) -> Vec<Outcome> {
        let mut outcomes = Vec::with_capacity(batches.len());
        let mut open: Option<(Offset, Run)> = None;
        let mut row = first_row;
        for batch in batches {
            let outcome = self.append_batch(key, batch);
            match outcome {
                Outcome::Appended(offset) => match &mut open {
                    Some((_, run)) if run.first_row + run.rows == row => extend(run, batch),
                    _ => {
                        self.close_run(key, open.take());
                        open = Some((offset, start(object, row, batch)));
                    }
                },
                Outcome::Duplicate(_) | Outcome::Refused(_) => {}
            }
            outcomes.push(outcome);
            row += u64::from(batch.rows);
        }
        self.close_run(key, open);
        outcomes
    }

    fn append_batch(&mut self, key: PartitionKey, batch: &BatchFacts) -> Outcome {
        let Some(partition) = self.partitions.get(&key).copied() else {
            let known = self.topics.contains_key(&key.topic);
            return Outcome::Refused(if known { BatchRefusal::UnknownPartition } else { BatchRefusal::UnknownTopic });
        };
        let base = partition.high_watermark;
        let Some(end) = base.checked_add(u64::from(batch.rows)) else {
            return Outcome::Refused(BatchRefusal::OffsetsExhausted);
        };
        if let Some(stamp) = &batch.producer {
            let known = self.producers.get(&(key, stamp.id));
            match judge(known, stamp, batch.rows) {
                Judgement::Append => {}
                Judgement::Duplicate(offset) => return Outcome::Duplicate(offset),
                Judgement::Refuse(refusal) => return Outcome::Refused(refusal),
            }
            let remembered = remember(known, stamp, batch.rows, base);
            self.producers.insert((key, stamp.id), remembered);
        }
        self.partitions.insert(key, super::Partition { high_watermark: end, ..partition });
        Outcome::Appended(base)
    }

    fn close_run(&mut self, key: PartitionKey, run: Option<(Offset, Run)>) {
        if let Some((base, run)) = run {
            self.name(&run);
            self.runs.insert((key, base), run);
        }
    }
}

fn start(object: ObjectId, first_row: u64, batch: &BatchFacts) -> Run {
    let mut run = Run { rows: 0, object, first_row, bytes: 0, timestamps: None, hash: RowsHash::EMPTY };
    extend(&mut run, batch);
    run
}

fn extend(run: &mut Run, batch: &BatchFacts) {
    let rows = u64::from(batch.rows);
    run.hash = run.hash.concat(batch.hash, rows);
    run.rows += rows;
    run.bytes += batch.bytes;
    run.timestamps = TimestampRange::union(run.timestamps, batch.timestamps);
}

/// Rows of a flush lie one after another from 0, and no partition comes twice.
fn check_rows(flush: &FlushFacts<'_>) -> Result<(), Refusal> {
    let malformed = |what| Err(Refusal::Malformed { what });
    let mut next_row = 0_u64;
    let mut previous: Option<PartitionKey> = None;
    for (key, first_row, batches) in &flush.runs {
        if *first_row != next_row || batches.is_empty() {
            return malformed("the runs of a flush lie one after another from row 0");
        }
        if previous.is_some_and(|previous| previous >= *key) {
            return malformed("the runs of a flush ascend by partition");
        }
        previous = Some(*key);
        for batch in batches {
            if batch.rows == 0 {
                return malformed("a batch without rows");
            }
            next_row += u64::from(batch.rows);
        }
    }
    if flush.runs.is_empty() { malformed("a flush without runs") } else { Ok(()) }
}
