//! A table file as Iceberg's metadata describes it, read from the file's own footer.
//!
//! Bounds are those of the row groups; texts and bytes are cut to [`BOUND_BYTES`], the upper ones to something larger than the whole
//! (Iceberg spec, appendix D, "Binary single-value serialization").

use std::collections::BTreeMap;

use parquet::basic::{ConvertedType, Type};
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader, RowGroupMetaData};
use parquet::file::statistics::Statistics;

use crate::schema;
use crate::shown::PartitionBy;
use crate::standing::Extent;

/// Most bytes of a bound of a text or of bytes: Iceberg's own default, 16.
const BOUND_BYTES: usize = 16;
/// Bytes behind a footer: its length, and the magic word.
pub(crate) const FOOTER_TAIL_BYTES: u64 = 8;

/// What is kept of a column of a file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Column {
    /// Bytes in the file, compressed.
    pub(crate) size_bytes: u64,
    /// Values, nulls among them; `None` within lists.
    pub(crate) values: Option<u64>,
    /// Nulls.
    pub(crate) nulls: Option<u64>,
    /// No value is smaller.
    pub(crate) lower: Option<Vec<u8>>,
    /// No value is larger.
    pub(crate) upper: Option<Vec<u8>>,
}

/// A file of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DataFile {
    /// Its URI.
    pub(crate) path: String,
    /// The partition spec that it was added under.
    pub(crate) by: PartitionBy,
    /// Its partition; `None` too for the partition of null.
    pub(crate) partition: Option<i32>,
    pub(crate) rows: u64,
    pub(crate) size_bytes: u64,
    /// By field id.
    pub(crate) columns: BTreeMap<i32, Column>,
    /// Where its row groups begin, ascending.
    pub(crate) split_offsets: Vec<i64>,
    /// Whether each row group says that it is ordered by partition and offset.
    pub(crate) is_sorted: bool,
}

impl DataFile {
    /// Between which partitions and offsets its rows lie, if that is told.
    pub(crate) fn bounds(&self) -> Option<Extent> {
        let number = |bytes: &Vec<u8>| match bytes.len() {
            4 => u64::try_from(i32::from_le_bytes(bytes[..].try_into().ok()?)).ok(),
            8 => u64::try_from(i64::from_le_bytes(bytes[..].try_into().ok()?)).ok(),
            _ => None,
        };
        let of = |id: i32| {
            let column = self.columns.get(&id)?;
            Some((number(column.lower.as_ref()?)?, number(column.upper.as_ref()?)?))
        };
        let (first, last) = of(schema::PARTITION)?;
        Some(Extent {
            partitions: (u32::try_from(first).ok()?, u32::try_from(last).ok()?),
            offsets: of(schema::OFFSET)?,
        })
    }
}

/// A file that is not what the state says, or not one of ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FileError {
    /// It has no readable footer.
    #[error("its footer can't be read: {0}")]
    Footer(String),
    /// Its size or its rows are others.
    #[error("it has {found} {what}, and not {expected}")]
    Counts {
        /// Bytes or rows.
        what: &'static str,
        /// As the state says.
        expected: u64,
        /// As they are.
        found: u64,
    },
    /// A column that is needed is missing, or has another type.
    #[error("its column with the field id {id} is missing or has another type")]
    Column {
        /// Which.
        id: i32,
    },
}

