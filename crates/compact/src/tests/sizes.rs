//! How large table files become, whatever rows are made of.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::*;
use crate::{CompactionOptions, Compactor, FileSizes, Known, Packing, Turn, compact, files_job, log_job};
use lakebed_store::faults::{Fault, FaultBackend, Operation, Outcome};

const FILE_BYTES_MAX: usize = 1 << 20;
/// Bytes of a record.
const VALUE_BYTES: usize = 50_000;
const FLUSHES: usize = 200;

/// Text that shrinks by about half, or hardly.
fn value(seed: u64, bytes: usize, is_text: bool) -> String {
    let mut random = seed.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mut next = || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random
    };
    let alphabet = if is_text { 4 } else { 128 };
    (0..bytes).map(|_| char::from(u8::try_from(next() % alphabet).unwrap())).collect()
}

/// Appends a record to each of two partitions; no two are alike.
async fn append_both(log: &Log, number: u64, is_text: bool) {
    append_to(log, 0..1, &value(2 * number, VALUE_BYTES, is_text)).await;
    append_to(log, 1..2, &value(2 * number + 1, VALUE_BYTES, is_text)).await;
}

/// The sizes of a topic's table files after a steady stream, ascending, and how often its bytes were written.
async fn sizes_after_a_stream(is_text: bool) -> (Vec<u64>, f64) {
    let store = store();
    let log = open(&store, 1).await;
    create_topic(&log).await;
    let options = CompactionOptions {
        bytes: 300_000,
        file_bytes_max: FILE_BYTES_MAX,
        job_bytes_max: 500_000,
        join_bytes_max: 8 << 20,
        ..CompactionOptions::default()
    };
    let compactor = Compactor::new(log.clone(), store.clone(), options, Turn::default());
    let running = tokio::spawn({
        let compactor = compactor.clone();
        async move { compactor.run().await }
    });
    for flush in 0..FLUSHES as u64 {
        append_both(&log, flush, is_text).await;
        tokio::time::sleep(Duration::from_secs(4)).await;
    }
    compactor.refresh(key(0).topic).await.unwrap();
    running.abort();
    let written = compactor.counts().bytes_in.load(Ordering::Relaxed);
    let state = log.state();
    let listed = store.list(&Directory::root(), None, 100_000).await.unwrap().objects;
    let mut sizes = Vec::new();
    for (id, _) in state.table_files(key(0).topic) {
        let key = lakebed_segment::layout::table_file_key("orders", id);
        sizes.push(listed.iter().find(|listed| listed.key.as_str() == key).expect("it stands").size_bytes);
    }
    sizes.sort_unstable();
    (sizes, written as f64 / (FLUSHES * 2 * VALUE_BYTES) as f64)
}

#[tokio::test(start_paused = true)]
async fn most_files_of_a_steady_stream_are_of_a_good_size_whatever_it_is_made_of() {
    for is_text in [false, true] {
        let (sizes, written) = sizes_after_a_stream(is_text).await;
        let (aim, max) = (FILE_BYTES_MAX as u64 / 2, FILE_BYTES_MAX as u64);
        assert!(sizes[sizes.len() / 2] >= aim && *sizes.last().unwrap() <= max + max / 8, "{is_text}: {sizes:?}");
        let small = sizes.iter().filter(|size| **size < aim).sum::<u64>();
        assert!(small <= 2 * aim, "{is_text}: what is small is the newest: {sizes:?}");
        assert!(written <= 3.5, "{is_text}: every byte was written {written} times");
    }
}

