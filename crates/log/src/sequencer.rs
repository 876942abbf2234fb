//! The sequencer: one task that owns the order of the commit log.
//!
//! 1. Requests are decided in the order of their arrival, on the speculative state, which holds what is in flight.
//! 2. Several commits are in flight; each is repeated, the same bytes at the same place, until its fate is known.
//! 3. Fates are taken in order: a commit becomes durable when it and all below it are, and only then enters the durable state and
//!    is answered.
//! 4. An answer that needs no commit (a refusal, a repeated flush, a barrier) waits for a commit that began after it, or for a
//!    probe of the next place that began after it. So even a fenced sequencer answers nothing stale.
//! 5. At the first place that holds another's object everything from there on did not happen, unless a checkpoint shows that the log
//!    had passed that place; then the log is asked what happened ([`crate::fenced`]).

use std::collections::VecDeque;
use std::sync::Arc;

use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use lakebed_model::{
    Change, Changed, Commit, CommitNumber, Draft, FlushOutcome, FlushProposal, Refusal, SegmentId, State,
};
use lakebed_segment::body::Body;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tracing::{Instrument, Span};

use crate::append_error::{AppendError, BarrierError, ChangeError, Closed};
use crate::bucket::{Landed, Probed};
use crate::checkpoint::Keeper;
use crate::fenced::{self, Last};
use crate::handle::Shared;

/// Most requests that one commit takes in; the rest goes into the next.
const COMMIT_REQUESTS_MAX: usize = 4096;
/// Flush ids are forgotten, oldest first, when more than this many are remembered; half are kept.
const FLUSHES_REMEMBERED_MAX: usize = 4096;
/// They are forgotten too when their outcomes are more than this many, each of some tens of bytes; half of these are kept.
const OUTCOMES_REMEMBERED_MAX: usize = 128 * 1024;
/// So many flushes are remembered whatever their outcomes: what other brokers have under way must not fall below the boundary.
const FLUSHES_REMEMBERED_MIN: usize = 16;

/// So many waiters are never too many to remember.
const WAITERS_CHECKED_MIN: usize = 1024;
/// What is to change, given the state as it is decided so far.
pub(crate) type Decide = Box<dyn FnOnce(&State) -> Result<Vec<Change>, Refusal> + Send>;

/// What can be asked of the sequencer.
pub(crate) enum Request {
    /// Commit a flush; a body makes it inline.
    Flush {
        proposal: FlushProposal,
        body: Option<Body>,
        answer: oneshot::Sender<Result<Arc<FlushOutcome>, AppendError>>,
        /// Where it came from, for traces.
        span: Span,
    },
    /// Decide a change.
    Change { change: Change, answer: oneshot::Sender<Result<Changed, ChangeError>> },
    /// Decide what follows from the state that is decided so far.
    Alter { decide: Decide, answer: oneshot::Sender<Result<Changed, ChangeError>> },
    /// Prove that the durable state is the end of the log.
    Barrier { answer: oneshot::Sender<Result<State, BarrierError>> },
}

/// An answer that waits for durability.
pub(crate) enum Answer {
    Flush(oneshot::Sender<Result<Arc<FlushOutcome>, AppendError>>, Result<Arc<FlushOutcome>, AppendError>),
    Change(oneshot::Sender<Result<Changed, ChangeError>>, Result<Changed, ChangeError>),
    Barrier(oneshot::Sender<Result<State, BarrierError>>),
}

impl Answer {
    // A requester that is gone wants no answer: every send below may fail, and that is fine.
    pub(crate) fn give(self, shared: &Shared) {
        match self {
            Self::Flush(to, outcome) => drop(to.send(outcome)),
            Self::Change(to, outcome) => drop(to.send(outcome)),
            Self::Barrier(to) => drop(to.send(Ok(shared.state()))),
        }
    }
}

/// A commit whose fate is not known, or that waits for one below it.
pub(crate) struct InFlight {
    pub(crate) commit: Commit,
    pub(crate) answers: Vec<Answer>,
    begun: Instant,
    fate: Option<Landed>,
}

/// An answer that needs no commit of its own.
struct Waiter {
    answer: Answer,
    /// The first commit that began after it.
    after: CommitNumber,
    /// The first probe that began after it.
    probe: u64,
}

