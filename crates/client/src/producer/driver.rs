//! The task that owns the order of a producer's batches.
//!
//! A batch is open (takes records), ready, in flight, or refused (to be sent again). Batches are numbered when they are complete; of each
//! partition they are stored in the order of their numbers.
//!
//! SUBTLE: when a batch is refused, others of its partition may be in flight behind it. Sent again at once, it would come after them. So
//! nothing is sent until all answers have come; then it is sent again, unless a later one of its partition was stored: then it fails.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use lakebed_wire::kafka::partition_for_key;
use lakebed_wire::v1;
use lakebed_wire::v1::produce_stream_response::Response;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};
use tonic::Code;

use super::batch::Batch;
use super::session::{Session, strange};
use super::{Command, Pending, Settings};
use crate::backoff::Backoff;
use crate::connection::Client;
use crate::error::ClientError;

/// Commands that are taken at once before answers are looked at.
const COMMANDS_AT_ONCE: usize = 256;
/// What a message takes besides its batch.
const MESSAGE_OVERHEAD_BYTES: usize = 1024;

pub(super) struct Driver {
    client: Client,
    topic: String,
    settings: Settings,
    acknowledged: Arc<AtomicU64>,
    session: Option<Session>,
    limits: v1::ProduceInitAck,
    open: BTreeMap<i32, Batch>,
    /// Partitions of open batches in the order in which they were begun. An entry whose batch is gone is passed over.
    begun: VecDeque<(Instant, i32)>,
    ready: VecDeque<Batch>,
    in_flight: VecDeque<Batch>,
    in_flight_bytes: usize,
    /// Answers on this session.
    answers: u64,
    refused: Vec<(Batch, ClientError)>,
    /// Nothing is sent before what is in flight is answered and the refused have been looked at.
    stalled: bool,
    resume_at: Option<Instant>,
    /// The highest number of a batch that was stored, by partition.
    stored: BTreeMap<i32, u64>,
    /// For a sole writer: the offset after all that is known to be stored, and the one that the next batch must get.
    ends: BTreeMap<i32, i64>,
    predicted: BTreeMap<i32, i64>,
    /// For a sole writer: partitions in which a batch of unknown fate was given up.
    abandoned: BTreeSet<i32>,
    next_number: u64,
    /// Whose turn it is to get records without a key.
    turn: u32,
    backoff: Backoff,
    flushes: Vec<(u64, oneshot::Sender<Result<(), ClientError>>)>,
    /// The first failure since the last flush.
    failure: Option<ClientError>,
}

impl Driver {
    pub(super) async fn open(
        client: Client,
        topic: String,
        settings: Settings,
        acknowledged: Arc<AtomicU64>,
    ) -> Result<Self, ClientError> {
        let session = Session::open(&client, &topic, settings.in_flight_batches).await?;
        let mut ends = BTreeMap::new();
        if settings.sole_writer {
            let described = client.describe_topic(&topic).await?;
            ends.extend(described.partitions.iter().map(|one| (one.partition, one.latest_offset)));
        }
        Ok(Self {
            limits: session.limits.clone(),
            session: Some(session),
            backoff: Backoff::new(settings.retry),
            // Producers that live for a few records begin at different partitions.
            turn: (RandomState::new().hash_one(0) >> 32) as u32,
            predicted: ends.clone(),
            ends,
            client,
            topic,
            settings,
            acknowledged,
            open: BTreeMap::new(),
            begun: VecDeque::new(),
            ready: VecDeque::new(),
            in_flight: VecDeque::new(),
            in_flight_bytes: 0,
            answers: 0,
            refused: Vec::new(),
            stalled: false,
            resume_at: None,
            stored: BTreeMap::new(),
            abandoned: BTreeSet::new(),
            next_number: 0,
            flushes: Vec::new(),
            failure: None,
        })
    }

