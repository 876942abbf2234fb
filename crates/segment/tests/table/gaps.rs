//! Runs with gaps: their rows keep their offsets, every offset is found in a stretch, and batches cover the gaps.

use lakebed_model::{Offset, PartitionIndex};
use lakebed_segment::batch::{Limits, decode_stored};
use lakebed_segment::row_hash::{hash_placed, hash_source};
use lakebed_segment::rows::RowSource;
use lakebed_segment::table::{TableError, TableSettings, TableWriter};

use super::rows::{Lcg, TestRows};
use super::{Bytes, identity, name, open};

const PARTITION: PartitionIndex = PartitionIndex::new(3);

/// Offsets of rows from `base` on, with random gaps, and where the run ends.
fn placed(random: &mut Lcg, base: u64, rows: usize) -> (Vec<Offset>, Offset) {
    let mut next = base + random.below(40);
    let mut offsets = Vec::new();
    for _ in 0..rows {
        offsets.push(Offset::new(next));
        next += 1 + if random.below(3) == 0 { random.below(50) } else { 0 };
    }
    (offsets, Offset::new(next + 1 + random.below(9)))
}

fn write(rows: &TestRows, base: u64, offsets: &[Offset], end: Offset) -> Bytes {
    let mut writer = TableWriter::new(&identity(), name(), TableSettings::default()).unwrap();
    let mut before = TestRows::random(&mut Lcg(1), 10);
    before.set_value(0, vec![7; 300_000]);
    writer.push(PartitionIndex::new(2), Offset::new(5), &before, 0..10).unwrap();
    writer.begin_run(PARTITION, Offset::new(base)).unwrap();
    for (row, offset) in offsets.iter().enumerate() {
        writer.place(*offset, rows, row).unwrap();
    }
    writer.end_run(end, &[(end, 7)]).unwrap();
    writer.push(PARTITION, end, &before, 0..10).unwrap();
    writer.finish().unwrap().into()
}

#[test]
fn every_offset_of_a_run_with_gaps_is_found_in_one_stretch() {
    let mut random = Lcg(17);
    let rows = TestRows::random(&mut random, 20_000);
    let (offsets, end) = placed(&mut random, 1000, rows.row_count());
    let bytes = write(&rows, 1000, &offsets, end);
    let footer = open(&bytes);
    let described: Vec<_> = footer.runs().map(|(p, base, rows)| (p.get(), base.get(), rows)).collect();
    assert_eq!(described, [(2, 5, 10), (3, 1000, 20_000), (3, end.get(), 10)], "what follows is a run of its own");
    let span = end.get() - 1000;
    let all = footer.stretches(PARTITION, Offset::new(1000), span, 10, Offset::new(1000));
    assert!(all.len() >= 5, "{} stretches", all.len());
    assert_eq!((all[0].offsets.start.get(), all[all.len() - 1].offsets.end), (1000, end));
    assert!(all.windows(2).all(|pair| pair[0].rows.end == pair[1].rows.start));
    assert!(all.windows(2).all(|pair| pair[0].offsets.end == pair[1].offsets.start));
    for stretch in &all {
        let read = footer.read(stretch.rows.clone(), &[(0, bytes.clone())]).unwrap();
        let range = stretch.rows.start as usize - 10..stretch.rows.end as usize - 10;
        assert_eq!(read.offsets, offsets[range.clone()]);
        assert_eq!(read.rows.hash(), hash_source(&rows, range.clone()));
        assert_eq!(read.rows.hash_placed(&read.offsets), hash_placed(&rows, range.clone(), &offsets[range]));
        assert!(read.offsets.iter().all(|offset| stretch.offsets.contains(offset)));
        for offset in [stretch.offsets.start.get(), stretch.offsets.end.get() - 1] {
            let from = footer.stretches(PARTITION, Offset::new(1000), span, 10, Offset::new(offset));
            assert_eq!(from.first(), Some(stretch));
        }
    }
    // Another run than the state means is none.
    for (base, span, first_row) in [(1001, span, 10), (1000, span + 1, 10), (1000, span, 11)] {
        assert_eq!(footer.stretches(PARTITION, Offset::new(base), span, first_row, Offset::new(base)), []);
    }
    assert_eq!(footer.cleaned(PARTITION, Offset::new(1000), 10), [(end, 7)]);
}

#[test]
fn moving_a_row_changes_the_hash_of_a_run_with_gaps() {
    let rows = TestRows::random(&mut Lcg(5), 3);
    let hash = |offsets: [u64; 3]| hash_placed(&rows, 0..3, &offsets.map(Offset::new));
    assert_ne!(hash([1, 5, 9]), hash([1, 6, 9]));
    assert_ne!(hash([0, 1, 2]), hash_source(&rows, 0..3), "it is another hash than that of rows without gaps");
}

#[test]
fn rows_of_a_run_come_in_order_and_within_it() {
    let rows = TestRows::random(&mut Lcg(5), 3);
    let begun = |base| {
        let mut writer = TableWriter::new(&identity(), name(), TableSettings::default()).unwrap();
        writer.begin_run(PARTITION, Offset::new(base)).unwrap();
        writer
    };
    let refused = |result: Result<(), TableError>| assert!(matches!(result, Err(TableError::OutOfOrder { .. })));
    refused(begun(10).place(Offset::new(9), &rows, 0).map(drop));
    refused(begun(10).end_run(Offset::new(20), &[]));
    let mut writer = begun(10);
    writer.place(Offset::new(15), &rows, 0).unwrap();
    refused(writer.place(Offset::new(15), &rows, 1).map(drop));
    refused(writer.end_run(Offset::new(15), &[]));
    writer.end_run(Offset::new(16), &[]).unwrap();
    refused(writer.begin_run(PARTITION, Offset::new(15)));
}

#[test]
fn batches_of_rows_with_gaps_cover_every_offset_up_to_the_end() {
    let mut random = Lcg(23);
    let rows = TestRows::random(&mut random, 2000);
    let (mut offsets, _) = placed(&mut random, 100, rows.row_count());
    // A gap that no batch spans: the next one begins behind it.
    let far = i32::MAX as u64;
    for offset in &mut offsets[1500..] {
        *offset = Offset::new(offset.get() + far);
    }
    let end = Offset::new(offsets[1999].get() + 10);
    let bytes = write(&rows, 100, &offsets, end);
    let read = open(&bytes).read(10..2010, &[(0, bytes.clone())]).unwrap();
    let batches = read.rows.to_batches_placed(&read.offsets, end, 20_000).unwrap();
    assert!(batches.len() > 5);
    let mut found = Vec::new();
    for (at, batch) in batches.iter().enumerate() {
        let next = batches.get(at + 1).map_or(end, |next| next.first);
        assert_eq!(batch.last.get(), (next.get() - 1).min(batch.first.get() + far), "batch {at}");
        let stored = decode_stored(batch.bytes.clone(), &Limits { max_decompressed_bytes: 1 << 24 }).unwrap();
        assert_eq!(stored.header.base_offset, batch.first.get() as i64);
        assert_eq!(i64::from(stored.header.last_offset_delta), (batch.last.get() - batch.first.get()) as i64);
        for row in 0..stored.rows.len() {
            let offset = batch.first.get() + stored.rows.offset_delta(row);
            assert_eq!(stored.rows.row_at(stored.rows.offset_delta(row)), row);
            assert_eq!(stored.rows.value(row), rows.value(found.len()));
            found.push(Offset::new(offset));
        }
        assert_eq!(stored.rows.row_at(u64::from(u32::MAX)), stored.rows.len());
    }
    assert_eq!(found, offsets);
}
