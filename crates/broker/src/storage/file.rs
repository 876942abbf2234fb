//! A table file as it stands in the bucket: its footer, and its rows a part at a time, verified by its own checksums.

use std::ops::Range;

use lakebed_segment::table::{ParsedTable, TableFooter, TableRows};
use lakebed_store::{Key, ReadError, Store};

/// How much of the end of a file is read first; most footers fit.
const FOOTER_GUESS_BYTES: u64 = 64 * 1024;
/// Rows are decoded so many bytes at a time, about: what one file takes in memory.
const PART_BYTES: u64 = 8 << 20;
/// Bytes between two ranges that are rather read than asked for by a request of their own.
const GAP_BYTES: u64 = 64 * 1024;

/// Why an object gives no rows.
#[derive(Debug, thiserror::Error)]
pub enum ObjectError {
    /// It is not what it was when it was written, or not there.
    #[error("{0}")]
    Damaged(String),
    /// The store gave no good answer.
    #[error(transparent)]
    Store(ReadError),
}

impl From<ReadError> for ObjectError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::NotFound { .. } => Self::Damaged("nothing stands there".to_owned()),
            error => Self::Store(error),
        }
    }
}

/// A table file of which the footer was read and verified.
#[derive(Debug)]
pub(crate) struct TableFile<'a> {
    store: &'a Store,
    key: Key,
    pub(crate) footer: TableFooter,
}

impl<'a> TableFile<'a> {
    /// Reads the footer.
    ///
    /// # Errors
    /// [`ObjectError`]
    /// # Cost One GET, two if the footer is large.
    pub(crate) async fn open(store: &'a Store, key: Key) -> Result<Self, ObjectError> {
        let mut length = FOOTER_GUESS_BYTES;
        loop {
            let suffix = store.get_suffix(&key, length).await?;
            match TableFooter::parse(&suffix.bytes, suffix.object_size_bytes) {
                Ok(ParsedTable::Whole(footer)) => return Ok(Self { store, key, footer }),
                Ok(ParsedTable::NeedsSuffix(needed)) if needed > length => length = needed,
                Ok(ParsedTable::NeedsSuffix(needed)) => {
                    return Err(ObjectError::Damaged(format!("its footer asks for {needed} bytes")));
                }
                Err(error) => return Err(ObjectError::Damaged(error.to_string())),
            }
        }
    }

    /// Consecutive ranges of rows that are best read one after another.
    pub(crate) fn parts(&self, rows: Range<u64>) -> Vec<Range<u64>> {
        let all = u128::from(self.footer.rows.max(1));
        let each = u128::from(PART_BYTES) * all / u128::from(self.footer.decoded_bytes().max(1));
        let each = u64::try_from(each).unwrap_or(u64::MAX).max(1);
        let mut parts = Vec::new();
        let mut start = rows.start;
        while start < rows.end {
            let end = start.saturating_add(each).min(rows.end);
            parts.push(start..end);
            start = end;
        }
        parts
    }

    /// Some rows.
    ///
    /// # Errors
    /// [`ObjectError`]
    pub(crate) async fn rows(&self, rows: Range<u64>) -> Result<TableRows, ObjectError> {
        let damaged = |error: lakebed_segment::FormatError| ObjectError::Damaged(error.to_string());
        let ranges = self.footer.ranges(rows.clone()).map_err(damaged)?;
        let mut parts = Vec::new();
        for range in joined(ranges) {
            parts.push((range.start, self.store.get_range(&self.key, range.clone()).await?));
        }
        let footer = self.footer.clone();
        let decoded = tokio::task::spawn_blocking(move || footer.read(rows, &parts)).await;
        decoded.map_err(|error| ObjectError::Damaged(format!("its rows can't be decoded: {error}")))?.map_err(damaged)
    }
}

impl TableFile<'_> {
    /// Verifies what no row is in.
    ///
    /// # Errors
    /// [`ObjectError`]
    pub(crate) async fn verify_the_rest(&self) -> Result<(), ObjectError> {
        let damaged = |error: lakebed_segment::FormatError| ObjectError::Damaged(error.to_string());
        let covered = self.footer.ranges(0..self.footer.rows).map_err(damaged)?;
        let end = self.footer.pages_end();
        let starts = std::iter::once(0).chain(covered.iter().map(|range| range.end));
        let ends = covered.iter().map(|range| range.start).chain([end]);
        for rest in starts.zip(ends).filter(|(start, end)| start < end) {
            // Blocks are small, and what no row is in is a few of them.
            let rest = rest.0..rest.1;
            let bytes = self.store.get_range(&self.key, rest.clone()).await?;
            self.footer.verify_blocks(rest.clone(), &[(rest.start, bytes)]).map_err(damaged)?;
        }
        Ok(())
    }
}

/// Ranges that lie near each other are one.
pub(crate) fn joined(ranges: Vec<Range<u64>>) -> Vec<Range<u64>> {
    let mut joined: Vec<Range<u64>> = Vec::new();
    for range in ranges {
        match joined.last_mut() {
            Some(last) if range.start.saturating_sub(last.end) <= GAP_BYTES => last.end = last.end.max(range.end),
            _ => joined.push(range),
        }
    }
    joined
}
