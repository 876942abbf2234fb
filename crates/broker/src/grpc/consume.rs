//! `ConsumeService`.

use std::pin::Pin;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::Stream;
use lakebed_fetch::{FetchError, FetchPartition, FetchRequest, Fetched};
use lakebed_model::{Offset, PartitionIndex, PartitionKey};
use lakebed_wire::v1;
use tonic::{Request, Response, Status, Streaming};

use super::Services;
use super::feed;
use super::produce::{check_partition, wire_offset};
use super::records;
use super::status::{invalid, status};
use crate::reason::Reason;
use crate::services::consume_service_server::ConsumeService;

/// Bytes of one answer if the request says nothing, and at most: clients take 4 MiB by default.
pub(super) const ANSWER_BYTES_MAX: usize = 1 << 20;
/// Longest wait of one Fetch.
const WAIT_MAX: Duration = Duration::from_secs(30);

#[tonic::async_trait]
impl ConsumeService for Services {
    type ConsumeStream = Pin<Box<dyn Stream<Item = Result<v1::ConsumeResponse, Status>> + Send>>;

    async fn fetch(&self, request: Request<v1::FetchRequest>) -> Result<Response<v1::FetchResponse>, Status> {
        let request = request.into_inner();
        let format = check_format(request.format)?;
        let topic = self.find_topic(&request.topic).await?;
        let partition = check_partition(&topic, request.partition)?;
        let offset = u64::try_from(request.offset).map_err(|_| invalid("offset must not be negative"))?;
        let bytes_max = match request.max_bytes as usize {
            0 => ANSWER_BYTES_MAX,
            bytes => bytes.min(ANSWER_BYTES_MAX),
        };
        let key = PartitionKey::new(topic.id, PartitionIndex::new(partition));
        let fetch = FetchRequest {
            partitions: vec![FetchPartition { key, offset: Offset::new(offset), bytes_max }],
            bytes_max,
            bytes_min: request.min_bytes as usize,
            wait_max: wait(request.max_wait)?,
        };
        let fetched = self.rooms.fetch.fetch(fetch).await.pop();
        let fetched = fetched.ok_or_else(|| status(Reason::Internal, "a fetch has no answer", []))?;
        let fetched = fetched.map_err(|error| fetch_status(&error, &request.topic, request.partition))?;
        let part = Part::take(&fetched, Offset::new(offset), bytes_max, format)
            .map_err(|error| fetch_status(&error, &request.topic, request.partition))?;
        let payload = match part.payload {
            Payload::Records(records) => v1::fetch_response::Payload::Records(v1::Records { records }),
            Payload::Batches(data) => v1::fetch_response::Payload::KafkaBatches(v1::KafkaBatches { data }),
        };
        Ok(Response::new(v1::FetchResponse {
            payload: Some(payload),
            next_offset: wire_offset(part.next),
            high_watermark: wire_offset(fetched.high_watermark),
            log_start_offset: wire_offset(fetched.log_start),
        }))
    }

    async fn consume(
        &self,
        request: Request<Streaming<v1::ConsumeRequest>>,
    ) -> Result<Response<Self::ConsumeStream>, Status> {
        Ok(Response::new(feed::open(self.clone(), request.into_inner()).await?))
    }
}

/// How records go out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Records,
    Batches,
}

/// The format of a request.
pub(super) fn check_format(format: i32) -> Result<Format, Status> {
    match v1::Format::try_from(format) {
        Ok(v1::Format::Unspecified | v1::Format::Records) => Ok(Format::Records),
        Ok(v1::Format::KafkaBatches) => Ok(Format::Batches),
        Ok(v1::Format::ArrowIpc) => Err(status(Reason::Unsupported, "FORMAT_ARROW_IPC is not there yet", [])),
        Err(_) => Err(invalid(format_args!("format {format} is unknown"))),
    }
}

fn wait(duration: Option<prost_types::Duration>) -> Result<Duration, Status> {
    let Some(duration) = duration else { return Ok(Duration::ZERO) };
    let duration = Duration::try_from(duration).map_err(|_| invalid("max_wait must not be negative"))?;
    Ok(duration.min(WAIT_MAX))
}

/// The status of a fetch that failed.
pub(super) fn fetch_status(error: &FetchError, topic: &str, partition: i32) -> Status {
    let (earliest, latest) = match error {
        FetchError::OffsetOutOfRange { log_start, high_watermark, .. } => {
            (log_start.to_string(), high_watermark.to_string())
        }
        _ => (String::new(), String::new()),
    };
    let place = [("topic", topic.to_owned()), ("partition", partition.to_string())];
    let [topic, partition] = place;
    match error {
        FetchError::OffsetOutOfRange { .. } => {
            status(Reason::from(error), error, [topic, partition, ("earliest", earliest), ("latest", latest)])
        }
        FetchError::Damaged { object, .. } => {
            status(Reason::from(error), error, [topic, partition, ("object", object.clone())])
        }
        _ => status(Reason::from(error), error, [topic, partition]),
    }
}

/// What of a fetch goes into one message.
pub(super) struct Part {
    pub(super) payload: Payload,
    /// Where to go on.
    pub(super) next: Offset,
    /// Bytes of keys, values and headers, or of batches.
    pub(super) bytes: usize,
    /// How many records; for batches, how many offsets they span.
    pub(super) records: u64,
}

pub(super) enum Payload {
    Records(Vec<v1::Record>),
    Batches(Bytes),
}

impl Part {
    /// Takes records or batches from `offset` on, until `bytes_max`; at least one if there is any.
    ///
    /// # Errors
    /// [`FetchError`] of the first batch; what precedes a batch that can't be read is taken.
    pub(super) fn take(
        fetched: &Fetched,
        offset: Offset,
        bytes_max: usize,
        format: Format,
    ) -> Result<Self, FetchError> {
        match format {
            Format::Records => Self::records(fetched, offset, bytes_max),
            Format::Batches => Ok(Self::batches(fetched, offset, bytes_max)),
        }
    }

    fn records(fetched: &Fetched, offset: Offset, bytes_max: usize) -> Result<Self, FetchError> {
        let mut records = Vec::new();
        let (mut next, mut bytes) = (offset, 0);
        for record in lakebed_fetch::records(fetched, offset) {
            let record = match record {
                Ok(record) => record,
                Err(error) if records.is_empty() => return Err(error),
                Err(_) => break,
            };
            let field = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len);
            let headers: usize = record.headers.iter().map(|(key, value)| key.len() + field(value)).sum();
            let size = field(&record.key) + field(&record.value) + headers;
            if bytes + size > bytes_max && !records.is_empty() {
                break;
            }
            bytes += size;
            next = Offset::new(record.offset.get() + 1);
            records.push(records::decode(record));
        }
        let count = records.len() as u64;
        // Everything was taken: offsets that hold no records are behind us too.
        Ok(Self { payload: Payload::Records(records), next, bytes, records: count })
    }

    fn batches(fetched: &Fetched, offset: Offset, bytes_max: usize) -> Self {
        let mut data = BytesMut::new();
        let mut next = offset;
        for batch in &fetched.batches {
            if data.len() + batch.size_bytes() > bytes_max && !data.is_empty() {
                break;
            }
            batch.chunks().for_each(|chunk| data.extend_from_slice(&chunk));
            next = batch.next_offset();
        }
        let (bytes, records) = (data.len(), next.since(offset));
        Self { payload: Payload::Batches(data.freeze()), next, bytes, records }
    }
}
