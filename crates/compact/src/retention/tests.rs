//! What goes, on states that were made by hand.

use lakebed_model::{
    BatchFacts, Change, CompactedFile, Compaction, Directory, Draft, Epoch, FlushBody, FlushId, FlushProposal,
    MergedRun, Nonce, PartitionIndex, ProposedRun, RowsHash, TableFileId, Takeover, TimestampRange, TopicName,
};
use uuid::Uuid;

use super::*;

const HOUR: i64 = 3_600_000;
const NOW: i64 = 1_000 * HOUR;
const NO_BOUND: u64 = u64::MAX;

fn key(partition: u32) -> PartitionKey {
    PartitionKey::new(TopicId::new(Uuid::from_u128(7)), PartitionIndex::new(partition))
}

/// A log with one topic of four partitions, in which every record has ten bytes.
struct World {
    state: State,
    next: u128,
}

impl World {
    fn new() -> Self {
        let directory = |epoch| Directory { epoch: Epoch::new(epoch), nonce: Nonce::new(epoch.into()) };
        let takeover = Takeover { next: directory(1), address: String::new() };
        let (_, state) = Draft::takeover(&State::new(directory(0)), takeover, Nonce::new(1), 0).unwrap();
        let mut world = Self { state, next: 1 };
        let name = TopicName::new("orders").unwrap();
        world.change(vec![Change::CreateTopic { id: key(0).topic, name, partitions: 4, config: BTreeMap::new() }]);
        world
    }

    fn change(&mut self, changes: Vec<Change>) {
        let mut draft = Draft::after(&self.state);
        draft.change_all(changes).unwrap();
        self.state = draft.seal(Nonce::new(1), 0).1;
    }

    /// Records of one age, in hours, in some partitions: `(partition, records, age)`. An age of -1 is no timestamp.
    fn append(&mut self, runs: &[(u32, u32, i64)]) {
        self.next += 1;
        let mut first_row = 0;
        let runs = runs.iter().map(|(partition, rows, age)| {
            let at_ms = NOW - age * HOUR;
            let timestamps = (*age >= 0).then_some(TimestampRange { first_ms: at_ms, last_ms: at_ms });
            let hash = (0..*rows).fold(RowsHash::EMPTY, |hash, _| hash.push(1));
            let bytes = u64::from(*rows) * 10;
            let facts = BatchFacts { rows: *rows, bytes, timestamps, hash, producer: None, expected_next_offset: None };
            first_row += u64::from(*rows);
            ProposedRun { partition: key(*partition), first_row: first_row - u64::from(*rows), batches: vec![facts] }
        });
        let proposal = FlushProposal {
            id: FlushId::new(self.next.into()),
            broker: Nonce::new(1),
            previous: None,
            body: FlushBody::Segment,
            ingest_time_ms: 0,
            runs: runs.collect(),
        };
        let mut draft = Draft::after(&self.state);
        draft.flush(&proposal).unwrap();
        self.state = draft.seal(Nonce::new(1), 0).1;
    }

    /// Puts all rows that are in no table file into one that was made at a time.
    fn compact(&mut self, made_ms: i64) {
        self.next += 1;
        let id = TableFileId::new(((made_ms as u128) << 80 | self.next).into());
        let (mut runs, mut first_row) = (Vec::new(), 0);
        for (partition, base_offset, run) in self.state.runs_of_topic(key(0).topic) {
            if !matches!(run.object, ObjectId::Table(_)) {
                runs.push(MergedRun { partition, base_offset, rows: run.rows, first_row, hash: run.hash });
                first_row += run.rows;
            }
        }
        let files = vec![CompactedFile { id, runs }];
        self.change(vec![Change::Compact(Compaction { topic: key(0).topic, files })]);
    }

    fn expiring(&self, retention: Retention) -> Expiring {
        expiring(&self.state, key(0).topic, &retention, NOW, NO_BOUND)
    }

    /// Where partitions begin afterwards.
    fn moves(&self, retention: Retention) -> Vec<(u32, u64)> {
        let moves = self.expiring(retention).moves.into_iter();
        moves.map(|(key, offset)| (key.partition.get(), offset.get())).collect()
    }
}

fn age(hours: i64) -> Retention {
    Retention { age_ms: Some(hours * HOUR), bytes: None }
}

fn size(bytes: u64) -> Retention {
    Retention { age_ms: None, bytes: Some(bytes) }
}

#[test]
fn runs_go_from_the_log_start_on_until_one_is_young_enough() {
    let mut world = World::new();
    for hours in [9, 3, 8, 1] {
        world.append(&[(0, 2, hours)]);
    }
    world.append(&[(1, 1, 5)]);
    assert_eq!(world.moves(Retention::default()), []);
    assert_eq!(world.moves(age(10)), []);
    assert_eq!(world.moves(age(9)), [], "exactly so old is not older");
    assert_eq!(world.moves(age(4)), [(0, 2), (1, 1)], "one that is too old waits behind one that is not");
    assert_eq!(world.moves(age(2)), [(0, 6), (1, 1)]);
    assert_eq!(world.moves(age(0)), [(0, 8), (1, 1)]);
    let told = world.expiring(age(4));
    assert_eq!(told.tallies, [(Cause::Age, Tally { records: 3, bytes: 30, files: 0 })].into());
    assert_eq!(told.next_ms, Some(NOW + HOUR + 1), "the run of three hours");
    assert_eq!(world.expiring(age(10)).next_ms, Some(NOW + HOUR + 1), "that of nine");
}

