//! Tables as the state knows them: every topic is one, and its versions are never used twice.

use crate::ids::CommitNumber;

/// Highest version of a table: readers take it for a number of 32 bits with a sign.
pub const TABLE_VERSION_MAX: u32 = i32::MAX as u32;

/// The table of a topic. Its files are the table files that the topic's runs name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Table {
    /// Grows whenever the set of its files changes. It is greater than every version of every table that was deleted before it was
    /// begun, so a topic that is created again goes on where the former of its name ended.
    pub version: u32,
    /// The highest version that readers are known to see; 0 before the first.
    pub published: u32,
    /// The commit that allotted the version: it shows the files that the state named right after it.
    pub commit: CommitNumber,
    /// When that commit was written, by its writer's clock: milliseconds since 1970. It decides nothing.
    pub time_ms: i64,
}
