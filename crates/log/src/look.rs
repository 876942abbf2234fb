//! Looking at a log without becoming its sequencer: nothing is written, and whoever is the sequencer goes on.

use lakebed_model::{Cell, CommitNumber, Place, State};
use lakebed_segment::checkpoint::Manifest;
use lakebed_segment::commit::Identity;
use lakebed_segment::layout;
use lakebed_segment::root::Root;
use lakebed_store::{ReadError, Store};

use crate::broken::Broken;
use crate::bucket::{Bucket, key};
use crate::checkpoint::{self, LoadError};
use crate::open::OpenError;
use crate::replay::Replay;
use crate::seams::Offload;

/// A log as it stood.
#[derive(Debug)]
pub struct Looked {
    /// The root.
    pub root: Root,
    /// Whose log it is.
    pub identity: Identity,
    /// The state at its end.
    pub state: State,
    /// The checkpoint that the state was replayed from; `None` if all commits were read.
    pub checkpoint: Option<CommitNumber>,
    /// Where reading began behind that checkpoint: what stands there and later is needed to open the log.
    pub replayed_from: Place,
}

/// Reads the log of a cell to its end.
///
/// # Errors
/// [`OpenError`]; [`OpenError::Read`] with [`ReadError::NotFound`] if there is no root.
/// # Cost   GET root, LIST and GET of a checkpoint, a GET a commit behind it.
pub async fn look(store: &Store, cell: Cell, offload: Offload) -> Result<Looked, OpenError> {
    let root = read_root(store).await?;
    let cells = root.cells.len();
    let first = *root.cells.get(usize::from(cell.get())).ok_or(OpenError::NoSuchCell { cell, cells })?;
    let identity = Identity { cluster_id: root.cluster_id, cell };
    let bucket = Bucket::new(store.clone(), identity, Broken::default());
    let empty = State::new(first);
    let mut replayed_from = empty.place();
    let mut replay = Replay::new(bucket, empty, Broken::default(), offload);
    replay.reach_the_end().await?;
    let state = replay.state().clone();
    let kept = replay.into_kept();
    if let Some((state, _)) = &kept {
        replayed_from = state.place();
    }
    Ok(Looked { root, identity, state, checkpoint: kept.map(|(state, _)| state.number()), replayed_from })
}

/// Reads `lakebed.json`.
///
/// # Errors
/// [`OpenError::Root`], [`OpenError::Read`]
pub async fn read_root(store: &Store) -> Result<Root, OpenError> {
    let bytes = store.get(&key(layout::ROOT_KEY)).await.map_err(|source| OpenError::Read { source })?;
    Root::decode(&bytes).map_err(|source| OpenError::Root { source })
}

/// Loads one checkpoint, whether or not the log needs it: every part is read and verified, and they must make a state.
///
/// # Errors
/// What is wrong with it, or why the store could not be read.
pub async fn load_checkpoint(
    store: &Store,
    identity: Identity,
    number: CommitNumber,
    offload: Offload,
) -> Result<Result<(State, Manifest), String>, ReadError> {
    let bucket = Bucket::new(store.clone(), identity, Broken::default());
    match checkpoint::load(&bucket, number, offload).await {
        Ok(loaded) => Ok(Ok(loaded)),
        Err(LoadError::Damaged(what)) => Ok(Err(what)),
        Err(LoadError::Store(error)) => Err(error),
    }
}
