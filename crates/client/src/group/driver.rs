//! The task of a member: it speaks with the group, reads what the member has, and commits what the caller is done with.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::{BoxFuture, FutureExt};
use lakebed_wire::v1;
use lakebed_wire::v1::join_request::Request;
use lakebed_wire::v1::join_response::Response;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};
use tokio_stream::StreamMap;
use tonic::Code;

use super::GroupBuilder;
use super::progress::{Key, Progress};
use super::reading::{Opened, Opening, Wanted, is_gone, outside};
use super::session::Session;
use crate::backoff::Backoff;
use crate::consumer::{Batch, Consumer};
use crate::error::ClientError;

/// Heartbeats of the broker that may be missing before it is lost.
const SILENT_INTERVALS: u32 = 4;
/// Most offsets in one commit: the broker takes 10,000.
const OFFSETS_MAX: usize = 5_000;
/// How long leaving may take.
const LEAVE_MAX: Duration = Duration::from_secs(10);

/// What the caller's side is told.
#[derive(Debug)]
pub(super) enum Item {
    /// Of a topic, with the turn in which it was read.
    Batch(Arc<str>, u64, Batch),
    /// There is nothing; but whoever waits for the caller to come back wants to hear of it.
    Look,
    Failed(ClientError),
}

/// What the caller wants.
#[derive(Debug)]
pub(super) enum Command {
    Commit(oneshot::Sender<Result<(), ClientError>>),
    Close(oneshot::Sender<Result<(), ClientError>>),
}

/// How a stream of the group ended.
enum Ended {
    /// The caller has gone, or wants to.
    Left(Option<oneshot::Sender<Result<(), ClientError>>>),
    /// The stream was lost: there may be another.
    Failed(ClientError),
    /// Records can't be read: that does not pass.
    Broken(ClientError),
}

/// Why no other stream is opened.
enum Over {
    /// The caller has gone, and was told what it wanted to know.
    Left,
    Failed(ClientError),
}

/// A commit that is on its way.
struct Committing {
    offsets: BTreeMap<Key, i64>,
    answer: Option<Arc<Waiter>>,
}

/// Whoever waits for all parts of a commit.
struct Waiter(std::sync::Mutex<Option<oneshot::Sender<Result<(), ClientError>>>>);

impl Waiter {
    fn tell(&self, result: Result<(), ClientError>) {
        let answer = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        if let Some(answer) = answer {
            drop(answer.send(result));
        }
    }
}

impl Drop for Waiter {
    /// All parts are done, and none has failed.
    fn drop(&mut self) {
        self.tell(Ok(()));
    }
}

/// An assignment by which the member gives partitions up.
struct GivingUp {
    assignment: v1::JoinAssignment,
    /// When the caller has come back, if it has not yet.
    returned: Option<oneshot::Receiver<()>>,
    /// Commits that must be answered before.
    commits: BTreeSet<u64>,
}

pub(super) struct Driver {
    init: v1::JoinInit,
    opening: Opening,
    commit_interval: Option<Duration>,
    progress: Arc<Progress>,
    session: Session,
    readers: StreamMap<Arc<str>, Consumer>,
    /// Readers that are being opened.
    opens: Option<BoxFuture<'static, Result<Vec<Opened>, ClientError>>>,
    giving_up: Option<GivingUp>,
    /// Came while readers were being opened.
    next_assignment: Option<v1::JoinAssignment>,
    committing: BTreeMap<u64, Committing>,
    last_commit: u64,
    /// Why nothing can be read any more.
    broken: Option<ClientError>,
    /// Whoever wanted to commit while there was no stream: one, for the caller waits for the answer.
    asked: Vec<oneshot::Sender<Result<(), ClientError>>>,
    /// For the caller.
    pending: Option<Item>,
}

impl Driver {
    pub(super) async fn open(builder: GroupBuilder, progress: Arc<Progress>) -> Result<Self, ClientError> {
        let GroupBuilder { client, init, start, commit_interval, window_bytes, retry } = builder;
        let session = Session::open(&client, init.clone()).await?;
        session.member_id.clone_into(&mut progress.lock().member_id);
        let group = init.group.clone();
        Ok(Self {
            init,
            opening: Opening { client, group, start, window_bytes, retry },
            commit_interval,
            progress,
            session,
            readers: StreamMap::new(),
            opens: None,
            giving_up: None,
            next_assignment: None,
            committing: BTreeMap::new(),
            last_commit: 0,
            broken: None,
            asked: Vec::new(),
            pending: None,
        })
    }