    /// Works until the producer is closed or dropped, and everything is answered.
    pub(super) async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        let mut closing = Vec::new();
        let mut ended = false;
        loop {
            self.answer_flushes();
            if ended && self.is_idle() {
                break;
            }
            if self.session.is_none() && !self.is_idle() {
                self.reconnect().await;
                continue;
            }
            self.fill();
            let due = self.due();
            tokio::select! {
                biased;
                answer = next_answer(&mut self.session) => self.on_answer(answer),
                command = commands.recv(), if !ended => {
                    let mut next = command;
                    ended = next.is_none();
                    for _ in 0..COMMANDS_AT_ONCE {
                        let Some(command) = next else { break };
                        self.on_command(command, &mut closing);
                        next = commands.try_recv().ok();
                    }
                    if let Some(command) = next {
                        self.on_command(command, &mut closing);
                    }
                    if !closing.is_empty() {
                        commands.close();
                    }
                    if ended {
                        self.complete_all();
                    }
                }
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
            }
        }
        if let Some(session) = self.session.take() {
            session.finish().await;
        }
        for done in closing {
            // Who closed it may have gone.
            let _ = oneshot::Sender::<()>::send(done, ());
        }
    }

    fn is_idle(&self) -> bool {
        self.open.is_empty() && self.ready.is_empty() && self.in_flight.is_empty() && self.refused.is_empty()
    }

    fn on_command(&mut self, command: Command, closing: &mut Vec<oneshot::Sender<()>>) {
        match command {
            Command::Send(pending) => self.accept(*pending),
            Command::Flush(done) => {
                self.complete_all();
                self.flushes.push((self.next_number, done));
            }
            Command::Close(done) => closing.push(done),
        }
    }

    /// Puts a record into the open batch of its partition.
    fn accept(&mut self, pending: Pending) {
        let now = Instant::now();
        let message_max = usize::try_from(self.limits.message_bytes_max).unwrap_or(usize::MAX);
        let message_max = message_max.saturating_sub(MESSAGE_OVERHEAD_BYTES).max(1);
        let partitions = u32::try_from(self.limits.partition_count).unwrap_or(1).max(1);
        let partition = match (pending.partition, &pending.record.key) {
            (Some(partition), _) => partition,
            (None, Some(key)) => i32::try_from(partition_for_key(key, partitions)).unwrap_or_default(),
            (None, None) => i32::try_from(self.turn % partitions).unwrap_or_default(),
        };
        if pending.bytes > message_max {
            let message =
                format!("a record of {} bytes is larger than what the broker takes, {message_max}", pending.bytes);
            let mut batch = Batch::new(partition, now);
            batch.push(pending);
            return self.fail(batch, &ClientError::refused(Code::InvalidArgument, "MESSAGE_TOO_LARGE", message));
        }
        let bytes_max = self.settings.batch_bytes.min(message_max);
        if self.open.get(&partition).is_some_and(|batch| batch.bytes + pending.bytes > bytes_max) {
            self.complete(partition);
        }
        let batch = self.open.entry(partition).or_insert_with(|| {
            self.begun.push_back((now, partition));
            Batch::new(partition, now)
        });
        batch.push(pending);
        if batch.bytes >= bytes_max || batch.len() >= self.settings.batch_records {
            self.complete(partition);
        }
    }

    /// Makes the open batch of a partition ready.
    fn complete(&mut self, partition: i32) {
        let Some(mut batch) = self.open.remove(&partition) else { return };
        batch.number = self.next_number;
        batch.deadline = Instant::now() + self.settings.delivery_max;
        self.next_number += 1;
        let partitions = u32::try_from(self.limits.partition_count).unwrap_or(1).max(1);
        if u32::try_from(partition) == Ok(self.turn % partitions) {
            self.turn = self.turn % partitions + 1;
        }
        self.ready.push_back(batch);
    }

    fn complete_all(&mut self) {
        while let Some((partition, _)) = self.open.first_key_value() {
            self.complete(*partition);
        }
        self.begun.clear();
    }

    /// Sends what is ready or has waited long enough, as far as the window goes.
    fn fill(&mut self) {
        let now = Instant::now();
        if self.stalled || self.session.is_none() || self.resume_at.is_some_and(|at| now < at) {
            return;
        }
        self.resume_at = None;
        loop {
            if let Some(batch) = self.ready.front() {
                if !self.has_room(batch.bytes) {
                    return;
                }
                let batch = self.ready.pop_front().expect("there is a front");
                self.hand_over(batch);
            } else {
                let oldest = self.oldest().map(|batch| (batch.partition, batch.bytes, batch.begun));
                match oldest {
                    Some((partition, bytes, begun)) if begun + self.settings.linger <= now && self.has_room(bytes) => {
                        self.complete(partition);
                    }
                    _ => return,
                }
            }
        }
    }

    /// The open batch that was begun first.
    fn oldest(&mut self) -> Option<&Batch> {
        while let Some((begun, partition)) = self.begun.front() {
            if self.open.get(partition).is_some_and(|batch| batch.begun == *begun) {
                break;
            }
            self.begun.pop_front();
        }
        let (_, partition) = self.begun.front()?;
        self.open.get(partition)
    }

    /// When there is something to send, if no answer is needed for it first.
    fn due(&mut self) -> Option<Instant> {
        if self.stalled || self.session.is_none() {
            return None;
        }
        if self.resume_at.is_some() {
            return self.resume_at;
        }
        let linger = self.settings.linger;
        let (bytes, due) = self.oldest().map(|batch| (batch.bytes, batch.begun + linger))?;
        (self.ready.is_empty() && self.has_room(bytes)).then_some(due)
    }

    fn has_room(&self, bytes: usize) -> bool {
        let bytes_max =
            self.settings.in_flight_bytes.min(usize::try_from(self.limits.window_bytes).unwrap_or(usize::MAX));
        let batches_max =
            self.settings.in_flight_batches.min(usize::try_from(self.limits.window_batches).unwrap_or(usize::MAX));
        self.in_flight.is_empty() || (self.in_flight.len() < batches_max && self.in_flight_bytes + bytes <= bytes_max)
    }

    fn hand_over(&mut self, mut batch: Batch) {
        if self.settings.sole_writer {
            let predicted = self.predicted.entry(batch.partition).or_default();
            batch.expected.get_or_insert(*predicted);
            *predicted = batch.expected_end().unwrap_or(*predicted);
        }
        if let Some(session) = &self.session {
            session.send(batch.message());
        }
        self.in_flight_bytes += batch.bytes;
        self.in_flight.push_back(batch);
    }

    fn on_answer(&mut self, answer: Result<Response, ClientError>) {
        let (number, outcome) = match answer {
            Ok(Response::Ack(ack)) => (ack.correlation_id, Ok(ack)),
            Ok(Response::Error(error)) => {
                (error.correlation_id, Err(ClientError::from_message(&error.status.unwrap_or_default())))
            }
            Ok(Response::InitAck(_)) => return self.lost(&strange("a stream has one beginning")),
            Err(error) => return self.lost(&error),
        };
        match self.in_flight.pop_front() {
            Some(batch) if batch.number == number => {
                self.in_flight_bytes -= batch.bytes;
                self.answers += 1;
                match outcome {
                    Ok(ack) => self.store(batch, ack.base_offset, ack.log_append_time),
                    Err(error) => self.refuse(batch, error),
                }
            }
            other => {
                if let Some(batch) = other {
                    self.in_flight.push_front(batch);
                }
                return self.lost(&strange("an answer is not that of the batch whose turn it is"));
            }
        }
        if self.stalled && self.in_flight.is_empty() {
            self.settle();
        }
    }

    fn store(&mut self, batch: Batch, base_offset: i64, log_append_time: Option<i64>) {
        self.backoff.reset();
        self.stored.insert(batch.partition, batch.number);
        let end = self.ends.entry(batch.partition).or_default();
        *end = (*end).max(base_offset + batch.len() as i64);
        self.acknowledged.fetch_add(batch.len() as u64, Ordering::Release);
        batch.stored(base_offset, log_append_time);
    }

    /// Decides about a batch that got an error of its own.
    fn refuse(&mut self, mut batch: Batch, error: ClientError) {
        let actual = error.fact("next_offset").and_then(|next| next.parse::<i64>().ok());
        if let (Some(expected), Some(end), "OFFSET_MISMATCH", Some(actual)) =
            (batch.expected, batch.expected_end(), error.reason(), actual)
        {
            self.stalled = true;
            if batch.maybe_stored && actual >= end {
                return self.store(batch, expected, None);
            }
            // Behind one that failed, or that was given up and stored all the same: it gets another place.
            if actual < expected || (!batch.maybe_stored && self.abandoned.remove(&batch.partition)) {
                self.ends.insert(batch.partition, actual);
                batch.maybe_stored = false;
                return self.refused.push((batch, error));
            }
            return self.fail(batch, &error);
        }
        let again = self.settings.retry_unknown || self.settings.sole_writer;
        if error.is_retriable() || (error.may_have_happened() && again) {
            self.stalled = true;
            batch.maybe_stored |= error.may_have_happened();
            return self.refused.push((batch, error));
        }
        // What a sole writer has in flight behind it gets another place.
        self.stalled |= self.settings.sole_writer;
        self.fail(batch, &error);
    }

    /// The stream has ended with an error: decides about what has no answer.
    fn lost(&mut self, error: &ClientError) {
        let left = self.session.take().map_or(0, |session| session.shut());
        let taken = usize::try_from(left.saturating_sub(self.answers)).unwrap_or(usize::MAX);
        self.answers = 0;
        self.in_flight_bytes = 0;
        let again = self.settings.retry_unknown || self.settings.sole_writer;
        for (index, mut batch) in std::mem::take(&mut self.in_flight).into_iter().enumerate() {
            if index >= taken || error.is_retriable() {
                self.refused.push((batch, not_sent(error)));
            } else if !error.may_have_happened() {
                self.fail(batch, error);
            } else if again {
                batch.maybe_stored = true;
                self.refused.push((batch, error.clone()));
            } else {
                self.fail(batch, error);
            }
        }
        // It is there, but goes, or is of no use: another may be better.
        self.client.dialer.turn();
        self.settle();
    }

    /// Everything is answered: what was refused is sent again, in order, before all else.
    fn settle(&mut self) {
        let now = Instant::now();
        self.stalled = false;
        self.predicted = self.ends.clone();
        let mut again = Vec::new();
        for (mut batch, error) in std::mem::take(&mut self.refused) {
            let overtaken = self.stored.get(&batch.partition).is_some_and(|number| *number > batch.number);
            match (overtaken, batch.expected) {
                // A later one got its place, so this one has its own.
                (true, Some(expected)) if batch.maybe_stored => self.store_before(batch, expected),
                (true, _) => self.fail(batch, &error),
                (false, _) if now >= batch.deadline => self.fail(batch, &error),
                (false, _) => {
                    if !batch.maybe_stored {
                        batch.expected = None;
                    }
                    again.push(batch);
                }
            }
        }
        if !again.is_empty() {
            self.resume_at = Some(now + self.backoff.next());
        }
        for batch in again.into_iter().rev() {
            self.ready.push_front(batch);
        }
    }

    fn store_before(&mut self, batch: Batch, expected: i64) {
        self.acknowledged.fetch_add(batch.len() as u64, Ordering::Release);
        batch.stored(expected, None);
    }

    /// Tells the records of a batch that they failed.
    fn fail(&mut self, batch: Batch, error: &ClientError) {
        let mut error = error.clone();
        if batch.maybe_stored && !error.may_have_happened() {
            // The last attempt did nothing, but an earlier one may have.
            error = ClientError::Lost { cause: error.to_string() };
        }
        if error.may_have_happened() && self.settings.sole_writer {
            self.abandoned.insert(batch.partition);
        }
        self.failure.get_or_insert_with(|| error.clone());
        batch.failed(&error);
    }

    async fn reconnect(&mut self) {
        if let Some(at) = self.resume_at.take() {
            sleep_until(at).await;
        }
        match Session::open(&self.client, &self.topic, self.settings.in_flight_batches).await {
            Ok(session) => {
                self.limits = session.limits.clone();
                self.answers = 0;
                self.session = Some(session);
            }
            Err(error) => {
                self.complete_all();
                let now = Instant::now();
                let passes = error.may_pass();
                let error = if passes { not_sent(&error) } else { error };
                for batch in std::mem::take(&mut self.ready) {
                    if passes && now < batch.deadline {
                        self.ready.push_back(batch);
                    } else {
                        self.fail(batch, &error);
                    }
                }
                self.resume_at = (!self.ready.is_empty()).then(|| now + self.backoff.next());
                self.client.dialer.turn();
            }
        }
    }

    fn answer_flushes(&mut self) {
        if self.flushes.is_empty() {
            return;
        }
        let fronts = [
            self.refused.first().map(|(batch, _)| batch.number),
            self.in_flight.front().map(|batch| batch.number),
            self.ready.front().map(|batch| batch.number),
        ];
        let oldest = fronts.into_iter().flatten().min().unwrap_or(self.next_number);
        for (number, done) in std::mem::take(&mut self.flushes) {
            if number <= oldest {
                drop(done.send(self.failure.take().map_or(Ok(()), Err)));
            } else {
                self.flushes.push((number, done));
            }
        }
    }
}

/// The next answer of a session; never, if there is none.
async fn next_answer(session: &mut Option<Session>) -> Result<Response, ClientError> {
    match session {
        Some(session) => session.next().await,
        None => std::future::pending().await,
    }
}

/// The error of what was not sent, or certainly not stored: nothing happened, whatever became of others.
fn not_sent(error: &ClientError) -> ClientError {
    match error {
        ClientError::NotConnected { .. } => error.clone(),
        _ if error.is_retriable() => error.clone(),
        _ => ClientError::NotConnected { address: "the broker".to_owned(), cause: error.to_string() },
    }
}
