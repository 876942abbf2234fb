//! Reading a run touches only the pages that it needs.

use bytes::Bytes;
use lakebed_model::Nonce;
use lakebed_segment::FormatError;
use lakebed_segment::body::{PAGE_BYTES, PAGE_ROWS_MAX};
use lakebed_segment::commit::segment_object;
use lakebed_segment::footer::{Footer, Parsed};
use lakebed_segment::row_set::RowSet;

use crate::samples::{Content, Rec, identity, partition, rec, rows_of, segment_id};
use crate::{footer_of, records_of};

const PARTITIONS: u32 = 40;
const ROWS: u64 = 1000;

fn records(index: u32) -> Vec<Rec> {
    let value = |row: u64| format!("{index}/{row} {}", "x".repeat(500));
    (0..ROWS).map(|row| rec(row as i64, Some(b"key"), Some(value(row).as_bytes()))).collect()
}

fn object() -> Bytes {
    let batches = (0..PARTITIONS).map(|index| (partition(1, index), rows_of(&records(index)), None)).collect();
    segment_object(&identity(), segment_id(), Nonce::new(1), Content { batches }.body()).into()
}

#[test]
fn a_run_in_the_middle_is_read_from_its_own_pages_alone() {
    let object = object();
    let footer = footer_of(&object).unwrap();
    let rows = 20 * ROWS..21 * ROWS;
    let ranges = footer.ranges(rows.clone()).unwrap();
    let bytes: u64 = ranges.iter().map(|range| range.end - range.start).sum();
    let needed: u64 = records(20).iter().map(|record| record.value.as_ref().unwrap().len() as u64 + 60).sum();
    // Two pages of values at most beyond the run, and the rows of two pages of each other column.
    let slack = 2 * PAGE_BYTES as u64 + 2 * PAGE_ROWS_MAX as u64 * 60;
    assert!(bytes <= needed + slack, "{bytes} bytes for {needed}");
    assert!(bytes * 5 < object.len() as u64, "{bytes} bytes of {}", object.len());
    assert!(ranges.windows(2).all(|pair| pair[0].end < pair[1].start), "ranges ascend and do not touch: {ranges:?}");
    let part = |range: &std::ops::Range<u64>| (range.start, object.slice(range.start as usize..range.end as usize));
    let parts: Vec<(u64, Bytes)> = ranges.iter().map(part).collect();
    let read: RowSet = footer.read(rows.clone(), &parts).unwrap();
    assert_eq!(records_of(&read), records(20));
    // Every one of those ranges is needed.
    for missing in 0..parts.len() {
        let mut fewer = parts.clone();
        fewer.remove(missing);
        assert!(matches!(footer.read(rows.clone(), &fewer), Err(FormatError::Missing { .. })));
    }
}

#[test]
fn the_footer_is_read_from_the_end_of_the_object_alone() {
    let object = object();
    let suffix = |bytes: u64| object.slice(object.len() - bytes as usize..);
    let Parsed::NeedsSuffix(bytes) = Footer::parse(&suffix(8), object.len() as u64).unwrap() else {
        panic!("a footer of 8 bytes")
    };
    let Parsed::NeedsSuffix(bytes) = Footer::parse(&suffix(bytes), object.len() as u64).unwrap() else {
        panic!("the offset indexes are before the metadata")
    };
    let Parsed::Whole(footer) = Footer::parse(&suffix(bytes), object.len() as u64).unwrap() else {
        panic!("what was asked for is enough")
    };
    assert_eq!(footer, footer_of(&object).unwrap());
    assert!(bytes < 64 << 10, "{bytes} bytes");
}

#[test]
fn rows_that_the_object_does_not_have_are_refused() {
    let object = object();
    let footer = footer_of(&object).unwrap();
    let rows = footer.rows;
    let beyond = FormatError::RowsOutOfRange { start: rows, end: rows + 1, rows };
    assert_eq!(footer.ranges(rows..rows + 1), Err(beyond.clone()));
    assert_eq!(footer.read(rows..rows + 1, &[(0, object.clone())]).unwrap_err(), beyond);
    assert!(footer.read(rows..rows, &[]).unwrap().is_empty());
}
