//! Runs with gaps in their offsets: where their rows are found.
//!
//! The rows of such a run are cut into stretches at marks, which the footer lists: an offset is looked for in one stretch, which is read whole.

use std::ops::Range;

use lakebed_model::{Offset, PartitionIndex};

use super::{GapsV1, RunV1, Stretch};

/// A mark stands after so many bytes of keys, values and headers: what a seek to one offset decodes.
const STRETCH_BYTES: usize = 256 * 1024;
/// Or after so many rows.
const STRETCH_ROWS: u64 = 4096;

/// The marks of a run in the making.
#[derive(Debug, Default)]
pub(super) struct Marks {
    marks: Vec<(u64, u64)>,
    bytes: usize,
}

impl Marks {
    /// Takes note of the next row.
    pub(super) fn see(&mut self, row: u64, offset: Offset, bytes: usize) {
        let is_full = |(begin, _): &(u64, u64)| row - begin >= STRETCH_ROWS || self.bytes >= STRETCH_BYTES;
        if self.marks.last().is_none_or(is_full) {
            self.marks.push((row, offset.get()));
            self.bytes = 0;
        }
        self.bytes += bytes;
    }

    pub(super) fn into_gaps(self, span: u64) -> GapsV1 {
        GapsV1 { span, marks: self.marks }
    }
}

impl RunV1 {
    /// How many offsets it covers.
    pub(super) fn span(&self) -> u64 {
        self.gaps.as_ref().map_or(self.rows, |gaps| gaps.span)
    }

    /// Whether rows from an offset on follow its last without a gap, and nothing is known of it but its rows.
    pub(super) fn ends_at(&self, partition: PartitionIndex, offset: Offset) -> bool {
        let plain = self.gaps.is_none() && self.cleaned.is_empty();
        plain && (self.partition, self.base_offset + self.rows) == (partition.get(), offset.get())
    }

    /// What it takes in memory, about.
    pub(super) fn memory_bytes(&self) -> usize {
        let marks = self.gaps.as_ref().map_or(0, |gaps| gaps.marks.len());
        size_of::<Self>() + (marks + self.cleaned.len()) * size_of::<(u64, u64)>()
    }

    /// Whether it can be as it says: marks ascend, beginning with the first row, and leave an offset for each row.
    pub(super) fn is_sound(&self) -> bool {
        let Some(end) = self.base_offset.checked_add(self.span()).filter(|end| *end <= i64::MAX as u64) else {
            return false;
        };
        let ascends = self.cleaned.is_sorted() && self.cleaned.iter().all(|(to, _)| *to <= end);
        let Some(GapsV1 { span, marks }) = &self.gaps else { return ascends };
        let begins = marks.first().is_some_and(|(row, offset)| *row == 0 && *offset >= self.base_offset);
        let behind = [(self.rows, end)];
        let pairs = marks.iter().zip(marks.iter().skip(1).chain(&behind));
        let fits = |((row, offset), (next_row, next)): (&(u64, u64), &(u64, u64))| {
            row < next_row && offset < next && next - offset >= next_row - row
        };
        ascends && begins && *span > self.rows && pairs.into_iter().all(fits)
    }

    /// Its stretches from the one that covers `offset` on.
    pub(super) fn stretches(&self, first_row: u64, offset: Offset) -> Vec<Stretch> {
        let dense = [(0, self.base_offset)];
        let marks = self.gaps.as_ref().map_or(&dense[..], |gaps| &gaps.marks);
        let first = marks.partition_point(|(_, begin)| *begin <= offset.get()).saturating_sub(1);
        (first..marks.len()).map(|at| self.stretch(marks, first_row, at)).collect()
    }

    fn stretch(&self, marks: &[(u64, u64)], first_row: u64, at: usize) -> Stretch {
        let (row, begin) = marks[at];
        let (next_row, next) = marks.get(at + 1).copied().unwrap_or((self.rows, self.base_offset + self.span()));
        // What stands before the first row belongs to its stretch.
        let begin = if at == 0 { self.base_offset } else { begin };
        let rows: Range<u64> = first_row + row..first_row + next_row;
        Stretch { rows, offsets: Offset::new(begin)..Offset::new(next) }
    }
}
