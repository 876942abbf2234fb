//! The task of one stream: paced by the client's credit, woken by commits.
//!
//! 1. Nothing with records is sent without credit. Records are sent up to it, one at least, so that it may go below zero by one record; whole
//!    batches may take it below zero by one batch.
//! 2. Nothing is read before there is room for it, see [`super::outbox`]; one read is under way at a time.
//! 3. Partitions take turns: the one that was served last is asked last.
//! 4. What comes after a seek's answer is from its place: what is being read of the partition is thrown away.
//! 5. A token names the place after its message for the whole stream, since messages are sent in the order in which places move.
//! 6. The task ends when either side ends the stream; when the broker goes, at once, whatever the client does.

use std::pin::Pin;
use std::time::Duration;

use futures::{Stream, StreamExt};
use lakebed_fetch::{DecodedBatch, Fetch, FetchError, FetchPartition, FetchRequest, Fetched, Watch};
use lakebed_model::{Offset, PartitionIndex, PartitionKey, State};
use lakebed_wire::outgoing::ConsumeAnswer;
use lakebed_wire::v1;
use lakebed_wire::v1::consume_response::Response;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, sleep_until};
use tonic::{Status, Streaming};
use uuid::Uuid;

use super::bounds::Bounds;
use super::outbox::{End, Outbox, Outgoing, Room};
use super::part::{Limits, Part, Shape, Source};
use super::start::{Started, check_count, check_position, resolve, start};
use super::{batch_bytes_max, gone, token};
use crate::grpc::Services;
use crate::grpc::produce::{wire_offset, wire_partition};
use crate::grpc::status::{invalid, named, status};
use crate::http::ending::Ending;
use crate::reason::Reason;
use crate::topics::FoundTopic;

/// A stream that has sent nothing for so long says that it lives, at the next look: before 15 seconds have passed.
const SILENCE: Duration = Duration::from_secs(14);
/// How often a stream looks whether its topic is still there and has the same partitions, and whether it was silent for long.
const LOOK: Duration = Duration::from_secs(1);

/// Opens the stream: the first message must say what to read.
pub(super) async fn open(
    services: Services,
    ending: Ending,
    mut requests: Streaming<v1::ConsumeRequest>,
) -> Result<Outgoing, Status> {
    let opened = async {
        let first = requests.next().await.transpose().map_err(named)?;
        let Some(v1::consume_request::Request::Init(init)) = first.and_then(|request| request.request) else {
            return Err(invalid("init", "the first message of a Consume stream is its init"));
        };
        Feed::open(&services, init).await
    };
    let (feed, outgoing) = tokio::select! {
        biased;
        status = services.told_to_go(&ending) => return Err(status),
        opened = opened => opened?,
    };
    tokio::spawn(feed.run(ending, requests));
    Ok(outgoing)
}

/// One partition of a stream.
pub(super) struct Reading {
    key: PartitionKey,
    next: Offset,
    high_watermark: Offset,
    /// It ends before this.
    end: Option<Offset>,
    /// It ends here: the record at `next` is of the time before which it ends.
    is_at_timestamp: bool,
    /// The client was told that it has ended.
    is_told: bool,
    is_paused: bool,
    /// The batch that holds `next`, if only a part of it was sent.
    rest: Option<Rest>,
}

/// A batch that is kept, so that it is not decoded for each of its parts again.
struct Rest {
    batch: DecodedBatch,
    _permit: OwnedSemaphorePermit,
}

impl Reading {
    /// A partition that begins at `next`.
    pub(super) fn new(key: PartitionKey, next: Offset, state: &State, bounds: &Bounds) -> Self {
        let high_watermark = state.partition(key).map_or(next, |partition| partition.high_watermark);
        let end = bounds.end(high_watermark);
        Self { key, next, high_watermark, end, is_at_timestamp: false, is_told: false, is_paused: false, rest: None }
    }

    fn partition(&self) -> i32 {
        wire_partition(self.key.partition.get())
    }

    fn has_ended(&self) -> bool {
        self.is_at_timestamp || self.end.is_some_and(|end| self.next >= end)
    }

    fn go_to(&mut self, offset: Offset) {
        self.next = offset;
        self.rest = None;
        self.is_at_timestamp = false;
        self.is_told = false;
    }
}

struct Credit {
    bytes: u64,
    records: u64,
}

impl Credit {
    fn is_positive(&self) -> bool {
        self.bytes > 0 && self.records > 0
    }
}

/// A read that is under way.
struct Read {
    index: usize,
    done: Pin<Box<dyn Future<Output = Done> + Send>>,
}

/// A read that is done.
struct Done {
    room: Room,
    /// With the high watermark.
    part: Result<(Part, Offset), FetchError>,
}

/// A seek that is under way.
struct Seek {
    seek_id: u64,
    index: usize,
    found: Pin<Box<dyn Future<Output = Result<Offset, Status>> + Send>>,
}

