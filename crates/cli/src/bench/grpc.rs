//! The bench over gRPC: unary Produce calls with pre-encoded batches, and a Consume stream that follows.

use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use lakebed_client::{ClientError, Payload, Start};
use lakebed_wire::v1;
use tokio::time::{Instant, sleep_until};

use super::hash::{Hash, Reader};
use super::load::{Followed, Job, Written};
use super::{histogram, kafka, micros};
use crate::failure::Failure;

/// How often a consumer that gets nothing looks whether there is anything more.
const LOOK: Duration = Duration::from_millis(50);

/// Calls Produce with `in_flight` calls outstanding. Calls of one connection may overtake one another, and which batch got which offset is told
/// by the acknowledgements alone; so all calls send the same batch.
pub(super) async fn produce(job: &Job) -> Result<Written, Failure> {
    let client = job.server.connect().await?;
    let mut written = Written { batches: 0, latency_us: histogram(), hash: Hash::EMPTY };
    let mut calls = FuturesUnordered::new();
    let mut sent = 0_u64;
    loop {
        let may_send = calls.len() < job.in_flight && job.has_more(sent);
        let waits_until = if may_send { job.waits_until(sent) } else { None };
        if may_send && waits_until.is_none() {
            let from = job.sending(sent);
            let request = v1::ProduceRequest {
                topic: job.topic.clone(),
                partition: Some(job.partition),
                payload: Some(v1::produce_request::Payload::KafkaBatch(job.batch(0).clone())),
                ..Default::default()
            };
            let client = client.clone();
            calls.push(async move { (from, client.produce_request(request).await) });
            sent += 1;
            continue;
        }
        if calls.is_empty() && waits_until.is_none() {
            return Ok(written);
        }
        tokio::select! {
            biased;
            Some((from, answer)) = calls.next() => {
                answer.map_err(|error: ClientError| Failure::call("a batch was refused", &job.server, &error))?;
                job.acknowledged(from, &mut written);
            }
            () = sleep_until(waits_until.unwrap_or_else(Instant::now)), if waits_until.is_some() => {}
        }
    }
}

/// Follows a partition until all that was written has come back, and compares it.
pub(super) async fn follow(job: &Job) -> Result<Followed, Failure> {
    let failed = |error: &ClientError| Failure::call("the stream failed", &job.server, error);
    let client = job.server.connect().await?;
    let format = if job.records { v1::Format::Records } else { v1::Format::KafkaBatches };
    let consumer = client.consumer(&job.topic, Start::Offset(job.start)).partition(job.partition).format(format);
    let consumer = consumer.open().await;
    let mut consumer = consumer.map_err(|error| failed(&error))?;
    let mut followed = Followed::new();
    let mut reader = Reader::new(job.pool.records);
    let mut offset = job.start;
    let mut look = tokio::time::interval(LOOK);
    let mut waiting_since = Instant::now();
    while !job.has_all(offset) {
        let batch = tokio::select! {
            biased;
            batch = consumer.next() => batch,
            _ = look.tick() => continue,
        };
        let Some(batch) = batch else { return Err(Failure::new("the broker ended the stream")) };
        let payload = batch.map_err(|error| failed(&error))?.payload;
        followed.waits_us.saturating_record(micros(waiting_since.elapsed()));
        let before = offset;
        let (next, bytes) = match payload {
            Payload::Records(records) => compare(job, records, offset, &mut reader)?,
            Payload::KafkaBatches(batches) => kafka::compare(job, batches, offset, &mut reader)?,
            Payload::ArrowIpc { .. } => {
                return Err(Failure::new("the broker answers in a format that was not asked for"));
            }
        };
        offset = next;
        followed.bytes += bytes;
        job.arrived(before, offset, &mut followed);
        waiting_since = Instant::now();
    }
    followed.hash = reader.hash();
    Ok(followed)
}

/// Compares records with what was written from `offset` on; answers where to go on and how many bytes of values it was.
fn compare(job: &Job, records: Vec<v1::Record>, mut offset: i64, reader: &mut Reader) -> Result<(i64, u64), Failure> {
    let mut bytes = 0;
    for record in records {
        let expected = job.value((offset - job.start) as u64);
        if record.offset != Some(offset) || record.value.as_ref() != Some(expected) {
            return Err(Failure::new(format!("what came back at offset {offset} differs from what was written")));
        }
        reader.record(expected);
        offset += 1;
        bytes += expected.len() as u64;
    }
    Ok((offset, bytes))
}
