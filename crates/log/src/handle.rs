//! The handle of an open log, and what its tasks share.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::task::{Context, Poll};

use lakebed_model::{
    Change, Changed, Commit, CommitNumber, FlushId, FlushOutcome, FlushProposal, Mint, Nonce, Refusal, SegmentId, State,
};
use lakebed_segment::body::Body;
use lakebed_segment::commit::Identity;
use lakebed_store::BufferPool;
use rand::rngs::StdRng;
use rand::{RngCore, SeedableRng};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::AbortHandle;

use crate::append_error::{AppendError, BarrierError, ChangeError, Closed};
use crate::broken::Broken;
use crate::bucket::Bucket;
use crate::counts::Counts;
use crate::feed::Recent;
use crate::open::Options;
use crate::seams::Seams;
use crate::sequencer::Request;

/// What the handles and the sequencer of one log share.
pub(crate) struct Shared {
    pub(crate) bucket: Bucket,
    pub(crate) options: Options,
    pub(crate) seams: Seams,
    pub(crate) nonce: Nonce,
    pub(crate) broken: Broken,
    pub(crate) counts: Counts,
    pub(crate) recent: Arc<Recent>,
    /// Whether a follower has heard the sequencer that it follows.
    heard: watch::Sender<bool>,
    durable: RwLock<State>,
    number: watch::Sender<CommitNumber>,
    mint: Mutex<(Mint, StdRng)>,
    holds: Mutex<BTreeMap<SegmentId, usize>>,
}

impl Shared {
    pub(crate) fn new(
        bucket: Bucket,
        options: Options,
        seams: Seams,
        nonce: Nonce,
        opened: (State, CommitNumber),
    ) -> Self {
        let (state, checkpoint) = opened;
        let number = watch::Sender::new(state.number());
        let rng = StdRng::seed_from_u64(seams.seed ^ nonce.get());
        let broken = options.broken;
        Self {
            bucket,
            options,
            seams,
            nonce,
            broken,
            counts: Counts::new(checkpoint),
            recent: Arc::default(),
            heard: watch::Sender::new(false),
            durable: RwLock::new(state),
            number,
            mint: Mutex::new((Mint::new(), rng)),
            holds: Mutex::new(BTreeMap::new()),
        }
    }

    /// The durable state.
    pub(crate) fn state(&self) -> State {
        self.durable.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Folds a commit into the durable state, now that it and all below it are durable.
    pub(crate) fn publish(&self, commit: &Commit) -> Result<(), Closed> {
        let mut durable = self.durable.write().unwrap_or_else(PoisonError::into_inner);
        durable.apply(commit).map_err(|error| Closed::Damaged { what: error.to_string() })?;
        let number = durable.number();
        drop(durable);
        if !self.broken.pushes_in_flight() {
            self.recent.push(commit);
        }
        self.number.send_replace(number);
        Ok(())
    }

    /// The sequencer was heard.
    pub(crate) fn hear(&self) {
        self.heard.send_if_modified(|heard| !std::mem::replace(heard, true));
    }

    /// Takes a state of the log that was read, unless a later one is known.
    pub(crate) fn install(&self, state: State) {
        let mut durable = self.durable.write().unwrap_or_else(PoisonError::into_inner);
        if state.number() <= durable.number() {
            return;
        }
        let number = state.number();
        *durable = state;
        drop(durable);
        self.number.send_replace(number);
    }

    pub(crate) fn now_ms(&self) -> i64 {
        (self.seams.wall)()
    }

    pub(crate) fn mint(&self) -> FlushId {
        let floor = self.state().reclaim_boundary();
        let mut mint = self.mint.lock().unwrap_or_else(PoisonError::into_inner);
        let (mint, rng) = &mut *mint;
        let now_ms = u64::try_from(self.now_ms()).unwrap_or(0);
        FlushId::new(mint.next(now_ms, rng.next_u64(), floor.ulid()))
    }

    pub(crate) fn lowest_hold(&self) -> Option<SegmentId> {
        self.holds.lock().unwrap_or_else(PoisonError::into_inner).keys().next().copied()
    }
}

/// What this process is to a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It commits.
    Sequencer,
    /// It folds what the sequencer commits.
    Follower,
}

