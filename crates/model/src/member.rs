//! Members: the brokers that serve a log, and where each of them can be reached.
//!
//! They stand in the log so that brokers find one another, and clients find all of them. Whether one lives is no matter of the log, and no
//! rule of safety asks who is a member.

use crate::ids::{NodeId, Nonce};

/// Most members of a cell. A cluster of so many brokers has more cells.
pub const MEMBERS_MAX: usize = 1024;
/// Longest of the texts of a member, in bytes.
pub const MEMBER_TEXT_MAX: usize = 255;

/// A broker as it describes itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The process.
    pub nonce: Nonce,
    /// Where Kafka clients reach it: `host:port`.
    pub kafka: String,
    /// Where brokers, gRPC and HTTP clients reach it: `host:port`.
    pub http: String,
    /// The availability zone that it runs in; empty if it was not told.
    pub zone: String,
    /// The version of its program.
    pub version: String,
}

impl Member {
    /// What is wrong with it, if something is.
    pub(crate) fn wrong(&self) -> Option<&'static str> {
        let texts = [&self.kafka, &self.http, &self.zone, &self.version];
        let is_plain = |text: &&String| text.len() <= MEMBER_TEXT_MAX && !text.chars().any(char::is_control);
        if !texts.iter().all(is_plain) {
            return Some("a member has a text that is too long, or has control characters");
        }
        (self.kafka.is_empty() || self.http.is_empty()).then_some("a member can't be reached: it has no address")
    }
}

/// A member with the number that Kafka clients know it by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// The number.
    pub id: NodeId,
    /// Who has it.
    pub member: Member,
}
