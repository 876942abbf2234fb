//! Brokers that take over: each life replays, takes over, serves until it is fenced or killed, and comes back later.

use std::sync::Arc;
use std::time::Duration;

use lakebed_fetch::{Fetch, Published};
use lakebed_ingest::{Committed, Ingest};
use lakebed_log::{Closed, Log, OpenError, ReplayError, Role};
use lakebed_segment::batch;
use lakebed_store::Store;
use rand::Rng;
use rand::rngs::StdRng;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::climate::{chance, within};
use crate::process::Gate;
use crate::world::World;
use crate::{consumer, fetcher, merge, tables};

/// How long a closed log's broker takes to exit.
const EXIT_MS: u64 = 50;
/// How often it is looked whether a log is closed.
const LOOK_EVERY: Duration = Duration::from_millis(3);

/// A broker that serves a log: it believes to be the sequencer, or follows one.
pub(crate) struct Broker {
    /// Its process.
    pub gate: Arc<Gate>,
    /// Where others reach it; empty if nowhere.
    pub address: String,
    /// Its store.
    pub store: Store,
    /// Its log.
    pub log: Log,
    /// Its write path.
    pub ingest: Ingest,
    /// Its read path, in worlds that have one.
    pub fetch: Option<Fetch>,
}

/// What its write path says was committed.
type Told = mpsc::Receiver<Vec<Committed>>;

impl Broker {
    /// Whether it believes to be the sequencer.
    pub(crate) fn leads(&self) -> bool {
        self.log.role() == Role::Sequencer
    }

    /// Opens the rooms of a process that has opened its log.
    pub(crate) fn open(
        world: &World,
        rng: &mut StdRng,
        (gate, store, address): (&Arc<Gate>, &Store, &str),
        log: Log,
    ) -> (Arc<Self>, Told) {
        let options = lakebed_ingest::Options {
            flush_bytes: rng.random_range(500..4_000),
            flush_interval: Duration::from_millis(rng.random_range(0..60)),
            buffer_bytes: 40_000,
            flushes_in_flight_max: rng.random_range(1..=4),
            ..lakebed_ingest::Options::default()
        };
        let (ingest, committed) = if chance(rng, world.climate.uploads) && log.role() == Role::Sequencer {
            world.trace.count("sequencers that upload");
            Ingest::start_uploading(log.clone(), store.clone(), options)
        } else {
            Ingest::start(log.clone(), options)
        };
        let fetch = world.climate.fetches.then(|| fetcher::open(&log, store, rng));
        let (gate, address, store) = (Arc::clone(gate), address.to_owned(), store.clone());
        (Arc::new(Self { gate, address, store, log, ingest, fetch }), committed)
    }

    /// Begins whatever goes on in it. It ends with its log or its process, or when the tasks are aborted.
    pub(crate) fn work(self: &Arc<Self>, world: &Arc<World>, rng: &mut StdRng, told: Told) -> Vec<JoinHandle<()>> {
        let (world, broker) = (|| Arc::clone(world), || Arc::clone(self));
        let mut tasks = vec![
            tokio::spawn(listen(world(), broker(), told)),
            tokio::spawn(consumer::run(world(), broker(), rng.random())),
            tokio::spawn(fetcher::run(world(), broker(), rng.random())),
        ];
        if self.leads() {
            tasks.push(tokio::spawn(merge::run(world(), broker(), rng.random())));
            tasks.push(tokio::spawn(tables::run(world(), broker(), rng.random())));
        } else {
            tasks.push(tokio::spawn(see(broker())));
        }
        tasks
    }
}

/// Runs the lives of one broker.
pub(crate) async fn run(world: Arc<World>, slot: usize) {
    let mut rng = world.rng("broker", slot as u64);
    sleep(Duration::from_millis(rng.random_range(0..=40) * slot as u64)).await;
    while !world.has_ended() {
        world.quiet().await;
        if world.has_ended() {
            return;
        }
        live(&world, &mut rng, slot).await;
        sleep(Duration::from_millis(within(&mut rng, world.climate.idle_ms))).await;
    }
}