/// The footer of a file, if `suffix` has it whole; else how long a suffix has it.
///
/// # Errors
/// [`FileError::Footer`]
pub(crate) fn parse_footer(suffix: &[u8], size_bytes: u64) -> Result<Result<ParquetMetaData, u64>, FileError> {
    let tail = suffix
        .len()
        .checked_sub(FOOTER_TAIL_BYTES as usize)
        .ok_or_else(|| FileError::Footer("the file is too small".to_owned()))?;
    let [a, b, c, d, magic @ ..] = &suffix[tail..] else { unreachable!("eight bytes were cut off") };
    if magic != b"PAR1" {
        return Err(FileError::Footer("it does not end as Parquet does".to_owned()));
    }
    let length = u64::from(u32::from_le_bytes([*a, *b, *c, *d]));
    let needed = length + FOOTER_TAIL_BYTES;
    if needed > size_bytes {
        return Err(FileError::Footer(format!("it claims {length} bytes")));
    }
    match tail.checked_sub(length as usize) {
        None => Ok(Err(needed)),
        Some(start) => match ParquetMetaDataReader::decode_metadata(&suffix[start..tail]) {
            Ok(footer) => Ok(Ok(footer)),
            Err(error) => Err(FileError::Footer(error.to_string())),
        },
    }
}

/// Describes a file by its footer.
///
/// # Errors
/// [`FileError`] if it is not as large as the state says, or lacks a column that every file has.
pub(crate) fn describe(
    path: String,
    by: PartitionBy,
    size_bytes: u64,
    rows: u64,
    footer: &ParquetMetaData,
) -> Result<DataFile, FileError> {
    let found = u64::try_from(footer.file_metadata().num_rows()).unwrap_or(0);
    if found < rows {
        return Err(FileError::Counts { what: "rows", expected: rows, found });
    }
    let ids = field_ids(footer);
    for (id, kind) in
        [(schema::PARTITION, Type::INT32), (schema::OFFSET, Type::INT64), (schema::INGEST_TIMESTAMP, Type::INT64)]
    {
        let column = ids.iter().position(|found| *found == Some(id));
        if column.is_none_or(|column| footer.file_metadata().schema_descr().column(column).physical_type() != kind) {
            return Err(FileError::Column { id });
        }
    }
    let columns = ids
        .iter()
        .enumerate()
        .filter_map(|(index, id)| Some((*id.as_ref()?, column(footer.row_groups(), index, (*id)?))));
    let columns: BTreeMap<i32, Column> = columns.collect();
    let mut split_offsets: Vec<i64> = footer.row_groups().iter().filter_map(begin).collect();
    split_offsets.sort_unstable();
    let is_sorted = footer.row_groups().iter().all(|group| is_sorted(group, &ids));
    let mut file = DataFile { path, by, partition: None, rows: found, size_bytes, columns, split_offsets, is_sorted };
    match partition_of(by, file.columns.get(&schema::INGEST_TIMESTAMP)) {
        Some(partition) => file.partition = partition,
        // Every reader finds its rows all the same, and prunes it by its bounds.
        None => file.by = PartitionBy::Nothing,
    }
    Ok(file)
}

/// The field id of each leaf column.
fn field_ids(footer: &ParquetMetaData) -> Vec<Option<i32>> {
    let columns = footer.file_metadata().schema_descr().columns().iter();
    let id = |info: &parquet::schema::types::BasicTypeInfo| info.has_id().then(|| info.id());
    columns.map(|column| id(column.self_type().get_basic_info())).collect()
}

/// Where a row group begins.
fn begin(group: &RowGroupMetaData) -> Option<i64> {
    let begins = group.columns().iter().map(|column| {
        let data = column.data_page_offset();
        column.dictionary_page_offset().map_or(data, |dictionary| dictionary.min(data))
    });
    begins.min()
}

fn is_sorted(group: &RowGroupMetaData, ids: &[Option<i32>]) -> bool {
    let Some(declared) = group.sorting_columns() else { return false };
    let is = |position: usize, id: i32| {
        declared.get(position).is_some_and(|sorting| {
            !sorting.descending
                && usize::try_from(sorting.column_idx).is_ok_and(|index| ids.get(index) == Some(&Some(id)))
        })
    };
    is(0, schema::PARTITION) && is(1, schema::OFFSET)
}