#[tokio::test(start_paused = true)]
async fn a_topic_that_is_never_quiet_is_compacted_no_more_often_than_its_bytes_ask_for() {
    let store = store();
    let log = open(&store, 1).await;
    create_topic(&log).await;
    let options = CompactionOptions { bytes: 300_000, file_bytes_max: 64 << 20, ..CompactionOptions::default() };
    let compactor = Compactor::new(log.clone(), store.clone(), options, Turn::default());
    let running = tokio::spawn({
        let compactor = compactor.clone();
        async move { compactor.run().await }
    });
    // At every look there is something: 300,000 bytes are there after 15 seconds.
    for flush in 0..1200 {
        append_to(&log, flush % 2..flush % 2 + 1, &value(flush.into(), 5_000, false)).await;
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    running.abort();
    let compactions = compactor.counts().compactions.load(Ordering::Relaxed);
    assert!((15..=25).contains(&compactions), "{compactions} in 300 seconds, a few of them of files");
}

#[tokio::test(start_paused = true)]
async fn what_is_left_of_a_full_file_is_no_small_one() {
    const LARGE: usize = 64 << 20;
    const RECORD_BYTES: usize = 900_000;
    let store = store();
    let log = open(&store, 1).await;
    create_topic(&log).await;
    // A bit more than twice the least, and than three times.
    for (records, expected) in [(98, 2), (144, 3)] {
        for record in 0..records {
            let partition = u32::try_from(record % 2).unwrap();
            append_to(&log, partition..partition + 1, &value(record, RECORD_BYTES, false)).await;
        }
        let options = CompactionOptions { file_bytes_max: LARGE, ..CompactionOptions::default() };
        let state = log.state();
        let job = log_job(&state, key(0).topic, &options, &BTreeSet::new()).unwrap();
        let done = compact(&log, &store, &state, &job, LARGE).await.unwrap();
        assert_eq!(done.files, expected, "{} bytes", done.bytes_out);
        // None is joined with others any more.
        let mut known = Known { packing: Packing::default(), ..Known::default() };
        known.packing.note(key(0).topic, done.bytes_in, done.bytes_out);
        assert_eq!(files_job(&log.state(), key(0).topic, &options, &known), None);
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_in_memory_of_files_does_not_grow_with_them() {
    const GROUP_BYTES: usize = 4 << 20;
    const RECORD_BYTES: usize = 900_000;
    let mut held = Vec::new();
    for records in [40, 120] {
        let store = store();
        let log = open(&store, 1).await;
        create_topic(&log).await;
        for record in 0..records {
            append_to(&log, 0..1, &value(record, RECORD_BYTES, false)).await;
        }
        let state = log.state();
        let job = log_job(&state, key(0).topic, &CompactionOptions::default(), &BTreeSet::new()).unwrap();
        let sizes = FileSizes { file_bytes_max: 1 << 30, group_bytes: GROUP_BYTES };
        let before = store.counts().put;
        let done = compact(&log, &store, &state, &job, sizes).await.unwrap();
        assert_eq!(done.files, 1);
        assert!(done.bytes_out > records * RECORD_BYTES as u64 * 3 / 4, "{} bytes", done.bytes_out);
        let parts = done.bytes_out.div_ceil(store.part_bytes() as u64);
        let puts = store.counts().put.requests() - before.requests();
        assert_eq!(puts, parts + 2 + 1, "the parts, what begins and completes them, and the commit");
        held.push(done.held_bytes_max);
    }
    // A row group, the batch that ends it, and what fills no part yet.
    let bound = (GROUP_BYTES + (5 << 20) + (8 << 20)) as u64;
    assert!(held.iter().all(|held| *held <= bound), "{held:?}, bound {bound}");
}

#[tokio::test(start_paused = true)]
async fn a_compaction_that_is_dropped_anywhere_leaves_no_parts_and_can_be_done_again() {
    let memory = Arc::new(MemoryBackend::default());
    let slow = Fault { before: Duration::from_millis(1), after: Duration::from_millis(1), outcome: Outcome::Answered };
    let faults = Arc::new(FaultBackend::new(memory.clone(), move |_: &Operation<'_>| slow));
    let options = StoreOptions { part_bytes: Some(3_000), ..StoreOptions::default() };
    let store = Store::new("memory://", faults, &options);
    let log = open(&store, 1).await;
    create_topic(&log).await;
    for record in 0..6 {
        append_to(&log, 0..1, &value(record, 5_000, false)).await;
    }
    let (mut dropped, mut lost) = (0, 0);
    loop {
        let state = log.state();
        let Some(job) = log_job(&state, key(0).topic, &CompactionOptions::default(), &BTreeSet::new()) else { break };
        let sizes = FileSizes { file_bytes_max: 1 << 20, group_bytes: 1 };
        let time = Duration::from_millis(1 + dropped);
        if tokio::time::timeout(time, compact(&log, &store, &state, &job, sizes)).await.is_ok() {
            break;
        }
        dropped += 1;
        tokio::time::sleep(Duration::from_secs(60)).await;
        // Of what was begun and not heard of nobody knows the id: that is for the store's own rule.
        let left = memory.uploads_open();
        assert!(left <= lost + 1, "{left} uploads are open after {dropped} were dropped");
        lost = left;
    }
    assert!(dropped > 20 && lost <= 2, "{dropped} were dropped, {lost} uploads are open");
    tokio::time::sleep(Duration::from_secs(60)).await;
    let state = log.state();
    assert!(state.runs_of_topic(key(0).topic).all(|(.., run)| matches!(run.object, lakebed_model::ObjectId::Table(_))));
    assert_eq!(state.table_files(key(0).topic).len(), 1);
}
