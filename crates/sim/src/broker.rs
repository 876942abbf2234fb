//! Brokers that take over: each life replays, takes over, serves until it is fenced or killed, and comes back later.

use std::sync::Arc;
use std::time::Duration;

use lakebed_fetch::{Fetch, Published};
use lakebed_ingest::{Committed, Ingest};
use lakebed_log::{Closed, Log, OpenError, ReplayError};
use lakebed_segment::batch;
use lakebed_store::Store;
use rand::Rng;
use rand::rngs::StdRng;
use tokio::sync::mpsc;
use tokio::time::sleep;

use crate::climate::{chance, within};
use crate::process::Gate;
use crate::world::World;
use crate::{consumer, fetcher, merge, tables};

/// How long a closed log's broker takes to exit.
const EXIT_MS: u64 = 50;

/// A broker that believes to be the sequencer.
pub(crate) struct Sequencer {
    /// Its process.
    pub gate: Arc<Gate>,
    /// Its store.
    pub store: Store,
    /// Its log.
    pub log: Log,
    /// Its write path.
    pub ingest: Ingest,
    /// Its read path, in worlds that have one.
    pub fetch: Option<Fetch>,
}

/// Runs the lives of one broker.
pub(crate) async fn run(world: Arc<World>, slot: usize) {
    let mut rng = world.rng("broker", slot as u64);
    sleep(Duration::from_millis(rng.random_range(0..=40) * slot as u64)).await;
    while !world.has_ended() {
        world.quiet().await;
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
    let options = lakebed_ingest::Options {
        flush_bytes: rng.random_range(500..4_000),
        flush_interval: Duration::from_millis(rng.random_range(0..60)),
        buffer_bytes: 40_000,
        flushes_in_flight_max: rng.random_range(1..=4),
        ..lakebed_ingest::Options::default()
    };
    let (ingest, committed) = if chance(rng, world.climate.uploads) {
        world.trace.count("sequencers that upload");
        Ingest::start_uploading(log.clone(), process.store.clone(), options)
    } else {
        Ingest::start(log.clone(), options)
    };
    let fetch = world.climate.fetches.then(|| fetcher::open(&log, &process.store, rng));
    let sequencer = Arc::new(Sequencer { gate: Arc::clone(&gate), store: process.store, log, ingest, fetch });
    world.announce(Arc::clone(&sequencer));
    tokio::spawn(listen(Arc::clone(world), Arc::clone(&sequencer), committed));
    tokio::spawn(consumer::run(Arc::clone(world), Arc::clone(&sequencer), rng.random()));
    tokio::spawn(fetcher::run(Arc::clone(world), Arc::clone(&sequencer), rng.random()));
    tokio::spawn(merge::run(Arc::clone(world), Arc::clone(&sequencer), rng.random()));
    tokio::spawn(tables::run(Arc::clone(world), Arc::clone(&sequencer), rng.random()));
    match gate.unless_dead(sequencer.log.closed()).await {
        None => {}
        Some(Closed::Fenced { at }) => {
            world.trace.note(format_args!("{} is fenced at {at}", gate.name()));
            world.trace.count("fenced sequencers");
        }
        Some(closed) => world.trace.anomaly("damaged-log", format!("{}: {closed}", gate.name())),
    }
    gate.unless_dead(sleep(Duration::from_millis(within(rng, (0, EXIT_MS))))).await;
    gate.exit();
    world.retire(&gate);
    sequencer.log.abort();
}

/// Tells trouble with the store from a log that contradicts itself.
fn judge(world: &World, gate: &Gate, error: &OpenError) {
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

/// A consumer at the tail: what the write path says was committed.
async fn listen(world: Arc<World>, sequencer: Arc<Sequencer>, mut committed: mpsc::Receiver<Vec<Committed>>) {
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
