//! A member of a consumer group as a stream of batches: partitions come and go, and what the caller is done with is committed.
//!
//! 1. A batch counts as used when the caller comes for the next one. What is committed is used: a member that is lost has its
//!    records since its last commit read again, by whoever has the partitions then.
//! 2. A partition that is given up is handed over only when the caller has come back from the last batch that it was given, and, with a
//!    commit interval, when what was used is committed.
//! 3. A connection that is lost is made anew, and the member goes on in its place. A member that was put out joins as a new one: it goes on
//!    at what is committed. What was read ahead of it is dropped.

mod driver;
mod progress;
mod reading;
mod session;

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::Stream;
use lakebed_wire::v1;
use tokio::sync::{mpsc, oneshot};

use crate::backoff::Retry;
use crate::connection::Client;
use crate::consumer::{Batch, Payload, Start};
use crate::error::ClientError;
use driver::{Command, Driver, Item};
use progress::{Key, Progress};

/// Topic, turn in which it was read, batch.
type Read = (Arc<str>, u64, Batch);

/// Batches that wait for the caller.
const ITEMS_MAX: usize = 2;
/// Commits that wait to be sent.
const COMMANDS_MAX: usize = 16;

/// Who joins which group, and what it reads. Made by [`Client::group`].
#[derive(Debug, Clone)]
pub struct GroupBuilder {
    client: Client,
    init: v1::JoinInit,
    start: Start,
    commit_interval: Option<Duration>,
    window_bytes: u64,
    retry: Retry,
}

impl GroupBuilder {
    pub(crate) fn new(client: Client, group: &str) -> Self {
        let init = v1::JoinInit { group: group.to_owned(), ..v1::JoinInit::default() };
        let commit_interval = Some(Duration::from_secs(5));
        Self { client, init, start: Start::Earliest, commit_interval, window_bytes: 4 << 20, retry: Retry::default() }
    }

    /// Reads this topic too.
    #[must_use]
    pub fn topic(mut self, topic: &str) -> Self {
        self.init.topics.push(topic.to_owned());
        self
    }

    /// Reads all topics whose whole name matches, also those that come later.
    #[must_use]
    pub fn topic_regex(mut self, pattern: &str) -> Self {
        pattern.clone_into(&mut self.init.topic_regex);
        self
    }

    /// How partitions are shared: `uniform` or `range`. Default: what most members ask for.
    #[must_use]
    pub fn assignor(mut self, assignor: &str) -> Self {
        assignor.clone_into(&mut self.init.assignor);
        self
    }

    /// A static member of this name: who comes back under it gets its partitions back.
    #[must_use]
    pub fn instance_id(mut self, instance_id: &str) -> Self {
        instance_id.clone_into(&mut self.init.instance_id);
        self
    }

    /// What `DescribeGroup` shows of this client.
    #[must_use]
    pub fn client_id(mut self, client_id: &str) -> Self {
        client_id.clone_into(&mut self.init.client_id);
        self
    }

    /// How long the group waits for a member that is not heard of. Default: the broker's.
    #[must_use]
    pub fn session_timeout(mut self, span: Duration) -> Self {
        self.init.session_timeout = prost_types::Duration::try_from(span).ok();
        self
    }

    /// How long this member may take to come back from its last batch when it gives partitions up. Default: the broker's.
    #[must_use]
    pub fn rebalance_timeout(mut self, span: Duration) -> Self {
        self.init.rebalance_timeout = prost_types::Duration::try_from(span).ok();
        self
    }

    /// Where partitions begin in which nothing is committed, or whose committed offset is no longer kept. Default: at the earliest.
    #[must_use]
    pub fn start(mut self, start: Start) -> Self {
        self.start = start;
        self
    }

    /// How often what was used is committed; `None`: by [`GroupConsumer::commit`] alone. Default: 5 s.
    #[must_use]
    pub fn commit_interval(mut self, interval: Option<Duration>) -> Self {
        self.commit_interval = interval;
        self
    }

    /// Bytes of each topic that may be on their way. Default: 4 MiB.
    #[must_use]
    pub fn window_bytes(mut self, bytes: u64) -> Self {
        self.window_bytes = bytes;
        self
    }

    /// How, and for how long, a lost connection is made anew.
    #[must_use]
    pub fn retry(mut self, retry: Retry) -> Self {
        self.retry = retry;
        self
    }

    /// Joins. Which partitions the member has is settled a little later.
    ///
    /// # Errors
    /// [`ClientError`]: the broker can't be reached, or refuses; nothing is tried twice.
    pub async fn open(self) -> Result<GroupConsumer, ClientError> {
        let (items, receiver) = mpsc::channel(ITEMS_MAX);
        let (commands, requests) = mpsc::channel(COMMANDS_MAX);
        let progress = Arc::new(Progress::default());
        let driver = Driver::open(self, Arc::clone(&progress)).await?;
        tokio::spawn(driver.run(items, requests));
        Ok(GroupConsumer { items: receiver, commands, progress })
    }
}

/// Records of one partition of a topic.
#[derive(Debug, Clone, PartialEq)]
pub struct GroupBatch {
    /// The topic.
    pub topic: Arc<str>,
    /// The partition.
    pub partition: i32,
    /// In offset order.
    pub records: Vec<v1::Record>,
    /// Where the partition goes on.
    pub next_offset: i64,
}

