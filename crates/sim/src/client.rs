//! Producers. A plain one sends each batch once and goes on; an idempotent one keeps several batches in flight and sends them again,
//! stamped as before, until it knows.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use lakebed_ingest::ProduceError;
use lakebed_model::{BatchRefusal, Offset, PartitionKey};
use lakebed_segment::batch::Producer;
use rand::Rng;
use rand::rngs::StdRng;
use tokio::time::{sleep, timeout};

use crate::batches::{admitted, encode, rows};
use crate::broker::Broker;
use crate::climate::within;
use crate::history::{Fate, Row, SentId};
use crate::uploader::Uploader;
use crate::world::World;

/// How long a producer waits for an answer.
const PATIENCE: Duration = Duration::from_secs(4);
/// How long it waits to get rid of a batch.
const HAND_OVER: Duration = Duration::from_millis(700);
/// Batches of an idempotent producer that may be unresolved.
const WINDOW: usize = 4;
/// Epochs of an idempotent producer under one id.
const EPOCHS_PER_ID: i16 = 2;
/// Rounds after which an idempotent producer gives up.
const ROUNDS_MAX: usize = 12;

/// What a broker answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It is in the log.
    Done {
        /// Offset of its first record.
        base: u64,
        /// Whether it was there before.
        duplicate: bool,
    },
    /// It is not in the log.
    NotDone,
    /// It may be.
    Unknown,
    /// The log's rules refuse it.
    Refused(BatchRefusal),
}

type Answering = Pin<Box<dyn Future<Output = Answer> + Send>>;

/// A broker that takes batches.
#[derive(Clone)]
enum Target {
    Sequencer(Arc<Broker>),
    Uploader(Arc<Uploader>),
}

/// Runs one producer.
pub(crate) async fn run(world: Arc<World>, writer: usize) {
    let rng = world.rng("writer", writer as u64);
    let uploader = (!writer.is_multiple_of(3)).then(|| writer % world.climate.uploaders.max(1));
    let client = Client { world, writer, rng, uploader, number: 0, wrote_to: Vec::new(), sent_again: false };
    if (writer / 3).is_multiple_of(2) { client.run_idempotent().await } else { client.run_plain().await }
}

struct Client {
    world: Arc<World>,
    writer: usize,
    rng: StdRng,
    /// The broker that it is connected to, if that is not the sequencer.
    uploader: Option<usize>,
    number: u64,
    /// Where its present producer id wrote, and whether a batch was sent a second time.
    wrote_to: Vec<PartitionKey>,
    sent_again: bool,
}

/// A batch that an idempotent producer wants to get rid of.
struct Unresolved {
    id: SentId,
    batch: Bytes,
    /// Whether an earlier attempt may have been appended.
    doubt: bool,
    /// Whether there was an earlier attempt.
    tried: bool,
}

impl Client {
    async fn run_plain(mut self) {
        while !self.world.has_ended() {
            self.rest().await;
            let Some(target) = self.target() else { continue };
            let Some(key) = self.world.partition(&mut self.rng) else { continue };
            let rows = self.rows();
            let batch = encode(&rows, None);
            let expected = self.expectation(key);
            let id = self.world.history().send_expecting(self.writer, target.lane(), key, rows, expected);
            match target.hand_over(key, batch, expected).await {
                Some(answering) => {
                    let world = Arc::clone(&self.world);
                    tokio::spawn(async move {
                        let answer = answering.await;
                        check_visible(&world, &target, key, answer);
                        check_expected(&world, key, expected, answer);
                        world.history().settle(id, fate(answer, false));
                    });
                }
                None => self.world.history().settle(id, Fate::NotDone),
            }
        }
    }

    async fn run_idempotent(mut self) {
        while self.world.partition(&mut self.rng).is_none() {
            if self.world.has_ended() {
                return;
            }
            self.rest().await;
        }
        let mut epoch = 0;
        while !self.world.has_ended() {
            let Some(key) = self.world.partition(&mut self.rng) else { return };
            self.produce_to(key, epoch).await;
            if epoch % EPOCHS_PER_ID == EPOCHS_PER_ID - 1 {
                self.retire(epoch);
            }
            epoch += 1;
        }
    }

