//! The consumer: a stream of batches that grants credit as it is read, and goes on by itself where a lost connection left off.
//!
//! 1. Every record is handed out once, in order of its partition, however often the connection is lost: a new one goes on by the resume token
//!    of the last batch.
//! 2. What is read ahead is bounded by the window, in bytes; a batch may exceed it once.
//! 3. Trouble that may pass is retried for [`ConsumerBuilder::retry`]; what can't pass ends the stream with its error.

mod driver;
mod session;

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures::Stream;
use lakebed_wire::v1;
use tokio::sync::{Notify, mpsc};

use crate::backoff::Retry;
use crate::connection::Client;
use crate::error::ClientError;
use driver::{Driver, Item};

/// Batches that wait for the caller; their bytes are bounded by the window.
const ITEMS_MAX: usize = 64;
/// Seeks and pauses that wait to be sent.
const COMMANDS_MAX: usize = 16;

/// Where a partition begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// At the first record that is kept.
    Earliest,
    /// At what arrives from now on.
    Latest,
    /// At an offset.
    Offset(i64),
    /// At the first record of this time (milliseconds since 1970) or later.
    Timestamp(i64),
}

impl Start {
    fn position(self) -> v1::StartPosition {
        use v1::start_position::Position;
        let position = match self {
            Self::Earliest => Position::Earliest(v1::Earliest {}),
            Self::Latest => Position::Latest(v1::Latest {}),
            Self::Offset(offset) => Position::Offset(offset),
            Self::Timestamp(timestamp_ms) => Position::Timestamp(timestamp_ms),
        };
        v1::StartPosition { position: Some(position) }
    }
}

/// Where a consumer ends by itself. Each bound holds if it is present; the stream ends when the first of them is reached in all partitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stop {
    /// In each partition, before this offset.
    pub offset: Option<i64>,
    /// In each partition, before the first record of this time (milliseconds since 1970) or later.
    pub timestamp_ms: Option<i64>,
    /// After so many records of all partitions together.
    pub records: Option<u64>,
    /// After the record that reaches so many bytes of all partitions together; of Arrow batches, counted anew after the connection was lost.
    pub bytes: Option<u64>,
    /// In each partition, at the high watermark of the time when the stream began, or began again after the connection was lost.
    pub latest: bool,
}

/// What to read, and how. Made by [`Client::consumer`].
#[derive(Debug, Clone)]
pub struct ConsumerBuilder {
    client: Client,
    init: v1::ConsumeInit,
    window_bytes: u64,
    retry: Retry,
}

impl ConsumerBuilder {
    pub(crate) fn new(client: Client, topic: &str, start: Start) -> Self {
        let init = v1::ConsumeInit {
            topic: topic.to_owned(),
            start: Some(start.position()),
            format: v1::Format::Records as i32,
            ..v1::ConsumeInit::default()
        };
        Self { client, init, window_bytes: 4 << 20, retry: Retry::default() }
    }

    /// Reads this partition too, from where the consumer begins. Default: all partitions, also those that come later.
    #[must_use]
    pub fn partition(mut self, partition: i32) -> Self {
        self.init.partitions.push(v1::PartitionStart { partition, start: None });
        self
    }

    /// Reads this partition too, from a place of its own.
    #[must_use]
    pub fn partition_from(mut self, partition: i32, start: Start) -> Self {
        self.init.partitions.push(v1::PartitionStart { partition, start: Some(start.position()) });
        self
    }

    /// How records come. Default: as records.
    #[must_use]
    pub fn format(mut self, format: v1::Format) -> Self {
        self.init.format = format as i32;
        self
    }

    /// Which parts of the records come. Default: all. Not with Kafka batches.
    #[must_use]
    pub fn fields(mut self, fields: impl IntoIterator<Item = v1::RecordField>) -> Self {
        self.init.fields = fields.into_iter().map(|field| field as i32).collect();
        self
    }

    /// Goes on where a consumer was whose [`Batch::resume_token`] this is, with its partitions; where this one was to begin is forgotten.
    #[must_use]
    pub fn resume(mut self, token: impl Into<Bytes>) -> Self {
        self.init.resume_token = token.into();
        self.init.start = None;
        self.init.partitions.clear();
        self
    }

    /// Where to end. Default: never.
    #[must_use]
    pub fn stop(mut self, stop: Stop) -> Self {
        let Stop { offset, timestamp_ms, records, bytes, latest } = stop;
        let bounds = v1::StopBounds { offset, timestamp: timestamp_ms, records, bytes, latest };
        self.init.stop = (bounds != v1::StopBounds::default()).then_some(bounds);
        self
    }

