//! Consumer groups: who is a member, and how far each group has come.
//!
//! Membership is soft: a [`machine::Machine`] in memory, which members join anew when their coordinator is lost. What must not be lost is
//! in the log: a generation is durable before any member learns its number, and offsets are durable before a commit of them is answered. Both name
//! generations, so the state refuses what a coordinator proposes whose time has passed.
//!
//! 1. What changes the log goes through one queue, in the order in which the machine decided it: offsets that a generation commits stand
//!    before the generation after it.
//! 2. Commits of offsets gather for a flush interval, however many consumers there are; see [`writer`].
//! 3. Nothing is answered that is not durable.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lakebed_log::Log;
use lakebed_model::{
    Change, CommitOffsets, CommittedOffset, DeleteOffsets, GroupId, GroupKind, PartitionKey, State, TopicsAt,
};
use rand::rngs::StdRng;
use rand::{RngCore, SeedableRng};
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, sleep_until};
use uuid::Uuid;

pub(crate) mod assigned;
pub(crate) mod expiry;
pub(crate) mod group;
pub(crate) mod machine;
pub(crate) mod member;
pub(crate) mod overview;
pub(crate) mod reconcile;
mod subscription;
#[cfg(test)]
mod tests;
pub(crate) mod timers;
pub(crate) mod writer;

use group::Phase;
use machine::{Described, Limits, Machine, Stored};
use member::{Effect, GroupError, Join, Joined, MemberRef, Sync, Synced};
use reconcile::member::Beaten;
use timers::Millis;
use writer::{Queue, Write};

/// Longest wait for something to become durable; then the client is told to ask again.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(20);

/// What a member that waits is answered.
#[derive(Debug)]
pub(crate) enum Answer {
    Join(Result<Joined, GroupError>),
    Sync(Result<Synced, GroupError>),
    Beat(Result<Beaten, GroupError>),
}

/// Where it is answered.
pub(crate) type Waiter = oneshot::Sender<Answer>;

/// How groups are kept.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Options {
    /// The bounds of the machine.
    pub(crate) limits: Limits,
    /// Commits of offsets gather for so long.
    pub(crate) interval: Duration,
    /// How long what an empty group has committed is kept.
    pub(crate) retention: Duration,
    /// What commits of offsets that are not durable yet may take in memory.
    pub(crate) waiting_bytes: usize,
}

/// How offsets are forgotten.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Forget {
    /// Nothing if a member reads one of the topics.
    pub(crate) all_or_none: bool,
    /// Only look whether it could be done.
    pub(crate) validate_only: bool,
}

/// The groups of a broker. A handle; clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Groups {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    log: Log,
    options: Options,
    began: Instant,
    machine: Mutex<Machine<Waiter>>,
    queue: Queue,
    ids: Mutex<StdRng>,
    /// The topics that the machine knows.
    topics: Mutex<TopicsAt>,
    nudges: assigned::Nudges,
    /// The next timer may be another one.
    retimed: Notify,
}

impl Groups {
    /// Groups over a log. [`Groups::run`] must run for anything to become durable.
    pub(crate) fn new(log: Log, options: Options) -> Self {
        // SUBTLE: others draw from the same seed; another stream, or ids would repeat between kinds.
        let ids = Mutex::new(StdRng::seed_from_u64(log.seams().seed ^ 0x6772_6f75_7073_0000));
        let machine = Mutex::new(Machine::new(options.limits, log.state().generation_gone()));
        let queue = Queue::new(options.waiting_bytes);
        let (topics, nudges) = (Mutex::default(), assigned::Nudges::default());
        let began = Instant::now();
        let inner = Inner { log, options, began, machine, queue, ids, topics, nudges, retimed: Notify::new() };
        Self { inner: Arc::new(inner) }
    }

    /// Keeps time, writes, and lets old offsets expire. Ends with the log.
    pub(crate) async fn run(self) {
        let log = self.inner.log.clone();
        tokio::select! {
            biased;
            _ = log.closed() => {}
            () = writer::write(&self) => {}
            () = self.keep_time() => {}
            () = self.keep_topics() => {}
            () = expiry::expire(&self) => {}
        }
        self.stop();
        self.inner.queue.forget();
    }

    async fn keep_time(&self) {
        loop {
            let due = self.machine().next_due().map(|due| self.inner.began + Duration::from_millis(due));
            tokio::select! {
                () = self.inner.retimed.notified() => {}
                () = sleep_until(due.unwrap_or(self.inner.began)), if due.is_some() => self.step(|_, _| ()),
            }
        }
    }

