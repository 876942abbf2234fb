//! Random valid histories, and a naive account of what each commit must have done.

use std::collections::{BTreeMap, BTreeSet};

use proptest::collection::vec;
use proptest::prelude::*;

use super::groups::{Ledger, group_of};
use super::{batch, create, directory, flush_id, segment, topic_id};
use crate::commit::{
    BatchFacts, BatchRefusal, CleanedFile, CleanedRun, Commit, CompactedFile, Compaction, Entry, FlushBody,
    KeyCompaction, Merge, MergedRun, Outcome, ProducerStamp, Takeover, TrimRun,
};
use crate::draft::{Change, Draft, FlushProposal, ProposedRun};
use crate::group::{CommitOffsets, CommittedOffset, DeleteOffsets, GroupId, GroupKind, StartGeneration};
use crate::hash::RowsHash;
use crate::ids::{
    Generation, Nonce, Offset, PartitionIndex, PartitionKey, ProducerEpoch, ProducerId, Sequence, TableFileId, TopicId,
};
use crate::member::Member;
use crate::state::{ObjectId, State};

/// The names that topics are drawn from; the last two have one table name.
const NAMES: [&str; 4] = ["orders", "clicks", "a.b", "a_b"];

/// One thing to try. Small numbers pick among what exists, so that every step has a meaning in every state.
#[derive(Debug, Clone)]
pub(super) enum Step {
    Takeover { writer: u8 },
    CreateTopic { name: u8, partitions: u8 },
    AlterTopic { topic: u8, value: u8 },
    AddPartitions { topic: u8, more: u8 },
    DeleteTopic { topic: u8 },
    Flush { inline: bool, batches: Vec<BatchStep> },
    FlushAgain { which: u8 },
    Merge { partition: u8, from: u8, runs: u8 },
    Compact { partition: u8, from: u8, runs: u8 },
    CompactKeys { topic: u8, seed: u8 },
    PublishTable { topic: u8, beyond: bool },
    MoveLogStart { partition: u8, percent: u8 },
    TrimRun { partition: u8, short: bool },
    TouchTable { topic: u8 },
    MoveBoundary { percent: u8 },
    AllotIds { count: u8 },
    Join { process: u8, address: u8 },
    Leave { process: u8 },
    Expire { percent: u8 },
    StartGeneration { group: u8, more: u8, members: u8 },
    CommitOffsets { group: u8, stale: bool, partitions: Vec<(u8, u8)> },
    DeleteOffsets { group: u8, stale: bool, partitions: Vec<u8> },
    ExpireOffsets { group: u8, before: u8 },
    DeleteGroup { group: u8, stale: bool },
    Seal,
}

/// One batch of a flush; `partition` may be one that does not exist.
#[derive(Debug, Clone)]
pub(super) struct BatchStep {
    partition: u8,
    rows: u32,
    producer: Option<(u8, Continuation)>,
    expects: Option<Expectation>,
}

/// How the offset that a batch expects relates to where its partition ended when its flush was made.
#[derive(Debug, Clone, Copy)]
pub(super) enum Expectation {
    Next,
    Before,
    Beyond,
}

/// How a producer's batch relates to its last one.
#[derive(Debug, Clone, Copy)]
pub(super) enum Continuation {
    Next,
    Again,
    Gap,
    NewEpoch,
    OldEpoch,
}

pub(super) fn steps() -> impl Strategy<Value = Vec<Step>> {
    vec(step(), 1..60)
}

