//! Founding a log anew, with a state that is known from elsewhere: after the log was lost, and what it led to was not.
//!
//! 1. Nothing of it counts before `lakebed.json` stands, which is created last: whoever is interrupted begins again.
//! 2. [`RECOVERY_KEY`](layout::RECOVERY_KEY) is created first, where neither a root nor anything of a log stands, and deleted last. It names
//!    the two directories of the new log. Without a root, a commit in each and two checkpoints are what an interrupted founding has left;
//!    anything more is somebody's log, and is left alone.
//! 3. The log begins with an ordinary takeover, and goes on behind a checkpoint that holds the state, as if the commits before had been
//!    reclaimed. There are two checkpoints, for a log whose only one can't be read would begin from nothing; and between them stands what
//!    leads from the one to the other, as between all that are kept.

use lakebed_model::{Cell, Change, CommitNumber, Directory, Draft, Epoch, Nonce, Place, Snapshot, State, Takeover};
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
/// Commits that the two checkpoints fold: the takeover, one that never stood, and one that does.
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
    /// The directories of its log.
    directories: (Directory, Directory),
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
    let marked: Option<(Directory, Directory)> = match store.get(&key(layout::RECOVERY_KEY)).await {
        Ok(bytes) => std::str::from_utf8(&bytes).ok().and_then(|text| {
            let (first, second) = text.trim_end().split_once(' ')?;
            Some((first.parse().ok()?, second.parse().ok()?))
        }),
        Err(ReadError::NotFound { .. }) => None,
        Err(error) => return Err(error.into()),
    };
    // An interrupted founding leaves a few parts; a whole page of them is a log.
    let listed = store.list(&cells(), None, LISTED_MAX).await?;
    let cell = Cell::ZERO;
    let is_left = |key: &Key| {
        let Some((first, second)) = marked else { return false };
        let places = [Place { directory: first, index: 0 }, Place { directory: second, index: FOLDED[0] - 1 }];
        let is_commit = layout::parse_commit_key(cell, key.as_str()).is_some_and(|place| places.contains(&place));
        let checkpoint = layout::parse_checkpoint_key(cell, key.as_str());
        is_commit || checkpoint.is_some_and(|(number, _)| FOLDED.contains(&number.get()))
    };
    let left: Vec<Key> = listed.objects.into_iter().map(|listed| listed.key).collect();
    match left.iter().find(|key| !is_left(key)) {
        Some(first) => Err(FoundError::Log { first: first.clone() }),
        None if listed.more => Err(FoundError::Log { first: left[0].clone() }),
        None => Ok(marked.map(|directories| Interrupted { directories, left })),
    }
}

/// Marks the root as one whose log is to be founded, before anything else is written there for it; it may be marked already. [`found`] goes on
/// from there.
///
/// # Errors
/// [`FoundError`]
/// # Cost One PUT, and what [`may_be_founded`] asks.
pub async fn mark_as_to_be_founded(store: &Store, seed: u64) -> Result<(), FoundError> {
    match may_be_founded(store).await? {
        Some(_) => Ok(()),
        None => mark(store, &mut StdRng::seed_from_u64(seed)).await.map(drop),
    }
}

