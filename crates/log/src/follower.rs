//! A broker that follows: one task that folds what the sequencer has made durable, and notices when nobody does.
//!
//! 1. What it folds is the log: commits that the sequencer pushes, which are durable, and what it reads itself. Either is verified like any
//!    other, so a push can be late, repeated or missing, and does no harm.
//! 2. A barrier is a reading of the log to its end that began after it. Those that come meanwhile share the next.
//! 3. It commits nothing; it only says when it is to be tried to take over (see [`Closed::Successor`]): a wrong guess costs time, never data.
//! 4. It is tried when the sequencer's process is gone, or nothing is heard of it for `takeover_after`, and the log has not moved since. So who
//!    is cut off from a sequencer that works leaves it in peace.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::BoxFuture;
use lakebed_model::{Commit, CommitNumber, Draft, Nonce, State};
use lakebed_segment::commit::encode_commit;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};

use crate::append_error::{AppendError, BarrierError, Closed};
use crate::handle::Shared;
use crate::peers::{Follow, PeerError, Peers, Tidings, Told};
use crate::replay::{Replay, ReplayError};
use crate::sequencer::{Request, poll_option};

/// How long a sequencer may take to answer who wants to follow it.
const DIAL_MAX: Duration = Duration::from_millis(500);
/// The rest between two tries to reach it, and between two looks at the log meanwhile.
const REST: Duration = Duration::from_millis(250);
/// Of several who see that it is gone each waits so much longer than the one before, in the order of members, so that mostly one tries.
const RANK: Duration = Duration::from_millis(500);
/// And up to so long besides, so that those who are no members yet don't all try at once.
const JITTER_MAX: Duration = Duration::from_millis(50);
/// What is pushed while the log is read is kept up to so many bytes, as encoded.
const AHEAD_BYTES_MAX: usize = 8 << 20;
/// Later ones don't wait longer than that.
const RANK_MAX: u32 = 6;
/// The longest that a broker which has often taken over waits, as a multiple of `takeover_after`.
const BACKING_OFF_MAX: u32 = 32;

/// How a broker follows.
#[derive(Debug, Clone)]
pub struct Following {
    /// The way to other brokers.
    pub peers: Arc<dyn Peers>,
    /// Nothing heard of a sequencer for so long, and no new commit: it is tried to take over (1 s). Less: producers wait less when a sequencer
    /// hangs, and a slow network makes for more takeovers.
    pub takeover_after: Duration,
    /// How often this broker has taken over lately: each time after the first doubles its patience, so that brokers that can't reach one another don't take
    /// the log from each other all the time.
    pub takeovers: u32,
}

/// The way to the sequencer.
enum Link {
    Dialing(BoxFuture<'static, Result<Tidings, PeerError>>),
    Linked(Tidings),
    /// It could not be reached; it is tried again then.
    Resting(Instant),
}

/// Nothing is heard of the sequencer.
struct Loss {
    /// What was durable when that was noticed, or when the log was last seen to move.
    durable: CommitNumber,
    /// When it is tried to take over, if the log has not moved.
    decide: Instant,
    /// Whether its process is gone.
    is_gone: bool,
    /// Whether a look at the log that began after `decide` is under way.
    deciding: bool,
}

type Caught = Result<State, ReplayError>;
type Waiter = oneshot::Sender<Result<State, BarrierError>>;

pub(crate) struct Follower {
    shared: Arc<Shared>,
    requests: mpsc::Receiver<Request>,
    following: Following,
    rng: StdRng,
    /// Whom the link is to.
    sequencer: Option<Nonce>,
    link: Link,
    /// When it was last begun to reach it.
    dialed: Instant,
    heard: Instant,
    loss: Option<Loss>,
    /// Whom it was linked to last.
    linked_to: Option<Nonce>,
    /// Whether something was heard on this link.
    heard_on_link: bool,
    /// What was pushed while the log was read, in order and without a gap, and its bytes.
    ahead: VecDeque<Box<Commit>>,
    ahead_bytes: usize,
    catching_up: Option<BoxFuture<'static, Caught>>,
    /// The log is to be read.
    behind: bool,
    /// Whom the reading that is under way answers.
    served: Vec<Waiter>,
    waiters: Vec<Waiter>,
    /// The log can't be read; not before then again.
    not_before: Instant,
}

impl Follower {
    pub(crate) fn new(shared: Arc<Shared>, requests: mpsc::Receiver<Request>, following: Following) -> Self {
        let now = Instant::now();
        // SUBTLE: others draw from the same seed; another stream.
        let rng = StdRng::seed_from_u64(shared.seams.seed ^ 0x666f_6c6c_6f77_0000);
        let mut follower = Self {
            shared,
            requests,
            following,
            rng,
            sequencer: None,
            link: Link::Resting(now),
            dialed: now,
            heard: now,
            loss: None,
            linked_to: None,
            heard_on_link: false,
            ahead: VecDeque::new(),
            ahead_bytes: 0,
            catching_up: None,
            behind: false,
            served: Vec::new(),
            waiters: Vec::new(),
            not_before: now,
        };
        follower.dial();
        follower
    }

