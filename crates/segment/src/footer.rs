//! Reading objects, without I/O: parse a footer from the end of an object, say which bytes rows need, decode them.
//!
//! Invariant: a checksum is verified before the bytes under it are believed; what stands outside of any is never used.

use std::ops::Range;

use bytes::Bytes;
use lakebed_model::{Cell, Commit, Nonce, SegmentId};

use crate::FORMAT;
use crate::body::{MAGIC, PAGE_ROWS_MAX, Page};
use crate::checksum::{DIGITS, crc32c, crc32c_with_zeros, parse_digits};
use crate::commit::{ColumnPagesV1, Identity, KIND_COMMIT, KIND_SEGMENT, SEAL_BYTES, SegmentV1, key, v1};
use crate::error::{FormatError, malformed};
use crate::row_set::RowSet;
use crate::schema::{COLUMNS, Column, RECORD_COLUMNS};
use crate::thrift::key_values;

mod read;

/// The length of the metadata and the magic, at the end of a file.
const TAIL_BYTES: usize = 8;
/// The smallest Parquet file: magic, tail.
const OBJECT_BYTES_MIN: u64 = 12;

/// What came of parsing the end of an object.
#[derive(Debug, Clone, PartialEq)]
pub enum Parsed {
    /// The footer is complete.
    Whole(Footer),
    /// So many bytes of the object's end are needed.
    NeedsSuffix(u64),
}

/// What an object is.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    /// A commit, with the rows of its inline flush if it has one.
    Commit(Commit),
    /// A segment that was uploaded by itself.
    Segment {
        /// Its id.
        id: SegmentId,
        /// The process that wrote it.
        broker: Nonce,
    },
}

/// The footer of a commit object or a segment.
#[derive(Debug, Clone, PartialEq)]
pub struct Footer {
    /// Whose object it is.
    pub identity: Identity,
    /// What it is.
    pub kind: Kind,
    /// How many rows it has.
    pub rows: u64,
    /// Pages of each column; empty if there are no rows.
    columns: Vec<Vec<PlacedPage>>,
}

/// A page with where it stands.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct PlacedPage {
    page: Page,
    start: u64,
    first_row: u64,
}

impl PlacedPage {
    fn rows(&self) -> Range<u64> {
        self.first_row..self.first_row + u64::from(self.page.rows)
    }

    fn bytes(&self) -> Range<u64> {
        self.start..self.start + u64::from(self.page.bytes)
    }
}

/// Values of the key-values that are read, before they are believed.
#[derive(Default)]
struct Words<'a> {
    format: Option<&'a [u8]>,
    kind: Option<&'a [u8]>,
    cluster: Option<&'a [u8]>,
    cell: Option<&'a [u8]>,
    commit: Option<&'a [u8]>,
    segment: Option<&'a [u8]>,
    pages: Option<&'a [u8]>,
    seal: Option<(&'a [u8], usize)>,
}

impl Footer {
    /// Parses the footer at the end of an object of `object_bytes` bytes. `suffix` is any number of its last bytes.
    ///
    /// # Errors
    /// [`FormatError::Newer`] if the object is of a newer format; others if it is not ours or damaged.
    pub fn parse(suffix: &Bytes, object_bytes: u64) -> Result<Parsed, FormatError> {
        let metadata = match metadata_range(suffix, object_bytes)? {
            Ok(metadata) => metadata,
            Err(needed) => return Ok(Parsed::NeedsSuffix(needed)),
        };
        let words = Words::find(&suffix[metadata.clone()])?;
        check_format(words.format)?;
        match open_seal(suffix, object_bytes, metadata.start, words.seal)? {
            Ok(pages_end) => words.believe(pages_end).map(Parsed::Whole),
            Err(needed) => Ok(Parsed::NeedsSuffix(needed)),
        }
    }

    /// The byte ranges of the object that rows `rows` need, ascending; ranges that touch are one.
    ///
    /// # Errors
    /// [`FormatError::RowsOutOfRange`].
    pub fn ranges(&self, rows: Range<u64>) -> Result<Vec<Range<u64>>, FormatError> {
        self.check_rows(&rows)?;
        let mut ranges: Vec<Range<u64>> = Vec::new();
        for column in RECORD_COLUMNS {
            for page in self.pages(column as usize, &rows) {
                match ranges.last_mut() {
                    Some(last) if last.end == page.start => last.end = page.bytes().end,
                    _ => ranges.push(page.bytes()),
                }
            }
        }
        Ok(ranges)
    }

    /// The byte ranges of the pages that no row is decoded from: those of topics and partitions, which the commit tells.
    pub fn unread_ranges(&self) -> Vec<Range<u64>> {
        let unread = (0..COLUMNS.len()).filter(|column| RECORD_COLUMNS.iter().all(|read| *read as usize != *column));
        unread.flat_map(|column| &self.columns[column]).map(PlacedPage::bytes).collect()
    }

