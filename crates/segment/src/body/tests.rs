//! Rows that go in come out.

use bytes::Bytes;
use lakebed_model::{
    Cell, Commit, CommitNumber, Entry, FeatureLevel, Nonce, PartitionIndex, PartitionKey, Place, TopicId,
};
use uuid::Uuid;

use super::*;
use crate::batch::{Rows, Slice};
use crate::commit::{Identity, commit_object};
use crate::footer::{Footer, Parsed};
use crate::row_hash::hash_rows;

fn rows(values: &[Option<&[u8]>]) -> Rows {
    let mut payload = Vec::new();
    let slices = values
        .iter()
        .map(|value| match value {
            None => Slice { start: 0, len: -1 },
            Some(bytes) => {
                let start = payload.len() as u32;
                payload.extend_from_slice(bytes);
                Slice { start, len: bytes.len() as i32 }
            }
        })
        .collect::<Vec<_>>();
    Rows {
        payload: Bytes::from(payload),
        timestamps_ms: (0..values.len() as i64).map(|row| row - 1).collect(),
        min_timestamp_ms: -1,
        max_timestamp_ms: values.len() as i64 - 2,
        keys: slices.clone(),
        values: slices,
        headers_end: Vec::new(),
        headers: Vec::new(),
        offset_deltas: Vec::new(),
    }
}

#[test]
fn rows_of_a_commit_are_read_back() {
    let rows = rows(&[Some(b"one"), None, Some(b""), Some(b"four")]);
    let partition = PartitionKey::new(TopicId::new(Uuid::from_u128(5)), PartitionIndex::new(2));
    let body = seal(&[BodyBatch { partition, rows: &rows, log_append_time_ms: None }], 77).unwrap();
    let commit = Commit {
        number: CommitNumber::new(1),
        place: Place { directory: "0000000001-0000000000000003".parse().unwrap(), index: 1 },
        writer: Nonce::new(9),
        time_ms: 5,
        entries: vec![Entry::RaiseFeatureLevel(FeatureLevel::new(1))],
    };
    let identity = Identity { cluster_id: Uuid::from_u128(1), cell: Cell::new(0) };
    let object = bytes::Bytes::from(commit_object(&identity, &commit, body));
    let Parsed::Whole(footer) = Footer::parse(&object, object.len() as u64).unwrap() else { panic!("not whole") };
    assert_eq!(footer.kind, crate::footer::Kind::Commit(commit));
    let set = footer.read(0..4, &[(0, object.clone())]).unwrap();
    assert_eq!(set.hash(), hash_rows(&rows, None, 77));
    let back: Vec<_> = (0..4).map(|row| set.value(row).map(<[u8]>::to_vec)).collect();
    assert_eq!(back, [Some(b"one".to_vec()), None, Some(vec![]), Some(b"four".to_vec())]);
    assert_eq!(set.timestamps_ms, [-1, 0, 1, 2]);
}