pub(super) struct Feed {
    services: Services,
    cluster: Uuid,
    topic: FoundTopic,
    /// Whether partitions that are added to the topic belong to the stream.
    all_partitions: bool,
    shape: Shape,
    bounds: Bounds,
    /// Ascending.
    readings: Vec<Reading>,
    watch: Watch,
    /// The partition whose turn it is.
    turn: usize,
    credit: Credit,
    /// How far below zero the credit is.
    owed: Credit,
    /// Whether the client may still say something.
    is_listening: bool,
    last_sent: Instant,
    reading: Option<Read>,
    seeking: Option<Seek>,
    outbox: Outbox,
}

impl Feed {
    /// The task for a request, with what its client reads.
    ///
    /// # Errors
    /// Why the request is refused.
    pub(super) async fn open(services: &Services, init: v1::ConsumeInit) -> Result<(Self, Outgoing), Status> {
        let shape = Shape::check(init.format, &init.fields, "init.")?;
        let bounds = Bounds::check(init.stop)?;
        let (outbox, outgoing) = services.consume_budget.open()?;
        let Started { topic, readings, all_partitions } = start(services, &init, &bounds).await?;
        let feed = Self {
            cluster: services.rooms.log.identity().cluster_id,
            topic,
            all_partitions,
            shape,
            bounds,
            watch: services.rooms.fetch.watch(readings.iter().map(|reading| reading.key)),
            services: services.clone(),
            readings,
            turn: 0,
            credit: Credit { bytes: 0, records: 0 },
            owed: Credit { bytes: 0, records: 0 },
            is_listening: true,
            last_sent: Instant::now(),
            reading: None,
            seeking: None,
            outbox,
        };
        Ok((feed, outgoing))
    }

    /// Serves until the stream has ended.
    pub(super) async fn run(
        mut self,
        ending: Ending,
        requests: impl Stream<Item = Result<v1::ConsumeRequest, Status>> + Unpin,
    ) {
        let end = self.serve(&ending, requests).await.unwrap_or_else(End::Failed);
        self.outbox.end(end);
    }

    /// Serves until the stream has ended; says how.
    async fn serve(
        &mut self,
        ending: &Ending,
        mut requests: impl Stream<Item = Result<v1::ConsumeRequest, Status>> + Unpin,
    ) -> Result<End, Status> {
        let services = self.services.clone();
        let mut told_to_go = std::pin::pin!(services.told_to_go(ending));
        let mut look = std::pin::pin!(sleep_until(Instant::now() + LOOK));
        self.heartbeat();
        loop {
            self.tell_ends();
            if self.is_over() {
                return Ok(End::Done);
            }
            self.begin_read();
            let hears = self.is_listening && self.seeking.is_none() && !self.outbox.is_crowded();
            tokio::select! {
                biased;
                status = &mut told_to_go => return Ok(End::AtOnce(status)),
                request = requests.next(), if hears => match request {
                    Some(request) => self.hear(request.map_err(named)?)?,
                    None => self.is_listening = false,
                },
                found = until(self.seeking.as_mut().map(|seek| &mut seek.found)) => self.sought(found?),
                done = until(self.reading.as_mut().map(|read| &mut read.done)) => self.send(done)?,
                () = self.outbox.changed() => {}
                () = self.watch.woken() => {}
                () = &mut look => {
                    self.look()?;
                    look.as_mut().reset(Instant::now() + LOOK);
                }
            }
        }
    }

    /// Tells the client which partitions have come to their end.
    fn tell_ends(&mut self) {
        for reading in self.readings.iter_mut().filter(|reading| !reading.is_told && reading.has_ended()) {
            reading.is_told = true;
            let end = v1::PartitionEnd { partition: reading.partition(), next_offset: wire_offset(reading.next) };
            self.outbox.send(Response::PartitionEnd(end).into());
            self.last_sent = Instant::now();
        }
    }

    /// Whether the stream has come to its end, or nobody is there any more.
    fn is_over(&self) -> bool {
        if self.outbox.is_gone() {
            return true;
        }
        if self.seeking.is_some() {
            return false;
        }
        let is_done = self.bounds.are_reached() || self.readings.iter().all(Reading::has_ended);
        // A client that says nothing more grants nothing more.
        let is_fed = self.is_listening || (self.bounds.are_any() && self.credit.is_positive());
        is_done || !is_fed
    }

