//! Founding a log anew, with a state that is known from elsewhere: after the log was lost, and what it led to was not.
//!
//! 1. Nothing of it counts before `lakebed.json` stands, which is created last: whoever is interrupted begins again.
//! 2. [`RECOVERY_KEY`](layout::RECOVERY_KEY) is created first, where neither a root nor anything of a log stands, and deleted last. It names
//!    directory 0 of the new log. Without a root, a takeover there and two checkpoints are what an interrupted founding has left; anything
//!    more is somebody's log, and is left alone.
//! 3. The log begins with an ordinary takeover, and goes on behind two checkpoints that hold the state, as if the commits between had been
//!    reclaimed. There are two, for a log whose only checkpoint can't be read would begin from nothing.

use lakebed_model::{Cell, CommitNumber, Directory, Draft, Epoch, Nonce, Place, Snapshot, State, Takeover};
use lakebed_segment::body::Body;
use lakebed_segment::checkpoint::{self as format, Manifest};
use lakebed_segment::commit::Identity;
use lakebed_segment::layout;
use lakebed_segment::root::Root;
use lakebed_store::{CreateError, Created, DeleteError, Key, ListError, ReadError, Store};
use rand::rngs::StdRng;
use rand::{RngCore, SeedableRng};
use uuid::Uuid;

use crate::broken::Broken;
use crate::bucket::{Bucket, key};
use crate::checkpoint;
use crate::seams::Offload;

/// Keys that one LIST asks for.
const LISTED_MAX: usize = 10_000;
/// Commits that the two checkpoints fold: the takeover, and one and two that never stood.
const FOLDED: [u64; 2] = [2, 3];