    /// Produces to one partition under one epoch, until something can't be resolved or for a while.
    async fn produce_to(&mut self, key: PartitionKey, epoch: i16) {
        let mut window: VecDeque<Unresolved> = VecDeque::new();
        self.wrote_to.push(key);
        let mut sequence = 0;
        let mut fruitless = 0;
        let lane = 1 + u64::try_from(self.writer).expect("writers are few") * 1_000 + u64::from(epoch.unsigned_abs());
        for _ in 0..self.rng.random_range(5..40) {
            if self.world.has_ended() {
                break;
            }
            self.rest().await;
            let fresh = self.rng.random_range(0..=2_usize).max(usize::from(window.is_empty()));
            while fruitless == 0 && window.len() < WINDOW && window.len() < fresh + 1 {
                let rows = self.rows();
                let stamp = Producer { id: self.producer_id(epoch), epoch, base_sequence: sequence };
                sequence += i32::try_from(rows.len()).expect("batches are small");
                let batch = encode(&rows, Some(stamp));
                let id = self.world.history().send(self.writer, lane, key, rows);
                window.push_back(Unresolved { id, batch, doubt: false, tried: false });
            }
            let Some(target) = self.target() else { continue };
            let before = window.len();
            if !self.round(&target, key, &mut window).await {
                break;
            }
            fruitless = if window.len() < before || before == 0 { 0 } else { fruitless + 1 };
            if fruitless > ROUNDS_MAX {
                break;
            }
        }
        // One round more for what is left, then it is given up.
        if let Some(target) = self.target() {
            self.round(&target, key, &mut window).await;
        }
        // What was not answered may still come.
        self.sent_again |= !window.is_empty();
        for left in window {
            let fate = if left.doubt { Fate::Unknown } else { Fate::NotDone };
            self.world.history().settle(left.id, fate);
        }
    }

    /// The producer id of an epoch; a new one from time to time, so that what is remembered of the old one may be forgotten.
    fn producer_id(&self, epoch: i16) -> i64 {
        100 + self.writer as i64 + 1_000 * i64::from(epoch / EPOCHS_PER_ID)
    }

    /// The id of this epoch is used no more.
    fn retire(&mut self, epoch: i16) {
        let (id, wrote_to) = (self.producer_id(epoch), std::mem::take(&mut self.wrote_to));
        if !std::mem::take(&mut self.sent_again) {
            self.world.history().retired_producers.extend(wrote_to.into_iter().map(|key| (key, id)));
        }
    }

    /// Sends all that is unresolved once, in order; whether it makes sense to go on.
    async fn round(&mut self, target: &Target, key: PartitionKey, window: &mut VecDeque<Unresolved>) -> bool {
        let mut answers = Vec::new();
        for unresolved in window.iter_mut() {
            self.sent_again |= std::mem::replace(&mut unresolved.tried, true);
            match target.hand_over(key, unresolved.batch.clone(), None).await {
                Some(answering) => answers.push(answering),
                None => break,
            }
        }
        let mut left = VecDeque::new();
        let mut hopeless = false;
        for (index, mut unresolved) in std::mem::take(window).into_iter().enumerate() {
            let answer = match answers.get_mut(index) {
                Some(answering) => answering.await,
                None => Answer::NotDone,
            };
            check_visible(&self.world, target, key, answer);
            match answer {
                Answer::Done { base, duplicate } => {
                    if duplicate {
                        self.world.trace.count("duplicates answered");
                    }
                    self.world.history().settle(unresolved.id, Fate::Acked(base));
                    continue;
                }
                Answer::NotDone => {}
                Answer::Unknown => unresolved.doubt = true,
                Answer::Refused(_) => hopeless |= left.is_empty(),
            }
            left.push_back(unresolved);
        }
        *window = left;
        !hopeless
    }

    async fn rest(&mut self) {
        sleep(Duration::from_millis(within(&mut self.rng, self.world.climate.produce_ms))).await;
    }

    /// Where the partition ends as far as anybody was told, or a little off; for some batches.
    fn expectation(&mut self, key: PartitionKey) -> Option<u64> {
        if self.rng.random_range(0..3) > 0 {
            return None;
        }
        let told = self.world.history().acked_end.get(&key).copied().unwrap_or(0);
        Some(if self.rng.random_range(0..4) == 0 { told + self.rng.random_range(1..4) } else { told })
    }

    fn rows(&mut self) -> Vec<Row> {
        let rows = rows(&mut self.rng, self.writer, self.number);
        self.number += rows.len() as u64;
        rows
    }

