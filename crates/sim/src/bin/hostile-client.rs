//! A Kafka client that means harm: `hostile-client --address 127.0.0.1:9092 --corpus fuzz/seeds/request --seed 1 --frames 100000`.
//!
//! It sends damaged requests over many connections, half of them in one piece and half trickling, beside connections that send nothing, or
//! half a frame, or read nothing, and prints as one JSON line what came of it. It ends by itself. Connections come from many loopback
//! addresses, so that the ports of one don't run out.

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::Parser;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

/// More frames than this are not sent over one connection, even if it is left open.
const FRAMES_PER_CONNECTION: u64 = 50;
/// A peer that takes nothing for this long is let go.
const STALL_MAX: Duration = Duration::from_secs(5);

#[derive(Debug, Parser)]
#[command(about = "A Kafka client that means harm, for tests.")]
struct Args {
    /// The broker's Kafka address, on loopback.
    #[arg(long)]
    address: SocketAddrV4,
    /// A directory of whole requests, from their headers on.
    #[arg(long)]
    corpus: PathBuf,
    /// Seed of all damage.
    #[arg(long)]
    seed: u64,
    /// How many damaged frames.
    #[arg(long)]
    frames: u64,
    /// Connections at a time.
    #[arg(long, default_value_t = 32)]
    connections: u64,
    /// Connections that stay open meanwhile and send nothing, half a frame, or requests whose answers they don't read.
    #[arg(long, default_value_t = 300)]
    idlers: u64,
}

/// What came of it.
#[derive(Debug, Default)]
struct Counts {
    frames: AtomicU64,
    connections: AtomicU64,
    closed_by_broker: AtomicU64,
    answered_bytes: AtomicU64,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    ensure!(args.address.ip().is_loopback(), "{} is not a loopback address", args.address);
    let mut corpus = Vec::new();
    for entry in std::fs::read_dir(&args.corpus).with_context(|| format!("reading {}", args.corpus.display()))? {
        let path = entry?.path();
        corpus.push((path.clone(), std::fs::read(&path)?));
    }
    corpus.sort();
    ensure!(!corpus.is_empty(), "{} is empty", args.corpus.display());
    let corpus: Arc<Vec<Vec<u8>>> = Arc::new(corpus.into_iter().map(|(_, frame)| frame).collect());
    let counts = Arc::new(Counts::default());
    let mut held = Vec::new();
    for number in 0..args.idlers {
        held.push(idler(args.address, number, &corpus).await?);
    }
    let mut attackers = tokio::task::JoinSet::new();
    for number in 0..args.connections {
        let random = StdRng::seed_from_u64(args.seed.wrapping_mul(1_000_003) ^ number);
        let frames = args.frames / args.connections + u64::from(number < args.frames % args.connections);
        attackers.spawn(attack(args.address, number, frames, random, Arc::clone(&corpus), Arc::clone(&counts)));
    }
    while let Some(ended) = attackers.join_next().await {
        ended??;
    }
    drop(held);
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let report = serde_json::json!({
        "frames": count(&counts.frames),
        "connections": count(&counts.connections),
        "closed_by_broker": count(&counts.closed_by_broker),
        "answered_bytes": count(&counts.answered_bytes),
        "idlers": args.idlers,
    });
    writeln!(std::io::stdout(), "{report}").context("writing the report")
}

/// A connection from one of many loopback addresses.
async fn connect(address: SocketAddrV4, number: u64) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    let [_, high, low, _] = (number as u32 % 60_000).to_be_bytes();
    socket.bind(SocketAddr::from((Ipv4Addr::new(127, 1, high.wrapping_add(low), low.max(1)), 0)))?;
    let stream = socket.connect(SocketAddr::V4(address)).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// A connection that is only held: a third sends nothing, a third half a frame of 60 MiB, a third requests whose answers it leaves.
