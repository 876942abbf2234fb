//! A record that is to be written.

use bytes::Bytes;
use lakebed_wire::v1;

/// A record to write, and where to.
///
/// ```
/// use lakebed_client::Message;
///
/// let message = Message::new("42 pies").key("alice").header("trace", "af01").timestamp_ms(1_700_000_000_000);
/// let tombstone = Message::tombstone("alice");
/// # let _ = (message, tombstone);
/// ```
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Message {
    pub(crate) record: v1::Record,
    pub(crate) partition: Option<i32>,
}

impl Message {
    /// A record with a value.
    pub fn new(value: impl Into<Bytes>) -> Self {
        let record = v1::Record { value: Some(value.into()), ..v1::Record::default() };
        Self { record, partition: None }
    }

    /// A record with a key and no value: what removes the key from a compacted topic.
    pub fn tombstone(key: impl Into<Bytes>) -> Self {
        let record = v1::Record { key: Some(key.into()), ..v1::Record::default() };
        Self { record, partition: None }
    }

    /// With this key; it chooses the partition if none is named.
    #[must_use]
    pub fn key(mut self, key: impl Into<Bytes>) -> Self {
        self.record.key = Some(key.into());
        self
    }

    /// With one more header.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<Bytes>) -> Self {
        self.record.headers.push(v1::Header { key: name.into(), value: Some(value.into()) });
        self
    }

    /// With this time, in milliseconds since 1970-01-01T00:00:00Z, instead of the broker's clock at the time of arrival.
    #[must_use]
    pub fn timestamp_ms(mut self, timestamp_ms: i64) -> Self {
        self.record.timestamp = Some(timestamp_ms);
        self
    }

    /// The record itself.
    pub fn record_mut(&mut self) -> &mut v1::Record {
        &mut self.record
    }

    /// To this partition.
    #[must_use]
    pub fn partition(mut self, partition: i32) -> Self {
        self.partition = Some(partition);
        self
    }
}

impl From<v1::Record> for Message {
    fn from(record: v1::Record) -> Self {
        Self { record, partition: None }
    }
}
