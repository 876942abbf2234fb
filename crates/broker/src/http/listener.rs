//! The HTTP port: HTTP/1.1, and HTTP/2 without TLS by prior knowledge, on connections up to two limits, each in a task of its own.
//!
//! 1. What a connection can make the broker hold is bounded: its windows ([`super::windows`]), its streams, the headers of each.
//! 2. A client that goes silent is given up: before its first bytes and within the head of a request after [`HEAD_MAX`], on HTTP/2
//!    when it does not answer a ping.
//! 3. A connection ends at some age, so that clients behind a balancer move to brokers that came later: it takes no new calls (GOAWAY,
//!    upon which clients open another connection without an error), what was begun goes on for the grace, then streams are told
//!    ([`Ending`]), and what has not ended [`LAST_WORDS_MAX`] later is cut off.
//!
//! A client may send pings as often as it likes: each costs one small frame, and h2 never counts them against it (clients on gRPC's
//! C core need `grpc.keepalive_time_ms` of 10 s or so behind balancers, which other servers punish).

use std::io::Cursor;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::{Service, service_fn};

use super::ending::Ending;
use super::lingering::Lingering;
use super::windows::{Window, Windows};
use crate::config::Config;
use crate::connections::{Accepted, Acceptor};
use crate::metrics::Metrics;

/// How long a client may take to say its first bytes, and the head of a request of HTTP/1.1.
const HEAD_MAX: Duration = Duration::from_secs(20);
/// How often the broker asks whether a client of HTTP/2 is there, whether calls are open or not.
const PING_INTERVAL: Duration = Duration::from_secs(30);
/// How long it has to answer.
const PING_MAX: Duration = Duration::from_secs(10);
/// How long streams that were told of the end may take to say their status.
const LAST_WORDS_MAX: Duration = Duration::from_secs(5);
/// Calls in flight on one connection; more wait at the client. As many as requests on a connection of Kafka's.
const STREAMS_MAX: u32 = 256;
/// Headers of one request, in bytes as HTTP/2 counts them; a browser's cookies fit.
const HEADERS_BYTES_MAX: u32 = 16 << 10;
/// What a stream holds that its client does not read.
const SEND_BYTES_MAX: usize = 256 << 10;
/// What is read ahead of a connection of HTTP/1.1, its headers included.
const READ_BYTES_MAX: usize = 64 << 10;
/// Ages differ by up to this part of the maximum, either way, so that connections that began together don't end together.
const AGE_JITTER: f64 = 0.1;

/// What the HTTP port is told when it starts.
pub(crate) struct Options {
    pub(crate) router: Router,
    pub(crate) config: Config,
    pub(crate) metrics: Arc<Metrics>,
    /// Ages are drawn from it.
    pub(crate) seed: u64,
}

/// What ends connections, and knows of them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Lifetime {
    /// No more connections are taken, and no more calls on those that are there.
    pub(crate) shutdown: CancellationToken,
    /// What was accepted is durable and answered. Until then pages can be read, on connections that come after the shutdown too: who
    /// watches wants to see how the broker stops.
    pub(crate) drained: CancellationToken,
    /// What has not ended is cut off.
    pub(crate) cut: CancellationToken,
    /// Connections that are served.
    pub(crate) connections: TaskTracker,
    /// Those among them that have made a call of gRPC: clients, unlike probes and scrapers.
    pub(crate) clients: TaskTracker,
}

/// Accepts connections until what was accepted before the shutdown is drained. Ends when no more are accepted.
pub(crate) async fn listen(listener: Arc<TcpListener>, options: Options, lifetime: Lifetime) {
    let Options { router, config, metrics, seed } = options;
    let acceptor = Acceptor::new(listener, config.connections_max, config.connections_per_address_max);
    let windows = Windows::new(config.budget().windows_bytes);
    // SUBTLE: other parts draw from the same seed; another stream.
    let mut ages = StdRng::seed_from_u64(seed ^ 0x6874_7470_6167_6573);
    let refused = |limit| metrics.http_connection_closed_by_us(limit);
    while let Some(Accepted { stream, peer, slot, .. }) = acceptor.next(&lifetime.drained, refused).await {
        let age_max = config.connection_age_max.mul_f64(ages.random_range(1.0 - AGE_JITTER..=1.0 + AGE_JITTER));
        let connection = Connection {
            router: router.clone(),
            peer: Peer(peer.ip().to_canonical()),
            window: windows.take(),
            age_max,
            grace: config.connection_age_grace,
            lifetime: lifetime.clone(),
        };
        let metrics = Arc::clone(&metrics);
        lifetime.connections.spawn(async move {
            metrics.http_connection_opened();
            let ended = connection.serve(stream).await;
            metrics.http_connection_ended();
            if let Err(cause) = ended {
                tracing::debug!(%peer, cause, "connection closed");
                metrics.http_connection_closed_by_us(cause);
            }
            drop(slot);
        });
    }
}