async fn idler(address: SocketAddrV4, number: u64, corpus: &[Vec<u8>]) -> std::io::Result<TcpStream> {
    let mut stream = connect(address, number).await?;
    match number % 3 {
        0 => {}
        1 => stream.write_all(&[0x03, 0xc0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 1, 0xff, 0xff, 0]).await?,
        _ => {
            for frame in corpus {
                let length = u32::try_from(frame.len()).expect("a request of the corpus is small");
                // The broker may have closed it by now, for what one of them asks.
                if stream.write_all(&[&length.to_be_bytes()[..], frame].concat()).await.is_err() {
                    break;
                }
            }
        }
    }
    Ok(stream)
}

async fn attack(
    address: SocketAddrV4,
    number: u64,
    frames: u64,
    mut random: StdRng,
    corpus: Arc<Vec<Vec<u8>>>,
    counts: Arc<Counts>,
) -> anyhow::Result<()> {
    let (mut sent, mut connection) = (0, 0);
    while sent < frames {
        connection += 1;
        let stream = connect(address, number * 1000 + connection).await.context("the broker takes no connection")?;
        counts.connections.fetch_add(1, Ordering::Relaxed);
        let (mut reading, mut writing) = stream.into_split();
        let answers = tokio::spawn(async move {
            let (mut bytes, mut buffer) = (0, vec![0; 64 * 1024]);
            while let Ok(count @ 1..) = reading.read(&mut buffer).await {
                bytes += count as u64;
            }
            bytes
        });
        let mut was_closed = false;
        for _ in 0..FRAMES_PER_CONNECTION.min(frames - sent) {
            sent += 1;
            counts.frames.fetch_add(1, Ordering::Relaxed);
            let frame = damaged(&mut random, &corpus);
            let trickles = random.random_ratio(1, 20);
            if answers.is_finished() || !write(&mut writing, &frame, trickles).await {
                was_closed = true;
                break;
            }
        }
        let _ = writing.shutdown().await;
        counts.closed_by_broker.fetch_add(u64::from(was_closed), Ordering::Relaxed);
        if let Ok(Ok(bytes)) = timeout(STALL_MAX, answers).await {
            counts.answered_bytes.fetch_add(bytes, Ordering::Relaxed);
        }
    }
    Ok(())
}

async fn write(stream: &mut (impl AsyncWriteExt + Unpin), frame: &[u8], trickles: bool) -> bool {
    let pieces: Vec<&[u8]> = if trickles { frame.chunks(7).collect() } else { vec![frame] };
    for piece in pieces {
        if !matches!(timeout(STALL_MAX, stream.write_all(piece)).await, Ok(Ok(()))) {
            return false;
        }
        if trickles {
            tokio::task::yield_now().await;
        }
    }
    true
}

/// A request with a few bytes of damage, and sometimes a length that isn't its own.
fn damaged(random: &mut StdRng, corpus: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = corpus[random.random_range(0..corpus.len())].clone();
    for _ in 0..random.random_range(1..4) {
        let at = random.random_range(0..=bytes.len());
        let byte = [0, 1, 2, 0x7f, 0x80, 0xff, random.random()][random.random_range(0..7)];
        match random.random_range(0..5) {
            0 if at < bytes.len() => bytes[at] = byte,
            1 => bytes.insert(at, byte),
            2 if at < bytes.len() => drop(bytes.remove(at)),
            3 => {
                let large = [&i32::MAX.to_be_bytes()[..], &[0xff, 0xff, 0xff, 0xff, 7], &[0x7f, 0xff]];
                let large = large[random.random_range(0..large.len())];
                let end = (at + large.len()).min(bytes.len());
                bytes.splice(at..end, large.iter().copied());
            }
            4 => bytes.truncate(at),
            _ => bytes.push(byte),
        }
    }
    let mut length = u32::try_from(bytes.len()).expect("a request of the corpus is small");
    if random.random_ratio(1, 50) {
        length = [0, length + 1, length * 2, u32::MAX, i32::MAX as u32, 60 << 20][random.random_range(0..6)];
    }
    [&length.to_be_bytes()[..], &bytes].concat()
}
