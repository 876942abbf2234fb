//! The door to the gRPC services: what is no call is turned away, and messages are let in whole.
//!
//! 1. A message that is announced costs nothing: it is handed on when all of it is there, and what has arrived of it is accounted in
//!    the budget that Kafka's requests share, until it has been worked on. When there is no room, the stream is not read.
//! 2. A message above its bound is refused at its announcement; one that stalls for [`STALL_MAX`] is given up with its memory.
//! 3. A refusal that tonic makes by itself is one of the table's: it knows INTERNAL for malformed input, which would say that
//!    something may have happened.
//! 4. A panic is answered as INTERNAL, not by silence.

use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use bytes::BytesMut;
use futures::FutureExt;
use futures::future::BoxFuture;
use hyper::body::{Body as _, Frame};
use tokio::time::{Instant, Sleep, sleep_until};
use tonic::{Code, Status};

use crate::grpc::status::{invalid, status};
use crate::reason::Reason;
use crate::request_memory::{RequestBudget, RequestBudgets, RequestMemory};

/// Longest pause within a message.
const STALL_MAX: Duration = Duration::from_secs(30);
/// Largest message to ConsumeService: a start for each of 100,000 partitions; and to GroupService: 10,000 offsets with what is kept with them.
const LARGER_BYTES_MAX: usize = 4 << 20;
/// Largest message to all other services but ProduceService.
const OTHER_BYTES_MAX: usize = 1 << 20;
/// A chunk of fewer bytes is copied behind the one before it: frames of a byte each would take 30 times what they bring.
const SMALL_BYTES: usize = 1 << 10;
/// Bytes of small chunks that are put together.
const TOGETHER_BYTES: usize = 64 << 10;
/// What precedes a message: whether it is compressed, and its length.
const HEAD_BYTES: usize = 5;

/// The bounds of messages.
#[derive(Debug, Clone)]
pub(super) struct Bounds {
    pub(super) budgets: RequestBudgets,
    pub(super) produce_bytes_max: usize,
}

/// Lets calls through whose messages are within bounds.
pub(super) async fn let_in(State(bounds): State<Bounds>, request: Request, next: Next) -> Response {
    let path = request.uri().path();
    if !(path.starts_with("/lakebed.") || path.starts_with("/grpc.")) {
        return next.run(request).await;
    }
    let ours = path.starts_with("/lakebed.");
    if let Some(refused) = no_call(&request) {
        return refused;
    }
    let path = path.to_owned();
    let (budget, bytes_max) = bounds.of(&path);
    let memory = Arc::new(Mutex::new(RequestMemory::default()));
    let settled = Settled::default();
    let held_until = match &path {
        path if path.ends_with("/ProduceStream") => Until::Settled(settled.clone()),
        path if path.ends_with("/Consume") || path.ends_with("/Join") || path.ends_with("Info") => Until::AskedForMore,
        _ => Until::Answered,
    };
    let closed = Closed::default();
    let messages = |body| {
        let mut messages = Messages::new(body, budget, bytes_max, held_until, Arc::clone(&memory));
        messages.closed = closed.clone();
        Body::new(messages)
    };
    let mut request = request.map(messages);
    request.extensions_mut().insert(settled);
    request.extensions_mut().insert(closed);
    let answered = AssertUnwindSafe(next.run(request)).catch_unwind().await;
    // A unary call holds its message's share until it is answered; a stream's body has its own handle.
    drop(memory);
    match answered {
        Ok(response) if ours => of_the_table(response, &path),
        Ok(response) => response,
        Err(_) => status(Reason::Internal, "the broker has a bug: see its log", []).into_http(),
    }
}

/// What is answered to a request of HTTP that is no call of gRPC.
fn no_call(request: &Request) -> Option<Response> {
    if request.method() != Method::POST {
        return Some((StatusCode::METHOD_NOT_ALLOWED, "calls of gRPC are POST requests\n").into_response());
    }
    let content_type = request.headers().get(header::CONTENT_TYPE).map(|value| value.as_bytes());
    let known = [&b"application/grpc"[..], b"application/grpc+proto"];
    if content_type.is_some_and(|value| known.contains(&value)) {
        return None;
    }
    const NEEDED: &str = "content-type must be application/grpc, application/grpc-web or application/grpc-web-text\n";
    Some((StatusCode::UNSUPPORTED_MEDIA_TYPE, NEEDED).into_response())
}

impl Bounds {
    fn of(&self, path: &str) -> (RequestBudget, usize) {
        match path.split('/').nth(1) {
            Some("lakebed.v1.ProduceService") => (self.budgets.produce.clone(), self.produce_bytes_max),
            Some("lakebed.v1.ConsumeService" | "lakebed.v1.GroupService") => {
                (self.budgets.other.clone(), LARGER_BYTES_MAX)
            }
            _ => (self.budgets.other.clone(), OTHER_BYTES_MAX),
        }
    }
}

