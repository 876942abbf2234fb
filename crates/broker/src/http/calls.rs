//! What is known of a request from its head to the end of its answer: its id, its trace, and what came of it.
//!
//! A client finds the id in `x-request-id` of the answer, the broker's log has it where a request failed. Whoever counts or traces
//! requests adds to [`Call::begin`] and [`Call::end`]: each request passes both, once.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::Response;
use hyper::body::{Frame, SizeHint};
use rand::rngs::StdRng;
use rand::{RngCore, SeedableRng};
use tonic::{Code, Status};
use tracing::{Instrument, Span};

/// The header with the id of a request, in both directions.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The header of W3C Trace Context.
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// Longest id that is taken from a client; it goes into logs.
const ID_BYTES_MAX: usize = 128;

/// Draws ids of requests that come without one. A handle; clones share it.
#[derive(Debug, Clone)]
pub(super) struct RequestIds(Arc<Mutex<StdRng>>);

impl RequestIds {
    /// `seed` must differ between processes.
    pub(super) fn new(seed: u64) -> Self {
        // SUBTLE: other parts draw from the same seed; another stream.
        Self(Arc::new(Mutex::new(StdRng::seed_from_u64(seed ^ 0x7265_7175_6573_7473))))
    }

    fn draw(&self) -> HeaderValue {
        let drawn = self.0.lock().unwrap_or_else(PoisonError::into_inner).next_u64();
        HeaderValue::from_str(&format!("{drawn:016x}")).expect("hexadecimal digits are visible")
    }
}

/// One request, from its head to the end of its answer.
#[derive(Debug)]
struct Call {
    path: String,
    id: HeaderValue,
    /// As the client sent it, if it did and it is one.
    traceparent: Option<HeaderValue>,
    span: Span,
}

/// Gives each request an id, a span and an end that is noticed.
pub(super) async fn follow(State(ids): State<RequestIds>, request: Request, next: Next) -> Response {
    let call = Call::begin(&request, &ids);
    let mut response = next.run(request).instrument(call.span.clone()).await;
    let headers = response.headers_mut();
    headers.insert(REQUEST_ID, call.id.clone());
    if let Some(traceparent) = &call.traceparent {
        headers.insert(TRACEPARENT, traceparent.clone());
    }
    let outcome = Outcome::of_head(response.status(), response.headers());
    response.map(|body| Body::new(Followed { body, call: Some(call), outcome }))
}

impl Call {
    fn begin(request: &Request, ids: &RequestIds) -> Self {
        let header = |name| request.headers().get(name).cloned();
        let id = header(REQUEST_ID).filter(is_id).unwrap_or_else(|| ids.draw());
        let traceparent = header(TRACEPARENT).filter(is_traceparent);
        let text = |value: &HeaderValue| value.to_str().unwrap_or_default().to_owned();
        let path = request.uri().path().to_owned();
        let span =
            tracing::debug_span!("request", path, request_id = text(&id), traceparent = traceparent.as_ref().map(text));
        Self { path, id, traceparent, span }
    }

    /// What came of it.
    fn end(self, outcome: &Outcome) {
        let (path, request_id) = (&self.path, self.id.to_str().unwrap_or_default());
        let traceparent = self.traceparent.as_ref().and_then(|value| value.to_str().ok());
        match outcome {
            // Something of the broker or its store is wrong, or somebody does not know what became of a write.
            Outcome::Failed(Code::Internal | Code::Unknown | Code::DataLoss, message) => {
                tracing::warn!(path, request_id, traceparent, message, "a request failed");
            }
            Outcome::Failed(code, message) => {
                tracing::debug!(path, request_id, traceparent, ?code, message, "a request was refused");
            }
            Outcome::Http(status) => tracing::debug!(path, request_id, traceparent, %status, "a request was answered"),
            Outcome::Fine => {}
            Outcome::Cut => tracing::debug!(path, request_id, traceparent, "an answer was cut off"),
        }
    }
}

/// Visible ASCII within the bound.
fn is_id(value: &HeaderValue) -> bool {
    (1..=ID_BYTES_MAX).contains(&value.len()) && value.as_bytes().iter().all(u8::is_ascii_graphic)
}

