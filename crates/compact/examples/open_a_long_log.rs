//! How long a log of 100,000 commits takes to open on a local directory, at the moment that is worst: right before its next
//! checkpoint. The goal is less than a second.
//!
//! What stands in DIRECTORY from an earlier run is opened as it is. Each log is lived through in memory, by the real append, merge, checkpoint and reclaim, then written to a directory as files. Prints for
//! each: what stands in it, and the seconds of three openings. Lives:
//!
//! 1. *merged*: flushes of 8 partitions, merged and reclaimed as in a broker;
//! 2. *never merged*: flushes of 1 partition, so 100,000 live runs;
//! 3. *at the limit*: flushes of 10 partitions, never merged, up to a million live runs, at which producers are made to wait.
//!
//! `cargo run --release -p lakebed-compact --example open_a_long_log -- DIRECTORY [COMMITS]`

#![allow(
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a measurement prints what a clock says"
)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use lakebed_compact::{Merger, Options};
use lakebed_log::{Log, Offload, Seams};
use lakebed_model::{
    Cell, Change, FlushBody, FlushId, FlushProposal, PartitionIndex, PartitionKey, ProposedRun, TopicId, TopicName,
};
use lakebed_segment::batch::{self, Codec, Encoder, Fields, Record, TimestampType};
use lakebed_segment::body::seal;
use lakebed_segment::row_hash::facts;
use lakebed_segment::rows::BodyBatch;
use lakebed_store::{Directory, MemoryBackend, Store, StoreOptions};
use uuid::Uuid;

struct Life {
    name: &'static str,
    partitions: u32,
    merges: bool,
}

const LIVES: [Life; 3] = [
    Life { name: "merged", partitions: 8, merges: true },
    Life { name: "never merged", partitions: 1, merges: false },
    Life { name: "at the limit", partitions: 10, merges: false },
];

fn main() {
    let mut arguments = std::env::args().skip(1);
    let directory = PathBuf::from(arguments.next().expect("name a directory to write logs into"));
    let commits: u64 = arguments.next().map_or(100_000, |text| text.parse().expect("a number of commits"));
    let runtime = || tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    for life in &LIVES {
        let root = directory.join(life.name.replace(' ', "-"));
        if !root.exists() {
            let (objects, state) = runtime().block_on(live(life, commits, &root));
            println!("{}: {state}; {objects} objects", life.name);
        }
        for seed in 0..3 {
            // Dropped with all that it still does, so that the directory is free.
            let runtime = runtime();
            let begun = Instant::now();
            let store = Store::open(root.to_str().unwrap(), &StoreOptions::default()).unwrap();
            let log = runtime.block_on(open(&store, 100 + seed));
            let (seconds, reads) = (begun.elapsed().as_secs_f64(), store.counts().get.requests());
            println!("  {}: opened in {seconds:.3} s ({reads} reads)", life.name);
            drop(log);
        }
    }
}

async fn open(store: &Store, seed: u64) -> Log {
    let seams = Seams { wall: Arc::new(|| 1_700_000_000_000), seed, offload: Offload::Blocking };
    Log::open(store.clone(), lakebed_log::Options::default(), seams).await.unwrap()
}

/// Lives through a log and writes it below `root`; how many objects there are, and a word on its state.
async fn live(life: &Life, commits: u64, root: &Path) -> (usize, String) {
    let store = Store::new("memory://", Arc::new(MemoryBackend::default()), &StoreOptions::default());
    let log = open(&store, 1).await;
    let topic = TopicId::new(Uuid::from_u128(7));
    let name = TopicName::new("orders").unwrap();
    log.change(Change::CreateTopic { id: topic, name, partitions: life.partitions, config: BTreeMap::new() })
        .await
        .unwrap();
    let merger = Merger::new(log.clone(), store.clone(), Options::default());
    let mut checkpoint = (0, 0);
    let mut previous = None;
    loop {
        previous = Some(append(&log, topic, life.partitions, previous).await);
        while life.merges && merger.step().await {}
        let number = log.state().number().get();
        if number % 16 == 0 || number >= commits {
            let newest = newest_checkpoint(&store).await;
            if newest != checkpoint.0 {
                checkpoint = (newest, newest - checkpoint.0);
            }
            // As far from the last checkpoint as that one was from the one before: the next is about to be written.
            if number >= commits && number - checkpoint.0 >= checkpoint.1 - checkpoint.1 / 50 {
                break;
            }
        }
    }
    let state = log.state();
    log.abort();
    log.closed().await;
    let word = format!(
        "{} commits, {} behind a checkpoint, {} live runs",
        state.number().get(),
        state.number().get() - checkpoint.0,
        state.run_count()
    );
    (write(&store, root).await, word)
}

async fn newest_checkpoint(store: &Store) -> u64 {
    let prefix = lakebed_segment::layout::checkpoints_prefix(Cell::ZERO);
    let directory = Directory::new(prefix.trim_end_matches('/')).unwrap();
    let names = store.list(&directory, None, 100_000).await.unwrap();
    let manifest = lakebed_segment::layout::MANIFEST;
    let numbers = names.objects.iter().filter_map(|one| {
        let (directory, name) = one.key.as_str().rsplit_once('/')?;
        (name == manifest).then(|| directory.rsplit('/').next()?.parse().ok()).flatten()
    });
    numbers.max().unwrap_or(0)
}

/// Appends one record of 100 bytes to every partition.
async fn append(log: &Log, topic: TopicId, partitions: u32, previous: Option<FlushId>) -> FlushId {
    let fields =
        Fields { codec: Codec::None, timestamp_type: TimestampType::Create, producer: None, is_transactional: false };
    let mut encoder = Encoder::new(fields, 256);
    let record = Record { offset: 0, timestamp_ms: 1, key: None, value: Some(&[b'x'; 100]) };
    encoder.push(record, std::iter::empty::<(&[u8], Option<&[u8]>)>()).unwrap();
    let limits = batch::Limits { max_decompressed_bytes: 1 << 20 };
    let decoded = batch::decode(encoder.finish().unwrap(), &limits).unwrap();
    let key = |index| PartitionKey::new(topic, PartitionIndex::new(index));
    let batches: Vec<_> = (0..partitions)
        .map(|index| BodyBatch { partition: key(index), rows: &decoded.rows, log_append_time_ms: None })
        .collect();
    let body = seal(&batches, 2).unwrap();
    let runs = (0_u64..).zip(&batches).map(|(first_row, one)| ProposedRun {
        partition: one.partition,
        first_row,
        batches: vec![facts(one, 2, None)],
    });
    let id = log.mint();
    let proposal = FlushProposal {
        id,
        broker: log.nonce(),
        previous,
        body: FlushBody::Inline,
        ingest_time_ms: 2,
        runs: runs.collect(),
    };
    log.submit(proposal, Some(body)).await.await.unwrap();
    id
}

/// Writes every object as a file, without syncing; how many.
async fn write(store: &Store, root: &Path) -> usize {
    let (mut count, mut after) = (0, None);
    loop {
        let listed = store.list(&Directory::root(), after.as_ref(), 1000).await.unwrap();
        for one in &listed.objects {
            let path = root.join(one.key.as_str());
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, store.get(&one.key).await.unwrap()).unwrap();
        }
        count += listed.objects.len();
        after = listed.objects.last().map(|one| one.key.clone());
        if !listed.more {
            return count;
        }
    }
}
