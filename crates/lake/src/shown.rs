//! What one version of a table shows: all that a publication needs to know, from the state.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use lakebed_model::CommitNumber;
use lakebed_store::{Directory, Key};
use url::Url;
use uuid::Uuid;

/// The number of a table's version, from 1. The state allots each once for a table name, in ascending order, with gaps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableVersion(u32);

impl TableVersion {
    /// Wraps a number from 1 to 2^31 - 1: readers keep it in an `int`. `None` for any other.
    pub fn new(number: u64) -> Option<Self> {
        (1..=i32::MAX as u64).contains(&number).then_some(Self(number as u32))
    }

    /// The plain number.
    pub fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for TableVersion {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.0)
    }
}

/// A table by its place in the catalog and in the bucket.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableName {
    /// Its namespace, such as `default`.
    pub namespace: String,
    /// Its own name.
    pub table: String,
}

impl TableName {
    /// Names a table; `None` if a part is not made of 1 to 249 characters of `[A-Za-z0-9_-]`, as the state makes them.
    pub fn new(namespace: impl Into<String>, table: impl Into<String>) -> Option<Self> {
        let (namespace, table) = (namespace.into(), table.into());
        let is_name = |name: &str| {
            let legal = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
            (1..=249).contains(&name.len()) && name.bytes().all(legal)
        };
        (is_name(&namespace) && is_name(&table)).then_some(Self { namespace, table })
    }

    /// The directory of everything of the table.
    pub fn directory(&self) -> Directory {
        Directory::new(format!("tables/{}/{}", self.namespace, self.table)).expect("checked names make portable keys")
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}", self.namespace, self.table)
    }
}

/// How the column `value` is typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ValueFormat {
    /// Bytes.
    #[default]
    Binary,
    /// Text: `value.format` of `string` and of `json`, which Iceberg v2 has no type for.
    Text,
}

/// How the files of a table are partitioned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum PartitionBy {
    /// Not at all.
    #[default]
    Nothing,
    /// By the day of `_kafka_ingest_timestamp` (UTC).
    Day,
    /// By its hour.
    Hour,
}

/// One file of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShownFile {
    /// Its key in the bucket, below the table's directory.
    pub key: Key,
    /// Its size in bytes.
    pub size_bytes: u64,
    /// How many of its rows count: all of them, or fewer if the log start lies in the file.
    pub rows: u64,
}

/// One version of a table: exactly the files that the state named after the commit that allotted the version.
#[derive(Debug, Clone)]
pub struct Shown {
    /// Who the table is: the topic's id.
    pub table_uuid: Uuid,
    /// Where it is.
    pub name: TableName,
    /// The topic's own name, for people.
    pub topic: String,
    /// The URI of the root of the bucket, as readers know it: see [`readers_root`].
    pub root: String,
    /// The version.
    pub version: TableVersion,
    /// The commit that allotted it.
    pub commit: CommitNumber,
    /// When that commit was made, in milliseconds since 1970; it dates the snapshot, and decides nothing but its expiry.
    pub time_ms: i64,
    /// The type of `value`.
    pub value_format: ValueFormat,
    /// How files that come anew are partitioned.
    pub partition_by: PartitionBy,
    /// What else the metadata tells of the topic: names that begin with `lakebed.`, but for those that every table has.
    pub properties: BTreeMap<String, String>,
    /// Every file, in any order.
    pub files: Vec<ShownFile>,
}

/// Why a version can't be published as it is given: a bug of ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// A file that is not the table's.
    #[error("file '{key}' is not below the data of table {name}")]
    Elsewhere {
        /// Which file.
        key: Key,
        /// Of which table.
        name: TableName,
    },
    /// A file that is there twice.
    #[error("file '{key}' is shown twice")]
    Twice {
        /// Which file.
        key: Key,
    },
}

impl Shown {
    /// The URI of the table.
    pub fn location(&self) -> String {
        format!("{}/{}", self.root, self.name.directory())
    }

    /// The URI of a key.
    pub fn uri(&self, key: &Key) -> String {
        format!("{}/{key}", self.root)
    }

    /// # Errors
    /// [`Invalid`], the first that is found.
    pub(crate) fn validate(&self) -> Result<(), Invalid> {
        let data = self.name.directory().directory("data").expect("a portable name");
        let mut seen = BTreeSet::new();
        for file in &self.files {
            if !data.contains(&file.key) {
                return Err(Invalid::Elsewhere { key: file.key.clone(), name: self.name.clone() });
            }
            if !seen.insert(&file.key) {
                return Err(Invalid::Twice { key: file.key.clone() });
            }
        }
        Ok(())
    }
}

/// The URI under which readers find the root of the store at `store_url`, without a slash at its end.
///
/// Paths of a local directory are not percent-encoded: DuckDB and Java's file systems take them as they stand. Azure's scheme is
/// spelled as readers know it.
pub fn readers_root(store_url: &str) -> String {
    let trimmed = store_url.trim_end_matches('/');
    if let Some(path) =
        Url::parse(store_url).ok().filter(|url| url.scheme() == "file").and_then(|url| url.to_file_path().ok())
    {
        let path = path.display().to_string();
        return format!("file://{}", path.trim_end_matches('/'));
    }
    trimmed.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_fit_an_int_and_begin_at_one() {
        assert_eq!(TableVersion::new(0), None);
        assert_eq!(TableVersion::new(1).map(TableVersion::get), Some(1));
        assert_eq!(TableVersion::new(i32::MAX as u64).map(TableVersion::get), Some(i32::MAX as u32));
        assert_eq!(TableVersion::new(i32::MAX as u64 + 1), None);
    }

    #[test]
    fn names_are_those_that_every_reader_takes() {
        assert!(TableName::new("default", "orders_v2-x").is_some());
        for (namespace, table) in [("", "a"), ("a", ""), ("a.b", "c"), ("a", "b/c"), ("a", "ä"), ("a", "..")] {
            assert_eq!(TableName::new(namespace, table), None, "{namespace:?}, {table:?}");
        }
    }

    #[test]
    fn roots_are_spelled_as_readers_spell_them() {
        assert_eq!(readers_root("s3://bucket/root"), "s3://bucket/root");
        assert_eq!(readers_root("s3://bucket/"), "s3://bucket");
        assert_eq!(readers_root("file:///data/with%20space"), "file:///data/with space");
        assert_eq!(readers_root("file:///data/"), "file:///data");
    }
}
