//! FindCoordinator: the sequencer coordinates all groups. There are no transactions yet.

use std::net::SocketAddr;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::find_coordinator_response::Coordinator;
use kafka_protocol::messages::{BrokerId, FindCoordinatorRequest, FindCoordinatorResponse};
use kafka_protocol::protocol::StrBytes;

use super::response::{Reply, ReplyTo};
use super::{Brokers, NO_NODE, Service};

/// Kafka's number for groups, among the kinds of keys.
const GROUP: i8 = 0;
/// And for transactions and share groups.
const KNOWN: std::ops::RangeInclusive<i8> = 0..=2;
const NOBODY: &str = "no broker has taken over yet from the one that did it";
const WHY: &str = "this broker has no transactions and no share groups yet";

/// Names the sequencer for groups, and nobody for anything else.
pub(super) async fn answer(
    service: &Service,
    reply_to: ReplyTo,
    request: &FindCoordinatorRequest,
    reached_at: SocketAddr,
) -> Reply {
    let Brokers { all, leader } = service.brokers(reached_at).await;
    let found = all.into_iter().find(|(id, _)| *id == leader && request.key_type == GROUP);
    let why = found.is_none().then(|| StrBytes::from_static_str(if request.key_type == GROUP { NOBODY } else { WHY }));
    let code = match &found {
        Some(_) => 0,
        None if KNOWN.contains(&request.key_type) => ResponseError::CoordinatorNotAvailable.code(),
        None => ResponseError::InvalidRequest.code(),
    };
    let node = BrokerId(found.as_ref().map_or(NO_NODE, |(id, _)| *id));
    let (host, port) =
        found.map_or((StrBytes::default(), -1), |(_, (host, port))| (StrBytes::from_string(host), i32::from(port)));
    let response = if reply_to.version >= 4 {
        let coordinator = |key: &StrBytes| {
            Coordinator::default()
                .with_key(key.clone())
                .with_node_id(node)
                .with_host(host.clone())
                .with_port(port)
                .with_error_code(code)
                .with_error_message(why.clone())
        };
        FindCoordinatorResponse::default().with_coordinators(request.coordinator_keys.iter().map(coordinator).collect())
    } else {
        let response =
            FindCoordinatorResponse::default().with_error_code(code).with_node_id(node).with_host(host).with_port(port);
        if reply_to.version >= 1 { response.with_error_message(why) } else { response }
    };
    reply_to.send(&response)
}
