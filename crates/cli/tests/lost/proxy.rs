//! A proxy that cuts connections after a number of bytes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// Which bytes are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    ToBroker,
    ToClient,
}

/// When connections are cut.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cut {
    pub(crate) direction: Direction,
    /// So many bytes get through.
    pub(crate) after_bytes: u64,
    /// The first so many connections are cut; later ones are not.
    pub(crate) connections: u64,
}

/// A running proxy. It ends when it goes.
pub(crate) struct Proxy {
    pub(crate) address: String,
    counts: Arc<Counts>,
    task: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Counts {
    connections: AtomicU64,
    to_broker: AtomicU64,
    to_client: AtomicU64,
}

impl Proxy {
    pub(crate) async fn start(broker: &str, cut: Option<Cut>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let counts = Arc::new(Counts::default());
        let (broker, counting) = (broker.to_owned(), Arc::clone(&counts));
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let number = counting.connections.fetch_add(1, Ordering::AcqRel);
                let cut = cut.filter(|cut| number < cut.connections);
                connections.spawn(carry(client, broker.clone(), cut, Arc::clone(&counting)));
            }
        });
        Self { address, counts, task }
    }

    /// How many connections there were.
    pub(crate) fn connections(&self) -> u64 {
        self.counts.connections.load(Ordering::Acquire)
    }

    /// Bytes that went a way, over all connections.
    pub(crate) fn bytes(&self, direction: Direction) -> u64 {
        match direction {
            Direction::ToBroker => self.counts.to_broker.load(Ordering::Acquire),
            Direction::ToClient => self.counts.to_client.load(Ordering::Acquire),
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Carries one connection until it ends or is cut: then both ends are closed at once.
async fn carry(client: TcpStream, broker: String, cut: Option<Cut>, counts: Arc<Counts>) {
    let Ok(broker) = TcpStream::connect(broker).await else { return };
    client.set_nodelay(true).unwrap();
    broker.set_nodelay(true).unwrap();
    let ((from_client, to_client), (from_broker, to_broker)) = (client.into_split(), broker.into_split());
    let budget = |direction| match cut {
        Some(cut) if cut.direction == direction => cut.after_bytes,
        _ => u64::MAX,
    };
    tokio::select! {
        () = copy(from_client, to_broker, budget(Direction::ToBroker), &counts.to_broker) => {}
        () = copy(from_broker, to_client, budget(Direction::ToClient), &counts.to_client) => {}
    }
}

async fn copy(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut left: u64, count: &AtomicU64) {
    let mut buffer = vec![0; 16 << 10];
    while left > 0 {
        let room = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let Ok(read) = from.read(&mut buffer[..room]).await else { return };
        if read == 0 || to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
        left -= read as u64;
        count.fetch_add(read as u64, Ordering::AcqRel);
    }
}

/// Positions over an exchange of so many bytes: each of the first bytes where little happens, then evenly, with a prime for a step so that all
/// phases of frames are met.
pub(crate) fn positions(bytes: u64, count: u64) -> Vec<u64> {
    let step = [7, 13, 29, 61, 127, 251, 509, 1021, 2039, 4093].into_iter().find(|step| bytes / step <= count);
    (1..bytes).step_by(usize::try_from(step.unwrap_or(8191)).unwrap()).collect()
}
