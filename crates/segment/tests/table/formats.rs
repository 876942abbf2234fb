//! Files of topics whose values are texts or JSON: every value comes back as it was, and stands in the column where readers expect it.

use arrow_array::{BinaryArray, StringArray};
use parquet::basic::LogicalType;
use parquet::file::statistics::Statistics;

use super::*;

fn settings(value_format: ValueFormat) -> TableSettings {
    TableSettings { value_format, ..TableSettings::default() }
}

/// Values of every kind among the random ones.
fn mixed(random: &mut Lcg, count: usize) -> TestRows {
    let mut rows = TestRows::random(random, count);
    for row in 0..count {
        let value = match random.below(6) {
            0 => format!("{{\"user_id\": {row}, \"note\": \"Gr\u{fc}\u{df}e\"}}").into_bytes(),
            1 => format!(" [{row}, null] ").into_bytes(),
            2 => format!("text {row}, \u{1f980}").into_bytes(),
            3 => b"{\"half\": \"\\ud800\"}".to_vec(),
            // Random bytes, null or empty.
            _ => continue,
        };
        rows.set_value(row, value);
    }
    rows
}

#[test]
fn values_of_every_format_come_back_as_they_were() {
    let mut random = Lcg(21);
    let runs =
        vec![(0, 5, mixed(&mut random, 3000)), (2, 0, mixed(&mut random, 9000)), (2, 1 << 33, mixed(&mut random, 7))];
    let total: u64 = runs.iter().map(|(.., rows)| rows.row_count() as u64).sum();
    for format in ValueFormat::ALL {
        let (bytes, misfits) = write_as(&runs, settings(format));
        assert_eq!(write_as(&runs, settings(format)).0, bytes, "equal rows give equal bytes");
        let footer = open(&bytes);
        assert_eq!((footer.value_format, footer.rows), (format, total));
        compare(&footer, &bytes, &runs, 0..total);
        for _ in 0..20 {
            let start = random.below(total + 1);
            let end = start + random.below((total - start).min(900) + 1);
            compare(&footer, &bytes, &runs, start..end);
        }
        let (fit, raw) = columns(&bytes, format);
        let values = || runs.iter().flat_map(|(.., rows)| (0..rows.row_count()).map(move |row| rows.value(row)));
        let expected: Vec<Option<&[u8]>> = values().map(|value| value.filter(|value| format.holds(value))).collect();
        assert!(fit.iter().map(Option::as_deref).eq(expected.iter().copied()), "{format}");
        let expected: Vec<Option<&[u8]>> = values().map(|value| value.filter(|value| !format.holds(value))).collect();
        assert!(raw.iter().map(Option::as_deref).eq(expected.iter().copied()), "{format}");
        let counted = raw.iter().flatten().count() as u64;
        assert_eq!(misfits, counted, "{format}");
        // At least those that are neither, and not those that are both.
        assert!(format == ValueFormat::Binary || (1000..total - 3000).contains(&misfits), "{format} {misfits}");
    }
}

type Values = Vec<Option<Vec<u8>>>;

/// What a foreign reader sees in `value` and in `_kafka_value_raw`.
fn columns(bytes: &Bytes, format: ValueFormat) -> (Values, Values) {
    let (mut values, mut raw) = (Vec::new(), Vec::new());
    for batch in ParquetRecordBatchReaderBuilder::try_new(bytes.clone()).unwrap().build().unwrap() {
        let batch = batch.unwrap();
        let column = batch.column_by_name("value").unwrap();
        if format == ValueFormat::Binary {
            values.extend(column.as_binary::<i32>().iter().map(|value| value.map(<[u8]>::to_vec)));
            assert!(batch.column_by_name("_kafka_value_raw").is_none(), "no column that would always be null");
            raw.extend((0..batch.num_rows()).map(|_| None));
            continue;
        }
        let texts: &StringArray = column.as_string();
        values.extend(texts.iter().map(|value| value.map(|text| text.as_bytes().to_vec())));
        let bytes: &BinaryArray = batch.column_by_name("_kafka_value_raw").unwrap().as_binary();
        raw.extend(bytes.iter().map(|value| value.map(<[u8]>::to_vec)));
    }
    (values, raw)
}

#[test]
fn the_schema_says_what_values_are_and_the_statistics_how_many_are_not() {
    let runs = vec![(0, 0, mixed(&mut Lcg(4), 500))];
    for (format, logical) in [(ValueFormat::String, LogicalType::String), (ValueFormat::Json, LogicalType::Json)] {
        let (bytes, misfits) = write_as(&runs, settings(format));
        let metadata = ParquetRecordBatchReaderBuilder::try_new(bytes.clone()).unwrap().metadata().clone();
        let columns = metadata.file_metadata().schema_descr();
        let [value, raw] = [8, 9].map(|index| columns.column(index));
        assert_eq!((value.name(), value.logical_type_ref()), ("value", Some(&logical)));
        assert_eq!((raw.name(), raw.logical_type_ref()), ("_kafka_value_raw", None));
        let ids = [&value, &raw].map(|column| column.self_type().get_basic_info().id());
        assert_eq!(ids, [8, 9]);
        let group = metadata.row_group(0);
        let nulls = group.column(9).statistics().and_then(Statistics::null_count_opt).unwrap();
        assert_eq!(500 - nulls, misfits);
    }
}