    /// Runs until the caller leaves, or something can't pass.
    pub(super) async fn run(mut self, items: mpsc::Sender<Item>, mut commands: mpsc::Receiver<Command>) {
        loop {
            let error = match self.serve(&items, &mut commands).await {
                Ended::Left(answer) => {
                    let left = tokio::time::timeout(LEAVE_MAX, self.leave(answer.is_some())).await;
                    let late = || ClientError::Lost { cause: "the broker did not answer in time".to_owned() };
                    if let Some(answer) = answer {
                        drop(answer.send(left.unwrap_or_else(|_| Err(late()))));
                    }
                    return;
                }
                Ended::Broken(error) => {
                    // Others may be able to read.
                    drop(tokio::time::timeout(LEAVE_MAX, self.leave(false)).await);
                    drop(items.send(Item::Failed(error)).await);
                    return;
                }
                Ended::Failed(error) => error,
            };
            match self.rejoin(error, &mut commands).await {
                Ok(()) => {}
                Err(Over::Failed(error)) => {
                    drop(items.send(Item::Failed(error)).await);
                    return;
                }
                Err(Over::Left) => return,
            }
        }
    }

    async fn serve(&mut self, items: &mpsc::Sender<Item>, commands: &mut mpsc::Receiver<Command>) -> Ended {
        let interval = self.session.heartbeat_interval;
        let mut heartbeat_at = Instant::now() + interval;
        let mut silent_until = Instant::now() + interval * SILENT_INTERVALS;
        let mut commit_at = self.commit_interval.map(|every| Instant::now() + every);
        for answer in std::mem::take(&mut self.asked) {
            if let Err(error) = self.commit_all(answer) {
                return Ended::Failed(error);
            }
        }
        loop {
            let step = tokio::select! {
                biased;
                command = commands.recv() => match command {
                    None => return Ended::Left(None),
                    Some(Command::Close(answer)) => return Ended::Left(Some(answer)),
                    Some(Command::Commit(answer)) => self.commit_all(answer),
                },
                response = self.session.next() => {
                    silent_until = Instant::now() + interval * SILENT_INTERVALS;
                    match response {
                        Ok(Some(response)) => self.hear(response, items),
                        Ok(None) => Err(ClientError::Lost { cause: "the broker ended the stream".to_owned() }),
                        Err(error) => Err(error),
                    }
                },
                () = returned(self.giving_up.as_mut()) => self.came_back(),
                opened = until(self.opens.as_mut()) => self.opened(opened, items),
                () = sleep_until(heartbeat_at) => {
                    heartbeat_at = Instant::now() + interval;
                    self.session.say(Request::Heartbeat(v1::JoinHeartbeat::default()))
                }
                () = sleep_until(commit_at.unwrap_or(heartbeat_at)), if commit_at.is_some() => {
                    commit_at = self.commit_interval.map(|every| Instant::now() + every);
                    let offsets = self.progress.lock().to_commit(false, |_| true);
                    self.commit(offsets, None).map(drop)
                }
                permit = items.reserve(), if self.pending.is_some() => match (permit, self.pending.take()) {
                    (Ok(permit), Some(item)) => {
                        permit.send(item);
                        Ok(())
                    }
                    _ => return Ended::Left(None),
                },
                Some((topic, read)) = self.readers.next(), if self.pending.is_none() => {
                    self.read(topic, read);
                    Ok(())
                }
                () = sleep_until(silent_until) => {
                    Err(ClientError::Lost { cause: format!("the broker said nothing for {:?}", interval * SILENT_INTERVALS) })
                }
            };
            if let Err(error) = step {
                return Ended::Failed(error);
            }
            if let Some(error) = self.broken.take() {
                return Ended::Broken(error);
            }
        }
    }

    fn hear(&mut self, response: Response, items: &mpsc::Sender<Item>) -> Result<(), ClientError> {
        match response {
            Response::Started(_) | Response::Heartbeat(_) => Ok(()),
            Response::Assignment(assignment) if self.opens.is_some() => {
                self.next_assignment = Some(assignment);
                Ok(())
            }
            Response::Assignment(assignment) => self.assigned(assignment, items),
            Response::CommitResult(result) => self.commit_answered(result),
        }
    }

