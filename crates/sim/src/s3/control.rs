//! The control endpoint: HTTP with JSON bodies, on a port of its own that no outage touches.
//!
//! | request | answer |
//! |---|---|
//! | `GET /conduct` | `{"conduct":…,"met":[…]}`: the [`Conduct`] in force, and how many requests each of its rules has met |
//! | `PUT /conduct` with a [`Conduct`] | the same, once it is in force; 400 with `{"error":…}` if it can't be followed, and nothing changes |
//! | `GET /counts` | the [`Counts`](super::bill::Counts) |
//! | `DELETE /counts` | the counts so far, which begin again at 0 |
//! | `GET /late` | `{"waiting":…}`: how many requests were answered and are still to be applied (`applied_after_ms`) |
//! | `POST /late` | `{"applied":…}`: applies those that wait, whatever their time, and says how many they were |
//!
//! A conduct is given whole: what is left out of it is as it is by default, so `PUT /conduct` with `{}` ends everything that was wrong.

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::CONTENT_TYPE;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::TaskTracker;

use super::conduct::Conduct;
use super::{Handle, ServerError};

/// Longest body of a request, in bytes.
const BODY_BYTES_MAX: usize = 64 << 10;
/// Most connections at once.
const CONNECTIONS_MAX: usize = 64;

type Answer = Response<Full<bytes::Bytes>>;

pub(crate) async fn serve(listener: TcpListener, handle: Handle) {
    let connections = TaskTracker::new();
    while let Ok((stream, _)) = listener.accept().await {
        if connections.len() < CONNECTIONS_MAX {
            connections.spawn(connection(stream, handle.clone()));
        }
    }
}

async fn connection(stream: TcpStream, handle: Handle) {
    let service = service_fn(|request| {
        let handle = handle.clone();
        async move { Ok::<_, std::convert::Infallible>(answer(&handle, request).await) }
    });
    if let Err(error) = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await {
        tracing::debug!(%error, "a control connection ended");
    }
}

async fn answer(handle: &Handle, request: Request<Incoming>) -> Answer {
    let (status, value) = match (request.method(), request.uri().path()) {
        (&Method::GET, "/conduct") => (StatusCode::OK, conduct(handle)),
        (&Method::PUT, "/conduct") => match change(handle, request.into_body()).await {
            Ok(()) => (StatusCode::OK, conduct(handle)),
            Err(error) => (StatusCode::BAD_REQUEST, json!({ "error": error })),
        },
        (&Method::GET, "/counts") => (StatusCode::OK, json!(handle.bill.counts())),
        (&Method::DELETE, "/counts") => (StatusCode::OK, json!(handle.bill.take())),
        (&Method::GET, "/late") => (StatusCode::OK, json!({ "waiting": handle.late.waiting() })),
        (&Method::POST, "/late") => (StatusCode::OK, json!({ "applied": handle.late.apply_now().await })),
        (_, path) => {
            (StatusCode::NOT_FOUND, json!({ "error": format!("no {path}: there are /conduct, /counts and /late") }))
        }
    };
    let mut answer = Response::new(Full::from(value.to_string()));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static("application/json"));
    answer
}

fn conduct(handle: &Handle) -> Value {
    let (conduct, met) = handle.demeanour.get();
    json!({ "conduct": conduct, "met": met })
}

async fn change(handle: &Handle, body: Incoming) -> Result<(), String> {
    let body = Limited::new(body, BODY_BYTES_MAX).collect().await.map_err(|error| error.to_string())?;
    let conduct: Conduct = serde_json::from_slice(&body.to_bytes()).map_err(|error| error.to_string())?;
    handle.set_conduct(conduct).await.map_err(|error: ServerError| error.to_string())
}
