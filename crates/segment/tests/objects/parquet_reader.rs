//! The `parquet` crate, which shares no code with ours, reads what we write.

use std::collections::BTreeMap;

use arrow_array::cast::AsArray;
use arrow_array::types::{Int32Type, TimestampMicrosecondType};
use arrow_array::{Array, RecordBatch};
use bytes::Bytes;
use parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use parquet::file::metadata::PageIndexPolicy;

use crate::samples::{self, INGEST_TIME_MS, Rec, files, tricky_records};

fn file(name: &str) -> Bytes {
    files().into_iter().find(|(other, _)| other == name).unwrap().1
}

fn read(object: Bytes) -> (BTreeMap<String, String>, Vec<RecordBatch>) {
    let options = ArrowReaderOptions::new().with_page_index_policy(PageIndexPolicy::Required);
    let builder = ParquetRecordBatchReaderBuilder::try_new_with_options(object, options).unwrap();
    let pairs = builder.metadata().file_metadata().key_value_metadata().unwrap();
    let words = pairs.iter().map(|pair| (pair.key.clone(), pair.value.clone().unwrap())).collect();
    (words, builder.build().unwrap().collect::<Result<_, _>>().unwrap())
}

fn optional_binary(array: &dyn Array, row: usize) -> Option<Vec<u8>> {
    array.is_valid(row).then(|| array.as_binary::<i32>().value(row).to_vec())
}

fn headers(batch: &RecordBatch, row: usize) -> Vec<(String, Option<Vec<u8>>)> {
    let lists = batch.column_by_name("_kafka_headers").unwrap().as_list::<i32>();
    if lists.is_null(row) {
        return Vec::new();
    }
    let list = lists.value(row);
    let list = list.as_struct();
    let keys = list.column_by_name("key").unwrap().as_string::<i32>();
    let values = list.column_by_name("value").unwrap();
    (0..list.len()).map(|index| (keys.value(index).to_owned(), optional_binary(values, index))).collect()
}

fn records(batch: &RecordBatch) -> Vec<Rec> {
    let column = |name: &str| batch.column_by_name(name).unwrap();
    let times = column("_kafka_timestamp").as_primitive::<TimestampMicrosecondType>();
    let record = |row| Rec {
        timestamp_ms: if times.is_null(row) { -1 } else { times.value(row) / 1000 },
        key: optional_binary(column("key"), row),
        value: optional_binary(column("value"), row),
        headers: headers(batch, row),
    };
    (0..batch.num_rows()).map(record).collect()
}

#[test]
fn every_column_of_a_commit_is_read() {
    let (words, batches) = read(file("commit.parquet"));
    assert_eq!(words["lakebed.kind"], "commit");
    let [batch] = &batches[..] else { panic!("{} batches", batches.len()) };
    assert_eq!(records(batch)[..5], tricky_records());
    let content = samples::content();
    let mut row = 0;
    for (partition, rows, time) in &content.batches {
        for _ in 0..rows.len() {
            let topics = batch.column_by_name("_lakebed_topic").unwrap().as_fixed_size_binary();
            assert_eq!(topics.value(row), partition.topic.uuid().as_bytes());
            let number = |name: &str| batch.column_by_name(name).unwrap().as_primitive::<Int32Type>().value(row);
            assert_eq!(number("_kafka_partition"), partition.partition.get() as i32);
            assert_eq!(number("_kafka_timestamp_type"), i32::from(time.is_some()));
            let ingest = batch.column_by_name("_kafka_ingest_timestamp").unwrap();
            assert_eq!(ingest.as_primitive::<TimestampMicrosecondType>().value(row), INGEST_TIME_MS * 1000);
            row += 1;
        }
    }
    assert_eq!(row, batch.num_rows());
}

#[test]
fn a_commit_without_rows_is_a_parquet_file() {
    let (words, batches) = read(file("takeover.parquet"));
    assert!(words["lakebed.commit"].contains("takeover"));
    assert_eq!(batches.iter().map(RecordBatch::num_rows).sum::<usize>(), 0);
}

#[test]
fn the_columns_carry_the_ids_of_tables() {
    let builder = ParquetRecordBatchReaderBuilder::try_new(file("segment.parquet")).unwrap();
    let ids: Vec<(String, String)> = builder
        .schema()
        .fields()
        .iter()
        .map(|field| (field.name().clone(), field.metadata()["PARQUET:field_id"].clone()))
        .collect();
    let expected = [
        ("_lakebed_topic", "20"),
        ("_kafka_partition", "1"),
        ("_kafka_timestamp", "3"),
        ("_kafka_timestamp_type", "4"),
        ("_kafka_ingest_timestamp", "5"),
        ("_kafka_headers", "6"),
        ("key", "7"),
        ("value", "8"),
    ];
    assert!(ids.iter().map(|(name, id)| (name.as_str(), id.as_str())).eq(expected), "{ids:?}");
}
