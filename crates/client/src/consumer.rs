//! A stream of batches that grants credit as it is read.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures::Stream;
use lakebed_wire::v1;
use prost::Message;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Channel;

use crate::error::ClientError;
use crate::services::consume_service_client::ConsumeServiceClient;

/// Requests that wait to be sent; one credit is granted per batch read, so few ever wait.
const REQUESTS_MAX: usize = 16;

/// Where a partition begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// At the first record that is kept.
    Earliest,
    /// At what arrives from now on.
    Latest,
    /// At an offset.
    Offset(i64),
    /// At the first record of this time (milliseconds since 1970) or later.
    Timestamp(i64),
}

/// What to read.
#[derive(Debug, Clone)]
pub struct ConsumeOptions {
    /// Name of the topic.
    pub topic: String,
    /// Which partitions; empty for all.
    pub partitions: Vec<i32>,
    /// Where they begin.
    pub start: Start,
    /// How records come.
    pub format: v1::Format,
    /// Bytes that may be on their way: more hides latency, and is held in memory.
    pub window_bytes: u64,
}

impl ConsumeOptions {
    /// All partitions of a topic as records, with a window of 4 MiB.
    pub fn new(topic: &str, start: Start) -> Self {
        Self {
            topic: topic.to_owned(),
            partitions: Vec::new(),
            start,
            format: v1::Format::Records,
            window_bytes: 4 << 20,
        }
    }
}

/// An open stream. Ends when the broker ends it; dropping it ends it too.
#[derive(Debug)]
pub struct Consumer {
    responses: Streaming<v1::ConsumeResponse>,
    credits: mpsc::Sender<v1::ConsumeRequest>,
    owed: v1::ConsumeCredit,
}

impl Consumer {
    pub(crate) async fn open(
        mut service: ConsumeServiceClient<Channel>,
        options: ConsumeOptions,
    ) -> Result<Self, ClientError> {
        let (credits, requests) = mpsc::channel(REQUESTS_MAX);
        let init = v1::ConsumeInit {
            topic: options.topic,
            partitions: options
                .partitions
                .iter()
                .map(|partition| v1::PartitionStart { partition: *partition, start: None })
                .collect(),
            start: Some(position(options.start)),
            format: options.format as i32,
            ..v1::ConsumeInit::default()
        };
        let init = v1::ConsumeRequest { request: Some(v1::consume_request::Request::Init(init)) };
        let window = credit(options.window_bytes, u64::from(u32::MAX));
        for request in [init, window] {
            credits.try_send(request).expect("an empty queue has room for two");
        }
        let answer = service.consume(ReceiverStream::new(requests)).await;
        let responses = answer.map_err(|status| ClientError::from_status(&status))?.into_inner();
        Ok(Self { responses, credits, owed: v1::ConsumeCredit::default() })
    }

    /// Grants what the last batch used up. If the queue is full, it is granted with the next batch.
    fn repay(&mut self, batch: &v1::ConsumeBatch) {
        self.owed.bytes += batch.encoded_len() as u64;
        self.owed.records += match &batch.payload {
            Some(v1::consume_batch::Payload::Records(records)) => records.records.len() as u64,
            _ => 0,
        };
        if self.credits.try_send(credit(self.owed.bytes, self.owed.records)).is_ok() {
            self.owed = v1::ConsumeCredit::default();
        }
    }
}

fn credit(bytes: u64, records: u64) -> v1::ConsumeRequest {
    v1::ConsumeRequest { request: Some(v1::consume_request::Request::Credit(v1::ConsumeCredit { bytes, records })) }
}

fn position(start: Start) -> v1::StartPosition {
    use v1::start_position::Position;
    let position = match start {
        Start::Earliest => Position::Earliest(v1::Earliest {}),
        Start::Latest => Position::Latest(v1::Latest {}),
        Start::Offset(offset) => Position::Offset(offset),
        Start::Timestamp(timestamp_ms) => Position::Timestamp(timestamp_ms),
    };
    v1::StartPosition { position: Some(position) }
}

impl Stream for Consumer {
    type Item = Result<v1::consume_response::Response, ClientError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            match ready!(Pin::new(&mut self.responses).poll_next(context)) {
                None => return Poll::Ready(None),
                Some(Err(status)) => return Poll::Ready(Some(Err(ClientError::from_status(&status)))),
                Some(Ok(v1::ConsumeResponse { response: None })) => {}
                Some(Ok(v1::ConsumeResponse { response: Some(response) })) => {
                    if let v1::consume_response::Response::Batch(batch) = &response {
                        self.repay(batch);
                    }
                    return Poll::Ready(Some(Ok(response)));
                }
            }
        }
    }
}
