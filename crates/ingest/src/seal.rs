//! Sealing: from the batches of one flush to a body, a proposal, and the way back from the outcome to each batch.
//!
//! 1. Rows are sorted by (topic, partition, arrival).
//! 2. Consecutive batches of a partition that have no idempotent producer and expect no offset are proposed as one, because they share their fate; the outcome
//!    of each is that of the group, so many rows further on.
//! 3. A batch keeps its answer from here to the end: whatever becomes of the flush, each is answered once.

use bytes::Bytes;
use lakebed_model::{
    BatchFacts, FlushBody, FlushId, FlushOutcome, FlushProposal, Nonce, Offset, Outcome, PartitionKey, ProposedRun,
    State, TimestampRange,
};
use lakebed_segment::batch::with_log_append_time;
use lakebed_segment::body::{self, Body};
use lakebed_segment::row_hash::facts;
use lakebed_segment::rows::BodyBatch;
use lakebed_store::BufferPool;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::admit::Admitted;
use crate::ticket::{Answer, Obstacle, ProduceError, Produced};

/// A batch that was committed, with its place.
#[derive(Debug, Clone)]
pub struct Committed {
    /// The partition that it was appended to.
    pub partition: PartitionKey,
    /// Offset of its first record.
    pub base_offset: Offset,
    /// Offset of its last record.
    pub last_offset: Offset,
    /// The batch as its producer sent it, or as it was stamped in a topic with log append time. Its own base offset is without meaning.
    pub batch: Bytes,
}

impl Committed {
    /// How many records it has.
    pub(crate) fn records(&self) -> u64 {
        self.last_offset.get() + 1 - self.base_offset.get()
    }
}

/// A batch in the buffer.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) key: PartitionKey,
    pub(crate) admitted: Admitted,
    pub(crate) answer: oneshot::Sender<Answer>,
}

impl Entry {
    /// Answers that the batch was not taken.
    pub(crate) fn turn_away(self, why: Obstacle) {
        drop(self.answer.send(Err(ProduceError::NotDone { why })));
    }
}

/// What is in one flush.
#[derive(Debug)]
pub(crate) struct Load {
    pub(crate) entries: Vec<Entry>,
    /// The bytes of the buffer that these entries take.
    pub(crate) room: Option<OwnedSemaphorePermit>,
}

/// A flush that can be committed.
#[derive(Debug)]
pub(crate) struct Sealed {
    pub(crate) runs: Vec<ProposedRun>,
    pub(crate) ingest_time_ms: i64,
    pub(crate) body: Body,
    pub(crate) owed: Owed,
}

/// The answers that a flush owes.
#[derive(Debug)]
pub(crate) struct Owed {
    batches: Vec<OwedBatch>,
    room: Option<OwnedSemaphorePermit>,
}

#[derive(Debug)]
struct OwedBatch {
    key: PartitionKey,
    batch: Bytes,
    rows: u32,
    log_append_time_ms: Option<i64>,
    answer: oneshot::Sender<Answer>,
    /// Which of the proposed runs, which of its batches, and how many rows of that come before.
    run: usize,
    group: usize,
    rows_before: u64,
}

/// Bytes and rows from which sealing takes more than about half a millisecond.
const HEAVY_BYTES: usize = 1 << 20;
const HEAVY_ROWS: usize = 4096;

impl Load {
    /// Whether sealing belongs on another thread.
    pub(crate) fn is_heavy(&self) -> bool {
        let rows: usize = self.entries.iter().map(|entry| entry.admitted.rows.len()).sum();
        let bytes: usize = self.entries.iter().map(|entry| entry.admitted.rows.payload.len()).sum();
        rows > HEAVY_ROWS || bytes > HEAVY_BYTES
    }

    /// Seals the load. If that fails, every batch of it is answered.
    ///
    /// # Cost One copy of each key, value and header.
    pub(crate) fn seal(mut self, now_ms: i64, buffers: &BufferPool) -> Option<Sealed> {
        // Stable: batches of a partition stay in the order of their arrival.
        self.entries.sort_by_key(|entry| entry.key);
        let stamp = |entry: &Entry| entry.admitted.log_append.then_some(now_ms);
        let batches: Vec<BodyBatch<'_>> = self
            .entries
            .iter()
            .map(|entry| BodyBatch {
                partition: entry.key,
                rows: &entry.admitted.rows,
                log_append_time_ms: stamp(entry),
            })
            .collect();
        let mut runs = Runs::default();
        let places: Vec<Place> = batches
            .iter()
            .zip(&self.entries)
            .map(|(batch, entry)| {
                let expected_next_offset = entry.admitted.expected_next_offset;
                let facts = facts(batch, now_ms, entry.admitted.producer);
                runs.add(entry.key, BatchFacts { expected_next_offset, ..facts })
            })
            .collect();
        let sealed = body::seal_in(&batches, now_ms, |bytes| buffers.take(bytes));
        let owed =
            self.entries.into_iter().zip(places).map(|(entry, place)| OwedBatch::new(entry, place, now_ms)).collect();
        let owed = Owed { batches: owed, room: self.room };
        match sealed {
            Ok(body) => Some(Sealed { runs: runs.runs, ingest_time_ms: now_ms, body, owed }),
            Err(error) => {
                tracing::error!(%error, "a flush can't be sealed");
                owed.fail(&ProduceError::NotDone { why: Obstacle::Seal(error.to_string()) });
                None
            }
        }
    }
}

