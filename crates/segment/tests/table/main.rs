//! Table files: what is written is read back exactly, by us and by Parquet's own reader; damage is found before anything is decoded.

#![allow(clippy::unwrap_used, reason = "tests")]

mod blooms;
mod formats;
mod gaps;
mod rows;

use arrow_array::Array;
use arrow_array::cast::AsArray;
use arrow_array::types::{Int32Type, Int64Type};
use bytes::Bytes;
use lakebed_model::{Cell, Offset, PartitionIndex, RowsHash, TableFileId, TopicId, TopicName};
use lakebed_segment::FormatError;
use lakebed_segment::commit::Identity;
use lakebed_segment::row_hash::{hash_row, hash_source};
use lakebed_segment::rows::RowSource;
use lakebed_segment::table::{
    BLOCK_BYTES, ParsedTable, TableError, TableFileName, TableFooter, TableSettings, TableWriter, ValueFormat,
};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use rows::{Lcg, TestRows};
use uuid::Uuid;

fn identity() -> Identity {
    Identity { cluster_id: Uuid::from_u128(7), cell: Cell::new(0) }
}

fn name() -> TableFileName {
    TableFileName {
        id: "01ARZ3NDEKTSV4RRFFQ69G5FAV".parse::<TableFileId>().unwrap(),
        topic_id: TopicId::new(Uuid::from_u128(42)),
        topic: TopicName::new("orders.v1").unwrap(),
    }
}

/// Partition, base offset, rows.
type Runs = Vec<(u32, u64, TestRows)>;

fn write(runs: &Runs) -> Bytes {
    write_as(runs, TableSettings::default()).0
}

/// The file, and how many of its values are not of the format.
fn write_as(runs: &Runs, settings: TableSettings) -> (Bytes, u64) {
    let mut writer = TableWriter::new(&identity(), name(), settings).unwrap();
    for (partition, base, rows) in runs {
        // In two parts, as rows come when they are read in parts.
        let middle = rows.row_count() / 2;
        let push = |writer: &mut TableWriter, range: std::ops::Range<usize>| {
            let base = Offset::new(base + range.start as u64);
            writer.push(PartitionIndex::new(*partition), base, rows, range).unwrap();
        };
        push(&mut writer, 0..middle);
        push(&mut writer, middle..rows.row_count());
    }
    let misfits = writer.misfits();
    (writer.finish().unwrap().into(), misfits)
}

fn open(bytes: &Bytes) -> TableFooter {
    match TableFooter::parse(bytes, bytes.len() as u64).unwrap() {
        ParsedTable::Whole(footer) => footer,
        other @ ParsedTable::NeedsSuffix(_) => panic!("{other:?}"),
    }
}

fn samples() -> Runs {
    let mut random = Lcg(11);
    vec![
        (0, 5, TestRows::random(&mut random, 3000)),
        (0, 9000, TestRows::random(&mut random, 1)),
        (7, 0, TestRows::random(&mut random, 40_000)),
        (99_999, 1 << 40, TestRows::random(&mut random, 17)),
    ]
}

fn compare(footer: &TableFooter, bytes: &Bytes, runs: &Runs, rows: std::ops::Range<u64>) {
    let ranges = footer.ranges(rows.clone()).unwrap();
    assert!(ranges.iter().all(|range| range.start.is_multiple_of(BLOCK_BYTES)), "{ranges:?}");
    let parts: Vec<(u64, Bytes)> =
        ranges.iter().map(|range| (range.start, bytes.slice(range.start as usize..range.end as usize))).collect();
    let read = footer.read(rows.clone(), &parts).unwrap();
    let expected = runs.iter().flat_map(|(partition, base, rows)| {
        (0..rows.row_count()).map(move |row| (*partition, base + row as u64, rows, row))
    });
    let expected = expected.skip(rows.start as usize).take((rows.end - rows.start) as usize);
    let mut count = 0;
    for (index, (partition, offset, source, row)) in expected.enumerate() {
        assert_eq!((read.partitions[index].get(), read.offsets[index].get()), (partition, offset));
        assert_eq!(hash_row(&read.rows, index), hash_row(source, row), "row {index} of {rows:?}");
        assert_eq!(read.rows.key(index), source.key(row));
        assert_eq!(read.rows.value(index), source.value(row));
        assert!(read.rows.headers(index).eq(source.headers(row)));
        count += 1;
    }
    assert_eq!((read.rows.len(), read.offsets.len()), (count, count));
}

