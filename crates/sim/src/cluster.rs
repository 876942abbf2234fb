//! The network of a cluster: who is reached at which address, what a sequencer tells those who follow it, and who can't reach whom.
//!
//! 1. A follow stream is fed as the server feeds it (commits as they are encoded, numbers, signs of life), but looks at its feed when the clock says
//!    so: whoever waits for the same watch would be woken in an order that is drawn by lot.
//! 2. What is told may come late, twice or not at all, but not out of order, except for what comes twice.
//! 3. A process that was killed is gone at once, or its machine falls silent. Whoever comes back at an address is another.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use lakebed_log::{Follow, PeerError, Peers, Tidings, Told};
use lakebed_model::Member;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep, sleep_until};

use crate::climate::{chance, within};
use crate::process::Gate;
use crate::world::World;

mod leading;
mod storm;

pub(crate) use leading::{Leading, keep_members, tell};
pub(crate) use storm::storm;

/// Messages of a stream that have not arrived; a stream that has more is cut.
const UNDER_WAY_MAX: usize = 1_024;

/// What two processes are to each other that can't reach each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cut {
    /// What is sent is lost.
    Silent,
    /// Connections break, and new ones fail at once.
    Broken,
}

/// The processes of a cluster, as the network has them.
#[derive(Default)]
pub(crate) struct Cluster {
    /// The newest at each address, by slot.
    stations: Mutex<BTreeMap<usize, Arc<Station>>>,
    cuts: Mutex<BTreeMap<(usize, usize), Cut>>,
}

/// What a process is to those who ask it.
pub(crate) enum Serving {
    /// It has no log open: who calls waits.
    Nothing,
    /// It follows.
    Follows,
    /// It believes to be the sequencer.
    Leads(Leading),
}

/// A process as others reach it.
pub(crate) struct Station {
    /// Which address.
    pub slot: usize,
    /// The process.
    pub gate: Arc<Gate>,
    /// Whether nobody answers for it when it is dead, not even its machine.
    falls_silent: bool,
    /// Woken when it is to stop.
    pub stop: Notify,
    /// What it is to others.
    serving: Mutex<Serving>,
    /// Woken when that changes.
    changed: Notify,
}

/// Something on its way to a follower.
struct Message {
    arrives: Instant,
    told: Result<Told, PeerError>,
}

/// The address of a slot.
pub(crate) fn address(slot: usize) -> String {
    format!("member-{slot}:8080")
}

fn slot_of(address: &str) -> Option<usize> {
    address.strip_prefix("member-")?.strip_suffix(":8080")?.parse().ok()
}

impl Cluster {
    /// A process begins to be reached at its address.
    pub(crate) fn enter(&self, slot: usize, gate: &Arc<Gate>, falls_silent: bool) -> Arc<Station> {
        let station = Arc::new(Station {
            slot,
            gate: Arc::clone(gate),
            falls_silent,
            stop: Notify::new(),
            serving: Mutex::new(Serving::Nothing),
            changed: Notify::new(),
        });
        lock(&self.stations).insert(slot, Arc::clone(&station));
        station
    }

    /// Everybody reaches everybody again.
    pub(crate) fn heal(&self) {
        lock(&self.cuts).clear();
    }

    /// The living processes.
    fn living(&self) -> Vec<Arc<Station>> {
        lock(&self.stations).values().filter(|station| !station.gate.is_dead()).map(Arc::clone).collect()
    }

    fn cut(&self, one: usize, other: usize) -> Option<Cut> {
        lock(&self.cuts).get(&(one.min(other), one.max(other))).copied()
    }

    /// Whoever is at an address, as reached from a slot.
    ///
    /// # Cancel Nothing is left behind. It may never return.
    pub(crate) async fn reach(&self, from: usize, address: &str) -> Result<Arc<Station>, PeerError> {
        let gone = || PeerError::Gone { address: address.to_owned() };
        let slot = slot_of(address).ok_or_else(gone)?;
        match self.cut(from, slot) {
            Some(Cut::Broken) => return Err(unreachable(slot, "no route")),
            Some(Cut::Silent) => return std::future::pending().await,
            None => {}
        }
        let station = lock(&self.stations).get(&slot).map(Arc::clone).ok_or_else(gone)?;
        match station.gate.unless_dead(station.gate.pass()).await {
            Some(()) => Ok(station),
            None if station.falls_silent => std::future::pending().await,
            None => Err(gone()),
        }
    }
}

