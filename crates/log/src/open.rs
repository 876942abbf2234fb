//! Opening a log: bootstrap, replay, take over.

use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use lakebed_model::{Cell, CommitNumber, Directory, Draft, Epoch, Nonce, Place, State, Takeover};
use lakebed_segment::FormatError;
use lakebed_segment::body::Body;
use lakebed_segment::commit::Identity;
use lakebed_segment::layout;
use lakebed_segment::root::Root;
use lakebed_store::{CreateError, Created, ListError, ReadError, Store};
use rand::rngs::StdRng;
use rand::{RngCore, SeedableRng};
use tokio::sync::{mpsc, watch};

use crate::append_error::Closed;
use crate::broken::Broken;
use crate::bucket::{Bucket, Landed, key};
use crate::checkpoint::Keeper;
use crate::handle::{Log, Role, Shared};
use crate::left::{Left, left};
use crate::replay::{Replay, ReplayError};
use crate::seams::Seams;
use crate::sequencer::Sequencer;

/// Requests that wait for the sequencer; more wait in `submit`.
pub(crate) const REQUESTS_MAX: usize = 1024;
/// Takeovers in a row that may be void before opening gives up: each means that others took over and wrote checkpoints meanwhile.
const TAKEOVERS_MAX: usize = 64;

/// How a log is opened.
#[derive(Debug, Clone)]
pub struct Options {
    /// Which cell.
    pub cell: Cell,
    /// How many cells a store gets if it is empty (1). They never change afterwards.
    pub cells: NonZeroU16,
    /// Where this broker can be reached by others; empty if nowhere.
    pub address: String,
    /// Commits in flight at once (6): as many as there are flushes. More hide the store's latency; each holds one flush in memory.
    pub in_flight_max: usize,
    /// A checkpoint is written after so many commits (1000), and up to 4 times as many when the state is large. More: fewer bytes written,
    /// more commits to read when the log is opened.
    pub checkpoint_commits: u64,
    /// Longest wait of a barrier (10 s). More: clients wait longer for a store that does not answer, in place of asking again.
    pub barrier_time_max: Duration,
    /// Flush ids remembered; `None` for the default of 4096.
    pub flushes_remembered_max: Option<usize>,
    /// Which rule is left out.
    pub broken: Broken,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            cell: Cell::ZERO,
            cells: NonZeroU16::MIN,
            address: String::new(),
            in_flight_max: 6,
            checkpoint_commits: 1000,
            barrier_time_max: Duration::from_secs(10),
            flushes_remembered_max: None,
            broken: Broken::default(),
        }
    }
}

/// Why a log can't be opened. Nothing of the log has been changed, except that a takeover may stand in it.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// `lakebed.json` can't be understood.
    #[error("{key} can't be used: {source}", key = layout::ROOT_KEY)]
    Root {
        /// Why.
        source: FormatError,
    },
    /// The root has no such cell.
    #[error("{key} names {cells} cells, so there is no cell {cell}", key = layout::ROOT_KEY)]
    NoSuchCell {
        /// The cell that was asked for.
        cell: Cell,
        /// How many there are.
        cells: usize,
    },
    /// The store did not take `lakebed.json`.
    #[error("the store can't be written: {source}")]
    Write {
        /// Why.
        source: CreateError,
    },
    /// The store could not be read.
    #[error("the store can't be read: {source}")]
    Read {
        /// Why.
        source: ReadError,
    },
    /// The store could not be listed.
    #[error("the store can't be listed: {source}")]
    List {
        /// Why.
        source: ListError,
    },
    /// Something stands that only stands beside a root, and there is none: no log is begun there.
    #[error("{left}")]
    Rootless {
        /// What stands.
        left: Left,
    },
    /// The log can't be replayed.
    #[error(transparent)]
    Replay(#[from] ReplayError),
    /// Another broker that runs has this one's address.
    #[error("another broker has taken the log over that says that it is reached at {address}, too")]
    SameAddress {
        /// The address.
        address: String,
    },
    /// Others keep taking over.
    #[error("others took over {takeovers} times while this broker tried")]
    Crowded {
        /// How often it tried.
        takeovers: usize,
    },
    /// Something that can't be: a rule of the log refuses our own takeover.
    #[error("a takeover can't be written: {what}")]
    Takeover {
        /// Why.
        what: String,
    },
}