#[test]
fn what_is_written_is_read_back_whole_and_in_parts() {
    let runs = samples();
    let bytes = write(&runs);
    assert_eq!(write(&runs), bytes, "equal rows give equal bytes");
    let footer = open(&bytes);
    assert_eq!((footer.identity, &footer.name), (identity(), &name()));
    let total: u64 = runs.iter().map(|(.., rows)| rows.row_count() as u64).sum();
    assert_eq!(footer.rows, total);
    let times: Vec<i64> =
        runs.iter().flat_map(|(.., rows)| (0..rows.row_count()).map(|row| rows.ingest_time_ms(row))).collect();
    assert_eq!(footer.ingest_times_ms(), times.iter().min().copied().zip(times.iter().max().copied()));
    let described: Vec<_> = footer.runs().map(|(p, base, rows)| (p.get(), base.get(), rows)).collect();
    let expected: Vec<_> = runs.iter().map(|(p, base, rows)| (*p, *base, rows.row_count() as u64)).collect();
    assert_eq!(described, expected);
    compare(&footer, &bytes, &runs, 0..total);
    let mut random = Lcg(3);
    for _ in 0..60 {
        let start = random.below(total + 1);
        let end = start + random.below((total - start).min(3000) + 1);
        compare(&footer, &bytes, &runs, start..end);
    }
    let whole = RowsHash::EMPTY;
    let hash = runs
        .iter()
        .fold(whole, |hash, (.., rows)| hash.concat(hash_source(rows, 0..rows.row_count()), rows.row_count() as u64));
    assert_eq!(footer.read(0..total, &[(0, bytes.clone())]).unwrap().rows.hash(), hash);
    let out = footer.ranges(0..total + 1).unwrap_err();
    assert!(matches!(out, FormatError::RowsOutOfRange { .. }), "{out}");
}

#[test]
fn large_values_and_many_row_groups_come_back() {
    let mut random = Lcg(5);
    let mut rows = TestRows::random(&mut random, 40);
    for row in 0..40 {
        rows.set_value(row, random.bytes(if row % 7 == 0 { 10 << 20 } else { 700_000 }));
    }
    let runs = vec![(3, 12, rows)];
    let bytes = write(&runs);
    let footer = open(&bytes);
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes.clone()).unwrap();
    assert!(reader.metadata().num_row_groups() >= 2, "{} row groups", reader.metadata().num_row_groups());
    for row in 0..40 {
        compare(&footer, &bytes, &runs, row..row + 1);
    }
    compare(&footer, &bytes, &runs, 0..40);
}

#[test]
fn a_footer_asks_for_what_it_needs() {
    let bytes = write(&samples());
    let mut length = 8;
    let mut asked = Vec::new();
    loop {
        let suffix = bytes.slice(bytes.len() - length..);
        match TableFooter::parse(&suffix, bytes.len() as u64).unwrap() {
            ParsedTable::Whole(footer) => {
                assert_eq!(footer.rows, open(&bytes).rows);
                break;
            }
            ParsedTable::NeedsSuffix(needed) => {
                assert!(needed as usize > length);
                length = needed as usize;
                asked.push(needed);
            }
        }
    }
    assert!((1..=3).contains(&asked.len()), "{asked:?}");
}

#[test]
fn every_damaged_byte_is_found_before_it_is_used() {
    let mut random = Lcg(8);
    let runs = vec![(1, 0, TestRows::random(&mut random, 900))];
    let good = write(&runs);
    let total = 900;
    let mut found = 0;
    for round in 0..400 {
        let mut bytes = good.to_vec();
        // The end as often as the pages.
        let at =
            if round % 2 == 0 { random.below(good.len() as u64) } else { good.len() as u64 - 1 - random.below(4000) };
        bytes[at as usize] ^= 1 << random.below(8);
        let bytes = Bytes::from(bytes);
        let read = match TableFooter::parse(&bytes, bytes.len() as u64) {
            Ok(ParsedTable::Whole(footer)) => footer.read(0..total, &[(0, bytes.clone())]).map(|read| read.rows.hash()),
            Ok(ParsedTable::NeedsSuffix(_)) => continue,
            Err(error) => Err(error),
        };
        match read {
            Err(_) => found += 1,
            Ok(_) => panic!("byte {at} of {} is damaged, and nobody saw it", good.len()),
        }
    }
    assert!(found > 390, "{found}");
    for cut in 1..50 {
        let bytes = good.slice(..good.len() - cut);
        assert!(TableFooter::parse(&bytes, bytes.len() as u64).is_err());
    }
}

#[test]
fn bytes_that_were_not_handed_in_are_named() {
    let bytes = write(&samples());
    let footer = open(&bytes);
    let missing = footer.read(0..10, &[]).unwrap_err();
    assert!(matches!(missing, FormatError::Missing { start: 0, .. }), "{missing}");
}

