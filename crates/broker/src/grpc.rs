//! The gRPC services: the same topics, records and offsets as Kafka clients see, through the same rooms.
//!
//! Invariants: an answer without an error is durable; a message to a client stays below 4 MiB unless one record alone is larger, so
//! that clients with stock settings work; a status names its reason from the one table in [`crate::reason`].

mod admin;
mod batch;
pub(crate) mod codec;
mod consume;
mod groups;
mod produce;
mod produce_stream;
mod segments;
pub(crate) mod status;
mod watch;

use std::sync::Arc;

use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use tokio::time::Instant;
use tonic::service::Routes;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use crate::cluster::service::ForBrokers;
use crate::http::messages::no_method;
use crate::kafka::Service;
use crate::rooms::Rooms;
use crate::services::admin_service_server::AdminServiceServer;
use crate::services::cluster::cluster_service_server::ClusterServiceServer;
use crate::services::consume_service_server::ConsumeServiceServer;
use crate::services::group_service_server::GroupServiceServer;
use crate::services::produce_service_server::ProduceServiceServer;

/// Largest request that brokers pass on to each other: of those that are, with room for what is around it.
const PASSED_BYTES_MAX: usize = 8 << 20;

/// The services whose health is told.
const SERVICES: [&str; 4] =
    ["lakebed.v1.ProduceService", "lakebed.v1.ConsumeService", "lakebed.v1.AdminService", "lakebed.v1.GroupService"];

/// The services of one broker.
#[derive(Debug, Clone)]
pub(crate) struct Services {
    pub(crate) rooms: Arc<Rooms>,
    /// What waits in Consume streams.
    consume_budget: consume::Budget,
    /// Join streams.
    joined: groups::Streams,
    pub(crate) about: Arc<About>,
}

/// What a broker tells of itself.
#[derive(Debug)]
pub(crate) struct About {
    /// Where Kafka clients connect, as `host:port`.
    pub(crate) kafka_address: String,
    /// Where gRPC and HTTP clients connect.
    pub(crate) http_address: String,
    /// When it began to serve.
    pub(crate) started: Instant,
}

#[cfg(test)]
impl Default for About {
    fn default() -> Self {
        Self { kafka_address: String::new(), http_address: String::new(), started: Instant::now() }
    }
}

/// All services with health and reflection, as routes for the HTTP port; and the handle that changes their health.
pub(crate) async fn routes(kafka: Arc<Service>, about: About) -> (axum::Router, HealthReporter) {
    let rooms = Arc::clone(&kafka.rooms);
    let message_bytes_max = rooms.config.request_bytes_max;
    let counts = Arc::clone(rooms.metrics.grpc());
    let consume_budget = consume::Budget::new(rooms.config.budget().streams_bytes);
    let joined = groups::Streams::new(rooms.config.budget().groups_bytes);
    let for_brokers = rooms.cluster.clone().map(|cluster| ForBrokers::new(cluster, kafka));
    let services = Services { rooms, consume_budget, joined, about: Arc::new(about) };
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter.set_serving::<ProduceServiceServer<Services>>().await;
    reporter.set_serving::<ConsumeServiceServer<Services>>().await;
    reporter.set_serving::<AdminServiceServer<Services>>().await;
    reporter.set_serving::<GroupServiceServer<Services>>().await;
    let produce = ProduceServiceServer::new(services.clone()).max_decoding_message_size(message_bytes_max);
    let consume = ConsumeServiceServer::new(services.clone());
    let admin = AdminServiceServer::new(services.clone());
    let groups = GroupServiceServer::new(services);
    let mut routes = Routes::new(produce).add_service(consume).add_service(admin).add_service(groups);
    if let Some(for_brokers) = for_brokers {
        let server = ClusterServiceServer::new(for_brokers).max_decoding_message_size(PASSED_BYTES_MAX);
        routes = routes.add_service(server);
    }
    routes = routes.add_service(health);
    let builder = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(lakebed_wire::DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    match (builder().build_v1(), builder().build_v1alpha()) {
        (Ok(v1), Ok(v1alpha)) => routes = routes.add_service(v1).add_service(v1alpha),
        (Err(error), _) | (_, Err(error)) => {
            tracing::error!(%error, "reflection is off: the descriptors can't be read")
        }
    }
    let counted = axum::middleware::from_fn_with_state(counts, watch::count);
    (routes.prepare().into_axum_router().fallback(not_found).layer(counted), reporter)
}

/// What is neither a service nor a page: UNIMPLEMENTED for gRPC clients, 404 for others.
async fn not_found(request: axum::extract::Request) -> axum::response::Response {
    let content_type = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    if content_type.is_some_and(|value| value.starts_with("application/grpc")) {
        no_method(request.uri().path()).into_http()
    } else {
        (StatusCode::NOT_FOUND, "not found: there are /livez, /readyz and /metrics\n").into_response()
    }
}

/// Says to health checks that the services take no more calls.
pub(crate) async fn stop_serving(reporter: &HealthReporter) {
    for service in SERVICES.into_iter().chain([""]) {
        reporter.set_service_status(service, ServingStatus::NotServing).await;
    }
}
