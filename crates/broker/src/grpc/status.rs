//! From the table of reasons to a gRPC status with details.

use std::collections::HashMap;
use std::fmt::Display;

use tonic::Status;
use tonic_types::{ErrorDetails, StatusExt};

use crate::reason::Reason;

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
