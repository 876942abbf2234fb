//! One connection: requests are started in the order in which they arrive, and answered in that order.
//!
//! Two halves of one task. The reading half parses a request and *starts* it: a produce enters the ingest buffer there, and topics are
//! created there, so what comes later on this connection builds on it. The writing half awaits the answers one after another; a
//! request that only reads does its work when all before it are answered, so it sees what they did.
//!
//! 1. At most [`IN_FLIGHT_MAX`] requests are started and not answered; then the socket is not read.
//! 2. When the ingest buffer is full, starting a produce waits, and the socket is not read.
//! 3. After anything malformed nothing more is read; what was started before is answered, and the connection is closed.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::poll;
use tokio::io::AsyncWrite;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::Service;
use super::frame::{FrameError, FrameMemory, FrameReader};
use super::request::{Parsed, RequestError, parse};
use super::response::{Outgoing, Reply};

/// More requests of one connection don't wait in the broker. Clients that pipeline keep 5 (Java) to thousands (librdkafka) in
/// flight; beyond this many their records come in larger batches, which is better for all.
const IN_FLIGHT_MAX: usize = 256;
/// Answers that are ready together go out together, up to about this many bytes.
const COALESCE_BYTES: usize = 256 * 1024;
/// How long what was started may take to be answered after the peer has closed its side, or the broker shuts down.
const DRAIN_MAX: Duration = Duration::from_secs(5);

/// A request that was started.
pub(crate) type Started = BoxFuture<'static, Reply>;

/// A request on its way to its answer, with its share of the frames' memory.
type InFlight = (Started, Option<FrameMemory>);

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
    #[error("requests were not answered within {} s of the end", DRAIN_MAX.as_secs())]
    NotDrained,
}

/// Serves a connection until either side closes it.
///
/// # Errors
/// [`Ended`], unless the peer closed between requests or the broker shuts down.
pub(crate) async fn serve(
    mut stream: TcpStream,
    reached_at: SocketAddr,
    service: &Arc<Service>,
    shutdown: &CancellationToken,
) -> Result<(), Ended> {
    let (read_half, write_half) = stream.split();
    let frames =
        FrameReader::new(read_half, service.buffers.clone(), service.frame_budgets.clone(), service.frame_limits);
    let (sender, receiver) = mpsc::channel(IN_FLIGHT_MAX);
    let mut writing = pin!(write_answers(write_half, receiver));
    let reading = read_requests(frames, reached_at, service, sender);
    let read = tokio::select! {
        biased;
        written = &mut writing => return written,
        read = reading => read,
        () = shutdown.cancelled() => Ok(()),
    };
    // The sender is gone with the reading half, so the writing half ends after the last answer.
    let drained = timeout(DRAIN_MAX, writing).await.unwrap_or(Err(Ended::NotDrained));
    read.and(drained)
}

async fn read_requests<R: tokio::io::AsyncRead + Unpin>(
    mut frames: FrameReader<R>,
    reached_at: SocketAddr,
    service: &Arc<Service>,
    started: mpsc::Sender<InFlight>,
) -> Result<(), Ended> {
    while let Some(frame) = frames.next().await? {
        // Before the request is started: what has no room to wait for its answer is not begun.
        let Ok(slot) = started.reserve().await else { return Ok(()) };
        match parse(&frame.bytes)? {
            Parsed::Request(request) => {
                service.metrics.request(request.reply_to.api.name, request.reply_to.version);
                let accounted_elsewhere = request.is_produce();
                let answer = service.start(*request, reached_at).await;
                // SUBTLE: the ingest buffer counts a produced batch from here on; kept here too, it would count twice.
                slot.send((answer, (!accounted_elsewhere).then_some(frame.memory)));
            }
            Parsed::ApiVersionsTooNew(reply_to) => {
                slot.send((service.api_versions_too_new(reply_to), None));
            }
        }
    }
    Ok(())
}

async fn write_answers(
    mut sink: impl AsyncWrite + Unpin,
    mut in_flight: mpsc::Receiver<InFlight>,
) -> Result<(), Ended> {
    let mut outgoing = Outgoing::default();
    while let Some((mut answer, memory)) = in_flight.recv().await {
        let reply = match poll!(&mut answer) {
            Poll::Ready(reply) => reply,
            Poll::Pending => {
                outgoing.write_to(&mut sink).await.map_err(Ended::Write)?;
                answer.await
            }
        };
        drop(memory);
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
