//! Pieces of runs as record batches, rebuilt from Parquet, cached.
//!
//! 1. A piece is rebuilt once however many consumers want it at the same time.
//! 2. A batch holds records of one timestamp type, and of one time if the log stamped them. Offsets are dense; those of a run with gaps are
//!    covered by its batches without a hole.
//! 3. Bytes that fail a checksum are read once more before the object counts as damaged.

use std::sync::Arc;

use bytes::Bytes;
use lakebed_log::{Log, Offload};
use lakebed_model::{ObjectId, State};
use lakebed_segment::FormatError;
use lakebed_segment::row_set::ConsumerBatch;
use lakebed_segment::table::Stretch;
use lakebed_store::Store;

use crate::cache::Cache;
use crate::counts::CacheUse;
use crate::objects::{ObjectError, Objects, Opened};
use crate::options::Options;
use crate::plan::Piece;
use crate::request::FetchedBatch;

/// What a rebuilt batch costs beside its bytes.
const OVERHEAD_BYTES: usize = 128;
/// Bytes and rows from which rebuilding takes more than about half a millisecond.
const HEAVY_BYTES: u64 = 1 << 20;
const HEAVY_ROWS: u64 = 4096;

/// The batches of one piece, in order.
pub(crate) type Rebuilt = Arc<Vec<FetchedBatch>>;

/// See the module.
pub(crate) struct Cold {
    objects: Objects,
    rebuilt: Cache<(ObjectId, u64, u64), Rebuilt>,
    offload: Offload,
    batch_bytes: usize,
}

impl Cold {
    pub(crate) fn new(log: &Log, store: Store, options: &Options) -> Self {
        let rebuilt_bytes = options.cache_bytes / 2;
        let cost = |batches: &Rebuilt| batches.iter().map(|batch| batch.size_bytes() + OVERHEAD_BYTES).sum();
        Self {
            objects: Objects::new(log, store, options, options.cache_bytes - rebuilt_bytes),
            rebuilt: Cache::new(rebuilt_bytes, cost),
            offload: log.seams().offload,
            batch_bytes: options.batch_bytes,
        }
    }

    /// The batches of a piece of the plan that was made from `state`.
    ///
    /// # Errors
    /// [`ObjectError`]
    pub(crate) async fn batches(&self, state: &State, piece: &Piece) -> Result<Rebuilt, ObjectError> {
        if piece.from.is_some() {
            return self.across_gaps(state, piece).await;
        }
        let key = (piece.object, piece.first_row, piece.rows);
        self.rebuilt.get(&key, async || self.rebuild(state, *piece).await).await
    }

    /// What the caches of footers, of ranges and of rebuilt batches did.
    pub(crate) fn use_so_far(&self) -> (CacheUse, CacheUse, CacheUse) {
        let (footers, ranges) = self.objects.use_so_far();
        (footers, ranges, self.rebuilt.use_so_far())
    }

    /// The batches of a run with gaps, from the first that covers the wanted offset on: about as many bytes as are wanted, and one at least.
    async fn across_gaps(&self, state: &State, piece: &Piece) -> Result<Rebuilt, ObjectError> {
        let from = piece.from.unwrap_or(piece.base_offset);
        let opened = self.open(state, piece).await?;
        let stretches = opened.stretches(piece).map_err(|error| opened.damaged(&error))?;
        let mut batches: Vec<FetchedBatch> = Vec::new();
        let mut bytes = 0;
        for stretch in stretches {
            let key = (piece.object, stretch.rows.start, stretch.rows.end - stretch.rows.start);
            let rebuilt = self.rebuilt.get(&key, async || self.stretch(state, piece, &stretch).await).await?;
            // Batches that end before the wanted offset share a stretch with the one that covers it.
            batches.extend(rebuilt.iter().filter(|batch| batch.last_offset >= from).cloned());
            bytes += rebuilt.iter().map(|batch| batch.size_bytes() as u64).sum::<u64>();
            if bytes >= piece.bytes && !batches.is_empty() {
                break;
            }
        }
        if batches.is_empty() {
            // SUBTLE: a batch covers at most 2^31 offsets. In a wider gap nothing covers the wanted one, and a consumer that is answered
            // nothing asks for it for ever.
            batches.push(FetchedBatch::covering(from..piece.end()));
        }
        Ok(Arc::new(batches))
    }

