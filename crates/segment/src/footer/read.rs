//! Decoding rows from the pages that hold them.

use std::ops::Range;

use bytes::Bytes;

use super::{Footer, PlacedPage};
use crate::batch::TimestampType;
use crate::body::NO_TIMESTAMP_MS;
use crate::checksum::crc32c;
use crate::error::{FormatError, malformed};
use crate::levels::read_levels;
use crate::row_set::{RowSet, Span};
use crate::schema::{COLUMNS, Column};

/// A verified page: what follows its header, and which of its rows are wanted.
struct Opened {
    payload: Bytes,
    rows: Range<usize>,
    rows_in_page: usize,
    values: usize,
}

pub(super) fn read(footer: &Footer, rows: Range<u64>, parts: &[(u64, Bytes)]) -> Result<RowSet, FormatError> {
    let open = |column: Column| {
        let pages = footer.pages(column as usize, &rows);
        pages.iter().map(|page| open_page(column, page, &rows, parts)).collect::<Result<Vec<Opened>, FormatError>>()
    };
    let ingest_times = open(Column::IngestTimestamp)?;
    // Every row has 8 bytes here: once they are seen to be there, the number of rows is believed.
    for page in &ingest_times {
        let _ = required::<8>(page)?;
    }
    let count = (rows.end - rows.start) as usize;
    let mut set = RowSet::with_capacity(count);
    for page in ingest_times {
        let values = required::<8>(&page)?.map(|value| millis(i64::from_le_bytes(value)));
        extend(&mut set.ingest_times_ms, &page, values)?;
    }
    for page in open(Column::TimestampType)? {
        let values = required::<4>(&page)?.map(|value| match i32::from_le_bytes(value) {
            0 => Ok(TimestampType::Create),
            1 => Ok(TimestampType::LogAppend),
            other => Err(malformed(format!("timestamp type {other}"))),
        });
        extend(&mut set.timestamp_types, &page, values)?;
    }
    for page in open(Column::Timestamp)? {
        read_timestamps(&page, &mut set.timestamps_ms)?;
    }
    for page in open(Column::Key)? {
        let buffer = hold(&mut set.buffers, &page)?;
        read_binaries(&page, buffer, &mut set.keys)?;
    }
    for page in open(Column::Value)? {
        let buffer = hold(&mut set.buffers, &page)?;
        read_binaries(&page, buffer, &mut set.values)?;
    }
    read_headers(&mut set, &open(Column::HeaderKey)?, &open(Column::HeaderValue)?)?;
    let lengths = [set.timestamps_ms.len(), set.timestamp_types.len(), set.ingest_times_ms.len(), set.keys.len()];
    if lengths.iter().any(|length| *length != count) || set.values.len() != count || set.headers_end.len() != count {
        return Err(malformed("columns have different numbers of rows"));
    }
    Ok(set)
}

/// Finds a page in the parts that were handed in, and verifies it.
fn open_page(
    column: Column,
    placed: &PlacedPage,
    rows: &Range<u64>,
    parts: &[(u64, Bytes)],
) -> Result<Opened, FormatError> {
    let bytes = placed.bytes();
    let holds = |(start, part): &&(u64, Bytes)| *start <= bytes.start && bytes.end - *start <= part.len() as u64;
    let missing = FormatError::Missing { start: bytes.start, end: bytes.end };
    let (start, part) = parts.iter().find(holds).ok_or(missing)?;
    let whole = part.slice((bytes.start - start) as usize..(bytes.end - start) as usize);
    let found = crc32c(&whole);
    if found != placed.page.crc32c {
        let what = format!("the page of {} at {}", COLUMNS[column as usize].path().join("."), bytes.start);
        return Err(FormatError::Checksum { what, expected: placed.page.crc32c, found });
    }
    let first = rows.start.max(placed.first_row) - placed.first_row;
    let end = rows.end.min(placed.rows().end) - placed.first_row;
    Ok(Opened {
        payload: whole.slice(placed.page.header_bytes as usize..),
        rows: first as usize..end as usize,
        rows_in_page: placed.page.rows as usize,
        values: placed.page.values as usize,
    })
}

fn extend<T>(
    out: &mut Vec<T>,
    page: &Opened,
    values: impl Iterator<Item = Result<T, FormatError>>,
) -> Result<(), FormatError> {
    out.reserve(page.rows.len());
    for value in values.skip(page.rows.start).take(page.rows.len()) {
        out.push(value?);
    }
    Ok(())
}

fn required<const N: usize>(page: &Opened) -> Result<impl Iterator<Item = [u8; N]> + '_, FormatError> {
    let (values, rest) = page.payload.as_chunks::<N>();
    if values.len() != page.rows_in_page || !rest.is_empty() {
        return Err(malformed("a page has other bytes than its rows need"));
    }
    Ok(values.iter().copied())
}

fn millis(micros: i64) -> Result<i64, FormatError> {
    if micros >= 0 && micros % 1000 == 0 {
        Ok(micros / 1000)
    } else {
        Err(malformed(format!("{micros} µs is no timestamp in whole milliseconds")))
    }
}

/// The levels of a flat optional column. What they take is bounded: a page has at most [`crate::body::PAGE_ROWS_MAX`] rows.
fn optional_levels(page: &Opened) -> Result<(Vec<u8>, &[u8]), FormatError> {
    if page.values != page.rows_in_page {
        return Err(malformed("a flat page has other entries than rows"));
    }
    read_levels(&page.payload, 1, page.rows_in_page)
}

