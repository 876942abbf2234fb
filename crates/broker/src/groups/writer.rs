//! What groups write: a queue, and the task that takes it into the log.
//!
//! Offsets wait until the flush interval has passed since the last write, and everything that waits then becomes one commit, however many
//! consumers there are. A generation that members wait for, and what a person asked for, waits for nothing but the write before it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use lakebed_log::{AppendError, ChangeError, Closed};
use lakebed_model::{Change, Draft, Refusal};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::{Instant, sleep_until};

use super::machine::start_entry;
use super::member::{GroupError, Start};
use super::{Answer, Groups, Waiter};

/// Most writes that go into one commit.
const BATCH_MAX: usize = 16 * 1024;
/// Least room that a write takes: itself.
const WRITE_BYTES: u64 = 256;

/// Something for the log.
#[derive(Debug)]
pub(crate) enum Write {
    /// A generation begins.
    Start(Start<Waiter>),
    /// Any other change of a group.
    Change { change: Change, urgent: bool, answer: oneshot::Sender<Result<(), GroupError>>, room: OwnedSemaphorePermit },
}

impl Write {
    fn is_urgent(&self) -> bool {
        match self {
            Self::Start(start) => start.is_awaited,
            Self::Change { urgent, .. } => *urgent,
        }
    }
}

/// What was written.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    /// Commits of offsets that became durable.
    pub(crate) commits: AtomicU64,
    /// Offsets in them.
    pub(crate) offsets: AtomicU64,
    /// Generations that began with members.
    pub(crate) generations: AtomicU64,
    /// Writes to the log, each with all that waited.
    pub(crate) writes: AtomicU64,
    /// Groups of which something was proposed to expire.
    pub(crate) expired: AtomicU64,
    /// When offsets were last looked through for expired ones: milliseconds since 1970.
    pub(crate) expiry_at_ms: AtomicI64,
}

/// What waits to be written. The offsets in it are bounded in bytes; generations are, because groups are.
#[derive(Debug)]
pub(crate) struct Queue {
    waiting: Mutex<VecDeque<Write>>,
    pushed: Notify,
    room: Arc<Semaphore>,
    room_bytes: u32,
    pub(crate) counts: Counts,
}

impl Queue {
    pub(crate) fn new(room_bytes: usize) -> Self {
        let room_bytes = u32::try_from(room_bytes).unwrap_or(u32::MAX);
        let room = Arc::new(Semaphore::new(room_bytes as usize));
        Self { waiting: Mutex::default(), pushed: Notify::new(), room, room_bytes, counts: Counts::default() }
    }

    /// Waits for room; `None` if nothing is written any more.
    pub(crate) async fn room(&self, bytes: u64) -> Option<OwnedSemaphorePermit> {
        let bytes = u32::try_from(bytes.saturating_add(WRITE_BYTES)).unwrap_or(u32::MAX).min(self.room_bytes);
        Arc::clone(&self.room).acquire_many_owned(bytes).await.ok()
    }

    pub(crate) fn push(&self, write: Write) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).push_back(write);
        self.pushed.notify_one();
    }

    /// Queues a change; what came of it is answered when it is durable.
    pub(crate) fn push_change(
        &self,
        change: Change,
        urgent: bool,
        room: OwnedSemaphorePermit,
    ) -> oneshot::Receiver<Result<(), GroupError>> {
        let (answer, receiver) = oneshot::channel();
        self.push(Write::Change { change, urgent, answer, room });
        receiver
    }

    /// Takes what waits: all of it if something is urgent or `due`.
    fn take(&self, due: bool) -> Vec<Write> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if due || waiting.iter().any(Write::is_urgent) {
            let count = waiting.len().min(BATCH_MAX);
            waiting.drain(..count).collect()
        } else {
            Vec::new()
        }
    }

    /// Lets go of what waits: nothing is written any more, and who waits for it is told so.
    pub(crate) fn forget(&self) {
        let forgotten = std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        drop(forgotten);
    }

    fn is_empty(&self) -> bool {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }
}