#[test]
fn a_file_that_leaves_memory_row_group_by_row_group_is_the_same_file() {
    let runs: Runs = vec![(0, 5, TestRows::random(&mut Lcg(3), 60_000)), (7, 0, TestRows::random(&mut Lcg(4), 40_000))];
    for group_bytes in [1, 500_000] {
        let begin =
            || TableWriter::new(&identity(), name(), TableSettings::default()).unwrap().with_group_bytes(group_bytes);
        let (mut whole, mut parted) = (begin(), begin());
        let (mut taken, mut held_max, mut groups) = (Vec::new(), 0, 0);
        for (partition, base, rows) in &runs {
            for start in (0..rows.row_count()).step_by(777) {
                let (end, base) = ((start + 777).min(rows.row_count()), Offset::new(base + start as u64));
                let partition = PartitionIndex::new(*partition);
                let hashes =
                    [&mut whole, &mut parted].map(|writer| writer.push(partition, base, rows, start..end).unwrap());
                assert_eq!(hashes, [hash_source(rows, start..end); 2]);
                let ready = parted.take();
                groups += ready.len();
                held_max = held_max.max(parted.group_bytes() + ready.iter().map(Bytes::len).sum::<usize>());
                taken.extend(ready.concat());
            }
        }
        let closed = parted.close().unwrap();
        assert_eq!((closed.footer.rows, taken.is_empty()), (100_000, false));
        taken.extend(closed.rest.concat());
        assert_eq!(closed.size_bytes, taken.len() as u64);
        let whole = whole.finish().unwrap();
        assert!(taken == whole, "{group_bytes}: the bytes differ");
        assert!(groups >= 3, "{groups} row groups");
        assert!(held_max < whole.len() / 2, "{held_max} of {} bytes were held at once", whole.len());
        let bytes = Bytes::from(whole);
        compare(&open(&bytes), &bytes, &runs, 0..100_000);
    }
}

#[test]
fn rows_out_of_order_are_refused() {
    let mut random = Lcg(1);
    let rows = TestRows::random(&mut random, 10);
    let push = |writer: &mut TableWriter, partition, base| {
        writer.push(PartitionIndex::new(partition), Offset::new(base), &rows, 0..10)
    };
    for (partition, base) in [(0, 100), (1, 99), (1, 109)] {
        let mut writer = TableWriter::new(&identity(), name(), TableSettings::default()).unwrap();
        push(&mut writer, 1, 100).unwrap();
        let refused = push(&mut writer, partition, base).unwrap_err();
        assert!(matches!(refused, TableError::OutOfOrder { .. }), "{refused}");
    }
    let mut writer = TableWriter::new(&identity(), name(), TableSettings::default()).unwrap();
    for (partition, base) in [(u32::MAX, 0), (0, u64::MAX - 4), (0, i64::MAX as u64)] {
        let refused = push(&mut writer, partition, base).unwrap_err();
        assert!(matches!(refused, TableError::OutOfRange { .. }), "{refused}");
    }
}

#[test]
fn parquet_s_own_reader_finds_ids_order_statistics_and_rows() {
    let runs = samples();
    let bytes = write(&runs);
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes.clone()).unwrap();
    let metadata = reader.metadata().clone();
    let columns = metadata.file_metadata().schema_descr();
    let ids: Vec<(String, i32)> = columns
        .columns()
        .iter()
        .map(|column| (column.path().string(), column.self_type().get_basic_info().id()))
        .collect();
    let expected = [
        ("_kafka_partition", 1),
        ("_kafka_offset", 2),
        ("_kafka_timestamp", 3),
        ("_kafka_timestamp_type", 4),
        ("_kafka_ingest_timestamp", 5),
        ("_kafka_headers.list.element.key", 22),
        ("_kafka_headers.list.element.value", 23),
        ("key", 7),
        ("value", 8),
    ];
    assert_eq!(ids, expected.map(|(path, id)| (path.to_owned(), id)));
    let group = metadata.row_group(0);
    let sorting: Vec<i32> = group.sorting_columns().unwrap().iter().map(|column| column.column_idx).collect();
    assert_eq!(sorting, [0, 1]);
    assert!(group.columns().iter().all(|column| column.statistics().is_some()));
    let (mut offsets, mut partitions, mut nulls) = (Vec::new(), Vec::new(), 0);
    for batch in reader.build().unwrap() {
        let batch = batch.unwrap();
        partitions.extend(batch.column(0).as_primitive::<Int32Type>().values().iter().copied());
        offsets.extend(batch.column(1).as_primitive::<Int64Type>().values().iter().copied());
        nulls += batch.column(7).null_count();
    }
    let expected: Vec<i64> =
        runs.iter().flat_map(|(_, base, rows)| (*base..base + rows.row_count() as u64).map(|o| o as i64)).collect();
    assert_eq!(offsets, expected);
    assert!(partitions.is_sorted());
    let tombstones: usize =
        runs.iter().map(|(.., rows)| (0..rows.row_count()).filter(|row| rows.value(*row).is_none()).count()).sum();
    assert!(tombstones > 100 && nulls == tombstones, "{nulls} of {tombstones}");
}