    /// Begins to read the next partition that has something, if it may be sent.
    fn begin_read(&mut self) {
        if self.reading.is_some() || !self.credit.is_positive() {
            return;
        }
        let Some(room) = self.outbox.room() else { return };
        let sought = self.seeking.as_ref().map(|seek| seek.index);
        let count = self.readings.len();
        let places = (0..count).map(|ahead| {
            let index = (self.turn + ahead) % count;
            let reading = &self.readings[index];
            let is_silent = reading.is_paused || reading.has_ended() || sought == Some(index);
            (reading.key, if is_silent { Offset::new(u64::MAX) } else { reading.next })
        });
        let fetch = self.services.rooms.fetch.clone();
        let Some(ahead) = fetch.first_readable(places) else { return };
        let index = (self.turn + ahead) % count;
        let Reading { key, next: offset, end, .. } = self.readings[index];
        let limits = Limits {
            end,
            end_timestamp_ms: self.bounds.timestamp_ms,
            records_max: self.credit.records.min(self.bounds.records_left.unwrap_or(u64::MAX)),
            bytes_max: self.credit.bytes,
            bytes_enough: self.bounds.bytes_left.unwrap_or(u64::MAX),
            message_bytes_max: room.bytes,
            batch_bytes_max: batch_bytes_max(room.bytes),
        };
        let shape = self.shape;
        let rest = self.readings[index].rest.take().filter(|rest| rest.batch.next_offset() > offset);
        let services = self.services.clone();
        let done = async move {
            let (source, high_watermark) = match rest {
                Some(rest) => (Source::Rest(rest.batch), fetch.visible(key)),
                None => match fetch_one(&fetch, key, offset, room.bytes).await {
                    Ok(fetched) => {
                        let high_watermark = fetched.high_watermark;
                        (Source::Fetched(fetched), high_watermark)
                    }
                    Err(error) => return Done { room, part: Err(error) },
                },
            };
            let part = services.take(key.partition, source, offset, shape, limits).await;
            Done { room, part: part.map(|part| (part, high_watermark)) }
        };
        self.reading = Some(Read { index, done: Box::pin(done) });
    }

    /// Sends what was read.
    fn send(&mut self, done: Done) -> Result<(), Status> {
        let index = self.reading.take().expect("what is done was under way").index;
        let reading = &mut self.readings[index];
        let (mut part, high_watermark) = match done.part {
            Ok(part) => part,
            Err(error) => return Err(self.services.fetch_status(&error, self.topic.name.as_str(), reading.key)),
        };
        self.turn = (index + 1) % self.readings.len();
        let reading = &mut self.readings[index];
        reading.high_watermark = high_watermark;
        reading.is_at_timestamp = part.is_at_timestamp;
        reading.next = part.next;
        reading.rest = part.rest.take().and_then(|batch| {
            let permit = self.services.consume_budget.keep(batch.rows.size_bytes())?;
            Some(Rest { batch, _permit: permit })
        });
        if part.records == 0 {
            return Ok(());
        }
        let partition = reading.partition();
        self.spend(&part);
        self.services.rooms.metrics.grpc_fetched(part.records, part.bytes);
        let batch = v1::ConsumeBatch {
            partition,
            payload: None,
            next_offset: wire_offset(part.next),
            high_watermark: wire_offset(high_watermark),
            resume_token: self.token(),
        };
        let bytes = part.payload.size_bytes() + batch.resume_token.len();
        self.outbox.send_batch(ConsumeAnswer::batch(batch, part.payload), done.room, bytes);
        self.last_sent = Instant::now();
        Ok(())
    }

    fn spend(&mut self, part: &Part) {
        self.bounds.sent(part.records, part.bytes);
        self.owed.bytes += part.bytes.saturating_sub(self.credit.bytes);
        self.owed.records += part.records.saturating_sub(self.credit.records);
        self.credit.bytes = self.credit.bytes.saturating_sub(part.bytes);
        self.credit.records = self.credit.records.saturating_sub(part.records);
    }

    /// Where the whole stream goes on.
    fn token(&self) -> bytes::Bytes {
        let places = self.readings.iter().map(|reading| (reading.key.partition.get(), reading.next));
        token::encode(self.cluster, self.topic.id, self.all_partitions, places)
    }

    /// Does what the client says.
    fn hear(&mut self, request: v1::ConsumeRequest) -> Result<(), Status> {
        match request.request {
            Some(v1::consume_request::Request::Credit(credit)) => {
                self.credit.bytes = grant(self.credit.bytes, &mut self.owed.bytes, credit.bytes);
                self.credit.records = grant(self.credit.records, &mut self.owed.records, credit.records);
                Ok(())
            }
            Some(v1::consume_request::Request::Seek(seek)) => self.seek(seek),
            Some(v1::consume_request::Request::Pause(pause)) => self.pause(&pause),
            Some(v1::consume_request::Request::Init(_)) => Err(invalid("init", "a Consume stream has one init")),
            None => Err(invalid("", "a message of a Consume stream says nothing that this broker knows")),
        }
    }