async fn live(world: &Arc<World>, rng: &mut StdRng, slot: usize) {
    let process = world.start(&format!("broker {slot}"));
    let gate = process.gate;
    let opening = Log::open(process.store.clone(), world.log_options(), process.seams);
    let log = match gate.unless_dead(opening).await {
        None => return,
        Some(Ok(log)) => log,
        Some(Err(error)) => {
            judge(world, &gate, &error);
            return gate.exit();
        }
    };
    world.trace.note(format_args!("{} is the sequencer of {}", gate.name(), log.state().place()));
    world.trace.count("takeovers");
    let (sequencer, told) = Broker::open(world, rng, (&gate, &process.store, ""), log);
    world.announce(Arc::clone(&sequencer));
    drop(sequencer.work(world, rng, told));
    match gate.unless_dead(closed(&sequencer.log)).await {
        None => {}
        Some(Closed::Fenced { at }) => {
            world.trace.note(format_args!("{} is fenced at {at}", gate.name()));
            world.trace.count("fenced sequencers");
        }
        Some(closed) => world.trace.anomaly("damaged-log", format!("{}: {closed}", gate.name())),
    }
    gate.unless_dead(sleep(Duration::from_millis(within(rng, (0, EXIT_MS))))).await;
    gate.exit();
    world.retire(&sequencer);
    sequencer.log.abort();
}

/// Waits until a log is closed, and says why.
///
/// SUBTLE: not by the log's watch. Others wait for that, too, and it wakes those who wait in an order that it draws by lot.
pub(crate) async fn closed(log: &Log) -> Closed {
    loop {
        match log.is_closed() {
            Some(reason) => return reason,
            None => sleep(LOOK_EVERY).await,
        }
    }
}

/// Tells trouble with the store from a log that contradicts itself.
pub(crate) fn judge(world: &World, gate: &Gate, error: &OpenError) {
    world.trace.note(format_args!("{} can't open the log: {error}", gate.name()));
    world.trace.count("openings failed");
    let wrong = matches!(
        error,
        OpenError::Root { .. }
            | OpenError::Takeover { .. }
            | OpenError::Rootless { .. }
            | OpenError::Replay(ReplayError::Apply(_) | ReplayError::Damaged(_))
    );
    if wrong {
        world.trace.anomaly("unreadable-log", format!("{}: {error}", gate.name()));
    }
}

/// Lets readers of a broker that follows see what the sequencer has committed.
async fn see(broker: Arc<Broker>) {
    let Some(fetch) = &broker.fetch else { return };
    let mut commits = broker.log.watch();
    let mut seen = broker.log.state();
    while let Some(Ok(())) = broker.gate.unless_dead(commits.changed()).await {
        let state = broker.log.state();
        fetch.see(state.grown_since(&seen));
        seen = state;
    }
}

/// A consumer at the tail: what the write path says was committed.
async fn listen(world: Arc<World>, sequencer: Arc<Broker>, mut committed: Told) {
    while let Some(Some(batches)) = sequencer.gate.unless_dead(committed.recv()).await {
        if let Some(fetch) = &sequencer.fetch {
            let published = batches.iter().map(|one| Published {
                partition: one.partition,
                base_offset: one.base_offset,
                last_offset: one.last_offset,
                batch: one.batch.clone(),
            });
            fetch.publish(&published.collect::<Vec<_>>());
        }
        for one in batches {
            let limits = batch::Limits { max_decompressed_bytes: 1 << 20 };
            let rows = batch::decode(one.batch, &limits).expect("what was admitted decodes").rows;
            let mut history = world.history();
            history.observe_end(one.partition, one.last_offset.get() + 1);
            for row in 0..rows.len() {
                let value = String::from_utf8_lossy(rows.value(row).unwrap_or_default()).into_owned();
                let who = format!("the tail of {}", sequencer.gate.name());
                history.observe(&who, one.partition, one.base_offset.get() + row as u64, &value);
            }
        }
    }
}
