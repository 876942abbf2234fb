//! Checkpoints: a durable state, in parts, so that replay begins there. Two are kept.
//!
//! 1. The manifest is written last and deleted first: a checkpoint whose manifest stands was whole.
//! 2. Only the durable prefix is written, never what is in flight.
//! 3. Losing a checkpoint loses nothing as long as the older one stands; reclaim goes by the older one.
//! 4. Only checkpoints of one owner share parts, and only when it has written two of its own does it delete others and reclaim. What it found when it
//!    took over may be deleted at any time by those who came before: they don't know of it. What they still write or delete lies below its own.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::{self, StreamExt, TryStreamExt};
use lakebed_model::{CommitNumber, State};
use lakebed_segment::checkpoint::{self as format, Manifest, Piece};
use lakebed_segment::layout;
use lakebed_store::{CreateError, DeleteError, Key, ListError, ReadError};

use crate::bucket::Bucket;
use crate::handle::Shared;
use crate::reclaim;
use crate::seams::Offload;

/// Parts of the state that weigh as much as one commit to replay: a large state is written less often.
const PARTS_PER_COMMIT: u64 = 32;
/// Remembered outcomes that weigh as much as a run.
const OUTCOMES_PER_PART: usize = 8;
/// However large the state, a checkpoint is written after so many times the least number of commits: the bound on what opening reads.
const STRETCH_MAX: u64 = 4;
/// Parts that are read at once; each is about a mebibyte.
const READS_MAX: usize = 16;
/// How many checkpoints are kept.
const KEPT: usize = 2;

/// Why a checkpoint can't be loaded.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    #[error("{0}")]
    Damaged(String),
    #[error(transparent)]
    Store(ReadError),
}

