//! Files of a compaction of keys as format 1 persists them.

use lakebed_model::{CleanedFile, CleanedRun, Offset, TableFileId, TopicId};
use serde::{Deserialize, Serialize};

use super::v1::{partition_key, rows_hash, timestamps};
use crate::error::{FormatError, malformed};
use crate::text::{Hex, Text};

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CleanedFileV1 {
    file: Text<TableFileId>,
    runs: Vec<CleanedRunV1>,
}

/// Partition, base offset, covered offsets, rows, bytes, first and last timestamp in milliseconds, hash, whether it is clean.
type CleanedRunV1 = (u32, u64, u64, u64, u64, Option<i64>, Option<i64>, Hex, bool);

impl From<&CleanedFile> for CleanedFileV1 {
    fn from(file: &CleanedFile) -> Self {
        Self { file: Text(file.id), runs: file.runs.iter().map(run_v1).collect() }
    }
}

fn run_v1(run: &CleanedRun) -> CleanedRunV1 {
    let (first_ms, last_ms) = (run.timestamps.map(|range| range.first_ms), run.timestamps.map(|range| range.last_ms));
    let (partition, base) = (run.partition.partition.get(), run.base_offset.get());
    (partition, base, run.span, run.rows, run.bytes, first_ms, last_ms, Hex(run.hash.to_bits()), run.clean)
}

impl CleanedFileV1 {
    /// The rows of its runs lie one after another from row 0.
    pub(super) fn restore(self, topic: TopicId) -> Result<CleanedFile, FormatError> {
        let (mut runs, mut first_row) = (Vec::with_capacity(self.runs.len()), 0_u64);
        for (partition, base_offset, span, rows, bytes, first_ms, last_ms, hash, clean) in self.runs {
            runs.push(CleanedRun {
                partition: partition_key(topic.uuid(), partition),
                base_offset: Offset::new(base_offset),
                span,
                rows,
                first_row,
                bytes,
                timestamps: timestamps(first_ms, last_ms)?,
                hash: rows_hash(hash)?,
                clean,
            });
            let too_many = || malformed("a table file of more rows than can be counted");
            first_row = first_row.checked_add(rows).ok_or_else(too_many)?;
        }
        Ok(CleanedFile { id: self.file.0, runs })
    }
}
