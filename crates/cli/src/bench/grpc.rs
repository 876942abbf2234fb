//! The bench over gRPC: unary Produce calls with pre-encoded batches, and a Consume stream that follows.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use hdrhistogram::Histogram;
use lakebed_client::{Client, ClientError, ConsumeOptions, Start};
use lakebed_wire::v1;

use super::kafka::make_topic;
use super::pool::Pool;
use super::{Report, histogram, micros};
use crate::args::BenchArgs;
use crate::failure::Failure;
use crate::server::Server;

pub(super) async fn run(args: &BenchArgs) -> Result<Report, Failure> {
    let pool = Arc::new(Pool::new(args.record, args.batch)?);
    let starts = make_topic(args).await?;
    let batches = (args.volume as u64 / pool.value_bytes.max(1) / starts.len() as u64).max(1);
    let began = Instant::now();
    let deadline = began + Duration::from_secs(args.seconds_max);
    let (mut producers, mut consumers) = (Vec::new(), Vec::new());
    for (partition, start) in (0_i32..).zip(starts) {
        let job = Job {
            server: args.server.find()?,
            topic: args.topic.clone(),
            in_flight: args.in_flight.max(1),
            pool: Arc::clone(&pool),
            partition,
            start,
            batches,
        };
        let written = Arc::new(AtomicU64::new(u64::MAX));
        for _ in 0..args.consumers {
            consumers.push(tokio::spawn(follow(job.clone(), Arc::clone(&written))));
        }
        producers.push(tokio::spawn(produce(job, deadline, written)));
    }
    let mut report = Report {
        what: "grpc",
        records: 0,
        bytes: 0,
        elapsed: Duration::ZERO,
        latency_us: histogram(),
        verified_bytes: 0,
    };
    let ended = |error| Failure::new("a part of the bench ended before its time").cause(error);
    for producer in producers {
        let (sent, latency) = producer.await.map_err(ended)??;
        report.records += sent * u64::from(pool.records);
        report.bytes += sent * pool.value_bytes;
        report.latency_us.add(&latency).map_err(|error| Failure::new("latencies can't be added").cause(error))?;
    }
    for consumer in consumers {
        report.verified_bytes += consumer.await.map_err(ended)??;
    }
    report.elapsed = began.elapsed();
    Ok(report)
}

#[derive(Clone)]
struct Job {
    server: Server,
    topic: String,
    in_flight: usize,
    pool: Arc<Pool>,
    partition: i32,
    start: i64,
    batches: u64,
}

async fn connect(job: &Job) -> Result<Client, Failure> {
    job.server.connect().await
}

/// Calls Produce with `in_flight` calls outstanding. Calls of one connection may overtake one another, so which batch got which
/// offset is told by the acknowledgements; all batches of a run have as many records, so the consumer checks records one by one.
async fn produce(job: Job, deadline: Instant, written: Arc<AtomicU64>) -> Result<(u64, Histogram<u64>), Failure> {
    let client = connect(&job).await?;
    let mut latency = histogram();
    let mut calls = FuturesUnordered::new();
    let (mut sent, mut acknowledged) = (0_u64, 0_u64);
    loop {
        if sent < job.batches && Instant::now() < deadline && calls.len() < job.in_flight {
            let payload = Some(v1::produce_request::Payload::KafkaBatch(job.pool.batch(0).clone()));
            let request = v1::ProduceRequest {
                topic: job.topic.clone(),
                partition: Some(job.partition),
                payload,
                ..Default::default()
            };
            let client = client.clone();
            calls.push(async move {
                let begun = Instant::now();
                let answer = client.produce_request(request).await;
                (begun.elapsed(), answer)
            });
            sent += 1;
            continue;
        }
        let Some((elapsed, answer)) = calls.next().await else { break };
        answer.map_err(|error: ClientError| Failure::call("a batch was refused", &job.server, &error))?;
        latency.saturating_record(micros(elapsed));
        acknowledged += 1;
    }
    written.store(acknowledged, Ordering::Release);
    Ok((acknowledged, latency))
}

/// Follows a partition until all that was written has come back; answers how many bytes of values it compared.
async fn follow(job: Job, written: Arc<AtomicU64>) -> Result<u64, Failure> {
    let failed = |error: &ClientError| Failure::call("the stream failed", &job.server, error);
    let client = connect(&job).await?;
    let mut options = ConsumeOptions::new(&job.topic, Start::Offset(job.start));
    options.partitions = vec![job.partition];
    let mut consumer = client.consume(options).await.map_err(|error| failed(&error))?;
    let (mut offset, mut verified) = (job.start, 0_u64);
    let mut tick = tokio::time::interval(Duration::from_millis(50));
    loop {
        let batches = written.load(Ordering::Acquire);
        if batches != u64::MAX && (offset - job.start) as u64 >= batches * u64::from(job.pool.records) {
            return Ok(verified);
        }
        let response = tokio::select! {
            biased;
            response = consumer.next() => response,
            _ = tick.tick() => continue,
        };
        let Some(response) = response else { return Err(Failure::new("the broker ended the stream")) };
        let v1::consume_response::Response::Batch(batch) = response.map_err(|error| failed(&error))? else { continue };
        let Some(v1::consume_batch::Payload::Records(records)) = batch.payload else { continue };
        for record in records.records {
            let index = (offset - job.start) as u64 % u64::from(job.pool.records);
            let expected = job.pool.value(index);
            if record.offset != Some(offset) || record.value.as_ref() != Some(expected) {
                return Err(Failure::new(format!("what came back at offset {offset} differs from what was written")));
            }
            offset += 1;
            verified += expected.len() as u64;
        }
    }
}
