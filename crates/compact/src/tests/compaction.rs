//! Compaction on the real log over a memory store: same rows, fewer runs, table files that anybody can read.

use lakebed_model::{ObjectId, State};
use lakebed_segment::layout;
use lakebed_segment::table::{ParsedTable, TableFooter};
use lakebed_store::Key;

use super::*;
use crate::{
    CompactionOptions, Compactor, Job, Known, Retention, RewriteError, Turn, backlogs, compact, files_job, log_job,
};

fn compaction_options() -> CompactionOptions {
    CompactionOptions { file_bytes_max: 1 << 20, ..CompactionOptions::default() }
}

fn everything(state: &State) -> Job {
    log_job(state, key(0).topic, &compaction_options(), &BTreeSet::new()).expect("there are rows of the log")
}

async fn table_file(store: &Store, id: lakebed_model::TableFileId) -> TableFooter {
    let bytes = store.get(&Key::new(layout::table_file_key("orders", id)).unwrap()).await.unwrap();
    match TableFooter::parse(&bytes, bytes.len() as u64).unwrap() {
        ParsedTable::Whole(footer) => footer,
        other @ ParsedTable::NeedsSuffix(_) => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn rows_of_the_log_become_a_table_file_and_a_new_version() {
    let store = store();
    let log = open(&store, 1).await;
    create_topic(&log).await;
    for index in 0..20 {
        append(&log, &format!("record {index}")).await;
    }
    let before = log.state();
    let done = compact(&log, &store, &before, &everything(&before), 1 << 20).await.unwrap();
    assert_eq!((done.runs, done.files), (40, 1));
    let state = log.state();
    assert_eq!(state.run_count(), 2, "one run a partition");
    assert_eq!(state.table(key(0).topic).map(|table| (table.version, table.published)), Some((1, 0)));
    let [(id, 40)] = state.table_files(key(0).topic)[..] else { panic!("{:?}", state.table_files(key(0).topic)) };
    let footer = table_file(&store, id).await;
    let runs: Vec<_> = footer.runs().map(|(p, base, rows)| (p.get(), base.get(), rows)).collect();
    assert_eq!(runs, [(0, 0, 20), (1, 0, 20)]);
    // What comes later goes into another file; then both become one.
    append(&log, "later").await;
    let state = log.state();
    compact(&log, &store, &state, &everything(&state), 1 << 20).await.unwrap();
    let state = log.state();
    assert_eq!(state.run_count(), 4);
    let runs = state.runs_of_topic(key(0).topic).collect();
    compact(&log, &store, &state, &Job { topic: key(0).topic, runs }, 1 << 20).await.unwrap();
    let state = log.state();
    assert_eq!((state.run_count(), state.table(key(0).topic).unwrap().version), (2, 3));
    // A fresh broker finds the same: the checkpoint and the commits say so.
    drop(log);
    let again = open(&store, 2).await;
    assert!(again.state().runs().eq(state.runs()));
    assert_eq!(again.state().table(key(0).topic), state.table(key(0).topic));
}

#[tokio::test(start_paused = true)]
async fn a_full_file_is_followed_by_another_in_the_same_commit() {
    let store = store();
    let log = open(&store, 1).await;
    create_topic(&log).await;
    for index in 0..6 {
        append(&log, &format!("record {index}")).await;
    }
    let state = log.state();
    let done = compact(&log, &store, &state, &everything(&state), 1).await.unwrap();
    assert_eq!(done.files, 12, "every run fills a file of one byte");
    let state = log.state();
    assert_eq!((state.table_files(key(0).topic).len(), state.table(key(0).topic).unwrap().version), (12, 1));
    let options = compaction_options();
    let none = Known::default();
    assert!(backlogs(&state, &options, &none)[&key(0).topic].small_files);
    let job = files_job(&state, key(0).topic, &options, &none).unwrap();
    assert_eq!(job.runs.len(), 8);
    compact(&log, &store, &state, &job, 1 << 20).await.unwrap();
    assert_eq!(log.state().table_files(key(0).topic).len(), 5);
}

#[tokio::test(start_paused = true)]
async fn a_compaction_that_comes_too_late_changes_nothing() {
    let store = store();
    let log = open(&store, 1).await;
    create_topic(&log).await;
    append(&log, "a").await;
    append(&log, "b").await;
    let before = log.state();
    let mut job = everything(&before);
    job.runs.retain(|(_, base, _)| *base == Offset::ZERO);
    let all = Plan::whole(before.objects().map(|(id, _)| id).collect());
    merge(&log, &store, &before, &all).await.unwrap();
    let state = log.state();
    let late = compact(&log, &store, &before, &job, 1 << 20).await;
    assert!(matches!(late, Err(RewriteError::Stale(_))), "{late:?}");
    assert!(log.state().runs().eq(state.runs()) && log.state().table(key(0).topic).is_none());
    // Nor does a merge take rows out of table files.
    compact(&log, &store, &state, &everything(&state), 1 << 20).await.unwrap();
    let state = log.state();
    assert!(state.objects().all(|(id, _)| matches!(id, ObjectId::Table(_))));
    append(&log, "c").await;
    let merger = Merger::new(log.clone(), store.clone(), Options { runs_high: 1, ..options(1) });
    assert!(!merger.step().await, "there is one object besides the table file");
}

#[tokio::test(start_paused = true)]
async fn damaged_rows_are_not_rewritten_and_the_rest_of_the_topic_goes_on() {
    let store = store();
    let log = open(&store, 1).await;
    create_topic(&log).await;
    for index in 0..4 {
        append(&log, &format!("record {index}")).await;
    }
    let (victim, _) = log.state().objects().next().unwrap();
    let ObjectId::Commit(number) = victim else { panic!("{victim:?}") };
    let place = log.state().place_of(number).unwrap();
    store.delete(&[Key::new(layout::commit_key(log.identity().cell, place)).unwrap()]).await.unwrap();
    let options = CompactionOptions { bytes: 1, ..compaction_options() };
    let compactor = Compactor::new(log.clone(), store.clone(), options, Turn::default());
    let running = tokio::spawn({
        let compactor = compactor.clone();
        async move { compactor.run().await }
    });
    let mut commits = log.watch();
    while log.state().table(key(0).topic).is_none() {
        commits.changed().await.unwrap();
    }
    let state = log.state();
    assert!(state.object(victim).is_some(), "the damaged object is still named");
    assert_eq!(state.object_count(), 2, "it, and a table file");
    let failed = compactor.refresh(key(0).topic).await;
    assert!(matches!(failed, Err(RewriteError::Damaged { object, .. }) if object == victim), "{failed:?}");
    running.abort();
}

#[tokio::test(start_paused = true)]
async fn quiet_topics_wait_for_their_age_and_whoever_asks_does_not() {
    let store = store();
    let log = open(&store, 1).await;
    create_topic(&log).await;
    append(&log, "a").await;
    let compactor = Compactor::new(log.clone(), store.clone(), compaction_options(), Turn::default());
    let running = tokio::spawn({
        let compactor = compactor.clone();
        async move { compactor.run().await }
    });
    tokio::time::sleep(std::time::Duration::from_secs(3500)).await;
    assert!(log.state().table(key(0).topic).is_none(), "a byte may wait for an hour");
    tokio::time::sleep(std::time::Duration::from_secs(200)).await;
    assert_eq!(log.state().table(key(0).topic).map(|table| table.version), Some(1));
    append(&log, "b").await;
    compactor.refresh(key(0).topic).await.unwrap();
    assert_eq!(log.state().table(key(0).topic).map(|table| table.version), Some(2));
    compactor.refresh(key(0).topic).await.unwrap();
    assert_eq!(log.state().table(key(0).topic).map(|table| table.version), Some(2), "nothing was left to do");
    running.abort();
}

#[tokio::test(start_paused = true)]
async fn small_files_are_joined_as_far_as_they_will_go_together() {
    let store = store();
    let log = open(&store, 1).await;
    create_topic(&log).await;
    for index in 0..8 {
        append(&log, &format!("record {index}")).await;
        let state = log.state();
        compact(&log, &store, &state, &everything(&state), 1 << 20).await.unwrap();
    }
    let (state, none) = (log.state(), Known::default());
    let joined = |retention: crate::RetentionOf| {
        let options = CompactionOptions { retention, ..compaction_options() };
        files_job(&state, key(0).topic, &options, &none).map_or(0, |job| job.runs.len())
    };
    assert_eq!(joined(|_| Retention { age_ms: Some(1 << 40), bytes: None }), 16, "all are of one millisecond");
    // Eight files of two partitions with eight bytes each.
    assert_eq!(joined(|_| Retention { age_ms: None, bytes: Some(8 * 64) }), 16);
    assert_eq!(joined(|_| Retention { age_ms: None, bytes: Some(8 * 64 - 4) }), 0, "a part of what is to be kept");
}

#[test]
fn the_fewer_bytes_wait_the_longer_they_may() {
    let options = CompactionOptions::default();
    let seconds = |bytes| options.age(bytes).as_secs();
    assert_eq!([seconds(64 << 20), seconds(32 << 20), seconds(2 << 20), seconds(0)], [60, 120, 1920, 3600]);
}
