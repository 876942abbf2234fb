//! FindCoordinator: there are no groups yet. Advertised all the same, because librdkafka takes a broker without it for one that
//! can't do LZ4, and silently sends uncompressed batches.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::find_coordinator_response::Coordinator;
use kafka_protocol::messages::{BrokerId, FindCoordinatorRequest, FindCoordinatorResponse};
use kafka_protocol::protocol::StrBytes;

use super::response::{Reply, ReplyTo};

const WHY: &str = "this broker has no consumer groups and no transactions yet; assign partitions by hand";

/// Answers that no coordinator is available.
pub(super) fn answer(reply_to: ReplyTo, request: &FindCoordinatorRequest) -> Reply {
    let code = ResponseError::CoordinatorNotAvailable.code();
    let why = Some(StrBytes::from_static_str(WHY));
    let nobody = BrokerId(-1);
    let response = if reply_to.version >= 4 {
        let coordinator = |key: &StrBytes| {
            Coordinator::default()
                .with_key(key.clone())
                .with_node_id(nobody)
                .with_port(-1)
                .with_error_code(code)
                .with_error_message(why.clone())
        };
        FindCoordinatorResponse::default().with_coordinators(request.coordinator_keys.iter().map(coordinator).collect())
    } else {
        let response = FindCoordinatorResponse::default().with_error_code(code).with_node_id(nobody).with_port(-1);
        if reply_to.version >= 1 { response.with_error_message(why) } else { response }
    };
    reply_to.send(&response)
}
