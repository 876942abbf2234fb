//! The producer: records go into batches, batches go down a stream, acknowledgements come back.
//!
//! 1. Records of one partition are stored in the order in which they were sent, apart from those whose [`Ack`] is an error.
//! 2. What is not acknowledged is bounded in bytes; at the bound [`Producer::send`] waits.
//! 3. An [`Ack`] that is an error says whether the record may have been stored in spite of it. A batch that was certainly not stored is sent
//!    again until [`ProducerBuilder::delivery_timeout`]; one of unknown fate only by [`ProducerBuilder::retry_unknown`], or by
//!    [`ProducerBuilder::sole_writer`], which finds out what became of it.
//!
//! What it does not do: keep records over its own end. What has no [`Ack`] yet when the process ends may be stored or not.

mod batch;
mod driver;
mod session;

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use prost::Message as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use crate::backoff::Retry;
use crate::connection::Client;
use crate::error::ClientError;
use crate::message::Message;
use driver::Driver;

/// Records on their way from callers to the driver; their bytes are bounded by themselves.
const COMMANDS_MAX: usize = 1024;
/// What a record takes besides its content, in memory and on the wire.
const RECORD_OVERHEAD_BYTES: usize = 64;

/// How a [`Producer`] works. Made by [`Client::producer`].
#[derive(Debug, Clone)]
pub struct ProducerBuilder {
    client: Client,
    topic: String,
    settings: Settings,
}

#[derive(Debug, Clone, Copy)]
struct Settings {
    linger: Duration,
    batch_bytes: usize,
    batch_records: usize,
    buffer_bytes: usize,
    in_flight_bytes: usize,
    in_flight_batches: usize,
    delivery_max: Duration,
    retry: Retry,
    retry_unknown: bool,
    sole_writer: bool,
}

impl ProducerBuilder {
    pub(crate) fn new(client: Client, topic: &str) -> Self {
        let settings = Settings {
            linger: Duration::from_millis(2),
            batch_bytes: 256 << 10,
            batch_records: 10_000,
            buffer_bytes: 32 << 20,
            in_flight_bytes: 8 << 20,
            in_flight_batches: 64,
            delivery_max: Duration::from_secs(120),
            retry: Retry::default(),
            retry_unknown: false,
            sole_writer: false,
        };
        Self { client, topic: topic.to_owned(), settings }
    }

    /// How long a record may wait for others of its partition. More makes larger batches, less acknowledges sooner; zero waits only while
    /// what is in flight is at its bound. Default: 2 ms.
    #[must_use]
    pub fn linger(mut self, linger: Duration) -> Self {
        self.settings.linger = linger;
        self
    }

    /// Most bytes of a batch; a larger record has one of its own. Default: 256 KiB.
    #[must_use]
    pub fn batch_bytes(mut self, bytes: usize) -> Self {
        self.settings.batch_bytes = bytes.max(1);
        self
    }

    /// Most records of a batch. Default: 10,000.
    #[must_use]
    pub fn batch_records(mut self, records: usize) -> Self {
        self.settings.batch_records = records.max(1);
        self
    }

    /// Most bytes of records that are not acknowledged, in flight or not. More bridges longer interruptions, and is held in memory. Default: 32 MiB.
    #[must_use]
    pub fn buffer_bytes(mut self, bytes: usize) -> Self {
        self.settings.buffer_bytes = bytes.max(1);
        self
    }

    /// Most bytes that are sent and not answered; the broker's own window holds too. Default: 8 MiB.
    #[must_use]
    pub fn in_flight_bytes(mut self, bytes: usize) -> Self {
        self.settings.in_flight_bytes = bytes.max(1);
        self
    }

    /// Most batches that are sent and not answered; the broker's own window holds too. Default: 64.
    #[must_use]
    pub fn in_flight_batches(mut self, batches: usize) -> Self {
        self.settings.in_flight_batches = batches.max(1);
        self
    }

    /// How long a batch is tried again, from when it was first complete. Then its records fail with what failed last. Default: 2 min.
    #[must_use]
    pub fn delivery_timeout(mut self, delivery_max: Duration) -> Self {
        self.settings.delivery_max = delivery_max;
        self
    }

    /// How attempts follow one another. How long they go on is said by `delivery_timeout`.
    #[must_use]
    pub fn retry(mut self, retry: Retry) -> Self {
        self.settings.retry = retry;
        self
    }

    /// At least once: batches whose fate is unknown, because the connection was lost before their answer, are sent again, and may be stored
    /// twice. Default: no, their records fail with an error that says that they may have been stored.
    #[must_use]
    pub fn retry_unknown(mut self, again: bool) -> Self {
        self.settings.retry_unknown = again;
        self
    }

    /// Exactly once, for who writes alone: nobody else writes to these partitions while this producer lives. Each batch says which offset it
    /// must get, so a batch whose fate is unknown can be sent again: it is stored once. A partition that somebody else writes to is found out,
    /// and the batch fails with OFFSET_MISMATCH. Default: no.
    #[must_use]
    pub fn sole_writer(mut self, alone: bool) -> Self {
        self.settings.sole_writer = alone;
        self
    }