    /// Bytes that may be on their way: more hides latency, and is held in memory. Default: 4 MiB.
    #[must_use]
    pub fn window_bytes(mut self, bytes: u64) -> Self {
        self.window_bytes = bytes.max(1);
        self
    }

    /// How, and for how long, a lost stream is opened again.
    #[must_use]
    pub fn retry(mut self, retry: Retry) -> Self {
        self.retry = retry;
        self
    }

    /// Opens the stream. Where it begins is settled when this returns.
    ///
    /// # Errors
    /// [`ClientError`]: the broker can't be reached, or refuses; nothing is tried twice.
    pub async fn open(self) -> Result<Consumer, ClientError> {
        let (items, receiver) = mpsc::channel(ITEMS_MAX);
        let (commands, requests) = mpsc::channel(COMMANDS_MAX);
        let owed = Arc::new(Owed::default());
        let (driver, first) = Driver::open(self, Arc::clone(&owed)).await?;
        let mut consumer = Consumer {
            items: receiver,
            commands,
            owed,
            seeks: BTreeMap::new(),
            next_seek: 1,
            tails: BTreeMap::new(),
            token: Bytes::new(),
        };
        consumer.heard(first);
        tokio::spawn(driver.run(items, requests));
        Ok(consumer)
    }
}

/// Records of one partition.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// The partition.
    pub partition: i32,
    /// In offset order.
    pub payload: Payload,
    /// Where to go on reading this partition.
    pub next_offset: i64,
    /// Offset after the last durable record.
    pub high_watermark: i64,
    /// Where all partitions go on after this batch; see [`ConsumerBuilder::resume`].
    pub resume_token: Bytes,
}

/// Records in the format that was asked for.
#[derive(Debug, Clone, PartialEq)]
pub enum Payload {
    /// Decoded.
    Records(Vec<v1::Record>),
    /// Kafka record batches of magic 2, one after the other. The first may begin below the offset that was asked for: skip those records.
    KafkaBatches(Bytes),
    /// An Arrow IPC stream with a schema and one record batch.
    ArrowIpc {
        /// The stream.
        data: Bytes,
        /// How many records there are.
        records: u64,
    },
}

/// How far a partition has been read, and how far it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tail {
    /// Where reading goes on.
    pub next_offset: i64,
    /// Offset after the last durable record, as far as has been heard.
    pub high_watermark: i64,
    /// Whether the partition has come to its bound: nothing more of it comes.
    pub ended: bool,
}

/// Credit that was used up and is to be granted again, in bytes.
#[derive(Debug, Default)]
struct Owed {
    bytes: AtomicU64,
    more: Notify,
}

/// A stream of batches. It ends at its bound, or with an error; dropping it ends it too.
///
/// ```no_run
/// use futures::StreamExt;
/// use lakebed_client::{Client, Payload, Start, Stop};
/// # async fn example() -> Result<(), lakebed_client::ClientError> {
/// # let client = Client::connect("127.0.0.1:7070").await?;
/// let mut consumer = client.consumer("orders", Start::Earliest).stop(Stop { latest: true, ..Stop::default() }).open().await?;
/// let mut token = consumer.resume_token();
/// while let Some(batch) = consumer.next().await {
///     let batch = batch?;
///     if let Payload::Records(records) = batch.payload {
///         println!("{} records of partition {}", records.len(), batch.partition);
///     }
///     // Kept with what was made of the records, it lets a later consumer go on behind them.
///     token = batch.resume_token;
/// }
/// let later = client.consumer("orders", Start::Latest).resume(token).open().await?;
/// # drop(later);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Consumer {
    items: mpsc::Receiver<Item>,
    commands: mpsc::Sender<Command>,
    owed: Arc<Owed>,
    /// The last seek of each partition that is not answered yet: batches from before it are not handed out.
    seeks: BTreeMap<i32, u64>,
    next_seek: u64,
    tails: BTreeMap<i32, Tail>,
    token: Bytes,
}

#[derive(Debug)]
enum Command {
    Seek(v1::ConsumeSeek),
    Pause(v1::ConsumePause),
}

impl Consumer {
    /// Goes on reading a partition elsewhere. Batches that were read ahead are dropped: the next one of it is from the new place. A place that
    /// is not there ends the stream with its error.
    ///
    /// # Errors
    /// [`ClientError::Closed`] if the stream has ended.
    pub async fn seek(&mut self, partition: i32, start: Start) -> Result<(), ClientError> {
        let seek_id = self.next_seek;
        self.next_seek += 1;
        let seek = v1::ConsumeSeek { seek_id, partition, start: Some(start.position()) };
        self.commands.send(Command::Seek(seek)).await.map_err(|_| ClientError::Closed)?;
        self.seeks.insert(partition, seek_id);
        Ok(())
    }

