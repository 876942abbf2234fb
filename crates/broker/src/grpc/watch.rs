//! Counts every gRPC call, by its method and the code that it ends with, wherever that stands: in the headers of an answer without a body,
//! or in the trailers of one with a body.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::{Body, HttpBody};
use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::middleware::Next;
use axum::response::Response;
use bytes::Bytes;
use http_body::{Frame, SizeHint};

use crate::metrics::{Call, GrpcCounts};

/// Where gRPC says how a call ended.
const STATUS: &str = "grpc-status";

/// Counts a call that goes to the services.
pub(super) async fn count(State(counts): State<Arc<GrpcCounts>>, request: Request, next: Next) -> Response {
    let mut call = counts.begin(request.uri().path());
    let response = next.run(request).await;
    match status_in(response.headers()) {
        Some(status) => {
            call.end(Some(status));
            response
        }
        None => response.map(|body| Body::new(Watched { body, call })),
    }
}

fn status_in(headers: &HeaderMap) -> Option<&[u8]> {
    headers.get(STATUS).map(|status| status.as_bytes())
}

/// A body that tells its call how it ended.
struct Watched {
    body: Body,
    call: Call,
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
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
