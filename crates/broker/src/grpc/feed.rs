//! The Consume stream: paced by the client's credit, woken by commits.
//!
//! 1. Nothing but heartbeats is sent without credit; a batch may take the credit below zero once.
//! 2. At most [`READY_MAX`] messages wait for a slow client, each of about a mebibyte; then reading stops.
//! 3. Partitions take turns: the one that was served last is asked last.
//! 4. The task ends when either side ends the stream, or the broker ends.

use std::pin::Pin;
use std::time::Duration;

use futures::{Stream, StreamExt};
use lakebed_fetch::{FetchPartition, FetchRequest};
use lakebed_log::Closed;
use lakebed_model::{Offset, PartitionIndex, PartitionKey, State};
use lakebed_wire::v1;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::Services;
use super::consume::{ANSWER_BYTES_MAX, Format, Part, Payload, check_format, fetch_status};
use super::produce::{check_partition, wire_offset, wire_partition};
use super::status::{invalid, status};
use crate::reason::Reason;
use crate::topics::FoundTopic;

/// Messages that wait for the client.
const READY_MAX: usize = 2;
/// A stream that has sent nothing for so long says that it lives.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// Longest wait of one fetch: it is repeated, so this only bounds how long a topic's deletion goes unnoticed.
const FETCH_WAIT: Duration = Duration::from_secs(5);

/// Opens the stream: the first message must say what to read.
pub(super) async fn open(
    services: Services,
    mut requests: Streaming<v1::ConsumeRequest>,
) -> Result<Pin<Box<dyn Stream<Item = Result<v1::ConsumeResponse, Status>> + Send>>, Status> {
    let first = requests.next().await.transpose()?;
    let Some(v1::consume_request::Request::Init(init)) = first.and_then(|request| request.request) else {
        return Err(invalid("the first message of a Consume stream is its init"));
    };
    let format = check_format(init.format)?;
    let topic = services.find_topic(&init.topic).await?;
    let partitions = start(&services, &topic, &init).await?;
    let (sender, receiver) = mpsc::channel(READY_MAX);
    let feed = Feed { services, topic, format, partitions, credit: Credit { bytes: 0, records: 0 }, sender };
    tokio::spawn(async move {
        let sender = feed.sender.clone();
        if let Err(status) = feed.run(requests).await {
            // The client may have gone; then nobody wants to know.
            drop(sender.send(Err(status)).await);
        }
    });
    Ok(Box::pin(ReceiverStream::new(receiver)))
}

/// Where each partition begins.
async fn start(services: &Services, topic: &FoundTopic, init: &v1::ConsumeInit) -> Result<Vec<Reading>, Status> {
    let state = services.rooms.log.barrier().await.map_err(|error| status(Reason::from(&error), &error, []))?;
    let all: Vec<v1::PartitionStart>;
    let wanted = if init.partitions.is_empty() {
        let every =
            (0..topic.partitions).map(|index| v1::PartitionStart { partition: wire_partition(index), start: None });
        all = every.collect();
        &all
    } else {
        &init.partitions
    };
    let mut readings: Vec<Reading> = Vec::with_capacity(wanted.len().min(topic.partitions as usize));
    for one in wanted {
        let partition = check_partition(topic, one.partition)?;
        let key = PartitionKey::new(topic.id, PartitionIndex::new(partition));
        if readings.iter().any(|reading| reading.key == key) {
            return Err(invalid(format_args!("partition {partition} is named twice")));
        }
        let position = one.start.as_ref().or(init.start.as_ref()).and_then(|start| start.position.as_ref());
        let next = begin(services, &state, topic, key, position).await?;
        readings.push(Reading { key, partition: one.partition, next, high_watermark: next });
    }
    Ok(readings)
}

async fn begin(
    services: &Services,
    state: &State,
    topic: &FoundTopic,
    key: PartitionKey,
    position: Option<&v1::start_position::Position>,
) -> Result<Offset, Status> {
    use v1::start_position::Position;
    let bounds = state.partition(key).unwrap_or_default();
    match position {
        Some(Position::Earliest(_)) => Ok(bounds.log_start),
        None | Some(Position::Latest(_)) => Ok(bounds.high_watermark),
        Some(Position::Offset(offset)) => {
            u64::try_from(*offset).map(Offset::new).map_err(|_| invalid("offset must not be negative"))
        }
        Some(Position::Timestamp(timestamp_ms)) => {
            let found = services.rooms.fetch.offset_for_timestamp(key, *timestamp_ms).await;
            let partition = wire_partition(key.partition.get());
            let found = found.map_err(|error| fetch_status(&error, topic.name.as_str(), partition))?;
            Ok(found.map_or(bounds.high_watermark, |(offset, _)| offset))
        }
    }
}

/// One partition of a stream.
struct Reading {
    key: PartitionKey,
    partition: i32,
    next: Offset,
    high_watermark: Offset,
}

struct Credit {
    bytes: i128,
    records: i128,
}

impl Credit {
    fn is_positive(&self) -> bool {
        self.bytes > 0 && self.records > 0
    }
}