/// Why a checkpoint could not be kept. The log is untouched; it is tried again later.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeepError {
    #[error("the manifest that stands there can't be read: {0}")]
    Manifest(String),
    #[error(transparent)]
    Write(#[from] CreateError),
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    List(#[from] ListError),
    #[error(transparent)]
    Delete(#[from] DeleteError),
}

/// Loads the checkpoint of a number.
///
/// # Cost
/// A GET of the manifest and of each part; parts are parsed on several threads.
pub(crate) async fn load(
    bucket: &Bucket,
    number: CommitNumber,
    offload: Offload,
) -> Result<(State, Manifest), LoadError> {
    let damaged = |what: String| LoadError::Damaged(what);
    let manifest = read(bucket.clone(), bucket.checkpoint_key(number, layout::MANIFEST)).await?;
    let manifest = Manifest::decode(&manifest).map_err(|error| damaged(error.to_string()))?;
    if manifest.number != number || manifest.identity != bucket.identity() {
        return Err(damaged(format!("its manifest is of checkpoint {}", manifest.number)));
    }
    let shared = Arc::new(manifest);
    let reads: Vec<_> =
        (0..shared.parts.len()).map(|index| read_part(bucket.clone(), Arc::clone(&shared), index, offload)).collect();
    let pieces: Vec<Piece> = stream::iter(reads).buffered(READS_MAX).try_collect().await?;
    let manifest = Arc::clone(&shared);
    let restored = offload.run(move || {
        let snapshot = format::assemble(&manifest, pieces).map_err(|error| error.to_string())?;
        State::restore(snapshot).map_err(|violation| violation.to_string())
    });
    let state = restored.await.map_err(damaged)?;
    let manifest = Arc::unwrap_or_clone(shared);
    if state.number() == number {
        Ok((state, manifest))
    } else {
        Err(damaged(format!("it holds state {}", state.number())))
    }
}

async fn read_part(
    bucket: Bucket,
    manifest: Arc<Manifest>,
    index: usize,
    offload: Offload,
) -> Result<Piece, LoadError> {
    let part = &manifest.parts[index];
    let bytes = read(bucket.clone(), bucket.checkpoint_key(part.number, &part.name)).await?;
    let decoded = offload.run(move || format::decode_part(&manifest, index, &bytes));
    decoded.await.map_err(|error| LoadError::Damaged(error.to_string()))
}

async fn read(bucket: Bucket, key: Key) -> Result<Bytes, LoadError> {
    match bucket.get(&key).await {
        Ok(bytes) => Ok(bytes),
        Err(ReadError::NotFound { .. }) => Err(LoadError::Damaged(format!("{key} is missing"))),
        Err(error) => Err(LoadError::Store(error)),
    }
}

/// Keeps checkpoints, and reclaims what they make superfluous.
pub(crate) struct Keeper {
    commits: u64,
    /// The checkpoints that it has written, oldest first, at most [`KEPT`].
    kept: VecDeque<(State, Manifest)>,
    /// The number of the newest checkpoint that is known to stand; 0 if there is none.
    newest: CommitNumber,
    /// The number at which the last attempt was made, so that a failing store is not asked again at once.
    attempted: CommitNumber,
}

impl Keeper {
    /// One that begins after a checkpoint of somebody's, or 0.
    pub(crate) fn new(commits: u64, newest: CommitNumber) -> Self {
        Self { commits, kept: VecDeque::new(), newest, attempted: newest }
    }

    /// The number of the newest checkpoint that is known to stand; 0 if there is none.
    pub(crate) fn newest(&self) -> CommitNumber {
        self.newest
    }

    /// Whether replaying what has come since the last one would cost more than writing one.
    pub(crate) fn is_due(&self, state: &State) -> bool {
        let parts = state.run_count() + state.partition_count() + state.outcome_count() / OUTCOMES_PER_PART;
        let due = (self.commits + parts as u64 / PARTS_PER_COMMIT).min(self.commits * STRETCH_MAX);
        state.number().get().saturating_sub(self.attempted.get()) >= due
    }

    /// Writes a checkpoint of `state`, drops those beyond the two newest, and reclaims. Failures are logged; the next one makes up
    /// for them.
    ///
    /// # Cancel Parts without a manifest may be left; the next keeping deletes them.
    pub(crate) async fn keep(mut self, shared: Arc<Shared>, state: State) -> Self {
        self.attempted = state.number();
        match self.write(&shared, state).await {
            Ok(()) => shared.counts.checkpoint_written(self.newest(), shared.now_ms()),
            Err(error) => {
                shared.counts.keeping_failed();
                tracing::warn!(%error, "a checkpoint could not be written; the next one makes up for it: see what the store says");
                return self;
            }
        }
        if let Err(error) = self.drop_old(&shared.bucket).await {
            shared.counts.keeping_failed();
            tracing::warn!(%error, "old checkpoints could not be deleted; the next checkpoint tries again");
        }
        if let Some((older, _)) = self.kept.front().filter(|_| self.kept.len() == KEPT)
            && let Err(error) = reclaim::reclaim(&shared, older).await
        {
            shared.counts.keeping_failed();
            tracing::warn!(%error, "reclaiming stopped early; the next checkpoint tries again");
        }
        self
    }

    async fn write(&mut self, shared: &Arc<Shared>, state: State) -> Result<(), KeepError> {
        let (identity, previous, copy) =
            (shared.bucket.identity(), self.kept.back().map(|(_, manifest)| manifest.clone()), state.clone());
        let encoded =
            shared.seams.offload.run(move || format::encode(&identity, &copy.snapshot(), previous.as_ref())).await;
        let number = state.number();
        for (name, part) in encoded.parts {
            shared.bucket.create(&shared.bucket.checkpoint_key(number, &name), part).await?;
        }
        // SUBTLE: another broker's checkpoint of the same number is as good as ours, for the state of a number is one; but it may
        // name other parts, so what stands there is what is kept.
        let key = shared.bucket.checkpoint_key(number, layout::MANIFEST);
        shared.bucket.create(&key, encoded.manifest).await?;
        let standing = Manifest::decode(&shared.bucket.get(&key).await?)
            .map_err(|error| KeepError::Manifest(error.to_string()))?;
        self.kept.push_back((state, standing));
        self.newest = number;
        while self.kept.len() > KEPT {
            self.kept.pop_front();
        }
        tracing::debug!(%number, "checkpoint written");
        Ok(())
    }

    /// Deletes every checkpoint object that neither belongs to the two newest nor is a part that they name.
    async fn drop_old(&self, bucket: &Bucket) -> Result<(), KeepError> {
        let (Some((oldest, _)), KEPT) = (self.kept.front(), self.kept.len()) else { return Ok(()) };
        let mut needed: BTreeSet<Key> = BTreeSet::new();
        for (state, manifest) in &self.kept {
            needed.insert(bucket.checkpoint_key(state.number(), layout::MANIFEST));
            needed.extend(manifest.parts.iter().map(|part| bucket.checkpoint_key(part.number, &part.name)));
        }
        let mut old = Vec::new();
        let mut after: Option<Key> = None;
        loop {
            let (keys, more) = bucket.list(&bucket.checkpoints_directory(), after.as_ref()).await?;
            after = keys.last().cloned();
            old.extend(keys.into_iter().filter(|key| {
                let number = bucket.checkpoint_of(key).map(|(number, _)| number);
                number.is_some_and(|number| number < oldest.number()) && !needed.contains(key)
            }));
            if !more {
                break;
            }
        }
        let (manifests, parts): (Vec<Key>, Vec<Key>) =
            old.into_iter().partition(|key| key.as_str().ends_with(layout::MANIFEST));
        bucket.delete(&manifests).await?;
        bucket.delete(&parts).await?;
        Ok(())
    }
}