pub(crate) struct Sequencer {
    shared: Arc<Shared>,
    requests: mpsc::Receiver<Request>,
    queue: VecDeque<Request>,
    speculative: State,
    in_flight: VecDeque<InFlight>,
    puts: FuturesUnordered<BoxFuture<'static, (CommitNumber, Landed)>>,
    waiters: VecDeque<Waiter>,
    /// How many of them there may be before those who gave up are looked for.
    waiters_checked_at: usize,
    probe: Option<BoxFuture<'static, Probed>>,
    probes_begun: u64,
    keeper: Option<Keeper>,
    keeping: Option<BoxFuture<'static, Keeper>>,
    /// Fenced at a place that the log may have passed: what is in flight may have happened.
    passed: bool,
}

impl Sequencer {
    pub(crate) fn new(shared: Arc<Shared>, requests: mpsc::Receiver<Request>, keeper: Keeper) -> Self {
        let speculative = shared.state();
        Self {
            shared,
            requests,
            queue: VecDeque::new(),
            speculative,
            in_flight: VecDeque::new(),
            puts: FuturesUnordered::new(),
            waiters: VecDeque::new(),
            waiters_checked_at: WAITERS_CHECKED_MIN,
            probe: None,
            probes_begun: 0,
            keeper: Some(keeper),
            keeping: None,
            passed: false,
        }
    }

    /// Serves requests until the log is fenced, damaged, or no handle is left and everything is answered.
    ///
    /// # Order  `closed` says why before anybody is answered for that reason: whoever is told that the log is closed can ask why.
    /// # Cancel
    /// What is in flight is unknown to those who asked.
    pub(crate) async fn run(mut self, closed: &watch::Sender<Option<Closed>>) -> Closed {
        let mut open = true;
        let reason = loop {
            if !open && self.queue.is_empty() && self.in_flight.is_empty() && self.waiters.is_empty() {
                break Closed::ShuttingDown;
            }
            let step = tokio::select! {
                biased;
                Some((number, landed)) = self.puts.next(), if !self.puts.is_empty() => self.take_fate(number, landed),
                probed = poll_option(&mut self.probe), if self.probe.is_some() => self.take_probe(probed),
                keeper = poll_option(&mut self.keeping), if self.keeping.is_some() => {
                    self.keeping = None;
                    self.keeper = Some(keeper);
                    Ok(())
                }
                request = self.requests.recv(), if open && self.queue.len() < COMMIT_REQUESTS_MAX => {
                    match request {
                        Some(request) => self.queue.push_back(request),
                        None => open = false,
                    }
                    Ok(())
                }
            };
            if let Err(closed) = step.and_then(|()| self.go_on()) {
                break closed;
            }
        };
        let reason = self.learn_fates(reason).await;
        closed.send_replace(Some(reason.clone()));
        self.close(&reason);
        reason
    }

    /// Finds out what became of what is in flight, if being fenced does not tell.
    async fn learn_fates(&mut self, reason: Closed) -> Closed {
        if !self.passed {
            return reason;
        }
        match fenced::look_up(&self.shared, &mut self.in_flight).await {
            Ok(known) => {
                self.passed = !known;
                reason
            }
            Err(damaged) => damaged,
        }
    }

    /// Starts whatever can be started now.
    fn go_on(&mut self) -> Result<(), Closed> {
        self.forget_who_gave_up();
        while self.queue.len() < COMMIT_REQUESTS_MAX {
            match self.requests.try_recv() {
                Ok(request) => self.queue.push_back(request),
                Err(_) => break,
            }
        }
        while self.in_flight.len() < self.shared.options.in_flight_max && !self.queue.is_empty() {
            self.issue()?;
        }
        if self.probe.is_none() && self.in_flight.is_empty() && !self.waiters.is_empty() {
            self.probes_begun += 1;
            let (bucket, place) = (self.shared.bucket.clone(), self.speculative.place());
            self.probe = Some(Box::pin(async move { bucket.probe(place).await }));
        }
        self.keep();
        Ok(())
    }

