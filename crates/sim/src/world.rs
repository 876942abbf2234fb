//! A world: a bucket, brokers that live and die, clients, and whoever harms them. Everything follows from its seed.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroU16;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use lakebed_log::{Log, Offload, Options, Seams};
use lakebed_model::{Cell, PartitionIndex, PartitionKey, TopicId};
use lakebed_segment::commit::Identity;
use lakebed_store::faults::FaultBackend;
use lakebed_store::{Hedging, Pacing, RetryPolicy, Store, StoreOptions};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::time::sleep;

use crate::bucket::Bucket;
use crate::climate::{Climate, chance, within};
use crate::cluster::{self, Cluster};
use crate::history::History;
use crate::process::{Gate, GatedBackend};
use crate::trace::{Listener, Trace};
use crate::{admin, broker, checker, client, faults, groups, liveness, member, neighbour, producers, uploader};

/// The wall clock when a world begins.
const EPOCH_MS: i64 = 1_700_000_000_000;
/// How long everything that is late may take to land, in simulated time.
const AFTERMATH: Duration = Duration::from_secs(120);

/// What came of a world.
#[derive(Debug, Clone)]
pub struct Report {
    /// Its seed.
    pub seed: u64,
    /// The hash of everything that happened.
    pub hash: u64,
    /// What must never be.
    pub anomalies: Vec<crate::trace::Anomaly>,
    /// What was exercised.
    pub counters: BTreeMap<&'static str, u64>,
    /// The last lines of the trace.
    pub tail: Vec<String>,
}

/// What all actors of a world share.
pub struct World {
    /// The seed.
    pub(crate) seed: u64,
    /// The weather.
    pub(crate) climate: Arc<Climate>,
    /// What happens.
    pub(crate) trace: Trace,
    /// The bucket.
    pub(crate) bucket: Bucket,
    /// The network between the brokers of a cluster.
    pub(crate) cluster: Cluster,
    /// Whether faults have ended.
    healed: Arc<AtomicBool>,
    ended: AtomicBool,
    processes: AtomicU64,
    /// Until when no broker comes, in simulated milliseconds.
    quiet_until_ms: AtomicU64,
    history: Mutex<History>,
    /// Those that serve a log, oldest first. Where there is no cluster, each believes to be the sequencer.
    brokers: Mutex<Vec<Arc<broker::Broker>>>,
    /// The other brokers, by slot.
    uploaders: Mutex<BTreeMap<usize, Arc<uploader::Uploader>>>,
    /// Processes that the nemesis may harm.
    gates: Mutex<Vec<Arc<Gate>>>,
    backends: Mutex<Vec<Arc<FaultBackend>>>,
    /// Every store that was opened, for what it counted.
    stores: Mutex<Vec<Store>>,
    topics: Mutex<BTreeMap<TopicId, u32>>,
}

/// A process that was started.
pub(crate) struct Process {
    /// Where everything of it passes.
    pub(crate) gate: Arc<Gate>,
    /// Its store.
    pub(crate) store: Store,
    /// Its clock and chance.
    pub(crate) seams: Seams,
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.tail {
            writeln!(formatter, "{line}")?;
        }
        for anomaly in &self.anomalies {
            writeln!(formatter, "{anomaly}")?;
        }
        let seed = self.seed;
        write!(
            formatter,
            "seed {seed} is wrong; `cargo run -p lakebed-sim --release -- --seed {seed} --trace` shows all of it"
        )
    }
}

impl World {
    /// Runs the world of a seed, in the climate that the seed gives it, and judges it.
    pub fn run_seed(seed: u64, print: bool) -> Report {
        let climate = Climate::draw(&mut StdRng::seed_from_u64(seed));
        Self::run(seed, climate, print)
    }

    /// Runs a world to its end and judges it.
    pub fn run(seed: u64, climate: Climate, print: bool) -> Report {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        let runtime = runtime.expect("a runtime without threads or sockets can be made");
        runtime.block_on(async move {
            let trace = Trace::new(print);
            let listener = tracing::Dispatch::new(Listener::new(trace.clone()));
            let _listening = tracing::dispatcher::set_default(&listener);
            let world = Arc::new(Self::new(seed, climate, trace));
            world.live().await;
            checker::check(&world).await;
            world.report()
        })
    }

    fn new(seed: u64, climate: Climate, trace: Trace) -> Self {
        trace.note(format_args!("seed {seed}: {climate:?}"));
        Self {
            seed,
            bucket: Bucket::new(trace.clone(), climate.ambush),
            climate: Arc::new(climate),
            history: Mutex::new(History::new(trace.clone())),
            trace,
            cluster: Cluster::default(),
            healed: Arc::default(),
            ended: AtomicBool::new(false),
            processes: AtomicU64::new(0),
            quiet_until_ms: AtomicU64::new(0),
            brokers: Mutex::default(),
            uploaders: Mutex::default(),
            gates: Mutex::default(),
            backends: Mutex::default(),
            stores: Mutex::default(),
            topics: Mutex::default(),
        }
    }

