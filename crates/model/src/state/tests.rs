//! Tests of the state machine: a random valid history ([`history`]) that is checked against a naive account of the same log after
//! every commit, and named cases for each rule.

mod broken;
mod groups;
mod history;
mod idempotence;
mod keys;
mod members;
mod merges;
mod producers;
mod properties;
mod refusals;
mod takeovers;
mod topics;
mod trims;

use std::collections::BTreeMap;

use ulid::Ulid;
use uuid::Uuid;

use crate::commit::{BatchFacts, FlushBody, Outcome, ProducerStamp, TimestampRange};
use crate::draft::{Change, Draft, FlushProposal, ProposedRun};
use crate::hash::RowsHash;
use crate::ids::{
    Directory, Epoch, FlushId, Nonce, Offset, PartitionIndex, PartitionKey, Place, ProducerEpoch, ProducerId,
    SegmentId, Sequence, TopicId,
};
use crate::state::{Refusal, State};
use crate::topic::TopicName;
use crate::{Commit, Entry, Takeover};

const ALICE: Nonce = Nonce::new(0xA11CE);
const BOB: Nonce = Nonce::new(0xB0B);

fn directory(epoch: u32, nonce: u64) -> Directory {
    Directory { epoch: Epoch::new(epoch), nonce: Nonce::new(nonce) }
}

fn topic_id(number: u128) -> TopicId {
    TopicId::new(Uuid::from_u128(number))
}

fn segment(number: u128) -> SegmentId {
    SegmentId::new(Ulid(number))
}

fn flush_id(number: u128) -> FlushId {
    FlushId::new(Ulid(number))
}

fn key(topic: u128, partition: u32) -> PartitionKey {
    PartitionKey::new(topic_id(topic), PartitionIndex::new(partition))
}

fn name(text: &str) -> TopicName {
    TopicName::new(text).unwrap()
}

/// A batch whose rows hash like `first`, `first + 1` and so on.
fn batch(rows: u32, first: u64) -> BatchFacts {
    let hash = (0..u64::from(rows)).fold(RowsHash::EMPTY, |hash, row| hash.push(first + row));
    let timestamps = Some(TimestampRange { first_ms: first as i64, last_ms: first as i64 + i64::from(rows) });
    BatchFacts { rows, bytes: u64::from(rows) * 100, timestamps, hash, producer: None, expected_next_offset: None }
}

fn stamped(rows: u32, producer: i64, epoch: i16, sequence: i32) -> BatchFacts {
    let stamp = ProducerStamp {
        id: ProducerId::new(producer),
        epoch: ProducerEpoch::new(epoch),
        sequence: Sequence::new(sequence),
    };
    BatchFacts { producer: Some(stamp), ..batch(rows, 1) }
}

/// A flush of runs that lie one after another.
fn proposal(id: u128, runs: Vec<(PartitionKey, Vec<BatchFacts>)>) -> FlushProposal {
    let mut next_row = 0;
    let mut proposed = Vec::new();
    for (partition, batches) in runs {
        let first_row = next_row;
        next_row += batches.iter().map(|batch| u64::from(batch.rows)).sum::<u64>();
        proposed.push(ProposedRun { partition, first_row, batches });
    }
    FlushProposal {
        id: flush_id(id),
        broker: ALICE,
        previous: None,
        body: FlushBody::Segment,
        ingest_time_ms: 7,
        runs: proposed,
    }
}

/// The state after Alice took over directory 0.
fn owned() -> State {
    let mut state = State::new(directory(0, 9));
    let takeover = Takeover { next: directory(1, 1), address: String::new() };
    let (commit, _) = Draft::takeover(&state, takeover, ALICE, 0).unwrap();
    state.apply(&commit).unwrap();
    state
}

/// [`owned`] with topic 1, "orders", of three partitions.
fn with_topic() -> State {
    let mut state = owned();
    change(&mut state, create(1, "orders", 3)).unwrap();
    state
}

fn create(id: u128, text: &str, partitions: u32) -> Change {
    Change::CreateTopic { id: topic_id(id), name: name(text), partitions, config: BTreeMap::new() }
}

/// Commits one change as the owner. The state of a refused one is untouched.
fn change(state: &mut State, change: Change) -> Result<Commit, Refusal> {
    let mut draft = Draft::after(state);
    draft.change(change)?;
    Ok(commit(state, draft))
}

/// Commits one flush as the owner, and returns its outcomes in order.
fn flush(state: &mut State, proposal: &FlushProposal) -> Result<Vec<Outcome>, Refusal> {
    let mut draft = Draft::after(state);
    let outcome = draft.flush(proposal)?;
    if !draft.is_empty() {
        commit(state, draft);
    }
    Ok(outcome.runs.iter().flat_map(|(_, outcomes)| outcomes.clone()).collect())
}

/// Appends one batch to a partition under a fresh id.
fn append(state: &mut State, partition: PartitionKey, facts: BatchFacts) -> Outcome {
    let id = state.highest_id().ulid().0 + 1;
    flush(state, &proposal(id, vec![(partition, vec![facts])])).unwrap()[0]
}

/// Seals a draft and folds its commit in: both must give the same state.
fn commit(state: &mut State, draft: Draft) -> Commit {
    let writer = state.owner().unwrap();
    let (commit, sealed) = draft.seal(writer, 1);
    state.apply(&commit).unwrap();
    assert_eq!(*state, sealed, "the sequencer and its readers must agree");
    state.check_invariants().unwrap();
    commit
}

fn take_over(state: &mut State, writer: Nonce, nonce: u64) -> Commit {
    let epoch = state.place().directory.epoch.get() + 1;
    let takeover = Takeover { next: directory(epoch, nonce), address: String::new() };
    let (commit, sealed) = Draft::takeover(state, takeover, writer, 0).unwrap();
    state.apply(&commit).unwrap();
    assert_eq!(*state, sealed);
    commit
}

/// A commit at the state's place by its owner, without any check.
fn raw_commit(state: &State, entries: Vec<Entry>) -> Commit {
    let writer = state.owner().unwrap_or(ALICE);
    Commit { number: state.number(), place: state.place(), writer, time_ms: 0, entries }
}

fn offset(value: u64) -> Offset {
    Offset::new(value)
}

fn place(epoch: u32, nonce: u64, index: u64) -> Place {
    Place { directory: directory(epoch, nonce), index }
}

#[test]
fn flushes_of_one_broker_commit_in_flush_order_or_not_at_all() {
    let mut state = with_topic();
    let follows = |id: u128, previous: u128| FlushProposal {
        previous: Some(flush_id(previous)),
        ..proposal(id, vec![(key(1, 0), vec![batch(1, 1)])])
    };
    let first = proposal(10, vec![(key(1, 0), vec![batch(1, 1)])]);
    let overtaking = flush(&mut state, &follows(11, 10));
    assert_eq!(overtaking, Err(Refusal::FlushOutOfOrder { id: flush_id(11), previous: flush_id(10) }));
    assert_eq!(flush(&mut state, &first), Ok(vec![Outcome::Appended(offset(0))]));
    assert_eq!(flush(&mut state, &follows(11, 10)), Ok(vec![Outcome::Appended(offset(1))]));
    // A predecessor below the boundary is forgotten: it is committed, or never will be.
    change(&mut state, Change::MoveReclaimBoundary(segment(11))).unwrap();
    assert_eq!(flush(&mut state, &follows(12, 10)), Ok(vec![Outcome::Appended(offset(2))]));
}
