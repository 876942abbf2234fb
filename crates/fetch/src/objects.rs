//! Bytes of objects: footers and chunks, cached, with one request for all who want the same.
//!
//! 1. Only a miss makes a request, and at most so many requests are under way at once: a backfill can't starve the store's other
//!    users, and the tail needs none. Those for table files give way to those for what is newer.
//! 2. A small object is read whole, in one request; of others the footer is read, then chunks that begin at multiples of the chunk
//!    size, so that partitions and columns that lie next to each other share them.

use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::future::try_join_all;
use lakebed_log::Log;
use lakebed_model::{ObjectId, Offset, State, TopicId};
use lakebed_segment::commit::Identity;
use lakebed_segment::footer::{Footer, Kind, Parsed};
use lakebed_segment::row_set::RowSet;
use lakebed_segment::table::{ParsedTable, Stretch, TableFooter, TableRows};
use lakebed_segment::{FormatError, layout};
use lakebed_store::{Key, Priority, ReadError, Store};
use tokio::sync::Semaphore;

use crate::cache::Cache;
use crate::counts::CacheUse;
use crate::options::Options;
use crate::plan::Piece;

/// How much of an object's end is read first: a small flush whole, and nearly every footer.
const SUFFIX_BYTES: u64 = 256 * 1024;
/// What a footer takes in memory is about so many times what it takes in the object.
const FOOTER_COST_BYTES: usize = 16 * 1024;

/// Why rows of an object can't be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ObjectError {
    /// Nothing stands at the key. The plan may be old.
    Gone { key: String },
    /// It has other bytes than were written.
    Damaged { key: String, what: String },
    /// The store does not answer.
    Unavailable { why: String },
}

/// An object of which the footer was read.
#[derive(Debug)]
pub(crate) struct Opened {
    id: ObjectId,
    key: Key,
    size_bytes: u64,
    content: Content,
    /// The whole object, if it is small.
    whole: Option<Bytes>,
}

/// What an object's footer says.
#[derive(Debug)]
enum Content {
    Log(Footer),
    Table(Box<TableFooter>),
}

/// See the module.
pub(crate) struct Objects {
    /// For commits and segments, which hold what is newest.
    tail: Store,
    /// For table files, which hold the rest.
    backfill: Store,
    identity: Identity,
    chunk_bytes: u64,
    opened: Cache<ObjectId, Arc<Opened>>,
    chunks: Cache<(ObjectId, u64), Bytes>,
    requests: Semaphore,
}

impl Objects {
    /// `cache_bytes` is for footers and chunks together.
    pub(crate) fn new(log: &Log, store: Store, options: &Options, cache_bytes: usize) -> Self {
        let footer_bytes = cache_bytes / 3;
        Self {
            tail: store.with_priority(Priority::Tail),
            backfill: store.with_priority(Priority::Backfill),
            identity: log.identity(),
            chunk_bytes: options.chunk_bytes as u64,
            opened: Cache::new(footer_bytes, |opened: &Arc<Opened>| {
                opened.whole.as_ref().map_or(0, Bytes::len) + opened.footer_cost_bytes()
            }),
            chunks: Cache::new(cache_bytes - footer_bytes, Bytes::len),
            requests: Semaphore::new(options.backfill_requests_max),
        }
    }

    /// What the caches of footers and of ranges did.
    pub(crate) fn use_so_far(&self) -> (CacheUse, CacheUse) {
        (self.opened.use_so_far(), self.chunks.use_so_far())
    }

    /// The key of an object that the state names for rows of a topic.
    pub(crate) fn key(&self, state: &State, topic: TopicId, id: ObjectId) -> Option<Key> {
        let key = match id {
            ObjectId::Commit(number) => layout::commit_key(self.identity.cell, state.place_of(number)?),
            ObjectId::Segment(id) => layout::segment_key(self.identity.cell, id),
            ObjectId::Table(id) => layout::table_file_key(&state.topic(topic)?.name.table_name(), id),
        };
        Some(Key::new(key).expect("keys of the layout are valid"))
    }

    /// Reads the footer of an object.
    ///
    /// # Errors
    /// [`ObjectError`]
    /// # Cost One GET if nothing is cached; two if the footer is large.
    pub(crate) async fn open(&self, id: ObjectId, key: &Key) -> Result<Arc<Opened>, ObjectError> {
        self.opened.get(&id, async || self.read_footer(id, key).await.map(Arc::new)).await
    }