/// An open log. A handle; clones share the log. It closes when the last is dropped.
#[derive(Clone)]
pub struct Log {
    role: Role,
    shared: Arc<Shared>,
    requests: mpsc::Sender<Request>,
    closed: watch::Receiver<Option<Closed>>,
    task: AbortHandle,
}

impl std::fmt::Debug for Log {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Log").field("nonce", &self.shared.nonce).finish_non_exhaustive()
    }
}

impl Log {
    pub(crate) fn new(
        role: Role,
        shared: Arc<Shared>,
        requests: mpsc::Sender<Request>,
        closed: watch::Receiver<Option<Closed>>,
        task: AbortHandle,
    ) -> Self {
        Self { role, shared, requests, closed, task }
    }

    /// What this process is to the log, for as long as it is open.
    pub fn role(&self) -> Role {
        self.role
    }

    /// Waits until a follower has heard the sequencer, or its log is closed; for ever if it never does either.
    pub async fn heard(&self) {
        let mut heard = self.shared.heard.subscribe();
        tokio::select! {
            biased;
            _ = heard.wait_for(|heard| *heard) => {}
            _ = self.closed() => {}
        }
    }

    pub(crate) fn recent(&self) -> &Arc<Recent> {
        &self.shared.recent
    }

    pub(crate) fn closings(&self) -> watch::Receiver<Option<Closed>> {
        self.closed.clone()
    }

    /// The durable state: what every reader may see. A snapshot; it does not change.
    pub fn state(&self) -> State {
        self.shared.state()
    }

    /// How many commits are durable; changes with every commit that becomes so.
    pub fn watch(&self) -> watch::Receiver<CommitNumber> {
        self.shared.number.subscribe()
    }

    /// Which cluster and cell this is.
    pub fn identity(&self) -> Identity {
        self.shared.bucket.identity()
    }

    /// This process's nonce.
    pub fn nonce(&self) -> Nonce {
        self.shared.nonce
    }

    /// The seams that the log was opened with.
    pub fn seams(&self) -> Seams {
        self.shared.seams.clone()
    }

    /// The rule that is left out; none in any build but those of the simulation.
    #[doc(hidden)]
    pub fn broken(&self) -> Broken {
        self.shared.broken
    }

    /// Buffers for the bodies of flushes.
    pub fn buffers(&self) -> &BufferPool {
        self.shared.bucket.buffers()
    }

    /// A fresh id, greater than all before it and than the reclaim boundary.
    pub fn mint(&self) -> FlushId {
        self.shared.mint()
    }

    /// Submits a flush; with a body, its rows become part of the commit.
    ///
    /// # Order  Flushes commit in the order in which `submit` was called and awaited.
    /// # Cancel Dropped before it returns: not submitted. The [`Pending`] may be dropped; the flush goes on.
    /// # Cost   One PUT of a commit, shared by all that arrives while earlier ones are in flight.
    pub async fn submit(&self, proposal: FlushProposal, body: Option<Body>) -> Pending {
        let (answer, receiver) = oneshot::channel();
        let sent = self.requests.send(Request::Flush { proposal, body, answer, span: tracing::Span::current() }).await;
        Pending { receiver: sent.is_ok().then_some(receiver), closed: self.closed.clone() }
    }

    /// Decides a change and waits until it is durable.
    ///
    /// # Errors
    /// [`ChangeError`]; a refusal too rests on nothing but durable commits.
    /// # Cancel The change may still happen.
    pub async fn change(&self, change: Change) -> Result<Changed, ChangeError> {
        let (answer, receiver) = oneshot::channel();
        if self.requests.send(Request::Change { change, answer }).await.is_err() {
            return Err(AppendError::NotDone { why: why(&self.closed) });
        }
        receiver.await.unwrap_or_else(|_| Err(AppendError::Unknown { why: why(&self.closed) }))
    }

