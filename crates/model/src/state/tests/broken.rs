//! Each invariant is shown to bite: a state is broken by hand, and the check must name the invariant.

use super::{append, batch, change, create, directory, flush_id, key, offset, segment, stamped, topic_id, with_topic};
use crate::ids::{CommitNumber, FeatureLevel};
use crate::state::{ObjectId, Partition, State};

fn whole() -> State {
    let mut state = with_topic();
    append(&mut state, key(1, 0), batch(2, 1));
    append(&mut state, key(1, 0), stamped(3, 7, 0, 0));
    append(&mut state, key(1, 1), batch(1, 1));
    change(&mut state, create(2, "other", 1)).unwrap();
    state
}

/// What is broken, and how.
type Spoiler<'a> = (&'a str, &'a dyn Fn(&mut State));

fn breaks(invariant: &str, spoilers: &[Spoiler<'_>]) {
    whole().check_invariants().unwrap();
    for (what, spoil) in spoilers {
        let mut state = whole();
        spoil(&mut state);
        let violation = state.check_invariants().expect_err(what);
        assert_eq!(violation.invariant, invariant, "{what}: {violation}");
    }
}

#[test]
fn runs_are_dense() {
    let run_at = |state: &State, base| state.runs[&(key(1, 0), offset(base))];
    breaks(
        "1 (runs are dense)",
        &[
            ("a hole", &|state| {
                state.runs.remove(&(key(1, 0), offset(0)));
            }),
            ("a missing end", &|state| {
                state.runs.remove(&(key(1, 0), offset(2)));
            }),
            ("an overlap", &|state| {
                let run = run_at(state, 2);
                state.runs.insert((key(1, 0), offset(1)), run);
            }),
            ("rows beyond the high watermark", &|state| {
                state.partitions[&key(1, 0)].high_watermark = offset(4);
            }),
            ("a high watermark beyond the rows", &|state| {
                state.partitions[&key(1, 2)].high_watermark = offset(4);
            }),
            ("a run below the log start", &|state| {
                state.partitions[&key(1, 0)].log_start = offset(2);
            }),
            ("a run without rows", &|state| {
                let run = crate::Run { rows: 0, ..run_at(state, 0) };
                state.runs.insert((key(1, 2), offset(0)), run);
            }),
            ("a run of no partition", &|state| {
                let run = run_at(state, 0);
                state.runs.insert((key(3, 0), offset(0)), run);
            }),
            ("a run without an end", &|state| {
                state.runs[&(key(1, 0), offset(2))].span = u64::MAX;
            }),
            ("more rows than offsets", &|state| {
                state.runs[&(key(1, 0), offset(2))].rows += 1;
            }),
            ("a gap outside of a table file", &|state| {
                state.runs[&(key(1, 0), offset(2))].rows -= 1;
            }),
            ("a clean run outside of a table file", &|state| {
                state.runs[&(key(1, 0), offset(2))].clean = true;
            }),
        ],
    );
}

#[test]
fn objects_count_their_runs() {
    breaks(
        "2 (objects count their runs)",
        &[
            ("a forgotten object", &|state| {
                state.objects.remove(&ObjectId::Segment(segment(1)));
            }),
            ("an object that nothing names", &|state| {
                state.objects.insert(ObjectId::Segment(segment(2_000)), Default::default());
            }),
            ("one run too many", &|state| state.objects[&ObjectId::Segment(segment(1))].live_runs += 1),
            ("one byte too few", &|state| state.objects[&ObjectId::Segment(segment(1))].live_bytes -= 1),
            ("a commit of the future", &|state| {
                rename(state, ObjectId::Commit(state.number));
            }),
            ("a segment above the highest id", &|state| rename(state, ObjectId::Segment(segment(99)))),
        ],
    );
}

/// Lets the run of partition 1 be in another object.
fn rename(state: &mut State, object: ObjectId) {
    let run = &mut state.runs[&(key(1, 1), offset(0))];
    let counted = state.objects.remove(&run.object).unwrap();
    run.object = object;
    state.objects.insert(object, counted);
}

#[test]
fn topics_have_their_partitions() {
    breaks(
        "3 (topics have their partitions)",
        &[
            ("a name of nothing", &|state| {
                state.names.insert(super::name("ghost"), topic_id(9));
            }),
            ("a name that leads elsewhere", &|state| {
                state.names.insert(super::name("orders"), topic_id(2));
            }),
            ("a table of nothing", &|state| {
                state.tables.insert("ghost".to_owned(), topic_id(9));
            }),
            ("a missing table", &|state| {
                state.tables.remove("orders");
            }),
            ("a missing partition", &|state| {
                state.partitions.remove(&key(1, 2));
            }),
            ("a partition too many", &|state| {
                state.partitions.insert(key(1, 3), Partition::default());
            }),
            ("one topic's partition under another", &|state| {
                state.partitions.remove(&key(1, 2));
                state.partitions.insert(key(2, 1), Partition::default());
            }),
            ("a topic without partitions", &|state| {
                state.partitions.remove(&key(2, 0));
                state.topics[&topic_id(2)].partitions = 0;
            }),
        ],
    );
}

#[test]
fn directories_lead_to_the_place() {
    breaks(
        "4 (directories lead to the place)",
        &[
            ("another place", &|state| state.place.index += 1),
            ("another number", &|state| state.number = state.number.next()),
            ("another directory", &|state| state.place.directory = directory(1, 8)),
            ("an epoch skipped", &|state| {
                state.directories.insert(CommitNumber::new(1), directory(2, 1));
                state.place.directory = directory(2, 1);
            }),
            ("a directory of the future", &|state| {
                state.directories.insert(CommitNumber::new(99), directory(2, 1));
            }),
            ("a forgotten beginning", &|state| {
                state.directories.remove(&CommitNumber::ZERO);
            }),
            ("no owner", &|state| state.owner = None),
        ],
    );
}

fn the_producer(state: &mut State) -> &mut crate::producer::Producer {
    &mut state.producers[&(key(1, 0), crate::ProducerId::new(7))]
}

#[test]
fn memories_are_bounded() {
    breaks(
        "5 (memories are bounded)",
        &[
            ("a flush of the future", &|state| {
                let (_, outcome) = state.flushes.iter().next().unwrap();
                let outcome = crate::FlushOutcome { number: state.number, runs: outcome.runs.clone() };
                state.flushes.insert(flush_id(3), outcome.into());
            }),
            ("a flush below the boundary", &|state| state.boundary = segment(2)),
            ("a boundary above what was committed", &|state| {
                state.flushes.clear();
                state.boundary = segment(4);
            }),
            ("an unknown feature level", &|state| state.feature_level = FeatureLevel::new(2)),
        ],
    );
}

#[test]
fn producers_are_bounded() {
    breaks(
        "6 (producers are bounded)",
        &[
            ("six batches", &|state| {
                let producer = the_producer(state);
                for _ in 0..5 {
                    let again = producer.recent[0];
                    producer.recent.push_back(again);
                }
            }),
            ("no batches", &|state| {
                let producer = the_producer(state);
                producer.recent.clear();
            }),
            ("a producer of no partition", &|state| {
                let (_, producer) = state.producers.iter().next().unwrap();
                let producer = producer.clone();
                state.producers.insert((key(9, 0), crate::ProducerId::new(7)), producer);
            }),
            ("a producer that wrote what is not there", &|state| {
                let producer = the_producer(state);
                producer.recent[0].base_offset = offset(3);
            }),
            ("a producer that is not counted", &|state| {
                state.producer_counts.clear();
            }),
            ("a count of nobody", &|state| {
                state.producer_counts.insert(key(1, 2), 1);
            }),
            ("more producers of a partition than may be", &|state| {
                let producer = the_producer(state).clone();
                for id in 0..crate::state::PRODUCERS_PER_PARTITION_MAX as i64 {
                    state.producers.insert((key(1, 0), crate::ProducerId::new(1_000 + id)), producer.clone());
                }
                state.producer_counts.insert(key(1, 0), crate::state::PRODUCERS_PER_PARTITION_MAX as u32 + 1);
            }),
            ("more ids than there are", &|state| state.producer_ids = crate::producer::NUMBERS_MAX + 1),
        ],
    );
}

#[test]
fn a_damaged_snapshot_is_not_restored() {
    let good = whole().snapshot();
    assert!(State::restore(good.clone()).is_ok());
    let mut twice = good.clone();
    twice.partitions.push(twice.partitions[0].clone());
    let mut short = good.clone();
    short.partitions[0].runs.pop();
    let mut nameless = good.clone();
    nameless.topics.pop();
    let mut elsewhere = good;
    elsewhere.place.index += 1;
    for damaged in [twice, short, nameless, elsewhere] {
        assert!(State::restore(damaged.clone()).is_err(), "{damaged:?}");
    }
}
