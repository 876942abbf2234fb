//! A broker of another cell in the same bucket: one producer, merges, checkpoints, reclaim. Nothing that happens in one cell may show in
//! another.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use lakebed_compact::{Options, merge, plan};
use lakebed_ingest::{Ingest, ProduceError};
use lakebed_log::{AppendError, Log};
use lakebed_model::{Cell, Change, PartitionIndex, PartitionKey, TopicId, TopicName};
use rand::Rng;
use rand::rngs::StdRng;
use tokio::time::{sleep, timeout};

use crate::batches::{admitted, encode, rows};
use crate::climate::within;
use crate::history::{Fate, TopicFate};
use crate::world::{Process, World};

/// Writers of neighbours are numbered from here on.
const FIRST_WRITER: usize = 1_000;
/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(4);

/// Runs the lives of the broker of one cell.
pub(crate) async fn run(world: Arc<World>, cell: u16) {
    let mut rng = world.rng("neighbour", u64::from(cell));
    let topic = TopicId::new(uuid::Builder::from_random_bytes(rng.random()).into_uuid());
    let (mut number, mut life) = (0, 0);
    while !world.has_ended() {
        let process = world.start(&format!("neighbour of cell {cell}"));
        let gate = Arc::clone(&process.gate);
        let mut neighbour = Neighbour { world: Arc::clone(&world), cell, topic, rng: &mut rng, number: &mut number };
        gate.unless_dead(neighbour.live(process, life)).await;
        gate.exit();
        life += 1;
        sleep(Duration::from_millis(within(&mut rng, world.climate.idle_ms) + 100)).await;
    }
}

struct Neighbour<'a> {
    world: Arc<World>,
    cell: u16,
    topic: TopicId,
    rng: &'a mut StdRng,
    number: &'a mut u64,
}

impl Neighbour<'_> {
    async fn live(&mut self, process: Process, life: u64) {
        let options = lakebed_log::Options { cell: Cell::new(self.cell), ..self.world.log_options() };
        let Ok(log) = Log::open(process.store.clone(), options, process.seams).await else { return };
        if !self.create_topic(&log).await {
            return;
        }
        let options = lakebed_ingest::Options { flush_interval: Duration::from_millis(5), ..Default::default() };
        let (ingest, committed) = Ingest::start_uploading(log.clone(), process.store.clone(), options);
        drop(committed);
        while log.is_closed().is_none() && !self.world.has_ended() {
            sleep(Duration::from_millis(within(self.rng, self.world.climate.produce_ms))).await;
            if !self.produce(&ingest, life).await {
                return;
            }
            let state = log.state();
            let options = Options { fan_in: self.rng.random_range(2..6), ..Options::default() };
            if let Some(next) = plan(&state, &options, &std::collections::BTreeSet::new())
                && merge(&log, &process.store, &state, &next).await.is_ok()
            {
                self.world.trace.count("merges of neighbours");
            }
        }
    }

    /// Whether the topic is there.
    async fn create_topic(&mut self, log: &Log) -> bool {
        if log.state().topic(self.topic).is_some() {
            return true;
        }
        let name = TopicName::new("neighbour").expect("it is valid");
        let change = Change::CreateTopic { id: self.topic, name, partitions: 1, config: BTreeMap::new() };
        let fate = match log.change(change).await {
            Ok(_) => Fate::Acked(0),
            Err(AppendError::NotDone { .. } | AppendError::Refused(_)) => Fate::NotDone,
            Err(AppendError::Unknown { .. }) => Fate::Unknown,
        };
        // A life before this one may have left it in doubt.
        let fate = if fate == Fate::NotDone { Fate::Unknown } else { fate };
        self.world.history().topics.insert(self.topic, TopicFate { created: fate, deleted: None, deleted_ms: None });
        matches!(fate, Fate::Acked(_))
    }

    /// Produces one batch; whether it is known what became of it.
    async fn produce(&mut self, ingest: &Ingest, life: u64) -> bool {
        let writer = FIRST_WRITER + usize::from(self.cell);
        let rows = rows(self.rng, writer, *self.number);
        *self.number += rows.len() as u64;
        let key = PartitionKey::new(self.topic, PartitionIndex::ZERO);
        let batch = encode(&rows, None);
        let id = self.world.history().send(writer, life, key, rows);
        let mut tickets = ingest.produce(vec![(key, admitted(batch))]).await;
        let ticket = tickets.pop().expect("each batch has a ticket");
        let fate = match timeout(PATIENCE, ticket).await {
            Ok(Ok(produced)) => Fate::Acked(produced.base_offset.get()),
            Ok(Err(ProduceError::Refused(_) | ProduceError::NotDone { .. })) => Fate::NotDone,
            Ok(Err(ProduceError::Unknown { .. })) | Err(_) => Fate::Unknown,
        };
        self.world.history().settle(id, fate);
        fate != Fate::Unknown
    }
}
