//! The Kafka port: accepts connections up to two limits, and serves each in a task of its own.

use std::sync::Arc;

use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::connection::{Ended, serve};
use super::frame::FrameError;
use super::{Ends, Service};
use crate::connections::{Accepted, Acceptor};

/// Accepts connections until shutdown; those that are served still when `cut` comes are cut off. Ends when no more are accepted; `connections` tracks those that are still served.
pub(crate) async fn listen(
    listener: Arc<TcpListener>,
    service: Arc<Service>,
    shutdown: CancellationToken,
    cut: CancellationToken,
    connections: TaskTracker,
) {
    let config = &service.rooms.config;
    let acceptor = Acceptor::new(listener, config.connections_max, config.connections_per_address_max);
    let refused = |limit| service.metrics.connection_closed_by_us(limit);
    while let Some(Accepted { stream, peer, reached_at, slot }) = acceptor.next(&shutdown, refused).await {
        let (service, shutdown, cut) = (Arc::clone(&service), shutdown.clone(), cut.clone());
        connections.spawn(async move {
            connection(stream, Ends { reached_at, peer }, &service, &shutdown, &cut).await;
            drop(slot);
        });
    }
}

async fn connection(
    stream: TcpStream,
    ends: Ends,
    service: &Arc<Service>,
    shutdown: &CancellationToken,
    cut: &CancellationToken,
) {
    let peer = ends.peer;
    service.metrics.connection_opened();
    let serving = cut.run_until_cancelled(serve(stream, ends, service, shutdown)).await;
    let ended = serving.unwrap_or(Err(Ended::NotDrained));
    service.metrics.connection_ended();
    let Err(ended) = ended else { return };
    let cause = cause(&ended);
    service.metrics.connection_closed_by_us(cause);
    match &ended {
        // Peers come and go, and they break off as they like.
        Ended::Write(error) | Ended::Frame(FrameError::Io(error)) => tracing::debug!(%peer, %error, "connection lost"),
        Ended::Frame(FrameError::Idle { .. } | FrameError::Cut { .. }) => {
            tracing::debug!(%peer, why = %ended, "connection closed");
        }
        _ => tracing::info!(%peer, why = %ended, "connection closed"),
    }
}

fn cause(ended: &Ended) -> &'static str {
    match ended {
        Ended::Write(_) | Ended::Frame(FrameError::Io(_)) => "lost",
        Ended::Frame(FrameError::Idle { .. }) => "idle",
        Ended::Frame(FrameError::Cut { .. } | FrameError::Stalled { .. }) => "cut_off",
        Ended::Frame(FrameError::Length(_)) => "frame_length",
        Ended::Request(_) => "malformed",
        Ended::Refused(_) => "refused",
        Ended::NotDrained => "not_drained",
    }
}
