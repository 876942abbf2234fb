//! What does not come back as it was put in is told.

use super::*;
use crate::batch::TimestampType;
use crate::commit::Identity;
use crate::row_set::{RowSet, Span};
use crate::table::{TableFileName, TableWriter};
use lakebed_model::{Cell, TopicId, TopicName};
use uuid::Uuid;

fn writer() -> TableWriter {
    let identity = Identity { cluster_id: Uuid::from_u128(7), cell: Cell::new(0) };
    let name = TableFileName {
        id: "01ARZ3NDEKTSV4RRFFQ69G5FAV".parse().unwrap(),
        topic_id: TopicId::new(Uuid::from_u128(42)),
        topic: TopicName::new("orders").unwrap(),
    };
    TableWriter::new(&identity, name, TableSettings::default()).unwrap()
}

/// Rows with values of four letters.
fn rows(count: usize) -> RowSet {
    let span = |row: usize| Span { buffer: 0, start: 4 * row as u32, length: 4 };
    let letters: Vec<u8> = (0..count).flat_map(|row| format!("{row:04}").into_bytes()).collect();
    RowSet {
        buffers: vec![letters.into()],
        timestamps_ms: vec![1; count],
        timestamp_types: vec![TimestampType::Create; count],
        ingest_times_ms: vec![2; count],
        keys: vec![Span::NULL; count],
        values: (0..count).map(span).collect(),
        headers_end: vec![0; count],
        ..RowSet::default()
    }
}

#[test]
fn a_row_that_comes_back_changed_is_told_and_not_handed_out() {
    for is_changed in [false, true] {
        let mut writer = writer();
        writer.push(PartitionIndex::new(3), Offset::new(100), &rows(5000), 0..5000).unwrap();
        if is_changed {
            writer.groups.expect(1, PartitionIndex::new(3), Offset::new(99));
        }
        match writer.close() {
            Ok(closed) => assert!(!is_changed && closed.footer.rows == 5000),
            Err(error) => assert!(is_changed && matches!(error, TableError::Unfaithful { .. }), "{error}"),
        }
    }
}

#[test]
fn places_of_pages_and_metadata_that_are_others_are_told() {
    let mut writer = writer();
    let mut expected = RowsHash::EMPTY;
    let rows = rows(5000);
    for row in 0..5000 {
        expected = expected.push(mark(hash_row(&rows, row), PartitionIndex::new(3), Offset::new(100 + row as u64)));
    }
    writer.push(PartitionIndex::new(3), Offset::new(100), &rows, 0..5000).unwrap();
    writer.end_group().unwrap();
    let groups = &mut writer.groups;
    let [bytes] = &groups.take()[..] else { panic!("one row group was written") };
    let written = groups.written[0].clone();
    groups.read_back(&written, 0, bytes, expected).unwrap();
    // Whatever becomes of a byte of the values, no other rows are taken for those that were put in.
    let values = written.metadata.columns().iter().find(|column| column.column_path().string() == "value").unwrap();
    let (start, length) = values.byte_range();
    let mut told = 0;
    for at in (start..start + length).step_by(37) {
        let mut damaged = bytes.to_vec();
        damaged[at as usize] ^= 0x10;
        told += usize::from(groups.read_back(&written, 0, &damaged.into(), expected).is_err());
    }
    let damages = (length as usize).div_ceil(37);
    assert!(damages > 50 && told > damages * 9 / 10, "{told} of {damages} were told");
    let mut moved = written.clone();
    moved.pages.last_mut().unwrap().page_locations.iter_mut().for_each(|page| page.offset += 1);
    assert!(groups.read_back(&moved, 0, bytes, expected).is_err());
    groups.written[0] = moved;
    assert!(matches!(writer.close(), Err(TableError::Unfaithful { .. })), "the footer has other places");
}
