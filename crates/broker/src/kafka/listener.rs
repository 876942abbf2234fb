//! The Kafka port: accepts connections up to two limits, and serves each in a task of its own.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Service;
use super::connection::{Ended, serve};
use super::frame::FrameError;

/// How long accepting pauses when the process has no file descriptors left: at once it would spin.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);

/// How many connections there are, by address.
#[derive(Debug)]
struct Slots {
    all_max: usize,
    per_address_max: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    by_address: BTreeMap<IpAddr, usize>,
}

/// The right to one connection; dropped with it.
#[derive(Debug)]
struct Slot {
    slots: Arc<Slots>,
    address: IpAddr,
}

impl Slots {
    /// A slot for a connection from `address`.
    ///
    /// # Errors
    /// Which limit is reached.
    fn take(self: &Arc<Self>, address: IpAddr) -> Result<Slot, &'static str> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.all >= self.all_max {
            return Err("too_many_connections");
        }
        let of_address = taken.by_address.entry(address).or_default();
        if *of_address >= self.per_address_max {
            return Err("too_many_connections_of_address");
        }
        *of_address += 1;
        taken.all += 1;
        Ok(Slot { slots: Arc::clone(self), address })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut taken = self.slots.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.all -= 1;
        if let Some(of_address) = taken.by_address.get_mut(&self.address) {
            *of_address -= 1;
            if *of_address == 0 {
                taken.by_address.remove(&self.address);
            }
        }
    }
}

/// Accepts connections until shutdown. Ends when no more are accepted; `connections` tracks those that are still served.
pub(crate) async fn listen(
    listener: TcpListener,
    service: Arc<Service>,
    shutdown: CancellationToken,
    connections: TaskTracker,
) {
    let slots = Arc::new(Slots {
        all_max: service.rooms.config.connections_max,
        per_address_max: service.rooms.config.connections_per_address_max,
        taken: Mutex::default(),
    });
    loop {
        let accepted = tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection can't be accepted");
                tokio::time::sleep(EXHAUSTED_PAUSE).await;
                continue;
            }
        };
        match slots.take(peer.ip().to_canonical()) {
            Ok(slot) => {
                let (service, shutdown) = (Arc::clone(&service), shutdown.clone());
                connections.spawn(async move {
                    connection(stream, peer, &service, &shutdown).await;
                    drop(slot);
                });
            }
            Err(limit) => {
                tracing::debug!(%peer, limit, "connection refused");
                service.metrics.connection_closed_by_us(limit);
            }
        }
    }
}

async fn connection(stream: TcpStream, peer: SocketAddr, service: &Arc<Service>, shutdown: &CancellationToken) {
    let prepared = stream.set_nodelay(true).and_then(|()| stream.local_addr());
    let Ok(reached_at) = prepared else { return };
    service.metrics.connection_opened();
    let ended = serve(stream, reached_at, service, shutdown).await;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_limited_in_all_and_by_address_and_come_back() {
        let slots = Arc::new(Slots { all_max: 3, per_address_max: 2, taken: Mutex::default() });
        let (a, b) = (IpAddr::from([127, 0, 0, 1]), IpAddr::from([127, 0, 0, 2]));
        let first = slots.take(a).unwrap();
        let _second = slots.take(a).unwrap();
        assert_eq!(slots.take(a).unwrap_err(), "too_many_connections_of_address");
        let _third = slots.take(b).unwrap();
        assert_eq!(slots.take(b).unwrap_err(), "too_many_connections");
        drop(first);
        slots.take(a).unwrap();
    }
}
