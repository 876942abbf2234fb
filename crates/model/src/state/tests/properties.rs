//! Properties of every valid history.

use std::cell::RefCell;
use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::test_runner::{RngSeed, TestRunner};

use super::history::{History, Step, steps};
use super::raw_commit;
use crate::commit::{BatchRefusal, Commit, Entry, Outcome};
use crate::ids::{CommitNumber, Nonce, Offset, PartitionIndex, Place, SegmentId};
use crate::state::{ApplyError, ObjectId, Refusal, State};

/// Every run draws the same histories; a failing one is printed in its smallest form.
fn for_histories(property: impl Fn(&History) -> Result<(), TestCaseError>) {
    let config = ProptestConfig {
        cases: 3000,
        rng_seed: RngSeed::Fixed(0x1A6E),
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let outcome = TestRunner::new(config).run(&steps(), |steps: Vec<Step>| property(&History::play(&steps)));
    assert!(outcome.is_ok(), "{}", outcome.unwrap_err());
}

fn fold(mut state: State, commits: &[Commit]) -> State {
    for commit in commits {
        state.apply(commit).unwrap();
    }
    state
}

#[test]
fn the_histories_exercise_every_kind_of_entry_and_outcome() {
    let tally = RefCell::new(BTreeMap::new());
    for_histories(|history| {
        history.count(&mut tally.borrow_mut());
        Ok(())
    });
    let tally = tally.into_inner();
    let expected = [
        "takeover",
        "create",
        "alter",
        "add partitions",
        "delete",
        "flush",
        "merge",
        "compact",
        "compact keys",
        "publish table",
        "generation",
        "offsets",
        "delete offsets",
        "expire offsets",
        "delete group",
        "log start",
        "trim",
        "boundary",
        "allot ids",
        "expire",
        "appended",
        "duplicate",
        "refused",
        "mismatch",
        "live inline objects",
    ];
    for name in expected {
        assert!(tally.get(name).is_some_and(|count| *count >= 50), "{name}: {tally:?}");
    }
}

#[test]
fn any_prefix_and_its_suffix_give_the_state_of_the_whole() {
    for_histories(|history| {
        let whole = history.states.last().unwrap();
        for cut in 0..=history.commits.len() {
            let (prefix, suffix) = history.commits.split_at(cut);
            let halfway = fold(history.states[0].clone(), prefix);
            prop_assert_eq!(&halfway, &history.states[cut]);
            let restored = State::restore(halfway.snapshot()).unwrap();
            prop_assert_eq!(&fold(restored, suffix), whole);
        }
        Ok(())
    });
}

#[test]
fn what_the_sequencer_sealed_is_what_every_reader_folds() {
    for_histories(|history| {
        let mut reader = history.states[0].clone();
        for (commit, sealed) in history.commits.iter().zip(&history.states[1..]) {
            reader.apply(commit).unwrap();
            reader.check_invariants().unwrap();
            prop_assert_eq!(&reader, sealed);
        }
        Ok(())
    });
}

#[test]
fn every_readable_offset_keeps_the_hash_of_the_record_that_was_acknowledged_there() {
    for_histories(|history| {
        history.check_rows(history.states.last().unwrap());
        Ok(())
    });
}

#[test]
fn a_snapshot_restores_to_the_same_state() {
    for_histories(|history| {
        for state in &history.states {
            let snapshot = state.snapshot();
            let restored = State::restore(snapshot.clone()).unwrap();
            prop_assert_eq!(&restored, state);
            prop_assert_eq!(restored.snapshot(), snapshot);
        }
        Ok(())
    });
}

#[test]
fn a_commit_that_is_changed_in_any_way_is_refused_and_changes_nothing() {
    let kinds = RefCell::new(BTreeMap::<&'static str, usize>::new());
    for_histories(|history| {
        for (commit, before) in history.commits.iter().zip(&history.states) {
            for (what, mutant) in mutants(commit, before) {
                let mut state = before.clone();
                prop_assert!(state.apply(&mutant).is_err(), "{} was accepted: {:?}", what, mutant);
                prop_assert_eq!(&state, before, "{} changed something", what);
                *kinds.borrow_mut().entry(what).or_default() += 1;
            }
        }
        Ok(())
    });
    let kinds = kinds.into_inner();
    assert!(kinds.len() == 29 && kinds.values().all(|count| *count >= 50), "{kinds:?}");
}

/// Every way to spoil a valid commit that applies to it.
fn mutants(commit: &Commit, before: &State) -> Vec<(&'static str, Commit)> {
    let mut mutants = Vec::new();
    let mut add = |what, spoil: &dyn Fn(&mut Commit)| {
        mutants.push((what, commit.clone()));
        mutants.iter_mut().next_back().into_iter().for_each(|(_, mutant)| spoil(mutant));
    };
    add("next number", &|c| c.number = c.number.next());
    add("next place", &|c| c.place.index += 1);
    add("other directory", &|c| c.place.directory.nonce = Nonce::new(77));
    add("no entries", &|c| c.entries.clear());
    add("a takeover among others", &|c| {
        let next = super::directory(before.place().directory.epoch.get() + 1, 3);
        c.entries.push(Entry::Takeover(crate::Takeover { next, address: String::new() }));
    });
    let takes_over = matches!(commit.entries[..], [Entry::Takeover(_)]);
    if !takes_over {
        add("other writer", &|c| c.writer = Nonce::new(77));
    }
    for (index, entry) in commit.entries.iter().enumerate() {
        match entry {
            Entry::Takeover(_) => add("epoch skipped", &|c| {
                if let Entry::Takeover(takeover) = &mut c.entries[index] {
                    takeover.next = super::directory(before.place().directory.epoch.get() + 2, 3);
                }
            }),
            Entry::Flush(_) => {
                add("a flush twice", &|c| c.entries.push(c.entries[index].clone()));
                for (what, spoil) in FLUSH_MUTATIONS {
                    add(what, &|c| {
                        if let Entry::Flush(flush) = &mut c.entries[index] {
                            spoil(flush);
                        }
                    });
                }
            }
            Entry::Merge(_) => add("merged rows", &|c| {
                if let Entry::Merge(merge) = &mut c.entries[index] {
                    merge.runs[0].hash = merge.runs[0].hash.push(1);
                }
            }),
            Entry::Compact(compaction) if !compaction.files.is_empty() => {
                add("a table file twice", &|c| c.entries.insert(index + 1, c.entries[index].clone()));
                for (what, spoil) in COMPACTION_MUTATIONS {
                    add(what, &|c| {
                        if let Entry::Compact(compaction) = &mut c.entries[index] {
                            spoil(compaction);
                        }
                    });
                }
            }
            Entry::CompactKeys(_) => {
                KEYS_MUTATIONS.iter().for_each(|(what, spoil)| add(*what, &|c| spoiled(c, index, spoil)))
            }
            Entry::PublishTable { .. } => {
                add("a version that was never allotted", &|c| raise(&mut c.entries[index], 1000))
            }
            Entry::AllotProducerIds { .. } => add("ids given before", &|c| raise(&mut c.entries[index], 1)),
            Entry::ExpireProducers { .. } => add("one more forgotten", &|c| raise(&mut c.entries[index], 1)),
            _ => {}
        }
    }
    mutants
}

/// Raises the number that an entry is about.
fn raise(entry: &mut Entry, by: u32) {
    match entry {
        Entry::PublishTable { version, .. } => *version += by,
        Entry::AllotProducerIds { first, .. } => *first += u64::from(by),
        Entry::ExpireProducers { forgotten, .. } => *forgotten += u64::from(by),
        other => unreachable!("{other:?} has no such number"),
    }
}

type CompactionMutation = (&'static str, fn(&mut crate::Compaction));

const COMPACTION_MUTATIONS: [CompactionMutation; 3] = [
    ("compacted rows", |compaction| {
        let run = &mut compaction.files[0].runs[0];
        run.hash = run.hash.push(1);
    }),
    ("a table file without rows", |compaction| compaction.files[0].runs.clear()),
    ("rows of another topic", |compaction| {
        compaction.files[0].runs[0].partition.topic = crate::TopicId::new(uuid::Uuid::max());
    }),
];

fn spoiled(commit: &mut Commit, index: usize, spoil: &dyn Fn(&mut crate::KeyCompaction)) {
    if let Entry::CompactKeys(compaction) = &mut commit.entries[index] {
        spoil(compaction);
    }
}

type KeysMutation = (&'static str, fn(&mut crate::KeyCompaction));

const KEYS_MUTATIONS: [KeysMutation; 7] = [
    ("another file that it replaces", |compaction| compaction.replaces[0] = compaction.files[0].id),
    ("a row more than offsets", |compaction| compaction.files[0].runs[0].rows = compaction.files[0].runs[0].span + 1),
    ("an offset more", |compaction| {
        let last = compaction.files[0].runs.last_mut().unwrap();
        last.span += 1;
    }),
    ("an offset less", |compaction| {
        let first = &mut compaction.files[0].runs[0];
        first.base_offset = first.base_offset.checked_add(1).unwrap();
        first.span = (first.span - 1).max(1);
    }),
    ("a run twice", |compaction| {
        let last = compaction.files[0].runs.last().copied().unwrap();
        compaction.files[0].runs.push(last);
    }),
    ("more bytes", |compaction| compaction.files[0].runs[0].bytes = u64::MAX),
    ("keys of another topic", |compaction| {
        compaction.files[0].runs[0].partition.topic = crate::TopicId::new(uuid::Uuid::max());
    }),
];

type FlushMutation = (&'static str, fn(&mut crate::Flush));

const FLUSH_MUTATIONS: [FlushMutation; 6] = [
    ("an expectation", |flush| {
        let (facts, outcome) = &mut flush.runs[0].batches[0];
        match outcome {
            Outcome::Appended(base) => facts.expected_next_offset = Some(base.checked_add(1).unwrap()),
            other => *other = Outcome::Refused(BatchRefusal::OffsetMismatch { next: Offset::new(u64::MAX) }),
        }
    }),
    ("outcome", |flush| {
        let outcome = &mut flush.runs[0].batches[0].1;
        *outcome = match *outcome {
            Outcome::Appended(base) => Outcome::Duplicate(base),
            Outcome::Duplicate(base) => Outcome::Appended(base),
            Outcome::Refused(_) => Outcome::Appended(Offset::ZERO),
        };
    }),
    ("first row", |flush| flush.runs[0].first_row += 1),
    ("no runs", |flush| flush.runs.clear()),
    ("a partition twice", |flush| {
        let mut again = flush.runs[flush.runs.len() - 1].clone();
        again.first_row += again.batches.iter().map(|(facts, _)| u64::from(facts.rows)).sum::<u64>();
        flush.runs.push(again);
    }),
    ("a batch without rows", |flush| flush.runs[0].batches[0].0.rows = 0),
];

#[test]
fn an_entry_that_names_an_id_below_the_boundary_is_refused() {
    for_histories(|history| {
        let state = history.states.last().unwrap();
        let boundary = state.reclaim_boundary();
        if boundary == SegmentId::MIN {
            return Ok(());
        }
        for commit in &history.commits {
            for entry in &commit.entries {
                let id = match entry {
                    Entry::Flush(flush) => SegmentId::from(flush.id),
                    Entry::Merge(merge) => merge.segment,
                    Entry::Compact(compaction) if !compaction.files.is_empty() => compaction.files[0].id.into(),
                    Entry::CompactKeys(compaction) => compaction.files[0].id.into(),
                    _ => continue,
                };
                if id < boundary {
                    let error = state.clone().apply(&raw_commit(state, vec![entry.clone()])).unwrap_err();
                    let refusal = Refusal::BelowReclaimBoundary { id, boundary };
                    prop_assert_eq!(error, ApplyError::Refused { number: state.number(), entry: 0, refusal });
                }
            }
        }
        Ok(())
    });
}

#[test]
fn a_producer_is_remembered_with_the_time_of_its_last_batch_until_it_was_idle_for_too_long() {
    for_histories(|history| {
        let state = history.states.last().unwrap();
        let remembered: Vec<_> = state.producers.iter().map(|(place, one)| (*place, one.last_ms)).collect();
        let wrote: Vec<_> = history.wrote_in(state).map(|(place, wrote_ms)| (*place, *wrote_ms)).collect();
        prop_assert_eq!(remembered, wrote);
        Ok(())
    });
}

#[test]
fn the_versions_of_a_name_s_tables_only_grow_and_are_never_used_twice() {
    for_histories(|history| {
        let mut highest: BTreeMap<String, u32> = BTreeMap::new();
        let mut known: BTreeMap<crate::TopicId, u32> = BTreeMap::new();
        for state in &history.states {
            for (topic, table) in state.tables() {
                if known.insert(topic, table.version) != Some(table.version) {
                    let name = state.topic(topic).unwrap().name.table_name();
                    let before = highest.insert(name, table.version).unwrap_or(0);
                    prop_assert!(table.version > before, "version {} after {}", table.version, before);
                }
                prop_assert!(table.published <= table.version);
            }
            // Rows of table files are those of topics that have a version.
            for (key, _, run) in state.runs() {
                if matches!(run.object, ObjectId::Table(_)) {
                    prop_assert!(state.table(key.topic).is_some());
                }
            }
        }
        Ok(())
    });
}

#[test]
fn a_table_file_is_partial_as_long_as_it_holds_rows_that_are_not_named() {
    let partial_files = RefCell::new(0_usize);
    for_histories(|history| {
        let mut rows: BTreeMap<crate::TableFileId, u64> = BTreeMap::new();
        for entry in history.commits.iter().flat_map(|commit| &commit.entries) {
            match entry {
                Entry::Compact(compaction) => rows
                    .extend(compaction.files.iter().map(|file| (file.id, file.runs.iter().map(|run| run.rows).sum()))),
                Entry::CompactKeys(compaction) => rows
                    .extend(compaction.files.iter().map(|file| (file.id, file.runs.iter().map(|run| run.rows).sum()))),
                _ => {}
            }
        }
        for state in &history.states {
            for (topic, _) in state.topics() {
                for (file, named) in state.table_files(topic) {
                    let is_partial = state.object(ObjectId::Table(file)).unwrap().is_partial;
                    prop_assert_eq!(is_partial, named != rows[&file]);
                    *partial_files.borrow_mut() += usize::from(is_partial);
                }
            }
        }
        Ok(())
    });
    let partial_files = partial_files.into_inner();
    assert!(partial_files >= 50, "{partial_files}");
}

#[test]
fn places_and_numbers_are_inverse_over_all_epochs() {
    for_histories(|history| {
        let last = history.states.last().unwrap();
        for commit in &history.commits {
            prop_assert_eq!(last.place_of(commit.number), Some(commit.place));
            prop_assert_eq!(last.number_at(commit.place), Some(commit.number));
            let is_takeover = matches!(commit.entries[..], [Entry::Takeover(_)]);
            prop_assert_eq!(last.is_takeover(commit.number), is_takeover);
            if is_takeover {
                let beyond = Place { index: commit.place.index + 1, ..commit.place };
                prop_assert_eq!(last.number_at(beyond), None, "what stands beyond a takeover is not of the log");
            }
        }
        prop_assert_eq!(last.place_of(last.number()), None);
        prop_assert_eq!(last.number_at(last.place()), None);
        prop_assert_eq!(last.number(), CommitNumber::new(history.commits.len() as u64));
        Ok(())
    });
}

#[test]
fn reading_from_an_offset_begins_with_the_run_that_holds_it() {
    for_histories(|history| {
        let state = history.states.last().unwrap();
        for (key, bounds) in &state.partitions {
            for offset in bounds.log_start.get()..=bounds.high_watermark.get() {
                let from: Vec<_> = state.runs_from(*key, Offset::new(offset)).collect();
                let expected: Vec<_> =
                    state.runs_of(*key).filter(|(base, run)| base.get() + run.span > offset).collect();
                prop_assert_eq!(from, expected);
            }
            let missing = crate::PartitionKey::new(key.topic, PartitionIndex::new(u32::MAX));
            prop_assert_eq!(state.runs_from(missing, Offset::ZERO).count(), 0);
        }
        Ok(())
    });
}