    /// The member is to have other partitions.
    fn assigned(&mut self, assignment: v1::JoinAssignment, items: &mpsc::Sender<Item>) -> Result<(), ClientError> {
        let after = keys(&assignment.partitions);
        // What was created again is another partition, under the same name.
        let anew: BTreeSet<Key> = keys(&assignment.taken).intersection(&keys(&assignment.given_up)).cloned().collect();
        let mut inner = self.progress.lock();
        let mut lost = false;
        for (key, place) in &mut inner.places {
            if !after.contains(key) || anew.contains(key) {
                (place.is_closing, lost) = (true, true);
            }
        }
        if !lost {
            drop(inner);
            return self.settle(&assignment);
        }
        let returned = inner.when_back();
        drop(inner);
        self.giving_up = Some(GivingUp { assignment, returned: Some(returned), commits: BTreeSet::new() });
        // A caller that waits for records comes back at once; one that does not will by itself.
        drop(items.try_send(Item::Look));
        Ok(())
    }

    /// The caller is done with what it was given of the partitions that are given up.
    fn came_back(&mut self) -> Result<(), ClientError> {
        let Some(giving_up) = &mut self.giving_up else { return Ok(()) };
        giving_up.returned = None;
        if self.commit_interval.is_some() {
            let inner = self.progress.lock();
            let offsets = inner.to_commit(false, |key| inner.places.get(key).is_some_and(|place| place.is_closing));
            drop(inner);
            let commits = self.commit(offsets, None)?;
            if let Some(giving_up) = &mut self.giving_up {
                giving_up.commits = commits;
            }
        }
        self.give_up()
    }

    /// Gives partitions up, if nothing stands in the way any more.
    fn give_up(&mut self) -> Result<(), ClientError> {
        let is_ready = |giving_up: &mut GivingUp| giving_up.returned.is_none() && giving_up.commits.is_empty();
        match self.giving_up.take_if(|giving_up| is_ready(giving_up)) {
            Some(giving_up) => self.settle(&giving_up.assignment),
            None => Ok(()),
        }
    }

    /// Lets go of what was given up, says so, and begins to read what was taken.
    fn settle(&mut self, assignment: &v1::JoinAssignment) -> Result<(), ClientError> {
        let mut changed: BTreeSet<Arc<str>> = BTreeSet::new();
        let mut topics: BTreeMap<Arc<str>, Wanted> = BTreeMap::new();
        {
            let mut inner = self.progress.lock();
            let closing = inner.places.iter().filter(|(_, place)| place.is_closing);
            changed.extend(closing.map(|((topic, _), _)| Arc::clone(topic)));
            inner.keep(|place| !place.is_closing);
            for key in keys(&assignment.partitions) {
                if !inner.places.contains_key(&key) {
                    changed.insert(Arc::clone(&key.0));
                    inner.take(key, None);
                }
            }
            for ((topic, partition), place) in inner.places.iter().filter(|((topic, _), _)| changed.contains(topic)) {
                topics.entry(Arc::clone(topic)).or_default().insert(*partition, place.next);
            }
        }
        for topic in &changed {
            self.readers.remove(topic);
        }
        if !topics.is_empty() {
            self.opens = Some(self.opening.clone().open(topics).boxed());
        }
        let assignment_id = assignment.assignment_id;
        self.session.say(Request::Acknowledge(v1::JoinAcknowledge { assignment_id }))
    }

    fn opened(
        &mut self,
        opened: Result<Vec<Opened>, ClientError>,
        items: &mpsc::Sender<Item>,
    ) -> Result<(), ClientError> {
        self.opens = None;
        let opened = opened.unwrap_or_else(|error| {
            self.broken = Some(error);
            Vec::new()
        });
        for Opened { topic, reader, committed } in opened {
            let Some(reader) = reader else { continue };
            let mut inner = self.progress.lock();
            for (partition, tail) in reader.tails() {
                if let Some(place) = inner.places.get_mut(&(Arc::clone(&topic), *partition)) {
                    place.next = Some(tail.next_offset);
                    place.committed = place.committed.or_else(|| committed.get(partition).copied());
                }
            }
            drop(inner);
            self.readers.insert(topic, reader);
        }
        match self.next_assignment.take() {
            Some(assignment) => self.assigned(assignment, items),
            None => Ok(()),
        }
    }