/// A member of a group: a stream of batches. It ends with an error that can't pass; dropping it leaves the group.
///
/// ```no_run
/// use futures::StreamExt;
/// # async fn example() -> Result<(), lakebed_client::ClientError> {
/// # let client = lakebed_client::Client::connect("127.0.0.1:7070").await?;
/// let mut member = client.group("billing").topic("orders").open().await?.records();
/// while let Some(record) = member.next().await {
///     let (topic, partition, record) = record?;
///     // Committed when the next one is asked for, at the latest 5 s later.
///     println!("{topic} {partition} {:?} {:?}", record.offset, record.value);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct GroupConsumer {
    items: mpsc::Receiver<Item>,
    commands: mpsc::Sender<Command>,
    progress: Arc<Progress>,
}

impl GroupConsumer {
    /// Commits all that was handed out, the last batch as well; returns when it is durable.
    ///
    /// # Errors
    /// [`ClientError`]; with [`ClientError::may_have_happened`] it may be committed, and may be tried again. PARTITION_NOT_ASSIGNED, once:
    /// partitions went to other members before what was handed out of them was committed; the rest is committed.
    /// # Cancel It may be committed.
    pub async fn commit(&mut self) -> Result<(), ClientError> {
        self.command(Command::Commit).await
    }

    /// Of the last batch only what stands before `offset` was used: the rest is not committed.
    pub fn unread(&mut self, offset: i64) {
        self.progress.lock().unread(offset);
    }

    /// The partitions that the member has now.
    pub fn assignment(&self) -> Vec<(Arc<str>, i32)> {
        let inner = self.progress.lock();
        inner.places.iter().filter(|(_, place)| !place.is_closing).map(|(key, _)| key.clone()).collect()
    }

    /// The member's id.
    pub fn member_id(&self) -> String {
        self.progress.lock().member_id.clone()
    }

    /// Leaves the group; with a commit interval, what was handed out is committed before.
    ///
    /// # Errors
    /// [`ClientError`]: it could not be committed, or the connection was lost meanwhile.
    pub async fn close(self) -> Result<(), ClientError> {
        match self.command(Command::Close).await {
            // It had ended before.
            Err(ClientError::Closed) => Ok(()),
            other => other,
        }
    }

    /// The records one by one, each with its topic and partition. A record counts as used when the next one is asked for.
    pub fn records(self) -> GroupRecords {
        GroupRecords { consumer: self, current: None }
    }

    async fn command(
        &self,
        command: impl FnOnce(oneshot::Sender<Result<(), ClientError>>) -> Command,
    ) -> Result<(), ClientError> {
        let (answer, receiver) = oneshot::channel();
        self.commands.send(command(answer)).await.map_err(|_| ClientError::Closed)?;
        receiver.await.unwrap_or(Err(ClientError::Closed))
    }

    /// The next batch with the turn in which it was read; it is not yet noted as given to the caller.
    fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Read, ClientError>>> {
        loop {
            self.progress.lock().came_back();
            match ready!(self.items.poll_recv(context)) {
                None => return Poll::Ready(None),
                Some(Item::Batch(topic, turn, batch)) => return Poll::Ready(Some(Ok((topic, turn, batch)))),
                Some(Item::Look) => {}
                Some(Item::Failed(error)) => return Poll::Ready(Some(Err(error))),
            }
        }
    }
}

impl Stream for GroupConsumer {
    type Item = Result<GroupBatch, ClientError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            let (topic, turn, batch) = match ready!(self.poll_read(context)) {
                None => return Poll::Ready(None),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                Some(Ok(read)) => read,
            };
            let Batch { partition, payload: Payload::Records(records), next_offset, .. } = batch else { continue };
            let key: Key = (Arc::clone(&topic), partition);
            if self.progress.lock().hand(&key, turn, next_offset) {
                return Poll::Ready(Some(Ok(GroupBatch { topic, partition, records, next_offset })));
            }
        }
    }
}

/// Records one by one. Made by [`GroupConsumer::records`].
#[derive(Debug)]
pub struct GroupRecords {
    consumer: GroupConsumer,
    current: Option<Current>,
}

/// A batch whose records are given one by one.
#[derive(Debug)]
struct Current {
    key: Key,
    turn: u64,
    next_offset: i64,
    left: std::vec::IntoIter<v1::Record>,
}

impl GroupRecords {
    /// The consumer, for committing; what counts as handed out is what was given one by one.
    pub fn consumer(&mut self) -> &mut GroupConsumer {
        &mut self.consumer
    }

    /// As [`GroupConsumer::close`].
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn close(self) -> Result<(), ClientError> {
        self.consumer.close().await
    }
}

impl Stream for GroupRecords {
    type Item = Result<(Arc<str>, i32, v1::Record), ClientError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(mut current) = self.current.take() {
                let mut inner = self.consumer.progress.lock();
                inner.came_back();
                if let Some(record) = current.left.next() {
                    // Behind the last one of a batch stand also the offsets that hold no records.
                    let is_last = current.left.len() == 0;
                    let next = record.offset.filter(|_| !is_last).map_or(current.next_offset, |offset| offset + 1);
                    if inner.hand(&current.key, current.turn, next) {
                        drop(inner);
                        let (topic, partition) = current.key.clone();
                        self.current = Some(current);
                        return Poll::Ready(Some(Ok((topic, partition, record))));
                    }
                }
            }
            match ready!(self.consumer.poll_read(context)) {
                None => return Poll::Ready(None),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                Some(Ok((topic, turn, Batch { partition, payload: Payload::Records(records), next_offset, .. }))) => {
                    let (key, left) = ((topic, partition), records.into_iter());
                    self.current = Some(Current { key, turn, next_offset, left });
                }
                Some(Ok(_)) => {}
            }
        }
    }
}
