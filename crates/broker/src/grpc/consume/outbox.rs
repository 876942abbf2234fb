//! What waits for a client, within a budget that all streams share.
//!
//! 1. A message is made only when there is room for it: [`MESSAGE_BYTES_MAX`] of the budget, or, when that is used up, the stream's own
//!    share, of which it has one. So clients that don't read can use up the budget, but nobody stands still because of them.
//! 2. All streams together hold at most the budget, and [`SHARE_BYTES`] each; there are only so many streams that this is at most the budget
//!    again. A record that alone is larger than its room goes beyond it.
//! 3. A message counts until the client's connection asks for the next one. What the connection itself holds for a stream, a message at most,
//!    is counted so.
//! 4. At most [`BATCHES_MAX`] messages with records wait, and few others, see [`Outbox::is_crowded`].
//! 5. A stream that ends *at once* drops what waits: the client hears of the end before anything else.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use futures::Stream;
use lakebed_wire::outgoing::ConsumeAnswer;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tonic::Status;

use crate::grpc::status::status;
use crate::reason::Reason;

/// Largest message, unless one record is larger: clients take 4 MiB by default.
pub(super) const MESSAGE_BYTES_MAX: usize = 1 << 20;
/// Largest message when the budget is used up.
const SHARE_BYTES: usize = 16 << 10;
/// Messages with records that wait for a client. Two: one is being sent while the next is made.
const BATCHES_MAX: usize = 2;
/// Messages of all kinds from which on a client that does not read is not listened to either.
const CROWDED: usize = 64;
/// Streams that there may be even with little memory.
const STREAMS_MIN: usize = 64;

/// The budget that all streams share.
#[derive(Debug, Clone)]
pub(crate) struct Budget {
    bytes: Arc<Semaphore>,
    bytes_max: usize,
    streams: Arc<Semaphore>,
    streams_max: usize,
    heavy: Arc<Semaphore>,
}

impl Budget {
    /// A budget of so many bytes.
    pub(crate) fn new(bytes: usize) -> Self {
        let bytes = bytes.clamp(MESSAGE_BYTES_MAX, Semaphore::MAX_PERMITS.min(u32::MAX as usize));
        let streams_max = (bytes / SHARE_BYTES).max(STREAMS_MIN);
        Self {
            bytes: Arc::new(Semaphore::new(bytes)),
            bytes_max: bytes,
            streams: Arc::new(Semaphore::new(streams_max)),
            streams_max,
            heavy: Arc::new(Semaphore::new(std::thread::available_parallelism().map_or(1, usize::from))),
        }
    }

    /// The two ends of a new stream.
    ///
    /// # Errors
    /// OVERLOADED if there are as many streams as there may be.
    pub(super) fn open(&self) -> Result<(Outbox, Outgoing), Status> {
        let Ok(place) = Arc::clone(&self.streams).try_acquire_owned() else {
            let message = format!(
                "there are {} Consume streams, as many as this broker's memory allows: close some, or give it more memory",
                self.streams_max
            );
            return Err(status(Reason::Overloaded, message, []));
        };
        let shared = Arc::new(Shared::default());
        let outbox =
            Outbox { shared: Arc::clone(&shared), budget: Arc::clone(&self.bytes), share: Arc::new(Semaphore::new(1)) };
        Ok((outbox, Outgoing { shared, held: None, _place: place }))
    }

    /// Leave to keep so many bytes that can be had again, if much of the budget is unused.
    pub(super) fn keep(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let is_unused = self.bytes.available_permits() > self.bytes_max / 2 + bytes;
        is_unused.then(|| Arc::clone(&self.bytes).try_acquire_many_owned(u32::try_from(bytes).ok()?).ok()).flatten()
    }

    /// Waits for leave to do heavy work: as many do at once as there are cores. What each needs in memory is at most what a batch
    /// may need decompressed.
    pub(super) async fn heavy(&self) -> OwnedSemaphorePermit {
        Arc::clone(&self.heavy).acquire_owned().await.expect("nobody closes the heavy work")
    }

    /// Room for an answer that does not wait in a stream: as much as there is, the share at least.
    pub(super) fn room(&self) -> Room {
        match Arc::clone(&self.bytes).try_acquire_many_owned(MESSAGE_BYTES_MAX as u32) {
            Ok(permit) => Room { bytes: MESSAGE_BYTES_MAX, permit: Some(permit) },
            Err(_) => Room { bytes: SHARE_BYTES, permit: None },
        }
    }
}

/// Leave to make a message of so many bytes.
#[derive(Debug)]
pub(super) struct Room {
    pub(super) bytes: usize,
    permit: Option<OwnedSemaphorePermit>,
}

impl Room {
    /// Gives back what a message of `bytes` does not need.
    fn shrink(&mut self, bytes: usize) {
        if let Some(permit) = &mut self.permit
            && permit.num_permits() > bytes.max(1)
        {
            drop(permit.split(permit.num_permits() - bytes.max(1)));
        }
    }
}

