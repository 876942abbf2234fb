//! The task that reads a consumer's stream, and opens it again where it was lost.
//!
//! What it has read waits for the caller in a queue that outlives the connection; a new stream goes on behind the last that was put there,
//! and gets as much less credit as waits in it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use lakebed_wire::v1;
use lakebed_wire::v1::consume_request::Request;
use lakebed_wire::v1::consume_response::Response;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::session::{Session, credit};
use super::{Batch, Command, ConsumerBuilder, Owed, Payload, Start};
use crate::backoff::Backoff;
use crate::connection::Client;
use crate::error::ClientError;

/// A stream that says nothing for so long is lost: three heartbeats are missing.
const SILENCE_MAX: Duration = Duration::from_secs(45);

/// The id of seeks that are done again; those of the caller begin at 1.
const AGAIN: u64 = 0;

/// What the caller's side is told.
#[derive(Debug)]
pub(super) enum Item {
    /// With the credit that it used up, in bytes.
    Batch(Batch, u64),
    Heartbeat(v1::ConsumeHeartbeat),
    SeekAck(v1::ConsumeSeekAck),
    End(v1::PartitionEnd),
    Failed(ClientError),
}

pub(super) struct Driver {
    client: Client,
    init: v1::ConsumeInit,
    window_bytes: u64,
    give_up_after: Duration,
    backoff: Backoff,
    owed: Arc<Owed>,
    session: Session,
    /// Bytes that were received and not taken by the caller yet.
    waiting_bytes: u64,
    /// Requests that wait to be sent.
    outgoing: VecDeque<v1::ConsumeRequest>,
    /// The last seek of each partition that is not answered.
    seeks: BTreeMap<i32, v1::ConsumeSeek>,
    /// Where answered seeks led that no token knows of yet.
    placed: BTreeMap<i32, Placed>,
    all_paused: bool,
    /// Paused, or not paused although all are.
    exceptions: BTreeSet<i32>,
}

/// A place that was reached by a seek.
///
/// SUBTLE: the answer of a seek brings no token. If the stream is lost before the next message with one, it is opened again at the place before
/// the seek; so the seek is done again, and what comes of the partition before its answer is dropped.
struct Placed {
    offset: i64,
    /// Whether this stream is there.
    is_reached: bool,
}

/// The caller has gone.
struct Gone;

impl Driver {
    pub(super) async fn open(
        builder: ConsumerBuilder,
        owed: Arc<Owed>,
    ) -> Result<(Self, v1::ConsumeHeartbeat), ClientError> {
        let ConsumerBuilder { client, init, window_bytes, retry } = builder;
        let (session, first) = Session::open(&client, init.clone(), Vec::new(), window_bytes).await?;
        let mut driver = Self {
            client,
            init,
            window_bytes,
            give_up_after: retry.give_up_after,
            backoff: Backoff::new(retry),
            owed,
            session,
            waiting_bytes: 0,
            outgoing: VecDeque::new(),
            seeks: BTreeMap::new(),
            placed: BTreeMap::new(),
            all_paused: false,
            exceptions: BTreeSet::new(),
        };
        driver.go_on_from(&first.resume_token);
        Ok((driver, first))
    }

    /// Reads until the stream ends, an error can't pass, or the caller has gone.
    pub(super) async fn run(mut self, items: mpsc::Sender<Item>, mut commands: mpsc::Receiver<Command>) {
        loop {
            let error = match self.read(&items, &mut commands).await {
                Ok(()) => return,
                Err(error) => error,
            };
            if let Err(error) = self.reopen(error, &items, &mut commands).await {
                drop(items.send(Item::Failed(error)).await);
                return;
            }
        }
    }

