//! Lets calls that know nothing of the end of a connection end with a status instead of being cut off: calls with one answer, when it
//! does not come in time, and streams of health and reflection.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::HeaderMap;
use axum::middleware::Next;
use axum::response::Response;
use futures::FutureExt;
use futures::future::BoxFuture;
use hyper::body::Frame;
use tonic::Status;

use super::ending::{Ending, Why};
use crate::grpc::status::status;
use crate::reason::Reason;

/// Calls that change nothing: that such a one has no answer leaves nothing unknown.
const READS: [&str; 5] = [
    "/lakebed.v1.ConsumeService/Fetch",
    "/lakebed.v1.AdminService/ListTopics",
    "/lakebed.v1.AdminService/DescribeTopic",
    "/lakebed.v1.AdminService/ListSegments",
    "/lakebed.v1.AdminService/GetClusterInfo",
];

/// Ends calls when their connection is about to end: one of ours that has not begun to answer when its time is up, and the answers
/// of health and reflection, after what they have to say by then. Our own streams do that themselves: they know what must be said
/// before.
pub(super) async fn end_calls(request: Request, next: Next) -> Response {
    let ending = Ending::of(request.extensions());
    if !request.uri().path().starts_with("/grpc.") {
        let is_read = READS.contains(&request.uri().path());
        return tokio::select! {
            biased;
            answered = next.run(request) => answered,
            why = out_of_patience(&ending) => unanswered(why, is_read).into_http(),
        };
    }
    let told = async move { ending.told().await }.boxed();
    next.run(request).await.map(|body| Body::new(Ended { body, told: Some(told) }))
}

/// Waits until a call has to be answered now or never.
async fn out_of_patience(ending: &Ending) -> Why {
    let why = ending.told().await;
    tokio::time::sleep(why.patience()).await;
    why
}

/// With what a call ends that is given up. It is dropped, as when its client had gone: what it has begun may go its way.
fn unanswered(why: Why, is_read: bool) -> Status {
    if is_read {
        return why.status();
    }
    let message = "it was not durable before the connection had to end: it may become so";
    status(Reason::OutcomeUnknown, message, [])
}

/// A body that ends when it is told to.
struct Ended {
    body: Body,
    /// `None` once it has been told.
    told: Option<BoxFuture<'static, Why>>,
}

impl hyper::body::Body for Ended {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = &mut *self;
        let Some(told) = &mut this.told else { return Poll::Ready(None) };
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(context) {
            return Poll::Ready(frame);
        }
        let why = ready!(told.poll_unpin(context));
        this.told = None;
        let mut trailers = HeaderMap::new();
        why.status().add_header(&mut trailers).map_err(axum::Error::new)?;
        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.told.is_none() || self.body.is_end_stream()
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;
    use hyper::body::Body as _;

    use super::*;

    async fn next_frame(body: &mut Ended) -> Option<Frame<Bytes>> {
        std::future::poll_fn(|context| Pin::new(&mut *body).poll_frame(context)).await.map(|frame| frame.unwrap())
    }

    #[tokio::test]
    async fn a_stream_says_what_it_has_to_say_and_then_why_it_ends() {
        let ready = futures::stream::iter([Ok::<_, std::io::Error>(Bytes::from_static(b"NOT_SERVING"))]);
        let body = Body::from_stream(ready.chain(futures::stream::pending()));
        let mut ended = Ended { body, told: Some(std::future::ready(Why::Shutdown).boxed()) };
        assert_eq!(next_frame(&mut ended).await.unwrap().into_data().unwrap(), "NOT_SERVING");
        let trailers = next_frame(&mut ended).await.unwrap().into_trailers().unwrap();
        assert_eq!(trailers["grpc-status"], "14");
        assert!(next_frame(&mut ended).await.is_none());
    }

    #[tokio::test]
    async fn a_stream_that_ends_by_itself_says_nothing_else() {
        let mut ended = Ended { body: Body::from("all"), told: Some(std::future::pending().boxed()) };
        assert_eq!(next_frame(&mut ended).await.unwrap().into_data().unwrap(), "all");
        assert!(next_frame(&mut ended).await.is_none());
    }
}