/// How a stream ends.
#[derive(Debug)]
pub(super) enum End {
    /// With OK, after what waits.
    Done,
    /// With a status, after what waits.
    Failed(Status),
    /// With a status, instead of what waits.
    AtOnce(Status),
}

#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Queue>,
    /// The client's side took something, or is gone.
    changed: Notify,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Ready>,
    batches: usize,
    end: Option<End>,
    is_over: bool,
    is_gone: bool,
    reader: Option<Waker>,
}

#[derive(Debug)]
struct Ready {
    answer: ConsumeAnswer,
    room: Option<Room>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, change: impl FnOnce(&mut Queue)) {
        let reader = {
            let mut queue = self.lock();
            change(&mut queue);
            queue.reader.take()
        };
        if let Some(reader) = reader {
            reader.wake();
        }
    }
}

/// The end of a stream that makes messages.
#[derive(Debug)]
pub(super) struct Outbox {
    shared: Arc<Shared>,
    budget: Arc<Semaphore>,
    share: Arc<Semaphore>,
}

impl Outbox {
    /// Room for the next message with records, if there is any now.
    pub(super) fn room(&self) -> Option<Room> {
        if self.shared.lock().batches >= BATCHES_MAX {
            return None;
        }
        if let Ok(permit) = Arc::clone(&self.budget).try_acquire_many_owned(MESSAGE_BYTES_MAX as u32) {
            return Some(Room { bytes: MESSAGE_BYTES_MAX, permit: Some(permit) });
        }
        let share = Arc::clone(&self.share).try_acquire_owned().ok()?;
        Some(Room { bytes: SHARE_BYTES, permit: Some(share) })
    }

    /// Sends records, which take `bytes`, in the room that was made for them.
    pub(super) fn send_batch(&self, answer: ConsumeAnswer, mut room: Room, bytes: usize) {
        room.shrink(bytes);
        self.shared.put(|queue| {
            queue.batches += 1;
            queue.waiting.push_back(Ready { answer, room: Some(room) });
        });
    }

    /// Sends something that holds no records.
    pub(super) fn send(&self, answer: ConsumeAnswer) {
        self.shared.put(|queue| queue.waiting.push_back(Ready { answer, room: None }));
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.shared.lock().waiting.is_empty()
    }

    /// Whether so much waits that nothing should be done that is answered.
    pub(super) fn is_crowded(&self) -> bool {
        self.shared.lock().waiting.len() >= CROWDED
    }

    /// Whether there is nobody who reads.
    pub(super) fn is_gone(&self) -> bool {
        self.shared.lock().is_gone
    }

    /// Waits until the client's side took something since the last time that this returned, or is gone.
    ///
    /// # Cancel Nothing is lost.
    pub(super) async fn changed(&self) {
        self.shared.changed.notified().await;
    }

    /// Ends the stream.
    pub(super) fn end(self, end: End) {
        self.shared.put(|queue| queue.end = Some(end));
    }
}

impl Drop for Outbox {
    /// A task that broke must not leave its client waiting.
    fn drop(&mut self) {
        self.shared.put(|queue| {
            if queue.end.is_none() {
                queue.end = Some(End::AtOnce(status(Reason::Internal, "the stream broke off", [])));
            }
        });
    }
}

/// The end of a stream that the client reads.
#[derive(Debug)]
pub(crate) struct Outgoing {
    shared: Arc<Shared>,
    /// Of the message that was handed over last.
    held: Option<Room>,
    _place: OwnedSemaphorePermit,
}

#[cfg(test)]
impl Outgoing {
    /// How many messages wait.
    pub(super) fn waiting(&self) -> usize {
        self.shared.lock().waiting.len()
    }
}

impl Stream for Outgoing {
    type Item = Result<ConsumeAnswer, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let held = self.held.take();
        let mut took = held.is_some();
        drop(held);
        let (polled, room) = {
            let mut queue = self.shared.lock();
            if let Some(End::AtOnce(_)) = queue.end {
                queue.waiting.clear();
            }
            match queue.waiting.pop_front() {
                Some(Ready { answer, room }) => {
                    took = true;
                    queue.batches -= usize::from(room.is_some());
                    (Poll::Ready(Some(Ok(answer))), room)
                }
                None if queue.is_over => (Poll::Ready(None), None),
                None => match queue.end.take() {
                    Some(end) => {
                        queue.is_over = true;
                        let last = match end {
                            End::Done => None,
                            End::Failed(status) | End::AtOnce(status) => Some(Err(status)),
                        };
                        (Poll::Ready(last), None)
                    }
                    None => {
                        queue.reader = Some(context.waker().clone());
                        (Poll::Pending, None)
                    }
                },
            }
        };
        self.held = room;
        if took {
            self.shared.changed.notify_one();
        }
        polled
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        let mut queue = self.shared.lock();
        queue.is_gone = true;
        let waiting = std::mem::take(&mut queue.waiting);
        drop(queue);
        drop(waiting);
        self.shared.changed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;
    use futures::future::FutureExt;
    use lakebed_wire::v1;

    use super::*;

    fn answer(seek_id: u64) -> ConsumeAnswer {
        let ack = v1::ConsumeSeekAck { seek_id, ..Default::default() };
        v1::consume_response::Response::SeekAck(ack).into()
    }