    /// Verifies the page that begins at `start`.
    ///
    /// # Errors
    /// [`FormatError::Checksum`] if `bytes` are not those that were written, [`FormatError::Missing`] if no page begins there.
    pub fn verify_page(&self, start: u64, bytes: &[u8]) -> Result<(), FormatError> {
        let page = self.columns.iter().flatten().find(|page| page.start == start);
        let page = page.ok_or(FormatError::Missing { start, end: start })?;
        let found = crc32c(bytes);
        if found == page.page.crc32c {
            Ok(())
        } else {
            Err(FormatError::Checksum { what: format!("the page at {start}"), expected: page.page.crc32c, found })
        }
    }

    /// Decodes rows `rows` from `parts` of the object, each with the position of its first byte; they may hold more than
    /// [`Footer::ranges`] asked for.
    ///
    /// # Errors
    /// [`FormatError::Missing`] if bytes are missing, [`FormatError::Checksum`] if they are not those that were written.
    ///
    /// # Cost
    /// Keys, values and headers are not copied: the rows hold on to `parts`.
    pub fn read(&self, rows: Range<u64>, parts: &[(u64, Bytes)]) -> Result<RowSet, FormatError> {
        self.check_rows(&rows)?;
        read::read(self, rows, parts)
    }

    fn check_rows(&self, rows: &Range<u64>) -> Result<(), FormatError> {
        if rows.start <= rows.end && rows.end <= self.rows {
            Ok(())
        } else {
            Err(FormatError::RowsOutOfRange { start: rows.start, end: rows.end, rows: self.rows })
        }
    }

    /// The pages of a column that hold some of `rows`.
    fn pages(&self, column: usize, rows: &Range<u64>) -> &[PlacedPage] {
        let pages = &self.columns[column];
        if rows.is_empty() {
            return &[];
        }
        let first = pages.partition_point(|page| page.rows().end <= rows.start);
        let end = pages.partition_point(|page| page.first_row < rows.end);
        &pages[first..end]
    }
}

impl<'a> Words<'a> {
    fn find(metadata: &'a [u8]) -> Result<Self, FormatError> {
        let mut words = Self::default();
        key_values(metadata, |key, value, position| {
            let slot = match std::str::from_utf8(key) {
                Ok(key::FORMAT) => &mut words.format,
                Ok(key::KIND) => &mut words.kind,
                Ok(key::CLUSTER) => &mut words.cluster,
                Ok(key::CELL) => &mut words.cell,
                Ok(key::COMMIT) => &mut words.commit,
                Ok(key::SEGMENT) => &mut words.segment,
                Ok(key::PAGES) => &mut words.pages,
                Ok(key::FOOTER) => {
                    words.seal = Some((value, position));
                    return Ok(());
                }
                _ => return Ok(()),
            };
            *slot = Some(value);
            Ok(())
        })?;
        Ok(words)
    }

    /// Takes the words for true: their checksum has been verified.
    fn believe(self, pages_end: u64) -> Result<Footer, FormatError> {
        let cluster = text(self.cluster, key::CLUSTER)?;
        let cell = text(self.cell, key::CELL)?;
        let identity = Identity {
            cluster_id: cluster.parse().map_err(|_| malformed("lakebed.cluster is no UUID"))?,
            cell: Cell::new(cell.parse().map_err(|_| malformed("lakebed.cell is no number"))?),
        };
        let kind = match text(self.kind, key::KIND)? {
            KIND_COMMIT => Kind::Commit(json::<v1::CommitV1>(self.commit, key::COMMIT)?.try_into()?),
            KIND_SEGMENT => {
                let segment: SegmentV1 = json(self.segment, key::SEGMENT)?;
                Kind::Segment { id: segment.id.0, broker: Nonce::new(segment.broker.0) }
            }
            other => return Err(malformed(format!("an object of kind {other:?}"))),
        };
        let (columns, rows) = place_pages(json(self.pages, key::PAGES)?, pages_end)?;
        Ok(Footer { identity, kind, rows, columns })
    }
}

/// Where Parquet's metadata is in the last bytes of an object; or how many of them are needed to tell.
pub(crate) fn metadata_range(suffix: &Bytes, object_bytes: u64) -> Result<Result<Range<usize>, u64>, FormatError> {
    if object_bytes < OBJECT_BYTES_MIN || suffix.len() as u64 > object_bytes {
        return Err(malformed(format!("an object of {object_bytes} bytes, of which {} are given", suffix.len())));
    }
    let Some(tail_start) = suffix.len().checked_sub(TAIL_BYTES) else {
        return Ok(Err(OBJECT_BYTES_MIN));
    };
    let (length, magic) = suffix[tail_start..].split_at(4);
    if magic != MAGIC {
        return Err(malformed("it does not end as Parquet does"));
    }
    let length = u64::from(u32::from_le_bytes(length.try_into().expect("four bytes were split off")));
    let needed = length + TAIL_BYTES as u64;
    if needed + MAGIC.len() as u64 > object_bytes {
        return Err(malformed(format!("a footer of {length} bytes in an object of {object_bytes}")));
    }
    if needed > suffix.len() as u64 {
        return Ok(Err(needed));
    }
    Ok(Ok(suffix.len() - needed as usize..tail_start))
}

