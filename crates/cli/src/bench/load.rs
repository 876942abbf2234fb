//! Loads on a broker: who writes and reads when, and what of it is measured.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use hdrhistogram::Histogram;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::hash::Hash;
use super::meter::Meter;
use super::pool::Pool;
use super::{Report, grpc, histogram, kafka, micros, stream};
use crate::args::{BenchArgs, BenchTarget, Phase};
use crate::failure::Failure;
use crate::server::Server;

/// Until all is written, nobody knows how much it is.
const NOT_YET: u64 = u64::MAX;

pub(super) async fn run(args: &BenchArgs) -> Result<Report, Failure> {
    let pool = Arc::new(Pool::new(args.record, args.batch, args.values)?);
    let starts = make_topic(args).await?;
    let meter = Arc::new(Meter::new(args.volume as u64));
    let jobs = jobs(args, &pool, &meter, &starts)?;
    let result = match args.phase {
        Phase::EndToEnd => end_to_end(args, &jobs).await,
        Phase::Produce => produce_first(args, &jobs).await,
        Phase::Consume => consume_after(args, &jobs).await,
    };
    meter.clear();
    result
}

/// What is done with one partition.
#[derive(Clone)]
pub(super) struct Job {
    what: BenchTarget,
    pub(super) server: Server,
    /// The broker's Kafka address.
    pub(super) kafka: String,
    pub(super) topic: String,
    pub(super) in_flight: usize,
    /// Whether gRPC consumers get records.
    pub(super) records: bool,
    pub(super) pool: Arc<Pool>,
    pub(super) partition: i32,
    /// The offset of the first record.
    pub(super) start: i64,
    batches: u64,
    deadline: Instant,
    /// When batches are due: the first, and how far they are apart.
    pace: Option<(Instant, Duration)>,
    meter: Arc<Meter>,
    shared: Arc<Shared>,
}

/// What writer and readers of a partition know of one another.
struct Shared {
    /// Batches that were written, or [`NOT_YET`].
    written: AtomicU64,
    /// When each batch was sent, or due, if readers follow at once.
    sent_at: Option<Mutex<Vec<Instant>>>,
}

/// What was written.
pub(super) struct Written {
    pub(super) batches: u64,
    pub(super) latency_us: Histogram<u64>,
    pub(super) hash: Hash,
}

/// What was read and compared.
pub(super) struct Followed {
    pub(super) bytes: u64,
    /// What the consumer waited for each time.
    pub(super) waits_us: Histogram<u64>,
    pub(super) end_to_end_us: Histogram<u64>,
    pub(super) hash: Hash,
}

impl Followed {
    pub(super) fn new() -> Self {
        Self { bytes: 0, waits_us: histogram(), end_to_end_us: histogram(), hash: Hash::EMPTY }
    }
}

impl Job {
    /// The batch that is sent as the `index`-th.
    pub(super) fn batch(&self, index: u64) -> &Bytes {
        self.pool.batch(if self.is_one_batch() { 0 } else { index })
    }

    /// The hash of the values of that batch.
    pub(super) fn hash(&self, index: u64) -> u64 {
        self.pool.hash(if self.is_one_batch() { 0 } else { index })
    }

    /// The value that a record has; the first of the job is 0.
    pub(super) fn value(&self, index: u64) -> &Bytes {
        let index = if self.is_one_batch() { index % u64::from(self.pool.records) } else { index };
        self.pool.value(index)
    }

    /// Whether all batches are the same.
    fn is_one_batch(&self) -> bool {
        self.what == BenchTarget::GrpcUnary
    }

    /// Whether there is more to write than so many batches.
    pub(super) fn has_more(&self, sent: u64) -> bool {
        sent < self.batches && Instant::now() < self.deadline
    }

    /// When a batch is due, if that is still to come.
    pub(super) fn waits_until(&self, index: u64) -> Option<Instant> {
        self.due(index).filter(|due| Instant::now() < *due)
    }

    fn due(&self, index: u64) -> Option<Instant> {
        self.pace.map(|(first, apart)| first + apart.mul_f64(index as f64))
    }

    /// Notes that a batch is sent; answers from when its latency counts.
    pub(super) fn sending(&self, index: u64) -> Instant {
        let from = self.due(index).unwrap_or_else(Instant::now);
        if let Some(sent_at) = &self.shared.sent_at {
            sent_at.lock().unwrap_or_else(PoisonError::into_inner).push(from);
        }
        from
    }

