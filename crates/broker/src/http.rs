//! The HTTP port: health, metrics and the tables' catalog; gRPC services are merged into the same router, so that one port serves all.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use axum::{Json, Router};
use lakebed_lake::Catalog;
use serde_json::json;

use crate::cluster::calls as calls_of_cluster;
use crate::metrics::Metrics;
use crate::request_memory::RequestBudgets;
use crate::rooms::Rooms;

mod calls;
pub(crate) mod ending;
mod last_words;
mod lingering;
pub(crate) mod listener;
pub(crate) mod messages;
mod web;
mod windows;

/// `/livez`, `/readyz`, `/metrics` and what is below `/iceberg`, with `services` beside them (a tonic `Routes` by its `into_axum_router`).
pub(crate) fn router(rooms: Arc<Rooms>, services: Router, budgets: RequestBudgets) -> Router {
    let bounds = messages::Bounds { budgets, produce_bytes_max: rooms.config.request_bytes_max };
    // From the innermost to the outermost. gRPC-Web becomes gRPC before messages are looked at, and each answer is followed to its end
    // as its client sees it.
    let services = services
        .layer(from_fn_with_state(Arc::clone(&rooms), calls_of_cluster::pass_on))
        .layer(from_fn(last_words::end_calls))
        .layer(from_fn_with_state(bounds, messages::let_in))
        .layer(from_fn(web::translate))
        .layer(web::cors(rooms.config.origins()));
    let ids = calls::RequestIds::new(rooms.seams.seed);
    Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(Arc::clone(&rooms))
        .merge(tables(rooms.catalog.clone()).layer(from_fn_with_state(Arc::clone(&rooms), calls_of_cluster::pass_on)))
        .merge(services)
        .layer(from_fn_with_state(ids, calls::follow))
}

/// The Iceberg REST catalog.
fn tables(catalog: Catalog) -> Router {
    let answer = async |State(catalog): State<Catalog>, request: Request| {
        catalog.answer(request.method(), request.uri(), request.headers()).await.map(Body::from)
    };
    Router::new().route("/iceberg", any(answer)).route("/iceberg/{*path}", any(answer)).with_state(catalog)
}

/// The process runs.
async fn livez() -> &'static str {
    "ok\n"
}

/// The broker can do its work; if not, the answer says why.
async fn readyz(State(rooms): State<Arc<Rooms>>) -> Response {
    let reasons = rooms.readiness.reasons(&rooms);
    if reasons.is_empty() {
        match crate::readiness::warnings(&rooms) {
            warnings if warnings.is_empty() => Json(json!({ "ready": true })).into_response(),
            warnings => Json(json!({ "ready": true, "warnings": warnings })).into_response(),
        }
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "ready": false, "reasons": reasons }))).into_response()
    }
}

async fn metrics(State(rooms): State<Arc<Rooms>>) -> Response {
    const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    match Metrics::render(&rooms) {
        Ok(text) => ([(header::CONTENT_TYPE, OPEN_METRICS)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
