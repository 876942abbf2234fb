//! Calls over HTTP that only the sequencer can answer, passed on as they came: those of gRPC, streams too, and those of the tables' catalog.

use std::collections::BTreeMap;
use std::error::Error;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures::FutureExt;
use futures::future::BoxFuture;
use lakebed_log::Log;
use serde_json::json;
use tokio::time::sleep;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};
use tower::{Service, ServiceExt};

use super::peers::{causes, with_causes};
use super::{leads, succeeded};
use crate::grpc::status::status;
use crate::http::ending::Ending;
use crate::reason::Reason;
use crate::rooms::Rooms;

/// In a call that was passed on: it is not passed on again.
const PASSED_ON: &str = "x-lakebed-passed-on";
/// How long a connection may take to come about.
const CONNECT_MAX: Duration = Duration::from_millis(500);
/// A broker that does not answer a ping while calls are open is given up: its machine may be gone without a word.
const PING_EVERY: Duration = Duration::from_secs(1);
const PING_MAX: Duration = Duration::from_secs(2);
/// How long answers may come on a connection that is about to end.
const LAST_ANSWERS_MAX: Duration = Duration::from_secs(2);
/// Connections that are kept; there are as many as there were sequencers lately.
const CHANNELS_MAX: usize = 8;

/// What any broker answers itself.
const ANYWHERE: [&str; 2] = ["/lakebed.v1.ConsumeService/", "/lakebed.v1.AdminService/GetClusterInfo"];
/// What only the sequencer answers.
const PASSED: [&str; 4] =
    ["/lakebed.v1.ProduceService/", "/lakebed.v1.GroupService/", "/lakebed.v1.AdminService/", CATALOG];
/// The tables' catalog.
const CATALOG: &str = "/iceberg";

/// Connections to sequencers.
#[derive(Debug, Default)]
pub(crate) struct Channels {
    by_address: Mutex<BTreeMap<String, Channel>>,
}

impl Channels {
    /// A connection to an address, which is made when it is first used.
    pub(crate) fn to(&self, address: &str) -> Result<Channel, tonic::transport::Error> {
        let mut channels = self.by_address.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(channel) = channels.get(address) {
            return Ok(channel.clone());
        }
        let endpoint = Endpoint::from_shared(format!("http://{address}"))?;
        let endpoint = endpoint.connect_timeout(CONNECT_MAX).tcp_nodelay(true);
        let channel = endpoint.http2_keep_alive_interval(PING_EVERY).keep_alive_timeout(PING_MAX).connect_lazy();
        if channels.len() >= CHANNELS_MAX {
            channels.clear();
        }
        channels.insert(address.to_owned(), channel.clone());
        Ok(channel)
    }
}

/// Waits until nothing is to be expected of the sequencer any more, or the connection is about to end, and a while for what is under way.
async fn ended(log: Log, state: lakebed_model::State, ending: Ending) {
    let told = async {
        ending.told().await;
        sleep(LAST_ANSWERS_MAX).await;
    };
    tokio::select! {
        biased;
        () = succeeded(&log, &state) => {}
        () = told => {}
    }
}

/// What the sequencer answers, for as long as it is one: a stream would wait for ever for one that hangs.
struct Passed {
    body: tonic::body::Body,
    ended: Option<BoxFuture<'static, ()>>,
}

impl http_body::Body for Passed {
    type Data = bytes::Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Self::Data>, Status>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) {
            return Poll::Ready(frame);
        }
        match self.ended.as_mut().map(|ended| ended.poll_unpin(context)) {
            Some(Poll::Ready(())) => {
                self.ended = None;
                let why = "another broker has taken over, or this one stops: what was not answered may have been done";
                let trailers = status(Reason::OutcomeUnknown, why, []).into_http::<()>().into_parts().0.headers;
                Poll::Ready(Some(Ok(http_body::Frame::trailers(trailers))))
            }
            // After the trailers nothing comes any more.
            None => Poll::Ready(None),
            Some(Poll::Pending) => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ended.is_none() || self.body.is_end_stream()
    }
}

/// Passes a call on if this broker can't answer it.
pub(crate) async fn pass_on(State(rooms): State<Arc<Rooms>>, request: Request, next: Next) -> Response {
    let path = request.uri().path();
    let is_passed =
        PASSED.iter().any(|prefix| path.starts_with(prefix)) && !ANYWHERE.iter().any(|prefix| path.starts_with(prefix));
    let Some(cluster) = rooms.cluster.as_ref().filter(|_| is_passed && !leads(&rooms.log)) else {
        return next.run(request).await;
    };
    let is_catalog = path.starts_with(CATALOG);
    let passed = match request.headers().contains_key(PASSED_ON) {
        true => Err((Reason::Fenced, "this broker is not the sequencer".to_owned())),
        false => {
            let state = rooms.log.state();
            let ending = Ending::of(request.extensions());
            let log = rooms.log.clone();
            match cluster.channels.to(state.owner_address()) {
                Ok(channel) => call(channel, request, ended(log, state, ending).boxed()).await,
                Err(error) => Err((Reason::Fenced, error.to_string())),
            }
        }
    };
    match passed {
        Ok(response) => response,
        Err((_, why)) if is_catalog => {
            let error = json!({ "message": why, "type": "ServiceUnavailableException", "code": 503 });
            (StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "error": error }))).into_response()
        }
        Err((reason, why)) => status(reason, why, []).into_http::<Body>().into_response(),
    }
}

/// # Errors
/// The call has no answer: for that reason, and why.
async fn call(
    mut channel: Channel,
    mut request: Request,
    mut ended: BoxFuture<'static, ()>,
) -> Result<Response, (Reason, String)> {
    request.headers_mut().insert(PASSED_ON, HeaderValue::from_static("1"));
    let unreached = |error: &tonic::transport::Error| {
        (Reason::Fenced, format!("the sequencer can't be reached: {}", with_causes(error)))
    };
    let ready = channel.ready().await.map_err(|error| unreached(&error))?;
    let answered = tokio::select! {
        biased;
        answered = ready.call(request.map(tonic::body::Body::new)) => answered,
        () = &mut ended => return Err((Reason::OutcomeUnknown, "another broker has taken over, or this one stops".to_owned())),
    };
    match answered {
        Ok(response) => Ok(response.map(|body| Body::new(Passed { body, ended: Some(ended) }))),
        Err(error) if causes(&error).any(<dyn Error>::is::<tonic::ConnectError>) => Err(unreached(&error)),
        // It had the call.
        Err(error) => Err((Reason::OutcomeUnknown, format!("the sequencer has not answered: {}", with_causes(&error)))),
    }
}