#[test]
fn a_partition_loses_its_oldest_runs_as_long_as_what_is_to_be_kept_is_left() {
    let mut world = World::new();
    for hours in [4, 3, 2, 1] {
        world.append(&[(0, 2, hours), (1, 1, hours)]);
    }
    for (kept, expected) in [(80, 0), (61, 0), (60, 2), (41, 2), (40, 4), (1, 6), (0, 8)] {
        let of_first = world.moves(size(kept)).into_iter().find(|(partition, _)| *partition == 0);
        assert_eq!(of_first.map_or(0, |(_, offset)| offset), expected, "{kept} bytes");
    }
    let both = Retention { bytes: Some(40), ..age(3) };
    assert_eq!(world.moves(both), [(0, 4), (1, 1)]);
    let tallies = world.expiring(both).tallies;
    assert_eq!(tallies[&Cause::Age].records, 3);
    assert_eq!(tallies[&Cause::Size].records, 2);
}

#[test]
fn rows_without_a_time_are_as_old_as_their_object() {
    let mut world = World::new();
    world.append(&[(0, 2, -1)]);
    assert_eq!(world.moves(age(1)), [(0, 2)], "the id of a segment of these tests is of 1970");
    world.compact(NOW - 5 * HOUR);
    assert_eq!(world.moves(age(5)), []);
    assert_eq!(world.moves(age(4)), [(0, 2)]);
}

#[test]
fn a_table_file_goes_whole_and_its_runs_wait_for_one_another() {
    let mut world = World::new();
    world.append(&[(0, 2, 50), (1, 2, 41)]);
    world.compact(NOW);
    world.append(&[(0, 1, 1)]);
    let at_once = world.expiring(age(40));
    assert_eq!((at_once.moves.len(), at_once.rewrites), (2, false));
    assert_eq!(at_once.tallies[&Cause::Age], Tally { records: 4, bytes: 40, files: 1 });
    assert_eq!(world.moves(age(45)), [], "the run of 41 hours holds the file");
    assert_eq!(world.expiring(age(45)).next_ms, Some(NOW + 5 * HOUR / 8 + 1), "for an eighth of the time");
    // After an eighth of the time the file is rewritten without the one that has waited.
    let overdue = world.expiring(age(44));
    assert_eq!((overdue.moves, overdue.rewrites), (vec![(key(0), Offset::new(2))], true));
    assert_eq!(overdue.tallies[&Cause::Age], Tally { records: 2, bytes: 20, files: 0 });
}

#[test]
fn what_waits_for_a_file_holds_the_files_behind_it() {
    let mut world = World::new();
    world.append(&[(0, 2, 50), (1, 2, 41)]);
    world.compact(NOW);
    world.append(&[(0, 2, 49), (2, 2, 49)]);
    world.compact(NOW);
    world.append(&[(2, 2, 48)]);
    assert_eq!(world.moves(age(47)), [], "partition 0 waits in the first file, so partition 2 waits in the second");
    assert_eq!(world.moves(age(40)), [(0, 4), (1, 2), (2, 4)]);
}

#[test]
fn a_file_is_rewritten_for_size_when_what_goes_is_worth_it() {
    let mut world = World::new();
    // One partition that grows, and one that stands still, in one file.
    world.append(&[(0, 1, 5), (1, 10, 5)]);
    world.compact(NOW);
    world.append(&[(0, 1, 4)]);
    world.compact(NOW);
    assert_eq!(world.moves(size(10)), [], "a byte for ten");
    world.append(&[(0, 1, 3)]);
    world.compact(NOW);
    assert_eq!(world.moves(size(10)), [], "two for ten");
    world.append(&[(0, 1, 3)]);
    world.compact(NOW);
    let worth = world.expiring(size(10));
    assert_eq!((worth.moves, worth.rewrites), (vec![(key(0), Offset::new(3))], true), "three for ten");
    assert_eq!(worth.tallies[&Cause::Size], Tally { records: 3, bytes: 30, files: 2 });
}

#[test]
fn rewrites_of_a_pass_are_bounded_by_their_bytes() {
    let mut world = World::new();
    for _ in 0..3 {
        world.append(&[(0, 1, 50), (1, 5, 1)]);
        world.compact(NOW);
    }
    let ends = |bytes_max| {
        let moves = expiring(&world.state, key(0).topic, &age(40), NOW, bytes_max).moves;
        moves.iter().map(|(_, offset)| offset.get()).collect::<Vec<_>>()
    };
    assert_eq!([ends(0), ends(50), ends(100), ends(149), ends(150)], [[1], [1], [2], [2], [3]]);
}

#[test]
fn only_rows_that_could_be_read_are_counted() {
    let mut world = World::new();
    world.append(&[(0, 5, 9)]);
    world.change(vec![Change::MoveLogStart { partition: key(0), offset: Offset::new(3) }]);
    assert_eq!(world.expiring(age(1)).tallies[&Cause::Age].records, 2);
}
