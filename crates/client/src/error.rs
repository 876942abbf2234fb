//! What a caller learns when a call fails.

use tonic::{Code, Status};
use tonic_types::StatusExt;

/// A call that failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ClientError {
    /// No connection: nothing happened.
    #[error("no connection to {address}: {cause}")]
    NotConnected {
        /// Where the client tried to connect.
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
    },
}

impl ClientError {
    pub(crate) fn from_status(status: &Status) -> Self {
        let reason = status.get_details_error_info().map(|info| info.reason).unwrap_or_default();
        let message = if status.message().is_empty() { status.code().to_string() } else { status.message().to_owned() };
        Self::Refused { code: status.code(), reason, message }
    }

    /// The reason, as a name of `lakebed.v1.Reason` without its prefix; empty if there is none.
    pub fn reason(&self) -> &str {
        match self {
            Self::NotConnected { .. } => "",
            Self::Refused { reason, .. } => reason,
        }
    }

    /// Whether nothing happened and the same call may succeed later.
    pub fn is_retriable(&self) -> bool {
        match self {
            Self::NotConnected { .. } => true,
            Self::Refused { code, .. } => matches!(code, Code::Unavailable | Code::ResourceExhausted),
        }
    }

    /// Whether the records may have been stored in spite of the error.
    pub fn may_have_happened(&self) -> bool {
        match self {
            Self::NotConnected { .. } => false,
            Self::Refused { code, .. } => {
                matches!(code, Code::DeadlineExceeded | Code::Unknown | Code::Cancelled | Code::Internal)
            }
        }
    }
}
