//! The keys of the bucket, in both directions. A key that none of these functions would write is not parsed.

use lakebed_model::{Cell, CommitNumber, Directory, Place, SegmentId, TableFileId};

/// The object that is created once: [`crate::root::Root`].
pub const ROOT_KEY: &str = "lakebed.json";

/// The object that records what a check of the store came to: [`crate::verdict::Verdict`].
pub const VERDICT_KEY: &str = "lakebed-check.json";

/// Stands while a log is made anew from what was left, and no root stands yet.
pub const RECOVERY_KEY: &str = "lakebed-recovery.json";

/// The name of the part of a checkpoint that is written last: [`crate::checkpoint::Manifest`].
pub const MANIFEST: &str = "manifest.json";

const PARQUET: &str = ".parquet";

/// The directory of every cell.
pub const CELLS: &str = "cells";

/// Everything of a cell.
pub fn cell_prefix(cell: Cell) -> String {
    format!("cells/{cell}/")
}

/// Every directory of a cell's commit log.
pub fn log_prefix(cell: Cell) -> String {
    format!("cells/{cell}/log/")
}

/// One directory of a cell's commit log.
pub fn directory_prefix(cell: Cell, directory: Directory) -> String {
    format!("cells/{cell}/log/{directory}/")
}

/// The key of a commit.
pub fn commit_key(cell: Cell, place: Place) -> String {
    format!("cells/{cell}/log/{place}{PARQUET}")
}

/// The place of a commit's key; `None` if it is no commit of this cell.
pub fn parse_commit_key(cell: Cell, key: &str) -> Option<Place> {
    let (directory, index) = key.strip_prefix(&log_prefix(cell))?.strip_suffix(PARQUET)?.split_once('/')?;
    let place = Place { directory: directory.parse().ok()?, index: index.parse().ok()? };
    (commit_key(cell, place) == key).then_some(place)
}

/// Every segment of a cell.
pub fn segments_prefix(cell: Cell) -> String {
    format!("cells/{cell}/segments/")
}

/// The key of a segment.
pub fn segment_key(cell: Cell, id: SegmentId) -> String {
    format!("cells/{cell}/segments/{id}{PARQUET}")
}

/// The id of a segment's key; `None` if it is no segment of this cell.
pub fn parse_segment_key(cell: Cell, key: &str) -> Option<SegmentId> {
    let id = key.strip_prefix(&segments_prefix(cell))?.strip_suffix(PARQUET)?.parse().ok()?;
    (segment_key(cell, id) == key).then_some(id)
}

/// Everything of the tables of all topics.
pub const TABLES_PREFIX: &str = "tables/";

/// The only namespace of tables.
pub const NAMESPACE: &str = "default";

/// Where a table is; `table` is [`TopicName::table_name`](lakebed_model::TopicName::table_name).
pub fn table_prefix(table: &str) -> String {
    format!("{TABLES_PREFIX}{NAMESPACE}/{table}/")
}

/// The table files of a table.
pub fn table_data_prefix(table: &str) -> String {
    format!("{}data/", table_prefix(table))
}

/// The key of a table file.
pub fn table_file_key(table: &str, id: TableFileId) -> String {
    format!("{}{id}{PARQUET}", table_data_prefix(table))
}

/// The table and the id of a table file's key; `None` if it is none.
pub fn parse_table_file_key(key: &str) -> Option<(&str, TableFileId)> {
    let rest = key.strip_prefix(TABLES_PREFIX)?.strip_prefix(NAMESPACE)?.strip_prefix('/')?;
    let (table, rest) = rest.split_once('/')?;
    let id = rest.strip_prefix("data/")?.strip_suffix(PARQUET)?.parse().ok()?;
    (!table.is_empty() && table_file_key(table, id) == key).then_some((table, id))
}

/// Every checkpoint of a cell.
pub fn checkpoints_prefix(cell: Cell) -> String {
    format!("cells/{cell}/checkpoints/")
}

/// Every part of one checkpoint.
pub fn checkpoint_prefix(cell: Cell, number: CommitNumber) -> String {
    format!("cells/{cell}/checkpoints/{:020}/", number.get())
}

