//! One connection: requests are started in the order in which they arrive, and answered in that order.
//!
//! Two halves of one task. The reading half parses a request and *starts* it: a produce enters the ingest buffer there, and topics are
//! created there, so what comes later on this connection builds on it. The writing half awaits the answers one after another; a
//! request that only reads does its work when all before it are answered, so it sees what they did.
//!
//! 1. At most [`IN_FLIGHT_MAX`] requests are started and not answered; then the socket is not read.
//! 2. Requests that are started and not answered have at most this connection's share of the ingest buffer, in bytes as they came; then
//!    the socket is not read.
//! 3. When the ingest buffer is full, starting a produce waits, and the socket is not read.
//! 4. After anything malformed nothing more is read; what was started before is answered, and the connection is closed.

use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use futures::poll;
use lakebed_store::TRACE_TARGET;
use tokio::io::AsyncWrite;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::frame::{FrameError, FrameReader};
use super::in_flight::{InFlightBytes, Taken};
use super::request::{Parsed, Request, RequestError, parse};
use super::response::{Outgoing, Reply, ReplyTo};
use super::{Ends, Service};
use crate::metrics::Metrics;
use crate::request_memory::RequestMemory;

/// More requests of one connection don't wait in the broker. Clients that pipeline keep 5 (Java) to thousands (librdkafka) in
/// flight; beyond this many their records come in larger batches, which is better for all.
const IN_FLIGHT_MAX: usize = 256;
/// Answers that are ready together go out together, up to about this many bytes.
const COALESCE_BYTES: usize = 256 * 1024;
/// How long what was started may take to be answered after the peer has closed its side.
const DRAIN_MAX: Duration = Duration::from_secs(5);
/// How long it may take when the broker stops: what was accepted becomes durable meanwhile.
const STOP_MAX: Duration = Duration::from_secs(25);

/// A request that was started.
pub(crate) type Started = BoxFuture<'static, Reply>;

/// A request on its way to its answer, with its share of the frames' memory.
struct InFlight {
    answer: Started,
    memory: Option<RequestMemory>,
    /// Its part of what this connection may have in flight.
    taken: Taken,
    /// What the metrics call it, and when its last byte had arrived.
    counted: (usize, Instant),
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Ended {
    /// The bytes don't make frames.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// A frame is no request that we take.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// A request that can only be answered by closing.
    #[error("{0}")]
    Refused(String),
    /// The peer takes no answers.
    #[error("writing failed")]
    Write(#[source] std::io::Error),
    /// What was started was not answered in time after the peer or we had closed.
    #[error("requests were not answered in time after the end")]
    NotDrained,
}

/// Serves a connection until either side closes it.
///
/// # Errors
/// [`Ended`], unless the peer closed between requests or the broker shuts down.
pub(crate) async fn serve(
    mut stream: TcpStream,
    ends: Ends,
    service: &Arc<Service>,
    shutdown: &CancellationToken,
) -> Result<(), Ended> {
    let (read_half, write_half) = stream.split();
    let frames =
        FrameReader::new(read_half, service.buffers.clone(), service.request_budgets.clone(), service.frame_limits);
    let (sender, receiver) = mpsc::channel(IN_FLIGHT_MAX);
    let mut writing = pin!(write_answers(write_half, receiver, &service.metrics));
    let reading = read_requests(frames, ends, service, sender, shutdown);
    let read = tokio::select! {
        biased;
        written = &mut writing => return written,
        read = reading => read,
    };
    // The sender is gone with the reading half, so the writing half ends after the last answer.
    let drain_max = if shutdown.is_cancelled() { STOP_MAX } else { DRAIN_MAX };
    let drained = timeout(drain_max, writing).await.unwrap_or(Err(Ended::NotDrained));
    read.and(drained)
}

/// Starts requests until the peer ends, or the broker stops: the one that is being started then, which a full buffer or a throttle may
/// hold, is started or refused all the same, so that it has an answer.
async fn read_requests<R: tokio::io::AsyncRead + Unpin>(
    mut frames: FrameReader<R>,
    ends: Ends,
    service: &Arc<Service>,
    started: mpsc::Sender<InFlight>,
    shutdown: &CancellationToken,
) -> Result<(), Ended> {
    let mut stopping = pin!(shutdown.cancelled());
    let bytes_in_flight = InFlightBytes::new(service.connection_bytes_max);
    loop {
        let frame = tokio::select! {
            biased;
            () = &mut stopping => return Ok(()),
            frame = frames.next() => frame?,
        };
        let Some(frame) = frame else { return Ok(()) };
        let arrived = Instant::now();
        // Before the request is started: what has no room to wait for its answer is not begun.
        let Ok(slot) = started.reserve().await else { return Ok(()) };
        let taken = bytes_in_flight.take(frame.bytes.len()).await;
        match parse(&frame.bytes)? {
            Parsed::Request(request) => {
                let counted = (service.metrics.request(request.reply_to.api, request.reply_to.version), arrived);
                let accounted_elsewhere = request.is_produce();
                let answer = traced(*request, &frame.bytes, ends, service).await;
                // SUBTLE: the ingest buffer counts a produced batch from here on; kept here too, it would count twice.
                let memory = (!accounted_elsewhere).then_some(frame.memory);
                slot.send(InFlight { answer, memory, taken, counted });
            }
            Parsed::ApiVersionsTooNew(reply_to) => {
                let counted = (service.metrics.request(reply_to.api, reply_to.version), arrived);
                slot.send(InFlight { answer: service.api_versions_too_new(reply_to), memory: None, taken, counted });
            }
        }
    }
}

/// Starts a request, in a span of its own if requests are traced: from its arrival to its answer.
async fn traced(request: Request, frame: &Bytes, ends: Ends, service: &Arc<Service>) -> Started {
    let ReplyTo { api, version, .. } = request.reply_to;
    let span = tracing::debug_span!(target: TRACE_TARGET, "kafka", otel.name = api.name, otel.kind = "server", version);
    if span.is_disabled() {
        return service.start(request, frame, ends).await;
    }
    let answer = service.start(request, frame, ends).instrument(span.clone()).await;
    answer.instrument(span).boxed()
}

async fn write_answers(
    mut sink: impl AsyncWrite + Unpin,
    mut in_flight: mpsc::Receiver<InFlight>,
    metrics: &Metrics,
) -> Result<(), Ended> {
    let mut outgoing = Outgoing::default();
    while let Some(InFlight { mut answer, memory, taken, counted: (request, arrived) }) = in_flight.recv().await {
        let reply = match poll!(&mut answer) {
            Poll::Ready(reply) => reply,
            Poll::Pending => {
                outgoing.write_to(&mut sink).await.map_err(Ended::Write)?;
                answer.await
            }
        };
        drop((memory, taken));
        metrics.answered(request, arrived.elapsed());
        match reply {
            Reply::Send(response) => outgoing.push(response),
            Reply::Nothing => {}
            Reply::Close { why } => {
                outgoing.write_to(&mut sink).await.map_err(Ended::Write)?;
                return Err(Ended::Refused(why));
            }
        }
        if in_flight.is_empty() || outgoing.bytes() >= COALESCE_BYTES {
            outgoing.write_to(&mut sink).await.map_err(Ended::Write)?;
        }
    }
    outgoing.write_to(&mut sink).await.map_err(Ended::Write)
}