impl Log {
    /// Opens the log of a cell and becomes its sequencer: creates it if the store is empty, replays it, takes over.
    ///
    /// Must be called in a tokio runtime: the sequencer is a task of it.
    ///
    /// # Errors
    /// [`OpenError`].
    /// # Cancel A takeover may stand in the log; whoever was the sequencer is fenced.
    /// # Cost   GET root, LIST and GET of a checkpoint, a GET a commit behind it, PUT of the takeover, LIST.
    pub async fn open(store: Store, options: Options, seams: Seams) -> Result<Self, OpenError> {
        let mut rng = StdRng::seed_from_u64(seams.seed);
        let (identity, empty) = rooted(&store, &options, &mut rng).await?;
        let bucket = Bucket::new(store, identity, options.broken);
        let nonce = Nonce::new(rng.next_u64());
        match take_over(&bucket, empty, None, &options, &seams, nonce, &mut rng).await? {
            Ok(taken) => Ok(lead(bucket, options, seams, nonce, taken)),
            Err(_) => Err(OpenError::Crowded { takeovers: 0 }),
        }
    }
}

/// Whose log it is, and its state before the first commit.
pub(crate) async fn rooted(store: &Store, options: &Options, rng: &mut StdRng) -> Result<(Identity, State), OpenError> {
    let root = bootstrap(store, options.cells, rng).await?;
    let cells = root.cells.len();
    let first =
        *root.cells.get(usize::from(options.cell.get())).ok_or(OpenError::NoSuchCell { cell: options.cell, cells })?;
    Ok((Identity { cluster_id: root.cluster_id, cell: options.cell }, State::new(first)))
}

/// The handle of a log that was taken over just now, with its sequencer.
pub(crate) fn lead(bucket: Bucket, options: Options, seams: Seams, nonce: Nonce, taken: (State, Keeper)) -> Log {
    let (state, keeper) = taken;
    tracing::info!(epoch = %state.place().directory.epoch, commits = %state.number(), "this broker is the sequencer");
    let shared = Arc::new(Shared::new(bucket, options, seams, nonce, (state, keeper.newest())));
    let (requests, receiver) = mpsc::channel(REQUESTS_MAX);
    let (closed_sender, closed) = watch::channel(None);
    let sequencer = Sequencer::new(Arc::clone(&shared), receiver, keeper);
    let task = tokio::spawn(ClosedGuard::run(closed_sender, async |sender| sequencer.run(sender).await));
    Log::new(Role::Sequencer, shared, requests, closed, task.abort_handle())
}

/// Sets the watch on every way out of a task, a panic included, or nobody would notice that it has ended.
pub(crate) struct ClosedGuard {
    sender: watch::Sender<Option<Closed>>,
    reason: Option<Closed>,
}

impl ClosedGuard {
    pub(crate) async fn run(
        sender: watch::Sender<Option<Closed>>,
        task: impl AsyncFnOnce(&watch::Sender<Option<Closed>>) -> Closed,
    ) {
        let mut guard = Self { sender, reason: None };
        guard.reason = Some(task(&guard.sender).await);
    }
}

impl Drop for ClosedGuard {
    fn drop(&mut self) {
        let ended = || Closed::Damaged { what: "its task ended before its time".to_owned() };
        self.sender.send_replace(Some(self.reason.take().unwrap_or_else(ended)));
    }
}

