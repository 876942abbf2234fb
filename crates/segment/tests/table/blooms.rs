//! Bloom filters of keys: they are in the file, bounded, covered by its checksums, and in nobody's way.

use parquet::file::properties::ReaderProperties;
use parquet::file::reader::FileReader;
use parquet::file::serialized_reader::{ReadOptionsBuilder, SerializedFileReader};

use super::*;

fn filtered() -> TableSettings {
    TableSettings { bloom_filter: true, ..TableSettings::default() }
}

/// Rows with the keys `key {from}`, `key {from + 1}`, and so on.
fn keyed(random: &mut Lcg, from: usize, count: usize) -> TestRows {
    let mut rows = TestRows::random(random, count);
    (0..count).for_each(|row| rows.set_key(row, format!("key {}", from + row).into_bytes()));
    rows
}

fn filters(bytes: &Bytes) -> SerializedFileReader<Bytes> {
    let properties = ReaderProperties::builder().set_read_bloom_filter(true).build();
    let options = ReadOptionsBuilder::new().with_reader_properties(properties).build();
    SerializedFileReader::new_with_options(bytes.clone(), options).unwrap()
}

#[test]
fn a_filter_finds_every_key_and_few_others() {
    let mut random = Lcg(31);
    let runs = vec![(0, 0, keyed(&mut random, 0, 30_000)), (4, 7, keyed(&mut random, 30_000, 10_000))];
    let (bytes, _) = write_as(&runs, filtered());
    assert_eq!(write_as(&runs, filtered()).0, bytes, "equal rows give equal bytes");
    let reader = filters(&bytes);
    let group = reader.get_row_group(0).unwrap();
    assert!(group.get_column_bloom_filter(8).is_none(), "values have none");
    let filter = group.get_column_bloom_filter(7).unwrap();
    assert!((0..40_000).all(|key| filter.check(format!("key {key}").as_bytes())));
    let others = (40_000..60_000).filter(|key| filter.check(format!("key {key}").as_bytes())).count();
    assert!(others < 400, "{others} of 20000 others");
    let bytes_of_filter = reader.metadata().row_group(0).column(7).bloom_filter_length().unwrap();
    assert!((40_000..140_000).contains(&bytes_of_filter), "{bytes_of_filter} bytes for 40000 keys");
    // Without it the file is smaller, and is what it was.
    assert!(write(&runs).len() + bytes_of_filter as usize <= bytes.len());
    assert!(filters(&write(&runs)).get_row_group(0).unwrap().get_column_bloom_filter(7).is_none());
}

#[test]
fn rows_are_found_beside_filters_and_every_byte_of_those_is_covered() {
    let mut random = Lcg(32);
    // Many row groups, so that filters lie between pages.
    let mut rows = keyed(&mut random, 0, 40);
    for row in 0..40 {
        rows.set_value(row, random.bytes(5 << 20));
    }
    let runs = vec![(3, 12, rows)];
    let (bytes, _) = write_as(&runs, filtered());
    let footer = open(&bytes);
    let reader = filters(&bytes);
    assert!(reader.num_row_groups() >= 3, "{} row groups", reader.num_row_groups());
    compare(&footer, &bytes, &runs, 0..40);
    for row in 0..40 {
        compare(&footer, &bytes, &runs, row..row + 1);
    }
    for group in reader.metadata().row_groups() {
        let column = group.column(7);
        let (start, length) = (column.bloom_filter_offset().unwrap(), column.bloom_filter_length().unwrap());
        for at in [start, start + i64::from(length) / 2, start + i64::from(length) - 1] {
            let mut damaged = bytes.to_vec();
            damaged[at as usize] ^= 1;
            let damaged = Bytes::from(damaged);
            let first = at as u64 / BLOCK_BYTES;
            let footer = open(&damaged);
            // The rows of the block that holds the byte: found, whoever reads them.
            let found = (0..40).any(|row| {
                let needs = footer.ranges(row..row + 1).unwrap();
                let holds = needs.iter().any(|range| range.start / BLOCK_BYTES <= first && at < range.end as i64);
                holds && footer.read(row..row + 1, &[(0, damaged.clone())]).is_err()
            });
            assert!(found, "byte {at}");
        }
    }
}
