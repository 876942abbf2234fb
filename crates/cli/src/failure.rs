//! Errors as a user meets them: what is wrong, why, and what to do.

use std::fmt;

use lakebed_client::ClientError;

/// A verb that failed.
#[derive(Debug)]
pub(crate) struct Failure {
    what: String,
    cause: Option<String>,
    remedy: Option<String>,
    /// The exit code.
    pub(crate) code: u8,
}

impl Failure {
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), cause: None, remedy: None, code: 1 }
    }

    pub(crate) fn cause(mut self, cause: impl fmt::Display) -> Self {
        self.cause = Some(cause.to_string());
        self
    }

    pub(crate) fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    pub(crate) fn code(mut self, code: u8) -> Self {
        self.code = code;
        self
    }

    /// A call to a broker that failed.
    pub(crate) fn call(what: impl Into<String>, server: &str, error: &ClientError) -> Self {
        let failure = Self::new(what).cause(error);
        match (error, error.reason()) {
            (ClientError::NotConnected { .. }, _) => failure
                .remedy(format!("start a broker with `lakebed dev`, or name another with --server (now {server})"))
                .code(5),
            (_, "TOPIC_NOT_FOUND") => {
                failure.remedy("see what there is with `lakebed topic list`, or `lakebed topic create NAME`").code(3)
            }
            (_, "PARTITION_NOT_FOUND") => {
                failure.remedy("see its partitions with `lakebed topic describe NAME`").code(3)
            }
            (_, "OFFSET_OUT_OF_RANGE") => {
                failure.remedy("see the offsets with `lakebed topic describe NAME`, or use --from start").code(4)
            }
            (_, "TOPIC_ALREADY_EXISTS") => failure.remedy("choose another name, or use the topic as it is").code(4),
            _ if error.may_have_happened() => {
                failure.remedy("the request may have taken effect: look before sending it again")
            }
            _ if error.is_retriable() => failure.remedy("nothing happened: try again").code(5),
            _ => failure,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", self.what)?;
        if let Some(cause) = &self.cause {
            write!(f, "\n  cause: {cause}")?;
        }
        if let Some(remedy) = &self.remedy {
            write!(f, "\n  try: {remedy}")?;
        }
        Ok(())
    }
}
