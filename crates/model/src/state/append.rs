//! How a flush is appended: the rules that give each batch its outcome.

use std::sync::Arc;

use super::{FlushOutcome, Object, ObjectId, Partition, Refusal, Run, State};
use crate::commit::{BatchFacts, BatchRefusal, Flush, FlushBody, Outcome, TimestampRange};
use crate::hash::RowsHash;
use crate::ids::{FlushId, Offset, PartitionKey, SegmentId};
use crate::producer::{Judgement, RecentBatch, judge, remember};

impl State {
    /// Decides the outcome of every batch of a flush, and appends what is appended.
    ///
    /// # Errors
    /// [`Refusal`] of the flush as a whole: an id below the boundary or committed before, or rows that overlap. On an error the
    /// caller drops this state.
    ///
    /// # Cost
    /// One read and one write of each partition, one write of each run and one of the object, whatever the number of batches; a
    /// batch of an idempotent producer reads and writes what is remembered of it.
    pub(crate) fn append_flush(&mut self, flush: &FlushFacts<'_>) -> Result<Arc<FlushOutcome>, Refusal> {
        let segment = SegmentId::from(flush.id);
        if segment < self.boundary {
            return Err(Refusal::BelowReclaimBoundary { id: segment, boundary: self.boundary });
        }
        if self.flushes.contains_key(&flush.id) || self.objects.contains_key(&ObjectId::Segment(segment)) {
            return Err(Refusal::SegmentKnown { segment });
        }
        // What lies below the boundary is committed or never will be.
        if let Some(previous) = flush.previous.filter(|previous| SegmentId::from(*previous) >= self.boundary)
            && !self.flushes.contains_key(&previous)
        {
            return Err(Refusal::FlushOutOfOrder { id: flush.id, previous });
        }
        check_rows(flush)?;
        let id = match flush.body {
            FlushBody::Inline => ObjectId::Commit(self.number),
            FlushBody::Segment => ObjectId::Segment(segment),
        };
        let mut object = Object::default();
        let runs =
            flush.runs.iter().map(|run| (run.partition, self.append_run(id, &mut object, run, flush.ingest_time_ms)));
        let runs = runs.collect();
        if object.live_runs > 0 {
            self.objects.insert(id, object);
        }
        self.highest = self.highest.max(segment);
        let outcome = Arc::new(FlushOutcome { number: self.number, runs });
        self.remember(flush.id, Arc::clone(&outcome));
        Ok(outcome)
    }

    /// Appends the batches of one partition as as few runs as there are gaps of rows that are not appended, and counts them in
    /// `object`.
    fn append_run(
        &mut self,
        id: ObjectId,
        object: &mut Object,
        facts: &RunFacts<'_>,
        ingest_time_ms: i64,
    ) -> Vec<Outcome> {
        let key = facts.partition;
        let Some(before) = self.partition(key) else {
            let known = self.topics.contains_key(&key.topic);
            let refusal = if known { BatchRefusal::UnknownPartition } else { BatchRefusal::UnknownTopic };
            return vec![Outcome::Refused(refusal); facts.batches.len()];
        };
        let mut high_watermark = before.high_watermark;
        let mut outcomes = Vec::with_capacity(facts.batches.len());
        let mut open: Option<(Offset, Run)> = None;
        let mut row = facts.first_row;
        for batch in &facts.batches {
            let (outcome, end) = self.append_batch(key, high_watermark, batch, ingest_time_ms);
            if let Outcome::Appended(base) = outcome {
                match &mut open {
                    Some((_, run)) if run.first_row + run.rows == row => extend(run, batch),
                    _ => {
                        self.close_run(key, object, open.take());
                        open = Some((base, start(id, row, batch)));
                    }
                }
            }
            outcomes.push(outcome);
            high_watermark = end;
            row += u64::from(batch.rows);
        }
        self.close_run(key, object, open);
        if high_watermark != before.high_watermark {
            self.partitions.insert(key, Partition { high_watermark, ..before });
        }
        outcomes
    }

