//! Encodes the answer to a Fetch around its records, which are not copied.
//!
//! Fetch sessions are declined (the session id is always 0), there are no aborted transactions, no preferred replica and
//! no tagged fields.

use bytes::{BufMut, Bytes, BytesMut};
use thiserror::Error;

use super::table::{FETCH, api};
use super::varint;

/// Bytes of the length that stands before a frame.
const FRAME_PREFIX_BYTES: usize = 4;

/// Kafka's codes of what is not there: UNKNOWN_TOPIC_OR_PARTITION and UNKNOWN_TOPIC_ID.
const MISSING: [i16; 2] = [3, 100];

/// First version that names topics by their ids.
const TOPIC_IDS_SINCE: i16 = 13;

/// The answer to a Fetch request.
#[derive(Clone, Debug, Default)]
pub struct FetchResponse {
    /// That of the request.
    pub correlation_id: i32,
    /// Milliseconds for which the client was throttled.
    pub throttle_time_ms: i32,
    /// Kafka's code for the whole request, 0 if there is none. Not sent below version 7.
    pub error_code: i16,
    /// Whether the client reads committed records alone. It is told that no transactions were aborted; others are told nothing of them.
    pub read_committed: bool,
    /// In the order of the request.
    pub topics: Vec<FetchedTopic>,
}

/// What there was of one topic.
#[derive(Clone, Debug, Default)]
pub struct FetchedTopic {
    /// Sent below version 13.
    pub name: String,
    /// The UUID in its usual byte order. Sent from version 13 on.
    pub id: [u8; 16],
    /// In the order of the request.
    pub partitions: Vec<FetchedPartition>,
}

/// What there was of one partition.
#[derive(Clone, Debug, Default)]
pub struct FetchedPartition {
    /// The partition.
    pub index: i32,
    /// Kafka's code, 0 if there is none.
    pub error_code: i16,
    /// Offset after the last durable record; -1 if there was an error.
    pub high_watermark: i64,
    /// Offset below which no transaction is open; -1 if there was an error.
    pub last_stable_offset: i64,
    /// Offset of the first record that is kept; -1 if there was an error. Not sent below version 5.
    pub log_start_offset: i64,
    /// Record batches, in order, cut anywhere. Empty: no records.
    pub records: Vec<Bytes>,
}

/// Why an answer can't be encoded: a bug of ours, or limits that let too much into one answer.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum FetchResponseError {
    /// We don't take requests of this version.
    #[error("answers to Fetch version {version} are not encoded")]
    Unsupported {
        /// Version of the request.
        version: i16,
    },
    /// A topic's name is longer than this version can say.
    #[error("a topic name of {length} bytes does not fit Fetch version {version}")]
    NameTooLong {
        /// Version of the request.
        version: i16,
        /// Length of the name in bytes.
        length: usize,
    },
    /// The answer is longer than a frame can be.
    #[error("an answer of {size_bytes} bytes does not fit a frame")]
    TooLarge {
        /// Size of the answer without the frame's length.
        size_bytes: usize,
    },
}

/// Encodes `response` for a request of `version` as one frame, its length first: chunks to be written one after the
/// other, in which the records are those of `response` and share their memory.
///
/// # Errors
/// [`FetchResponseError`]: nothing may be written.
///
/// # Cost
/// One buffer for all that is not records; no copy of records.
pub fn fetch_response(version: i16, response: FetchResponse) -> Result<Vec<Bytes>, FetchResponseError> {
    let api = api(FETCH).filter(|api| api.decodes(version)).ok_or(FetchResponseError::Unsupported { version })?;
    let flexible = api.is_flexible(version);
    let read_committed = response.read_committed;
    let mut frame =
        Frame { version, flexible, read_committed, fields: BytesMut::new(), records: Vec::new(), records_bytes: 0 };
    frame.fields.put_bytes(0, FRAME_PREFIX_BYTES);
    frame.fields.put_i32(response.correlation_id);
    frame.end_of_struct();

    frame.fields.put_i32(response.throttle_time_ms);
    if version >= 7 {
        frame.fields.put_i16(response.error_code);
        frame.fields.put_i32(0);
    }
    frame.count(response.topics.len())?;
    for topic in response.topics {
        frame.topic(topic)?;
    }
    frame.end_of_struct();
    frame.finish()
}