    /// Follows until it is to be tried to take over, or the log is damaged, or no handle is left.
    pub(crate) async fn run(mut self, closed: &watch::Sender<Option<Closed>>) -> Closed {
        let reason = loop {
            self.begin_catching_up();
            let wake = self.wake();
            let step = tokio::select! {
                biased;
                caught = poll_option(&mut self.catching_up), if self.catching_up.is_some() => self.caught_up(caught),
                told = next(&mut self.link) => self.hear(told),
                request = self.requests.recv() => match request {
                    Some(request) => { self.answer(request); Ok(()) }
                    None => Err(Closed::ShuttingDown),
                },
                () = sleep_until(wake) => { self.tick(); Ok(()) }
            };
            if let Err(reason) = step {
                break reason;
            }
            self.follow_the_owner();
            self.shared.counts.set_sequencer_lost(self.loss.is_some());
        };
        closed.send_replace(Some(reason.clone()));
        self.close(&reason);
        reason
    }

    /// When something is to be done, if nothing happens before.
    fn wake(&self) -> Instant {
        let link = match &self.link {
            Link::Dialing(_) => self.dialed + DIAL_MAX,
            Link::Linked(_) if self.heard_on_link => self.heard + self.following.takeover_after,
            Link::Linked(_) => self.dialed + DIAL_MAX,
            Link::Resting(until) => *until,
        };
        // SUBTLE: what a reading decides that is wanted or under way waits for that reading; a time that has passed would be no rest at all.
        let is_read = self.behind || self.catching_up.is_some();
        let decision = self.loss.as_ref().filter(|_| !is_read).map(|loss| loss.decide);
        let reading =
            ((self.behind || !self.waiters.is_empty()) && self.catching_up.is_none()).then_some(self.not_before);
        [decision, reading].into_iter().flatten().fold(link, Instant::min)
    }

    fn tick(&mut self) {
        let now = Instant::now();
        match &self.link {
            // It may be this process that hung: asked again, the sequencer answers.
            Link::Linked(_) if self.heard_on_link => {
                if now >= self.heard + self.following.takeover_after {
                    self.dial();
                }
            }
            Link::Dialing(_) | Link::Linked(_) if now >= self.dialed + DIAL_MAX => {
                self.lose("it does not answer", false)
            }
            Link::Resting(until) if now >= *until => {
                // Somebody else may have taken over.
                self.behind = true;
                self.dial();
            }
            Link::Dialing(_) | Link::Linked(_) | Link::Resting(_) => {}
        }
        if self.loss.as_ref().is_some_and(|loss| now >= loss.decide && !loss.deciding) {
            self.behind = true;
        }
    }

    fn dial(&mut self) {
        let state = self.shared.state();
        self.sequencer = state.owner();
        let address = state.owner_address().to_owned();
        let Some(sequencer) = state.owner().filter(|_| !address.is_empty()) else {
            return self.lose("it takes no calls", true);
        };
        let identity = self.shared.bucket.identity();
        let follow = Follow { identity, sequencer, address, from: state.number() };
        self.heard_on_link = false;
        self.dialed = Instant::now();
        self.link = Link::Dialing(self.following.peers.follow(follow));
    }

