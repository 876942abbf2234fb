//! From the table of reasons to a gRPC status with details.

use std::collections::HashMap;
use std::fmt::Display;

use lakebed_wire::rpc;
use prost::Message;
use tonic::Status;
use tonic_types::{ErrorDetails, StatusExt};

use crate::reason::{Reason, TABLE};

/// The domain of our reasons in `google.rpc.ErrorInfo`.
const DOMAIN: &str = "lakebed";

/// A status that says why, with facts for programs.
pub(crate) fn status<const N: usize>(reason: Reason, message: impl Display, facts: [(&str, String); N]) -> Status {
    let row = reason.row();
    let metadata: HashMap<String, String> = facts.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    let details = ErrorDetails::with_error_info(row.name, DOMAIN, metadata);
    Status::with_error_details(row.grpc, message.to_string(), details)
}

/// A request that is not one that the call takes.
pub(crate) fn invalid(message: impl Display) -> Status {
    status(Reason::InvalidRequest, message, [])
}

/// The name of a status's reason; of one that is not ours, what it is by its code.
pub(crate) fn reason_name(status: &Status) -> &'static str {
    let named = status.get_details_error_info().and_then(|info| TABLE.iter().find(|row| row.name == info.reason));
    named.map_or("INTERNAL", |row| row.name)
}

/// A status as it is put into a message.
pub(crate) fn as_message(status: &Status) -> rpc::Status {
    rpc::Status::decode(status.details()).unwrap_or_else(|_| rpc::Status {
        code: status.code() as i32,
        message: status.message().to_owned(),
        details: Vec::new(),
    })
}