async fn mark(store: &Store, rng: &mut StdRng) -> Result<(Directory, Directory), FoundError> {
    let first = Directory { epoch: Epoch::ZERO, nonce: Nonce::new(rng.next_u64()) };
    let second = Directory { epoch: Epoch::new(1), nonce: Nonce::new(rng.next_u64()) };
    create(store, &key(layout::RECOVERY_KEY), format!("{first} {second}\n").into()).await?;
    Ok((first, second))
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
    let (first, second) = match may_be_founded(store).await? {
        Some(interrupted) => {
            store.delete(&interrupted.left).await?;
            interrupted.directories
        }
        None => mark(store, &mut rng).await?,
    };
    let identity = Identity { cluster_id, cell: Cell::ZERO };
    let bucket = Bucket::new(store.clone(), identity, Broken::default());
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
    snapshot.number = CommitNumber::new(FOLDED[0]);
    snapshot.place = Place { directory: second, index: FOLDED[0] - 1 };
    let older = State::restore(snapshot).map_err(|violation| FoundError::State(violation.to_string()))?;
    let manifest = write_checkpoint(store, &bucket, &older, None).await?;
    // It changes nothing that anybody sees: one producer id is never given.
    let mut draft = Draft::after(&older);
    let skipped = Change::AllotProducerIds { first: older.producer_ids_allotted(), count: 1 };
    draft.change(skipped).map_err(|refusal| FoundError::State(refusal.to_string()))?;
    let (commit, newer) = draft.seal(writer, time_ms);
    let place = key(&layout::commit_key(identity.cell, commit.place));
    create(store, &place, bucket.encode_commit(&commit, Body::empty())).await?;
    write_checkpoint(store, &bucket, &newer, Some(&manifest)).await?;
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
    lakebed_store::Directory::new(layout::CELLS).expect("it is portable")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use lakebed_store::{MemoryBackend, StoreOptions};

    use super::*;
    use crate::open::Options;
    use crate::seams::Seams;
    use crate::{Log, look};

    fn store() -> Store {
        Store::new("memory://", Arc::new(MemoryBackend::default()), &StoreOptions::default())
    }

    fn snapshot() -> Snapshot {
        let nowhere = Directory { epoch: Epoch::ZERO, nonce: Nonce::new(0) };
        State::new(nowhere).snapshot()
    }

    async fn found_on(store: &Store, seed: u64) -> Result<(), FoundError> {
        found(store, Uuid::from_u128(7), Snapshot { producer_ids: 99, ..snapshot() }, (seed, 5)).await
    }

    #[tokio::test]
    async fn a_log_that_was_founded_is_opened_like_others_and_is_not_founded_twice() {
        let store = store();
        found_on(&store, 1).await.unwrap();
        assert!(matches!(found_on(&store, 2).await, Err(FoundError::Root)));
        assert!(!store.exists(&key(layout::RECOVERY_KEY)).await.unwrap());
        let looked = look(&store, Cell::ZERO, Offload::Inline).await.unwrap();
        assert_eq!((looked.state.number().get(), looked.state.producer_ids_allotted()), (3, 100));
        let seams = Seams { wall: Arc::new(|| 0), seed: 3, offload: Offload::Inline };
        for number in [4, 5] {
            let log = Log::open(store.clone(), Options::default(), seams.clone()).await.unwrap();
            assert_eq!((log.state().number().get(), log.state().producer_ids_allotted()), (number, 100));
            log.abort();
        }
        // Without either of its checkpoints it goes on; without both it does not begin from nothing.
        let manifest = |number| key(&layout::checkpoint_key(Cell::ZERO, CommitNumber::new(number), layout::MANIFEST));
        store.overwrite(&manifest(3), &b"damaged"[..]).await.unwrap();
        assert_eq!(look(&store, Cell::ZERO, Offload::Inline).await.unwrap().state.number().get(), 5);
        store.overwrite(&manifest(2), &b"damaged"[..]).await.unwrap();
        assert!(look(&store, Cell::ZERO, Offload::Inline).await.is_err());
    }

    #[tokio::test]
    async fn what_an_interrupted_founding_has_left_is_removed_and_nothing_else_is() {
        let whole = store();
        found_on(&whole, 1).await.unwrap();
        let looked = look(&whole, Cell::ZERO, Offload::Inline).await.unwrap();
        let directories: Vec<String> = looked.state.directories().map(|(_, directory)| directory.to_string()).collect();
        let mark = format!("{}\n", directories.join(" "));
        let left = whole.list(&cells(), None, 100).await.unwrap().objects;
        // Up to any of its objects it may have come.
        for count in 0..=left.len() {
            let store = store();
            store.create(&key(layout::RECOVERY_KEY), mark.clone().into_bytes()).await.unwrap();
            for listed in &left[..count] {
                let bytes = whole.get(&listed.key).await.unwrap();
                store.create(&listed.key, bytes).await.unwrap();
            }
            found_on(&store, 2).await.unwrap();
            assert_eq!(look(&store, Cell::ZERO, Offload::Inline).await.unwrap().state.producer_ids_allotted(), 100);
        }
        // A mark that stayed beside a log whose root was lost.
        let foreign = key("cells/0/segments/01ARZ3NDEKTSV4RRFFQ69G5FAV.parquet");
        whole.delete(&[key(layout::ROOT_KEY)]).await.unwrap();
        whole.create(&key(layout::RECOVERY_KEY), mark.into_bytes()).await.unwrap();
        whole.create(&foreign, &b"records"[..]).await.unwrap();
        assert!(matches!(found_on(&whole, 3).await, Err(FoundError::Log { first }) if first == foreign));
        assert_eq!(whole.list(&cells(), None, 100).await.unwrap().objects.len(), left.len() + 1);
    }
}
