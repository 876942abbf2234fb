//! Brokers that are not the sequencer: they upload a segment (or send a small flush with its body), then have it committed by
//! whoever is the sequencer, under one flush id, again and again until its fate is known. Several flushes are under way at once.

use std::sync::Arc;
use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt};
use lakebed_log::AppendError;
use lakebed_model::{
    BatchFacts, FlushBody, FlushId, FlushOutcome, FlushProposal, Mint, Nonce, Offset, Outcome, PartitionKey,
    ProducerEpoch, ProducerId, ProducerStamp, ProposedRun, Refusal, SegmentId, Sequence,
};
use lakebed_segment::batch::{Header, Limits, Rows, decode};
use lakebed_segment::body::{Body, seal};
use lakebed_segment::commit::segment_object;
use lakebed_segment::layout;
use lakebed_segment::row_hash::facts;
use lakebed_segment::rows::BodyBatch;
use lakebed_store::{Created, Key, Store};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::client::Answer;
use crate::network;
use crate::process::Gate;
use crate::world::{Process, World};

/// Batches of one flush.
const BATCHES_MAX: usize = 12;
/// Flushes that are sent and whose fate is not known yet.
const UNDER_WAY_MAX: usize = 3;
/// Bodies up to this size may travel with the proposal.
const INLINE_BYTES_MAX: usize = 700;

/// A broker that uploads.
pub(crate) struct Uploader {
    /// Its process.
    pub gate: Arc<Gate>,
    jobs: mpsc::Sender<Job>,
    /// A number of this life, for the order of what is sent through it.
    pub lane: u64,
}

struct Job {
    key: PartitionKey,
    rows: Rows,
    producer: Option<ProducerStamp>,
    expected: Option<u64>,
    answer: oneshot::Sender<Answer>,
}

/// A flush that is sealed and perhaps uploaded.
struct Flush {
    proposal: FlushProposal,
    /// The body, if it travels with the proposal.
    body: Option<Body>,
    upload: Option<JoinHandle<bool>>,
    jobs: Vec<Job>,
}

impl Uploader {
    /// Hands a batch over; the answer comes later.
    pub(crate) async fn produce(
        &self,
        key: PartitionKey,
        batch: bytes::Bytes,
        expected: Option<u64>,
    ) -> Option<oneshot::Receiver<Answer>> {
        let decoded = decode(batch, &Limits { max_decompressed_bytes: 1 << 20 }).expect("batches here are valid");
        let (answer, receiver) = oneshot::channel();
        let job = Job { key, rows: decoded.rows, producer: stamp(&decoded.header), expected, answer };
        self.jobs.send(job).await.ok()?;
        Some(receiver)
    }
}

fn stamp(header: &Header) -> Option<ProducerStamp> {
    (header.producer_id >= 0).then(|| ProducerStamp {
        id: ProducerId::new(header.producer_id),
        epoch: ProducerEpoch::new(header.producer_epoch),
        sequence: Sequence::new(header.base_sequence),
    })
}

/// Runs the lives of one broker.
pub(crate) async fn run(world: Arc<World>, slot: usize) {
    let mut rng = world.rng("uploader", slot as u64);
    while !world.has_ended() {
        if world.identity().is_some() {
            let process = world.start(&format!("uploader {slot}"));
            let gate = Arc::clone(&process.gate);
            let (jobs, arrivals) = mpsc::channel(16);
            let lane = rng.random();
            world.open_uploader(slot, Arc::new(Uploader { gate: Arc::clone(&gate), jobs, lane }));
            let life = Life::new(Arc::clone(&world), process, &mut rng);
            gate.unless_dead(life.run(arrivals)).await;
        }
        sleep(Duration::from_millis(rng.random_range(50..600))).await;
    }
}

struct Life {
    world: Arc<World>,
    gate: Arc<Gate>,
    store: Store,
    wall: lakebed_log::Seams,
    nonce: Nonce,
    mint: Mint,
    rng: StdRng,
    boundary: Arc<std::sync::Mutex<SegmentId>>,
}