    async fn live(self: &Arc<Self>) {
        if self.climate.members > 0 {
            self.trace.count("clusters");
            for slot in 0..self.climate.members {
                tokio::spawn(member::run(Arc::clone(self), slot));
            }
            tokio::spawn(cluster::storm(Arc::clone(self)));
        } else {
            for slot in 0..self.climate.brokers {
                tokio::spawn(broker::run(Arc::clone(self), slot));
            }
        }
        for slot in 0..self.climate.uploaders {
            tokio::spawn(uploader::run(Arc::clone(self), slot));
        }
        for writer in 0..self.climate.producers {
            tokio::spawn(client::run(Arc::clone(self), writer));
        }
        tokio::spawn(admin::run(Arc::clone(self)));
        tokio::spawn(producers::run(Arc::clone(self)));
        for rival in 0..groups::RIVALS {
            tokio::spawn(groups::run(Arc::clone(self), rival));
        }
        for cell in (0..self.climate.cells).filter(|cell| *cell != self.climate.cell) {
            self.trace.count("neighbours");
            tokio::spawn(neighbour::run(Arc::clone(self), cell));
        }
        tokio::spawn(nemesis(Arc::clone(self)));
        if self.climate.hunts {
            tokio::spawn(hunter(Arc::clone(self)));
        }
        if self.climate.stuns {
            tokio::spawn(stunner(Arc::clone(self)));
        }
        let mut left = self.climate.duration_ms;
        while left > 0 && !self.trace.has_anomaly() {
            let step = left.min(500);
            sleep(Duration::from_millis(step)).await;
            left -= step;
        }
        if self.climate.members > 0 && !self.trace.has_anomaly() {
            self.calm();
            liveness::check(self).await;
        }
        self.ended.store(true, Ordering::Relaxed);
        self.trace.note(format_args!("the end begins"));
        for gate in std::mem::take(&mut *lock(&self.gates)) {
            gate.exit();
        }
        self.healed.store(true, Ordering::Relaxed);
        sleep(AFTERMATH).await;
        for backend in lock(&self.backends).iter() {
            let counts = backend.counts();
            self.trace.add("late PUTs", counts.late_creates_won);
            self.trace.add("late PUTs declined", counts.late_creates_declined);
            self.trace.add("writes applied with an error", counts.applied_with_error);
            self.trace.add("bodies cut", counts.bodies_cut);
        }
        for store in lock(&self.stores).iter() {
            let counts = store.counts();
            self.trace.add("PUTs hedged", counts.put.hedges);
            self.trace.add("GETs hedged", counts.get.hedges);
            self.trace.add("hedges that were first", counts.put.hedges_won + counts.get.hedges_won);
        }
    }

    /// Ends all harm; everybody goes on.
    fn calm(&self) {
        self.trace.note(format_args!("peace begins"));
        self.healed.store(true, Ordering::Relaxed);
        self.quiet_until_ms.store(0, Ordering::Relaxed);
        self.cluster.heal();
        for gate in lock(&self.gates).iter() {
            gate.shelter();
            gate.cut_off(false);
            gate.resume();
        }
    }

    fn report(&self) -> Report {
        Report {
            seed: self.seed,
            hash: self.trace.hash(),
            anomalies: self.trace.anomalies(),
            counters: self.trace.counters(),
            tail: self.trace.tail(),
        }
    }

