//! Brokers of a cluster: each life joins the log, and then follows or leads, term after term, until it is killed or told to stop.
//!
//! What a life does is what the server does with its terms: a follower that is to take over succeeds, a sequencer that is fenced joins again, and
//! who is told to stop says farewell and hands over. The rooms of a term end with it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use lakebed_log::{
    BarrierError, Closed, Following, Joined, Known, Log, OpenError, Options, Peers, ReplayError, Seams, nonce_of,
};
use lakebed_model::{Change, Member, Nonce};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::task::AbortOnDropHandle;

use crate::broker::{Broker, closed, judge};
use crate::climate::within;
use crate::cluster::{self, Leading, Serving, Station, Wire, address};
use crate::world::{Process, World};

/// As the server has them.
const REST_AFTER_FAILURE: Duration = Duration::from_millis(500);
const HAND_OVER_MAX: Duration = Duration::from_millis(1500);
const FAREWELL_MAX: Duration = Duration::from_secs(4);
const LOOK_EVERY: Duration = Duration::from_millis(20);
const LATELY: Duration = Duration::from_secs(600);
const LEAVE_MAX: Duration = Duration::from_secs(1);
const CHANGE_MAX: Duration = Duration::from_secs(1);
const SETTLE_MAX: Duration = Duration::from_secs(4);
const DRAIN_MAX: Duration = Duration::from_secs(3);

/// Runs the lives of the broker at one address.
pub(crate) async fn run(world: Arc<World>, slot: usize) {
    let mut rng = world.rng("member", slot as u64);
    sleep(Duration::from_millis(rng.random_range(0..=40) * slot as u64)).await;
    while !world.has_ended() {
        world.quiet().await;
        if world.has_ended() {
            return;
        }
        let process = world.start(&format!("member {slot}"));
        let gate = Arc::clone(&process.gate);
        let station = world.cluster.enter(slot, &gate, rng.random_range(0..3) == 0);
        let life = Life::new(Arc::clone(&world), process, Arc::clone(&station), StdRng::seed_from_u64(rng.random()));
        gate.unless_dead(life.run()).await;
        gate.exit();
        station.serve(Serving::Nothing);
        sleep(Duration::from_millis(within(&mut rng, world.climate.idle_ms))).await;
    }
}

struct Life {
    world: Arc<World>,
    process: Process,
    station: Arc<Station>,
    rng: StdRng,
    me: Member,
    peers: Arc<dyn Peers>,
    /// When it has taken over lately.
    takeovers: Vec<Instant>,
    /// Under which nonces it has tried to.
    nonces: Vec<Nonce>,
    /// Whether it has joined the log before.
    has_joined: bool,
}

/// The rooms of a term, which end with it.
struct Term {
    world: Arc<World>,
    broker: Arc<Broker>,
    _tasks: Vec<AbortOnDropHandle<()>>,
}

impl Drop for Term {
    fn drop(&mut self) {
        self.world.retire(&self.broker);
        // Whoever is killed leaves nothing running.
        self.broker.log.abort();
    }
}

impl Life {
    fn new(world: Arc<World>, process: Process, station: Arc<Station>, mut rng: StdRng) -> Self {
        let slot = station.slot;
        let me = Member {
            nonce: Nonce::new(rng.random()),
            kafka: format!("member-{slot}:9092"),
            http: address(slot),
            zone: String::new(),
            version: "1".to_owned(),
        };
        let wire = Wire {
            world: Arc::clone(&world),
            slot,
            gate: Arc::clone(&process.gate),
            me: me.clone(),
            rng: Mutex::new(StdRng::seed_from_u64(rng.random())),
        };
        let peers = Arc::new(wire);
        Self { world, process, station, rng, me, peers, takeovers: Vec::new(), nonces: Vec::new(), has_joined: false }
    }

