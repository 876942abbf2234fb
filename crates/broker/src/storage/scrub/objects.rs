//! Objects that hold rows: each part is read once, its checksums are verified, and the rows that the log names are hashed.

use std::ops::Range;

use bytes::Bytes;
use lakebed_model::{ObjectId, Offset, PartitionKey, RowsHash, Run, TableFileId};
use lakebed_segment::footer::{Footer, Kind as FooterKind, Parsed};
use lakebed_store::{Key, Store};

use super::super::file::{ObjectError, TableFile, joined};
use super::super::names::Named;
use super::Scrub;

/// How much of the end of an object is read first.
const FOOTER_GUESS_BYTES: u64 = 16 * 1024;
/// Rows of an object of the log are read so many bytes at a time, about.
const PART_BYTES: u64 = 8 << 20;
/// What every Parquet file begins with; no checksum covers it.
const MAGIC: &[u8] = b"PAR1";

/// Rows of an object that are read together: all of one run, or of none.
struct Piece {
    rows: Range<u64>,
    run: Option<usize>,
}

impl Scrub<'_> {
    /// A commit or a segment.
    pub(super) async fn log_object(
        &mut self,
        key: &Key,
        named: &Named,
        id: Option<ObjectId>,
    ) -> Result<(), ObjectError> {
        let storage = self.storage;
        let (footer, size_bytes) = footer_of(&storage.store, key).await?;
        if footer.identity != storage.log.identity {
            return Err(ObjectError::Damaged("it belongs to another cluster or cell".to_owned()));
        }
        let is_it = match (&footer.kind, named) {
            (FooterKind::Commit(commit), Named::Commit(place)) => commit.place == *place,
            (FooterKind::Segment { id, .. }, Named::Segment(named)) => id == named,
            _ => false,
        };
        if !is_it {
            return Err(ObjectError::Damaged("it is not the object that its key says".to_owned()));
        }
        let start = storage.store.get_range(key, 0..MAGIC.len() as u64).await?;
        if start != MAGIC {
            return Err(ObjectError::Damaged("it does not begin as Parquet does".to_owned()));
        }
        for range in footer.unread_ranges() {
            let bytes = storage.store.get_range(key, range.clone()).await?;
            footer.verify_page(range.start, &bytes).map_err(damaged)?;
        }
        let runs = id.and_then(|id| self.runs.get(&id)).cloned().unwrap_or_default();
        let each = u128::from(PART_BYTES) * u128::from(footer.rows) / u128::from(size_bytes.max(1));
        let each = u64::try_from(each).unwrap_or(u64::MAX).max(1);
        let mut hashes = vec![RowsHash::EMPTY; runs.len()];
        for piece in pieces(&runs, footer.rows, each)? {
            let ranges = footer.ranges(piece.rows.clone()).map_err(damaged)?;
            let mut parts: Vec<(u64, Bytes)> = Vec::new();
            for range in joined(ranges) {
                parts.push((range.start, storage.store.get_range(key, range.clone()).await?));
            }
            let (footer, rows) = (footer.clone(), piece.rows.clone());
            let hashed = tokio::task::spawn_blocking(move || footer.read(rows, &parts).map(|rows| rows.hash())).await;
            let hash = hashed.map_err(|error| ObjectError::Damaged(error.to_string()))?.map_err(damaged)?;
            if let Some(run) = piece.run {
                hashes[run] = hashes[run].concat(hash, piece.rows.end - piece.rows.start);
            }
        }
        self.compare(&runs, &hashes)
    }

    /// A file of a table, which the log may name.
    pub(super) async fn table_file(&mut self, key: &Key, table: &str, id: TableFileId) -> Result<(), ObjectError> {
        let storage = self.storage;
        let file = TableFile::open(&storage.store, key.clone()).await?;
        let name = &file.footer.name;
        if name.id != id || name.topic.table_name() != table || file.footer.identity != storage.log.identity {
            return Err(ObjectError::Damaged("it is not the file that its key says".to_owned()));
        }
        let runs = self.runs.get(&ObjectId::Table(id)).cloned().unwrap_or_default();
        if runs.iter().any(|(key, _, _)| key.topic != name.topic_id) {
            return Err(ObjectError::Damaged("it belongs to another topic".to_owned()));
        }
        let each = file.parts(0..file.footer.rows).first().map_or(1, |part| part.end - part.start);
        let mut hashes = vec![RowsHash::EMPTY; runs.len()];
        for piece in pieces(&runs, file.footer.rows, each)? {
            let read = file.rows(piece.rows.clone()).await?;
            if let Some(run) = piece.run {
                let (key, base, of_run) = &runs[run];
                let hash = if of_run.has_gaps() {
                    check_gaps(*key, *base..of_run.end(*base), &read)?;
                    read.rows.hash_placed(&read.offsets)
                } else {
                    check_offsets(*key, Offset::new(base.get() + piece.rows.start - of_run.first_row), &read)?;
                    read.rows.hash()
                };
                hashes[run] = hashes[run].concat(hash, piece.rows.end - piece.rows.start);
            }
        }
        file.verify_the_rest().await?;
        self.compare(&runs, &hashes)
    }

    fn compare(&mut self, runs: &[(PartitionKey, Offset, Run)], hashes: &[RowsHash]) -> Result<(), ObjectError> {
        for ((key, base, run), hash) in runs.iter().zip(hashes) {
            if run.hash != *hash {
                let what = format!("the rows of {key} from offset {base} on are not those that were committed");
                return Err(ObjectError::Damaged(what));
            }
            self.done.rows += run.rows;
        }
        Ok(())
    }
}