    async fn open(&self, state: &State, piece: &Piece) -> Result<Arc<Opened>, ObjectError> {
        let Some(key) = self.objects.key(state, piece.key.topic, piece.object) else {
            return Err(ObjectError::Gone { key: format!("{:?}", piece.object) });
        };
        self.objects.open(piece.object, &key).await
    }

    async fn stretch(&self, state: &State, piece: &Piece, stretch: &Stretch) -> Result<Rebuilt, ObjectError> {
        match self.stretch_once(state, piece, stretch).await {
            Err(ObjectError::Damaged { key, what }) => {
                tracing::warn!(object = key, what, "an object seems damaged; reading it again");
                self.stretch_once(state, piece, stretch).await
            }
            other => other,
        }
    }

    async fn stretch_once(&self, state: &State, piece: &Piece, stretch: &Stretch) -> Result<Rebuilt, ObjectError> {
        let opened = self.open(state, piece).await?;
        let done = match opened.ranges(stretch.rows.clone()) {
            Ok(ranges) => {
                let parts = self.objects.read(&opened, ranges).await?;
                let (bytes_max, piece, stretch) = (2 * self.batch_bytes, *piece, stretch.clone());
                let (rows, opened) = (stretch.rows.end - stretch.rows.start, Arc::clone(&opened));
                let bytes: usize = parts.iter().map(|(_, part)| part.len()).sum();
                let work = move || {
                    let read = opened.placed(&piece, &stretch, &parts)?;
                    let batches = read.rows.to_batches_placed(&read.offsets, stretch.offsets.end, bytes_max);
                    let batches = batches.map_err(|error| FormatError::Malformed { what: error.to_string() })?;
                    Ok(Arc::new(batches.into_iter().map(FetchedBatch::from).collect()))
                };
                let heavy = bytes as u64 > HEAVY_BYTES || rows > HEAVY_ROWS;
                if heavy { self.offload.run(work).await } else { work() }
            }
            Err(error) => Err(error),
        };
        done.map_err(|error| {
            self.objects.forget(&opened);
            opened.damaged(&error)
        })
    }

    async fn rebuild(&self, state: &State, piece: Piece) -> Result<Rebuilt, ObjectError> {
        match self.rebuild_once(state, piece).await {
            Err(ObjectError::Damaged { key, what }) => {
                tracing::warn!(object = key, what, "an object seems damaged; reading it again");
                self.rebuild_once(state, piece).await
            }
            other => other,
        }
    }

    async fn rebuild_once(&self, state: &State, piece: Piece) -> Result<Rebuilt, ObjectError> {
        let opened = self.open(state, &piece).await?;
        let rows = piece.first_row..piece.first_row + piece.rows;
        let done = match opened.ranges(rows) {
            Ok(ranges) => {
                let parts = self.objects.read(&opened, ranges).await?;
                self.decode(&opened, parts, piece).await
            }
            Err(error) => Err(error),
        };
        done.map_err(|error| {
            self.objects.forget(&opened);
            opened.damaged(&error)
        })
    }

    async fn decode(
        &self,
        opened: &Arc<Opened>,
        parts: Vec<(u64, Bytes)>,
        piece: Piece,
    ) -> Result<Rebuilt, FormatError> {
        let opened = Arc::clone(opened);
        // A piece makes one batch unless its rows are of very different sizes.
        let bytes_max = 2 * self.batch_bytes;
        let work = move || {
            let rows = opened.rows(&piece, &parts)?;
            let batches = rows.to_batches(piece.base_offset, bytes_max);
            let batches = batches.map_err(|error| FormatError::Malformed { what: error.to_string() })?;
            Ok(Arc::new(batches.into_iter().map(FetchedBatch::from).collect()))
        };
        if piece.bytes > HEAVY_BYTES || piece.rows > HEAVY_ROWS { self.offload.run(work).await } else { work() }
    }
}

impl From<ConsumerBatch> for FetchedBatch {
    fn from(rebuilt: ConsumerBatch) -> Self {
        let ConsumerBatch { first, last, bytes } = rebuilt;
        Self { base_offset: first, last_offset: last, head: Bytes::new(), batch: bytes }
    }
}