struct Feed {
    services: Services,
    topic: FoundTopic,
    format: Format,
    partitions: Vec<Reading>,
    credit: Credit,
    sender: mpsc::Sender<Result<v1::ConsumeResponse, Status>>,
}

/// Why a stream ends without an error: the client has gone.
struct Gone;

impl Feed {
    /// Serves until the client ends the stream.
    async fn run(mut self, mut requests: Streaming<v1::ConsumeRequest>) -> Result<(), Status> {
        if self.heartbeat().await.is_err() {
            return Ok(());
        }
        let mut silent_until = Instant::now() + HEARTBEAT;
        loop {
            let fetch = self.services.rooms.fetch.clone();
            let request = self.request();
            let may_send = self.credit.is_positive();
            let step = tokio::select! {
                biased;
                request = requests.next() => match request {
                    None => return Ok(()),
                    Some(request) => self.grant(request?).map(|()| Ok(false))?,
                },
                closed = self.services.rooms.log.closed() => {
                    return Err(status(Reason::from(&closed), closed, []));
                }
                () = sleep_until(silent_until) => self.heartbeat().await.map(|()| true),
                fetched = fetch.fetch(request), if may_send => self.serve(fetched).await?,
            };
            if fetch.is_stopped() {
                return Err(status(Reason::ShuttingDown, Closed::ShuttingDown, []));
            }
            match step {
                Err(Gone) => return Ok(()),
                Ok(true) => silent_until = Instant::now() + HEARTBEAT,
                Ok(false) => {}
            }
        }
    }

    fn request(&self) -> FetchRequest {
        let partitions = self.partitions.iter().map(|one| FetchPartition {
            key: one.key,
            offset: one.next,
            bytes_max: ANSWER_BYTES_MAX,
        });
        FetchRequest {
            partitions: partitions.collect(),
            bytes_max: ANSWER_BYTES_MAX,
            bytes_min: 1,
            wait_max: FETCH_WAIT,
        }
    }

    fn grant(&mut self, request: v1::ConsumeRequest) -> Result<(), Status> {
        match request.request {
            Some(v1::consume_request::Request::Credit(credit)) => {
                self.credit.bytes += i128::from(credit.bytes);
                self.credit.records += i128::from(credit.records);
                Ok(())
            }
            Some(v1::consume_request::Request::Init(_)) => Err(invalid("a Consume stream has one init")),
            _ => Err(invalid("a message of a Consume stream says nothing that this broker knows")),
        }
    }

    /// Sends what was fetched; answers whether anything was.
    async fn serve(
        &mut self,
        fetched: Vec<Result<lakebed_fetch::Fetched, lakebed_fetch::FetchError>>,
    ) -> Result<Result<bool, Gone>, Status> {
        let mut served = None;
        for (index, fetched) in fetched.into_iter().enumerate() {
            let reading = &mut self.partitions[index];
            let refuse = |error: &_| fetch_status(error, self.topic.name.as_str(), reading.partition);
            let fetched = fetched.map_err(|error| refuse(&error))?;
            reading.high_watermark = fetched.high_watermark;
            if fetched.batches.is_empty() || !self.credit.is_positive() {
                continue;
            }
            let part =
                Part::take(&fetched, reading.next, ANSWER_BYTES_MAX, self.format).map_err(|error| refuse(&error))?;
            reading.next = part.next;
            self.credit.bytes -= part.bytes as i128;
            self.credit.records -= i128::from(part.records);
            served = Some(index);
            let payload = match part.payload {
                Payload::Records(records) => v1::consume_batch::Payload::Records(v1::Records { records }),
                Payload::Batches(data) => v1::consume_batch::Payload::KafkaBatches(v1::KafkaBatches { data }),
            };
            let batch = v1::ConsumeBatch {
                partition: reading.partition,
                payload: Some(payload),
                next_offset: wire_offset(part.next),
                high_watermark: wire_offset(fetched.high_watermark),
                ..v1::ConsumeBatch::default()
            };
            if self.send(v1::consume_response::Response::Batch(batch)).await.is_err() {
                return Ok(Err(Gone));
            }
        }
        if let Some(last) = served {
            let count = self.partitions.len();
            self.partitions.rotate_left((last + 1) % count);
        }
        Ok(Ok(served.is_some()))
    }

    async fn heartbeat(&self) -> Result<(), Gone> {
        let tails = self.partitions.iter().map(|one| v1::PartitionTail {
            partition: one.partition,
            next_offset: wire_offset(one.next),
            high_watermark: wire_offset(one.high_watermark.max(self.services.rooms.fetch.visible(one.key))),
        });
        let heartbeat = v1::ConsumeHeartbeat { tails: tails.collect(), ..v1::ConsumeHeartbeat::default() };
        self.send(v1::consume_response::Response::Heartbeat(heartbeat)).await
    }

    async fn send(&self, response: v1::consume_response::Response) -> Result<(), Gone> {
        self.sender.send(Ok(v1::ConsumeResponse { response: Some(response) })).await.map_err(|_| Gone)
    }
}