    async fn run(mut self) {
        let mut opened = self.open(None).await;
        loop {
            let log = match opened {
                Ok(log) => log,
                Err(error) => return judge(&self.world, &self.process.gate, &error),
            };
            let term = self.begin(log);
            let Some(closed) = self.serve(&term).await else { return };
            let name = self.process.gate.name();
            match &closed {
                Closed::Fenced { at } => {
                    self.world.trace.note(format_args!("{name} is fenced at {at}"));
                    self.world.trace.count("fenced sequencers");
                }
                Closed::Successor => self.world.trace.count("successors"),
                closed => return self.world.trace.anomaly("damaged-log", format!("{name}: {closed}")),
            }
            self.station.serve(Serving::Nothing);
            drop(timeout(CHANGE_MAX, term.broker.ingest.drain()).await);
            let known = term.broker.log.known();
            drop(term);
            opened = self.reopen(known, closed == Closed::Successor).await;
        }
    }

    /// Opens the log: as the sequencer if there is none, else as a follower.
    async fn open(&mut self, mut known: Option<Known>) -> Result<Log, OpenError> {
        loop {
            let lately = |at: &Instant| at.elapsed() < LATELY;
            self.takeovers.retain(lately);
            let following = Following {
                peers: Arc::clone(&self.peers),
                takeover_after: Duration::from_millis(self.world.climate.takeover_ms),
                takeovers: u32::try_from(self.takeovers.len()).unwrap_or(u32::MAX),
            };
            let (store, seams) = (self.process.store.clone(), self.seams());
            let joined = Log::join(store, self.options(), seams, following, known.take()).await?;
            let has_joined = std::mem::replace(&mut self.has_joined, true);
            let alone = match joined {
                Joined::Follows(log) => {
                    // The sequencer that the log names may be gone: then this is no follower yet.
                    let patience = SETTLE_MAX + Duration::from_millis(self.world.climate.takeover_ms);
                    drop(timeout(patience, log.heard()).await);
                    if log.is_closed() != Some(Closed::Successor) {
                        return Ok(log);
                    }
                    log.known()
                }
                // A takeover of a process that died at this address may come late.
                Joined::Alone { namesake: Some(namesake), .. } if has_joined && !self.nonces.contains(&namesake) => {
                    self.world.trace.count("namesakes");
                    return Err(OpenError::SameAddress { address: self.me.http.clone() });
                }
                Joined::Alone { known, .. } => known,
            };
            match self.succeed(alone).await? {
                Ok(log) => return Ok(log),
                Err(other) => known = Some(other),
            }
        }
    }

    /// Takes over, unless somebody else has since.
    async fn succeed(&mut self, known: Known) -> Result<Result<Log, Known>, OpenError> {
        let seams = self.seams();
        self.nonces.push(nonce_of(&seams));
        let succeeded = Log::succeed(self.process.store.clone(), self.options(), seams, known).await?;
        match &succeeded {
            Ok(_) => self.takeovers.push(Instant::now()),
            Err(_) => self.world.trace.count("successors that came second"),
        }
        Ok(succeeded)
    }

    /// Opens the log after a term that has ended, however often that fails for what may pass.
    async fn reopen(&mut self, known: Known, is_successor: bool) -> Result<Log, OpenError> {
        let mut tries = is_successor;
        loop {
            let opened = if std::mem::take(&mut tries) {
                match self.succeed(known.clone()).await {
                    Ok(Ok(log)) => Ok(log),
                    Ok(Err(known)) => self.open(Some(known)).await,
                    Err(error) => Err(error),
                }
            } else {
                self.open(Some(known.clone())).await
            };
            match opened {
                Err(error) if may_pass(&error) => {
                    self.world.trace.note(format_args!("{} can't join: {error}", self.process.gate.name()));
                    sleep(REST_AFTER_FAILURE).await;
                }
                opened => return opened,
            }
        }
    }

    fn options(&self) -> Options {
        Options { address: self.me.http.clone(), ..self.world.log_options() }
    }