fn step() -> impl Strategy<Value = Step> {
    let pick = any::<u8>;
    prop_oneof![
        1 => pick().prop_map(|writer| Step::Takeover { writer }),
        3 => (pick(), 1..4_u8).prop_map(|(name, partitions)| Step::CreateTopic { name, partitions }),
        3 => (pick(), pick()).prop_map(|(topic, value)| Step::AlterTopic { topic, value }),
        1 => (pick(), 0..3_u8).prop_map(|(topic, more)| Step::AddPartitions { topic, more }),
        1 => pick().prop_map(|topic| Step::DeleteTopic { topic }),
        10 => (any::<bool>(), vec(batch_step(), 1..6)).prop_map(|(inline, batches)| Step::Flush { inline, batches }),
        2 => pick().prop_map(|which| Step::FlushAgain { which }),
        4 => (pick(), pick(), 1..5_u8).prop_map(|(partition, from, runs)| Step::Merge { partition, from, runs }),
        11 => (pick(), pick(), 1..5_u8).prop_map(|(partition, from, runs)| Step::Compact { partition, from, runs }),
        12 => (pick(), pick()).prop_map(|(topic, seed)| Step::CompactKeys { topic, seed }),
        9 => (pick(), proptest::bool::weighted(0.2))
            .prop_map(|(topic, beyond)| Step::PublishTable { topic, beyond }),
        12 => (pick(), 0..=100_u8).prop_map(|(partition, percent)| Step::MoveLogStart { partition, percent }),
        16 => (pick(), proptest::bool::weighted(0.2)).prop_map(|(partition, short)| Step::TrimRun { partition, short }),
        1 => pick().prop_map(|topic| Step::TouchTable { topic }),
        1 => (0..=100_u8).prop_map(|percent| Step::MoveBoundary { percent }),
        2 => (0..4_u8).prop_map(|count| Step::AllotIds { count }),
        1 => (pick(), pick()).prop_map(|(process, address)| Step::Join { process, address }),
        1 => pick().prop_map(|process| Step::Leave { process }),
        6 => (60..=110_u8).prop_map(|percent| Step::Expire { percent }),
        3 => (pick(), 0..3_u8, 0..3_u8).prop_map(|(group, more, members)| Step::StartGeneration { group, more, members }),
        5 => (pick(), proptest::bool::weighted(0.2), vec((pick(), pick()), 1..4))
            .prop_map(|(group, stale, partitions)| Step::CommitOffsets { group, stale, partitions }),
        3 => (pick(), proptest::bool::weighted(0.2), vec(pick(), 1..4))
            .prop_map(|(group, stale, partitions)| Step::DeleteOffsets { group, stale, partitions }),
        5 => (pick(), pick()).prop_map(|(group, before)| Step::ExpireOffsets { group, before }),
        9 => (pick(), proptest::bool::weighted(0.2)).prop_map(|(group, stale)| Step::DeleteGroup { group, stale }),
        6 => Just(Step::Seal),
    ]
}

fn batch_step() -> impl Strategy<Value = BatchStep> {
    let continuation = prop_oneof![
        6 => Just(Continuation::Next),
        2 => Just(Continuation::Again),
        1 => Just(Continuation::Gap),
        1 => Just(Continuation::NewEpoch),
        1 => Just(Continuation::OldEpoch),
    ];
    let expectation =
        prop_oneof![4 => Just(Expectation::Next), 1 => Just(Expectation::Before), 1 => Just(Expectation::Beyond)];
    let producer = proptest::option::of((0..2_u8, continuation));
    (any::<u8>(), 1..5_u32, producer, proptest::option::weighted(0.3, expectation))
        .prop_map(|(partition, rows, producer, expects)| BatchStep { partition, rows, producer, expects })
}

/// A history in the making, with the naive account of it.
pub(super) struct History {
    /// Every state, the first before any commit.
    pub(super) states: Vec<State>,
    /// Every commit.
    pub(super) commits: Vec<Commit>,
    /// The hash of every record that was ever appended, by partition, in order.
    pub(super) records: BTreeMap<PartitionKey, Vec<u64>>,
    /// The offsets whose records went when keys were compacted.
    pub(super) gone: BTreeSet<(PartitionKey, u64)>,
    /// Those that go with what is being tried.
    planned: BTreeSet<(PartitionKey, u64)>,
    /// When each producer of each partition wrote last, of those that were not idle for too long.
    pub(super) wrote: BTreeMap<(PartitionKey, ProducerId), i64>,
    /// What groups have committed.
    pub(super) ledger: Ledger,
    draft: Draft,
    proposals: Vec<FlushProposal>,
    next_id: u128,
    next_hash: u64,
}

