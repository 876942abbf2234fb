//! The gate before a paced store: callers wait here until [`pace`](crate::pace) lets them send.
//!
//! 1. Of those who wait, the first priority goes first, and within it who came first.
//! 2. Nobody is kept for ever. Where nothing begins or ends for [`STALLED`], the first who waits goes in without a place, and so does whoever has
//!    waited for as long as an attempt may take: pacing makes requests wait, and never fail.
//! 3. Whoever is dropped leaves nothing behind: neither in the queue nor among those that are under way.
//! 4. The queue holds no more than callers hold: each waits by itself, and its bytes are its own.
//!
//! SUBTLE: places are held by futures that may not be polled while their owner waits for another request (a stream of reads ahead, say). With few
//! places left that would be a deadlock, and it is rule 2 that ends it.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, sleep_until, timeout};

use crate::backend::{Failure, FailureKind};
use crate::pace::{Begun, Pace, Pacing, Priority};
use crate::retry::RetryPolicy;

/// Longer than nearly every request takes: then those that hold the places hang, or nobody looks at them.
const STALLED: Duration = Duration::from_secs(1);
/// Makes the gate's chance another than that of the waits between attempts.
const SEED_OF_RESTS: u64 = 0x7065_7374;

/// See the module.
#[derive(Debug)]
pub(crate) struct Gate {
    inside: Mutex<Inside>,
    /// Tells those who wait that the store is left alone now, or for longer.
    ///
    /// SUBTLE: not a watch, which wakes in an order that it draws by lot.
    throttled: Notify,
    policy: RetryPolicy,
}

#[derive(Debug)]
struct Inside {
    pace: Pace,
    waiting: BTreeMap<(Priority, u64), oneshot::Sender<Turn>>,
    tickets: u64,
    random: StdRng,
    /// When something last began or ended.
    moved: Instant,
}

/// How a paced store is asked now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Paced {
    /// How many requests may be under way.
    pub limit: u32,
    /// How many are.
    pub under_way: u32,
    /// How many wait, in the order of [`Priority::ALL`].
    pub waiting: [u64; 4],
}

/// The right to send a request, which ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Turn {
    gate: Arc<Gate>,
    begun: Begun,
    heard: Heard,
}

/// What came of a request, as far as it says something of how busy the store is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Heard {
    Nothing,
    Answer,
    Throttle,
}

/// Somebody who waits.
struct Waiting<'a> {
    gate: &'a Arc<Gate>,
    ticket: (Priority, u64),
    turn: oneshot::Receiver<Turn>,
}

type Granted = Vec<(oneshot::Sender<Turn>, Turn)>;

impl Gate {
    pub(crate) fn new(pacing: &Pacing, policy: RetryPolicy, seed: u64) -> Self {
        let inside = Inside {
            pace: Pace::new(pacing),
            waiting: BTreeMap::new(),
            tickets: 0,
            random: StdRng::seed_from_u64(seed ^ SEED_OF_RESTS),
            moved: Instant::now(),
        };
        Self { inside: Mutex::new(inside), throttled: Notify::new(), policy }
    }

    pub(crate) fn paced(&self) -> Paced {
        let inside = self.lock();
        let mut waiting = [0; 4];
        inside.waiting.keys().for_each(|(priority, _)| waiting[*priority as usize] += 1);
        Paced { limit: inside.pace.limit(), under_way: inside.pace.under_way(), waiting }
    }

    /// Waits for a turn.
    ///
    /// # Cancel
    /// Nothing is left of it.
    pub(crate) async fn turn(self: &Arc<Self>, priority: Priority) -> Turn {
        let mut waiting = match self.enter(priority) {
            Ok(turn) => return turn,
            Err(waiting) => waiting,
        };
        if let Ok(turn) = timeout(self.policy.attempt_time_max, waiting.wait()).await {
            return turn;
        }
        let begun = self.lock().pace.begin_beyond(priority);
        Turn::new(self, begun)
    }

    /// A turn that nobody waits for, if there is one.
    pub(crate) fn free_turn(self: &Arc<Self>, priority: Priority) -> Option<Turn> {
        let now = Instant::now();
        let mut inside = self.lock();
        let is_free = inside.waiting.is_empty() && inside.pace.admits(priority, now);
        is_free.then(|| Turn::new(self, inside.begin(priority, now)))
    }