    /// Stops (or goes on) reading some partitions; none means all. Batches that were read ahead still come.
    ///
    /// # Errors
    /// [`ClientError::Closed`] if the stream has ended.
    pub async fn pause(&mut self, partitions: &[i32], paused: bool) -> Result<(), ClientError> {
        let pause = v1::ConsumePause { partitions: partitions.to_vec(), paused };
        self.commands.send(Command::Pause(pause)).await.map_err(|_| ClientError::Closed)
    }

    /// How far each partition has been read, and how far it goes, as far as has been heard.
    pub fn tails(&self) -> &BTreeMap<i32, Tail> {
        &self.tails
    }

    /// Where all partitions go on after the last batch that was handed out; see [`ConsumerBuilder::resume`].
    pub fn resume_token(&self) -> Bytes {
        self.token.clone()
    }

    /// The records one by one, each with its partition. Only for a consumer of records: batches in another format are an error.
    pub fn records(self) -> Records {
        Records { consumer: self, partition: 0, left: Vec::new().into_iter() }
    }

    fn heard(&mut self, heartbeat: v1::ConsumeHeartbeat) {
        for tail in heartbeat.tails {
            let v1::PartitionTail { partition, next_offset, high_watermark } = tail;
            let ended = self.tails.get(&partition).is_some_and(|tail| tail.ended);
            self.tails.insert(partition, Tail { next_offset, high_watermark, ended });
        }
        if !heartbeat.resume_token.is_empty() {
            self.token = heartbeat.resume_token;
        }
    }

    /// Takes note of an item; answers what of it the caller gets.
    fn take(&mut self, item: Item) -> Option<Result<Batch, ClientError>> {
        match item {
            Item::Batch(batch, bytes) => {
                self.owed.bytes.fetch_add(bytes, Ordering::AcqRel);
                self.owed.more.notify_one();
                if self.seeks.contains_key(&batch.partition) {
                    return None;
                }
                let tail = Tail { next_offset: batch.next_offset, high_watermark: batch.high_watermark, ended: false };
                self.tails.insert(batch.partition, tail);
                self.token = batch.resume_token.clone();
                Some(Ok(batch))
            }
            Item::Heartbeat(heartbeat) => {
                self.heard(heartbeat);
                None
            }
            Item::SeekAck(ack) => {
                if self.seeks.get(&ack.partition) == Some(&ack.seek_id) {
                    self.seeks.remove(&ack.partition);
                }
                None
            }
            Item::End(end) => {
                let tail = self.tails.get(&end.partition).map_or(end.next_offset, |tail| tail.high_watermark);
                let tail =
                    Tail { next_offset: end.next_offset, high_watermark: tail.max(end.next_offset), ended: true };
                self.tails.insert(end.partition, tail);
                None
            }
            Item::Failed(error) => Some(Err(error)),
        }
    }
}

impl Stream for Consumer {
    type Item = Result<Batch, ClientError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            match ready!(self.items.poll_recv(context)) {
                None => return Poll::Ready(None),
                Some(item) => {
                    if let Some(given) = self.take(item) {
                        return Poll::Ready(Some(given));
                    }
                }
            }
        }
    }
}

/// Records one by one, each with its partition. Made by [`Consumer::records`].
#[derive(Debug)]
pub struct Records {
    consumer: Consumer,
    partition: i32,
    left: std::vec::IntoIter<v1::Record>,
}

impl Records {
    /// The consumer, for seeking and pausing: records of the current batch still come.
    pub fn consumer(&mut self) -> &mut Consumer {
        &mut self.consumer
    }
}

impl Stream for Records {
    type Item = Result<(i32, v1::Record), ClientError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(record) = self.left.next() {
                return Poll::Ready(Some(Ok((self.partition, record))));
            }
            match ready!(Pin::new(&mut self.consumer).poll_next(context)) {
                None => return Poll::Ready(None),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                Some(Ok(Batch { partition, payload: Payload::Records(records), .. })) => {
                    self.partition = partition;
                    self.left = records.into_iter();
                }
                Some(Ok(_)) => {
                    let message = "a consumer of another format than records has no records to give one by one";
                    let error = ClientError::refused(tonic::Code::InvalidArgument, "INVALID_REQUEST", message);
                    return Poll::Ready(Some(Err(error)));
                }
            }
        }
    }
}