impl History {
    /// Plays steps; what the rules refuse is left out.
    pub(super) fn play(steps: &[Step]) -> Self {
        let start = State::new(directory(0, 99));
        let mut history = Self {
            draft: Draft::after(&start),
            states: vec![start],
            commits: Vec::new(),
            records: BTreeMap::new(),
            gone: BTreeSet::new(),
            planned: BTreeSet::new(),
            wrote: BTreeMap::new(),
            ledger: Ledger::default(),
            proposals: Vec::new(),
            next_id: 1,
            next_hash: 1,
        };
        history.take_over(0);
        for step in steps {
            history.step(step);
        }
        history.seal();
        history
    }

    fn state(&self) -> &State {
        self.draft.state()
    }

    fn fresh_id(&mut self) -> u128 {
        self.next_id += 1;
        self.next_id
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Takeover { writer } => self.take_over(*writer),
            Step::Flush { inline, batches } => self.flush(*inline, batches),
            Step::FlushAgain { which } => self.flush_again(*which),
            Step::Seal => self.seal(),
            other => {
                let Some(change) = self.change_of(other) else { return };
                let accepted = self.draft.change(change.clone()).is_ok();
                self.ledger.account(&change, accepted, self.draft.state());
                if accepted && matches!(change, Change::CompactKeys(_)) {
                    self.gone.append(&mut self.planned);
                }
                if let (true, Change::ExpireProducers { before_ms, .. }) = (accepted, change) {
                    self.wrote.retain(|_, wrote_ms| *wrote_ms >= before_ms);
                }
            }
        }
    }

    fn topic(&self, pick: u8) -> TopicId {
        let topics: Vec<TopicId> = self.state().topics().map(|(id, _)| id).collect();
        if topics.is_empty() { topic_id(0) } else { topics[usize::from(pick) % topics.len()] }
    }

    fn partition(&self, pick: u8) -> PartitionKey {
        // One more than there are: now and then a partition that does not exist.
        let keys: Vec<PartitionKey> = self.state().partitions.keys().copied().collect();
        let missing = PartitionKey::new(self.topic(pick), PartitionIndex::new(1_000));
        keys.get(usize::from(pick) % (keys.len() + 1)).copied().unwrap_or(missing)
    }

    fn change_of(&mut self, step: &Step) -> Option<Change> {
        match *step {
            Step::CreateTopic { name, partitions } => {
                let which = usize::from(name) % NAMES.len();
                let mut change = create(self.fresh_id(), NAMES[which], u32::from(partitions));
                // Keys of some are compacted, and files of the others lose rows at their beginning alone.
                if let (0, Change::CreateTopic { config, .. }) = (which % 2, &mut change) {
                    config.insert("cleanup.policy".to_owned(), "compact".to_owned());
                }
                Some(change)
            }
            Step::AlterTopic { topic, value } => {
                let policy = if value % 2 == 0 { "delete" } else { "delete, compact" };
                let config = [("retention.ms", value.to_string()), ("cleanup.policy", policy.to_owned())];
                let config = config.map(|(name, value)| (name.to_owned(), value)).into();
                Some(Change::AlterTopic { id: self.topic(topic), config })
            }
            Step::AddPartitions { topic, more } => {
                let id = self.topic(topic);
                let existing = self.state().topic(id)?.partitions;
                Some(Change::AddPartitions { id, partitions: existing + u32::from(more) })
            }
            Step::DeleteTopic { topic } => Some(Change::DeleteTopic { id: self.topic(topic) }),
            Step::Merge { partition, from, runs } => {
                let (segment, run) = (segment(self.fresh_id()), self.rewritten(partition, from, runs)?);
                Some(Change::Merge(Merge { segment, runs: vec![run] }))
            }
            Step::Compact { partition, from, runs } => {
                let id = TableFileId::new(self.fresh_id().into());
                let run = self.rewritten(partition, from, runs)?;
                let files = vec![CompactedFile { id, runs: vec![run] }];
                Some(Change::Compact(Compaction { topic: run.partition.topic, files }))
            }
            Step::CompactKeys { topic, seed } => self.cleaned(topic, seed),
            Step::PublishTable { topic, beyond } => {
                let topic = self.topic(topic);
                let version = self.state().table(topic).map_or(0, |table| table.version);
                Some(Change::PublishTable { topic, version: version + u32::from(beyond) })
            }
            Step::MoveLogStart { partition, percent } => {
                let partition = self.partition(partition);
                let end = self.state().partition(partition)?.high_watermark.get();
                Some(Change::MoveLogStart { partition, offset: Offset::new(end * u64::from(percent) / 100) })
            }
            Step::TrimRun { partition, short } => self.trimmed(partition, short).map(Change::TrimRun),
            Step::TouchTable { topic } => {
                Some(Change::Compact(Compaction { topic: self.topic(topic), files: Vec::new() }))
            }
            Step::MoveBoundary { percent } => {
                let highest = self.state().highest_id().ulid().0;
                Some(Change::MoveReclaimBoundary(segment(highest * u128::from(percent) / 100)))
            }
            Step::AllotIds { count } => {
                Some(Change::AllotProducerIds { first: self.state().producer_ids_allotted(), count: count.into() })
            }
            Step::Join { process, address } => Some(Change::Join(member(process % 5, address % 4))),
            Step::Leave { process } => Some(Change::Leave { member: member(process % 5, 0).nonce }),
            Step::Expire { percent } => {
                let before_ms = self.next_id as i64 * i64::from(percent) / 100;
                let forgotten = self.wrote_in(self.state()).filter(|(_, wrote_ms)| **wrote_ms < before_ms).count();
                Some(Change::ExpireProducers { before_ms, forgotten: forgotten as u64 })
            }
            _ => self.group_change_of(step),
        }
    }

    fn group_change_of(&mut self, step: &Step) -> Option<Change> {
        match *step {
            Step::StartGeneration { group, more, members } => {
                let group = group_of(group);
                let generation = self.state().latest_generation(&group).get() + u32::from(more);
                Some(Change::StartGeneration(StartGeneration {
                    group,
                    generation: Generation::new(generation),
                    kind: GroupKind::Classic,
                    protocol_type: "consumer".into(),
                    members: members.into(),
                    time_ms: i64::from(more) * 100,
                }))
            }
            Step::CommitOffsets { group, stale, ref partitions } => {
                let committed = |offset: u8| CommittedOffset {
                    offset: Offset::new(offset.into()),
                    leader_epoch: None,
                    time_ms: offset.into(),
                    metadata: "m".repeat(usize::from(offset % 3)).into(),
                };
                let offsets: BTreeMap<PartitionKey, CommittedOffset> =
                    partitions.iter().map(|(key, offset)| (self.partition(*key), committed(*offset))).collect();
                let (group, generation) = self.named(group, stale);
                Some(Change::CommitOffsets(CommitOffsets { group, generation, offsets: offsets.into_iter().collect() }))
            }
            Step::DeleteOffsets { group, stale, ref partitions } => {
                let partitions: BTreeSet<PartitionKey> = partitions.iter().map(|key| self.partition(*key)).collect();
                let (group, generation) = self.named(group, stale);
                let partitions = partitions.into_iter().collect();
                Some(Change::DeleteOffsets(DeleteOffsets { group, generation, partitions }))
            }
            Step::ExpireOffsets { group, before } => {
                let (group, generation) = self.named(group, false);
                Some(Change::ExpireOffsets { group, generation, before_ms: before.into() })
            }
            Step::DeleteGroup { group, stale } => {
                let (group, generation) = self.named(group, stale);
                Some(Change::DeleteGroup { group, generation })
            }
            _ => None,
        }
    }

    /// A group with the generation that is in force, or with the one before.
    fn named(&self, group: u8, stale: bool) -> (GroupId, Generation) {
        let group = group_of(group);
        let current = self.state().group(&group).map_or(0, |group| group.generation.get());
        // Of a group without generations there is none before.
        let named = if stale { current.checked_sub(1).unwrap_or(1) } else { current };
        (group, Generation::new(named))
    }

    /// One run in place of some runs of one partition, hashed from the account and not from the state.
    fn rewritten(&mut self, partition: u8, from: u8, count: u8) -> Option<MergedRun> {
        let partition = self.partition(partition);
        let runs: Vec<_> = self.state().runs_of(partition).collect();
        let first = usize::from(from).checked_rem(runs.len())?;
        let merged: Vec<_> = runs.iter().skip(first).take(usize::from(count)).collect();
        let base_offset = merged.first()?.0;
        let rows = merged.iter().map(|(_, run)| run.rows).sum();
        let hash = self.hash_of(partition, base_offset, rows);
        Some(MergedRun { partition, base_offset, rows, first_row: 0, hash })
    }

    /// The rows below the log start, or all but the last of them, cut off the first run; hashed from the account.
    fn trimmed(&mut self, partition: u8, short: bool) -> Option<TrimRun> {
        // One that can be cut, in a table file if there is such.
        let state = self.state();
        let is_cut = |key, base, run: &crate::Run| {
            let log_start = state.partition(key).map_or(Offset::ZERO, |bounds| bounds.log_start);
            base < log_start && !run.has_gaps()
        };
        let all: Vec<_> = state.runs().filter(|(key, base, run)| is_cut(*key, *base, run)).collect();
        let of_tables: Vec<_> = all.iter().filter(|(.., run)| matches!(run.object, ObjectId::Table(_))).collect();
        let chosen = of_tables.get(usize::from(partition) % of_tables.len().max(1)).copied();
        let (partition, base, run) = *chosen.or_else(|| all.get(usize::from(partition) % all.len().max(1)))?;
        let log_start = state.partition(partition)?.log_start;
        let rows = log_start.since(base).checked_sub(u64::from(short))?;
        let (offset, bytes) = (Offset::new(base.get() + rows), run.bytes * (run.rows - rows) / run.rows);
        let hash = self.hash_of(partition, base, rows);
        Some(TrimRun { partition, offset, rows, hash, bytes, timestamps: run.timestamps })
    }

    /// The hash of `rows` rows, from the account.
    pub(super) fn hash_of(&self, partition: PartitionKey, base: Offset, rows: u64) -> RowsHash {
        let records = &self.records[&partition][base.get() as usize..][..rows as usize];
        records.iter().fold(RowsHash::EMPTY, |hash, row| hash.push(*row))
    }

    /// What is left of some offsets of a partition: how many rows, and their hash, with their offsets if some are gone.
    pub(super) fn left(&self, partition: PartitionKey, offsets: std::ops::Range<Offset>) -> (u64, RowsHash) {
        let records = &self.records[&partition];
        let all = offsets.start.get()..offsets.end.get();
        let left: Vec<u64> = all.clone().filter(|offset| !self.gone.contains(&(partition, *offset))).collect();
        let dense = left.len() as u64 == all.end - all.start;
        let of = |offset: &u64| records[*offset as usize] + if dense { 0 } else { *offset << 32 };
        (left.len() as u64, left.iter().fold(RowsHash::EMPTY, |hash, offset| hash.push(of(offset))))
    }

    /// A compaction of the keys of all table files of a topic: about a third of the rows go, each stretch of table files becomes two runs.
    fn cleaned(&mut self, topic: u8, seed: u8) -> Option<Change> {
        let topic = self.topic(topic);
        let id = TableFileId::new(self.fresh_id().into());
        let mut chains: Vec<(PartitionKey, std::ops::Range<u64>)> = Vec::new();
        let mut replaces = BTreeSet::new();
        for (key, base, run) in self.state().runs_of_topic(topic) {
            if let ObjectId::Table(file) = run.object {
                replaces.insert(file);
                match chains.last_mut() {
                    Some((last, all)) if *last == key && all.end == base.get() => all.end = run.end(base).get(),
                    _ => chains.push((key, base.get()..run.end(base).get())),
                }
            }
        }
        let (mut runs, mut first_row, mut planned) = (Vec::new(), 0, BTreeSet::new());
        for (key, all) in chains {
            let gone = |at: &u64| self.gone.contains(&(key, *at));
            let before: Vec<u64> = all.clone().filter(|at| !gone(at)).collect();
            let goes = |at: &u64| (at * 7 + u64::from(seed)).is_multiple_of(3) && Some(at) != before.last();
            planned.extend(before.iter().filter(|at| goes(at)).map(|at| (key, *at)));
            let left: Vec<u64> = before.iter().copied().filter(|at| !goes(at)).collect();
            let middle = if left.len() > 1 { left[left.len() / 2] } else { all.end };
            for offsets in [all.start..middle, middle..all.end] {
                let rows: Vec<u64> = left.iter().copied().filter(|at| offsets.contains(at)).collect();
                if rows.is_empty() {
                    continue;
                }
                let dense = rows.len() as u64 == offsets.end - offsets.start;
                let records = &self.records[&key];
                let of = |at: &u64| records[*at as usize] + if dense { 0 } else { at << 32 };
                runs.push(CleanedRun {
                    partition: key,
                    base_offset: Offset::new(offsets.start),
                    span: offsets.end - offsets.start,
                    rows: rows.len() as u64,
                    first_row,
                    bytes: rows.len() as u64,
                    timestamps: None,
                    hash: rows.iter().fold(RowsHash::EMPTY, |hash, at| hash.push(of(at))),
                    clean: seed.is_multiple_of(2),
                });
                first_row += rows.len() as u64;
            }
        }
        self.planned = planned;
        let files = if runs.is_empty() { Vec::new() } else { vec![CleanedFile { id, runs }] };
        Some(Change::CompactKeys(KeyCompaction { topic, replaces: replaces.into_iter().collect(), files }))
    }

    fn flush(&mut self, inline: bool, batches: &[BatchStep]) {
        let mut by_partition: BTreeMap<PartitionKey, Vec<BatchFacts>> = BTreeMap::new();
        for step in batches {
            let partition = self.partition(step.partition);
            let mut facts = self.facts(partition, step);
            let end = self.records.get(&partition).map_or(0, |records| records.len() as u64);
            facts.expected_next_offset = step.expects.map(|expects| match expects {
                Expectation::Next => Offset::new(end),
                Expectation::Before => Offset::new(end.saturating_sub(1)),
                Expectation::Beyond => Offset::new(end + 2),
            });
            by_partition.entry(partition).or_default().push(facts);
        }
        let mut proposal = super::proposal(self.fresh_id(), by_partition.into_iter().collect());
        // So that some producers are idle for longer than others.
        proposal.ingest_time_ms = self.next_id as i64;
        if inline && !self.draft.has_inline() {
            proposal.body = FlushBody::Inline;
        }
        let outcome = self.draft.flush(&proposal).unwrap();
        for (run, (_, outcomes)) in proposal.runs.iter().zip(&outcome.runs) {
            self.account(run, outcomes, proposal.ingest_time_ms);
        }
        self.proposals.push(proposal);
    }

    fn facts(&mut self, partition: PartitionKey, step: &BatchStep) -> BatchFacts {
        let mut facts = batch(step.rows, self.next_hash);
        self.next_hash += u64::from(step.rows);
        let Some((producer, continuation)) = step.producer else { return facts };
        let id = ProducerId::new(i64::from(producer));
        let known = self.state().producers_of(partition).find(|(known, _)| *known == id).map(|(_, known)| known);
        // From 1 on, so that there is one before it.
        let epoch = known.map_or(1, |known| known.epoch.get());
        let last = known.and_then(|known| known.recent.back());
        let next = last.map_or(0, |last| last.first.advance(last.rows).get());
        let (epoch, sequence) = match continuation {
            Continuation::Next => (epoch, next),
            Continuation::Again => {
                facts.rows = last.map_or(facts.rows, |last| last.rows);
                (epoch, last.map_or(0, |last| last.first.get()))
            }
            Continuation::Gap => (epoch, next + 7),
            Continuation::NewEpoch => (epoch + 1, 0),
            Continuation::OldEpoch => ((epoch - 1).max(0), next),
        };
        // The rows of a batch that is sent again differ here, so that a duplicate that is appended after all is noticed.
        facts.hash = batch(facts.rows, self.next_hash).hash;
        facts.timestamps = batch(facts.rows, self.next_hash).timestamps;
        self.next_hash += u64::from(facts.rows);
        facts.producer =
            Some(ProducerStamp { id, epoch: ProducerEpoch::new(epoch), sequence: Sequence::new(sequence) });
        facts
    }

    /// Writes down what the outcomes say: an appended batch follows the last record of its partition, nothing else counts.
    fn account(&mut self, run: &ProposedRun, outcomes: &[Outcome], ingest_time_ms: i64) {
        assert_eq!(run.batches.len(), outcomes.len());
        for (facts, outcome) in run.batches.iter().zip(outcomes) {
            let records = self.records.entry(run.partition).or_default();
            let next = Offset::new(records.len() as u64);
            if let Outcome::Refused(BatchRefusal::OffsetMismatch { next: told }) = outcome {
                assert_eq!(*told, next);
                assert!(facts.expected_next_offset.is_some_and(|expected| expected != next), "{facts:?}");
            }
            let Outcome::Appended(base) = outcome else { continue };
            if let Some(stamp) = facts.producer {
                self.wrote.insert((run.partition, stamp.id), ingest_time_ms);
            }
            assert!(facts.expected_next_offset.is_none_or(|expected| expected == next), "{facts:?}");
            assert_eq!(base.get(), records.len() as u64, "offsets of {} are dense", run.partition);
            let first = facts.timestamps.unwrap().first_ms as u64;
            records.extend(first..first + u64::from(facts.rows));
        }
    }

    fn flush_again(&mut self, which: u8) {
        let Some(index) = usize::from(which).checked_rem(self.proposals.len()) else { return };
        let proposal = self.proposals[index].clone();
        let before = self.state().clone();
        let expected = before.flush(proposal.id).cloned();
        match (self.draft.flush(&proposal), expected) {
            (Ok(outcome), Some(first)) => assert_eq!(outcome, first, "a flush has one outcome for ever"),
            (Err(_), None) => assert!(proposal.id < flush_id(before.reclaim_boundary().ulid().0)),
            (answer, expected) => panic!("{answer:?} instead of {expected:?}"),
        }
        assert_eq!(*self.state(), before, "a flush that is known changes nothing");
    }

    fn take_over(&mut self, writer: u8) {
        self.seal();
        let state = self.draft.state().clone();
        let epoch = state.place().directory.epoch.get() + 1;
        let takeover = Takeover { next: directory(epoch, u64::from(writer) % 3 + 10), address: "host:1".to_owned() };
        let sealed = Draft::takeover(&state, takeover, Nonce::new(u64::from(writer) % 3), 5).unwrap();
        self.push(sealed);
    }

    fn seal(&mut self) {
        if !self.draft.is_empty() {
            let writer = self.state().owner().unwrap();
            let draft = std::mem::replace(&mut self.draft, Draft::after(&self.states[0]));
            let sealed = draft.seal(writer, self.commits.len() as i64);
            self.push(sealed);
        }
    }

    fn push(&mut self, (commit, state): (Commit, State)) {
        state.check_invariants().unwrap();
        self.ledger.check(&state);
        self.draft = Draft::after(&state);
        self.commits.push(commit);
        self.states.push(state);
    }

    /// When producers wrote last, of the partitions that a state has.
    pub(super) fn wrote_in<'a>(
        &'a self,
        state: &'a State,
    ) -> impl Iterator<Item = (&'a (PartitionKey, ProducerId), &'a i64)> {
        self.wrote.iter().filter(|((key, _), _)| state.partition(*key).is_some())
    }

    /// Compares a state with the account: every readable offset has the hash of the record that was acknowledged there.
    pub(super) fn check_rows(&self, state: &State) {
        for (key, bounds) in &state.partitions {
            let mut next = None;
            for (base, run) in state.runs_of(*key) {
                assert!(next.is_none_or(|next| next == base));
                let (rows, hash) = self.left(*key, base..run.end(base));
                assert_eq!((run.rows, run.hash), (rows, hash), "rows of {key} at {base}");
                next = base.checked_add(run.span);
            }
            assert_eq!(next.unwrap_or(bounds.log_start), bounds.high_watermark);
        }
    }

    /// The number of entries of each kind: a property that never saw a merge proves nothing about merges.
    pub(super) fn count(&self, tally: &mut BTreeMap<&'static str, usize>) {
        let outcomes = self.commits.iter().flat_map(|commit| &commit.entries).flat_map(|entry| match entry {
            Entry::Flush(flush) => flush.runs.iter().flat_map(|run| &run.batches).map(|(_, o)| *o).collect(),
            _ => Vec::new(),
        });
        for outcome in outcomes {
            let name = match outcome {
                Outcome::Refused(BatchRefusal::OffsetMismatch { .. }) => "mismatch",
                Outcome::Appended(_) => "appended",
                Outcome::Duplicate(_) => "duplicate",
                Outcome::Refused(_) => "refused",
            };
            *tally.entry(name).or_default() += 1;
        }
        for entry in self.commits.iter().flat_map(|commit| &commit.entries) {
            *tally.entry(kind(entry)).or_default() += 1;
        }
        let inline = self.states.last().unwrap().objects().filter(|(id, _)| matches!(id, ObjectId::Commit(_)));
        *tally.entry("live inline objects").or_default() += inline.count();
    }
}