    /// Decides queued requests and puts the commit that they make, if they make one.
    fn issue(&mut self) -> Result<(), Closed> {
        let mut draft = Draft::after(&self.speculative);
        let mut answers = Vec::new();
        let mut body = None;
        let mut span = Span::none();
        for _ in 0..COMMIT_REQUESTS_MAX {
            let second_inline =
                |request: &Request| matches!(request, Request::Flush { body: Some(_), .. }) && body.is_some();
            match self.queue.front() {
                None => break,
                Some(request) if second_inline(request) => break,
                Some(_) => {}
            }
            let Some(request) = self.queue.pop_front() else { break };
            if let Request::Flush { span: cause, .. } = &request
                && span.is_none()
            {
                span = cause.clone();
            }
            answers.push(self.decide(&mut draft, &mut body, request));
        }
        if draft.is_empty() {
            let (after, probe) = (self.speculative.number(), self.probes_begun);
            self.waiters.extend(answers.into_iter().map(|answer| Waiter { answer, after, probe }));
            self.forget_who_gave_up();
            return Ok(());
        }
        self.forget_old_flushes(&mut draft);
        let (commit, next) = draft.seal(self.shared.nonce, self.shared.now_ms());
        if self.shared.broken.pushes_in_flight() {
            self.shared.recent.push(&commit);
        }
        let object = self.shared.bucket.encode_commit(&commit, body.unwrap_or_else(Body::empty));
        let (bucket, place, number) = (self.shared.bucket.clone(), commit.place, commit.number);
        let put = async move { (number, bucket.put_commit(place, number, object).await) };
        // A commit that takes in several flushes is shown under the first.
        self.puts.push(Box::pin(put.instrument(span)));
        self.speculative = next;
        self.in_flight.push_back(InFlight { commit, answers, begun: Instant::now(), fate: None });
        self.tell_in_flight();
        Ok(())
    }

    fn tell_in_flight(&self) {
        self.shared.counts.set_in_flight(self.in_flight.len(), self.in_flight.front().map(|one| one.begun));
    }

    /// Lets go of barriers whose requesters have given up: while the store does not answer, new ones come all the time.
    fn forget_who_gave_up(&mut self) {
        if self.waiters.len() >= self.waiters_checked_at {
            self.waiters.retain(|waiter| !matches!(&waiter.answer, Answer::Barrier(to) if to.is_closed()));
            self.waiters_checked_at = (2 * self.waiters.len()).max(WAITERS_CHECKED_MIN);
        }
        if self.queue.len() >= COMMIT_REQUESTS_MAX {
            self.queue.retain(|request| !matches!(request, Request::Barrier { answer } if answer.is_closed()));
        }
    }

    fn decide(&self, draft: &mut Draft, inline: &mut Option<Body>, request: Request) -> Answer {
        match request {
            Request::Flush { mut proposal, body, answer, .. } => {
                if self.shared.broken.commits_flushes_twice()
                    && draft.state().flush(proposal.id).is_some()
                    && body.is_some()
                {
                    proposal.id = self.shared.mint();
                }
                let known = draft.state().flush(proposal.id).is_some();
                let outcome = draft.flush(&proposal).map_err(AppendError::Refused);
                if outcome.is_ok() && !known {
                    *inline = body.or(inline.take());
                }
                Answer::Flush(answer, outcome)
            }
            Request::Change { mut change, answer } => {
                if self.shared.broken.commits_under_old_generations()
                    && let Change::CommitOffsets(commit) = &mut change
                {
                    let group = draft.state().group(&commit.group);
                    commit.generation = group.map_or(commit.generation, |group| group.generation);
                }
                Answer::Change(answer, draft.change(change).map_err(AppendError::Refused))
            }
            Request::Alter { decide, answer } => {
                let decided = decide(draft.state()).and_then(|changes| draft.change_all(changes));
                Answer::Change(answer, decided.map_err(AppendError::Refused))
            }
            Request::Barrier { answer } => Answer::Barrier(answer),
        }
    }

    /// Moves the reclaim boundary along with a commit that is written anyway.
    fn forget_old_flushes(&self, draft: &mut Draft) {
        let flushes_max = self.shared.options.flushes_remembered_max.unwrap_or(FLUSHES_REMEMBERED_MAX);
        let boundary = match (oldest_kept(draft.state(), flushes_max), self.shared.lowest_hold()) {
            (Some(oldest), Some(hold)) => oldest.min(hold),
            (Some(oldest), None) => oldest,
            (None, _) => return,
        };
        // A refusal means that the boundary is there already (a hold keeps it back): nothing to do.
        drop(draft.change(Change::MoveReclaimBoundary(boundary)));
    }