fn check_offsets(
    key: PartitionKey,
    first: Offset,
    read: &lakebed_segment::table::TableRows,
) -> Result<(), ObjectError> {
    let expected = (first.get()..).map(Offset::new);
    let same = read.partitions.iter().all(|partition| *partition == key.partition)
        && read.offsets.iter().zip(expected).all(|(found, expected)| *found == expected);
    let what = || format!("rows that should be those of {key} from offset {first} on are others");
    if same { Ok(()) } else { Err(ObjectError::Damaged(what())) }
}

/// The same of rows of a run with gaps, which compaction of keys has left.
fn check_gaps(
    key: PartitionKey,
    offsets: Range<Offset>,
    read: &lakebed_segment::table::TableRows,
) -> Result<(), ObjectError> {
    let same = read.partitions.iter().all(|partition| *partition == key.partition)
        && read.offsets.is_sorted_by(|one, next| one < next)
        && read.offsets.iter().all(|offset| offsets.contains(offset));
    let what = || format!("rows that should be those of {key} from offset {} on are others", offsets.start);
    if same { Ok(()) } else { Err(ObjectError::Damaged(what())) }
}

/// All rows of an object in order, cut where runs begin and end and after `each` rows.
fn pieces(runs: &[(PartitionKey, Offset, Run)], rows: u64, each: u64) -> Result<Vec<Piece>, ObjectError> {
    let mut pieces = Vec::new();
    let mut add = |mut start: u64, end: u64, run: Option<usize>| {
        while start < end {
            let stop = start.saturating_add(each).min(end);
            pieces.push(Piece { rows: start..stop, run });
            start = stop;
        }
    };
    let mut next = 0;
    for (index, (_, _, run)) in runs.iter().enumerate() {
        let end = run.first_row.saturating_add(run.rows);
        if run.first_row < next || end > rows {
            return Err(ObjectError::Damaged(format!("it has {rows} rows, and the log names others")));
        }
        add(next, run.first_row, None);
        add(run.first_row, end, Some(index));
        next = end;
    }
    add(next, rows, None);
    Ok(pieces)
}

async fn footer_of(store: &Store, key: &Key) -> Result<(Footer, u64), ObjectError> {
    let mut length = FOOTER_GUESS_BYTES;
    loop {
        let suffix = store.get_suffix(key, length).await?;
        match Footer::parse(&suffix.bytes, suffix.object_size_bytes).map_err(damaged)? {
            Parsed::Whole(footer) => return Ok((footer, suffix.object_size_bytes)),
            Parsed::NeedsSuffix(needed) if needed > length => length = needed,
            Parsed::NeedsSuffix(needed) => {
                return Err(ObjectError::Damaged(format!("its footer asks for {needed} bytes")));
            }
        }
    }
}

fn damaged(error: lakebed_segment::FormatError) -> ObjectError {
    ObjectError::Damaged(error.to_string())
}