    /// Chance for one actor.
    pub(crate) fn rng(&self, actor: &str, index: u64) -> StdRng {
        let mut seed = self.seed ^ 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(index + 1);
        for byte in actor.bytes() {
            seed = (seed ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        StdRng::seed_from_u64(seed)
    }

    /// Whether clients should stop.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    /// Whether nothing is harmed any more.
    pub(crate) fn is_calm(&self) -> bool {
        self.has_ended() || self.healed.load(Ordering::Relaxed)
    }

    /// What clients know.
    pub(crate) fn history(&self) -> MutexGuard<'_, History> {
        lock(&self.history)
    }

    /// Starts a process with its own store, clock and chance.
    pub(crate) fn start(self: &Arc<Self>, name: &str) -> Process {
        let number = self.processes.fetch_add(1, Ordering::Relaxed);
        let mut rng = self.rng("process", number);
        let sheltered = self.healed.load(Ordering::Relaxed);
        let doom = (!sheltered && chance(&mut rng, self.climate.doomed)).then(|| rng.random_range(4..200));
        let gate = Gate::new(format!("{name} #{number}"), doom, self.trace.clone());
        self.trace.note(format_args!("{} starts", gate.name()));
        let plan = faults::plan(Arc::clone(&self.climate), rng.random(), Arc::clone(&gate), Arc::clone(&self.healed));
        let backend = Arc::new(FaultBackend::new(Arc::new(self.bucket.clone()), plan));
        lock(&self.backends).push(Arc::clone(&backend));
        let retry = RetryPolicy {
            attempts_max: 6,
            attempt_time_max: Duration::from_millis(self.climate.attempt_ms),
            time_max: Duration::from_millis(self.climate.attempt_ms * 5),
            wait_min: Duration::from_millis(5),
            wait_max: Duration::from_millis(400),
        };
        // Table files are larger than that, most other objects are not.
        let part_bytes = Some(1_500 + (self.climate.duration_ms % 4_000) as usize);
        // A process lives for some dozens of requests: it learns from few, and hedges often.
        let hedging = Hedging { percent_max: 40, delay_min: Duration::from_millis(1), learned_min: 4 };
        let pacing = Pacing { requests_first: 6, requests_max: 12 };
        let options = StoreOptions {
            retry,
            seed: rng.random(),
            part_bytes,
            hedging: self.climate.hedges.then_some(hedging),
            pacing: self.climate.paces.then_some(pacing),
            ..StoreOptions::default()
        };
        let store = Store::new("sim://", Arc::new(GatedBackend::new(Arc::clone(&gate), backend)), &options);
        lock(&self.stores).push(store.clone());
        let skew_ms: i64 = if chance(&mut rng, 300) { rng.random_range(-600_000..600_000) } else { 0 };
        let trace = self.trace.clone();
        let wall = Arc::new(move || EPOCH_MS + skew_ms + i64::try_from(trace.now_ms()).expect("a world is short"));
        let seams = Seams { wall, seed: rng.random(), offload: Offload::Inline };
        if sheltered {
            gate.shelter();
        }
        let mut gates = lock(&self.gates);
        gates.retain(|gate| !gate.is_dead());
        gates.push(Arc::clone(&gate));
        Process { gate, store, seams }
    }

    /// How a log is opened in this world.
    pub(crate) fn log_options(&self) -> Options {
        Options {
            cell: Cell::new(self.climate.cell),
            cells: NonZeroU16::new(self.climate.cells).expect("a world has a cell"),
            address: String::new(),
            in_flight_max: self.climate.in_flight_max,
            checkpoint_commits: self.climate.checkpoint_commits,
            flushes_remembered_max: Some(self.climate.flushes_remembered_max),
            broken: self.climate.broken,
            ..Options::default()
        }
    }

    /// Waits until brokers may come.
    pub(crate) async fn quiet(&self) {
        loop {
            let left_ms = self.quiet_until_ms.load(Ordering::Relaxed).saturating_sub(self.trace.now_ms());
            if left_ms == 0 {
                return;
            }
            sleep(Duration::from_millis(left_ms)).await;
        }
    }

    /// A broker begins to serve its log.
    pub(crate) fn announce(&self, broker: Arc<broker::Broker>) {
        if broker.leads() && self.leaders().iter().filter(|other| other.leads()).count() > 1 {
            self.trace.count("zombies at once");
        }
        lock(&self.brokers).push(broker);
    }

    /// A broker serves it no more.
    pub(crate) fn retire(&self, broker: &Arc<broker::Broker>) {
        lock(&self.brokers).retain(|other| !Arc::ptr_eq(other, broker));
    }

    /// Those that believe to be the sequencer just now.
    pub(crate) fn leaders(&self) -> Vec<Arc<broker::Broker>> {
        let leads = |one: &&Arc<broker::Broker>| one.leads() && one.log.is_closed().is_none() && !one.gate.is_dead();
        lock(&self.brokers).iter().filter(leads).map(Arc::clone).collect()
    }

    /// Whom a client takes for the sequencer: mostly the newest, sometimes one that it knew before. In a cluster it asks any broker, and
    /// sometimes takes that one.
    pub(crate) fn sequencer(&self, rng: &mut StdRng) -> Option<Arc<broker::Broker>> {
        let brokers = lock(&self.brokers);
        let newest = brokers.len().checked_sub(1)?;
        if self.climate.members == 0 {
            let index = if chance(rng, 150) { rng.random_range(0..=newest) } else { newest };
            return Some(Arc::clone(&brokers[index]));
        }
        let asked = &brokers[rng.random_range(0..=newest)];
        if asked.leads() || chance(rng, 50) {
            return Some(Arc::clone(asked));
        }
        let state = asked.log.state();
        brokers.iter().rev().find(|broker| broker.address == state.owner_address()).map(Arc::clone)
    }

    /// The identity of the log, once anybody has opened it.
    pub(crate) fn identity(&self) -> Option<Identity> {
        lock(&self.brokers).last().map(|broker| broker.log.identity())
    }

    /// Another broker can be reached.
    pub(crate) fn open_uploader(&self, slot: usize, uploader: Arc<uploader::Uploader>) {
        lock(&self.uploaders).insert(slot, uploader);
    }

    /// The broker of a slot that uploads.
    pub(crate) fn uploader(&self, slot: usize) -> Option<Arc<uploader::Uploader>> {
        lock(&self.uploaders).get(&slot).map(Arc::clone)
    }

    /// Clients may use a topic.
    pub(crate) fn offer_topic(&self, id: TopicId, partitions: u32) {
        lock(&self.topics).insert(id, partitions);
    }

    /// Clients should use it no more; some have not heard of that.
    pub(crate) fn withdraw_topic(&self, id: TopicId) {
        lock(&self.topics).remove(&id);
    }

    /// Where a topic that is offered ends.
    pub(crate) fn partitions_of(&self, id: TopicId) -> Option<u32> {
        lock(&self.topics).get(&id).copied()
    }

    /// A partition to write to.
    pub(crate) fn partition(&self, rng: &mut StdRng) -> Option<PartitionKey> {
        let topics = lock(&self.topics);
        if topics.is_empty() {
            return None;
        }
        let (id, partitions) = topics.iter().nth(rng.random_range(0..topics.len()))?;
        Some(PartitionKey::new(*id, PartitionIndex::new(rng.random_range(0..*partitions))))
    }

    /// Opens the log in peace.
    pub(crate) async fn open_in_peace(self: &Arc<Self>, cell: u16) -> Result<(Log, Store), String> {
        let process = self.start("auditor");
        // Whoever audits hints does so as the broker that leaves them.
        let broken = self.climate.broken;
        let broken = if broken.leaves_hints() { broken } else { lakebed_log::broken::Broken::Nothing };
        let options = lakebed_log::Options { cell: Cell::new(cell), broken, ..self.log_options() };
        let opened = Log::open(process.store.clone(), options, process.seams).await;
        opened.map(|log| (log, process.store)).map_err(|error| error.to_string())
    }
}

/// Waits for a hole to be filled, and strikes.
async fn hunter(world: Arc<World>) {
    let mut rng = world.rng("hunter", 0);
    loop {
        world.bucket.hole_filled().await;
        if world.is_calm() {
            return;
        }
        world.trace.note(format_args!("the nemesis strikes"));
        let time_ms = rng.random_range(1_000..8_000);
        world.quiet_until_ms.store(world.trace.now_ms() + time_ms, Ordering::Relaxed);
        for sequencer in world.leaders() {
            sequencer.gate.kill();
        }
        world.bucket.damage_newest_checkpoint().await;
    }
}

/// Waits for a takeover that comes too late, and pauses whoever came first.
async fn stunner(world: Arc<World>) {
    let mut rng = world.rng("stunner", 0);
    loop {
        world.bucket.takeover_declined().await;
        if world.is_calm() {
            return;
        }
        let time = Duration::from_millis(within(&mut rng, world.climate.pause_ms));
        let victims: Vec<Arc<Gate>> = world.leaders().iter().map(|one| Arc::clone(&one.gate)).collect();
        for victim in victims {
            pause(&world, victim, time);
        }
    }
}

pub(crate) fn pause(world: &World, victim: Arc<Gate>, time: Duration) {
    victim.pause();
    world.trace.count("pauses");
    tokio::spawn(async move {
        sleep(time).await;
        victim.resume();
    });
}

/// Kills and pauses.
async fn nemesis(world: Arc<World>) {
    let mut rng = world.rng("nemesis", 0);
    loop {
        sleep(Duration::from_millis(within(&mut rng, world.climate.nemesis_ms))).await;
        if world.is_calm() {
            return;
        }
        if chance(&mut rng, world.climate.damage) {
            world.bucket.damage_newest_checkpoint().await;
            continue;
        }
        let victim = {
            let mut gates = lock(&world.gates);
            gates.retain(|gate| !gate.is_dead());
            if gates.is_empty() { None } else { Some(Arc::clone(&gates[rng.random_range(0..gates.len())])) }
        };
        let Some(victim) = victim else { continue };
        if chance(&mut rng, 400) {
            victim.kill();
        } else {
            let time = Duration::from_millis(within(&mut rng, world.climate.pause_ms));
            pause(&world, victim, time);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no code panics while it holds the world")
}