    fn machine(&self) -> MutexGuard<'_, Machine<Waiter>> {
        self.inner.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does a step, and what it makes necessary.
    fn step<R>(&self, step: impl FnOnce(&mut Machine<Waiter>, Millis) -> R) -> R {
        let mut machine = self.machine();
        let now = u64::try_from(self.inner.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        machine.run_due(now);
        let before = machine.next_due();
        let result = step(&mut machine, now);
        // SUBTLE: queued while the machine is held: see invariant 1.
        for effect in machine.take_effects() {
            match effect {
                // Whoever hung up wants no answer.
                Effect::Join { to, answer } => drop(to.send(Answer::Join(answer))),
                Effect::Sync { to, answer } => drop(to.send(Answer::Sync(answer))),
                Effect::Beat { to, answer } => drop(to.send(Answer::Beat(answer))),
                Effect::Nudge { group, member } => self.inner.nudges.nudge(group, member),
                Effect::Start(start) => self.inner.queue.push(Write::Start(start)),
            }
        }
        if machine.next_due() != before {
            self.inner.retimed.notify_one();
        }
        result
    }

    /// A fresh UUID, for the id of a member.
    pub(crate) fn fresh_id(&self) -> Uuid {
        let mut bytes = [0; 16];
        self.inner.ids.lock().unwrap_or_else(PoisonError::into_inner).fill_bytes(&mut bytes);
        uuid::Builder::from_random_bytes(bytes).into_uuid()
    }

    fn stored(&self, id: &GroupId) -> Stored {
        Stored::of(&self.inner.log.state(), id)
    }

    /// Answers everybody who waits, and takes in nobody any more.
    pub(crate) fn stop(&self) {
        self.step(Machine::stop);
    }

    /// A member joins. It is answered when the others have joined and the generation is durable.
    ///
    /// # Cancel  The member stays until its session ends.
    pub(crate) fn join(&self, join: Join) -> impl Future<Output = Result<Joined, GroupError>> + Send + use<> {
        let (to, answer) = oneshot::channel();
        let stored = self.stored(&join.group);
        self.step(|machine, now| machine.join(now, join, &stored, to));
        async move {
            match answer.await {
                Ok(Answer::Join(answer)) => answer,
                Ok(Answer::Sync(_) | Answer::Beat(_)) | Err(_) => Err(gone()),
            }
        }
    }

    /// A member asks for its assignment. It is answered when the leader has brought it.
    pub(crate) fn sync(&self, sync: Sync) -> impl Future<Output = Result<Synced, GroupError>> + Send + use<> {
        let (to, answer) = oneshot::channel();
        self.step(|machine, now| machine.sync(now, sync, to));
        async move {
            match answer.await {
                Ok(Answer::Sync(answer)) => answer,
                Ok(Answer::Join(_) | Answer::Beat(_)) | Err(_) => Err(gone()),
            }
        }
    }

    /// A member is there.
    ///
    /// # Errors
    /// [`GroupError`]
    pub(crate) fn heartbeat(&self, from: &MemberRef) -> Result<(), GroupError> {
        self.step(|machine, now| machine.heartbeat(now, from))
    }

    /// Members leave; what came of each.
    ///
    /// # Errors
    /// [`GroupError`] if it is the same for all.
    pub(crate) fn leave(
        &self,
        id: &GroupId,
        members: &[(String, Option<String>)],
    ) -> Result<Vec<Result<(), GroupError>>, GroupError> {
        self.step(|machine, now| machine.leave(now, id, members))
    }

    /// Commits offsets; what is returned resolves when they are durable.
    ///
    /// # Errors
    /// [`GroupError`]
    /// # Order  Commits of one caller are taken in the order in which this is called and awaited.
    pub(crate) async fn commit(
        &self,
        from: MemberRef,
        offsets: Vec<(PartitionKey, CommittedOffset)>,
    ) -> Result<impl Future<Output = Result<(), GroupError>> + Send + use<>, GroupError> {
        let bytes: u64 = offsets.iter().map(|(_, committed)| committed.bytes()).sum();
        let room = self.inner.queue.room(bytes + from.group.as_str().len() as u64).await.ok_or_else(gone)?;
        let stored = self.stored(&from.group);
        let answer = self.step(|machine, now| {
            let generation = machine.check_commit(now, &from, &stored)?;
            let change = Change::CommitOffsets(CommitOffsets { group: from.group, generation, offsets });
            Ok(self.inner.queue.push_change(change, false, room))
        })?;
        Ok(durable(answer))
    }

    /// Whether a group may be deleted now.
    ///
    /// # Errors
    /// [`GroupError`] with which [`Groups::delete`] would fail.
    pub(crate) async fn check_delete(&self, id: &GroupId) -> Result<(), GroupError> {
        self.inner.log.barrier().await.map_err(|error| GroupError::unseen(&error))?;
        let stored = self.stored(id);
        self.step(|machine, _| machine.check_empty(id, &stored)).map(drop)
    }

    /// Deletes a group that has no members.
    ///
    /// # Errors
    /// [`GroupError`]
    pub(crate) async fn delete(&self, id: &GroupId) -> Result<(), GroupError> {
        // What others have done and we don't know of yet would be answered wrongly.
        self.inner.log.barrier().await.map_err(|error| GroupError::unseen(&error))?;
        let room = self.inner.queue.room(id.as_str().len() as u64).await.ok_or_else(gone)?;
        let stored = self.stored(id);
        let answer = self.step(|machine, now| {
            let generation = machine.check_empty(id, &stored)?;
            machine.deleted(now, id, generation);
            let change = Change::DeleteGroup { group: id.clone(), generation };
            Ok(self.inner.queue.push_change(change, true, room))
        })?;
        durable(answer).await
    }

    /// Whether the offsets of a group may be moved by somebody who is no member: it must have none.
    ///
    /// # Errors
    /// [`GroupError`] with which [`Groups::reset`] would fail.
    pub(crate) fn check_reset(&self, id: &GroupId) -> Result<(), GroupError> {
        self.step(|machine, _| machine.check_without_members(id))
    }

    /// Commits offsets of a group that has no members; returns when they are durable.
    ///
    /// # Errors
    /// [`GroupError`]
    pub(crate) async fn reset(
        &self,
        id: &GroupId,
        offsets: Vec<(PartitionKey, CommittedOffset)>,
    ) -> Result<(), GroupError> {
        let bytes: u64 = offsets.iter().map(|(_, committed)| committed.bytes()).sum();
        let room = self.inner.queue.room(bytes + id.as_str().len() as u64).await.ok_or_else(gone)?;
        let stored = self.stored(id);
        let nobody = MemberRef { group: id.clone(), member_id: String::new(), instance_id: None, generation: -1 };
        let answer = self.step(|machine, now| {
            machine.check_without_members(id)?;
            let generation = machine.check_commit(now, &nobody, &stored)?;
            let change = Change::CommitOffsets(CommitOffsets { group: id.clone(), generation, offsets });
            Ok(self.inner.queue.push_change(change, true, room))
        })?;
        durable(answer).await
    }

    /// Forgets committed offsets, except of topics that members read; the names of those. If `all_or_none`, nothing is forgotten if there
    /// is such a topic; if `validate_only`, nothing is in any case.
    ///
    /// # Errors
    /// [`GroupError`] if it is the same for all.
    pub(crate) async fn delete_offsets(
        &self,
        id: &GroupId,
        partitions: Vec<(String, PartitionKey)>,
        how: Forget,
    ) -> Result<Vec<String>, GroupError> {
        self.inner.log.barrier().await.map_err(|error| GroupError::unseen(&error))?;
        let room = self.inner.queue.room(64 * partitions.len() as u64).await.ok_or_else(gone)?;
        let stored = self.stored(id);
        let (read, answer) = self.step(|machine, _| {
            let mut topics: Vec<&str> = partitions.iter().map(|(name, _)| name.as_str()).collect();
            topics.dedup();
            let (generation, read) = machine.check_delete_offsets(id, &stored, &topics)?;
            let free = partitions.iter().filter(|(name, _)| !read.contains(&name.as_str()));
            let mut keys: Vec<PartitionKey> = free.map(|(_, key)| *key).collect();
            keys.sort_unstable();
            keys.dedup();
            let read: Vec<String> = read.into_iter().map(str::to_owned).collect();
            let is_refused = how.all_or_none && !read.is_empty();
            if keys.is_empty() || is_refused || how.validate_only {
                return Ok((read, None));
            }
            let delete = DeleteOffsets { group: id.clone(), generation, partitions: keys };
            Ok((read, Some(self.inner.queue.push_change(Change::DeleteOffsets(delete), true, room))))
        })?;
        if let Some(answer) = answer {
            durable(answer).await?;
        }
        Ok(read)
    }

    /// A group of the classic protocol: its members if it has some, else what `state` knows of it.
    pub(crate) fn describe(&self, id: &GroupId, state: &State) -> Option<Described> {
        let machine = self.machine();
        if machine.describe_assigned(id).is_some() {
            return None;
        }
        if let Some(live) = machine.describe(id).filter(|live| live.phase != Phase::Empty) {
            return Some(live);
        }
        state.group(id).filter(|group| group.kind == GroupKind::Classic).map(|group| Described {
            phase: Phase::Empty,
            protocol_type: group.protocol_type.as_ref().to_owned(),
            protocol: String::new(),
            members: Vec::new(),
        })
    }

    /// How many groups and members are in memory, and the bytes that they take.
    pub(crate) fn size(&self) -> (usize, usize, usize) {
        self.machine().size()
    }

    /// The most bytes that members may take in memory.
    pub(crate) fn bytes_max(&self) -> usize {
        self.inner.options.limits.bytes_max
    }

    /// What is counted of commits.
    pub(crate) fn counts(&self) -> &writer::Counts {
        &self.inner.queue.counts
    }
}

fn gone() -> GroupError {
    GroupError::Stopped
}

/// Waits until something is durable.
async fn durable(answer: oneshot::Receiver<Result<(), GroupError>>) -> Result<(), GroupError> {
    match tokio::time::timeout(ANSWER_TIME_MAX, answer).await {
        Ok(Ok(answer)) => answer,
        // It may have been on its way.
        Ok(Err(_)) => Err(GroupError::Unanswered { why: "the broker stops".to_owned() }),
        Err(_) => {
            let why = format!("the store has not answered within {} s", ANSWER_TIME_MAX.as_secs());
            Err(GroupError::Unanswered { why })
        }
    }
}
