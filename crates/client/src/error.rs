//! What a caller learns when a call fails, and what became of what it sent.

use std::collections::BTreeMap;

use prost::Message;
use tonic::{Code, Status};
use tonic_types::StatusExt;

/// The domain of Lakebed's reasons in `google.rpc.ErrorInfo`.
const DOMAIN: &str = "lakebed";
/// The reason of a call that may have taken effect: whoever had it has not answered.
const OUTCOME_UNKNOWN: &str = "OUTCOME_UNKNOWN";

/// A call that failed.
///
/// What becomes of a write is in the kind of error: see [`ClientError::may_have_happened`].
#[derive(Debug, Clone, thiserror::Error)]
pub enum ClientError {
    /// No connection: nothing happened.
    #[error("no connection to {address}: {cause}")]
    NotConnected {
        /// Where the client tried to connect; several are separated by commas.
        address: String,
        /// Why it could not.
        cause: String,
    },
    /// The broker answered with an error.
    #[error("{message}")]
    Refused {
        /// gRPC's canonical code.
        code: Code,
        /// One of `lakebed.v1.Reason` without its prefix; empty if the error does not come from Lakebed itself.
        reason: String,
        /// For people.
        message: String,
        /// Facts: topic, partition, offsets, sizes; which ones, the reason says.
        metadata: BTreeMap<String, String>,
    },
    /// The connection was lost before the answer: what was sent may have taken effect.
    #[error("the connection was lost before an answer came: {cause}")]
    Lost {
        /// What the connection says.
        cause: String,
    },
    /// The producer or consumer was closed before: nothing happened.
    #[error("it is closed")]
    Closed,
}

impl ClientError {
    pub(crate) fn from_status(status: &Status) -> Self {
        let info = status.get_details_error_info().filter(|info| info.domain == DOMAIN);
        // SUBTLE: a status that tonic makes of a broken connection carries its cause. Its code may be UNAVAILABLE (a ping that was not
        // answered, say), which from a broker would mean that nothing was stored.
        if info.is_none()
            && let Some(source) = std::error::Error::source(status)
        {
            return Self::Lost { cause: root_cause(source) };
        }
        let message = if status.message().is_empty() { status.code().to_string() } else { status.message().to_owned() };
        let (reason, metadata) = info.map(|info| (info.reason, info.metadata)).unwrap_or_default();
        Self::Refused { code: status.code(), reason, message, metadata: metadata.into_iter().collect() }
    }

    /// A status that came in a message of a stream.
    pub(crate) fn from_message(status: &lakebed_wire::rpc::Status) -> Self {
        let details = status.encode_to_vec().into();
        Self::from_status(&Status::with_details(Code::from_i32(status.code), status.message.clone(), details))
    }

    /// A refusal by this client, in the words that the broker would use.
    pub(crate) fn refused(code: Code, reason: &str, message: impl Into<String>) -> Self {
        Self::Refused { code, reason: reason.to_owned(), message: message.into(), metadata: BTreeMap::new() }
    }

    /// The reason, as a name of `lakebed.v1.Reason` without its prefix; empty if there is none.
    pub fn reason(&self) -> &str {
        match self {
            Self::Refused { reason, .. } => reason,
            Self::NotConnected { .. } | Self::Lost { .. } | Self::Closed => "",
        }
    }

    /// A fact of the refusal, such as `next_offset` of OFFSET_MISMATCH.
    pub fn fact(&self, name: &str) -> Option<&str> {
        match self {
            Self::Refused { metadata, .. } => metadata.get(name).map(String::as_str),
            Self::NotConnected { .. } | Self::Lost { .. } | Self::Closed => None,
        }
    }

    /// Whether nothing happened and the same call may succeed later.
    pub fn is_retriable(&self) -> bool {
        match self {
            Self::NotConnected { .. } => true,
            Self::Refused { code, .. } => {
                matches!(code, Code::Unavailable | Code::ResourceExhausted) && !self.may_have_happened()
            }
            Self::Lost { .. } | Self::Closed => false,
        }
    }

    /// Whether what was sent may have taken effect in spite of the error.
    ///
    /// UNAVAILABLE and RESOURCE_EXHAUSTED mean that nothing happened only if Lakebed says so itself, with a reason: proxies answer with them too.
    pub fn may_have_happened(&self) -> bool {
        match self {
            Self::NotConnected { .. } | Self::Closed => false,
            Self::Lost { .. } => true,
            Self::Refused { code, reason, .. } => match code {
                Code::DeadlineExceeded | Code::Unknown | Code::Cancelled | Code::Internal => true,
                Code::Unavailable | Code::ResourceExhausted => reason.is_empty(),
                _ => false,
            },
        }
    }

    /// Whether the trouble may pass by itself: a read that failed so is worth repeating.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::NotConnected { .. } | Self::Lost { .. } => true,
            Self::Closed => false,
            Self::Refused { code, reason, .. } => match code {
                Code::Unavailable | Code::ResourceExhausted | Code::DeadlineExceeded => true,
                // A broker that passed the call on has lost the one that had it.
                Code::Unknown if reason == OUTCOME_UNKNOWN => true,
                // Not the broker's own words: a stream that a proxy cut, or a message that was cut in its midst.
                Code::Unknown | Code::Cancelled | Code::Internal | Code::Aborted => reason.is_empty(),
                _ => false,
            },
        }
    }
}

/// The innermost reason, which is what a person can act on.
pub(crate) fn root_cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use tonic_types::ErrorDetails;

    use super::*;

    fn of_lakebed(code: Code, reason: &str) -> ClientError {
        let metadata = HashMap::from([("next_offset".to_owned(), "7".to_owned())]);
        let details = ErrorDetails::with_error_info(reason, DOMAIN, metadata);
        ClientError::from_status(&Status::with_error_details(code, "no", details))
    }

    #[test]
    fn only_lakebed_itself_can_say_that_nothing_was_stored() {
        let told = of_lakebed(Code::Unavailable, "SHUTTING_DOWN");
        assert!(told.is_retriable() && !told.may_have_happened() && told.may_pass());
        let proxy = ClientError::from_status(&Status::unavailable("upstream connect error"));
        assert!(!proxy.is_retriable() && proxy.may_have_happened() && proxy.may_pass());
        let broken = std::io::Error::new(std::io::ErrorKind::ConnectionReset, "reset");
        let lost = ClientError::from_status(&Status::from_error(Box::new(broken)));
        assert!(matches!(&lost, ClientError::Lost { cause } if cause == "reset"), "{lost:?}");
        assert!(!lost.is_retriable() && lost.may_have_happened() && lost.may_pass());
    }

    #[test]
    fn what_a_caller_must_change_does_not_pass() {
        let wrong = of_lakebed(Code::Aborted, "OFFSET_MISMATCH");
        assert!(!wrong.is_retriable() && !wrong.may_have_happened() && !wrong.may_pass());
        assert_eq!((wrong.reason(), wrong.fact("next_offset"), wrong.fact("x")), ("OFFSET_MISMATCH", Some("7"), None));
        let bug = of_lakebed(Code::Internal, "INTERNAL");
        assert!(bug.may_have_happened() && !bug.may_pass());
        let passed_on = of_lakebed(Code::Unknown, OUTCOME_UNKNOWN);
        assert!(!passed_on.is_retriable() && passed_on.may_have_happened() && passed_on.may_pass());
    }
}
