//! What an object is, by its key.

use lakebed_lake::TableName;
use lakebed_model::{Cell, CommitNumber, Place, SegmentId, TableFileId};
use lakebed_segment::layout;
use lakebed_store::Key;

/// What an object is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// `lakebed.json`, the verdict of a check.
    Root,
    /// A commit, with or without rows.
    Commit,
    /// Rows that commits name: flushes and merged ones.
    Segment,
    /// A part of a checkpoint, or its manifest.
    Checkpoint,
    /// A file of a table.
    TableFile,
    /// Iceberg metadata of a table.
    TableMetadata,
    /// None of ours.
    Other,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Root, Self::Commit, Self::Segment, Self::Checkpoint, Self::TableFile, Self::TableMetadata, Self::Other];

    /// Its name, for people and programs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::Commit => "commits",
            Self::Segment => "segments",
            Self::Checkpoint => "checkpoints",
            Self::TableFile => "table files",
            Self::TableMetadata => "table metadata",
            Self::Other => "other",
        }
    }
}

/// What a key says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Named {
    Root,
    Verdict,
    Commit(Place),
    Segment(SegmentId),
    Checkpoint(CommitNumber, String),
    TableFile(String, TableFileId),
    /// An object of the metadata of a table.
    Metadata(String),
    Other,
}

impl Named {
    /// Reads a key of a cell.
    pub(crate) fn of(cell: Cell, key: &Key) -> Self {
        let text = key.as_str();
        if text == layout::ROOT_KEY {
            return Self::Root;
        }
        if text == layout::VERDICT_KEY {
            return Self::Verdict;
        }
        if let Some(place) = layout::parse_commit_key(cell, text) {
            return Self::Commit(place);
        }
        if let Some(id) = layout::parse_segment_key(cell, text) {
            return Self::Segment(id);
        }
        if let Some((number, part)) = layout::parse_checkpoint_key(cell, text) {
            return Self::Checkpoint(number, part.to_owned());
        }
        let is_table = |table: &str| TableName::new(layout::NAMESPACE, table).is_some();
        if let Some((table, id)) = layout::parse_table_file_key(text).filter(|(table, _)| is_table(table)) {
            return Self::TableFile(table.to_owned(), id);
        }
        let below = text.strip_prefix(layout::TABLES_PREFIX).and_then(|rest| rest.strip_prefix(layout::NAMESPACE));
        match below.and_then(|rest| rest.strip_prefix('/')?.split_once("/metadata/")) {
            Some((table, name)) if is_table(table) && !name.contains('/') => Self::Metadata(table.to_owned()),
            _ => Self::Other,
        }
    }

    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::Root | Self::Verdict => Kind::Root,
            Self::Commit(_) => Kind::Commit,
            Self::Segment(_) => Kind::Segment,
            Self::Checkpoint(..) => Kind::Checkpoint,
            Self::TableFile(..) => Kind::TableFile,
            Self::Metadata(_) => Kind::TableMetadata,
            Self::Other => Kind::Other,
        }
    }

    /// The table that it belongs to.
    pub(crate) fn table(&self) -> Option<&str> {
        match self {
            Self::TableFile(table, _) | Self::Metadata(table) => Some(table),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_tell_what_their_objects_are() {
        let kind = |path: &str| Named::of(Cell::ZERO, &Key::new(path).unwrap()).kind();
        for (path, expected) in [
            ("lakebed.json", Kind::Root),
            ("lakebed-check.json", Kind::Root),
            ("cells/0/log/0000000007-00000000deadbeef/000000000042.parquet", Kind::Commit),
            ("cells/0/segments/01ARZ3NDEKTSV4RRFFQ69G5FAV.parquet", Kind::Segment),
            ("cells/0/checkpoints/00000000000000000009/manifest.json", Kind::Checkpoint),
            ("tables/default/orders/data/01ARZ3NDEKTSV4RRFFQ69G5FAV.parquet", Kind::TableFile),
            ("tables/default/orders/metadata/v1.metadata.json", Kind::TableMetadata),
            ("tables/default/orders/metadata/a/b", Kind::Other),
            // No topic has such a table.
            ("tables/default/my.table/metadata/v1.metadata.json", Kind::Other),
            ("tables/default/my table/data/01ARZ3NDEKTSV4RRFFQ69G5FAV.parquet", Kind::Other),
            ("cells/0/segments/mine.parquet", Kind::Other),
            ("check/1", Kind::Other),
        ] {
            assert_eq!(kind(path), expected, "{path}");
        }
    }
}
