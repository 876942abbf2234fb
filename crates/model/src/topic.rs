//! Topics: names, table names, limits.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// Kafka's limit on the length of a topic name, in bytes.
pub const NAME_BYTES_MAX: usize = 249;
/// Most partitions of one topic; bounds what one request can make the state hold.
pub const PARTITIONS_MAX: u32 = 100_000;

/// A valid topic name (Kafka's rule): 1 to 249 of `[A-Za-z0-9._-]`, not `.` or `..`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicName(Arc<str>);

/// Why a text is no topic name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "topic name {name:?} is invalid: it must be 1 to 249 characters of a-z, A-Z, 0-9, '.', '_' and '-', and not '.' or '..'"
)]
pub struct NameError {
    /// The text, cut after 300 characters.
    pub name: String,
}

impl TopicName {
    /// Checks a name.
    ///
    /// # Errors
    /// [`NameError`] if Kafka would refuse it too.
    pub fn new(name: &str) -> Result<Self, NameError> {
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        let valid =
            !name.is_empty() && name.len() <= NAME_BYTES_MAX && name.bytes().all(legal) && name != "." && name != "..";
        if valid { Ok(Self(name.into())) } else { Err(NameError { name: name.chars().take(300).collect() }) }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name of its table: in lower case, with `_` for every character outside `[a-z0-9_-]`. Two topics of one table name can't both
    /// exist: `docs/decisions/0008-table-names.md`.
    pub fn table_name(&self) -> String {
        self.0.chars().map(|c| if c == '.' { '_' } else { c.to_ascii_lowercase() }).collect()
    }
}

impl fmt::Display for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The setting that says what becomes of old records, and the value (one of several, perhaps) by which keys are compacted.
const CLEANUP_POLICY: &str = "cleanup.policy";
const COMPACT: &str = "compact";

/// A topic as the state knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topic {
    /// Its name.
    pub name: TopicName,
    /// Partitions `0..partitions` exist.
    pub partitions: u32,
    /// Settings that were given for it; what is absent has its default.
    pub config: Arc<BTreeMap<String, String>>,
}

/// Whether a topic with these settings keeps the last record of each key, rather than all.
pub fn compacts_keys(config: &BTreeMap<String, String>) -> bool {
    config.get(CLEANUP_POLICY).is_some_and(|policy| policy.split(',').any(|one| one.trim() == COMPACT))
}