    /// Opens the stream.
    ///
    /// # Errors
    /// [`ClientError`]: the broker can't be reached, or refuses; nothing is tried twice.
    pub async fn open(self) -> Result<Producer, ClientError> {
        let Self { client, topic, settings } = self;
        let (commands, receiver) = mpsc::channel(COMMANDS_MAX);
        let acknowledged = Arc::new(AtomicU64::new(0));
        let driver = Driver::open(client, topic, settings, Arc::clone(&acknowledged)).await?;
        tokio::spawn(driver.run(receiver));
        let room_bytes = settings.buffer_bytes.min(Semaphore::MAX_PERMITS).min(u32::MAX as usize);
        Ok(Producer { commands, room: Arc::new(Semaphore::new(room_bytes)), room_bytes, acknowledged })
    }
}

/// Writes records to one topic. Clones share everything; dropping the last one lets what was sent be delivered in the background.
///
/// ```no_run
/// use lakebed_client::{Client, Message};
/// # async fn example() -> Result<(), lakebed_client::ClientError> {
/// # let client = Client::connect("127.0.0.1:7070").await?;
/// let producer = client.producer("orders").retry_unknown(true).open().await?;
/// for number in 0..1000 {
///     // Waits while too much is not acknowledged. The acknowledgement may be awaited, or left to `flush`.
///     drop(producer.send(Message::new(format!("order {number}"))).await?);
/// }
/// producer.flush().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Producer {
    commands: mpsc::Sender<Command>,
    room: Arc<Semaphore>,
    room_bytes: usize,
    acknowledged: Arc<AtomicU64>,
}

impl Producer {
    /// Hands a record over. Returns when there is room for it; what becomes of it is told by the [`Ack`].
    ///
    /// # Order  Records that one task sends to one partition are stored in that order.
    /// # Errors [`ClientError::Closed`] after `close`.
    /// # Cancel The record is sent or not, as a whole.
    pub async fn send(&self, message: Message) -> Result<Ack, ClientError> {
        let bytes = message.record.encoded_len() + RECORD_OVERHEAD_BYTES;
        // A record that is larger than all the room waits for all of it.
        let permits = u32::try_from(bytes.min(self.room_bytes)).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.room).acquire_many_owned(permits).await.map_err(|_| ClientError::Closed)?;
        let (answer, receiver) = oneshot::channel();
        let Message { record, partition } = message;
        let pending = Pending { record, partition, bytes, answer, _room: room };
        self.commands.send(Command::Send(Box::new(pending))).await.map_err(|_| ClientError::Closed)?;
        Ok(Ack(receiver))
    }

    /// Sends what waits for others, and returns when everything that was sent before has been answered.
    ///
    /// # Errors
    /// The first failure since the last flush. Its records, and maybe others, are not acknowledged.
    pub async fn flush(&self) -> Result<(), ClientError> {
        let (done, waiting) = oneshot::channel();
        self.commands.send(Command::Flush(done)).await.map_err(|_| ClientError::Closed)?;
        waiting.await.map_err(|_| ClientError::Closed)?
    }

    /// Flushes, and ends the stream. Clones are closed too.
    ///
    /// # Errors
    /// As for [`Producer::flush`].
    pub async fn close(self) -> Result<(), ClientError> {
        let flushed = self.flush().await;
        let (done, waiting) = oneshot::channel();
        self.room.close();
        if self.commands.send(Command::Close(done)).await.is_ok() {
            // An error means that the driver has ended, which is what is wanted.
            drop(waiting.await);
        }
        flushed
    }

    /// How many records have been acknowledged.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Acquire)
    }
}

/// What becomes of a record: a future. Dropping it changes nothing.
#[derive(Debug)]
pub struct Ack(oneshot::Receiver<Result<Stored, ClientError>>);

impl Future for Ack {
    type Output = Result<Stored, ClientError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let ended = || ClientError::Lost { cause: "the producer has ended".to_owned() };
        Pin::new(&mut self.0).poll(context).map(|answer| answer.unwrap_or_else(|_| Err(ended())))
    }
}

/// Where a record is. It is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    /// The partition that has it.
    pub partition: i32,
    /// Its offset there.
    pub offset: i64,
    /// Milliseconds since 1970-01-01T00:00:00Z, if the topic stamps records with the time of append and the answer told it.
    pub log_append_time: Option<i64>,
}

enum Command {
    Send(Box<Pending>),
    Flush(oneshot::Sender<Result<(), ClientError>>),
    Close(oneshot::Sender<()>),
}

/// A record that has no answer yet.
struct Pending {
    record: lakebed_wire::v1::Record,
    partition: Option<i32>,
    bytes: usize,
    answer: oneshot::Sender<Result<Stored, ClientError>>,
    /// Given back when the record is answered.
    _room: OwnedSemaphorePermit,
}
