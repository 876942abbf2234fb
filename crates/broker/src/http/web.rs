//! gRPC-Web: calls from browsers, and from whatever speaks only HTTP/1.1.

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue, Method, header};
use axum::middleware::Next;
use axum::response::Response;
use tonic_web::GrpcWebLayer;
use tower::{Layer, Service, service_fn};
use tower_http::cors::{Any, CorsLayer};

use super::calls::REQUEST_ID;

/// How long a browser may remember what it was allowed.
const PREFLIGHT_AGE_MAX: std::time::Duration = std::time::Duration::from_secs(3600);

/// Turns a call of gRPC-Web (`application/grpc-web`, `application/grpc-web-text`) into one of gRPC, and its answer back; lets
/// everything else pass.
pub(super) async fn translate(request: Request, next: Next) -> Response {
    let content_type = request.headers().get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    if !content_type.is_some_and(|value| value.starts_with(b"application/grpc-web")) {
        return next.run(request).await;
    }
    let inner = service_fn(move |request: axum::http::Request<tonic::body::Body>| {
        let next = next.clone();
        async move { Ok::<_, std::convert::Infallible>(next.run(request.map(Body::new)).await) }
    });
    match GrpcWebLayer::new().layer(inner).call(request).await {
        Ok(response) => response.map(Body::new),
        Err(never) => match never {},
    }
}

/// What pages of other origins may do: what `origins` say, and nothing by default.
pub(super) fn cors<'a>(origins: impl Iterator<Item = &'a str>) -> CorsLayer {
    let origins: Vec<&str> = origins.collect();
    let cors = CorsLayer::new();
    if origins.is_empty() {
        return cors;
    }
    let cors = if origins.contains(&"*") {
        cors.allow_origin(Any)
    } else {
        cors.allow_origin(origins.iter().filter_map(|origin| HeaderValue::from_str(origin).ok()).collect::<Vec<_>>())
    };
    let told = ["grpc-status", "grpc-message", "grpc-status-details-bin"].map(HeaderName::from_static);
    cors.allow_methods([Method::POST])
        .allow_headers(Any)
        .expose_headers(told.into_iter().chain([REQUEST_ID]).collect::<Vec<_>>())
        .max_age(PREFLIGHT_AGE_MAX)
}