/// Reads `lakebed.json`, creating it if the store is empty.
///
/// # Cost One GET; where there is none, what [`left`] costs, and a PUT.
async fn bootstrap(store: &Store, cells: NonZeroU16, rng: &mut StdRng) -> Result<Root, OpenError> {
    let root_key = key(layout::ROOT_KEY);
    loop {
        match store.get(&root_key).await {
            Ok(bytes) => return Root::decode(&bytes).map_err(|source| OpenError::Root { source }),
            Err(ReadError::NotFound { .. }) => {}
            Err(source) => return Err(OpenError::Read { source }),
        }
        if let Some(left) = left(store).await? {
            // SUBTLE: what was found may be that of a broker which has begun the log since we looked for its root. That was created first,
            // so it is there now.
            match store.exists(&root_key).await {
                Ok(true) => continue,
                Ok(false) => return Err(OpenError::Rootless { left }),
                Err(source) => return Err(OpenError::Read { source }),
            }
        }
        let mut random = [0; 16];
        rng.fill_bytes(&mut random);
        let cluster_id = uuid::Builder::from_random_bytes(random).into_uuid();
        let directories = (0..cells.get()).map(|_| Directory { epoch: Epoch::ZERO, nonce: Nonce::new(rng.next_u64()) });
        let root = Root { cluster_id, cells: directories.collect() };
        match store.create(&root_key, root.encode()).await {
            Ok(Created::New | Created::Mine | Created::Other) => {}
            Err(source) => return Err(OpenError::Write { source }),
        }
    }
}

/// Replays to the end and closes the epoch that is found there, until that holds; if only one epoch is to be closed, and somebody else has, the
/// state.
pub(crate) async fn take_over(
    bucket: &Bucket,
    known: State,
    only: Option<Epoch>,
    options: &Options,
    seams: &Seams,
    nonce: Nonce,
    rng: &mut StdRng,
) -> Result<Result<(State, Keeper), State>, OpenError> {
    let mut replay = Replay::new(bucket.clone(), known, options.broken, seams.offload);
    for _ in 0..TAKEOVERS_MAX {
        replay.reach_the_end().await?;
        let state = replay.state();
        if only.is_some_and(|only| state.place().directory.epoch != only) {
            return Ok(Err(replay.into_state()));
        }
        let epoch = state.place().directory.epoch.get().checked_add(1).map(Epoch::new);
        let epoch = epoch.ok_or_else(|| OpenError::Takeover { what: "no epochs are left".to_owned() })?;
        let next = Directory { epoch, nonce: Nonce::new(rng.next_u64()) };
        let takeover = Takeover { next, address: options.address.clone() };
        let (commit, after) = Draft::takeover(state, takeover, nonce, (seams.wall)())
            .map_err(|refusal| OpenError::Takeover { what: refusal.to_string() })?;
        let object = bucket.encode_commit(&commit, Body::empty());
        if matches!(bucket.put_commit(commit.place, commit.number, object).await, Landed::Other { .. }) {
            continue;
        }
        let newest = match options.broken.skips_list_after_taking_over() {
            true => Some(replay.newest_loaded()),
            false => newest_below(bucket, commit.place, commit.number).await?,
        };
        if let Some(newest) = newest {
            return Ok(Ok((after, Keeper::new(options.checkpoint_commits, newest))));
        }
    }
    Err(OpenError::Crowded { takeovers: TAKEOVERS_MAX })
}

/// The newest checkpoint that stands, or 0; `None` if it covers the place of a takeover: then the log had passed that place already.
///
/// # Order  Begins its LIST after the takeover's PUT was answered.
async fn newest_below(bucket: &Bucket, place: Place, number: CommitNumber) -> Result<Option<CommitNumber>, OpenError> {
    // A LIST that fails proves nothing, so this broker is not the owner.
    let checkpoints = bucket.checkpoints().await.map_err(|source| OpenError::List { source })?;
    let newest = checkpoints.last().copied().unwrap_or(CommitNumber::ZERO);
    if newest > number {
        tracing::warn!(%place, "a checkpoint covers the place of this takeover: it is void, replaying again");
        return Ok(None);
    }
    Ok(Some(newest))
}