    fn read(&mut self, topic: Arc<str>, read: Result<Batch, ClientError>) {
        match read {
            Ok(batch) => {
                let mut inner = self.progress.lock();
                if let Some(place) = inner.places.get_mut(&(Arc::clone(&topic), batch.partition)) {
                    place.next = Some(batch.next_offset);
                    self.pending = Some(Item::Batch(topic, place.turn, batch));
                }
            }
            // The group will hear of it, and say so.
            Err(error) if is_gone(&error) => {}
            Err(error) => match outside(&error) {
                Some(partition) => self.reopen_at_start(&topic, partition),
                None => self.broken = Some(error),
            },
        }
    }

    /// What a partition was to go on with is no longer kept.
    fn reopen_at_start(&mut self, topic: &Arc<str>, outside: i32) {
        let inner = self.progress.lock();
        let of_topic = inner.places.iter().filter(|((of, _), _)| of == topic);
        let wanted: Wanted = of_topic
            .map(|((_, partition), place)| (*partition, place.next.filter(|_| *partition != outside)))
            .collect();
        drop(inner);
        self.readers.remove(topic);
        let more = self.opening.clone().open(BTreeMap::from([(Arc::clone(topic), wanted)]));
        self.opens = Some(match self.opens.take() {
            None => more.boxed(),
            Some(others) => async move {
                let mut opened = others.await?;
                opened.extend(more.await?);
                Ok(opened)
            }
            .boxed(),
        });
    }

    /// Commits all that the caller was given.
    fn commit_all(&mut self, answer: oneshot::Sender<Result<(), ClientError>>) -> Result<(), ClientError> {
        let mut inner = self.progress.lock();
        let (offsets, forfeited) = (inner.to_commit(true, |_| true), inner.take_forfeited());
        drop(inner);
        let waiter = Arc::new(Waiter(std::sync::Mutex::new(Some(answer))));
        if forfeited {
            let message =
                "partitions went to other members before what was read of them was committed: it is read again";
            waiter.tell(Err(ClientError::refused(Code::FailedPrecondition, "PARTITION_NOT_ASSIGNED", message)));
        }
        self.commit(offsets, Some(waiter)).map(drop)
    }

    /// Sends commits; their ids.
    fn commit(
        &mut self,
        offsets: BTreeMap<Key, i64>,
        answer: Option<Arc<Waiter>>,
    ) -> Result<BTreeSet<u64>, ClientError> {
        let mut ids = BTreeSet::new();
        let all: Vec<(Key, i64)> = offsets.into_iter().collect();
        for part in all.chunks(OFFSETS_MAX) {
            self.last_commit += 1;
            let offsets = part.iter().map(|((topic, partition), offset)| v1::CommittedOffset {
                topic: topic.to_string(),
                partition: *partition,
                offset: *offset,
                ..v1::CommittedOffset::default()
            });
            let commit = v1::JoinCommit { correlation_id: self.last_commit, offsets: offsets.collect() };
            let committing = Committing { offsets: part.iter().cloned().collect(), answer: answer.clone() };
            self.committing.insert(self.last_commit, committing);
            ids.insert(self.last_commit);
            self.session.say(Request::Commit(commit))?;
        }
        Ok(ids)
    }

    fn commit_answered(&mut self, result: v1::JoinCommitResult) -> Result<(), ClientError> {
        if let Some(Committing { offsets, answer }) = self.committing.remove(&result.correlation_id) {
            match result.error {
                None => self.progress.lock().committed(&offsets),
                Some(status) => {
                    // Without anybody who asked it is tried again at the next interval.
                    if let Some(answer) = answer {
                        answer.tell(Err(ClientError::from_message(&status)));
                    }
                }
            }
        }
        if let Some(giving_up) = &mut self.giving_up {
            giving_up.commits.remove(&result.correlation_id);
        }
        self.give_up()
    }

