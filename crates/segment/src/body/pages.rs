//! Writing the pages of one column.

use std::ops::Range;

use super::{NO_TIMESTAMP_MS, PAGE_BYTES, PAGE_ROWS_MAX, Page, SealError, append_page, close_page};
use crate::levels::write_levels;
use crate::rows::{Piece, RowSource};

/// Bytes of a row beside its key, value and headers: the fixed columns, three lengths, levels.
const ROW_BYTES: usize = 56;
/// Bytes of the footer that a run takes, and a batch with an outcome of its own.
const PIECE_BYTES: usize = 128;
/// A page's payload counts its bytes in 31 bits; levels need less than this reserve.
const PAYLOAD_MAX: usize = i32::MAX as usize - (1 << 20);

/// All rows of a body, numbered from 0 over all pieces.
pub(super) struct Layout<'a, S> {
    pieces: &'a [Piece<'a, S>],
    /// The number of each piece's first row, and that of the end.
    starts: Vec<u64>,
}

impl<'a, S: RowSource> Layout<'a, S> {
    pub(super) fn new(pieces: &'a [Piece<'a, S>]) -> Self {
        let mut starts = Vec::with_capacity(pieces.len() + 1);
        let mut next = 0_u64;
        for piece in pieces {
            starts.push(next);
            next += piece.rows.len() as u64;
        }
        starts.push(next);
        Self { pieces, starts }
    }

    pub(super) fn rows(&self) -> u64 {
        self.starts[self.pieces.len()]
    }

    /// Enough bytes for the body, and usually for the footer behind it, so that it is never moved.
    pub(super) fn capacity(&self) -> usize {
        let mut bytes = self.rows() as usize * ROW_BYTES + self.pieces.len() * PIECE_BYTES + 8192;
        for (piece, rows) in self.within(0..self.rows()) {
            for row in rows {
                let length = |bytes: Option<&[u8]>| bytes.map_or(0, <[u8]>::len);
                let headers = piece.source.headers(row).map(|(key, value)| key.len() + length(value) + 10);
                bytes += length(piece.source.key(row)) + length(piece.source.value(row)) + headers.sum::<usize>();
            }
        }
        bytes + bytes / 500
    }

    /// The parts of the pieces that hold `rows`.
    fn within(&self, rows: Range<u64>) -> impl Iterator<Item = (&'a Piece<'a, S>, Range<usize>)> + Clone {
        let first = self.starts.partition_point(|start| *start <= rows.start).saturating_sub(1);
        let pieces = self.pieces.iter().zip(&self.starts).skip(first);
        pieces.take_while(move |(_, start)| **start < rows.end).map(move |(piece, start)| {
            let from = rows.start.max(*start) - start;
            let until = rows.end.min(start + piece.rows.len() as u64) - start;
            (piece, piece.rows.start + from as usize..piece.rows.start + until as usize)
        })
    }

    /// Every row of `rows` with its piece.
    fn each(&self, rows: Range<u64>) -> impl Iterator<Item = (&'a Piece<'a, S>, usize)> + Clone {
        self.within(rows).flat_map(|(piece, rows)| rows.map(move |row| (piece, row)))
    }
}

/// Writes one column's pages.
pub(super) struct ColumnWriter<'a, S> {
    out: &'a mut Vec<u8>,
    layout: &'a Layout<'a, S>,
    levels: Vec<u8>,
    pages: Vec<Page>,
}

/// What a page will hold.
struct Plan {
    rows: Range<u64>,
    /// Bytes of its values.
    bytes: usize,
    /// Entries of levels.
    values: usize,
}

impl<'a, S: RowSource> ColumnWriter<'a, S> {
    pub(super) fn new(out: &'a mut Vec<u8>, layout: &'a Layout<'a, S>) -> Self {
        Self { out, layout, levels: Vec::new(), pages: Vec::new() }
    }

    pub(super) fn finish(self) -> Vec<Page> {
        self.pages
    }

