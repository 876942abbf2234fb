//! The bench over gRPC's ProduceStream: one stream a partition, with pre-encoded batches.

use std::collections::VecDeque;

use futures::StreamExt;
use lakebed_client::services::produce_service_client::ProduceServiceClient;
use lakebed_wire::v1;
use lakebed_wire::v1::produce_stream_request::Request;
use lakebed_wire::v1::produce_stream_response::Response;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Status, Streaming};

use super::hash::Hash;
use super::histogram;
use super::load::{Job, Written};
use crate::failure::Failure;

/// Writes batches, keeping `in_flight` of them unanswered.
pub(super) async fn produce(job: &Job) -> Result<Written, Failure> {
    let (requests, mut answers, limits) = open(job).await?;
    let in_flight = job.in_flight.min(limits.window_batches.max(1) as usize);
    let mut written = Written { batches: 0, latency_us: histogram(), hash: Hash::EMPTY };
    let mut sent_at: VecDeque<Instant> = VecDeque::new();
    let mut sent = 0;
    loop {
        let may_send = sent_at.len() < in_flight && job.has_more(sent);
        let waits_until = if may_send { job.waits_until(sent) } else { None };
        if may_send && waits_until.is_none() {
            sent_at.push_back(job.sending(sent));
            let batch = v1::ProduceBatch {
                correlation_id: sent,
                partition: None,
                payload: Some(v1::produce_batch::Payload::KafkaBatch(job.batch(sent).clone())),
                expected_next_offset: None,
            };
            sent += 1;
            if requests.send(request(Request::Batch(batch))).await.is_ok() {
                continue;
            }
            // The stream has ended: its next answer says why.
        }
        if sent_at.is_empty() && waits_until.is_none() {
            return Ok(written);
        }
        tokio::select! {
            biased;
            answer = answers.next(), if !sent_at.is_empty() => {
                check(job, answer, written.batches)?;
                let from = sent_at.pop_front().expect("there is a batch that is not answered");
                job.acknowledged(from, &mut written);
            }
            () = sleep_until(waits_until.unwrap_or_else(Instant::now)), if waits_until.is_some() => {}
        }
    }
}

fn request(request: Request) -> v1::ProduceStreamRequest {
    v1::ProduceStreamRequest { request: Some(request) }
}

type Opened = (mpsc::Sender<v1::ProduceStreamRequest>, Streaming<v1::ProduceStreamResponse>, v1::ProduceInitAck);

async fn open(job: &Job) -> Result<Opened, Failure> {
    let (requests, receiver) = mpsc::channel(job.in_flight.min(4096));
    let init = v1::ProduceInit { topic: job.topic.clone(), partition: Some(job.partition) };
    requests.try_send(request(Request::Init(init))).map_err(|_| Failure::new("the stream has no room"))?;
    let mut service = ProduceServiceClient::new(connect(job).await?);
    let answer = service.produce_stream(ReceiverStream::new(receiver)).await.map_err(|status| failed(&status))?;
    let mut answers = answer.into_inner();
    let first = answers.next().await.transpose().map_err(|status| failed(&status))?;
    match first.and_then(|first| first.response) {
        Some(Response::InitAck(limits)) => Ok((requests, answers, limits)),
        _ => Err(Failure::new("the stream does not begin with its limits")),
    }
}

async fn connect(job: &Job) -> Result<Channel, Failure> {
    let address = &job.server.address;
    let url = if address.contains("://") { address.clone() } else { format!("http://{address}") };
    let broken = |error: tonic::transport::Error| Failure::new(format!("no connection to {address}")).cause(error);
    Endpoint::from_shared(url).map_err(broken)?.tcp_nodelay(true).connect().await.map_err(broken)
}

fn failed(status: &Status) -> Failure {
    Failure::new("the stream failed").cause(format!("{}: {}", status.code(), status.message()))
}

fn check(job: &Job, answer: Option<Result<v1::ProduceStreamResponse, Status>>, index: u64) -> Result<(), Failure> {
    let expected = job.start + (index * u64::from(job.pool.records)) as i64;
    let answer = answer.transpose().map_err(|status| failed(&status))?.and_then(|answer| answer.response);
    match answer {
        Some(Response::Ack(ack)) if ack.correlation_id == index && ack.base_offset == expected => Ok(()),
        Some(Response::Ack(ack)) => {
            let what =
                format!("batch {index} of partition {} got offset {}, not {expected}", job.partition, ack.base_offset);
            Err(Failure::new(what).remedy("let nobody else write to the topic of a bench"))
        }
        Some(Response::Error(error)) => {
            let status = error.status.unwrap_or_default();
            Err(Failure::new(format!("batch {index} of partition {} was refused", job.partition)).cause(status.message))
        }
        Some(Response::InitAck(_)) | None => Err(Failure::new("the broker ended the stream")),
    }
}