impl Life {
    fn new(world: Arc<World>, process: Process, rng: &mut StdRng) -> Self {
        Self {
            world,
            gate: process.gate,
            store: process.store,
            wall: process.seams,
            nonce: Nonce::new(rng.random()),
            mint: Mint::new(),
            rng: StdRng::seed_from_u64(rng.random()),
            boundary: Arc::new(std::sync::Mutex::new(SegmentId::MIN)),
        }
    }

    async fn run(mut self, mut arrivals: mpsc::Receiver<Job>) {
        let (flushes, sealed) = mpsc::channel(2);
        let submitter = Submitter {
            world: Arc::clone(&self.world),
            gate: Arc::clone(&self.gate),
            rng: StdRng::seed_from_u64(self.rng.random()),
            boundary: Arc::clone(&self.boundary),
        };
        let submitting = submitter.run(sealed);
        let gathering = async {
            while let Some(first) = arrivals.recv().await {
                sleep(Duration::from_millis(self.rng.random_range(0..60))).await;
                let mut jobs = vec![first];
                while jobs.len() < BATCHES_MAX
                    && let Ok(job) = arrivals.try_recv()
                {
                    jobs.push(job);
                }
                let flush = self.seal(jobs);
                if flushes.send(flush).await.is_err() {
                    return;
                }
            }
        };
        futures::join!(submitting, gathering);
    }

    fn seal(&mut self, mut jobs: Vec<Job>) -> Flush {
        jobs.sort_by_key(|job| job.key);
        let time_ms = (self.wall.wall)();
        let batches: Vec<BodyBatch<'_>> = jobs
            .iter()
            .map(|job| BodyBatch { partition: job.key, rows: &job.rows, log_append_time_ms: None })
            .collect();
        let body = seal(&batches, time_ms).expect("small batches in order can be sealed");
        let mut runs: Vec<ProposedRun> = Vec::new();
        let mut row = 0;
        for (job, batch) in jobs.iter().zip(&batches) {
            if runs.last().is_none_or(|run| run.partition != job.key) {
                runs.push(ProposedRun { partition: job.key, first_row: row, batches: Vec::new() });
            }
            let expected_next_offset = job.expected.map(Offset::new);
            let facts = BatchFacts { expected_next_offset, ..facts(batch, time_ms, job.producer) };
            row += u64::from(facts.rows);
            runs.last_mut().expect("one was pushed above").batches.push(facts);
        }
        let floor = *self.boundary.lock().expect("no code panics while it holds the boundary");
        let ulid =
            self.mint.next(u64::try_from(time_ms).expect("the clock is after 1970"), self.rng.random(), floor.ulid());
        let id = FlushId::new(ulid);
        let inline = body.bytes() <= INLINE_BYTES_MAX && self.rng.random_range(0..2) == 0;
        let kind = if inline { FlushBody::Inline } else { FlushBody::Segment };
        let proposal =
            FlushProposal { id, broker: self.nonce, previous: None, body: kind, ingest_time_ms: time_ms, runs };
        if inline {
            return Flush { proposal, body: Some(body), upload: None, jobs };
        }
        Flush { proposal, body: None, upload: Some(self.upload(id, body)), jobs }
    }

    fn upload(&self, id: FlushId, body: Body) -> JoinHandle<bool> {
        let identity = self.world.identity();
        let (store, nonce) = (self.store.clone(), self.nonce);
        tokio::spawn(async move {
            let Some(identity) = identity else { return false };
            let id = SegmentId::from(id);
            let key = Key::new(layout::segment_key(identity.cell, id)).expect("keys of the layout are valid");
            let created = store.create(&key, segment_object(&identity, id, nonce, body)).await;
            matches!(created, Ok(Created::New | Created::Mine))
        })
    }
}

struct Submitter {
    world: Arc<World>,
    gate: Arc<Gate>,
    rng: StdRng,
    boundary: Arc<std::sync::Mutex<SegmentId>>,
}