    /// Writes a column that has a value of `N` bytes in every row.
    pub(super) fn required<const N: usize>(&mut self, value: impl Fn(&Piece<'_, S>, usize) -> [u8; N]) {
        let mut start = 0;
        while start < self.layout.rows() {
            let rows = start..self.layout.rows().min(start + PAGE_ROWS_MAX as u64);
            start = rows.end;
            let count = (rows.end - rows.start) as usize;
            let (page, begin) = append_page(self.out, rows.clone(), count, count * N);
            for (piece, rows) in self.layout.within(rows) {
                for row in rows {
                    self.out.extend_from_slice(&value(piece, row));
                }
            }
            self.pages.push(close_page(self.out, page, begin));
        }
    }

    /// Writes a column of optional timestamps.
    pub(super) fn timestamps(&mut self, value: impl Fn(&S, usize) -> i64 + Copy) -> Result<(), SealError> {
        let size = |source: &S, row| if value(source, row) == NO_TIMESTAMP_MS { None } else { Some(8) };
        self.optional(size, |source, row, out| {
            let time_ms = value(source, row);
            if time_ms != NO_TIMESTAMP_MS {
                out.extend_from_slice(&(time_ms * 1000).to_le_bytes());
            }
        })
    }

    /// Writes a column of optional binaries.
    pub(super) fn binaries(&mut self, value: impl Fn(&S, usize) -> Option<&[u8]> + Copy) -> Result<(), SealError> {
        let size = |source: &S, row| value(source, row).map(|bytes| bytes.len() + 4);
        self.optional(size, |source, row, out| push_binary(out, value(source, row)))
    }

    fn optional(
        &mut self,
        size: impl Fn(&S, usize) -> Option<usize> + Copy,
        write: impl Fn(&S, usize, &mut Vec<u8>),
    ) -> Result<(), SealError> {
        let mut start = 0;
        while start < self.layout.rows() {
            let plan = self.plan(start, |source, row| (size(source, row).unwrap_or(0), 1))?;
            start = plan.rows.end;
            self.levels.clear();
            let each = self.layout.each(plan.rows.clone());
            let defined = each.map(|(piece, row)| u8::from(size(piece.source, row).is_some()));
            write_levels(&mut self.levels, 1, plan.values, defined);
            self.write(&plan, &write);
        }
        Ok(())
    }

    /// Writes the keys of the headers, or their values.
    pub(super) fn headers(&mut self, of_values: bool) -> Result<(), SealError> {
        let mut start = 0;
        while start < self.layout.rows() {
            let plan = self.plan(start, |source, row| {
                let headers = source.headers(row);
                let count = headers.len().max(1);
                let part = |(key, value)| if of_values { value } else { Some(key) };
                (headers.map(|header| part(header).map_or(0, |bytes: &[u8]| bytes.len() + 4)).sum(), count)
            })?;
            start = plan.rows.end;
            self.levels.clear();
            let each = self.layout.each(plan.rows.clone());
            let repeated = each
                .clone()
                .flat_map(|(piece, row)| (0..piece.source.headers(row).len().max(1)).map(|index| u8::from(index > 0)));
            write_levels(&mut self.levels, 1, plan.values, repeated);
            let defined = each.flat_map(|(piece, row)| {
                let headers = piece.source.headers(row);
                let none = if headers.len() == 0 { Some(0) } else { None };
                none.into_iter().chain(headers.map(move |(_, value)| 2 + u8::from(of_values && value.is_some())))
            });
            write_levels(&mut self.levels, 2, plan.values, defined);
            self.write(&plan, |source, row, out| {
                for (key, value) in source.headers(row) {
                    push_binary(out, if of_values { value } else { Some(key) });
                }
            });
        }
        Ok(())
    }

    /// Plans the page that begins with row `start`. `size` gives a row's bytes and entries.
    fn plan(&self, start: u64, size: impl Fn(&S, usize) -> (usize, usize)) -> Result<Plan, SealError> {
        let mut plan = Plan { rows: start..start, bytes: 0, values: 0 };
        let end = self.layout.rows().min(start + PAGE_ROWS_MAX as u64);
        for (piece, row) in self.layout.each(start..end) {
            let (bytes, values) = size(piece.source, row);
            if bytes > PAYLOAD_MAX || values > PAYLOAD_MAX / 8 {
                return Err(SealError::RowTooLarge { bytes: bytes as u64 });
            }
            if plan.rows.end > start && (plan.bytes + bytes > PAGE_BYTES || plan.values + values > PAGE_BYTES) {
                break;
            }
            plan.rows.end += 1;
            plan.bytes += bytes;
            plan.values += values;
        }
        Ok(plan)
    }

    fn write(&mut self, plan: &Plan, write: impl Fn(&S, usize, &mut Vec<u8>)) {
        let payload = self.levels.len() + plan.bytes;
        let (page, begin) = append_page(self.out, plan.rows.clone(), plan.values, payload);
        self.out.extend_from_slice(&self.levels);
        for (piece, rows) in self.layout.within(plan.rows.clone()) {
            for row in rows {
                write(piece.source, row, self.out);
            }
        }
        self.pages.push(close_page(self.out, page, begin));
    }
}

#[inline]
fn push_binary(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    if let Some(bytes) = bytes {
        out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
        out.extend_from_slice(bytes);
    }
}
