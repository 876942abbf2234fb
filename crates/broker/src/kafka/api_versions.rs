//! ApiVersions: what we take. The first request of every connection, so it is answered to anybody, of any version.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::api_versions_response::{ApiVersion, ApiVersionsResponse};
use kafka_protocol::messages::{ApiVersionsRequest, ApiVersionsResponse as Response};
use lakebed_wire::kafka::API_TABLE;

use super::response::{Reply, ReplyTo};

/// Answers with the table of APIs.
pub(super) fn answer(reply_to: ReplyTo, request: &ApiVersionsRequest) -> Reply {
    let named = |text: &str| {
        !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.'))
    };
    // KIP-511: the name and version end up in metrics, so they must look like ones.
    let wrong =
        reply_to.version >= 3 && !(named(&request.client_software_name) && named(&request.client_software_version));
    let error_code = if wrong { ResponseError::InvalidRequest.code() } else { 0 };
    reply_to.send(&table(error_code))
}

/// Answers a version that we don't know: in version 0, with the whole table, so that the client can ask again (KIP-511).
pub(super) fn answer_too_new(reply_to: ReplyTo) -> Reply {
    reply_to.send(&table(ResponseError::UnsupportedVersion.code()))
}

fn table(error_code: i16) -> Response {
    let api = |api: &lakebed_wire::kafka::Api| {
        ApiVersion::default().with_api_key(api.key).with_min_version(api.min).with_max_version(api.max)
    };
    ApiVersionsResponse::default().with_error_code(error_code).with_api_keys(API_TABLE.iter().map(api).collect())
}