    /// A new sequencer is asked at once.
    fn follow_the_owner(&mut self) {
        if self.shared.state().owner() != self.sequencer {
            self.loss = None;
            self.heard = Instant::now();
            self.dial();
        }
    }

    /// The sequencer can't be reached.
    fn lose(&mut self, why: &str, is_refused: bool) {
        let now = Instant::now();
        self.link = Link::Resting(now + REST);
        self.behind = true;
        // SUBTLE: an address that refuses is that of a process which is gone if it has answered there. One that never has may be wrong: brokers that
        // tell each other wrong addresses must not take the log from each other at once.
        let is_gone = is_refused && (self.linked_to == self.sequencer || self.following.takeovers == 0);
        let decide = self.decide_at(now, is_gone);
        let durable = self.shared.state().number();
        let address = self.shared.state().owner_address().to_owned();
        let loss = self.loss.get_or_insert_with(|| {
            tracing::info!(address, why, is_gone, "the sequencer can't be reached");
            Loss { durable, decide, is_gone, deciding: false }
        });
        if is_gone && !loss.is_gone {
            loss.is_gone = true;
            loss.decide = loss.decide.min(decide);
        }
    }

    /// When this broker is to take over, of which nobody has.
    fn decide_at(&mut self, now: Instant, is_gone: bool) -> Instant {
        let turn = RANK * self.rank() + JITTER_MAX.mul_f64(self.rng.random_range(0.0..1.0));
        if is_gone {
            return now + turn;
        }
        let patience = 1 << self.following.takeovers.saturating_sub(1).min(BACKING_OFF_MAX.ilog2());
        (self.heard + self.following.takeover_after * patience).max(now) + turn
    }

    /// How many members would take over before this broker.
    fn rank(&self) -> u32 {
        let state = self.shared.state();
        let before = state
            .nodes()
            .filter(|node| node.member.http != state.owner_address())
            .take_while(|node| node.member.http != self.shared.options.address)
            .count();
        u32::try_from(before).unwrap_or(u32::MAX).min(RANK_MAX)
    }

    fn hear(&mut self, told: Result<Told, PeerError>) -> Result<(), Closed> {
        let told = match told {
            Ok(told) => told,
            Err(error) => {
                let was_heard = matches!(self.link, Link::Linked(_)) && self.heard_on_link;
                match &error {
                    // The connection has ended. If its process has, too, it refuses another one at once.
                    PeerError::Unreachable { .. } if was_heard => {
                        self.behind = true;
                        self.dial();
                    }
                    error => self.lose(&error.to_string(), matches!(error, PeerError::Gone { .. })),
                }
                return Ok(());
            }
        };
        (self.heard_on_link, self.linked_to) = (true, self.sequencer);
        self.heard = Instant::now();
        self.loss = None;
        self.shared.hear();
        match told {
            Told::Alive => {}
            Told::TakeOver => return Err(Closed::Successor),
            Told::Commit(commit) if self.catching_up.is_some() => self.keep_ahead(commit),
            Told::Commit(commit) => {
                let known = self.shared.state().number();
                if commit.number == known && self.shared.publish(&commit).is_err() {
                    // What the log itself says counts.
                    self.lose("it tells a commit that is not the next", false);
                }
                self.behind |= commit.number >= self.shared.state().number();
            }
            Told::Number(number) => self.behind |= number > self.shared.state().number(),
        }
        Ok(())
    }

    /// Keeps what is pushed while the log is read: what the reading does not reach follows it without a gap.
    fn keep_ahead(&mut self, commit: Box<Commit>) {
        let follows = self.ahead.back().is_none_or(|last| last.number.next() == commit.number);
        let bytes = encode_commit(&commit).len();
        if follows && self.ahead_bytes + bytes <= AHEAD_BYTES_MAX {
            self.ahead_bytes += bytes;
            self.ahead.push_back(commit);
        } else {
            self.behind = true;
        }
    }

    /// Folds what was kept meanwhile.
    fn take_ahead(&mut self) {
        self.ahead_bytes = 0;
        for commit in std::mem::take(&mut self.ahead) {
            let known = self.shared.state().number();
            let is_next = commit.number == known;
            self.behind |= commit.number > known || (is_next && self.shared.publish(&commit).is_err());
        }
    }