    /// Reads one stream to its end. `Ok` if nothing more is to come; the error with which the stream was lost else.
    async fn read(
        &mut self,
        items: &mpsc::Sender<Item>,
        commands: &mut mpsc::Receiver<Command>,
    ) -> Result<(), ClientError> {
        let mut pending: Option<Item> = None;
        let mut silent_until = Instant::now() + SILENCE_MAX;
        let (owed, requests) = (Arc::clone(&self.owed), self.session.requests.clone());
        loop {
            // Whatever the broker takes for credit, no more than the window waits for the caller.
            let reads = pending.is_none() && self.waiting_bytes < self.window_bytes;
            tokio::select! {
                biased;
                command = commands.recv() => match command {
                    None => return Ok(()),
                    Some(command) => self.on_command(command),
                },
                permit = items.reserve(), if pending.is_some() => match (permit, pending.take()) {
                    (Ok(permit), Some(item)) => {
                        permit.send(item);
                        // A slow caller is no silent broker.
                        silent_until = Instant::now() + SILENCE_MAX;
                    }
                    _ => return Ok(()),
                },
                permit = requests.reserve(), if !self.outgoing.is_empty() => {
                    // A stream that takes nothing any more says why with its next answer.
                    if let (Ok(permit), Some(request)) = (permit, self.outgoing.pop_front()) {
                        permit.send(request);
                    }
                }
                () = owed.more.notified() => {
                    self.repay();
                    silent_until = Instant::now() + SILENCE_MAX;
                }
                response = self.session.next(), if reads => match response? {
                    Some(response) => {
                        silent_until = Instant::now() + SILENCE_MAX;
                        pending = self.on_response(response);
                        if self.has_all() {
                            if let Some(item) = pending {
                                drop(items.send(item).await);
                            }
                            return Ok(());
                        }
                    }
                    None if self.init.stop.is_some() => return Ok(()),
                    None => return Err(ClientError::Lost { cause: "the broker ended the stream".to_owned() }),
                },
                () = sleep_until(silent_until), if reads => {
                    let cause = format!("the broker said nothing for {} s", SILENCE_MAX.as_secs());
                    return Err(ClientError::Lost { cause });
                }
            }
        }
    }

    /// Opens the stream again behind the last batch, however often it takes, within the time for it.
    async fn reopen(
        &mut self,
        mut error: ClientError,
        items: &mpsc::Sender<Item>,
        commands: &mut mpsc::Receiver<Command>,
    ) -> Result<(), ClientError> {
        let give_up_at = Instant::now() + self.give_up_after;
        loop {
            let wait_until = Instant::now() + self.backoff.next();
            // Without a token nobody knows where to go on.
            if !error.may_pass() || wait_until > give_up_at || self.init.resume_token.is_empty() {
                return Err(error);
            }
            self.client.dialer.turn();
            if self.wait(wait_until, commands).await.is_err() {
                return Ok(());
            }
            self.repay();
            // What was to be sent is said anew.
            self.outgoing.clear();
            let room = self.window_bytes.saturating_sub(self.waiting_bytes);
            let told = self.take_untold();
            match Session::open(&self.client, self.init.clone(), told, room).await {
                Ok((session, first)) => {
                    self.session = session;
                    self.backoff.reset();
                    self.go_on_from(&first.resume_token);
                    // The queue may be full; heartbeats come again.
                    drop(items.try_send(Item::Heartbeat(first)));
                    return Ok(());
                }
                Err(failed) => error = failed,
            }
        }
    }

    async fn wait(&mut self, until: Instant, commands: &mut mpsc::Receiver<Command>) -> Result<(), Gone> {
        loop {
            tokio::select! {
                biased;
                command = commands.recv() => match command {
                    None => return Err(Gone),
                    Some(command) => self.on_command(command),
                },
                () = sleep_until(until) => return Ok(()),
            }
        }
    }

    fn on_command(&mut self, command: Command) {
        match command {
            Command::Seek(seek) => {
                self.seeks.insert(seek.partition, seek);
                self.outgoing.push_back(request(Request::Seek(seek)));
            }
            Command::Pause(pause) => {
                if pause.partitions.is_empty() {
                    self.all_paused = pause.paused;
                    self.exceptions.clear();
                }
                for partition in &pause.partitions {
                    if pause.paused == self.all_paused {
                        self.exceptions.remove(partition);
                    } else {
                        self.exceptions.insert(*partition);
                    }
                }
                self.outgoing.push_back(request(Request::Pause(pause)));
            }
        }
    }

    /// What a new stream must know that the last one had been told and that does not stand in its token.
    fn take_untold(&mut self) -> Vec<v1::ConsumeRequest> {
        let mut told = Vec::new();
        if self.all_paused {
            told.push(Request::Pause(v1::ConsumePause { partitions: Vec::new(), paused: true }));
        }
        if !self.exceptions.is_empty() {
            let partitions = self.exceptions.iter().copied().collect();
            told.push(Request::Pause(v1::ConsumePause { partitions, paused: !self.all_paused }));
        }
        for (partition, placed) in &mut self.placed {
            placed.is_reached = false;
            let start = Some(Start::Offset(placed.offset).position());
            told.push(Request::Seek(v1::ConsumeSeek { seek_id: AGAIN, partition: *partition, start }));
        }
        // After those: they are newer.
        told.extend(self.seeks.values().map(|seek| Request::Seek(*seek)));
        told.into_iter().map(request).collect()
    }

    /// Grants what the caller has taken.
    fn repay(&mut self) {
        let bytes = self.owed.bytes.swap(0, Ordering::AcqRel);
        if bytes > 0 {
            self.waiting_bytes = self.waiting_bytes.saturating_sub(bytes);
            self.outgoing.push_back(credit(bytes, 0));
        }
    }