/// What the row groups together say of a column.
fn column(groups: &[RowGroupMetaData], index: usize, id: i32) -> Column {
    let chunks = || groups.iter().map(|group| group.column(index));
    let size_bytes = chunks().map(|chunk| u64::try_from(chunk.compressed_size()).unwrap_or(0)).sum();
    if !schema::TOP_COLUMNS.contains(&id) {
        return Column { size_bytes, ..Column::default() };
    }
    let values = chunks().map(|chunk| u64::try_from(chunk.num_values()).unwrap_or(0)).sum();
    let nulls: Option<u64> = chunks().map(|chunk| chunk.statistics()?.null_count_opt()).sum();
    // A row group of nulls has no bounds, and needs none.
    let bounded = chunks().filter(|chunk| {
        let nulls = chunk.statistics().and_then(Statistics::null_count_opt);
        nulls.is_none_or(|nulls| nulls != u64::try_from(chunk.num_values()).unwrap_or(0))
    });
    let bounds: Option<Vec<Bounds>> = bounded.map(|chunk| Bounds::of(chunk.statistics()?)).collect();
    let bounds = bounds.and_then(|bounds| bounds.into_iter().reduce(Bounds::with));
    let is_text = groups.first().is_some_and(|group| {
        matches!(group.column(index).column_descr().converted_type(), ConvertedType::UTF8 | ConvertedType::JSON)
    });
    let (lower, upper) = bounds.map_or((None, None), |bounds| bounds.serialized(is_text));
    Column { size_bytes, values: Some(values), nulls, lower, upper }
}

/// The smallest and the largest value.
enum Bounds {
    Int(i32, i32),
    Long(i64, i64),
    Bytes(Vec<u8>, Vec<u8>),
}

impl Bounds {
    fn of(statistics: &Statistics) -> Option<Self> {
        match statistics {
            Statistics::Int32(of) => Some(Self::Int(*of.min_opt()?, *of.max_opt()?)),
            Statistics::Int64(of) => Some(Self::Long(*of.min_opt()?, *of.max_opt()?)),
            // SUBTLE: old writers compared bytes as signed numbers, and say so by the fields that they use.
            Statistics::ByteArray(of) if !statistics.is_min_max_deprecated() => {
                Some(Self::Bytes(of.min_opt()?.data().to_vec(), of.max_opt()?.data().to_vec()))
            }
            _ => None,
        }
    }

    fn with(self, other: Self) -> Self {
        match (self, other) {
            (Self::Int(low, high), Self::Int(lower, higher)) => Self::Int(low.min(lower), high.max(higher)),
            (Self::Long(low, high), Self::Long(lower, higher)) => Self::Long(low.min(lower), high.max(higher)),
            (Self::Bytes(low, high), Self::Bytes(lower, higher)) => Self::Bytes(low.min(lower), high.max(higher)),
            (this, _) => this,
        }
    }

    fn serialized(self, is_text: bool) -> (Option<Vec<u8>>, Option<Vec<u8>>) {
        match self {
            Self::Int(low, high) => (Some(low.to_le_bytes().to_vec()), Some(high.to_le_bytes().to_vec())),
            Self::Long(low, high) => (Some(low.to_le_bytes().to_vec()), Some(high.to_le_bytes().to_vec())),
            Self::Bytes(low, high) if is_text => (text_below(&low), text_above(&high)),
            Self::Bytes(low, high) => (Some(low[..low.len().min(BOUND_BYTES)].to_vec()), bytes_above(&high)),
        }
    }
}

/// The first bytes, or if that is not all, the smallest that is above everything that begins so.
fn bytes_above(bytes: &[u8]) -> Option<Vec<u8>> {
    if bytes.len() <= BOUND_BYTES {
        return Some(bytes.to_vec());
    }
    let mut above = bytes[..BOUND_BYTES].to_vec();
    while let Some(last) = above.pop() {
        if last < u8::MAX {
            above.push(last + 1);
            return Some(above);
        }
    }
    None
}

/// A text may have been cut by the writer of the file within a character.
fn text_below(bytes: &[u8]) -> Option<Vec<u8>> {
    let cut = &bytes[..bytes.len().min(BOUND_BYTES)];
    let whole = cut.utf8_chunks().next().map_or("", |chunk| chunk.valid());
    Some(whole.as_bytes().to_vec())
}

