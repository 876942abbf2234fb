//! What the state knows of rows besides where they are, found out by reading them.

use std::ops::Range;

use lakebed_model::{Offset, RowsHash, TimestampRange};
use lakebed_segment::row_set::RowSet;
use lakebed_segment::rows::RowSource;

use super::super::file::{ObjectError, TableFile};

/// Rows without a time.
const NO_TIMESTAMP_MS: i64 = -1;

/// See the module.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Facts {
    pub(super) bytes: u64,
    pub(super) timestamps: Option<TimestampRange>,
    pub(super) hash: RowsHash,
}

impl Facts {
    /// Takes rows in, one after another. `placed`: the offsets of rows of a run with gaps, whose hash covers them.
    pub(super) fn add(&mut self, rows: &RowSet, placed: Option<&[Offset]>) {
        let length = |bytes: Option<&[u8]>| bytes.map_or(0, |bytes| bytes.len() as u64);
        for row in 0..rows.len() {
            let headers = rows.headers(row).map(|(key, value)| key.len() as u64 + length(value));
            self.bytes += length(rows.key(row)) + length(rows.value(row)) + headers.sum::<u64>();
            let time_ms = rows.timestamp_ms(row);
            if time_ms != NO_TIMESTAMP_MS {
                let one = TimestampRange { first_ms: time_ms, last_ms: time_ms };
                self.timestamps = TimestampRange::union(self.timestamps, Some(one));
            }
        }
        let hash = placed.map_or_else(|| rows.hash(), |offsets| rows.hash_placed(offsets));
        self.hash = self.hash.concat(hash, rows.len() as u64);
    }
}

/// The facts of some rows of a file that have no gaps.
///
/// # Errors
/// [`ObjectError`]
pub(super) async fn facts_of(file: &TableFile<'_>, rows: Range<u64>) -> Result<Facts, ObjectError> {
    let mut facts = Facts::default();
    for part in file.parts(rows) {
        facts.add(&file.rows(part).await?.rows, None);
    }
    Ok(facts)
}
