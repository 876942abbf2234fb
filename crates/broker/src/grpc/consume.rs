//! `ConsumeService`.
//!
//! The way of a stream: [`start`] finds where each partition begins; [`feed`], one task a stream, reads what there is in turn and makes
//! messages of it ([`part`]), which wait in an [`outbox`] until the client's connection asks for them. Where the stream goes on stands in each of
//! them ([`token`]).

mod bounds;
mod feed;
mod outbox;
mod part;
mod start;
mod token;

#[cfg(test)]
mod tests;

use std::pin::Pin;
use std::time::Duration;

use futures::{Stream, TryStreamExt, stream};
use lakebed_fetch::{FetchError, FetchPartition, FetchRequest};
use lakebed_log::Closed;
use lakebed_model::{Offset, PartitionIndex, PartitionKey};
use lakebed_wire::outgoing::{ConsumeAnswer, FetchAnswer};
use lakebed_wire::v1;
use tonic::{Request, Response, Status, Streaming};

use super::Services;
use super::batch::check_partition;
use super::produce::wire_offset;
use super::status::{invalid, status};
use crate::http::ending::Ending;
use crate::reason::Reason;
use crate::services::consume_service_server::ConsumeService;
use outbox::MESSAGE_BYTES_MAX;
use part::{Limits, Part, Shape, Source, take};

pub(super) use outbox::Budget;
pub(super) use start::resolve;

/// Longest wait of one Fetch.
const WAIT_MAX: Duration = Duration::from_secs(30);
/// Most partitions of one stream: bounds its tokens and heartbeats.
const PARTITIONS_MAX: usize = 1000;
/// A record batch up to this goes out as it is, if there is room for large messages: clients take 4 MiB by default.
const BATCH_BYTES_MAX: usize = 3 << 20;

#[tonic::async_trait]
impl ConsumeService for Services {
    type ConsumeStream = Pin<Box<dyn Stream<Item = Result<ConsumeAnswer, Status>> + Send>>;

    async fn fetch(&self, request: Request<v1::FetchRequest>) -> Result<Response<FetchAnswer>, Status> {
        let request = request.into_inner();
        let shape = Shape::check(request.format, &request.fields, "")?;
        let topic = self.find_topic(&request.topic).await?;
        let partition = check_partition(&topic, request.partition)?;
        let offset = u64::try_from(request.offset).map_err(|_| invalid("offset", "offset must not be negative"))?;
        let offset = Offset::new(offset);
        let bytes_max = match request.max_bytes as usize {
            0 => MESSAGE_BYTES_MAX,
            bytes => bytes.min(MESSAGE_BYTES_MAX),
        };
        let key = PartitionKey::new(topic.id, PartitionIndex::new(partition));
        let fetch = FetchRequest {
            partitions: vec![FetchPartition { key, offset, bytes_max }],
            bytes_max,
            bytes_min: request.min_bytes as usize,
            wait_max: wait(request.max_wait)?,
        };
        let refuse = |error: &FetchError| self.fetch_status(error, topic.name.as_str(), key);
        let fetched = tokio::select! {
            biased;
            closed = self.rooms.log.closed() => return Err(status(Reason::from(&closed), closed, [])),
            fetched = self.rooms.fetch.fetch(fetch) => fetched.into_iter().next(),
        };
        let fetched = fetched.ok_or_else(|| status(Reason::Internal, "a fetch has no answer", []))?;
        let fetched = fetched.map_err(|error| refuse(&error))?;
        let room = self.consume_budget.room();
        let limits = Limits {
            end: None,
            end_timestamp_ms: None,
            records_max: u64::MAX,
            bytes_max: bytes_max as u64,
            bytes_enough: u64::MAX,
            message_bytes_max: room.bytes,
            batch_bytes_max: batch_bytes_max(room.bytes),
        };
        let (high_watermark, log_start) = (fetched.high_watermark, fetched.log_start);
        let taken = self.take(key.partition, Source::Fetched(fetched), offset, shape, limits).await;
        let part = taken.map_err(|error| refuse(&error))?;
        self.rooms.metrics.grpc_fetched(part.records, part.bytes);
        let plain = v1::FetchResponse {
            payload: None,
            next_offset: wire_offset(part.next),
            high_watermark: wire_offset(high_watermark),
            log_start_offset: wire_offset(log_start),
        };
        Ok(Response::new(FetchAnswer::new(plain, part.payload)))
    }

    async fn consume(
        &self,
        request: Request<Streaming<v1::ConsumeRequest>>,
    ) -> Result<Response<Self::ConsumeStream>, Status> {
        let ending = Ending::of(request.extensions());
        // The head goes out at once, for some clients wait for that before they send.
        let opened = feed::open(self.clone(), ending, request.into_inner());
        Ok(Response::new(Box::pin(stream::once(opened).try_flatten())))
    }
}

/// The largest batch that goes out whole in a message for which there is so much room.
fn batch_bytes_max(room_bytes: usize) -> usize {
    if room_bytes < MESSAGE_BYTES_MAX { room_bytes } else { BATCH_BYTES_MAX }
}

fn wait(duration: Option<prost_types::Duration>) -> Result<Duration, Status> {
    let Some(duration) = duration else { return Ok(Duration::ZERO) };
    let duration = Duration::try_from(duration).map_err(|_| invalid("max_wait", "max_wait must not be negative"))?;
    Ok(duration.min(WAIT_MAX))
}

impl Services {
    /// Resolves, with what to tell the client of a stream, when this broker or the connection serves no more.
    pub(super) async fn told_to_go(&self, ending: &Ending) -> Status {
        let closed = tokio::select! {
            biased;
            closed = self.rooms.log.closed() => closed,
            why = ending.told() => return why.status(),
            () = self.rooms.fetch.stopped() => Closed::ShuttingDown,
        };
        status(Reason::from(&closed), closed, [])
    }

    /// As [`take`]; heavy work leaves the async threads.
    async fn take(
        &self,
        partition: PartitionIndex,
        source: Source,
        offset: Offset,
        shape: Shape,
        limits: Limits,
    ) -> Result<Part, FetchError> {
        if !source.is_heavy(shape, &limits) {
            return take(partition, source, offset, shape, &limits);
        }
        let leave = self.consume_budget.heavy().await;
        let work = move || {
            let _leave = leave;
            take(partition, source, offset, shape, &limits)
        };
        self.rooms.seams.offload.run(work).await
    }

    /// The status of a fetch that failed.
    fn fetch_status(&self, error: &FetchError, topic: &str, key: PartitionKey) -> Status {
        self.rooms.damage.note(&key, error);
        let place = [("topic", topic.to_owned()), ("partition", key.partition.to_string())];
        let [topic, partition] = place;
        match error {
            FetchError::OffsetOutOfRange { log_start, high_watermark, .. } => {
                let (earliest, latest) = (log_start.to_string(), high_watermark.to_string());
                status(Reason::from(error), error, [topic, partition, ("earliest", earliest), ("latest", latest)])
            }
            FetchError::Damaged { object, .. } => {
                status(Reason::from(error), error, [topic, partition, ("object", object.clone())])
            }
            FetchError::UnknownTopicOrPartition if self.rooms.log.state().topic(key.topic).is_none() => gone(&topic.1),
            _ => status(Reason::from(error), error, [topic, partition]),
        }
    }
}

/// The status of a topic that was deleted while it was read.
fn gone(topic: &str) -> Status {
    let message = format!("topic {topic:?} has been deleted");
    status(Reason::TopicNotFound, message, [("topic", topic.to_owned())])
}
