//! The one table of exit codes: what a failure means to the script that called.

use tonic::Code;

/// How the process ends when a verb failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    /// It failed; nothing more is known.
    Failed = 1,
    /// What was asked for is wrong: arguments, settings, names.
    Usage = 2,
    /// What was named is not there.
    NotFound = 3,
    /// What is there does not fit the request: it exists already, or an offset is outside.
    Conflict = 4,
    /// Nothing happened; the same may succeed later.
    Unavailable = 5,
}

impl Exit {
    /// What a broker's answer means.
    pub(crate) fn of(code: Code, reason: &str) -> Self {
        match code {
            Code::NotFound => Self::NotFound,
            Code::AlreadyExists | Code::FailedPrecondition | Code::Aborted | Code::OutOfRange => Self::Conflict,
            Code::Unavailable | Code::ResourceExhausted => Self::Unavailable,
            // The records are wrong, not the command.
            Code::InvalidArgument if matches!(reason, "MESSAGE_TOO_LARGE" | "CORRUPT_BATCH" | "INVALID_TIMESTAMP") => {
                Self::Failed
            }
            Code::InvalidArgument => Self::Usage,
            _ => Self::Failed,
        }
    }
}

/// gRPC's own name of a code, for answers that carry no reason of ours.
pub(crate) fn name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

#[cfg(test)]
mod tests {
    use lakebed_broker::reason::TABLE;

    use super::*;

    #[test]
    fn every_reason_of_the_broker_has_the_exit_code_that_its_meaning_asks_for() {
        for row in TABLE {
            let expected = match row.name {
                "TOPIC_NOT_FOUND" | "PARTITION_NOT_FOUND" | "GROUP_NOT_FOUND" => Exit::NotFound,
                "TOPIC_ALREADY_EXISTS" | "OFFSET_OUT_OF_RANGE" => Exit::Conflict,
                "GROUP_NOT_EMPTY" | "GROUP_KIND_MISMATCH" | "GROUP_SUBSCRIBED" | "MEMBER_FENCED" => Exit::Conflict,
                "INVALID_GROUP_ID" => Exit::Usage,
                "FENCED" | "SHUTTING_DOWN" | "OVERLOADED" | "STORE_UNAVAILABLE" => Exit::Unavailable,
                "INVALID_TOPIC_NAME" | "INVALID_CONFIG" | "INVALID_PARTITION_COUNT" => Exit::Usage,
                "OUTCOME_UNKNOWN" | "DAMAGED_OBJECT" | "INTERNAL" | "CORRUPT_BATCH" | "MESSAGE_TOO_LARGE" => {
                    Exit::Failed
                }
                _ => continue,
            };
            assert_eq!(Exit::of(row.grpc, row.name), expected, "{}", row.name);
        }
    }
}
