//! `ProduceStream`: batches go into the ingest buffer as they come, and are answered in that order.
//!
//! The stream of answers is the whole of it: when it is polled it gives the next answer, else it reads on. There is no task beside it,
//! so when the client goes, nothing is left; what the write path has taken goes its way.
//!
//! 1. Answers come in the order of the batches. Whatever ends the stream, what was read is answered before its status.
//! 2. Batches that are read together are handed over together; the next are read when those have room in the ingest buffer.
//! 3. At most the window is read and not answered, [`REFUSED_MAX`] refusals of it; beyond, the stream is not read.
//! 4. What was not read was not stored. So a status of ours that ends the stream says that nothing was stored of what has no answer,
//!    but for [`Reason::OutcomeUnknown`] when the store takes nothing while the broker stops or the connection ends.

mod group;

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures::future::BoxFuture;
use futures::stream;
use futures::{FutureExt, Stream, StreamExt, TryStreamExt};
use lakebed_ingest::Produced;
use lakebed_wire::received::{Content, ProduceBatch, ProduceStreamRequest, StreamRequest};
use lakebed_wire::v1;
use tokio::time::{Sleep, sleep};
use tonic::{Status, Streaming};

use self::group::{Answer, Group, Read, Told, hand_over};
use super::Services;
use super::batch::{Asked, Target, not_produced};
use super::produce::{wire_offset, wire_partition};
use super::status::{as_message, invalid, named, reason_name, status};
use crate::config::Budget;
use crate::http::ending::{Ending, Why};
use crate::http::messages::Settled;
use crate::reason::Reason;

/// Batches that may be under way: each is accounted for in the ingest buffer, and takes about a hundred bytes here.
const WINDOW_BATCHES: usize = 4096;
/// Bytes that may be under way, however much memory there is: more would hide no latency.
const WINDOW_BYTES_MAX: usize = 16 << 20;
/// Refusals that wait for the answers before them: nobody else accounts for those.
const REFUSED_MAX: usize = 64;
/// Batches that are handed over at once, and their bytes: enough that handing over costs little, and so few that large batches are
/// on their way to the store while the next are verified.
const GROUP_BATCHES: usize = 512;
const GROUP_BYTES: usize = 256 << 10;
/// What a batch counts in the window beside its payload.
const BATCH_OVERHEAD_BYTES: usize = 32;

type Response = Result<v1::ProduceStreamResponse, Status>;

/// Bytes of batches that one stream may have under way: a quarter of what all producers share.
fn window_bytes(budget: &Budget) -> usize {
    (budget.requests_bytes * 3 / 16).min(WINDOW_BYTES_MAX)
}

/// Opens the stream. Its head goes out at once, for some clients wait for that before they send.
pub(super) fn open(
    services: Services,
    requests: Streaming<ProduceStreamRequest>,
    ending: Ending,
    settled: Settled,
) -> Pin<Box<dyn Stream<Item = Response> + Send>> {
    Box::pin(stream::once(begin(services, requests, ending, settled)).try_flatten())
}

async fn begin(
    services: Services,
    mut requests: Streaming<ProduceStreamRequest>,
    ending: Ending,
    settled: Settled,
) -> Result<Appending, Status> {
    let mut told = async move { ending.told().await }.boxed();
    let opened = tokio::select! {
        biased;
        why = &mut told => Err(ended(&services, why)),
        opened = opening(&services, &mut requests) => opened,
    };
    let (init, target) = opened?;
    let window_bytes = window_bytes(&services.rooms.config.budget());
    let ack = v1::ProduceInitAck {
        topic_id: target.topic.id.to_string(),
        partition_count: wire_partition(target.topic.partitions),
        window_bytes: window_bytes as u64,
        window_batches: WINDOW_BATCHES as u32,
        message_bytes_max: services.rooms.config.request_bytes_max as u64,
    };
    Ok(Appending {
        services,
        requests,
        partition: init.partition,
        target: Some(target),
        window_bytes,
        opening: Some(ack),
        read: Vec::new(),
        working: None,
        owed: VecDeque::new(),
        under_way: UnderWay::default(),
        reading: Reading::On,
        settled,
        told: Some(told),
        patience: None,
    })
}

/// What the first message says, and the topic that it names.
async fn opening(
    services: &Services,
    requests: &mut Streaming<ProduceStreamRequest>,
) -> Result<(v1::ProduceInit, Target), Status> {
    let init = match requests.next().await {
        None => return Err(invalid("init", "the stream ended before its init")),
        Some(Err(refused)) => return Err(named(refused)),
        Some(Ok(ProduceStreamRequest { request: Some(StreamRequest::Init(init)) })) => init,
        Some(Ok(_)) => return Err(invalid("init", "the first message of a ProduceStream is its init")),
    };
    let mut target = Target::new(services.topic_to_produce(&init.topic).await?);
    if let Some(partition) = init.partition {
        services.find_partition(&mut target, partition).await?;
    }
    Ok((init, target))
}

