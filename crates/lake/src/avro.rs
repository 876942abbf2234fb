//! Avro object container files, written so that the same rows give the same bytes (Avro spec 1.11, "Object Container Files").
//!
//! Crate `apache-avro` encodes the rows. It writes its header from a hash map, in an order of chance, so the header is ours.

use std::collections::BTreeMap;

use apache_avro::types::Value;
use apache_avro::{Codec, DeflateSettings, Reader, Schema, Writer};
use uuid::Uuid;

/// Bytes of rows before a block is closed.
const BLOCK_BYTES: usize = 64 * 1024;

/// Bytes that are no container file of the schema that was expected, or rows that are not of theirs.
#[derive(Debug, thiserror::Error)]
pub enum AvroError {
    /// What the crate says.
    #[error("not a readable Avro file: {0}")]
    Avro(#[from] Box<apache_avro::Error>),
    /// A field that is missing, or of another type.
    #[error("an Avro row has no usable field '{0}'")]
    Field(&'static str),
}

impl From<apache_avro::Error> for AvroError {
    fn from(error: apache_avro::Error) -> Self {
        Self::Avro(Box::new(error))
    }
}

/// A container file with its schema as text, metadata of the file's kind, and rows.
///
/// # Errors
/// [`AvroError::Avro`] if a row does not fit the schema.
pub(crate) fn write(
    schema: &str,
    metadata: &[(&str, String)],
    rows: impl Iterator<Item = Value>,
) -> Result<Vec<u8>, AvroError> {
    let parsed = Schema::parse_str(schema)?;
    let mut entries: BTreeMap<&str, &[u8]> = metadata.iter().map(|(key, value)| (*key, value.as_bytes())).collect();
    entries.insert("avro.schema", schema.as_bytes());
    entries.insert("avro.codec", b"deflate");
    let mut header = b"Obj\x01".to_vec();
    write_long(&mut header, entries.len() as i64);
    for (key, value) in entries {
        for bytes in [key.as_bytes(), value] {
            write_long(&mut header, bytes.len() as i64);
            header.extend_from_slice(bytes);
        }
    }
    write_long(&mut header, 0);
    let marker = Uuid::new_v5(&Uuid::NAMESPACE_OID, &header).into_bytes();
    header.extend_from_slice(&marker);
    let writer = Writer::builder().schema(&parsed).writer(header).codec(Codec::Deflate(DeflateSettings::default()));
    let mut writer = writer.block_size(BLOCK_BYTES).marker(marker).has_header(true).build()?;
    for row in rows {
        writer.append_value(row)?;
    }
    Ok(writer.into_inner()?)
}

/// The rows of a container file.
///
/// # Errors
/// [`AvroError::Avro`] if the bytes are not whole.
pub(crate) fn read(bytes: &[u8]) -> Result<Vec<Value>, AvroError> {
    let rows = Reader::new(bytes)?.collect::<Result<Vec<Value>, _>>()?;
    Ok(rows)
}

fn write_long(target: &mut Vec<u8>, value: i64) {
    let mut rest = ((value << 1) ^ (value >> 63)) as u64;
    while rest >= 0x80 {
        target.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    target.push(rest as u8);
}

/// An optional value, as the union of null and that.
pub(crate) fn optional(value: Option<Value>) -> Value {
    match value {
        None => Value::Union(0, Box::new(Value::Null)),
        Some(value) => Value::Union(1, Box::new(value)),
    }
}

/// A record.
pub(crate) fn record<const N: usize>(fields: [(&str, Value); N]) -> Value {
    Value::Record(fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

/// A row that is being read, by the names of its fields.
pub(crate) struct Row<'a>(&'a [(String, Value)]);

impl<'a> Row<'a> {
    pub(crate) fn of(value: &'a Value, name: &'static str) -> Result<Self, AvroError> {
        match value {
            Value::Record(fields) => Ok(Self(fields)),
            _ => Err(AvroError::Field(name)),
        }
    }

    /// The field, out of its union; `None` if it is null or absent.
    pub(crate) fn get(&self, name: &str) -> Option<&'a Value> {
        let value = self.0.iter().find(|(field, _)| field == name).map(|(_, value)| value)?;
        match value {
            Value::Union(_, inner) => Some(&**inner),
            other => Some(other),
        }
        .filter(|value| **value != Value::Null)
    }

    pub(crate) fn long(&self, name: &'static str) -> Result<i64, AvroError> {
        self.optional_long(name).ok_or(AvroError::Field(name))
    }

    pub(crate) fn optional_long(&self, name: &str) -> Option<i64> {
        match self.get(name)? {
            Value::Int(value) | Value::Date(value) => Some(i64::from(*value)),
            Value::Long(value) => Some(*value),
            _ => None,
        }
    }

    pub(crate) fn int(&self, name: &'static str) -> Result<i32, AvroError> {
        i32::try_from(self.long(name)?).map_err(|_| AvroError::Field(name))
    }

    pub(crate) fn count(&self, name: &'static str) -> Result<u64, AvroError> {
        u64::try_from(self.long(name)?).map_err(|_| AvroError::Field(name))
    }

    pub(crate) fn text(&self, name: &'static str) -> Result<String, AvroError> {
        match self.get(name) {
            Some(Value::String(text)) => Ok(text.clone()),
            _ => Err(AvroError::Field(name)),
        }
    }

    pub(crate) fn bytes(&self, name: &'static str) -> Result<Vec<u8>, AvroError> {
        match self.get(name) {
            Some(Value::Bytes(bytes)) => Ok(bytes.clone()),
            _ => Err(AvroError::Field(name)),
        }
    }

    pub(crate) fn row(&self, name: &'static str) -> Result<Row<'a>, AvroError> {
        Row::of(self.get(name).ok_or(AvroError::Field(name))?, name)
    }

    /// The elements of an array; none if the field is null or absent.
    pub(crate) fn array(&self, name: &str) -> &'a [Value] {
        match self.get(name) {
            Some(Value::Array(values)) => values,
            _ => &[],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_rows_give_the_same_bytes_and_come_back() {
        const SCHEMA: &str = r#"{"type":"record","name":"r","fields":[{"name":"a","type":"long"},{"name":"b","type":["null","string"]}]}"#;
        let row = |number: i64| {
            let text = (number % 2 == 0).then(|| Value::String(format!("row {number}")));
            record([("a", Value::Long(number)), ("b", optional(text))])
        };
        let metadata = [("z", "last".to_owned()), ("a", "first".to_owned())];
        let written = write(SCHEMA, &metadata, (0..10_000).map(row)).unwrap();
        assert_eq!(written, write(SCHEMA, &metadata, (0..10_000).map(row)).unwrap());
        let reader = Reader::new(&written[..]).unwrap();
        assert_eq!(reader.user_metadata().get("a"), Some(&b"first".to_vec()));
        assert_eq!(reader.user_metadata().get("z"), Some(&b"last".to_vec()));
        let rows = read(&written).unwrap();
        assert_eq!(rows.len(), 10_000);
        let last = Row::of(&rows[9_998], "row").unwrap();
        assert_eq!((last.long("a").unwrap(), last.text("b").unwrap()), (9_998, "row 9998".to_owned()));
        assert!(Row::of(&rows[1], "row").unwrap().text("b").is_err());
        assert!(read(&written[..written.len() - 20]).is_err(), "a torn file is noticed");
        assert!(read(b"").is_err() && read(b"Obj\x01").is_err());
    }

    #[test]
    fn no_rows_are_a_file_too() {
        let written = write(r#"{"type":"record","name":"r","fields":[]}"#, &[], std::iter::empty()).unwrap();
        assert_eq!(read(&written).unwrap(), []);
    }
}