    /// Begins to read the log to its end, if that is wanted and not under way.
    fn begin_catching_up(&mut self) {
        let wanted = self.behind || !self.waiters.is_empty();
        if self.catching_up.is_some() || !wanted || Instant::now() < self.not_before {
            return;
        }
        self.behind = false;
        self.served.append(&mut self.waiters);
        if let Some(loss) = &mut self.loss {
            loss.deciding = Instant::now() >= loss.decide;
        }
        let shared = &self.shared;
        let mut replay = Replay::new(shared.bucket.clone(), shared.state(), shared.broken, shared.seams.offload);
        self.catching_up = Some(Box::pin(async move {
            replay.reach_the_end().await?;
            Ok(replay.into_state())
        }));
    }

    fn caught_up(&mut self, caught: Caught) -> Result<(), Closed> {
        self.catching_up = None;
        let state = match caught {
            Ok(state) => state,
            Err(error @ (ReplayError::Read(_) | ReplayError::List(_) | ReplayError::Outrun { .. })) => {
                tracing::debug!(%error, "the log can't be read, and is read again");
                self.not_before = Instant::now() + REST;
                self.behind = true;
                self.waiters.append(&mut self.served);
                self.loss.iter_mut().for_each(|loss| loss.deciding = false);
                return Ok(());
            }
            Err(error) => return Err(Closed::Damaged { what: error.to_string() }),
        };
        self.shared.install(state);
        self.take_ahead();
        let state = self.shared.state();
        self.served.drain(..).for_each(|waiter| drop(waiter.send(Ok(state.clone()))));
        let Some(loss) = &mut self.loss else { return Ok(()) };
        let (has_moved, is_decided) = (state.number() > loss.durable, loss.deciding);
        loss.deciding = false;
        if has_moved {
            // It works, or worked until just now.
            let is_gone = loss.is_gone;
            loss.durable = state.number();
            self.heard = Instant::now();
            let decide = self.decide_at(self.heard, is_gone);
            self.loss.iter_mut().for_each(|loss| loss.decide = decide);
        } else if is_decided && state.owner() == self.sequencer {
            return Err(Closed::Successor);
        }
        Ok(())
    }

    fn answer(&mut self, request: Request) {
        let not_done = || AppendError::NotDone { why: self.follows() };
        let broken = self.shared.broken;
        match request {
            Request::Flush { proposal, answer, .. } if broken.acknowledges_as_follower() => {
                let outcome = Draft::after(&self.shared.state()).flush(&proposal);
                drop(answer.send(outcome.map_err(AppendError::Refused)));
            }
            Request::Barrier { answer } if broken.answers_barriers_from_memory() => {
                drop(answer.send(Ok(self.shared.state())));
            }
            Request::Flush { answer, .. } => drop(answer.send(Err(not_done()))),
            Request::Change { answer, .. } | Request::Alter { answer, .. } => drop(answer.send(Err(not_done()))),
            Request::Barrier { answer } => {
                self.waiters.retain(|waiter| !waiter.is_closed());
                self.waiters.push(answer);
            }
        }
    }

    fn follows(&self) -> Closed {
        Closed::Follows { sequencer: self.shared.state().owner_address().to_owned() }
    }

    /// Answers everything that is left.
    fn close(&mut self, reason: &Closed) {
        self.requests.close();
        while let Ok(request) = self.requests.try_recv() {
            self.answer(request);
        }
        let waiters = self.served.drain(..).chain(self.waiters.drain(..));
        waiters.for_each(|waiter| drop(waiter.send(Err(BarrierError::Closed { why: reason.clone() }))));
    }
}

/// What the sequencer tells next; an end of what it tells means that it is gone.
async fn next(link: &mut Link) -> Result<Told, PeerError> {
    loop {
        match link {
            Link::Dialing(dialing) => *link = Link::Linked(dialing.await?),
            Link::Linked(tidings) => {
                let gone = || PeerError::Gone { address: String::new() };
                return tidings.next().await.unwrap_or_else(|| Err(gone()));
            }
            Link::Resting(_) => return std::future::pending().await,
        }
    }
}