/// With what a stream ends that could go on: its connection ends, for the broker stops because of this, or otherwise.
fn ended(services: &Services, why: Why) -> Status {
    match services.rooms.log.is_closed() {
        Some(closed) => status(Reason::from(&closed), closed, []),
        None => why.status(),
    }
}

/// Whether more is read.
enum Reading {
    On,
    /// No; when all is answered, the stream ends like this.
    Ended(Option<Status>),
    /// It has.
    Told,
}

/// What is read and not answered.
#[derive(Default)]
struct UnderWay {
    batches: usize,
    bytes: usize,
    refused: usize,
}

/// A group of batches on its way into the ingest buffer.
type Working = BoxFuture<'static, (Target, Group)>;

/// An open stream. See the module.
struct Appending {
    services: Services,
    requests: Streaming<ProduceStreamRequest>,
    /// Where batches go that name none.
    partition: Option<i32>,
    /// With the group that is worked on, if there is one.
    target: Option<Target>,
    window_bytes: usize,
    opening: Option<v1::ProduceInitAck>,
    /// The next group. Empty while one is worked on.
    read: Vec<Read>,
    working: Option<Working>,
    owed: VecDeque<Group>,
    under_way: UnderWay,
    reading: Reading,
    /// Told when the ingest buffer accounts for what was read.
    settled: Settled,
    /// Told when the connection is about to end; `None` once it was.
    told: Option<BoxFuture<'static, Why>>,
    /// How long answers may take from then on.
    patience: Option<Pin<Box<Sleep>>>,
}

impl Stream for Appending {
    type Item = Response;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Response>> {
        let this = &mut *self;
        if let Some(ack) = this.opening.take() {
            return Poll::Ready(Some(Ok(response(v1::produce_stream_response::Response::InitAck(ack)))));
        }
        loop {
            if let Poll::Ready(answer) = this.poll_answer(context) {
                return Poll::Ready(Some(Ok(answer)));
            }
            if this.poll_told(context) || this.poll_working(context) || this.poll_reading(context) {
                continue;
            }
            if this.working.is_none() && this.owed.is_empty() {
                match std::mem::replace(&mut this.reading, Reading::Told) {
                    Reading::On => this.reading = Reading::On,
                    Reading::Ended(None) | Reading::Told => return Poll::Ready(None),
                    Reading::Ended(Some(status)) => return Poll::Ready(Some(Err(status))),
                }
            } else if this.patience.as_mut().is_some_and(|patience| patience.poll_unpin(context).is_ready()) {
                return Poll::Ready(Some(Err(this.give_up())));
            }
            return Poll::Pending;
        }
    }
}

impl Appending {
    /// The next answer, if there is one.
    fn poll_answer(&mut self, context: &mut Context<'_>) -> Poll<v1::ProduceStreamResponse> {
        let told = loop {
            let Some(group) = self.owed.front_mut() else { return Poll::Pending };
            match ready!(group.poll_next(context)) {
                Some(told) => break told,
                None => drop(self.owed.pop_front()),
            }
        };
        let Told { correlation_id, bytes, elapsed, answer } = told;
        self.under_way.batches -= 1;
        self.under_way.bytes -= bytes;
        let metrics = &self.services.rooms.metrics;
        metrics.produce_answered(elapsed);
        let refused = match answer {
            Answer::Durable { produced, partition, records, batch_bytes } => {
                metrics.grpc_produced(u64::from(records), batch_bytes);
                let ack = ack(correlation_id, &produced, partition.get(), records);
                return Poll::Ready(response(v1::produce_stream_response::Response::Ack(ack)));
            }
            Answer::NotProduced(error) => not_produced(&error),
            Answer::Refused(refused) => {
                self.under_way.refused -= 1;
                *refused
            }
        };
        self.services.refused(&refused);
        let error = v1::ProduceError { correlation_id, status: Some(as_message(&refused)) };
        Poll::Ready(response(v1::produce_stream_response::Response::Error(error)))
    }