    /// Takes the fate of one commit, and of those that it held up.
    fn take_fate(&mut self, number: CommitNumber, landed: Landed) -> Result<(), Closed> {
        let one = self.in_flight.iter_mut().find(|one| one.commit.number == number);
        let one = one.expect("a commit stays in flight until its fate is taken");
        one.fate = Some(landed);
        if self.shared.broken.acknowledges_out_of_order() && landed == Landed::Durable {
            let answers = std::mem::take(&mut one.answers);
            answers.into_iter().for_each(|answer| answer.give(&self.shared));
        }
        while let Some(front) = self.in_flight.front() {
            match front.fate {
                None => break,
                Some(Landed::Other { passed }) => {
                    self.passed = passed;
                    return Err(Closed::Fenced { at: front.commit.place });
                }
                Some(Landed::Durable) => {}
            }
            let front = self.in_flight.pop_front().expect("it has a front");
            self.shared.counts.commit_micros.observe_time(front.begun.elapsed());
            self.shared.publish(&front.commit)?;
            front.answers.into_iter().for_each(|answer| answer.give(&self.shared));
        }
        self.tell_in_flight();
        let durable = self.shared.state().number();
        self.release(|waiter| waiter.after < durable);
        Ok(())
    }

    fn take_probe(&mut self, probed: Probed) -> Result<(), Closed> {
        self.probe = None;
        match probed {
            Probed::Free => {
                let begun = self.probes_begun;
                self.release(|waiter| waiter.probe < begun);
                Ok(())
            }
            // A commit of ours was issued meanwhile; its durability answers those who wait.
            Probed::Taken { writer } if writer == self.shared.nonce => Ok(()),
            // The commit that was issued there meanwhile will find it too, and ask whether the log had passed the place.
            Probed::Taken { .. } if !self.in_flight.is_empty() => Ok(()),
            Probed::Taken { .. } => Err(Closed::Fenced { at: self.shared.state().place() }),
            Probed::Damaged(damaged) => Err(Closed::Damaged { what: damaged.to_string() }),
        }
    }

    fn release(&mut self, ready: impl Fn(&Waiter) -> bool) {
        let mut waiting = VecDeque::with_capacity(self.waiters.len());
        for waiter in self.waiters.drain(..) {
            if ready(&waiter) { waiter.answer.give(&self.shared) } else { waiting.push_back(waiter) }
        }
        self.waiters = waiting;
    }

    /// Begins a checkpoint when replaying would cost more than it does.
    fn keep(&mut self) {
        let state =
            if self.shared.broken.checkpoints_in_flight() { self.speculative.clone() } else { self.shared.state() };
        if self.keeper.as_ref().is_some_and(|keeper| keeper.is_due(&state))
            && let Some(keeper) = self.keeper.take()
        {
            self.keeping = Some(Box::pin(keeper.keep(Arc::clone(&self.shared), state)));
        }
    }

    /// Answers everything that is left.
    fn close(&mut self, reason: &Closed) {
        self.requests.close();
        while let Ok(request) = self.requests.try_recv() {
            self.queue.push_back(request);
        }
        let known = matches!(reason, Closed::Fenced { .. } | Closed::ShuttingDown) && !self.passed;
        let last = Last { reason, durable: self.shared.state().number(), known };
        self.in_flight.drain(..).flat_map(|one| one.answers).for_each(|answer| last.answer(answer));
        self.waiters.drain(..).for_each(|waiter| last.answer(waiter.answer));
        let not_done = || AppendError::NotDone { why: reason.clone() };
        for request in self.queue.drain(..) {
            match request {
                Request::Flush { answer, .. } => drop(answer.send(Err(not_done()))),
                Request::Change { answer, .. } | Request::Alter { answer, .. } => {
                    drop(answer.send(Err(not_done())));
                }
                Request::Barrier { answer } => drop(answer.send(Err(BarrierError::Closed { why: reason.clone() }))),
            }
        }
    }
}

/// The oldest flush to remember if there is one to forget.
fn oldest_kept(state: &State, flushes_max: usize) -> Option<SegmentId> {
    let (flushes, outcomes) = (state.flush_count(), state.outcome_count());
    if flushes <= flushes_max && (outcomes <= OUTCOMES_REMEMBERED_MAX || flushes <= FLUSHES_REMEMBERED_MIN) {
        return None;
    }
    let (mut oldest, mut outcomes) = (None, 0);
    for (kept, (id, outcome)) in state.flushes().rev().enumerate() {
        outcomes += outcome.count();
        if kept >= flushes_max / 2 || (outcomes > OUTCOMES_REMEMBERED_MAX / 2 && kept >= FLUSHES_REMEMBERED_MIN) {
            break;
        }
        oldest = Some(SegmentId::from(id));
    }
    oldest
}

/// Polls the future in `slot`; pends for ever if there is none.
pub(crate) async fn poll_option<T>(slot: &mut Option<BoxFuture<'static, T>>) -> T {
    match slot {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}