    /// The bytes of some ranges of an object, each with the position of its first byte.
    ///
    /// # Errors
    /// [`ObjectError`]
    /// # Cost One GET for each chunk that is not cached. A range that spans chunks is copied.
    pub(crate) async fn read(
        &self,
        opened: &Opened,
        ranges: Vec<Range<u64>>,
    ) -> Result<Vec<(u64, Bytes)>, ObjectError> {
        if let Some(whole) = &opened.whole {
            return Ok(vec![(0, whole.clone())]);
        }
        try_join_all(ranges.into_iter().map(|range| self.read_range(opened, range))).await
    }

    /// Forgets everything of an object: its bytes were wrong, on the way perhaps.
    pub(crate) fn forget(&self, opened: &Opened) {
        self.opened.forget(&opened.id);
        for chunk in 0..opened.size_bytes.div_ceil(self.chunk_bytes) {
            self.chunks.forget(&(opened.id, chunk));
        }
    }

    async fn read_footer(&self, id: ObjectId, key: &Key) -> Result<Opened, ObjectError> {
        let mut length = SUFFIX_BYTES;
        loop {
            let suffix = {
                let _request = self.request().await;
                self.store(id).get_suffix(key, length).await.map_err(store_error)?
            };
            let size_bytes = suffix.object_size_bytes;
            match Content::parse(id, &suffix.bytes, size_bytes).map_err(|error| damaged(key, &error))? {
                Err(needed) if needed > length => length = needed,
                Err(needed) => {
                    let what = format!("its footer asks for {needed} of {size_bytes} bytes");
                    return Err(ObjectError::Damaged { key: key.to_string(), what });
                }
                Ok(content) => {
                    if !self.is(&content, id) {
                        let what = "it is another object than its key says".to_owned();
                        return Err(ObjectError::Damaged { key: key.to_string(), what });
                    }
                    let whole = (suffix.bytes.len() as u64 == size_bytes).then_some(suffix.bytes);
                    return Ok(Opened { id, key: key.clone(), size_bytes, content, whole });
                }
            }
        }
    }

    fn is(&self, content: &Content, id: ObjectId) -> bool {
        let footer = match content {
            Content::Log(footer) => footer,
            Content::Table(table) => {
                return table.identity == self.identity && ObjectId::Table(table.name.id) == id;
            }
        };
        footer.identity == self.identity
            && match (&footer.kind, id) {
                (Kind::Commit(commit), ObjectId::Commit(number)) => commit.number == number,
                (Kind::Segment { id: found, .. }, ObjectId::Segment(id)) => *found == id,
                _ => false,
            }
    }

    async fn read_range(&self, opened: &Opened, range: Range<u64>) -> Result<(u64, Bytes), ObjectError> {
        let first = range.start / self.chunk_bytes;
        let chunks = (first..range.end.div_ceil(self.chunk_bytes)).map(|chunk| self.chunk(opened, chunk));
        let chunks = try_join_all(chunks).await?;
        let start = (range.start - first * self.chunk_bytes) as usize;
        let length = (range.end - range.start) as usize;
        if let [chunk] = &chunks[..] {
            return Ok((range.start, chunk.slice(start..start + length)));
        }
        let mut joined = BytesMut::with_capacity(length);
        let mut skipped = start;
        for chunk in chunks {
            let rest = &chunk[skipped..];
            joined.extend_from_slice(&rest[..rest.len().min(length - joined.len())]);
            skipped = 0;
        }
        Ok((range.start, joined.freeze()))
    }

    async fn chunk(&self, opened: &Opened, chunk: u64) -> Result<Bytes, ObjectError> {
        let make = async || {
            let start = chunk * self.chunk_bytes;
            let end = (start + self.chunk_bytes).min(opened.size_bytes);
            let _request = self.request().await;
            self.store(opened.id).get_range(&opened.key, start..end).await.map_err(store_error)
        };
        self.chunks.get(&(opened.id, chunk), make).await
    }

    fn store(&self, id: ObjectId) -> &Store {
        match id {
            ObjectId::Commit(_) | ObjectId::Segment(_) => &self.tail,
            ObjectId::Table(_) => &self.backfill,
        }
    }

    async fn request(&self) -> tokio::sync::SemaphorePermit<'_> {
        self.requests.acquire().await.expect("nobody closes the requests")
    }
}

impl Content {
    /// The footer of an object, or how many of its last bytes are needed.
    fn parse(id: ObjectId, suffix: &Bytes, size_bytes: u64) -> Result<Result<Self, u64>, FormatError> {
        Ok(match id {
            ObjectId::Commit(_) | ObjectId::Segment(_) => match Footer::parse(suffix, size_bytes)? {
                Parsed::Whole(footer) => Ok(Self::Log(footer)),
                Parsed::NeedsSuffix(needed) => Err(needed),
            },
            ObjectId::Table(_) => match TableFooter::parse(suffix, size_bytes)? {
                ParsedTable::Whole(footer) => Ok(Self::Table(Box::new(footer))),
                ParsedTable::NeedsSuffix(needed) => Err(needed),
            },
        })
    }
}

