//! Checkpoints: what goes in comes out, and what did not change is not written again.

use bytes::Bytes;
use lakebed_model::snapshot::PartitionSnapshot;
use lakebed_model::{CommitNumber, ObjectId, Offset, Partition, RowsHash, Run, Snapshot, State, TimestampRange};
use lakebed_segment::checkpoint::{Checkpoint, Manifest, decode, encode};

use crate::samples::{identity, partition, snapshot};

fn parts_of(manifest: &Manifest, written: &[&Checkpoint]) -> Vec<Bytes> {
    let find = |name: &str| {
        let mut all = written.iter().flat_map(|checkpoint| &checkpoint.parts);
        all.find(|(other, _)| other == name).unwrap_or_else(|| panic!("{name} was not written")).1.clone()
    };
    manifest.parts.iter().map(|part| find(&part.name)).collect()
}

/// A state of `partitions` partitions with `runs` runs each.
fn large(partitions: u32, runs: u64) -> Snapshot {
    let partition_snapshot = |index: u32| PartitionSnapshot {
        key: partition(1, index),
        bounds: Partition { log_start: Offset::ZERO, high_watermark: Offset::new(runs * 10) },
        runs: (0..runs).map(|run| (Offset::new(run * 10), run_of(run))).collect(),
        producers: Vec::new(),
    };
    let mut snapshot = snapshot();
    snapshot.partitions = (0..partitions).map(partition_snapshot).collect();
    snapshot
}

fn run_of(number: u64) -> Run {
    Run {
        rows: 10,
        span: 10,
        clean: false,
        object: ObjectId::Commit(CommitNumber::new(number)),
        first_row: number,
        bytes: 10_000,
        timestamps: Some(TimestampRange { first_ms: 1_764_000_000_000, last_ms: 1_764_000_000_999 }),
        hash: RowsHash::EMPTY.push(number.wrapping_mul(0x9e37_79b9_7f4a_7c15)),
    }
}

#[test]
fn a_state_comes_back_from_its_checkpoint() {
    let checkpoint = encode(&identity(), &snapshot(), None);
    let manifest = Manifest::decode(&checkpoint.manifest).unwrap();
    let read = decode(&manifest, &parts_of(&manifest, &[&checkpoint])).unwrap();
    assert_eq!(State::restore(read).unwrap(), crate::samples::state());
    assert_eq!(manifest.identity, identity());
    assert_eq!(manifest.number, snapshot().number);
}

#[test]
fn an_empty_state_comes_back() {
    let state = State::new(crate::samples::directory(0, 1));
    let checkpoint = encode(&identity(), &state.snapshot(), None);
    let manifest = Manifest::decode(&checkpoint.manifest).unwrap();
    let read = decode(&manifest, &parts_of(&manifest, &[&checkpoint])).unwrap();
    assert_eq!(State::restore(read).unwrap(), state);
}

#[test]
fn only_the_parts_that_changed_are_written_again() {
    let mut snapshot = large(2000, 50);
    let first = encode(&identity(), &snapshot, None);
    let first_manifest = Manifest::decode(&first.manifest).unwrap();
    assert!(first.parts.len() > 8, "{} parts", first.parts.len());
    assert!(first.parts.iter().all(|(_, bytes)| bytes.len() <= 4 << 20));
    snapshot.number = CommitNumber::new(snapshot.number.get() + 1);
    snapshot.partitions[7].bounds.log_start = Offset::new(1);
    let second = encode(&identity(), &snapshot, Some(&first_manifest));
    assert_eq!(second.parts.len(), 2, "the base and one bucket");
    let second_manifest = Manifest::decode(&second.manifest).unwrap();
    assert_eq!(decode(&second_manifest, &parts_of(&second_manifest, &[&first, &second])), Ok(snapshot.clone()));
    let reused = second_manifest.parts.iter().filter(|part| part.number == first_manifest.number).count();
    assert_eq!(reused, first_manifest.parts.len() - 2);
    assert_eq!(encode(&identity(), &snapshot, Some(&first_manifest)), second, "equal input gives equal bytes");
}

#[test]
fn parts_of_another_checkpoint_are_refused() {
    let first = encode(&identity(), &large(10, 5), None);
    let second = encode(&identity(), &large(10, 6), None);
    let manifest = Manifest::decode(&first.manifest).unwrap();
    let other = Manifest::decode(&second.manifest).unwrap();
    let mut parts = parts_of(&manifest, &[&first]);
    assert!(decode(&manifest, &parts).is_ok());
    parts[1] = parts_of(&other, &[&second])[1].clone();
    assert!(decode(&manifest, &parts).is_err());
    assert!(decode(&manifest, &parts[..1]).is_err());
}