    /// Decides what comes of a batch at the end of its partition; returns that and where the partition ends afterwards.
    fn append_batch(
        &mut self,
        key: PartitionKey,
        base: Offset,
        batch: &BatchFacts,
        ingest_time_ms: i64,
    ) -> (Outcome, Offset) {
        let Some(end) = base.checked_add(u64::from(batch.rows)) else {
            return (Outcome::Refused(BatchRefusal::OffsetsExhausted), base);
        };
        // SUBTLE: a batch that is sent again was expected where it stands: a duplicate comes before the expectation.
        let known = batch.producer.as_ref().map(|stamp| self.producers.get(&(key, stamp.id)));
        if let (Some(stamp), Some(known)) = (&batch.producer, known) {
            match judge(known, stamp, batch.rows) {
                Judgement::Append => {}
                Judgement::Duplicate(offset) => return (Outcome::Duplicate(offset), base),
                Judgement::Refuse(refusal) => return (Outcome::Refused(refusal), base),
            }
        }
        if batch.expected_next_offset.is_some_and(|expected| expected != base) {
            return (Outcome::Refused(BatchRefusal::OffsetMismatch { next: base }), base);
        }
        if let (Some(stamp), Some(known)) = (&batch.producer, known) {
            let recent = RecentBatch { first: stamp.sequence, rows: batch.rows, base_offset: base };
            let remembered = remember(known, stamp.epoch, recent, ingest_time_ms);
            self.remember_producer(key, stamp.id, remembered);
        }
        (Outcome::Appended(base), end)
    }

    fn close_run(&mut self, key: PartitionKey, object: &mut Object, run: Option<(Offset, Run)>) {
        if let Some((base, run)) = run {
            object.count(&run);
            self.runs.insert((key, base), run);
        }
    }
}

fn start(object: ObjectId, first_row: u64, batch: &BatchFacts) -> Run {
    let mut run =
        Run { rows: 0, span: 0, clean: false, object, first_row, bytes: 0, timestamps: None, hash: RowsHash::EMPTY };
    extend(&mut run, batch);
    run
}

fn extend(run: &mut Run, batch: &BatchFacts) {
    let rows = u64::from(batch.rows);
    run.hash = run.hash.concat(batch.hash, rows);
    run.rows += rows;
    run.span += rows;
    run.bytes += batch.bytes;
    run.timestamps = TimestampRange::union(run.timestamps, batch.timestamps);
}

/// Rows of a flush lie one after another from 0, no partition comes twice, and its bytes can be counted.
fn check_rows(flush: &FlushFacts<'_>) -> Result<(), Refusal> {
    let malformed = |what| Err(Refusal::Malformed { what });
    let mut next_row = 0_u64;
    let mut bytes = 0_u64;
    let mut previous: Option<PartitionKey> = None;
    for run in &flush.runs {
        if run.first_row != next_row || run.batches.is_empty() {
            return malformed("the runs of a flush lie one after another from row 0");
        }
        if previous.is_some_and(|previous| previous >= run.partition) {
            return malformed("the runs of a flush ascend by partition");
        }
        previous = Some(run.partition);
        for batch in &run.batches {
            if batch.rows == 0 {
                return malformed("a batch without rows");
            }
            if batch.producer.as_ref().is_some_and(|stamp| !stamp.is_set()) {
                return malformed("a producer's stamp with an id, an epoch or a sequence below 0");
            }
            next_row += u64::from(batch.rows);
            let Some(sum) = bytes.checked_add(batch.bytes) else {
                return malformed("the batches of a flush have more bytes than can be counted");
            };
            bytes = sum;
        }
    }
    if flush.runs.is_empty() { malformed("a flush without runs") } else { Ok(()) }
}

/// A flush without its outcomes: what the rules judge.
pub(crate) struct FlushFacts<'a> {
    pub(crate) id: FlushId,
    pub(crate) previous: Option<FlushId>,
    pub(crate) body: FlushBody,
    pub(crate) ingest_time_ms: i64,
    pub(crate) runs: Vec<RunFacts<'a>>,
}

/// A run of a flush without its outcomes.
pub(crate) struct RunFacts<'a> {
    pub(crate) partition: PartitionKey,
    pub(crate) first_row: u64,
    pub(crate) batches: Vec<&'a BatchFacts>,
}

impl<'a> FlushFacts<'a> {
    pub(super) fn of(flush: &'a Flush) -> Self {
        let runs = flush.runs.iter().map(|run| RunFacts {
            partition: run.partition,
            first_row: run.first_row,
            batches: run.batches.iter().map(|(facts, _)| facts).collect(),
        });
        Self {
            id: flush.id,
            previous: flush.previous,
            body: flush.body,
            ingest_time_ms: flush.ingest_time_ms,
            runs: runs.collect(),
        }
    }
}
