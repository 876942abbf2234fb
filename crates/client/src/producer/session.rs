//! One stream to one broker.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::{Stream, StreamExt};
use lakebed_wire::v1;
use tokio::sync::mpsc;
use tonic::{Code, Streaming};

use crate::connection::Client;
use crate::error::ClientError;
use crate::services::produce_service_client::ProduceServiceClient;

/// How long a broker may take to say that the stream is open.
const OPEN_MAX: Duration = Duration::from_secs(15);

/// An open stream.
pub(super) struct Session {
    requests: mpsc::Sender<v1::ProduceStreamRequest>,
    gate: Arc<Mutex<Gate>>,
    responses: Streaming<v1::ProduceStreamResponse>,
    /// What the broker said when it opened the stream.
    pub(super) limits: v1::ProduceInitAck,
}

/// What of the requests has left this process.
#[derive(Debug, Default)]
struct Gate {
    closed: bool,
    taken: u64,
}

impl Session {
    /// Opens a stream, of which at most `batches_max` are unanswered.
    pub(super) async fn open(client: &Client, topic: &str, batches_max: usize) -> Result<Self, ClientError> {
        let channel = client.dialer.dial().await?;
        let (requests, receiver) = mpsc::channel(batches_max.saturating_add(1));
        let gate = Arc::new(Mutex::new(Gate::default()));
        let outgoing = Outgoing { receiver, gate: Arc::clone(&gate) };
        let init = v1::ProduceInit { topic: topic.to_owned(), ..v1::ProduceInit::default() };
        let init = v1::ProduceStreamRequest { request: Some(v1::produce_stream_request::Request::Init(init)) };
        requests.try_send(init).expect("an empty queue has room");
        let opened = tokio::time::timeout(OPEN_MAX, async {
            let mut service = ProduceServiceClient::new(channel);
            let answer = service.produce_stream(outgoing).await.map_err(|status| ClientError::from_status(&status))?;
            let mut responses = answer.into_inner();
            match responses.next().await {
                Some(Ok(v1::ProduceStreamResponse {
                    response: Some(v1::produce_stream_response::Response::InitAck(limits)),
                })) => Ok((responses, limits)),
                Some(Ok(_)) => Err(strange("the stream does not begin with its limits")),
                Some(Err(status)) => Err(ClientError::from_status(&status)),
                None => Err(ClientError::Lost { cause: "the stream ended before it began".to_owned() }),
            }
        });
        let late = |_| ClientError::refused(Code::DeadlineExceeded, "", "the broker did not open the stream in time");
        let (responses, limits) = opened.await.map_err(late)??;
        Ok(Self { requests, gate, responses, limits })
    }

    /// Hands a batch over. There is room as long as no more are unanswered than was said when the stream was opened.
    pub(super) fn send(&self, batch: v1::ProduceBatch) {
        let request = v1::ProduceStreamRequest { request: Some(v1::produce_stream_request::Request::Batch(batch)) };
        // A stream that has ended says why with its next answer.
        drop(self.requests.try_send(request));
    }

    /// The next answer; the error with which the stream ended if there is none.
    pub(super) async fn next(&mut self) -> Result<v1::produce_stream_response::Response, ClientError> {
        match self.responses.next().await {
            Some(Ok(v1::ProduceStreamResponse { response: Some(response) })) => Ok(response),
            Some(Ok(_)) => Err(strange("an answer says nothing")),
            Some(Err(status)) => Err(ClientError::from_status(&status)),
            None => Err(ClientError::Lost { cause: "the broker ended the stream".to_owned() }),
        }
    }

    /// Lets nothing more out; answers how many batches have left.
    pub(super) fn shut(&self) -> u64 {
        let mut gate = self.gate.lock().unwrap_or_else(PoisonError::into_inner);
        gate.closed = true;
        gate.taken.saturating_sub(1)
    }

    /// Says that all was sent, and waits for the end of the stream.
    pub(super) async fn finish(self) {
        let Self { requests, mut responses, .. } = self;
        drop(requests);
        // Everything is answered: how the stream ends changes nothing.
        drop(tokio::time::timeout(OPEN_MAX, async { while responses.next().await.is_some() {} }).await);
    }
}

/// An answer that the contract does not know: what became of the rest can't be told.
pub(super) fn strange(what: &str) -> ClientError {
    ClientError::refused(Code::Internal, "", what)
}

/// The requests, as the connection takes them.
struct Outgoing {
    receiver: mpsc::Receiver<v1::ProduceStreamRequest>,
    gate: Arc<Mutex<Gate>>,
}

impl Stream for Outgoing {
    type Item = v1::ProduceStreamRequest;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        let mut gate = this.gate.lock().unwrap_or_else(PoisonError::into_inner);
        if gate.closed {
            return Poll::Ready(None);
        }
        let request = ready!(this.receiver.poll_recv(context));
        gate.taken += u64::from(request.is_some());
        Poll::Ready(request)
    }
}