    /// Commits what is done, and leaves.
    async fn leave(mut self, is_asked: bool) -> Result<(), ClientError> {
        let mut failed = Ok(());
        if self.commit_interval.is_some() {
            let offsets = self.progress.lock().to_commit(is_asked, |_| true);
            let mut ids = self.commit(offsets, None)?;
            ids.extend(self.committing.keys());
            while !ids.is_empty() {
                match self.session.next().await? {
                    Some(Response::CommitResult(result)) => {
                        ids.remove(&result.correlation_id);
                        if let Some(status) = &result.error {
                            failed = Err(ClientError::from_message(status));
                        }
                    }
                    Some(_) => {}
                    None => return Err(ClientError::Lost { cause: "the broker ended the stream".to_owned() }),
                }
            }
        }
        self.session.leave().await.and(failed)
    }

    /// Joins again, however often it takes, within the time for it.
    async fn rejoin(&mut self, mut error: ClientError, commands: &mut mpsc::Receiver<Command>) -> Result<(), Over> {
        let mut backoff = Backoff::new(self.opening.retry);
        let give_up_at = Instant::now() + self.opening.retry.give_up_after;
        loop {
            self.forget(&error);
            let wait_until = Instant::now() + backoff.next();
            if !(error.may_pass() || is_put_out(&error)) || wait_until > give_up_at {
                return Err(Over::Failed(error));
            }
            self.opening.client.dialer.turn();
            self.wait(wait_until, &error, commands).await?;
            match Session::open(&self.opening.client, self.init.clone()).await {
                Ok(session) => {
                    session.member_id.clone_into(&mut self.progress.lock().member_id);
                    if !session.resumed {
                        self.drop_all();
                    }
                    self.session = session;
                    return Ok(());
                }
                Err(failed) => error = failed,
            }
        }
    }

    /// Waits; what the caller wants meanwhile is done when there is a stream again.
    async fn wait(
        &mut self,
        until: Instant,
        error: &ClientError,
        commands: &mut mpsc::Receiver<Command>,
    ) -> Result<(), Over> {
        loop {
            tokio::select! {
                biased;
                command = commands.recv() => match command {
                    None => return Err(Over::Left),
                    Some(Command::Close(answer)) => {
                        drop(answer.send(Err(error.clone())));
                        return Err(Over::Left);
                    }
                    Some(Command::Commit(answer)) => self.asked.push(answer),
                },
                () = sleep_until(until) => return Ok(()),
            }
        }
    }

    /// What a lost stream leaves: unanswered commits; of a member that was put out, everything that it had.
    fn forget(&mut self, error: &ClientError) {
        for committing in std::mem::take(&mut self.committing).into_values() {
            if let Some(answer) = committing.answer {
                answer.tell(Err(ClientError::Lost { cause: error.to_string() }));
            }
        }
        (self.giving_up, self.next_assignment) = (None, None);
        if is_put_out(error) {
            self.init.member_id.clear();
            self.drop_all();
        } else {
            self.init.member_id.clone_from(&self.session.member_id);
            // What was being given up is let go of: that is what the new stream begins with.
            self.progress.lock().keep(|place| !place.is_closing);
        }
    }

    /// The partitions may have been another's meanwhile: whatever was read of them does not count.
    fn drop_all(&mut self) {
        self.progress.lock().keep(|_| false);
        self.readers.clear();
        (self.opens, self.pending) = (None, None);
    }
}

/// Whether the member is none any more, and can join as a new one.
fn is_put_out(error: &ClientError) -> bool {
    matches!(error.reason(), "MEMBER_FENCED" | "STALE_GENERATION" | "REBALANCING")
}

fn keys(topics: &[v1::TopicPartitions]) -> BTreeSet<Key> {
    let of = |one: &v1::TopicPartitions| {
        let topic: Arc<str> = one.topic.as_str().into();
        one.partitions.iter().map(move |partition| (Arc::clone(&topic), *partition)).collect::<Vec<_>>()
    };
    topics.iter().flat_map(of).collect()
}

/// Waits until the caller has come back, if that is waited for.
async fn returned(giving_up: Option<&mut GivingUp>) {
    match giving_up.and_then(|giving_up| giving_up.returned.as_mut()) {
        // Nobody tells when the caller has gone: then there is nobody to wait for.
        Some(returned) => drop(returned.await),
        None => std::future::pending().await,
    }
}

/// Waits for what may be under way.
async fn until<F: Future + Unpin>(future: Option<F>) -> F::Output {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}
