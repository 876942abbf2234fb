//! Reading what is to be rewritten: runs of segments, commits and table files, verified against what the state says of them.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use lakebed_log::{AppendError, Log, Offload};
use lakebed_model::{ObjectId, Offset, PartitionKey, Refusal, RowsHash, Run, State, TopicId};
use lakebed_segment::FormatError;
use lakebed_segment::body::SealError;
use lakebed_segment::footer::{Footer, Parsed};
use lakebed_segment::layout;
use lakebed_segment::row_set::RowSet;
use lakebed_segment::table::{ParsedTable, TableError, TableFooter};
use lakebed_store::{CreateError, Key, ReadError, Store};

use crate::turn::Pace;

/// How much of the end of an object is read first; most footers fit.
const FOOTER_GUESS_BYTES: u64 = 16 * 1024;
/// Bytes between two ranges that are rather read than asked for by a request of their own.
const GAP_BYTES: u64 = 64 * 1024;
/// Rows of a table file are decoded so many bytes at a time.
const PART_BYTES: u64 = 8 << 20;
/// What is stored in less is decoded at once: to hand it to another thread costs more.
const OFFLOADED_BYTES: usize = 64 << 10;

/// Why rows were not re-homed. The log is as it was, or, if the fate is unknown, changed as was planned.
#[derive(Debug, thiserror::Error)]
pub enum RewriteError {
    /// An object is missing, or not what it was. Nothing of it is rewritten. The plan may be old, or another broker may have taken over
    /// and reclaimed it: it is damage only if it is still named behind a barrier.
    #[error("object {key} can't be rewritten: {what}")]
    Damaged {
        /// Which object.
        object: ObjectId,
        /// Its key.
        key: String,
        /// What is wrong with it.
        what: String,
    },
    /// The objects are no longer what was planned: another change came first.
    #[error("another change came first: {0}")]
    Stale(Refusal),
    /// An object could not be read now; others perhaps can.
    #[error("an object can't be read now")]
    Read {
        /// Which object.
        object: ObjectId,
        /// Why.
        source: ReadError,
    },
    /// The new object could not be written now.
    #[error(transparent)]
    Write(#[from] CreateError),
    /// Another object stands where the new one should. Ids have 64 random bits: a second one is a bug, and what stands there is not ours.
    #[error("another object stands at {key}, where a new one should")]
    Taken {
        /// Its key.
        key: String,
    },
    /// The rows don't fit into one segment.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// The rows don't fit into a table file.
    #[error(transparent)]
    Table(#[from] TableError),
    /// A table file that was written doesn't read back as what was put into it. It is not used.
    #[error("a new table file of partition {partition} does not read back: {what}")]
    Unfaithful {
        /// The partition.
        partition: PartitionKey,
        /// What differs.
        what: String,
    },
    /// The log did not take the swap.
    #[error(transparent)]
    Append(#[from] AppendError),
}

/// The key of an object that holds rows of a partition.
pub(crate) fn key_of(log: &Log, state: &State, partition: PartitionKey, object: ObjectId) -> Option<Key> {
    let cell = log.identity().cell;
    let key = match object {
        ObjectId::Segment(id) => layout::segment_key(cell, id),
        ObjectId::Commit(number) => layout::commit_key(cell, state.place_of(number)?),
        ObjectId::Table(id) => layout::table_file_key(&state.topic(partition.topic)?.name.table_name(), id),
    };
    Some(Key::new(key).expect("keys of the layout are valid"))
}

/// The least and the greatest ingest time in a table file of a topic, if it says so.
///
/// # Errors
/// [`RewriteError::Damaged`], [`RewriteError::Read`]
/// # Cost One GET, two if the footer is large.
pub(crate) async fn ingest_times_ms(
    log: &Log,
    store: &Store,
    state: &State,
    topic: TopicId,
    object: ObjectId,
) -> Result<Option<(i64, i64)>, RewriteError> {
    let opened = OpenObject::open(log, store, state, PartitionKey::first_of(topic), object, Pace::Urgent).await?;
    Ok(match &*opened.footer {
        AnyFooter::Table(footer) => footer.ingest_times_ms(),
        AnyFooter::Log(_) => None,
    })
}

/// An object of which the footer was read.
pub(crate) struct OpenObject<'a> {
    store: &'a Store,
    object: ObjectId,
    key: Key,
    footer: Arc<AnyFooter>,
    offload: Offload,
    pace: Pace,
}

/// Ranges of an object, each with where it begins.
type Ranges = Vec<(u64, Bytes)>;

enum AnyFooter {
    Log(Footer),
    Table(Box<TableFooter>),
}

/// Consecutive rows of a run.
pub(crate) struct Part {
    /// The offset of the first.
    pub(crate) base: Offset,
    pub(crate) rows: RowSet,
    /// Theirs, without gaps.
    pub(crate) hash: RowsHash,
}

impl<'a> OpenObject<'a> {
    /// Reads the footer of the object that holds a run of a partition. `pace` says whether somebody waits for what is read of it.
    ///
    /// # Errors
    /// [`RewriteError::Damaged`], [`RewriteError::Read`]
    /// # Cost One GET, two if the footer is large.
    pub(crate) async fn open(
        log: &Log,
        store: &'a Store,
        state: &State,
        partition: PartitionKey,
        object: ObjectId,
        pace: Pace,
    ) -> Result<Self, RewriteError> {
        let Some(key) = key_of(log, state, partition, object) else {
            let what = "the state has no place for it".to_owned();
            return Err(RewriteError::Damaged { object, key: format!("{object:?}"), what });
        };
        let read = read_footer(store, &key, object).await.map_err(|error| missing(object, &key, error))?;
        let footer = read.map_err(|what| damaged(object, &key, what))?;
        let identity = match &footer {
            AnyFooter::Log(footer) => footer.identity,
            AnyFooter::Table(footer) => footer.identity,
        };
        if identity != log.identity() {
            return Err(damaged(object, &key, "it belongs to another cluster or cell"));
        }
        Ok(Self { store, object, key, footer: Arc::new(footer), offload: log.seams().offload, pace })
    }

    /// All rows of a run, verified.
    ///
    /// # Errors
    /// [`RewriteError::Damaged`], [`RewriteError::Read`]
    pub(crate) async fn run(&self, key: PartitionKey, base: Offset, run: &Run) -> Result<RowSet, RewriteError> {
        let part = self.part(key, base, run, 0..run.rows).await?;
        self.check(key, base, run, part.hash)?;
        Ok(part.rows)
    }

    /// Whether the rows that were read are those that the state names.
    ///
    /// # Errors
    /// [`RewriteError::Damaged`]
    pub(crate) fn check(
        &self,
        key: PartitionKey,
        base: Offset,
        run: &Run,
        found: RowsHash,
    ) -> Result<(), RewriteError> {
        if found == run.hash {
            return Ok(());
        }
        let what = format!("the rows of {key} from offset {base} on are not those that were committed");
        Err(damaged(self.object, &self.key, what))
    }

    /// How the rows of a run are best read: one part after another.
    pub(crate) fn parts(&self, run: &Run) -> Vec<Range<u64>> {
        let each = match &*self.footer {
            AnyFooter::Log(_) => run.rows,
            AnyFooter::Table(_) => {
                let rows = u128::from(PART_BYTES) * u128::from(run.rows) / u128::from(run.bytes.max(1));
                u64::try_from(rows).unwrap_or(u64::MAX).clamp(1, run.rows.max(1))
            }
        };
        let starts = (0..run.rows).step_by(usize::try_from(each.max(1)).unwrap_or(usize::MAX));
        starts.map(|start| start..(start + each).min(run.rows)).collect()
    }

    /// Some rows of a run of a table file, counted from its first, with their offsets, and their hash; not yet compared with the run's.
    ///
    /// # Errors
    /// [`RewriteError::Damaged`], [`RewriteError::Read`]
    pub(crate) async fn placed(
        &self,
        key: PartitionKey,
        base: Offset,
        run: &Run,
        wanted: Range<u64>,
    ) -> Result<(RowSet, Vec<Offset>, RowsHash), RewriteError> {
        let AnyFooter::Table(footer) = &*self.footer else {
            return Err(damaged(self.object, &self.key, "it is no table file"));
        };
        let rows = run.first_row.saturating_add(wanted.start)..run.first_row.saturating_add(wanted.end);
        let parts = self.get(footer.ranges(rows.clone())).await?;
        let first = Offset::new(base.get() + wanted.start);
        let run = *run;
        let decode = move |footer: &AnyFooter, parts: &[(u64, Bytes)]| {
            let AnyFooter::Table(footer) = footer else {
                return Err(FormatError::Malformed { what: "it is no table file".to_owned() });
            };
            if !run.has_gaps() {
                let read = table_rows(footer, rows, parts, key, first)?;
                let (hash, offsets) = (read.hash(), (first.get()..).take(read.len()).map(Offset::new).collect());
                return Ok((read, offsets, hash));
            }
            let read = footer.read(rows, parts)?;
            let fits = footer.name.topic_id == key.topic
                && read.partitions.iter().all(|partition| *partition == key.partition)
                && read.offsets.is_sorted_by(|one, next| one < next)
                && read.offsets.iter().all(|offset| *offset >= base && *offset < run.end(base));
            let what = || format!("rows that should be those of {key} from offset {base} on are others");
            if !fits {
                return Err(FormatError::Malformed { what: what() });
            }
            let hash = read.rows.hash_placed(&read.offsets);
            Ok((read.rows, read.offsets, hash))
        };
        self.decoded(parts, decode).await
    }

    /// Reads ranges of the object.
    async fn get(&self, ranges: Result<Vec<Range<u64>>, FormatError>) -> Result<Ranges, RewriteError> {
        let ranges = ranges.map_err(|error| damaged(self.object, &self.key, error.to_string()))?;
        let mut parts = Vec::new();
        for range in coalesced(ranges) {
            let bytes = self.store.get_range(&self.key, range.clone()).await;
            parts.push((range.start, bytes.map_err(|error| missing(self.object, &self.key, error))?));
        }
        Ok(parts)
    }

    /// Decodes what was read, on another thread if it is much.
    async fn decoded<T: Send + 'static>(
        &self,
        parts: Ranges,
        decode: impl FnOnce(&AnyFooter, &[(u64, Bytes)]) -> Result<T, FormatError> + Send + 'static,
    ) -> Result<T, RewriteError> {
        let (footer, bytes) = (Arc::clone(&self.footer), parts.iter().map(|(_, bytes)| bytes.len()).sum::<usize>());
        let work = move || decode(&footer, &parts);
        let done = if bytes < OFFLOADED_BYTES { work() } else { self.pace.run(self.offload, work).await };
        done.map_err(|error| damaged(self.object, &self.key, error.to_string()))
    }

    /// When the keys of a run were compacted for the first time; see [`TableFooter::cleaned`].
    pub(crate) fn cleaned(&self, key: PartitionKey, base: Offset, run: &Run) -> Vec<(Offset, i64)> {
        match &*self.footer {
            AnyFooter::Log(_) => Vec::new(),
            AnyFooter::Table(footer) => footer.cleaned(key.partition, base, run.first_row),
        }
    }

    /// Some rows of a run, counted from its first; not yet compared with its hash.
    ///
    /// # Errors
    /// [`RewriteError::Damaged`], [`RewriteError::Read`]
    pub(crate) async fn part(
        &self,
        key: PartitionKey,
        base: Offset,
        run: &Run,
        wanted: Range<u64>,
    ) -> Result<Part, RewriteError> {
        let first = Offset::new(base.get() + wanted.start);
        let rows = run.first_row.saturating_add(wanted.start)..run.first_row.saturating_add(wanted.end);
        let ranges = match &*self.footer {
            AnyFooter::Log(footer) => footer.ranges(rows.clone()),
            AnyFooter::Table(footer) => footer.ranges(rows.clone()),
        };
        let decode = move |footer: &AnyFooter, parts: &[(u64, Bytes)]| {
            let rows = match footer {
                AnyFooter::Log(footer) => footer.read(rows, parts)?,
                AnyFooter::Table(footer) => table_rows(footer, rows, parts, key, first)?,
            };
            let hash = rows.hash();
            Ok(Part { base: first, rows, hash })
        };
        self.decoded(self.get(ranges).await?, decode).await
    }
}

/// Rows of a table file, which are those of a partition from an offset on.
pub(crate) fn table_rows(
    footer: &TableFooter,
    rows: Range<u64>,
    parts: &[(u64, Bytes)],
    key: PartitionKey,
    first: Offset,
) -> Result<RowSet, FormatError> {
    let read = footer.read(rows, parts)?;
    let expected = (first.get()..).map(Offset::new);
    let same = footer.name.topic_id == key.topic
        && read.partitions.iter().all(|partition| *partition == key.partition)
        && read.offsets.iter().zip(expected).all(|(found, expected)| *found == expected);
    let what = || format!("rows that should be those of {key} from offset {first} on are others");
    if same { Ok(read.rows) } else { Err(FormatError::Malformed { what: what() }) }
}

/// Ranges that lie near each other are one.
fn coalesced(ranges: Vec<Range<u64>>) -> Vec<Range<u64>> {
    let mut joined: Vec<Range<u64>> = Vec::new();
    for range in ranges {
        match joined.last_mut() {
            Some(last) if range.start.saturating_sub(last.end) <= GAP_BYTES => last.end = last.end.max(range.end),
            _ => joined.push(range),
        }
    }
    joined
}

fn damaged(object: ObjectId, key: &Key, what: impl Into<String>) -> RewriteError {
    RewriteError::Damaged { object, key: key.to_string(), what: what.into() }
}

fn missing(object: ObjectId, key: &Key, error: ReadError) -> RewriteError {
    match error {
        ReadError::NotFound { .. } => damaged(object, key, "nothing stands there"),
        source => RewriteError::Read { object, source },
    }
}

async fn read_footer(store: &Store, key: &Key, object: ObjectId) -> Result<Result<AnyFooter, String>, ReadError> {
    let mut length = FOOTER_GUESS_BYTES;
    loop {
        let suffix = store.get_suffix(key, length).await?;
        let parsed = match object {
            ObjectId::Table(_) => match TableFooter::parse(&suffix.bytes, suffix.object_size_bytes) {
                Ok(ParsedTable::Whole(footer)) => return Ok(Ok(AnyFooter::Table(Box::new(footer)))),
                Ok(ParsedTable::NeedsSuffix(needed)) => Ok(needed),
                Err(error) => Err(error),
            },
            ObjectId::Commit(_) | ObjectId::Segment(_) => {
                match Footer::parse(&suffix.bytes, suffix.object_size_bytes) {
                    Ok(Parsed::Whole(footer)) => return Ok(Ok(AnyFooter::Log(footer))),
                    Ok(Parsed::NeedsSuffix(needed)) => Ok(needed),
                    Err(error) => Err(error),
                }
            }
        };
        match parsed {
            Ok(needed) if needed > length => length = needed,
            Ok(needed) => return Ok(Err(format!("its footer asks for {needed} bytes"))),
            Err(error) => return Ok(Err(error.to_string())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_that_lie_near_each_other_are_read_as_one() {
        let far = 100 + GAP_BYTES + 1;
        assert_eq!(coalesced(vec![0..10, 20..100, far..far + 5]), vec![0..100, far..far + 5]);
        assert_eq!(coalesced(Vec::new()), Vec::new());
    }
}