    fn on_response(&mut self, response: Response) -> Option<Item> {
        match response {
            Response::Batch(batch) => {
                let (payload, size) = payload(batch.payload)?;
                if self.placed.get(&batch.partition).is_some_and(|placed| !placed.is_reached) {
                    self.outgoing.push_back(credit(size.bytes, 0));
                    return None;
                }
                self.waiting_bytes += size.bytes;
                self.count(size, matches!(payload, Payload::ArrowIpc { .. }));
                self.go_on_from(&batch.resume_token);
                let v1::ConsumeBatch { partition, next_offset, high_watermark, resume_token, .. } = batch;
                Some(Item::Batch(Batch { partition, payload, next_offset, high_watermark, resume_token }, size.bytes))
            }
            Response::Heartbeat(heartbeat) => {
                self.go_on_from(&heartbeat.resume_token);
                Some(Item::Heartbeat(heartbeat))
            }
            Response::SeekAck(ack) if ack.seek_id == AGAIN => {
                if let Some(placed) = self.placed.get_mut(&ack.partition) {
                    placed.is_reached = true;
                }
                None
            }
            Response::SeekAck(ack) => {
                self.placed.insert(ack.partition, Placed { offset: ack.next_offset, is_reached: true });
                if self.seeks.get(&ack.partition).is_some_and(|seek| seek.seek_id == ack.seek_id) {
                    self.seeks.remove(&ack.partition);
                }
                Some(Item::SeekAck(ack))
            }
            Response::PartitionEnd(end) => Some(Item::End(end)),
        }
    }

    /// A stream that is opened again begins here.
    fn go_on_from(&mut self, token: &Bytes) {
        if !token.is_empty() {
            self.placed.retain(|_, placed| !placed.is_reached);
            self.init.resume_token = token.clone();
            self.init.start = None;
            self.init.partitions.clear();
        }
    }

    /// What was received is not received again: bounds in records and bytes shrink. How many bytes of records an Arrow batch has counted for
    /// can't be seen: its bound in bytes stays with the broker.
    fn count(&mut self, size: Size, is_arrow: bool) {
        if let Some(stop) = &mut self.init.stop {
            let bytes = if is_arrow { 0 } else { size.bytes };
            stop.records = stop.records.map(|records| records.saturating_sub(size.records));
            stop.bytes = stop.bytes.map(|left| left.saturating_sub(bytes));
        }
    }

    /// Whether a bound in records or bytes is reached.
    fn has_all(&self) -> bool {
        self.init.stop.is_some_and(|stop| stop.records == Some(0) || stop.bytes == Some(0))
    }
}

fn request(request: Request) -> v1::ConsumeRequest {
    v1::ConsumeRequest { request: Some(request) }
}

/// How much credit a batch uses up.
#[derive(Debug, Clone, Copy)]
struct Size {
    bytes: u64,
    records: u64,
}

fn payload(payload: Option<v1::consume_batch::Payload>) -> Option<(Payload, Size)> {
    use v1::consume_batch::Payload as Wire;
    let (payload, bytes, records) = match payload? {
        Wire::Records(records) => {
            let bytes = records.records.iter().map(record_bytes).sum();
            let count = records.records.len() as u64;
            (Payload::Records(records.records), bytes, count)
        }
        Wire::KafkaBatches(batches) => {
            let (bytes, records) = (batches.data.len() as u64, batch_records(&batches.data));
            (Payload::KafkaBatches(batches.data), bytes, records)
        }
        Wire::ArrowIpc(arrow) => {
            let (bytes, records) = (arrow.data.len() as u64, arrow.records);
            (Payload::ArrowIpc { data: arrow.data, records }, bytes, records)
        }
    };
    Some((payload, Size { bytes, records }))
}

/// The bytes of a record that count: key, value and headers.
fn record_bytes(record: &v1::Record) -> u64 {
    let length = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len);
    let headers: usize = record.headers.iter().map(|header| header.key.len() + length(&header.value)).sum();
    (length(&record.key) + length(&record.value) + headers) as u64
}

/// How many records Kafka record batches say that they have (KIP-98: the count stands at byte 57, the length at byte 8).
fn batch_records(mut batches: &[u8]) -> u64 {
    let mut records = 0;
    while batches.len() >= 61 {
        let field = |at: usize| i32::from_be_bytes([batches[at], batches[at + 1], batches[at + 2], batches[at + 3]]);
        records += u64::try_from(field(57)).unwrap_or(0);
        let length = 12 + usize::try_from(field(8)).unwrap_or(usize::MAX - 12);
        batches = batches.get(length..).unwrap_or_default();
    }
    records
}