fn read_timestamps(page: &Opened, out: &mut Vec<i64>) -> Result<(), FormatError> {
    let (levels, values) = optional_levels(page)?;
    let (values, rest) = values.as_chunks::<8>();
    let defined = levels.iter().filter(|level| **level == 1).count();
    if values.len() != defined || !rest.is_empty() {
        return Err(malformed("a page has other bytes than its rows need"));
    }
    let mut values = values.iter();
    let all = levels.iter().map(|level| match level {
        0 => Ok(NO_TIMESTAMP_MS),
        _ => millis(i64::from_le_bytes(*values.next().expect("values were counted"))),
    });
    extend(out, page, all)
}

fn hold(buffers: &mut Vec<Bytes>, page: &Opened) -> Result<u32, FormatError> {
    buffers.push(page.payload.clone());
    u32::try_from(buffers.len() - 1).map_err(|_| malformed("too many pages"))
}

/// Walks the binaries behind the levels of a page.
struct Binaries<'a> {
    payload: &'a [u8],
    position: usize,
    buffer: u32,
}

impl Binaries<'_> {
    fn next(&mut self) -> Result<Span, FormatError> {
        let cut = || malformed("a binary ends beyond its page");
        let rest = self.payload.get(self.position..).ok_or_else(cut)?;
        let (length, rest) = rest.split_first_chunk::<4>().ok_or_else(cut)?;
        let length = u32::from_le_bytes(*length);
        let span_length = i32::try_from(length).ok().filter(|_| length as usize <= rest.len()).ok_or_else(cut)?;
        let start = self.position + 4;
        self.position = start + length as usize;
        Ok(Span { buffer: self.buffer, start: start as u32, length: span_length })
    }

    fn finish(self) -> Result<(), FormatError> {
        if self.position == self.payload.len() {
            Ok(())
        } else {
            Err(malformed("bytes after the last value of a page"))
        }
    }
}

fn read_binaries(page: &Opened, buffer: u32, out: &mut Vec<Span>) -> Result<(), FormatError> {
    let (levels, rest) = optional_levels(page)?;
    let mut binaries = Binaries { payload: &page.payload, position: page.payload.len() - rest.len(), buffer };
    out.reserve(page.rows.len());
    for (row, level) in levels.iter().enumerate() {
        let span = if *level == 1 { binaries.next()? } else { Span::NULL };
        if page.rows.contains(&row) {
            out.push(span);
        }
    }
    binaries.finish()
}

/// Walks a page of headers, and tells `entry` of each entry of the wanted rows: whether a row begins with it, and where the header's
/// key or value is; `None` for a row without headers.
fn read_header_page(
    page: &Opened,
    buffer: u32,
    of_values: bool,
    mut entry: impl FnMut(bool, Option<Span>) -> Result<(), FormatError>,
) -> Result<(), FormatError> {
    let defined_max = if of_values { 3 } else { 2 };
    let (repeated, rest) = read_levels(&page.payload, 1, page.values)?;
    let (defined, rest) = read_levels(rest, defined_max, page.values)?;
    let mut binaries = Binaries { payload: &page.payload, position: page.payload.len() - rest.len(), buffer };
    let mut row = 0_usize;
    for (index, (repeated, defined)) in repeated.iter().zip(&defined).enumerate() {
        let begins = *repeated == 0;
        row += usize::from(begins && index > 0);
        let header = match *defined {
            0 if begins => None,
            present if present == defined_max => Some(binaries.next()?),
            2 => Some(Span::NULL),
            _ => return Err(contradiction()),
        };
        if index == 0 && !begins {
            return Err(contradiction());
        }
        if page.rows.contains(&row) {
            entry(begins, header)?;
        }
    }
    if row + 1 != page.rows_in_page {
        return Err(malformed("a page of headers has other rows"));
    }
    binaries.finish()
}

fn contradiction() -> FormatError {
    malformed("levels of headers contradict one another")
}

fn read_headers(set: &mut RowSet, keys: &[Opened], values: &[Opened]) -> Result<(), FormatError> {
    let RowSet { buffers, headers_end, headers, .. } = set;
    // The index bounds entries by the bytes of their keys.
    headers.reserve_exact(keys.iter().map(|page| page.values).sum());
    for page in keys {
        let buffer = hold(buffers, page)?;
        read_header_page(page, buffer, false, |begins, key| {
            if begins {
                headers_end.push(headers.len() as u32);
            }
            if let Some(key) = key {
                let start = key.start as usize;
                let name = &page.payload[start..start + usize::try_from(key.length).map_err(|_| contradiction())?];
                // A record batch holds no other keys.
                std::str::from_utf8(name).map_err(|_| malformed("a header key is not UTF-8"))?;
                headers.push((key, Span::NULL));
                *headers_end.last_mut().ok_or_else(contradiction)? += 1;
            }
            Ok(())
        })?;
    }
    let (mut row, mut next) = (0_usize, 0_usize);
    for page in values {
        let buffer = hold(buffers, page)?;
        read_header_page(page, buffer, true, |begins, value| {
            if begins {
                let expected = if row == 0 { 0 } else { headers_end[row - 1] };
                if expected as usize != next {
                    return Err(contradiction());
                }
                row += 1;
            }
            if let Some(value) = value {
                headers.get_mut(next).ok_or_else(contradiction)?.1 = value;
                next += 1;
            }
            Ok(())
        })?;
    }
    if row == headers_end.len() && next == headers.len() { Ok(()) } else { Err(contradiction()) }
}
