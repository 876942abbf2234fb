//! InitProducerId: a fresh id for an idempotent producer.
//!
//! As Kafka does, a producer without a transactional id gets a fresh id of epoch 0, whatever id and epoch it had before. Until
//! transactions are built, one with a transactional id is answered UNSUPPORTED_VERSION.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::{InitProducerIdRequest, InitProducerIdResponse, ProducerId};

use super::Service;
use super::response::{Reply, ReplyTo};

/// Kafka's word for no id, and for no epoch.
const NONE: i64 = -1;

/// Gives a producer its id.
pub(super) async fn answer(service: &Service, reply_to: ReplyTo, request: InitProducerIdRequest) -> Reply {
    let refused = |error: ResponseError| {
        let nobody = InitProducerIdResponse::default().with_producer_id(ProducerId(NONE)).with_producer_epoch(-1);
        reply_to.send(&nobody.with_error_code(error.code()))
    };
    // Both, or none: of a producer that wants its epoch to be raised.
    if (request.producer_id.0 == NONE) != (i64::from(request.producer_epoch) == NONE) {
        return refused(ResponseError::InvalidRequest);
    }
    match request.transactional_id {
        Some(id) if id.is_empty() => return refused(ResponseError::InvalidRequest),
        Some(_) => return refused(ResponseError::UnsupportedVersion),
        None => {}
    }
    match service.rooms.producer_ids.next().await {
        Ok(id) => reply_to.send(&InitProducerIdResponse::default().with_producer_id(ProducerId(id.get()))),
        Err(error) => {
            tracing::warn!(%error, "a producer got no id");
            // SUBTLE: what Kafka answers while it has no ids. Clients ask again after a pause; of the other codes that would do, Java's
            // idempotent producer takes some as a reason to look for a transaction coordinator, and breaks off.
            refused(ResponseError::CoordinatorLoadInProgress)
        }
    }
}
