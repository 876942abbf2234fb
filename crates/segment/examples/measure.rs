//! How fast the format is on this machine: seal, facts, read, rebuild, checkpoint. Prints GB/s of keys and values on one core.
//!
//! `cargo run --release -p lakebed-segment --example measure`

#![allow(clippy::print_stdout, clippy::disallowed_methods, reason = "a measurement prints what a clock says")]

#[path = "../tests/objects/samples.rs"]
#[allow(dead_code, missing_docs, unreachable_pub, clippy::unwrap_used)]
mod samples;

use std::hint::black_box;
use std::time::{Duration, Instant};

use lakebed_model::snapshot::PartitionSnapshot;
use lakebed_model::{CommitNumber, Nonce, ObjectId, Offset, Partition, RowsHash, Run, Snapshot, TimestampRange};
use lakebed_segment::body::seal;
use lakebed_segment::checkpoint::{Manifest, decode, encode};
use lakebed_segment::commit::segment_object;
use lakebed_segment::footer::{Footer, Parsed};
use lakebed_segment::row_hash::facts;

const ROUNDS: u32 = 40;

fn timed(mut step: impl FnMut()) -> Duration {
    step();
    (0..ROUNDS)
        .map(|_| {
            let start = Instant::now();
            step();
            start.elapsed()
        })
        .min()
        .unwrap_or_default()
}

fn rows(value_bytes: usize, total_bytes: usize) {
    let count = total_bytes / value_bytes;
    let value: Vec<u8> = (0..value_bytes).map(|index| (index * 7) as u8).collect();
    let records: Vec<samples::Rec> =
        (0..count).map(|row| samples::rec(1_764_000_000_000 + row as i64, None, Some(&value))).collect();
    let batches = records
        .chunks(65_536_usize.div_ceil(value_bytes))
        .map(|chunk| (samples::partition(1, 0), samples::rows_of(chunk), None));
    let content = samples::Content { batches: batches.collect() };
    let batches = content.body_batches();
    let bytes = (count * value_bytes) as f64;
    let rate = |took: Duration| bytes / took.as_secs_f64() / 1e9;
    let per_row = |took: Duration| took.as_nanos() / count as u128;
    let print = |what: &str, took| {
        println!("{value_bytes:>6} B  {what:<28} {:>6.2} GB/s {:>5} ns/row", rate(took), per_row(took))
    };
    print("seal", timed(|| drop(seal(&batches, 1))));
    print("facts", timed(|| batches.iter().for_each(|batch| _ = black_box(facts(batch, 1, None)))));
    let body = seal(&batches, 1).expect("samples are in order");
    let object = bytes::Bytes::from(segment_object(&samples::identity(), samples::segment_id(), Nonce::new(1), body));
    let parse = || match Footer::parse(&object, object.len() as u64) {
        Ok(Parsed::Whole(footer)) => footer,
        other => panic!("{other:?}"),
    };
    println!("          footer: {:?}, {} bytes of object", timed(|| drop(parse())), object.len());
    let footer = parse();
    let read = || footer.read(0..footer.rows, &[(0, object.clone())]).expect("what was written is read");
    print("read", timed(|| drop(read())));
    let set = read();
    print("rebuild batches", timed(|| drop(set.to_batches(Offset::ZERO, 1 << 20))));
    print("hash of what was read", timed(|| _ = black_box(set.hash())));
}

fn checkpoint(partitions: u32, runs: u64) {
    let run = |number: u64| Run {
        rows: 10,
        span: 10,
        clean: false,
        object: ObjectId::Commit(CommitNumber::new(number)),
        first_row: number,
        bytes: 10_000,
        timestamps: Some(TimestampRange { first_ms: 1_764_000_000_000, last_ms: 1_764_000_000_999 }),
        hash: RowsHash::EMPTY.push(number.wrapping_mul(0x9e37_79b9_7f4a_7c15)),
    };
    let partition = |index: u32| PartitionSnapshot {
        key: samples::partition(1, index),
        bounds: Partition { log_start: Offset::ZERO, high_watermark: Offset::new(runs * 10) },
        runs: (0..runs).map(|number| (Offset::new(number * 10), run(number))).collect(),
        producers: Vec::new(),
    };
    let snapshot = Snapshot { partitions: (0..partitions).map(partition).collect(), ..samples::snapshot() };
    let encoded = encode(&samples::identity(), &snapshot, None);
    let bytes: usize = encoded.parts.iter().map(|(_, part)| part.len()).sum();
    let manifest = Manifest::decode(&encoded.manifest).expect("what was written is read");
    let part = |name: &str| encoded.parts.iter().find(|(other, _)| other == name).expect("all parts are new").1.clone();
    let parts: Vec<_> = manifest.parts.iter().map(|part_of| part(&part_of.name)).collect();
    let encoding = timed(|| drop(encode(&samples::identity(), &snapshot, None)));
    let decoding = timed(|| drop(decode(&manifest, &parts)));
    println!(
        "checkpoint of {partitions} partitions with {runs} runs each: {bytes} bytes in {} parts, encode {encoding:?}, decode {decoding:?}",
        parts.len()
    );
}

fn main() {
    rows(1024, 8 << 20);
    rows(100, 8 << 20);
    checkpoint(100, 1000);
    checkpoint(100_000, 1);
}