    /// Notes that a batch is acknowledged.
    pub(super) fn acknowledged(&self, from: Instant, written: &mut Written) {
        let latency_us = micros(from.elapsed());
        written.latency_us.saturating_record(latency_us);
        written.hash = written.hash.then(self.hash(written.batches));
        written.batches += 1;
        self.meter.done(self.pool.value_bytes, latency_us);
    }

    /// Says how much there is to read.
    fn tell(&self, written: &Written) {
        self.shared.written.store(written.batches, Ordering::Release);
    }

    /// Whether everything that was written is read up to `offset`.
    pub(super) fn has_all(&self, offset: i64) -> bool {
        let batches = self.shared.written.load(Ordering::Acquire);
        batches != NOT_YET && (offset - self.start) as u64 >= batches * u64::from(self.pool.records)
    }

    /// Notes that a consumer has all up to `offset`, and had it not before `before`.
    pub(super) fn arrived(&self, before: i64, offset: i64, followed: &mut Followed) {
        let Some(sent_at) = &self.shared.sent_at else { return };
        let batch = |offset: i64| ((offset - self.start) as u64 / u64::from(self.pool.records)) as usize;
        let sent_at = sent_at.lock().unwrap_or_else(PoisonError::into_inner);
        for from in sent_at.get(batch(before)..batch(offset)).unwrap_or_default() {
            followed.end_to_end_us.saturating_record(micros(from.elapsed()));
        }
    }

    fn write(&self) -> JoinHandle<Result<Written, Failure>> {
        let job = self.clone();
        tokio::spawn(async move {
            let written = match job.what {
                BenchTarget::Kafka => kafka::produce(&job).await?,
                BenchTarget::GrpcUnary => grpc::produce(&job).await?,
                BenchTarget::Grpc | BenchTarget::Disk => stream::produce(&job).await?,
            };
            job.tell(&written);
            Ok(written)
        })
    }

    fn read(&self) -> JoinHandle<Result<Followed, Failure>> {
        let job = self.clone();
        tokio::spawn(async move {
            match job.what {
                BenchTarget::Kafka => kafka::follow(&job).await,
                BenchTarget::Grpc | BenchTarget::GrpcUnary | BenchTarget::Disk => grpc::follow(&job).await,
            }
        })
    }
}

fn jobs(args: &BenchArgs, pool: &Arc<Pool>, meter: &Arc<Meter>, starts: &[i64]) -> Result<Vec<Job>, Failure> {
    let batches = (args.volume as u64 / pool.value_bytes.max(1) / starts.len() as u64).max(1);
    let now = Instant::now();
    let batches_per_s = |rate: u64| rate as f64 / f64::from(pool.records) / starts.len() as f64;
    let apart = args.rate.map(|rate| Duration::from_secs_f64((1.0 / batches_per_s(rate)).min(1e6)));
    let follows = args.phase == Phase::EndToEnd && args.consumers > 0;
    let server = args.server.find()?;
    let job = |(partition, start): (i32, &i64)| Job {
        what: args.what,
        server: server.clone(),
        kafka: args.kafka.clone().unwrap_or_else(|| server.kafka.clone()),
        topic: args.topic.clone(),
        in_flight: args.in_flight.max(1),
        records: args.records,
        pool: Arc::clone(pool),
        partition,
        start: *start,
        batches,
        deadline: now + Duration::from_secs(args.seconds_max),
        // Partitions take turns.
        pace: apart.map(|apart| (now + apart.mul_f64(f64::from(partition) / starts.len() as f64), apart)),
        meter: Arc::clone(meter),
        shared: Arc::new(Shared { written: AtomicU64::new(NOT_YET), sent_at: follows.then(|| Mutex::new(Vec::new())) }),
    };
    Ok((0..).zip(starts).map(job).collect())
}

async fn end_to_end(args: &BenchArgs, jobs: &[Job]) -> Result<Report, Failure> {
    let began = Instant::now();
    let readers = readers(args.consumers, jobs);
    let writers = jobs.iter().map(Job::write).collect();
    let mut report = Report { phase: args.phase, ..written(args, jobs, writers).await? };
    let mut end_to_end_us = histogram();
    for followed in compared(&mut report, readers).await? {
        add(&mut end_to_end_us, &followed.end_to_end_us)?;
    }
    report.end_to_end_us = (args.consumers > 0).then_some(end_to_end_us);
    report.elapsed = began.elapsed();
    Ok(report)
}

async fn produce_first(args: &BenchArgs, jobs: &[Job]) -> Result<Report, Failure> {
    let began = Instant::now();
    let mut report = written(args, jobs, jobs.iter().map(Job::write).collect()).await?;
    report.elapsed = began.elapsed();
    compared(&mut report, readers(1, jobs)).await?;
    Ok(report)
}