/// The response, with a status of the table in place of one that tonic has made before the call began; ours have details.
fn of_the_table(response: Response, path: &str) -> Response {
    let headers = response.headers();
    let Some(made) = Status::from_header_map(headers) else { return response };
    if made.code() == Code::Ok || !made.details().is_empty() {
        return response;
    }
    match made.code() {
        Code::Unimplemented if made.message().is_empty() => no_method(path).into_http(),
        Code::Unimplemented => status(Reason::Unsupported, made.message(), []).into_http(),
        _ => invalid("", made.message()).into_http(),
    }
}

/// A call of a method that does not exist.
pub(crate) fn no_method(path: &str) -> Status {
    status(Reason::Unsupported, format_args!("there is no method {path}"), [("method", path.to_owned())])
}

/// In the extensions of every call: by which a stream that collects messages says that others account for all that it was handed.
#[derive(Debug, Clone, Default)]
pub(crate) struct Settled(Arc<AtomicBool>);

impl Settled {
    /// The one of a request.
    pub(crate) fn of(extensions: &axum::http::Extensions) -> Self {
        extensions.get().cloned().unwrap_or_default()
    }

    /// All messages so far have been worked on.
    pub(crate) fn tell(&self) {
        self.0.store(true, Ordering::Release);
    }

    fn take(&self) -> bool {
        self.0.load(Ordering::Acquire) && self.0.swap(false, Ordering::AcqRel)
    }
}

/// In the extensions of every call: whether its client has closed its side, or only went away. tonic hands on a stream
/// that was cancelled as one that has ended.
#[derive(Debug, Clone, Default)]
pub(crate) struct Closed(Arc<AtomicBool>);

impl Closed {
    /// The one of a request.
    pub(crate) fn of(extensions: &axum::http::Extensions) -> Self {
        extensions.get().cloned().unwrap_or_default()
    }

