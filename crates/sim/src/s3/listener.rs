//! Connections, and the outages that end them.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::conduct::Outage;
use super::front::Front;

/// Most connections at once; more wait until one ends.
const CONNECTIONS_MAX: usize = 1024;
/// Connections that wait to be accepted.
const BACKLOG: u32 = 1024;

/// An outage that begins, or ends.
#[derive(Debug)]
pub(crate) struct Change {
    pub(crate) outage: Outage,
    /// Told when it is in force.
    pub(crate) done: oneshot::Sender<()>,
}

/// The port: open, or held so that nobody else gets it while connections to it are refused.
enum Door {
    Open(TcpListener),
    Shut(TcpSocket),
}

impl Door {
    async fn knock(&self) -> std::io::Result<(TcpStream, SocketAddr)> {
        match self {
            Self::Open(listener) => listener.accept().await,
            Self::Shut(_) => std::future::pending().await,
        }
    }

    fn turned(self, shut: bool, address: SocketAddr) -> std::io::Result<Self> {
        match (self, shut) {
            (Self::Open(listener), true) => {
                // A port can't be bound twice while one of them listens.
                drop(listener);
                let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
                socket.set_reuseaddr(true)?;
                socket.bind(address)?;
                Ok(Self::Shut(socket))
            }
            (Self::Shut(socket), false) => Ok(Self::Open(socket.listen(BACKLOG)?)),
            (door, _) => Ok(door),
        }
    }
}

/// Serves until the sender of changes is gone.
pub(crate) async fn serve(listener: TcpListener, front: Arc<Front>, mut changes: mpsc::Receiver<Change>) {
    let Ok(address) = listener.local_addr() else { return };
    let mut door = Door::Open(listener);
    let mut outage = Outage::None;
    // Connections end when this does.
    let ended = CancellationToken::new();
    let _ended = ended.clone().drop_guard();
    let (mut cut, mut connections) = (ended.child_token(), TaskTracker::new());
    loop {
        tokio::select! {
            biased;
            change = changes.recv() => {
                let Some(change) = change else { return };
                outage = change.outage;
                door = match door.turned(outage == Outage::Refused, address) {
                    Ok(door) => door,
                    Err(error) => {
                        tracing::error!(%address, %error, "the port was lost");
                        return;
                    }
                };
                if matches!(outage, Outage::Refused | Outage::Reset) {
                    cut.cancel();
                    connections.close();
                    connections.wait().await;
                    (cut, connections) = (ended.child_token(), TaskTracker::new());
                }
                // Whoever asked may have gone; it is in force all the same.
                let _ = change.done.send(());
            }
            accepted = door.knock(), if connections.len() < CONNECTIONS_MAX => {
                let Ok((stream, client)) = accepted else { continue };
                if outage == Outage::Reset {
                    // Without a linger time its end is a reset.
                    drop(stream.set_zero_linger());
                    continue;
                }
                let (front, cut) = (Arc::clone(&front), cut.clone());
                connections.spawn(async move { cut.run_until_cancelled(connection(stream, client.ip(), front)).await });
            }
        }
    }
}

async fn connection(stream: TcpStream, client: IpAddr, front: Arc<Front>) {
    drop(stream.set_nodelay(true));
    let service = service_fn(|request| {
        let front = Arc::clone(&front);
        async move { front.answer(request, client).await }
    });
    if let Err(error) = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await {
        tracing::debug!(%error, "a connection ended");
    }
}
