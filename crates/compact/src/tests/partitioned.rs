//! Tables that are partitioned by time: a file lies in one hour, whatever was merged before, and whichever way the clock went.

use lakebed_model::{State, TableFileId};
use lakebed_segment::layout;
use lakebed_segment::table::{ParsedTable, TableFooter};
use lakebed_store::Key;

use super::*;
use crate::{CompactionOptions, Compactor, Known, Turn, backlogs, compact, log_job};

const HOUR_MS: i64 = 3_600_000;

async fn create_partitioned(log: &Log) {
    let config = BTreeMap::from([("table.partition.by".to_owned(), "hour".to_owned())]);
    let name = TopicName::new("orders").unwrap();
    let change = Change::CreateTopic { id: key(0).topic, name, partitions: 2, config };
    log.change(change).await.unwrap();
}

async fn hours(store: &Store, id: TableFileId) -> (i64, i64) {
    let bytes = store.get(&Key::new(layout::table_file_key("orders", id)).unwrap()).await.unwrap();
    let ParsedTable::Whole(footer) = TableFooter::parse(&bytes, bytes.len() as u64).unwrap() else { panic!("short") };
    let (least, greatest) = footer.ingest_times_ms().unwrap();
    (least.div_euclid(HOUR_MS), greatest.div_euclid(HOUR_MS))
}

/// The hours of every file, ascending.
async fn all_hours(store: &Store, state: &State) -> Vec<(i64, i64)> {
    let mut found = Vec::new();
    for (id, _) in state.table_files(key(0).topic) {
        found.push(hours(store, id).await);
    }
    found.sort_unstable();
    found
}

async fn compact_log(log: &Log, store: &Store) {
    let state = log.state();
    let job = log_job(&state, key(0).topic, &CompactionOptions::default(), &BTreeSet::new()).unwrap();
    compact(log, store, &state, &job, 1 << 20).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_file_has_the_rows_of_one_hour_of_all_partitions() {
    let store = store();
    let log = open(&store, 1).await;
    create_partitioned(&log).await;
    for (index, hour) in [5, 5, 6, 6, 6, 7, 5, 5].into_iter().enumerate() {
        append_at(&log, 0..2, &format!("record {index}"), hour * HOUR_MS + index as i64).await;
    }
    // Merged first: runs of other hours are left apart.
    let state = log.state();
    let all = Plan::whole(state.objects().map(|(id, _)| id).collect());
    let merged = merge(&log, &store, &state, &all).await.unwrap();
    assert_eq!((merged.runs_before, merged.runs_after), (16, 8), "the clock went back once");
    compact_log(&log, &store).await;
    let state = log.state();
    assert_eq!(all_hours(&store, &state).await, [(5, 5), (6, 6), (7, 7)]);
    assert_eq!(state.run_count(), 8, "two stretches of the hour to which the clock went back are two runs of one file");
    assert_eq!(state.table(key(0).topic).map(|table| table.version), Some(1), "they come in one version");
}

#[tokio::test(start_paused = true)]
async fn when_runs_press_they_become_fewer_at_any_price() {
    let store = store();
    let log = open(&store, 1).await;
    create_partitioned(&log).await;
    for hour in 0..6 {
        append_at(&log, 0..2, "record", hour * HOUR_MS).await;
    }
    let merger = Merger::new(log.clone(), store.clone(), Options { runs_high: 4, ..options(100) });
    while merger.step().await {}
    assert_eq!(log.state().run_count(), 2);
    compact_log(&log, &store).await;
    // All rows are there; the table shows such a file without a partition.
    assert_eq!(all_hours(&store, &log.state()).await, [(0, 5)]);
}

#[tokio::test(start_paused = true)]
async fn small_files_of_one_hour_become_one_and_those_of_others_stay() {
    let store = store();
    let log = open(&store, 1).await;
    create_partitioned(&log).await;
    // Twelve files of four hours each: as many as would be rewritten if hours did not count.
    for round in 0..3 {
        for hour in 0..4 {
            append_at(&log, 0..2, "record", hour * HOUR_MS + round).await;
            compact_log(&log, &store).await;
        }
    }
    let options = CompactionOptions::default();
    let compactor = Compactor::new(log.clone(), store.clone(), options.clone(), Turn::default());
    let running = tokio::spawn({
        let compactor = compactor.clone();
        async move { compactor.run().await }
    });
    tokio::time::sleep(std::time::Duration::from_secs(100)).await;
    assert_eq!(log.state().table_files(key(0).topic).len(), 12);
    assert!(!backlogs(&log.state(), &options, &Known::default()).contains_key(&key(0).topic), "unknown hours are left");
    for round in 3..8 {
        append_at(&log, 0..2, "record", 2 * HOUR_MS + round).await;
        compactor.refresh(key(0).topic).await.unwrap();
    }
    tokio::time::sleep(std::time::Duration::from_secs(100)).await;
    let state = log.state();
    let mut expected: Vec<(i64, i64)> =
        [0, 1, 3].into_iter().flat_map(|hour| [(hour, hour); 3]).chain([(2, 2)]).collect();
    expected.sort_unstable();
    assert_eq!(all_hours(&store, &state).await, expected, "eight of one hour are one");
    let version = state.table(key(0).topic).unwrap().version;
    tokio::time::sleep(std::time::Duration::from_secs(1000)).await;
    assert_eq!(log.state().table(key(0).topic).unwrap().version, version, "and then there is nothing to do");
    running.abort();
}