    /// The place of a partition that `field` of a request names.
    fn index_of(&self, partition: i32, field: &str) -> Result<usize, Status> {
        let found = self.readings.binary_search_by_key(&partition, Reading::partition);
        found.map_err(|_| invalid(field, format_args!("partition {partition} is not one of this stream")))
    }

    /// Stops reading a partition, if it is what is being read.
    fn stop_reading(&mut self, index: usize) {
        if self.reading.as_ref().is_some_and(|read| read.index == index) {
            self.reading = None;
        }
    }

    fn seek(&mut self, seek: v1::ConsumeSeek) -> Result<(), Status> {
        let index = self.index_of(seek.partition, "seek.partition")?;
        let position = seek.start.and_then(|start| start.position);
        let position = position.ok_or_else(|| invalid("seek.start", "a seek has a start"))?;
        check_position(&position, "seek.start")?;
        self.stop_reading(index);
        let (services, topic, key) = (self.services.clone(), self.topic.name.clone(), self.readings[index].key);
        let found = async move {
            let state = services.rooms.log.barrier().await.map_err(|error| status(Reason::from(&error), &error, []))?;
            resolve(&services, &state, topic.as_str(), key, Some(&position)).await
        };
        self.seeking = Some(Seek { seek_id: seek.seek_id, index, found: Box::pin(found) });
        Ok(())
    }

    fn sought(&mut self, offset: Offset) {
        let seek = self.seeking.take().expect("what was found was sought");
        let reading = &mut self.readings[seek.index];
        reading.go_to(offset);
        let (partition, next_offset) = (reading.partition(), wire_offset(offset));
        let ack = v1::ConsumeSeekAck { seek_id: seek.seek_id, partition, next_offset };
        self.outbox.send(Response::SeekAck(ack).into());
        self.last_sent = Instant::now();
    }

    fn pause(&mut self, pause: &v1::ConsumePause) -> Result<(), Status> {
        let named = pause.partitions.iter().enumerate();
        let named = named.map(|(at, one)| self.index_of(*one, &format!("pause.partitions[{at}]")));
        let named: Vec<usize> = named.collect::<Result<_, Status>>()?;
        let indexes = if named.is_empty() { (0..self.readings.len()).collect() } else { named };
        for index in indexes {
            self.readings[index].is_paused = pause.paused;
            if pause.paused {
                self.stop_reading(index);
            }
        }
        Ok(())
    }

    /// Looks whether the topic is still there, whether it has more partitions, and whether the stream was silent for long.
    fn look(&mut self) -> Result<(), Status> {
        let state = self.services.rooms.log.state();
        let Some(topic) = state.topic(self.topic.id) else { return Err(gone(self.topic.name.as_str())) };
        if self.all_partitions && topic.partitions > self.topic.partitions {
            check_count(&self.topic, topic.partitions as usize)?;
            for added in self.topic.partitions..topic.partitions {
                let key = PartitionKey::new(self.topic.id, PartitionIndex::new(added));
                let next = state.partition(key).unwrap_or_default().log_start;
                let reading = Reading::new(key, next, &state, &self.bounds);
                // Its end was 0 when the stream began.
                let end = self.bounds.end(Offset::ZERO);
                self.readings.push(Reading { end, ..reading });
            }
            self.topic.partitions = topic.partitions;
            self.watch = self.services.rooms.fetch.watch(self.readings.iter().map(|reading| reading.key));
            self.heartbeat();
        }
        if self.last_sent.elapsed() >= SILENCE && self.outbox.is_empty() {
            self.heartbeat();
        }
        Ok(())
    }

    fn heartbeat(&mut self) {
        let fetch = &self.services.rooms.fetch;
        let tails = self.readings.iter().map(|one| v1::PartitionTail {
            partition: one.partition(),
            next_offset: wire_offset(one.next),
            high_watermark: wire_offset(one.high_watermark.max(fetch.visible(one.key))),
        });
        let heartbeat = v1::ConsumeHeartbeat { tails: tails.collect(), resume_token: self.token() };
        self.outbox.send(Response::Heartbeat(heartbeat).into());
        self.last_sent = Instant::now();
    }
}

async fn fetch_one(fetch: &Fetch, key: PartitionKey, offset: Offset, bytes_max: usize) -> Result<Fetched, FetchError> {
    let request = FetchRequest {
        partitions: vec![FetchPartition { key, offset, bytes_max }],
        bytes_max,
        bytes_min: 0,
        wait_max: Duration::ZERO,
    };
    fetch.fetch(request).await.pop().expect("there is an answer for each partition")
}

/// What there is with so much more; what is owed is taken off first.
fn grant(have: u64, owed: &mut u64, more: u64) -> u64 {
    let paid = more.min(*owed);
    *owed -= paid;
    have.saturating_add(more - paid)
}

/// What a future gives, if there is one; else never.
async fn until<F: Future + Unpin>(future: Option<&mut F>) -> F::Output {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}