/// Where a batch stands in a proposal.
#[derive(Debug, Clone, Copy)]
struct Place {
    run: usize,
    group: usize,
    rows_before: u64,
}

/// The runs of a proposal in the making.
#[derive(Debug, Default)]
struct Runs {
    runs: Vec<ProposedRun>,
    rows: u64,
}

impl Runs {
    fn add(&mut self, key: PartitionKey, facts: BatchFacts) -> Place {
        if self.runs.last().is_none_or(|run| run.partition != key) {
            self.runs.push(ProposedRun { partition: key, first_row: self.rows, batches: Vec::new() });
        }
        self.rows += u64::from(facts.rows);
        let run = self.runs.len() - 1;
        let batches = &mut self.runs[run].batches;
        if let Some(group) = batches.last_mut()
            && let Some(joined) = join(group, &facts)
        {
            let rows_before = u64::from(group.rows);
            *group = joined;
            return Place { run, group: batches.len() - 1, rows_before };
        }
        batches.push(facts);
        Place { run, group: batches.len() - 1, rows_before: 0 }
    }
}

/// Two batches as one, unless one of them has a fate of its own.
fn join(first: &BatchFacts, second: &BatchFacts) -> Option<BatchFacts> {
    let has_own_fate = |facts: &BatchFacts| facts.producer.is_some() || facts.expected_next_offset.is_some();
    if has_own_fate(first) || has_own_fate(second) {
        return None;
    }
    Some(BatchFacts {
        rows: first.rows.checked_add(second.rows)?,
        bytes: first.bytes + second.bytes,
        timestamps: TimestampRange::union(first.timestamps, second.timestamps),
        hash: first.hash.concat(second.hash, u64::from(second.rows)),
        producer: None,
        expected_next_offset: None,
    })
}

impl Sealed {
    /// What is proposed, with the body and the answers that are owed. The flush that it follows is not set yet.
    pub(crate) fn propose(self, id: FlushId, broker: Nonce, body: FlushBody) -> (FlushProposal, Body, Owed) {
        let Self { runs, ingest_time_ms, body: bytes, owed } = self;
        (FlushProposal { id, broker, previous: None, body, ingest_time_ms, runs }, bytes, owed)
    }
}

impl OwedBatch {
    fn new(entry: Entry, place: Place, now_ms: i64) -> Self {
        let Place { run, group, rows_before } = place;
        let log_append_time_ms = entry.admitted.log_append.then_some(now_ms);
        let rows = entry.admitted.records();
        let batch = match log_append_time_ms {
            Some(time_ms) => with_log_append_time(&entry.admitted.batch, time_ms),
            None => entry.admitted.batch,
        };
        Self { key: entry.key, batch, rows, log_append_time_ms, answer: entry.answer, run, group, rows_before }
    }

    fn outcome(&self, outcome: &FlushOutcome) -> Outcome {
        let (key, groups) = &outcome.runs[self.run];
        assert_eq!(*key, self.key, "an outcome has the runs of its proposal, in order");
        match groups[self.group] {
            Outcome::Appended(base) => Outcome::Appended(Offset::new(base.get() + self.rows_before)),
            other => other,
        }
    }
}

impl Owed {
    /// The batches that were appended, in the order of their offsets in each partition.
    pub(crate) fn committed(&self, outcome: &FlushOutcome) -> Vec<Committed> {
        let committed = self.batches.iter().filter_map(|owed| match owed.outcome(outcome) {
            Outcome::Appended(base_offset) => Some(Committed {
                partition: owed.key,
                base_offset,
                last_offset: Offset::new(base_offset.get() + u64::from(owed.rows) - 1),
                batch: owed.batch.clone(),
            }),
            Outcome::Duplicate(_) | Outcome::Refused(_) => None,
        });
        committed.collect()
    }

    /// Answers every batch with what came of it. `state` is durable and has the flush in it.
    pub(crate) fn settle(self, outcome: &FlushOutcome, state: &State) {
        drop(self.room);
        for owed in self.batches {
            let log_start = || state.partition(owed.key).map_or(Offset::ZERO, |partition| partition.log_start);
            let answer = match owed.outcome(outcome) {
                Outcome::Appended(base_offset) => Ok(Produced {
                    base_offset,
                    duplicate: false,
                    log_append_time_ms: owed.log_append_time_ms,
                    log_start: log_start(),
                }),
                Outcome::Duplicate(base_offset) => {
                    Ok(Produced { base_offset, duplicate: true, log_append_time_ms: None, log_start: log_start() })
                }
                Outcome::Refused(refusal) => Err(ProduceError::Refused(refusal)),
            };
            // A producer that is gone wants no answer.
            drop(owed.answer.send(answer));
        }
    }

    /// Answers every batch with one error.
    pub(crate) fn fail(self, error: &ProduceError) {
        drop(self.room);
        for owed in self.batches {
            drop(owed.answer.send(Err(error.clone())));
        }
    }
}
