//! Counts and traces every gRPC call. It is counted by its method and the code that it ends with, wherever that stands: in the headers of an answer without a body,
//! or in the trailers of one with a body.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{self, Poll};

use axum::body::{Body, HttpBody};
use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::middleware::Next;
use axum::response::Response;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use lakebed_store::TRACE_TARGET;
use opentelemetry::Context;
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState};
use tracing::{Instrument, Span};
use tracing_opentelemetry::OpenTelemetrySpanExt;

use crate::metrics::{Call, GrpcCounts};

/// Where gRPC says how a call ended.
const STATUS: &str = "grpc-status";

/// Counts a call that goes to the services.
pub(super) async fn count(State(counts): State<Arc<GrpcCounts>>, request: Request, next: Next) -> Response {
    let mut call = counts.begin(request.uri().path());
    let span = tracing::debug_span!(target: TRACE_TARGET, "grpc", otel.name = call.method(), otel.kind = "server");
    if !span.is_disabled()
        && let Some(parent) = parent(request.headers())
        && let Err(error) = span.set_parent(Context::new().with_remote_span_context(parent))
    {
        tracing::debug!(%error, "the parent of a span can't be set");
    }
    let response = next.run(request).instrument(span.clone()).await;
    match status_in(response.headers()) {
        Some(status) => {
            call.end(Some(status));
            response
        }
        None => response.map(|body| Body::new(Watched { body, call, span })),
    }
}

/// The span of the caller: `traceparent` of the W3C's Trace Context, version 00 and what may come after it.
fn parent(headers: &HeaderMap) -> Option<SpanContext> {
    let text = headers.get("traceparent")?.to_str().ok()?;
    let mut parts = text.split('-');
    let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let is_hex =
        |part: &str, digits| part.len() == digits && part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let well_formed = is_hex(version, 2) && is_hex(trace, 32) && is_hex(span, 16) && is_hex(flags, 2);
    if !well_formed || version == "ff" || (version == "00" && parts.next().is_some()) {
        return None;
    }
    let (trace, span) = (TraceId::from_hex(trace).ok()?, SpanId::from_hex(span).ok()?);
    let flags = TraceFlags::new(u8::from_str_radix(flags, 16).ok()?) & TraceFlags::SAMPLED;
    let context = SpanContext::new(trace, span, flags, true, TraceState::default());
    context.is_valid().then_some(context)
}

fn status_in(headers: &HeaderMap) -> Option<&[u8]> {
    headers.get(STATUS).map(|status| status.as_bytes())
}

/// A body that tells its call how it ended.
struct Watched {
    body: Body,
    call: Call,
    /// Lives as long as the answer; what a stream does is done in it.
    span: Span,
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut task::Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = &mut *self;
        let polled = {
            let _within = this.span.enter();
            Pin::new(&mut this.body).poll_frame(context)
        };
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(trailers) = frame.trailers_ref() {
                    self.call.end(status_in(trailers));
                }
            }
            Poll::Ready(None) => self.call.end(None),
            Poll::Ready(Some(Err(_))) | Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Option<(String, String, bool)> {
        let headers = HeaderMap::from_iter([("traceparent".parse().unwrap(), text.parse().unwrap())]);
        parent(&headers).map(|one| (one.trace_id().to_string(), one.span_id().to_string(), one.is_sampled()))
    }

    #[test]
    fn a_callers_span_is_taken_if_it_is_one() {
        let (trace, span) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
        let expected = |sampled| Some((trace.to_owned(), span.to_owned(), sampled));
        assert_eq!(parsed(&format!("00-{trace}-{span}-01")), expected(true));
        assert_eq!(parsed(&format!("00-{trace}-{span}-00")), expected(false));
        assert_eq!(parsed(&format!("cc-{trace}-{span}-01-more")), expected(true), "a later version");
        for wrong in [
            String::new(),
            "00".to_owned(),
            format!("ff-{trace}-{span}-01"),
            format!("00-{trace}-{span}-01-more"),
            format!("00-{trace}-{span}"),
            format!("00-{}-{span}-01", "0".repeat(32)),
            format!("00-{trace}-{}-01", "0".repeat(16)),
            format!("00-{}-{span}-01", trace.to_uppercase()),
            format!("00-{trace}-{span}-0g"),
        ] {
            assert_eq!(parsed(&wrong), None, "{wrong}");
        }
    }
}