impl Submitter {
    /// Several flushes are on their way at once; each names the one before it, so that they commit in order.
    async fn run(mut self, mut sealed: mpsc::Receiver<Flush>) {
        let mut under_way = FuturesUnordered::new();
        let mut previous = None;
        loop {
            tokio::select! {
                biased;
                Some(()) = under_way.next(), if !under_way.is_empty() => {}
                flush = sealed.recv(), if under_way.len() < UNDER_WAY_MAX => {
                    let Some(mut flush) = flush else { return };
                    if let Some(upload) = flush.upload.take()
                        && !upload.await.unwrap_or(false)
                    {
                        // Never submitted, so never committed, whatever becomes of the object.
                        answer_all(flush.jobs, Answer::NotDone);
                        continue;
                    }
                    flush.proposal.previous = previous.replace(flush.proposal.id);
                    let submission = Submission {
                        world: Arc::clone(&self.world),
                        gate: Arc::clone(&self.gate),
                        rng: StdRng::seed_from_u64(self.rng.random()),
                        boundary: Arc::clone(&self.boundary),
                    };
                    under_way.push(submission.run(flush));
                }
            }
        }
    }
}

/// One flush on its way.
struct Submission {
    world: Arc<World>,
    gate: Arc<Gate>,
    rng: StdRng,
    boundary: Arc<std::sync::Mutex<SegmentId>>,
}

impl Submission {
    async fn run(mut self, flush: Flush) {
        match self.until_known(&flush).await {
            Some(outcome) => settle(flush.jobs, &outcome),
            None => answer_all(flush.jobs, Answer::Unknown),
        }
    }

    /// Sends a flush until its outcome is known; `None` if it can't be known any more.
    async fn until_known(&mut self, flush: &Flush) -> Option<Arc<FlushOutcome>> {
        let mut attempts = 0;
        loop {
            if let Some(to) = self.world.sequencer(&mut self.rng) {
                attempts += 1;
                if attempts > 1 {
                    self.world.trace.count("flushes sent again");
                }
                self.gate.pass().await;
                let reply =
                    network::submit(&self.world, &mut self.rng, &to, &flush.proposal, flush.body.as_ref()).await;
                self.gate.pass().await;
                if let Some(reply) = reply
                    && let Some(known) = self.judge(flush, reply)
                {
                    return known;
                }
            }
            sleep(Duration::from_millis(self.rng.random_range(20..300))).await;
        }
    }

    /// The outcome, or that it can't be known any more, or nothing: it must be sent again.
    fn judge(&self, flush: &Flush, reply: network::Reply) -> Option<Option<Arc<FlushOutcome>>> {
        let mut boundary = self.boundary.lock().expect("no code panics while it holds the boundary");
        *boundary = reply.boundary.max(*boundary);
        drop(boundary);
        match reply.result {
            Ok(outcome) => Some(Some(outcome)),
            Err(AppendError::Refused(Refusal::BelowReclaimBoundary { .. })) => Some(None),
            Err(AppendError::Refused(Refusal::FlushOutOfOrder { .. })) => {
                self.world.trace.count("flushes out of order");
                None
            }
            Err(AppendError::Refused(refusal)) => {
                let what = format!("flush {} of {:?}: {refusal}", flush.proposal.id, self.gate);
                self.world.trace.anomaly("flush-refused", what);
                Some(None)
            }
            Err(AppendError::NotDone { .. } | AppendError::Unknown { .. }) => None,
        }
    }
}

fn answer_all(jobs: Vec<Job>, answer: Answer) {
    for job in jobs {
        job.answer.send(answer).ok();
    }
}

fn settle(jobs: Vec<Job>, outcome: &FlushOutcome) {
    let outcomes = outcome.runs.iter().flat_map(|(_, outcomes)| outcomes.iter());
    for (job, outcome) in jobs.into_iter().zip(outcomes) {
        let answer = match outcome {
            Outcome::Appended(base) | Outcome::Duplicate(base) => {
                Answer::Done { base: base.get(), duplicate: matches!(outcome, Outcome::Duplicate(_)) }
            }
            Outcome::Refused(refusal) => Answer::Refused(*refusal),
        };
        job.answer.send(answer).ok();
    }
}