/// In the extensions of every request of the HTTP port: where its client is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer(pub(crate) IpAddr);

/// One connection before it is served.
struct Connection {
    router: Router,
    peer: Peer,
    window: Window,
    age_max: Duration,
    grace: Duration,
    lifetime: Lifetime,
}

/// How far the end of a connection has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// It takes calls.
    Open,
    /// It has reached its age, and takes no more.
    Grace,
    /// Its streams have been told.
    LastWords,
    /// The broker stops.
    Stopping,
}

impl Connection {
    /// Serves until either side ends it.
    ///
    /// # Errors
    /// Why we closed it, if neither the client nor the shutdown did.
    async fn serve(self, stream: TcpStream) -> Result<(), &'static str> {
        let Lifetime { shutdown, drained, cut, clients, .. } = self.lifetime;
        let ending = Ending { shutdown: shutdown.clone(), aged: CancellationToken::new() };
        // One that comes while the broker stops is for a last look.
        let shutdown = if shutdown.is_cancelled() { drained } else { shutdown };
        let (mut read_half, write_half) = stream.into_split();
        // SUBTLE: hyper waits for ever for the bytes that tell HTTP/2 from HTTP/1; it gets those that we have waited for.
        let preface = tokio::select! {
            read = timeout(HEAD_MAX, read_preface(&mut read_half)) => read.map_err(|_| "silent")?.map_err(|_| "lost")?,
            () = shutdown.cancelled() => return Ok(()),
        };
        let io = Lingering::new(Cursor::new(preface).chain(read_half), write_half);
        let aged = ending.aged.clone();
        let service = TowerToHyperService::new(service_fn(handler(self.router, ending, self.peer, clients)));
        let builder = builder(&self.window);
        let mut serving = std::pin::pin!(builder.serve_connection(TokioIo::new(io), service));
        let mut stage = Stage::Open;
        let mut deadline = Instant::now() + self.age_max;
        loop {
            tokio::select! {
                biased;
                served = &mut serving => return served.map_err(|_| "lost"),
                () = cut.cancelled() => return Err("cut_off"),
                () = shutdown.cancelled(), if stage != Stage::Stopping => {
                    stage = Stage::Stopping;
                    serving.as_mut().graceful_shutdown();
                }
                () = sleep_until(deadline), if stage != Stage::Stopping => match stage {
                    Stage::Open => {
                        (stage, deadline) = (Stage::Grace, deadline + self.grace);
                        serving.as_mut().graceful_shutdown();
                    }
                    Stage::Grace => {
                        (stage, deadline) = (Stage::LastWords, deadline + LAST_WORDS_MAX);
                        aged.cancel();
                    }
                    Stage::LastWords | Stage::Stopping => return Err("age"),
                },
            }
        }
    }
}

/// The first bytes: those of the preface of HTTP/2, or as many as show that they are not.
async fn read_preface(source: &mut (impl AsyncRead + Unpin)) -> std::io::Result<Vec<u8>> {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let mut read = Vec::with_capacity(PREFACE.len());
    while read.len() < PREFACE.len() && PREFACE.starts_with(&read) {
        let left = (PREFACE.len() - read.len()) as u64;
        if source.take(left).read_buf(&mut read).await? == 0 {
            break;
        }
    }
    Ok(read)
}

/// What answers a request of a connection.
fn handler(
    router: Router,
    ending: Ending,
    peer: Peer,
    clients: TaskTracker,
) -> impl FnMut(Request<Incoming>) -> <Router as Service<Request<Body>>>::Future + Clone {
    let client = Arc::new(OnceLock::new());
    move |request| {
        if request.uri().path().starts_with("/lakebed.") {
            client.get_or_init(|| clients.token());
        }
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(ending.clone());
        request.extensions_mut().insert(peer);
        // A router is always ready, and cheap to clone.
        router.clone().call(request)
    }
}

fn builder(window: &Window) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_MAX).max_buf_size(READ_BYTES_MAX);
    builder
        .http2()
        .timer(TokioTimer::new())
        .initial_connection_window_size(window.of_connection())
        .initial_stream_window_size(window.of_stream())
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEADERS_BYTES_MAX)
        .max_send_buf_size(SEND_BYTES_MAX)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_MAX);
    builder
}
