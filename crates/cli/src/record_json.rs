//! Records as JSON, as `consume` prints them and `produce` reads them: bytes that are UTF-8 are text, others `{"base64": "..."}`, none is null.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use lakebed_client::Message;
use lakebed_wire::v1;
use serde::Serialize;
use serde_json::{Map, Value, json};

/// A record as it is printed; fields stand in this order.
#[derive(Debug, Serialize)]
pub(crate) struct RecordJson<'a> {
    topic: &'a str,
    partition: i32,
    offset: Option<i64>,
    timestamp: Option<i64>,
    timestamp_type: Option<&'static str>,
    key: Value,
    value: Value,
    headers: Value,
}

impl<'a> RecordJson<'a> {
    pub(crate) fn new(topic: &'a str, partition: i32, record: &v1::Record) -> Self {
        let timestamp_type = match record.timestamp_type() {
            v1::TimestampType::Unspecified => None,
            v1::TimestampType::CreateTime => Some("create"),
            v1::TimestampType::LogAppendTime => Some("append"),
        };
        Self {
            topic,
            partition,
            offset: record.offset,
            timestamp: record.timestamp,
            timestamp_type,
            key: text_or_base64(record.key.as_deref()),
            value: text_or_base64(record.value.as_deref()),
            headers: header_list(&record.headers),
        }
    }
}

/// Bytes as JSON.
pub(crate) fn text_or_base64(bytes: Option<&[u8]>) -> Value {
    match bytes.map(|bytes| (bytes, std::str::from_utf8(bytes))) {
        None => Value::Null,
        Some((_, Ok(text))) => Value::String(text.to_owned()),
        Some((bytes, Err(_))) => json!({ "base64": STANDARD.encode(bytes) }),
    }
}

/// Headers in their order, with their duplicates.
pub(crate) fn header_list(headers: &[v1::Header]) -> Value {
    let header = |header: &v1::Header| json!({ "key": header.key, "value": text_or_base64(header.value.as_deref()) });
    headers.iter().map(header).collect()
}

/// The record that a line of JSON says.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn parse(line: &[u8]) -> Result<Message, String> {
    let value: Value = serde_json::from_slice(line).map_err(|error| format!("is no JSON: {error}"))?;
    let Value::Object(mut fields) = value else { return Err("is JSON, but no object".to_owned()) };
    let value = fields.remove("value").ok_or("has no \"value\"; null makes a tombstone")?;
    let mut record = v1::Record { value: bytes_of("value", value)?, ..v1::Record::default() };
    let mut partition = None;
    for (name, field) in fields {
        match name.as_str() {
            "key" => record.key = bytes_of("key", field)?,
            "headers" => record.headers = headers_of(field)?,
            "timestamp" if field.is_null() => {}
            "timestamp" => {
                let ms = field.as_i64().filter(|ms| *ms >= 0);
                record.timestamp = Some(ms.ok_or("\"timestamp\" must be milliseconds since 1970")?);
            }
            "partition" if field.is_null() => {}
            "partition" => {
                let number = field.as_i64().and_then(|number| i32::try_from(number).ok()).filter(|number| *number >= 0);
                partition = Some(number.ok_or("\"partition\" must be a number of 0 or more")?);
            }
            // Where it was read from says nothing about where it goes.
            "topic" | "offset" | "timestamp_type" => {}
            _ => {
                return Err(format!("has a field {name:?}: there are key, value, headers, partition and timestamp"));
            }
        }
    }
    let message = Message::from(record);
    Ok(match partition {
        Some(partition) => message.partition(partition),
        None => message,
    })
}

fn bytes_of(name: &str, value: Value) -> Result<Option<Bytes>, String> {
    match value {
        Value::Null => Ok(None),
        Value::String(text) => Ok(Some(Bytes::from(text))),
        Value::Object(fields) if is_base64(&fields) => {
            let text = fields.get("base64").and_then(Value::as_str).unwrap_or_default();
            let bytes = STANDARD.decode(text).map_err(|error| format!("{name:?} holds no base64: {error}"))?;
            Ok(Some(Bytes::from(bytes)))
        }
        other => Ok(Some(Bytes::from(other.to_string()))),
    }
}

fn is_base64(fields: &Map<String, Value>) -> bool {
    fields.len() == 1 && fields.get("base64").is_some_and(Value::is_string)
}

fn headers_of(headers: Value) -> Result<Vec<v1::Header>, String> {
    let wrong = || "\"headers\" must be [{\"key\": \"name\", \"value\": ...}, ...] or {\"name\": ..., ...}".to_owned();
    match headers {
        Value::Null => Ok(Vec::new()),
        Value::Object(fields) => fields
            .into_iter()
            .map(|(key, value)| bytes_of("headers", value).map(|value| v1::Header { key, value }))
            .collect(),
        Value::Array(headers) => headers
            .into_iter()
            .map(|header| {
                let Value::Object(mut fields) = header else { return Err(wrong()) };
                let Some(Value::String(key)) = fields.remove("key") else { return Err(wrong()) };
                let value = bytes_of("headers", fields.remove("value").unwrap_or_default())?;
                if fields.is_empty() { Ok(v1::Header { key, value }) } else { Err(wrong()) }
            })
            .collect(),
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_that_was_printed_can_be_read_again() {
        let record = v1::Record {
            key: Some(Bytes::from_static(b"\xff\x00")),
            value: Some(Bytes::from_static("grün \"42\"".as_bytes())),
            headers: vec![
                v1::Header { key: "a".to_owned(), value: None },
                v1::Header { key: "a".to_owned(), value: Some(Bytes::from_static(b"\xfe")) },
            ],
            timestamp: Some(1_700_000_000_000),
            ..v1::Record::default()
        };
        let printed = serde_json::to_string(&RecordJson::new("orders", 3, &record)).unwrap();
        let again = parse(printed.as_bytes()).unwrap();
        assert_eq!(again, Message::from(record).partition(3));
        let tombstone = parse(br#"{"key":"k","value":null}"#).unwrap();
        assert_eq!(tombstone, Message::tombstone("k"));
    }

    #[test]
    fn any_other_json_is_taken_as_its_text() {
        let object = parse(br#"{"value":{"a": [1, 2.5]},"headers":{"n":1}}"#).unwrap();
        assert_eq!(object, Message::new(r#"{"a":[1,2.5]}"#).header("n", "1"));
        assert_eq!(parse(br#"{"value":17}"#).unwrap(), Message::new("17"));
        assert_eq!(parse(br#"{"value":{"base64":"aGk="}}"#).unwrap(), Message::new("hi"));
        assert_eq!(parse(br#"{"value":{"base64":1}}"#).unwrap(), Message::new(r#"{"base64":1}"#));
    }

    #[test]
    fn what_is_no_record_is_told() {
        let cases: [(&[u8], &str); 9] = [
            (b"{", "is no JSON"),
            (b"[]", "no object"),
            (br#"{"key":"a"}"#, "has no \"value\""),
            (br#"{"value":"a","keys":"b"}"#, "has a field \"keys\""),
            (br#"{"value":{"base64":"?"}}"#, "holds no base64"),
            (br#"{"value":"a","partition":-1}"#, "\"partition\""),
            (br#"{"value":"a","timestamp":"now"}"#, "\"timestamp\""),
            (br#"{"value":"a","headers":[1]}"#, "\"headers\""),
            (br#"{"value":"a","headers":[{"key":"a","vlaue":1}]}"#, "\"headers\""),
        ];
        for (line, part) in cases {
            let error = parse(line).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }
}