/// Why a log was not founded. If anything was written, the next founding removes it.
#[derive(Debug, thiserror::Error)]
pub enum FoundError {
    /// A root stands.
    #[error("{key} stands there: there is a log", key = layout::ROOT_KEY)]
    Root,
    /// Something of a log stands, without a root.
    #[error("'{first}' stands there: there is something of a log, though {key} is missing", key = layout::ROOT_KEY)]
    Log {
        /// The first of it.
        first: Key,
    },
    /// The state contradicts itself: a bug.
    #[error("the state can't be: {0}")]
    State(String),
    /// What was written does not read back.
    #[error("what was written does not read back: {0}")]
    Unfaithful(String),
    /// The store gave no good answer.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The store gave no good answer.
    #[error(transparent)]
    List(#[from] ListError),
    /// The store did not take an object.
    #[error(transparent)]
    Create(#[from] CreateError),
    /// The store did not delete an object.
    #[error(transparent)]
    Delete(#[from] DeleteError),
}

/// What an interrupted founding has left.
#[derive(Debug)]
pub struct Interrupted {
    /// Directory 0 of its log.
    first: Directory,
    /// What stands of it.
    left: Vec<Key>,
}

/// Whether a log may be founded there; what an earlier founding has left, if one was interrupted.
///
/// # Errors
/// [`FoundError::Root`], [`FoundError::Log`] if not.
pub async fn may_be_founded(store: &Store) -> Result<Option<Interrupted>, FoundError> {
    if store.exists(&key(layout::ROOT_KEY)).await? {
        return Err(FoundError::Root);
    }
    let first: Option<Directory> = match store.get(&key(layout::RECOVERY_KEY)).await {
        Ok(bytes) => std::str::from_utf8(&bytes).ok().and_then(|text| text.trim_end().parse().ok()),
        Err(ReadError::NotFound { .. }) => None,
        Err(error) => return Err(error.into()),
    };
    // An interrupted founding leaves a few parts; a whole page of them is a log.
    let listed = store.list(&cells(), None, LISTED_MAX).await?;
    let cell = Cell::ZERO;
    let is_left = |key: &Key| {
        let is_takeover = first.is_some_and(|first| {
            layout::parse_commit_key(cell, key.as_str()) == Some(Place { directory: first, index: 0 })
        });
        let checkpoint = layout::parse_checkpoint_key(cell, key.as_str());
        is_takeover || first.is_some() && checkpoint.is_some_and(|(number, _)| FOLDED.contains(&number.get()))
    };
    let left: Vec<Key> = listed.objects.into_iter().map(|listed| listed.key).collect();
    match left.iter().find(|key| !is_left(key)) {
        Some(first) => Err(FoundError::Log { first: first.clone() }),
        None if listed.more => Err(FoundError::Log { first: left[0].clone() }),
        None => Ok(first.map(|first| Interrupted { first, left })),
    }
}

/// Founds the log of a cluster of one cell. `snapshot` is the state; its number, place, owner and directories are drawn here, by `seed`, and
/// the commits of its tables are set.
///
/// # Errors
/// [`FoundError`]
/// # Cancel As a crash: to be repeated.
/// # Cost   PUTs of two checkpoints and four small objects, and what an interrupted founding has left.
pub async fn found(
    store: &Store,
    cluster_id: Uuid,
    mut snapshot: Snapshot,
    (seed, time_ms): (u64, i64),
) -> Result<(), FoundError> {
    let mut rng = StdRng::seed_from_u64(seed);
    let first = match may_be_founded(store).await? {
        Some(interrupted) => {
            store.delete(&interrupted.left).await?;
            interrupted.first
        }
        None => {
            let first = Directory { epoch: Epoch::ZERO, nonce: Nonce::new(rng.next_u64()) };
            create(store, &key(layout::RECOVERY_KEY), format!("{first}\n").into()).await?;
            first
        }
    };
    let identity = Identity { cluster_id, cell: Cell::ZERO };
    let bucket = Bucket::new(store.clone(), identity, Broken::default());
    let second = Directory { epoch: Epoch::new(1), nonce: Nonce::new(rng.next_u64()) };
    let writer = Nonce::new(rng.next_u64());
    let takeover = Takeover { next: second, address: String::new() };
    let (commit, after) = Draft::takeover(&State::new(first), takeover, writer, time_ms)
        .map_err(|refusal| FoundError::State(refusal.to_string()))?;
    let place = key(&layout::commit_key(identity.cell, commit.place));
    create(store, &place, bucket.encode_commit(&commit, Body::empty())).await?;
    snapshot.owner = after.owner();
    snapshot.directories = after.directories().collect();
    for (_, table) in &mut snapshot.tables {
        table.commit = commit.number.next();
    }
    let mut previous: Option<Manifest> = None;
    for number in FOLDED {
        snapshot.number = CommitNumber::new(number);
        snapshot.place = Place { directory: second, index: number - 1 };
        let state = State::restore(snapshot.clone()).map_err(|violation| FoundError::State(violation.to_string()))?;
        previous = Some(write_checkpoint(store, &bucket, &state, previous.as_ref()).await?);
    }
    let root = Root { cluster_id, cells: vec![first] };
    match store.create(&key(layout::ROOT_KEY), root.encode()).await? {
        Created::New | Created::Mine => {}
        Created::Other => return Err(FoundError::Root),
    }
    store.delete(&[key(layout::RECOVERY_KEY)]).await?;
    Ok(())
}

/// Writes a checkpoint of a state, and reads it back.
async fn write_checkpoint(
    store: &Store,
    bucket: &Bucket,
    state: &State,
    previous: Option<&Manifest>,
) -> Result<Manifest, FoundError> {
    let encoded = format::encode(&bucket.identity(), &state.snapshot(), previous);
    let number = state.number();
    for (name, part) in encoded.parts {
        create(store, &bucket.checkpoint_key(number, &name), part).await?;
    }
    create(store, &bucket.checkpoint_key(number, layout::MANIFEST), encoded.manifest).await?;
    let (read, manifest) = checkpoint::load(bucket, number, Offload::Blocking)
        .await
        .map_err(|error| FoundError::Unfaithful(error.to_string()))?;
    if &read == state { Ok(manifest) } else { Err(FoundError::Unfaithful(format!("checkpoint {number} is another"))) }
}

async fn create(store: &Store, key: &Key, bytes: bytes::Bytes) -> Result<(), FoundError> {
    match store.create(key, bytes).await? {
        Created::New | Created::Mine => Ok(()),
        Created::Other => Err(FoundError::Log { first: key.clone() }),
    }
}

fn cells() -> lakebed_store::Directory {
    lakebed_store::Directory::new("cells").expect("it is portable")
}