/// `00-` trace id `-` parent id `-` flags, or a later version that begins like it.
fn is_traceparent(value: &HeaderValue) -> bool {
    let Ok(text) = value.to_str() else { return false };
    let fields: Vec<&str> = text.split('-').collect();
    let hexadecimal = |field: &str| field.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let zero = |field: &str| field.bytes().all(|byte| byte == b'0');
    match fields[..] {
        [version, trace, parent, flags, ..] => {
            (version.len(), trace.len(), parent.len(), flags.len()) == (2, 32, 16, 2)
                && [version, trace, parent, flags].into_iter().all(hexadecimal)
                && !(version == "ff" || zero(trace) || zero(parent))
                && (version != "00" || fields.len() == 4)
        }
        _ => false,
    }
}

/// What came of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Outcome {
    /// A gRPC status, and its message.
    Failed(Code, String),
    /// An answer of HTTP that is no success.
    Http(StatusCode),
    /// It was answered.
    Fine,
    /// The answer did not come to its end: the client went away, or its connection was closed.
    Cut,
}

impl Outcome {
    fn of_head(status: StatusCode, headers: &HeaderMap) -> Option<Self> {
        Self::of_headers(headers).or_else(|| (!status.is_success()).then_some(Self::Http(status)))
    }

    /// The status in headers or trailers.
    fn of_headers(headers: &HeaderMap) -> Option<Self> {
        let status = Status::from_header_map(headers)?;
        Some(match status.code() {
            Code::Ok => Self::Fine,
            code => Self::Failed(code, status.message().to_owned()),
        })
    }
}

/// The body of an answer; it notices how it ends.
struct Followed {
    body: Body,
    /// `None` once it has ended.
    call: Option<Call>,
    outcome: Option<Outcome>,
}

impl Followed {
    fn end(&mut self, otherwise: Outcome) {
        if let Some(call) = self.call.take() {
            call.end(self.outcome.as_ref().unwrap_or(&otherwise));
        }
    }
}

impl hyper::body::Body for Followed {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = &mut *self;
        let frame = {
            let _entered = this.call.as_ref().map(|call| call.span.enter());
            ready!(Pin::new(&mut this.body).poll_frame(context))
        };
        match &frame {
            None => this.end(Outcome::Fine),
            Some(Err(_)) => this.end(Outcome::Cut),
            Some(Ok(frame)) => {
                if let Some(trailers) = frame.trailers_ref() {
                    this.outcome = Outcome::of_headers(trailers);
                    this.end(Outcome::Fine);
                }
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Followed {
    fn drop(&mut self) {
        let whole = if self.body_is_done() { Outcome::Fine } else { Outcome::Cut };
        self.end(whole);
    }
}

impl Followed {
    /// An answer whose length is known is dropped after its last byte without being asked for more.
    fn body_is_done(&self) -> bool {
        hyper::body::Body::is_end_stream(&self.body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_clients_are_taken_if_a_log_can_hold_them() {
        let is = |text: &[u8]| is_id(&HeaderValue::from_bytes(text).unwrap());
        assert!(is(b"6ba7b810-9dad") && is(&[b'x'; ID_BYTES_MAX]));
        assert!(!is(b"") && !is(b"two words") && !is(&[b'x'; ID_BYTES_MAX + 1]) && !is("Größe".as_bytes()));
    }

    #[test]
    fn a_traceparent_is_one_or_is_left_out() {
        let is = |text: &str| is_traceparent(&HeaderValue::from_str(text).unwrap());
        assert!(is("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"));
        assert!(is("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-what-comes-later"));
        for wrong in [
            "",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
        ] {
            assert!(!is(wrong), "{wrong}");
        }
    }

    #[test]
    fn the_end_of_an_answer_is_read_from_head_or_trailers() {
        let mut failed = HeaderMap::new();
        Status::not_found("gone").add_header(&mut failed).unwrap();
        let expected = Some(Outcome::Failed(Code::NotFound, "gone".to_owned()));
        assert_eq!(Outcome::of_head(StatusCode::OK, &failed), expected);
        assert_eq!(Outcome::of_headers(&failed), expected);
        assert_eq!(Outcome::of_head(StatusCode::OK, &HeaderMap::new()), None);
        let missing = Outcome::of_head(StatusCode::NOT_FOUND, &HeaderMap::new());
        assert_eq!(missing, Some(Outcome::Http(StatusCode::NOT_FOUND)));
    }
}