    /// Whether the connection has come to its end. Then nothing more is read, and what is owed must not take for ever: on a stream that
    /// its client has closed, too.
    fn poll_told(&mut self, context: &mut Context<'_>) -> bool {
        let Some(Poll::Ready(why)) = self.told.as_mut().map(|told| told.poll_unpin(context)) else { return false };
        self.told = None;
        self.patience = Some(Box::pin(sleep(why.patience())));
        if matches!(self.reading, Reading::On) {
            self.reading = Reading::Ended(Some(ended(&self.services, why)));
        }
        true
    }

    /// Whether the group that was worked on has been handed over.
    fn poll_working(&mut self, context: &mut Context<'_>) -> bool {
        let Some(working) = &mut self.working else { return false };
        let Poll::Ready((target, group)) = working.poll_unpin(context) else { return false };
        self.working = None;
        self.settled.tell();
        self.target = Some(target);
        self.under_way.refused += group.refused();
        self.owed.push_back(group);
        true
    }

    /// Reads a group, and begins to work on it. Whether there was anything to read.
    fn poll_reading(&mut self, context: &mut Context<'_>) -> bool {
        if !matches!(self.reading, Reading::On) || self.working.is_some() {
            return false;
        }
        let mut group_bytes = 0;
        while self.has_room() && self.read.len() < GROUP_BATCHES && group_bytes < GROUP_BYTES {
            match self.requests.poll_next_unpin(context) {
                Poll::Pending => break,
                Poll::Ready(request) => match self.take(request) {
                    Ok(bytes) => group_bytes += bytes,
                    Err(ended) => {
                        self.reading = Reading::Ended(ended);
                        break;
                    }
                },
            }
        }
        if self.read.is_empty() {
            return !matches!(self.reading, Reading::On);
        }
        let (target, read) = (self.target.take().expect("no group is worked on"), std::mem::take(&mut self.read));
        self.working = Some(hand_over(self.services.clone(), target, self.partition, read).boxed());
        true
    }

    /// Whether one more batch may be under way. One that is larger than the window goes alone.
    fn has_room(&self) -> bool {
        let UnderWay { batches, bytes, refused } = self.under_way;
        batches < WINDOW_BATCHES && bytes < self.window_bytes && refused < REFUSED_MAX
    }

    /// Takes a batch into the group. Its bytes; or how the stream is to end.
    fn take(&mut self, request: Option<Result<ProduceStreamRequest, Status>>) -> Result<usize, Option<Status>> {
        let batch = match request {
            None => return Err(None),
            Some(Err(refused)) => return Err(Some(named(refused))),
            Some(Ok(ProduceStreamRequest { request: Some(StreamRequest::Batch(batch)) })) => batch,
            Some(Ok(ProduceStreamRequest { request: Some(StreamRequest::Init(_)) })) => {
                let what = "a ProduceStream has one init, its first message, and this is another";
                return Err(Some(invalid("init", what)));
            }
            Some(Ok(ProduceStreamRequest { request: None })) => {
                let what = "a message on a ProduceStream is an init or a batch, and this is neither";
                return Err(Some(invalid("batch", what)));
            }
        };
        let ProduceBatch { correlation_id, partition, payload, expected_next_offset } = batch;
        let payload_bytes = match &payload.last {
            Some(Content::Records(bytes) | Content::KafkaBatch(bytes)) => bytes.len(),
            None => 0,
        };
        let bytes = payload_bytes + BATCH_OVERHEAD_BYTES;
        self.under_way.batches += 1;
        self.under_way.bytes += bytes;
        let asked = Asked { partition, payload, expected_next_offset };
        self.read.push(Read { correlation_id, asked, bytes });
        Ok(bytes)
    }

    /// Ends the stream when the store takes nothing while the broker stops.
    fn give_up(&mut self) -> Status {
        self.reading = Reading::Told;
        (self.working, self.patience) = (None, None);
        self.owed.clear();
        let message = "what has no answer was not durable before the connection had to end: it may become so";
        status(Reason::OutcomeUnknown, message, [])
    }
}

impl Services {
    /// Counts a refusal.
    pub(super) fn refused(&self, status: &Status) {
        self.rooms.metrics.produce_refused(reason_name(status));
    }
}

fn ack(correlation_id: u64, produced: &Produced, partition: u32, records: u32) -> v1::ProduceAck {
    let base_offset = wire_offset(produced.base_offset);
    v1::ProduceAck {
        correlation_id,
        partition: wire_partition(partition),
        base_offset,
        last_offset: base_offset + i64::from(records) - 1,
        log_append_time: produced.log_append_time_ms,
        duplicate: produced.duplicate,
    }
}

fn response(response: v1::produce_stream_response::Response) -> v1::ProduceStreamResponse {
    v1::ProduceStreamResponse { response: Some(response) }
}