impl Station {
    /// What it is to others from now on.
    pub(crate) fn serve(&self, serving: Serving) {
        *lock(&self.serving) = serving;
        self.changed.notify_waiters();
    }

    /// What it is to others, as the sequencer.
    pub(crate) fn leading<T>(&self, work: impl FnOnce(&mut Leading) -> T) -> Option<T> {
        match &mut *lock(&self.serving) {
            Serving::Leads(leading) => Some(work(leading)),
            Serving::Nothing | Serving::Follows => None,
        }
    }

    /// Waits until somebody is there who answers calls.
    async fn answers(&self) {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            if !matches!(*lock(&self.serving), Serving::Nothing) {
                return;
            }
            changed.await;
        }
    }
}

/// The way of one process to the others.
pub(crate) struct Wire {
    pub(crate) world: Arc<World>,
    pub(crate) slot: usize,
    pub(crate) gate: Arc<Gate>,
    pub(crate) me: Member,
    pub(crate) rng: Mutex<StdRng>,
}

impl fmt::Debug for Wire {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "the way of {:?} to others", self.gate)
    }
}

impl Peers for Wire {
    fn follow(&self, follow: Follow) -> BoxFuture<'static, Result<Tidings, PeerError>> {
        let (world, gate, me, slot) = (Arc::clone(&self.world), Arc::clone(&self.gate), self.me.clone(), self.slot);
        let mut rng = StdRng::seed_from_u64(lock(&self.rng).random());
        let mut journey = move |world: &World| Duration::from_millis(within(&mut rng, world.climate.message_ms));
        async move {
            gate.pass().await;
            sleep(journey(&world)).await;
            let station = world.cluster.reach(slot, &follow.address).await?;
            station.answers().await;
            let (told, arrivals) = mpsc::channel(UNDER_WAY_MAX);
            let is_admitted = station.leading(|leading| leading.admit(&follow, (slot, me), told));
            sleep(journey(&world)).await;
            gate.pass().await;
            if is_admitted != Some(true) {
                world.trace.count("callers told who is no sequencer");
                return Err(PeerError::NotSequencer { address: follow.address });
            }
            world.trace.count("streams begun");
            let listening = Listening { world, slot, gate, station, arrivals, has_ended: false };
            let tidings = futures::stream::unfold(listening, async |mut listening| {
                let told = listening.next().await?;
                Some((told, listening))
            });
            Ok(tidings.boxed())
        }
        .boxed()
    }
}

/// The end of a stream where a follower listens.
struct Listening {
    world: Arc<World>,
    slot: usize,
    gate: Arc<Gate>,
    station: Arc<Station>,
    arrivals: mpsc::Receiver<Message>,
    has_ended: bool,
}

impl Listening {
    async fn next(&mut self) -> Option<Result<Told, PeerError>> {
        while let Some(message) = self.arrivals.recv().await {
            sleep_until(message.arrives).await;
            self.gate.pass().await;
            if self.world.cluster.cut(self.slot, self.station.slot).is_none() || message.told.is_err() {
                return Some(message.told);
            }
            self.world.trace.count("messages to followers lost");
        }
        // The connection has ended: with its process, or because that closed it.
        if self.has_ended || !self.station.gate.is_dead() {
            return None;
        }
        if self.station.falls_silent {
            std::future::pending::<()>().await;
        }
        self.has_ended = true;
        Some(Err(unreachable(self.station.slot, "the connection was reset")))
    }
}

fn unreachable(slot: usize, why: &str) -> PeerError {
    PeerError::Unreachable { address: address(slot), why: why.to_owned() }
}

/// How long a message to a follower takes, unless it is lost.
fn journey(world: &World, rng: &mut StdRng) -> Option<Duration> {
    if chance(rng, world.climate.message_trouble / 2) && !world.is_calm() {
        return None;
    }
    Some(Duration::from_millis(within(rng, world.climate.message_ms)))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no code panics while it holds the network")
}