/// The key of a part of a checkpoint; [`MANIFEST`] is one.
pub fn checkpoint_key(cell: Cell, number: CommitNumber, part: &str) -> String {
    format!("{}{part}", checkpoint_prefix(cell, number))
}

/// The checkpoint and the part of a key; `None` if it is no part of a checkpoint of this cell.
pub fn parse_checkpoint_key(cell: Cell, key: &str) -> Option<(CommitNumber, &str)> {
    let (number, part) = key.strip_prefix(&checkpoints_prefix(cell))?.split_once('/')?;
    let number = CommitNumber::new(number.parse().ok()?);
    let legal = !part.is_empty() && !part.contains('/');
    (legal && checkpoint_key(cell, number, part) == key).then_some((number, part))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CELL: Cell = Cell::new(0);

    fn place() -> Place {
        Place { directory: "0000000007-00000000deadbeef".parse().unwrap(), index: 42 }
    }

    #[test]
    fn keys_are_those_of_the_specification() {
        assert_eq!(commit_key(CELL, place()), "cells/0/log/0000000007-00000000deadbeef/000000000042.parquet");
        assert_eq!(directory_prefix(CELL, place().directory), "cells/0/log/0000000007-00000000deadbeef/");
        let id: SegmentId = "01ARZ3NDEKTSV4RRFFQ69G5FAV".parse().unwrap();
        assert_eq!(segment_key(Cell::new(3), id), "cells/3/segments/01ARZ3NDEKTSV4RRFFQ69G5FAV.parquet");
        let key = checkpoint_key(CELL, CommitNumber::new(9), MANIFEST);
        assert_eq!(key, "cells/0/checkpoints/00000000000000000009/manifest.json");
    }

    #[test]
    fn keys_parse_back() {
        assert_eq!(parse_commit_key(CELL, &commit_key(CELL, place())), Some(place()));
        let id: SegmentId = "01ARZ3NDEKTSV4RRFFQ69G5FAV".parse().unwrap();
        assert_eq!(parse_segment_key(CELL, &segment_key(CELL, id)), Some(id));
        let key = checkpoint_key(CELL, CommitNumber::new(9), "base-1.json");
        assert_eq!(parse_checkpoint_key(CELL, &key), Some((CommitNumber::new(9), "base-1.json")));
    }

    #[test]
    fn keys_of_table_files_are_public() {
        let id: TableFileId = "01ARZ3NDEKTSV4RRFFQ69G5FAV".parse().unwrap();
        let key = table_file_key("orders", id);
        assert_eq!(key, "tables/default/orders/data/01ARZ3NDEKTSV4RRFFQ69G5FAV.parquet");
        assert_eq!(parse_table_file_key(&key), Some(("orders", id)));
        for key in [
            "tables/default/orders/metadata/v1.metadata.json",
            "tables/default//data/01ARZ3NDEKTSV4RRFFQ69G5FAV.parquet",
            "tables/other/orders/data/01ARZ3NDEKTSV4RRFFQ69G5FAV.parquet",
            "tables/default/orders/data/01arz3ndektsv4rrffq69g5fav.parquet",
        ] {
            assert_eq!(parse_table_file_key(key), None, "{key}");
        }
    }

    #[test]
    fn keys_of_others_are_not_parsed() {
        let commit = commit_key(CELL, place());
        assert_eq!(parse_commit_key(Cell::new(1), &commit), None);
        for key in [
            "cells/0/log/0000000007-00000000deadbeef/42.parquet",
            "cells/0/log/0000000007-00000000DEADBEEF/000000000042.parquet",
            "cells/0/log/0000000007-00000000deadbeef/000000000042.parquet.tmp",
            "cells/0/log/0000000007-00000000deadbeef/+00000000042.parquet",
            "cells/0/log/000000000042.parquet",
        ] {
            assert_eq!(parse_commit_key(CELL, key), None, "{key}");
        }
        assert_eq!(parse_segment_key(CELL, "cells/0/segments/01arz3ndektsv4rrffq69g5fav.parquet"), None);
        assert_eq!(parse_checkpoint_key(CELL, "cells/0/checkpoints/9/manifest.json"), None);
        assert_eq!(parse_checkpoint_key(CELL, "cells/0/checkpoints/00000000000000000009/a/b"), None);
    }
}