    /// Every term is another to the log.
    fn seams(&mut self) -> Seams {
        Seams { seed: self.rng.random(), ..self.process.seams.clone() }
    }

    fn begin(&mut self, log: Log) -> Term {
        let (world, station) = (&self.world, &self.station);
        let place = (&self.process.gate, &self.process.store, self.me.http.as_str());
        let (broker, told) = Broker::open(world, &mut self.rng, place, log);
        let mut tasks = broker.work(world, &mut self.rng, told);
        let (name, at) = (station.gate.name(), broker.log.state().place());
        if broker.leads() {
            world.trace.note(format_args!("{name} is the sequencer of {at}"));
            world.trace.count("takeovers");
            station.serve(Serving::Leads(Leading::new(broker.log.clone(), self.me.nonce)));
            let (log, me) = (broker.log.clone(), self.me.clone());
            tasks.push(tokio::spawn(cluster::keep_members(Arc::clone(world), Arc::clone(station), log, me)));
        } else {
            world.trace.note(format_args!("{name} follows from {at} on"));
            world.trace.count("followers");
            station.serve(Serving::Follows);
        }
        world.announce(Arc::clone(&broker));
        let tasks = tasks.into_iter().map(AbortOnDropHandle::new).collect();
        Term { world: Arc::clone(world), broker, _tasks: tasks }
    }

    /// Serves until the log is closed, and says why; nothing if it was told to stop.
    async fn serve(&mut self, term: &Term) -> Option<Closed> {
        let telling = cluster::tell(&self.world, &self.station, StdRng::seed_from_u64(self.rng.random()));
        let serving = async {
            tokio::select! {
                biased;
                reason = closed(&term.broker.log) => Some(reason),
                () = self.station.stop.notified() => {
                    self.leave(&term.broker).await;
                    None
                }
            }
        };
        tokio::select! {
            biased;
            ended = serving => ended,
            () = telling => None,
        }
    }

    /// Drains, says farewell, and hands over.
    async fn leave(&self, broker: &Broker) {
        let (world, log) = (&self.world, &broker.log);
        drop(timeout(DRAIN_MAX, broker.ingest.drain()).await);
        if !broker.leads() {
            let leaving = async {
                let station = world.cluster.reach(self.station.slot, log.state().owner_address()).await.ok()?;
                let (log, change) = station.leading(|leading| leading.farewell(self.me.nonce))??;
                station.gate.unless_dead(log.change(change)).await?.ok()
            };
            if let Ok(Some(_)) = timeout(LEAVE_MAX, leaving).await {
                world.trace.count("members left");
            }
            return;
        }
        if timeout(FAREWELL_MAX, self.hand_over(log)).await.is_ok() && log.is_closed().is_some() {
            world.trace.count("hand-overs done");
        }
    }

    async fn hand_over(&self, log: &Log) {
        if log.change(Change::Leave { member: self.me.nonce }).await.is_ok() {
            self.world.trace.count("members left");
        }
        let mut asked = 0;
        while self.station.leading(|leading| leading.hand_over(asked)).unwrap_or(false)
            && timeout(HAND_OVER_MAX, fenced(log)).await.is_err()
        {
            asked += 1;
        }
    }
}

/// Waits until another broker has taken over.
async fn fenced(log: &Log) {
    while log.is_closed().is_none() && !matches!(log.barrier().await, Err(BarrierError::Closed { .. })) {
        sleep(LOOK_EVERY).await;
    }
}

fn may_pass(error: &OpenError) -> bool {
    match error {
        OpenError::Write { .. } | OpenError::Read { .. } | OpenError::List { .. } | OpenError::Crowded { .. } => true,
        OpenError::Replay(error) => {
            matches!(error, ReplayError::Read(_) | ReplayError::List(_) | ReplayError::Outrun { .. })
        }
        _ => false,
    }
}
