//! The way to other brokers over gRPC: what [`lakebed_log::Peers`] asks for.

use std::error::Error;
use std::io::ErrorKind;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, TryFutureExt};
use lakebed_log::{Follow, PeerError, Peers, Tidings, Told};
use lakebed_model::{CommitNumber, Member};
use lakebed_segment::commit::decode_commit;
use lakebed_wire::cluster::follow_response;
use lakebed_wire::cluster::{self as wire, FollowRequest, LeaveRequest};
use tonic::transport::Endpoint;
use tonic::{Code, Status};

use crate::services::cluster::cluster_service_client::ClusterServiceClient;

/// How long a connection may take to come about.
const CONNECT_MAX: Duration = Duration::from_millis(500);
/// How long the farewell of a broker that stops may take; nobody needs it.
const LEAVE_MAX: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Debug)]
pub(crate) struct GrpcPeers {
    me: Member,
}

impl GrpcPeers {
    pub(crate) fn new(me: Member) -> Self {
        Self { me }
    }

    /// Says to the sequencer that this broker is about to stop.
    pub(crate) async fn leave(&self, address: &str) {
        let request = LeaveRequest { nonce: self.me.nonce.get() };
        let leaving = async {
            client(address)
                .await
                .map_err(|error| error.to_string())?
                .leave(request)
                .await
                .map_err(|status| status.to_string())
        };
        match tokio::time::timeout(LEAVE_MAX, leaving).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::debug!(error, "the sequencer does not know that this broker leaves"),
            Err(_) => tracing::debug!("the sequencer does not say whether it knows that this broker leaves"),
        }
    }
}

impl Peers for GrpcPeers {
    fn follow(&self, follow: Follow) -> BoxFuture<'static, Result<Tidings, PeerError>> {
        let Follow { identity, sequencer, address, from } = follow;
        let request = FollowRequest {
            cluster_id: identity.cluster_id.to_string(),
            cell: identity.cell.get().into(),
            sequencer: sequencer.get(),
            from: from.get(),
            member: Some(to_wire(&self.me)),
        };
        async move {
            let mut client = client(&address).await?;
            let answer = client.follow(request).map_err(|status| refused(&address, &status)).await?;
            let told = answer.into_inner().map(move |told| match told {
                Ok(response) => read(&address, response.told),
                Err(status) => Err(refused(&address, &status)),
            });
            Ok(told.boxed())
        }
        .boxed()
    }
}

async fn client(address: &str) -> Result<ClusterServiceClient<tonic::transport::Channel>, PeerError> {
    let unreachable = |why: String| PeerError::Unreachable { address: address.to_owned(), why };
    let endpoint =
        Endpoint::from_shared(format!("http://{address}")).map_err(|error| unreachable(error.to_string()))?;
    match endpoint.connect_timeout(CONNECT_MAX).tcp_nodelay(true).connect().await {
        Ok(channel) => Ok(ClusterServiceClient::new(channel)),
        Err(error) if is_refused(&error) => Err(PeerError::Gone { address: address.to_owned() }),
        Err(error) => Err(unreachable(with_causes(&error))),
    }
}

/// Whether nobody listens there.
fn is_refused(error: &tonic::transport::Error) -> bool {
    causes(error).any(|cause| {
        cause.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == ErrorKind::ConnectionRefused)
    })
}

/// An error and its causes.
pub(crate) fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    let mut next = Some(error);
    std::iter::from_fn(move || {
        let cause = next?;
        next = cause.source();
        Some(cause)
    })
}

/// An error with its causes in one line.
pub(crate) fn with_causes(error: &(dyn Error + 'static)) -> String {
    causes(error).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

fn refused(address: &str, status: &Status) -> PeerError {
    let address = address.to_owned();
    match status.code() {
        Code::FailedPrecondition => PeerError::NotSequencer { address },
        _ => PeerError::Unreachable { address, why: status.message().to_owned() },
    }
}

fn read(address: &str, told: Option<follow_response::Told>) -> Result<Told, PeerError> {
    use follow_response::Told as Wire;
    match told {
        Some(Wire::Commit(bytes)) => match decode_commit(&bytes) {
            Ok(commit) => Ok(Told::Commit(Box::new(commit))),
            Err(error) => Err(PeerError::Unreachable { address: address.to_owned(), why: error.to_string() }),
        },
        Some(Wire::Number(number)) => Ok(Told::Number(CommitNumber::new(number))),
        Some(Wire::TakeOver(_)) => Ok(Told::TakeOver),
        // What a later version tells besides says at least that it is there.
        Some(Wire::Alive(_)) | None => Ok(Told::Alive),
    }
}

/// A member as it is told to others.
pub(crate) fn to_wire(member: &Member) -> wire::Member {
    let Member { nonce, kafka, http, zone, version } = member.clone();
    wire::Member { nonce: nonce.get(), kafka_address: kafka, http_address: http, zone, version }
}