/// Verifies all that stands behind the pages, given the value of `lakebed.footer` and where it begins in the metadata; gives where the pages
/// end, or how many of the object's last bytes are needed.
pub(crate) fn open_seal(
    suffix: &Bytes,
    object_bytes: u64,
    metadata_start: usize,
    seal: Option<(&[u8], usize)>,
) -> Result<Result<u64, u64>, FormatError> {
    let suffix_start = object_bytes - suffix.len() as u64;
    let (seal, position) = seal.ok_or_else(|| malformed("no lakebed.footer"))?;
    let (pages_end, expected) = parse_seal(seal)?;
    if pages_end < MAGIC.len() as u64 || pages_end > suffix_start + metadata_start as u64 {
        return Err(malformed(format!("pages end at {pages_end}")));
    }
    let Some(start) = pages_end.checked_sub(suffix_start) else {
        return Ok(Err(object_bytes - pages_end));
    };
    let covered = &suffix[start as usize..];
    let digits = metadata_start - start as usize + position + SEAL_BYTES - DIGITS;
    let found = crc32c_with_zeros(covered, digits..digits + DIGITS);
    if found != expected {
        return Err(FormatError::Checksum { what: "the footer".to_owned(), expected, found });
    }
    Ok(Ok(pages_end))
}

pub(crate) fn check_format(format: Option<&[u8]>) -> Result<(), FormatError> {
    let format = text(format, key::FORMAT)?;
    match format.parse::<u32>() {
        Ok(FORMAT) => Ok(()),
        Ok(found) if found > FORMAT => Err(FormatError::Newer { found, supported: FORMAT }),
        _ => Err(malformed(format!("format {format:?}"))),
    }
}

fn text<'a>(value: Option<&'a [u8]>, key: &str) -> Result<&'a str, FormatError> {
    let value = value.ok_or_else(|| malformed(format!("no {key}")))?;
    std::str::from_utf8(value).map_err(|_| malformed(format!("{key} is no text")))
}

fn json<T: serde::de::DeserializeOwned>(value: Option<&[u8]>, key: &str) -> Result<T, FormatError> {
    serde_json::from_str(text(value, key)?).map_err(|error| malformed(format!("{key}: {error}")))
}

fn parse_seal(seal: &[u8]) -> Result<(u64, u32), FormatError> {
    let wrong = || malformed("lakebed.footer is not 16 digits, a dash and 8 digits");
    let text = std::str::from_utf8(seal).map_err(|_| wrong())?;
    let (position, checksum) = text.split_once('-').ok_or_else(wrong)?;
    let pages_end = u64::from_str_radix(position, 16).map_err(|_| wrong())?;
    if format!("{pages_end:016x}") != position {
        return Err(wrong());
    }
    Ok((pages_end, parse_digits(checksum.as_bytes())?))
}

/// Gives every page its place: they tile the object from its magic to `pages_end`, and every column has all rows.
fn place_pages(named: Vec<ColumnPagesV1>, pages_end: u64) -> Result<(Vec<Vec<PlacedPage>>, u64), FormatError> {
    let mut start = MAGIC.len() as u64;
    let mut columns = Vec::with_capacity(COLUMNS.len());
    let mut rows = None;
    let mut entries_of_keys = None;
    if !named.is_empty() && !named.iter().map(|column| &*column.column).eq(COLUMNS.map(|c| c.path().join("."))) {
        return Err(malformed("lakebed.pages has other columns"));
    }
    let value_of_headers = Column::HeaderValue.path().join(".");
    for column in named {
        let mut first_row = 0_u64;
        let mut placed = Vec::with_capacity(column.pages.len());
        for (bytes, header_bytes, rows, values, crc32c) in column.pages {
            let entries_fit = values >= rows && (values - rows <= bytes / 4 || column.column == value_of_headers);
            if header_bytes > bytes || rows == 0 || rows as usize > PAGE_ROWS_MAX || !entries_fit {
                return Err(malformed(format!("a page of {bytes} bytes and {rows} rows in {}", column.column)));
            }
            let page = Page { bytes, header_bytes, rows, values, crc32c };
            placed.push(PlacedPage { page, start, first_row });
            start += u64::from(bytes);
            first_row += u64::from(rows);
        }
        if *rows.get_or_insert(first_row) != first_row {
            return Err(malformed(format!("{} has {first_row} rows, others have not", column.column)));
        }
        let entries = placed.iter().map(|placed| u64::from(placed.page.values)).sum::<u64>();
        let expected = match COLUMNS[columns.len()] {
            // Null values take less than a byte, so that only the keys bound how many headers there can be.
            Column::HeaderKey => *entries_of_keys.insert(entries),
            Column::HeaderValue => entries_of_keys.unwrap_or(0),
            _ => first_row,
        };
        if entries != expected {
            return Err(malformed(format!("{} has {entries} entries, not {expected}", column.column)));
        }
        columns.push(placed);
    }
    if start != pages_end {
        return Err(malformed(format!("pages end at {start}, not at {pages_end}")));
    }
    columns.resize(COLUMNS.len(), Vec::new());
    Ok((columns, rows.unwrap_or(0)))
}