impl Opened {
    /// The byte ranges that rows need.
    ///
    /// # Errors
    /// [`FormatError`] if the object has no such rows.
    pub(crate) fn ranges(&self, rows: Range<u64>) -> Result<Vec<Range<u64>>, FormatError> {
        match &self.content {
            Content::Log(footer) => footer.ranges(rows),
            Content::Table(footer) => footer.ranges(rows),
        }
    }

    /// The stretches of a run with gaps that are wanted, from the one that covers the first offset on.
    ///
    /// # Errors
    /// [`FormatError`] if the object has no such run.
    pub(crate) fn stretches(&self, piece: &Piece) -> Result<Vec<Stretch>, FormatError> {
        let from = piece.from.unwrap_or(piece.base_offset);
        let stretches = match &self.content {
            Content::Log(_) => Vec::new(),
            Content::Table(footer) => {
                footer.stretches(piece.key.partition, piece.base_offset, piece.span, piece.first_row, from)
            }
        };
        let what = || format!("it has no run of {} with gaps at offset {}", piece.key, piece.base_offset);
        if stretches.is_empty() { Err(FormatError::Malformed { what: what() }) } else { Ok(stretches) }
    }

    /// The rows of a stretch, with their offsets.
    ///
    /// # Errors
    /// [`FormatError`] if they are damaged, or not those that the footer says.
    pub(crate) fn placed(
        &self,
        piece: &Piece,
        stretch: &Stretch,
        parts: &[(u64, Bytes)],
    ) -> Result<TableRows, FormatError> {
        let Content::Table(footer) = &self.content else {
            return Err(FormatError::Malformed { what: "rows with gaps, and no table file".to_owned() });
        };
        let read = footer.read(stretch.rows.clone(), parts)?;
        let other = |what: &str| FormatError::Malformed { what: format!("it has rows of another {what}") };
        if footer.name.topic_id != piece.key.topic {
            return Err(other("topic"));
        }
        if read.partitions.iter().any(|partition| *partition != piece.key.partition) {
            return Err(other("partition"));
        }
        let ascends = read.offsets.is_sorted_by(|one, next| one < next);
        if !ascends || read.offsets.iter().any(|offset| !stretch.offsets.contains(offset)) {
            return Err(other("offset"));
        }
        Ok(read)
    }

    /// The rows of a piece.
    ///
    /// # Errors
    /// [`FormatError`] if they are damaged, or not those that the piece says.
    pub(crate) fn rows(&self, piece: &Piece, parts: &[(u64, Bytes)]) -> Result<RowSet, FormatError> {
        let rows = piece.first_row..piece.first_row + piece.rows;
        let footer = match &self.content {
            Content::Log(footer) => return footer.read(rows, parts),
            Content::Table(footer) => footer,
        };
        let read = footer.read(rows, parts)?;
        let other = |what: &str| FormatError::Malformed { what: format!("it has rows of another {what}") };
        if footer.name.topic_id != piece.key.topic {
            return Err(other("topic"));
        }
        if read.partitions.iter().any(|partition| *partition != piece.key.partition) {
            return Err(other("partition"));
        }
        let offsets = (piece.base_offset.get()..).map(Offset::new);
        if read.offsets.iter().zip(offsets).any(|(found, expected)| *found != expected) {
            return Err(other("offset"));
        }
        Ok(read.rows)
    }

    fn footer_cost_bytes(&self) -> usize {
        match &self.content {
            Content::Log(_) => FOOTER_COST_BYTES,
            Content::Table(footer) => footer.memory_bytes(),
        }
    }

    /// What the format has to say about its bytes.
    pub(crate) fn damaged(&self, error: &FormatError) -> ObjectError {
        damaged(&self.key, error)
    }
}

fn damaged(key: &Key, error: &FormatError) -> ObjectError {
    ObjectError::Damaged { key: key.to_string(), what: error.to_string() }
}

fn store_error(error: ReadError) -> ObjectError {
    match error {
        ReadError::NotFound { key } => ObjectError::Gone { key: key.to_string() },
        ReadError::OutOfRange { ref key, .. } => ObjectError::Damaged { key: key.to_string(), what: error.to_string() },
        ReadError::Refused { .. } | ReadError::Unavailable { .. } => {
            ObjectError::Unavailable { why: error.to_string() }
        }
    }
}