async fn consume_after(args: &BenchArgs, jobs: &[Job]) -> Result<Report, Failure> {
    let mut report = written(args, jobs, jobs.iter().map(Job::write).collect()).await?;
    let consumers = args.consumers.max(1);
    let began = Instant::now();
    let mut waits_us = histogram();
    for followed in compared(&mut report, readers(consumers, jobs)).await? {
        add(&mut waits_us, &followed.waits_us)?;
    }
    report.elapsed = began.elapsed();
    report.latency_us = waits_us;
    report.records *= u64::from(consumers);
    report.bytes *= u64::from(consumers);
    Ok(report)
}

/// So many readers of each partition, with what must come of them.
fn readers(each: u32, jobs: &[Job]) -> Vec<(usize, JoinHandle<Result<Followed, Failure>>)> {
    let readers = jobs.iter().enumerate();
    readers.flat_map(|(index, job)| (0..each).map(move |_| (index, job.read()))).collect()
}

/// Waits for the writers; what they did.
async fn written(
    args: &BenchArgs,
    jobs: &[Job],
    writers: Vec<JoinHandle<Result<Written, Failure>>>,
) -> Result<Report, Failure> {
    let mut report = Report {
        what: args.what,
        phase: args.phase,
        records: 0,
        bytes: 0,
        elapsed: Duration::ZERO,
        latency_us: histogram(),
        end_to_end_us: None,
        verified_bytes: 0,
        hash: None,
        rate: args.rate,
    };
    let mut hash = Hash::EMPTY;
    for (writer, job) in writers.into_iter().zip(jobs) {
        let written = joined(writer.await)?;
        report.records += written.batches * u64::from(job.pool.records);
        report.bytes += written.batches * job.pool.value_bytes;
        add(&mut report.latency_us, &written.latency_us)?;
        hash = hash.then(written.hash.get());
    }
    report.hash = Some(hash.get());
    Ok(report)
}

/// Waits for the readers, and compares what they read with what was written as a whole.
async fn compared(
    report: &mut Report,
    readers: Vec<(usize, JoinHandle<Result<Followed, Failure>>)>,
) -> Result<Vec<Followed>, Failure> {
    let mut all = Vec::with_capacity(readers.len());
    // One hash for each round of readers over the partitions.
    let mut rounds: Vec<Vec<Hash>> = Vec::new();
    let mut last = None;
    for (index, reader) in readers {
        let followed = joined(reader.await)?;
        report.verified_bytes += followed.bytes;
        let round = if last == Some(index) { rounds.iter().filter(|round| round.len() > index).count() } else { 0 };
        last = Some(index);
        if rounds.len() <= round {
            rounds.push(Vec::new());
        }
        rounds[round].push(followed.hash);
        all.push(followed);
    }
    for round in rounds {
        let read = round.into_iter().fold(Hash::EMPTY, |hash, next| hash.then(next.get()));
        if report.hash != Some(read.get()) {
            return Err(Failure::new("the hash of what came back differs from that of what was written"));
        }
    }
    if all.is_empty() {
        report.hash = None;
    }
    Ok(all)
}

fn add(to: &mut Histogram<u64>, more: &Histogram<u64>) -> Result<(), Failure> {
    to.add(more).map_err(|error| Failure::new("latencies can't be added").cause(error))
}

fn joined<T>(result: Result<Result<T, Failure>, tokio::task::JoinError>) -> Result<T, Failure> {
    result.map_err(|error| Failure::new("a part of the bench ended before its time").cause(error))?
}

/// Makes the topic if it is not there; answers where each partition ends.
async fn make_topic(args: &BenchArgs) -> Result<Vec<i64>, Failure> {
    let (client, server) = args.server.connect().await?;
    let partitions = i32::try_from(args.partitions).unwrap_or(i32::MAX);
    match client.create_topic(&args.topic, Some(partitions), Default::default()).await {
        Ok(_) => {}
        Err(error) if error.reason() == "TOPIC_ALREADY_EXISTS" => {}
        Err(error) => return Err(Failure::call(format!("topic {} can't be made", args.topic), &server, &error)),
    }
    let described = client.describe_topic(&args.topic).await;
    let described = described.map_err(|error| Failure::call("the topic can't be described", &server, &error))?;
    let starts: Vec<i64> = described.partitions.iter().map(|partition| partition.latest_offset).collect();
    if starts.len() == args.partitions as usize {
        return Ok(starts);
    }
    let what =
        format!("topic {} has {} partitions, not the {} of --partitions", args.topic, starts.len(), args.partitions);
    Err(Failure::new(what).remedy("name another topic with --topic"))
}