/// A broker; there are more processes than addresses.
fn member(process: u8, address: u8) -> Member {
    Member {
        nonce: Nonce::new(u64::from(process) + 100),
        kafka: format!("host-{address}:9092"),
        http: format!("host-{address}:8080"),
        zone: String::new(),
        version: "1.0.0".to_owned(),
    }
}

fn kind(entry: &Entry) -> &'static str {
    match entry {
        Entry::Takeover(_) => "takeover",
        Entry::RaiseFeatureLevel(_) => "feature level",
        Entry::CreateTopic { .. } => "create",
        Entry::AlterTopic { .. } => "alter",
        Entry::AddPartitions { .. } => "add partitions",
        Entry::DeleteTopic { .. } => "delete",
        Entry::Flush(_) => "flush",
        Entry::Merge(_) => "merge",
        Entry::Compact(_) => "compact",
        Entry::CompactKeys(_) => "compact keys",
        Entry::PublishTable { .. } => "publish table",
        Entry::MoveLogStart { .. } => "log start",
        Entry::TrimRun(_) => "trim",
        Entry::StartGeneration(_) => "generation",
        Entry::CommitOffsets(_) => "offsets",
        Entry::DeleteOffsets(_) => "delete offsets",
        Entry::ExpireOffsets { .. } => "expire offsets",
        Entry::DeleteGroup { .. } => "delete group",
        Entry::MoveReclaimBoundary(_) => "boundary",
        Entry::Join(_) => "join",
        Entry::Leave { .. } => "leave",
        Entry::AllotProducerIds { .. } => "allot ids",
        Entry::ExpireProducers { .. } => "expire",
    }
}