    fn send(outbox: &Outbox, bytes: usize) -> Option<usize> {
        let room = outbox.room()?;
        let allowed = room.bytes;
        outbox.send_batch(answer(0), room, bytes);
        Some(allowed)
    }

    #[tokio::test]
    async fn clients_that_do_not_read_use_up_the_budget_and_others_go_on_in_small_messages() {
        let budget = Budget::new(4 * MESSAGE_BYTES_MAX);
        let mut stuck = Vec::new();
        for _ in 0..2 {
            let (outbox, mut outgoing) = budget.open().unwrap();
            assert_eq!(send(&outbox, MESSAGE_BYTES_MAX), Some(MESSAGE_BYTES_MAX));
            // One is with the connection, which does not ask for more; it counts, and another one may wait.
            assert!(outgoing.next().await.is_some());
            assert_eq!(send(&outbox, MESSAGE_BYTES_MAX), Some(MESSAGE_BYTES_MAX));
            stuck.push((outbox, outgoing));
        }
        assert_eq!(budget.bytes.available_permits(), 0);
        let (outbox, mut outgoing) = budget.open().unwrap();
        for _ in 0..100 {
            assert_eq!(send(&outbox, 1000), Some(SHARE_BYTES));
            assert_eq!(send(&outbox, 1000), None, "a stream has one share");
            assert!(outgoing.next().await.is_some());
            assert_eq!(send(&outbox, 1000), None, "the share is with the connection");
            assert!(outgoing.next().now_or_never().is_none());
        }
        drop(stuck);
        assert_eq!(send(&outbox, 1000), Some(MESSAGE_BYTES_MAX));
        drop((outbox, outgoing));
        assert_eq!(budget.bytes.available_permits(), 4 * MESSAGE_BYTES_MAX, "everything was given back");
        assert_eq!(budget.streams.available_permits(), budget.streams_max);
    }

    #[tokio::test]
    async fn a_message_counts_for_what_it_takes() {
        let budget = Budget::new(2 * MESSAGE_BYTES_MAX);
        let (outbox, mut outgoing) = budget.open().unwrap();
        send(&outbox, 1000);
        assert_eq!(budget.bytes.available_permits(), 2 * MESSAGE_BYTES_MAX - 1000);
        send(&outbox, 10 * MESSAGE_BYTES_MAX);
        assert_eq!(budget.bytes.available_permits(), MESSAGE_BYTES_MAX - 1000, "a large record takes its room at most");
        assert_eq!(send(&outbox, 1), None, "two messages wait");
        outgoing.next().await;
        outgoing.next().await;
        assert_eq!(budget.bytes.available_permits(), MESSAGE_BYTES_MAX);
    }

    #[tokio::test]
    async fn there_are_only_so_many_streams() {
        let budget = Budget::new(MESSAGE_BYTES_MAX);
        let streams: Vec<_> = (0..budget.streams_max).map(|_| budget.open().unwrap()).collect();
        assert_eq!(budget.open().unwrap_err().code(), tonic::Code::ResourceExhausted);
        drop(streams);
        assert!(budget.open().is_ok());
    }

    #[tokio::test]
    async fn an_end_comes_after_what_waits_or_at_once() {
        let status = || Status::unavailable("the end");
        for (end, expected, fails) in
            [(End::Done, 2, false), (End::Failed(status()), 2, true), (End::AtOnce(status()), 0, true)]
        {
            let (outbox, outgoing) = Budget::new(MESSAGE_BYTES_MAX).open().unwrap();
            outbox.send(answer(1));
            outbox.send(answer(2));
            outbox.end(end);
            let all: Vec<Result<ConsumeAnswer, Status>> = outgoing.collect().await;
            assert_eq!(all.iter().filter(|one| one.is_ok()).count(), expected);
            assert_eq!(all.len(), expected + usize::from(fails));
            assert_eq!(all.last().is_some_and(Result::is_err), fails);
        }
    }

    #[tokio::test]
    async fn a_task_that_breaks_off_ends_its_stream_with_an_error() {
        let (outbox, mut outgoing) = Budget::new(MESSAGE_BYTES_MAX).open().unwrap();
        drop(outbox);
        assert_eq!(outgoing.next().await.unwrap().unwrap_err().code(), tonic::Code::Internal);
        assert!(outgoing.next().await.is_none());
    }

    #[tokio::test]
    async fn both_sides_wake_each_other() {
        let (outbox, mut outgoing) = Budget::new(MESSAGE_BYTES_MAX).open().unwrap();
        let reader = tokio::spawn(async move {
            let first = outgoing.next().await;
            assert!(first.is_some_and(|one| one.is_ok()));
            outgoing
        });
        tokio::task::yield_now().await;
        outbox.send(answer(1));
        outbox.changed().await;
        let outgoing = reader.await.unwrap();
        assert!(outbox.is_empty() && !outbox.is_gone());
        drop(outgoing);
        outbox.changed().await;
        assert!(outbox.is_gone());
    }
}
