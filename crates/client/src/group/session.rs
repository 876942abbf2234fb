//! One Join stream to one broker.

use std::time::Duration;

use futures::StreamExt;
use lakebed_wire::v1;
use lakebed_wire::v1::join_request::Request;
use lakebed_wire::v1::join_response::Response;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Streaming};

use crate::connection::{Client, MESSAGE_BYTES_MAX};
use crate::error::ClientError;
use crate::services::group_service_client::GroupServiceClient;

/// How long a broker may take to take the member in.
const OPEN_MAX: Duration = Duration::from_secs(30);
/// Requests that wait to be sent. A broker that takes no more is lost.
const REQUESTS_MAX: usize = 256;
/// If the broker does not say how often it wants to hear of its members.
const HEARTBEAT_DEFAULT: Duration = Duration::from_secs(5);

/// An open stream.
pub(super) struct Session {
    requests: mpsc::Sender<v1::JoinRequest>,
    responses: Streaming<v1::JoinResponse>,
    pub(super) member_id: String,
    /// The member goes on with what it had on the stream before.
    pub(super) resumed: bool,
    pub(super) heartbeat_interval: Duration,
}

impl Session {
    /// Joins, and waits until the broker has taken the member in.
    pub(super) async fn open(client: &Client, init: v1::JoinInit) -> Result<Self, ClientError> {
        let channel = client.dialer.dial().await?;
        let (requests, receiver) = mpsc::channel(REQUESTS_MAX);
        requests.try_send(message(Request::Init(init))).expect("an empty queue has room for one");
        let opened = tokio::time::timeout(OPEN_MAX, async {
            let mut service = GroupServiceClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX);
            let answer = service.join(ReceiverStream::new(receiver)).await;
            let mut responses = answer.map_err(|status| ClientError::from_status(&status))?.into_inner();
            match responses.next().await {
                Some(Ok(v1::JoinResponse { response: Some(Response::Started(started)) })) => Ok((responses, started)),
                Some(Ok(_)) => {
                    Err(ClientError::refused(Code::Internal, "INTERNAL", "the stream does not begin with `started`"))
                }
                Some(Err(status)) => Err(ClientError::from_status(&status)),
                None => Err(ClientError::Lost { cause: "the stream ended before it began".to_owned() }),
            }
        });
        let late = |_| ClientError::refused(Code::DeadlineExceeded, "", "the broker did not open the stream in time");
        let (responses, started) = opened.await.map_err(late)??;
        let interval = started.heartbeat_interval.and_then(|interval| Duration::try_from(interval).ok());
        let heartbeat_interval = interval.filter(|interval| !interval.is_zero()).unwrap_or(HEARTBEAT_DEFAULT);
        Ok(Self { requests, responses, member_id: started.member_id, resumed: started.resumed, heartbeat_interval })
    }

    /// The next message; `None` if the broker has ended the stream well.
    pub(super) async fn next(&mut self) -> Result<Option<Response>, ClientError> {
        loop {
            match self.responses.next().await {
                None => return Ok(None),
                Some(Err(status)) => return Err(ClientError::from_status(&status)),
                Some(Ok(v1::JoinResponse { response: Some(response) })) => return Ok(Some(response)),
                // Of a newer broker.
                Some(Ok(v1::JoinResponse { response: None })) => {}
            }
        }
    }

    /// Says something; if the stream has ended, its end says why.
    ///
    /// # Errors
    /// [`ClientError::Lost`] if the broker takes nothing any more.
    pub(super) fn say(&self, request: Request) -> Result<(), ClientError> {
        match self.requests.try_send(message(request)) {
            Err(mpsc::error::TrySendError::Full(_)) => {
                Err(ClientError::Lost { cause: format!("the broker has not taken {REQUESTS_MAX} messages") })
            }
            Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => Ok(()),
        }
    }

    /// Leaves the group, and waits for the end of the stream.
    pub(super) async fn leave(self) -> Result<(), ClientError> {
        let Self { requests, mut responses, .. } = self;
        drop(requests);
        while let Some(response) = responses.next().await {
            response.map_err(|status| ClientError::from_status(&status))?;
        }
        Ok(())
    }
}

fn message(request: Request) -> v1::JoinRequest {
    v1::JoinRequest { request: Some(request) }
}