    fn target(&mut self) -> Option<Target> {
        match self.uploader {
            None => self.world.sequencer(&mut self.rng).map(Target::Sequencer),
            Some(slot) => self.world.uploader(slot).map(Target::Uploader),
        }
    }
}

impl Target {
    fn gate(&self) -> &Arc<crate::process::Gate> {
        match self {
            Self::Sequencer(sequencer) => &sequencer.gate,
            Self::Uploader(uploader) => &uploader.gate,
        }
    }

    /// What is sent to sequencers is in order across all of them; what is sent to another broker, as long as that lives.
    fn lane(&self) -> u64 {
        match self {
            Self::Sequencer(_) => 0,
            Self::Uploader(uploader) => uploader.lane,
        }
    }

    /// Hands a batch over; `None` if it was not taken.
    async fn hand_over(&self, key: PartitionKey, batch: Bytes, expected: Option<u64>) -> Option<Answering> {
        let gate = Arc::clone(self.gate());
        let taken = gate.unless_dead(timeout(HAND_OVER, async {
            gate.pass().await;
            self.give(key, batch, expected).await
        }));
        let answering = taken.await?.ok()??;
        let gate = Arc::clone(self.gate());
        Some(Box::pin(async move {
            let answer = timeout(
                PATIENCE,
                gate.unless_dead(async {
                    let answer = answering.await;
                    gate.pass().await;
                    answer
                }),
            );
            // A broker that dies, or does not answer in time: who knows.
            answer.await.ok().flatten().unwrap_or(Answer::Unknown)
        }))
    }

    async fn give(&self, key: PartitionKey, batch: Bytes, expected: Option<u64>) -> Option<Answering> {
        match self {
            Self::Sequencer(sequencer) => {
                let mut batch = admitted(batch);
                if let Some(expected) = expected {
                    batch = batch.expecting(Offset::new(expected));
                }
                let mut tickets = sequencer.ingest.produce(vec![(key, batch)]).await;
                let ticket = tickets.pop()?;
                Some(Box::pin(async move {
                    match ticket.await {
                        Ok(produced) => {
                            Answer::Done { base: produced.base_offset.get(), duplicate: produced.duplicate }
                        }
                        Err(ProduceError::Refused(refusal)) => Answer::Refused(refusal),
                        Err(ProduceError::NotDone { .. }) => Answer::NotDone,
                        Err(ProduceError::Unknown { .. }) => Answer::Unknown,
                    }
                }))
            }
            Self::Uploader(uploader) => {
                let receiver = uploader.produce(key, batch, expected).await?;
                Some(Box::pin(async move { receiver.await.unwrap_or(Answer::Unknown) }))
            }
        }
    }
}

fn fate(answer: Answer, doubt: bool) -> Fate {
    match answer {
        Answer::Done { base, .. } => Fate::Acked(base),
        Answer::NotDone | Answer::Refused(_) if !doubt => Fate::NotDone,
        _ => Fate::Unknown,
    }
}

/// A batch that expected an offset got that one, or was refused because it is not the next.
fn check_expected(world: &World, key: PartitionKey, expected: Option<u64>, answer: Answer) {
    let wrong = match (expected, answer) {
        (Some(expected), Answer::Done { base, .. }) => {
            world.trace.count("expectations met");
            base != expected
        }
        (Some(expected), Answer::Refused(BatchRefusal::OffsetMismatch { next })) => {
            world.trace.count("expectations refused");
            next.get() == expected
        }
        (None, Answer::Refused(BatchRefusal::OffsetMismatch { .. })) => true,
        _ => false,
    };
    if wrong {
        world.trace.anomaly("expectation-ignored", format!("{key}: expected {expected:?}, answered {answer:?}"));
    }
}

/// What a sequencer has acknowledged is in its durable state.
fn check_visible(world: &World, target: &Target, key: PartitionKey, answer: Answer) {
    let (Target::Sequencer(sequencer), Answer::Done { base, .. }) = (target, answer) else { return };
    if let Some(bounds) = sequencer.log.state().partition(key)
        && bounds.high_watermark.get() <= base
    {
        let what = format!(
            "{key} at {base} was acknowledged by {:?}, whose log ends at {}",
            sequencer.gate, bounds.high_watermark
        );
        world.trace.anomaly("acknowledged-before-durable", what);
    }
}
