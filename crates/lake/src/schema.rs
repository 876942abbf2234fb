//! The columns of a table as Iceberg describes them: ids, types, partitions and order (Iceberg table spec, "Schemas", "Partitioning").
//!
//! Ids are those in the files. They are never used for anything else.

use serde_json::{Value, json};

use crate::shown::{PartitionBy, ValueFormat};

/// `_kafka_partition`.
pub(crate) const PARTITION: i32 = 1;
/// `_kafka_offset`.
pub(crate) const OFFSET: i32 = 2;
/// `_kafka_timestamp`.
const TIMESTAMP: i32 = 3;
/// `_kafka_ingest_timestamp`, by which tables are partitioned.
pub(crate) const INGEST_TIMESTAMP: i32 = 5;
/// The columns of a file that are no part of a list: those of which counts and bounds are kept.
pub(crate) const TOP_COLUMNS: [i32; 8] = [1, 2, 3, 4, 5, 7, 8, 9];
/// The highest id of a column.
pub(crate) const LAST_COLUMN: i32 = 23;
/// The highest id of a partition field.
pub(crate) const LAST_PARTITION_FIELD: i32 = 1001;
/// The id of the order by (partition, offset).
pub(crate) const SORT_ORDER: i32 = 1;

impl ValueFormat {
    /// The id of the schema with this type of `value`.
    pub(crate) fn schema_id(self) -> i32 {
        match self {
            Self::Binary => 0,
            Self::Text => 1,
        }
    }

    fn iceberg_type(self) -> &'static str {
        match self {
            Self::Binary => "binary",
            Self::Text => "string",
        }
    }
}

impl PartitionBy {
    /// The id of the partition spec.
    pub(crate) fn spec_id(self) -> i32 {
        match self {
            Self::Nothing => 0,
            Self::Day => 1,
            Self::Hour => 2,
        }
    }

    /// The way of partitioning with that id.
    pub(crate) fn of_spec_id(id: i32) -> Option<Self> {
        [Self::Nothing, Self::Day, Self::Hour].into_iter().find(|by| by.spec_id() == id)
    }

    /// Name, id and transform of the partition field.
    pub(crate) fn field(self) -> Option<(&'static str, i32, &'static str)> {
        match self {
            Self::Nothing => None,
            Self::Day => Some(("_kafka_ingest_timestamp_day", 1000, "day")),
            Self::Hour => Some(("_kafka_ingest_timestamp_hour", 1001, "hour")),
        }
    }

    /// The partition value of a time in microseconds since 1970.
    pub(crate) fn value_of(self, micros: i64) -> Option<i32> {
        let micros_in_unit = match self {
            Self::Nothing => return None,
            Self::Day => 86_400_000_000,
            Self::Hour => 3_600_000_000,
        };
        i32::try_from(micros.div_euclid(micros_in_unit)).ok()
    }
}

/// The schema.
pub(crate) fn schema(format: ValueFormat) -> Value {
    let field = |id: i32, name: &str, required: bool, kind: Value| json!({ "id": id, "name": name, "required": required, "type": kind });
    let header = json!({
        "type": "struct",
        "fields": [field(22, "key", true, json!("string")), field(23, "value", false, json!("binary"))],
    });
    let headers = json!({ "type": "list", "element-id": 21, "element-required": true, "element": header });
    json!({
        "type": "struct",
        "schema-id": format.schema_id(),
        "identifier-field-ids": [PARTITION, OFFSET],
        "fields": [
            field(PARTITION, "_kafka_partition", true, json!("int")),
            field(OFFSET, "_kafka_offset", true, json!("long")),
            field(TIMESTAMP, "_kafka_timestamp", false, json!("timestamptz")),
            field(4, "_kafka_timestamp_type", true, json!("int")),
            field(INGEST_TIMESTAMP, "_kafka_ingest_timestamp", true, json!("timestamptz")),
            field(6, "_kafka_headers", false, headers),
            field(7, "key", false, json!("binary")),
            field(8, "value", false, json!(format.iceberg_type())),
            field(9, "_kafka_value_raw", false, json!("binary")),
        ],
    })
}

/// The names of the columns by their ids, for a reader that does not look at the ids in the files.
pub(crate) fn name_mapping() -> Value {
    let name = |id: i32, name: &str| json!({ "field-id": id, "names": [name] });
    let header = json!({ "field-id": 21, "names": ["element"], "fields": [name(22, "key"), name(23, "value")] });
    json!([
        name(PARTITION, "_kafka_partition"),
        name(OFFSET, "_kafka_offset"),
        name(TIMESTAMP, "_kafka_timestamp"),
        name(4, "_kafka_timestamp_type"),
        name(INGEST_TIMESTAMP, "_kafka_ingest_timestamp"),
        { "field-id": 6, "names": ["_kafka_headers"], "fields": [header] },
        name(7, "key"),
        name(8, "value"),
        name(9, "_kafka_value_raw"),
    ])
}

/// The partition spec.
pub(crate) fn partition_spec(by: PartitionBy) -> Value {
    json!({ "spec-id": by.spec_id(), "fields": partition_fields(by) })
}

/// The fields of a partition spec, as manifests hold them too.
pub(crate) fn partition_fields(by: PartitionBy) -> Value {
    let field = by.field().map(
        |(name, id, transform)| json!({ "source-id": INGEST_TIMESTAMP, "field-id": id, "name": name, "transform": transform }),
    );
    Value::Array(field.into_iter().collect())
}

/// The order of the rows in a file.
pub(crate) fn sort_order() -> Value {
    let field =
        |id: i32| json!({ "transform": "identity", "source-id": id, "direction": "asc", "null-order": "nulls-first" });
    json!({ "order-id": SORT_ORDER, "fields": [field(PARTITION), field(OFFSET)] })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partition_values_round_down_on_both_sides_of_1970() {
        for (by, micros, expected) in [
            (PartitionBy::Day, 0, Some(0)),
            (PartitionBy::Day, -1, Some(-1)),
            (PartitionBy::Day, 86_399_999_999, Some(0)),
            (PartitionBy::Day, 86_400_000_000, Some(1)),
            (PartitionBy::Hour, 3_599_999_999, Some(0)),
            (PartitionBy::Hour, -3_600_000_001, Some(-2)),
            (PartitionBy::Hour, i64::MAX, None),
            (PartitionBy::Nothing, 5, None),
        ] {
            assert_eq!(by.value_of(micros), expected, "{by:?} {micros}");
        }
    }

    #[test]
    fn the_mapping_names_every_column_of_the_schema() {
        let named = |value: &Value, id: &str| value[id].as_i64().unwrap();
        let fields = schema(ValueFormat::Binary)["fields"].as_array().unwrap().clone();
        let mapping = name_mapping();
        let mapping = mapping.as_array().unwrap();
        assert_eq!(fields.len(), mapping.len());
        for (field, mapped) in fields.iter().zip(mapping) {
            assert_eq!(named(field, "id"), named(mapped, "field-id"));
            assert_eq!(field["name"], mapped["names"][0]);
        }
    }
}