fn text_above(bytes: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(bytes).ok()?;
    if text.len() <= BOUND_BYTES {
        return Some(bytes.to_vec());
    }
    let mut above: Vec<char> = Vec::new();
    let mut length = 0;
    for character in text.chars() {
        length += character.len_utf8();
        if length > BOUND_BYTES {
            break;
        }
        above.push(character);
    }
    while let Some(last) = above.pop() {
        // The code points between the surrogates are no characters.
        let next = (last as u32 + 1..=char::MAX as u32).find_map(char::from_u32);
        if let Some(next) = next {
            above.push(next);
            return Some(above.into_iter().collect::<String>().into_bytes());
        }
    }
    None
}

/// The one partition that a file lies in; `None` if it lies in several, or nothing tells.
fn partition_of(by: PartitionBy, timestamps: Option<&Column>) -> Option<Option<i32>> {
    if by == PartitionBy::Nothing {
        return Some(None);
    }
    let column = timestamps?;
    match (column.nulls?, column.values?) {
        (nulls, values) if nulls == values => Some(None),
        (0, _) => {
            let micros = |bound: &Option<Vec<u8>>| Some(i64::from_le_bytes(bound.as_deref()?.try_into().ok()?));
            let lower = by.value_of(micros(&column.lower)?)?;
            let upper = by.value_of(micros(&column.upper)?)?;
            (lower == upper).then_some(Some(lower))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_bound_is_still_a_bound() {
        let long = [b'a'; 40];
        assert_eq!(bytes_above(b"short"), Some(b"short".to_vec()));
        let above = bytes_above(&long).unwrap();
        assert!(above.as_slice() > &long[..] && above.len() == BOUND_BYTES);
        let mut high = [0xff; 40];
        assert_eq!(bytes_above(&high), None);
        high[3] = 7;
        assert_eq!(bytes_above(&high), Some(vec![0xff, 0xff, 0xff, 8]));
    }

    #[test]
    fn a_cut_text_stays_a_text() {
        let text = "ääääääääää";
        let below = text_below(text.as_bytes()).unwrap();
        assert!(std::str::from_utf8(&below).unwrap() <= text);
        assert_eq!(text_below(&text.as_bytes()[..5]).unwrap(), "ää".as_bytes());
        let above = String::from_utf8(text_above(text.as_bytes()).unwrap()).unwrap();
        assert!(above.as_str() > text && above.len() <= BOUND_BYTES);
        let last = "\u{d7ff}".repeat(6);
        let above = String::from_utf8(text_above(last.as_bytes()).unwrap()).unwrap();
        assert!(above > last && above.ends_with('\u{e000}'), "{above:?}");
        assert_eq!(text_above("\u{10ffff}".repeat(9).as_bytes()), None);
        assert_eq!(text_above(&[b'a', 0xff]), None);
    }

    fn timestamps(nulls: u64, lower: i64, upper: i64) -> Column {
        let bytes = |micros: i64| Some(micros.to_le_bytes().to_vec());
        Column { size_bytes: 1, values: Some(5), nulls: Some(nulls), lower: bytes(lower), upper: bytes(upper) }
    }

    #[test]
    fn a_file_has_a_partition_only_if_all_of_it_lies_there() {
        const DAY: i64 = 86_400_000_000;
        let day = |column: &Column| partition_of(PartitionBy::Day, Some(column));
        assert_eq!(day(&timestamps(0, DAY, 2 * DAY - 1)), Some(Some(1)));
        assert_eq!(day(&timestamps(0, DAY, 2 * DAY)), None);
        assert_eq!(day(&timestamps(5, 0, 0)), Some(None));
        assert_eq!(day(&timestamps(1, DAY, DAY)), None, "null is a partition of its own");
        assert_eq!(partition_of(PartitionBy::Day, None), None);
        assert_eq!(partition_of(PartitionBy::Nothing, None), Some(None));
    }
}
