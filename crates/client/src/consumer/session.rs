//! One stream from one broker.

use std::time::Duration;

use futures::StreamExt;
use lakebed_wire::v1;
use lakebed_wire::v1::consume_response::Response;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Streaming};

use crate::connection::{Client, MESSAGE_BYTES_MAX};
use crate::error::ClientError;
use crate::services::consume_service_client::ConsumeServiceClient;

/// How long a broker may take to say that the stream has begun.
const OPEN_MAX: Duration = Duration::from_secs(15);
/// Requests that wait to be sent; more wait in the driver.
const REQUESTS_MAX: usize = 16;
/// A client that counts in bytes alone grants so many records once.
const RECORDS: u64 = 1 << 62;

/// An open stream.
pub(super) struct Session {
    pub(super) requests: mpsc::Sender<v1::ConsumeRequest>,
    responses: Streaming<v1::ConsumeResponse>,
}

impl Session {
    /// Opens a stream with so much credit, granted after it is told what else it must know, and waits until the broker says where it begins.
    pub(super) async fn open(
        client: &Client,
        init: v1::ConsumeInit,
        told: Vec<v1::ConsumeRequest>,
        credit_bytes: u64,
    ) -> Result<(Self, v1::ConsumeHeartbeat), ClientError> {
        let channel = client.dialer.dial().await?;
        let (requests, receiver) = mpsc::channel(REQUESTS_MAX + told.len());
        let init = v1::ConsumeRequest { request: Some(v1::consume_request::Request::Init(init)) };
        for request in [init].into_iter().chain(told).chain([credit(credit_bytes, RECORDS)]) {
            requests.try_send(request).expect("an empty queue has room for these");
        }
        let opened = tokio::time::timeout(OPEN_MAX, async {
            let mut service = ConsumeServiceClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX);
            let answer = service.consume(ReceiverStream::new(receiver)).await;
            let mut responses = answer.map_err(|status| ClientError::from_status(&status))?.into_inner();
            match responses.next().await {
                Some(Ok(v1::ConsumeResponse { response: Some(Response::Heartbeat(heartbeat)) })) => {
                    Ok((responses, heartbeat))
                }
                Some(Ok(_)) => {
                    Err(ClientError::refused(Code::Internal, "INTERNAL", "the stream does not begin with a heartbeat"))
                }
                Some(Err(status)) => Err(ClientError::from_status(&status)),
                None => Err(ClientError::Lost { cause: "the stream ended before it began".to_owned() }),
            }
        });
        let late = |_| ClientError::refused(Code::DeadlineExceeded, "", "the broker did not open the stream in time");
        let (responses, heartbeat) = opened.await.map_err(late)??;
        Ok((Self { requests, responses }, heartbeat))
    }

    /// The next message; `None` if the broker has ended the stream well.
    pub(super) async fn next(&mut self) -> Result<Option<Response>, ClientError> {
        loop {
            match self.responses.next().await {
                None => return Ok(None),
                Some(Err(status)) => return Err(ClientError::from_status(&status)),
                Some(Ok(v1::ConsumeResponse { response: Some(response) })) => return Ok(Some(response)),
                // Of a newer broker.
                Some(Ok(v1::ConsumeResponse { response: None })) => {}
            }
        }
    }
}

pub(super) fn credit(bytes: u64, records: u64) -> v1::ConsumeRequest {
    v1::ConsumeRequest { request: Some(v1::consume_request::Request::Credit(v1::ConsumeCredit { bytes, records })) }
}