/// A frame that is being encoded.
struct Frame {
    version: i16,
    flexible: bool,
    read_committed: bool,
    /// All that is not records.
    fields: BytesMut,
    /// Where in `fields` records belong.
    records: Vec<(usize, Vec<Bytes>)>,
    records_bytes: usize,
}

impl Frame {
    fn topic(&mut self, topic: FetchedTopic) -> Result<(), FetchResponseError> {
        if self.version >= TOPIC_IDS_SINCE {
            self.fields.put_slice(&topic.id);
        } else {
            self.name(&topic.name)?;
        }
        self.count(topic.partitions.len())?;
        for partition in topic.partitions {
            self.partition(partition)?;
        }
        self.end_of_struct();
        Ok(())
    }

    fn partition(&mut self, partition: FetchedPartition) -> Result<(), FetchResponseError> {
        self.fields.put_i32(partition.index);
        self.fields.put_i16(partition.error_code);
        self.fields.put_i64(partition.high_watermark);
        self.fields.put_i64(partition.last_stable_offset);
        if self.version >= 5 {
            self.fields.put_i64(partition.log_start_offset);
        }
        // Aborted transactions; of a partition that is not there Kafka tells everybody that there are none.
        if self.read_committed || MISSING.contains(&partition.error_code) {
            self.count(0)?;
        } else {
            self.null();
        }
        if self.version >= 11 {
            self.fields.put_i32(-1);
        }
        let length = partition.records.iter().map(Bytes::len).sum::<usize>();
        self.count(length)?;
        self.records_bytes += length;
        self.records.push((self.fields.len(), partition.records));
        self.end_of_struct();
        Ok(())
    }

    fn name(&mut self, name: &str) -> Result<(), FetchResponseError> {
        let length = name.len();
        if self.flexible {
            self.count(length)?;
        } else {
            let short = i16::try_from(length);
            self.fields.put_i16(short.map_err(|_| FetchResponseError::NameTooLong { version: self.version, length })?);
        }
        self.fields.put_slice(name.as_bytes());
        Ok(())
    }

    /// Writes a number of elements, or the length of bytes.
    fn count(&mut self, count: usize) -> Result<(), FetchResponseError> {
        let fitting = i32::try_from(count).map_err(|_| FetchResponseError::TooLarge { size_bytes: count })?;
        if self.flexible {
            varint::write(&mut self.fields, fitting.unsigned_abs() + 1);
        } else {
            self.fields.put_i32(fitting);
        }
        Ok(())
    }

    /// Writes an array that is null.
    fn null(&mut self) {
        if self.flexible {
            varint::write(&mut self.fields, 0);
        } else {
            self.fields.put_i32(-1);
        }
    }

    /// Writes that there are no tagged fields.
    fn end_of_struct(&mut self) {
        if self.flexible {
            varint::write(&mut self.fields, 0);
        }
    }

    fn finish(mut self) -> Result<Vec<Bytes>, FetchResponseError> {
        let size_bytes = self.fields.len() - FRAME_PREFIX_BYTES + self.records_bytes;
        let length = i32::try_from(size_bytes).map_err(|_| FetchResponseError::TooLarge { size_bytes })?;
        self.fields[..FRAME_PREFIX_BYTES].copy_from_slice(&length.to_be_bytes());

        let mut fields = self.fields.freeze();
        let mut chunks = Vec::new();
        let mut written = 0;
        for (place, records) in self.records {
            if records.iter().any(|chunk| !chunk.is_empty()) {
                chunks.push(fields.split_to(place - written));
                written = place;
                chunks.extend(records.into_iter().filter(|chunk| !chunk.is_empty()));
            }
        }
        if !fields.is_empty() {
            chunks.push(fields);
        }
        Ok(chunks)
    }
}
