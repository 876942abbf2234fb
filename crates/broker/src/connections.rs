//! Connections of any protocol: accepted up to two limits, in all and per address.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How long accepting pauses when the process has no file descriptors left: at once it would spin.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);

/// Time between two log lines that say so: it may last, and each pause is an attempt.
const TOLD_EVERY: Duration = Duration::from_secs(10);

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
pub(crate) struct Slot {
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

/// Accepts the connections of one port.
#[derive(Debug)]
pub(crate) struct Acceptor {
    listener: Arc<TcpListener>,
    slots: Arc<Slots>,
    failures: Mutex<Failures>,
}

/// Failures to accept that are not told one by one.
#[derive(Debug, Default)]
struct Failures {
    told: Option<Instant>,
    untold: u64,
}

impl Failures {
    /// Counts one; answers how many there were since it was told last, if it is time to tell.
    fn count(&mut self, now: Instant) -> Option<u64> {
        self.untold += 1;
        if self.told.is_some_and(|told| now - told < TOLD_EVERY) {
            return None;
        }
        self.told = Some(now);
        Some(std::mem::take(&mut self.untold))
    }
}

/// A connection that was accepted.
#[derive(Debug)]
pub(crate) struct Accepted {
    /// With TCP_NODELAY: otherwise a small answer waits for the acknowledgement of the one before it, for 40 ms.
    pub(crate) stream: TcpStream,
    /// Whose it is.
    pub(crate) peer: SocketAddr,
    /// The address at which the peer reached us.
    pub(crate) reached_at: SocketAddr,
    /// Its place among the connections; dropped when it ends.
    pub(crate) slot: Slot,
}

impl Acceptor {
    /// Accepts at most `all_max` connections at a time, and `per_address_max` of one address.
    pub(crate) fn new(listener: Arc<TcpListener>, all_max: usize, per_address_max: usize) -> Self {
        let slots = Arc::new(Slots { all_max, per_address_max, taken: Mutex::default() });
        Self { listener, slots, failures: Mutex::default() }
    }

    /// The next connection; `None` at shutdown. One that a limit forbids is closed at once, and the limit told to `refused`.
    pub(crate) async fn next(&self, shutdown: &CancellationToken, refused: impl Fn(&'static str)) -> Option<Accepted> {
        loop {
            let accepted = tokio::select! {
                biased;
                () = shutdown.cancelled() => return None,
                accepted = self.listener.accept() => accepted,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    let due = self.failures.lock().unwrap_or_else(PoisonError::into_inner).count(Instant::now());
                    if let Some(times) = due {
                        tracing::warn!(%error, times, "connections can't be accepted: see how many files the process may open");
                    }
                    tokio::time::sleep(EXHAUSTED_PAUSE).await;
                    continue;
                }
            };
            match self.slots.take(peer.ip().to_canonical()) {
                Ok(slot) => match stream.set_nodelay(true).and_then(|()| stream.local_addr()) {
                    Ok(reached_at) => return Some(Accepted { stream, peer, reached_at, slot }),
                    Err(error) => tracing::debug!(%peer, %error, "connection lost"),
                },
                Err(limit) => {
                    tracing::debug!(%peer, limit, "connection refused");
                    refused(limit);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_process_without_file_descriptors_says_so_now_and_then_and_how_often_it_met_it() {
        let mut failures = Failures::default();
        let mut told = Vec::new();
        for _ in 0..300 {
            told.extend(failures.count(Instant::now()));
            tokio::time::sleep(EXHAUSTED_PAUSE).await;
        }
        assert_eq!(told, [1, 100, 100], "in 30 s");
    }

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