    /// Has `decide` say what is to change, given everything that has been decided before, durable or not, and waits until it is durable:
    /// all of it, or nothing. Changes that build on what they find don't lose one another this way.
    ///
    /// # Errors
    /// [`ChangeError`]; a refusal, that of `decide` too, rests on nothing but durable commits.
    /// # Cancel The change may still happen.
    pub async fn alter(
        &self,
        decide: impl FnOnce(&State) -> Result<Vec<Change>, Refusal> + Send + 'static,
    ) -> Result<Changed, ChangeError> {
        let (answer, receiver) = oneshot::channel();
        if self.requests.send(Request::Alter { decide: Box::new(decide), answer }).await.is_err() {
            return Err(AppendError::NotDone { why: why(&self.closed) });
        }
        receiver.await.unwrap_or_else(|_| Err(AppendError::Unknown { why: why(&self.closed) }))
    }

    /// The durable state with every commit in it that was durable when this was called.
    ///
    /// # Errors
    /// [`BarrierError`] if the log closes first, or nothing proves within [`Options::barrier_time_max`] where it ends.
    /// # Cost   One GET of a free place when idle, shared by all who wait; nothing when a commit of our own comes after it.
    pub async fn barrier(&self) -> Result<State, BarrierError> {
        let after = self.shared.options.barrier_time_max;
        let proven = tokio::time::timeout(after, self.barrier_at_last()).await;
        proven.unwrap_or(Err(BarrierError::Unproven { after }))
    }

    /// As [`Log::barrier`], however long it takes.
    async fn barrier_at_last(&self) -> Result<State, BarrierError> {
        let (answer, receiver) = oneshot::channel();
        let closed = || BarrierError::Closed { why: why(&self.closed) };
        if self.requests.send(Request::Barrier { answer }).await.is_err() {
            return Err(closed());
        }
        receiver.await.unwrap_or_else(|_| Err(closed()))
    }

    /// What it did so far.
    pub fn counts(&self) -> &Counts {
        &self.shared.counts
    }

    /// Why the log is closed, if it is.
    pub fn is_closed(&self) -> Option<Closed> {
        self.closed.borrow().clone()
    }

    /// Waits until the log is closed, and says why.
    pub async fn closed(&self) -> Closed {
        let mut closed = self.closed.clone();
        match closed.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or(Closed::ShuttingDown),
            Err(_) => Closed::ShuttingDown,
        }
    }

    /// Ends the sequencer at once, as a crash would: what is in flight has an unknown fate.
    pub fn abort(&self) {
        self.task.abort();
    }

    /// Keeps the reclaim boundary at or below `id` until the result is dropped: for an object that is being made.
    #[must_use]
    pub fn hold(&self, id: SegmentId) -> Hold {
        *self.shared.holds.lock().unwrap_or_else(PoisonError::into_inner).entry(id).or_default() += 1;
        Hold { shared: Arc::clone(&self.shared), id }
    }
}

fn why(closed: &watch::Receiver<Option<Closed>>) -> Closed {
    closed.borrow().clone().unwrap_or(Closed::ShuttingDown)
}

/// A flush whose outcome is not known yet. Resolves when it and everything below it is durable, or can't be.
#[derive(Debug)]
pub struct Pending {
    receiver: Option<oneshot::Receiver<Result<Arc<FlushOutcome>, AppendError>>>,
    closed: watch::Receiver<Option<Closed>>,
}

impl Future for Pending {
    type Output = Result<Arc<FlushOutcome>, AppendError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(receiver) = &mut self.receiver else {
            return Poll::Ready(Err(AppendError::NotDone { why: why(&self.closed) }));
        };
        Pin::new(receiver)
            .poll(context)
            .map(|answer| answer.unwrap_or_else(|_| Err(AppendError::Unknown { why: why(&self.closed) })))
    }
}

/// Keeps the reclaim boundary back while it lives.
pub struct Hold {
    shared: Arc<Shared>,
    id: SegmentId,
}

impl std::fmt::Debug for Hold {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Hold").field(&self.id).finish()
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut holds = self.shared.holds.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = holds.get_mut(&self.id) {
            *count -= 1;
            if *count == 0 {
                holds.remove(&self.id);
            }
        }
    }
}
