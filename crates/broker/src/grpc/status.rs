//! From the table of reasons to a gRPC status with details.
//!
//! Every status that a service makes is made here, so that each has `google.rpc.ErrorInfo`. A request that is wrong says in
//! `google.rpc.BadRequest` where, and what passes by itself says in `google.rpc.RetryInfo` when to come back.

use std::collections::HashMap;
use std::fmt::Display;

use lakebed_wire::rpc;
use prost::Message;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::reason::{Reason, TABLE};

/// The domain of our reasons in `google.rpc.ErrorInfo`.
const DOMAIN: &str = "lakebed";

/// A status that says why, with facts for programs. What a field of the request is to blame for is a [`violation`].
pub(crate) fn status<const N: usize>(reason: Reason, message: impl Display, facts: [(&str, String); N]) -> Status {
    build(reason, None, message, facts)
}

/// A request that is not one that the call takes. `field` is the path of what is wrong in it, as `init.stop.offset`; on a batch of a
/// producer's, in the batch. It is empty where the request as a whole is wrong.
pub(crate) fn invalid(field: &str, message: impl Display) -> Status {
    violation(Reason::InvalidRequest, field, message, [])
}

/// The status of what could not be read; one that tonic makes for what does not decode gets the reason that it has.
pub(super) fn named(refused: Status) -> Status {
    match refused.code() {
        _ if !refused.details().is_empty() => refused,
        Code::Internal => invalid("", refused.message()),
        Code::OutOfRange => status(Reason::MessageTooLarge, refused.message(), []),
        _ => refused,
    }
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

/// A request of which one field is wrong. `field` is its path, as `config.retention.ms`; `message` says what is wrong, and names it.
pub(crate) fn violation<const N: usize>(
    reason: Reason,
    field: &str,
    message: impl Display,
    facts: [(&str, String); N],
) -> Status {
    build(reason, Some(field), message, facts)
}

fn build<const N: usize>(
    reason: Reason,
    field: Option<&str>,
    message: impl Display,
    facts: [(&str, String); N],
) -> Status {
    let row = reason.row();
    let message = message.to_string();
    let metadata: HashMap<String, String> = facts.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    let mut details = ErrorDetails::with_error_info(row.name, DOMAIN, metadata);
    if row.grpc == Code::InvalidArgument {
        details.add_bad_request_violation(field.unwrap_or_default(), &message);
    }
    if let Some(pause) = reason.pause() {
        details.set_retry_info(Some(pause));
    }
    Status::with_error_details(row.grpc, message, details)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first line that makes a status by a constructor of tonic's.
    fn made_in(text: &str) -> Option<&str> {
        text.lines().find(|line| {
            let mut places = line.match_indices("Status::");
            // Not a variant, such as ServingStatus::NotServing.
            places.any(|(at, found)| line[at + found.len()..].starts_with(char::is_lowercase))
        })
    }

    #[test]
    fn services_make_their_statuses_here() {
        assert!(
            made_in("    Err(Status::internal(\"x\"))").is_some() && made_in("ServingStatus::NotServing").is_none()
        );
        let mut directories = vec![std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/grpc")];
        let mut looked_at = 0;
        while let Some(directory) = directories.pop() {
            for entry in std::fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    directories.push(path);
                } else if !(path.ends_with("status.rs") || path.ends_with("tests.rs")) {
                    looked_at += 1;
                    let text = std::fs::read_to_string(&path).unwrap();
                    let shipped = text.split("#[cfg(test)]").next().unwrap();
                    assert_eq!(made_in(shipped), None, "{}", path.display());
                }
            }
        }
        assert!(looked_at > 4, "{looked_at}");
    }

    #[test]
    fn what_tonic_says_of_a_message_that_it_can_not_read_is_the_clients_mistake() {
        let reason = |refused| reason_name(&named(refused));
        assert_eq!(reason(Status::internal("compressed flag, but no grpc-encoding")), "INVALID_REQUEST");
        assert_eq!(reason(Status::out_of_range("decoded message length too large")), "MESSAGE_TOO_LARGE");
        assert_eq!(reason(status(Reason::Internal, "ours", [])), "INTERNAL");
        assert_eq!(named(Status::cancelled("reset")).code(), Code::Cancelled, "nobody hears it");
    }

    #[test]
    fn a_status_says_why_and_where_and_when_to_come_back() {
        let wrong =
            violation(Reason::InvalidConfig, "config.retention.ms", "soon is no number", [("topic", "t".to_owned())]);
        let details = wrong.get_error_details();
        let info = details.error_info().unwrap();
        assert_eq!(
            (info.reason.as_str(), info.domain.as_str(), info.metadata["topic"].as_str()),
            ("INVALID_CONFIG", DOMAIN, "t")
        );
        assert_eq!(details.bad_request().unwrap().field_violations[0].field, "config.retention.ms");
        assert!(details.retry_info().is_none(), "it does not pass by itself");
        let away = status(Reason::StoreUnavailable, "away", []).get_error_details();
        assert!(away.retry_info().is_some() && away.bad_request().is_none());
    }
}