/// Writes what is queued, in order, for ever.
pub(crate) async fn write(groups: &Groups) {
    let queue = &groups.inner.queue;
    let mut due = Instant::now();
    loop {
        let writes = queue.take(due <= Instant::now());
        if !writes.is_empty() {
            due = Instant::now() + groups.inner.options.interval;
            write_batch(groups, writes).await;
            continue;
        }
        tokio::select! {
            () = queue.pushed.notified() => {}
            () = sleep_until(due), if !queue.is_empty() => {}
        }
    }
}

/// What the log said of each change, in order; `None` if it was accepted.
type Refusals = Arc<Mutex<Vec<Option<Refusal>>>>;

async fn write_batch(groups: &Groups, writes: Vec<Write>) {
    let now_ms = (groups.inner.log.seams().wall)();
    let change_of = |write: &Write| match write {
        Write::Start(start) => Change::StartGeneration(start_entry(start, now_ms)),
        Write::Change { change, .. } => change.clone(),
    };
    let changes: Vec<Change> = writes.iter().map(change_of).collect();
    let refusals = Refusals::default();
    let told = Arc::clone(&refusals);
    // Each for itself: one that is refused takes no other with it.
    let decide = move |state: &lakebed_model::State| {
        let mut draft = Draft::after(state);
        let mut accepted = Vec::with_capacity(changes.len());
        let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
        for change in changes {
            told.push(draft.change(change.clone()).err());
            if told.last().is_some_and(Option::is_none) {
                accepted.push(change);
            }
        }
        Ok(accepted)
    };
    let outcome = groups.inner.log.alter(decide).await;
    groups.inner.queue.counts.writes.fetch_add(1, Ordering::Relaxed);
    let refusals = std::mem::take(&mut *refusals.lock().unwrap_or_else(PoisonError::into_inner));
    for (index, write) in writes.into_iter().enumerate() {
        let result = match &outcome {
            Ok(_) => refusals.get(index).and_then(Option::as_ref).map_or(Ok(()), |refusal| Err(refused(refusal))),
            Err(error) => Err(failed(error)),
        };
        settle(groups, write, result);
    }
}

fn settle(groups: &Groups, write: Write, result: Result<(), GroupError>) {
    let counts = &groups.inner.queue.counts;
    match write {
        Write::Start(start) => {
            if result.is_ok() && start.members > 0 {
                counts.generations.fetch_add(1, Ordering::Relaxed);
            }
            let named = (start.group, start.generation);
            groups.step(|machine, now| match &result {
                Ok(()) => machine.durable(now, &named),
                Err(error) => machine.not_durable(now, &named.0, error),
            });
            for (to, joined) in start.answers {
                drop(to.send(Answer::Join(result.clone().map(|()| joined))));
            }
        }
        Write::Change { change, answer, room, .. } => {
            if let (Ok(()), Change::CommitOffsets(commit)) = (&result, &change) {
                counts.commits.fetch_add(1, Ordering::Relaxed);
                counts.offsets.fetch_add(commit.offsets.len() as u64, Ordering::Relaxed);
            }
            drop(answer.send(result));
            drop(room);
        }
    }
}

fn refused(refusal: &Refusal) -> GroupError {
    match refusal {
        Refusal::UnknownPartition { .. } => GroupError::PartitionGone,
        Refusal::GroupsFull { .. } => GroupError::OffsetsFull,
        Refusal::UnknownGroup { .. } => GroupError::GroupNotFound,
        // Only a coordinator whose time has passed, or one whose group was forgotten meanwhile, names another generation.
        Refusal::StaleGeneration { .. } => GroupError::NotCoordinator,
        Refusal::GroupHasMembers { .. } => GroupError::NonEmptyGroup,
        other => {
            tracing::error!(refusal = %other, "the log refused a change of a group");
            GroupError::NotAvailable { why: other.to_string() }
        }
    }
}

fn failed(error: &ChangeError) -> GroupError {
    match error {
        AppendError::NotDone { why: Closed::Fenced { .. } } => GroupError::NotCoordinator,
        AppendError::NotDone { why: Closed::ShuttingDown } => GroupError::Stopped,
        AppendError::Unknown { .. } => GroupError::Unanswered { why: error.to_string() },
        other => GroupError::NotAvailable { why: other.to_string() },
    }
}