    fn enter(self: &Arc<Self>, priority: Priority) -> Result<Turn, Waiting<'_>> {
        let now = Instant::now();
        let mut inside = self.lock();
        // Those who wait may have waited for a time that is over.
        let granted = inside.grant(self, now);
        let is_first = inside.waiting.first_key_value().is_none_or(|((first, _), _)| *first > priority);
        let entered = if is_first && inside.pace.admits(priority, now) {
            Ok(Turn::new(self, inside.begin(priority, now)))
        } else {
            inside.tickets += 1;
            let (ticket, (sender, turn)) = ((priority, inside.tickets), oneshot::channel());
            inside.waiting.insert(ticket, sender);
            Err(Waiting { gate: self, ticket, turn })
        };
        drop(inside);
        give(granted);
        entered
    }

    /// Lets in who may go in; says when to look again if nothing happens.
    fn look(self: &Arc<Self>) -> Instant {
        let now = Instant::now();
        let mut inside = self.lock();
        let mut granted = inside.grant(self, now);
        if inside.stalls_at() <= now
            && let Some(first) = inside.waiting.first_entry()
        {
            let (priority, sender) = (first.key().0, first.remove());
            inside.moved = now;
            granted.push((sender, Turn::new(self, inside.pace.begin_beyond(priority))));
        }
        let again = inside.pace.rest_until(now).unwrap_or_else(|| inside.stalls_at());
        drop(inside);
        give(granted);
        again
    }

    fn lock(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inside {
    /// Takes those out of the queue who may go in now. Who comes after one that may not, may not either.
    fn grant(&mut self, gate: &Arc<Gate>, now: Instant) -> Granted {
        let mut granted = Granted::new();
        while let Some(first) = self.waiting.first_entry() {
            let priority = first.key().0;
            if !self.pace.admits(priority, now) {
                break;
            }
            let sender = first.remove();
            granted.push((sender, Turn::new(gate, self.begin(priority, now))));
        }
        granted
    }

    fn begin(&mut self, priority: Priority, now: Instant) -> Begun {
        self.moved = now;
        self.pace.begin(priority)
    }

    /// When it is to be taken for stalled, if nothing happens. A store that is left alone is not.
    fn stalls_at(&self) -> Instant {
        self.pace.last_rest_until().map_or(self.moved, |until| until.max(self.moved)) + STALLED
    }

    fn rest(random: &mut StdRng, policy: &RetryPolicy, throttles: u32) -> Duration {
        policy.mean_wait(throttles).mul_f64(random.random_range(0.5..1.5))
    }
}

/// Hands turns out. SUBTLE: never under the lock, since a turn whose receiver is gone is dropped here, and takes it.
fn give(granted: Granted) {
    for (sender, turn) in granted {
        drop(sender.send(turn));
    }
}

impl Waiting<'_> {
    async fn wait(&mut self) -> Turn {
        loop {
            let mut throttled = pin!(self.gate.throttled.notified());
            // SUBTLE: before looking: a throttle in between would be missed, and with it the timer that lets people in when its rest is over.
            throttled.as_mut().enable();
            let again = self.gate.look();
            tokio::select! {
                biased;
                turn = &mut self.turn => return turn.expect("who is taken out of the queue gets a turn"),
                () = throttled => {}
                () = sleep_until(again) => {}
            }
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        // What was given already and not taken ends with the receiver, behind this.
        self.gate.lock().waiting.remove(&self.ticket);
    }
}

impl Turn {
    fn new(gate: &Arc<Gate>, begun: Begun) -> Self {
        Self { gate: Arc::clone(gate), begun, heard: Heard::Nothing }
    }

    /// What came of the request.
    pub(crate) fn hear<T>(&mut self, outcome: &Result<T, Failure>) {
        self.heard = match outcome.as_ref().map_err(|failure| failure.kind) {
            Ok(_) | Err(FailureKind::Exists | FailureKind::Absent | FailureKind::Refused) => Heard::Answer,
            Err(FailureKind::Throttled) => Heard::Throttle,
            Err(FailureKind::NotSent | FailureKind::Doubt | FailureKind::Broken) => Heard::Nothing,
        };
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let now = Instant::now();
        let mut inside = self.gate.lock();
        let Inside { pace, random, .. } = &mut *inside;
        match self.heard {
            Heard::Nothing => {}
            Heard::Answer => pace.answered(self.begun),
            Heard::Throttle => {
                pace.throttled(self.begun, now, |throttles| Inside::rest(random, &self.gate.policy, throttles));
            }
        }
        pace.end(self.begun);
        inside.moved = now;
        let granted = inside.grant(&self.gate, now);
        drop(inside);
        if self.heard == Heard::Throttle {
            self.gate.throttled.notify_waiters();
        }
        give(granted);
    }
}

#[cfg(test)]
mod tests;