    /// Whether the client has said that it says nothing more.
    pub(crate) fn is_told(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// How long what was handed on is accounted for here.
enum Until {
    /// The call is answered.
    Answered,
    /// More is asked for: each message is worked on before.
    AskedForMore,
    /// It is told.
    Settled(Settled),
}

/// The messages of a request, each handed on when it is whole.
struct Messages {
    body: Body,
    budget: RequestBudget,
    bytes_max: usize,
    held_until: Until,
    /// Bytes that were handed on and are still accounted for, beside what has not been handed on.
    handed_bytes: usize,
    memory: Arc<Mutex<RequestMemory>>,
    /// Room is being waited for.
    growing: Option<BoxFuture<'static, RequestMemory>>,
    head: Vec<u8>,
    /// Bytes of the message that are still to come, once its head is there.
    left: usize,
    /// Chunks of a message that is not whole.
    held: Vec<Bytes>,
    /// Small chunks of it, behind those.
    small: BytesMut,
    /// Bytes of both.
    held_bytes: usize,
    /// Chunks of whole messages.
    whole: VecDeque<Bytes>,
    trailers: Option<HeaderMap>,
    stalled: Option<Pin<Box<Sleep>>>,
    failed: bool,
    closed: Closed,
}

impl Messages {
    fn new(
        body: Body,
        budget: RequestBudget,
        bytes_max: usize,
        held_until: Until,
        memory: Arc<Mutex<RequestMemory>>,
    ) -> Self {
        Self {
            body,
            budget,
            bytes_max,
            held_until,
            handed_bytes: 0,
            memory,
            growing: None,
            head: Vec::with_capacity(HEAD_BYTES),
            left: 0,
            held: Vec::new(),
            small: BytesMut::new(),
            held_bytes: 0,
            whole: VecDeque::new(),
            trailers: None,
            stalled: None,
            failed: false,
            closed: Closed::default(),
        }
    }

    /// Keeps a chunk of a message that is not whole.
    fn hold(&mut self, chunk: Bytes) {
        self.held_bytes += chunk.len();
        if chunk.len() >= SMALL_BYTES {
            self.put_together();
            return self.held.push(chunk);
        }
        self.small.extend_from_slice(&chunk);
        if self.small.len() >= TOGETHER_BYTES {
            self.put_together();
        }
    }

    /// Makes one chunk of those that are small.
    fn put_together(&mut self) {
        if !self.small.is_empty() {
            self.held.push(std::mem::take(&mut self.small).freeze());
        }
    }

    /// Takes what has arrived; hands on what is whole.
    fn take(&mut self, mut chunk: Bytes) -> Result<(), Status> {
        if matches!(self.held_until, Until::AskedForMore) {
            self.handed_bytes = 0;
        }
        let mut end_of_whole = 0;
        let mut position = 0;
        while position < chunk.len() {
            if self.head.len() < HEAD_BYTES {
                let taken = (HEAD_BYTES - self.head.len()).min(chunk.len() - position);
                self.head.extend_from_slice(&chunk[position..position + taken]);
                position += taken;
                if self.head.len() < HEAD_BYTES {
                    break;
                }
                self.left = self.announced()?;
            }
            let taken = self.left.min(chunk.len() - position);
            self.left -= taken;
            position += taken;
            if self.left == 0 {
                self.head.clear();
                end_of_whole = position;
            }
        }
        if end_of_whole > 0 {
            self.put_together();
            self.whole.extend(self.held.drain(..));
            self.handed_bytes += std::mem::take(&mut self.held_bytes) + end_of_whole;
            self.whole.push_back(chunk.split_to(end_of_whole));
        }
        if !chunk.is_empty() {
            self.hold(chunk);
        }
        self.account();
        Ok(())
    }

    /// The length in a head.
    fn announced(&self) -> Result<usize, Status> {
        let [compressed, length @ ..] = &self.head[..] else { unreachable!("a whole head has five bytes") };
        if *compressed > 1 {
            let what = format!("a message begins with 0 or 1, not {compressed}: these are no messages of gRPC");
            return Err(invalid("", what));
        }
        let length = length.iter().fold(0_usize, |length, byte| length << 8 | usize::from(*byte));
        if length > self.bytes_max {
            let (found, max) = (length.to_string(), self.bytes_max.to_string());
            let message = format!("a message of {found} bytes: this call takes at most {max}");
            return Err(status(Reason::MessageTooLarge, message, [("bytes", found), ("bytes_max", max)]));
        }
        Ok(length)
    }

    /// Accounts for exactly what is held here or handed on.
    fn account(&mut self) {
        let bytes = self.held_bytes + self.handed_bytes;
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        memory.shrink(bytes);
        let more = bytes.saturating_sub(memory.bytes());
        if more > 0 && !self.budget.try_grow(&mut memory, more) {
            let (budget, holds_some) = (self.budget.clone(), memory.holds_some());
            self.growing = Some(async move { budget.more(more, holds_some).await }.boxed());
        }
    }

    /// Waits for more of the request; not for ever within a message.
    fn poll_more(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) {
            self.stalled = None;
            // A stream that was reset without an error ends as well, and is not whole.
            if frame.is_none() && self.body.is_end_stream() {
                self.closed.0.store(true, Ordering::Release);
            }
            return Poll::Ready(frame.map(|frame| frame.map_err(|error| Status::from_error(error.into_inner()))));
        }
        if self.head.is_empty() {
            if matches!(self.held_until, Until::AskedForMore) {
                self.handed_bytes = 0;
                self.account();
            }
            return Poll::Pending;
        }
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + STALL_MAX)));
        ready!(stalled.as_mut().poll(context));
        let message = format!("nothing arrived for {} s in the middle of a message", STALL_MAX.as_secs());
        Poll::Ready(Some(Err(invalid("", message))))
    }

    /// Gives back what others account for by now.
    fn settle(&mut self) {
        if !matches!(&self.held_until, Until::Settled(settled) if settled.take()) {
            return;
        }
        // What waits here has not been worked on.
        self.handed_bytes = self.whole.iter().map(Bytes::len).sum();
        // SUBTLE: who waits for room for more holds what it has: streams would wait for one another for what they have no use for.
        let bytes = self.held_bytes + self.handed_bytes;
        self.memory.lock().unwrap_or_else(PoisonError::into_inner).shrink(bytes);
    }

    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        self.settle();
        loop {
            if let Some(growing) = &mut self.growing {
                let more = ready!(growing.poll_unpin(context));
                self.growing = None;
                self.memory.lock().unwrap_or_else(PoisonError::into_inner).add(more);
            }
            if let Some(chunk) = self.whole.pop_front() {
                return Poll::Ready(Some(Ok(Frame::data(chunk))));
            }
            if let Some(trailers) = self.trailers.take() {
                return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
            }
            match ready!(self.poll_more(context)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(chunk) => self.take(chunk)?,
                    Err(frame) => self.trailers = frame.into_trailers().ok(),
                },
                None if !self.head.is_empty() => {
                    let held = self.held_bytes;
                    let what = format!("the request ends in the middle of a message, of which {held} bytes arrived");
                    return Poll::Ready(Some(Err(invalid("", what))));
                }
                other => return Poll::Ready(other),
            }
        }
    }
}

impl hyper::body::Body for Messages {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.failed {
            return Poll::Ready(None);
        }
        let polled = self.poll_next(context);
        self.failed = matches!(polled, Poll::Ready(Some(Err(_))));
        polled
    }
}

#[cfg(test)]
mod tests;
