//! The objects of one cell in the bucket: commits, segments, checkpoints, by their keys. The only file of this crate that talks to
//! the store.

use std::time::Duration;

use bytes::Bytes;
use lakebed_model::{Commit, CommitNumber, Nonce, Place, SegmentId};
use lakebed_segment::body::Body;
use lakebed_segment::commit::{Identity, commit_object};
use lakebed_segment::footer::{Footer, Kind, Parsed};
use lakebed_segment::layout;
use lakebed_store::{BufferPool, CreateError, Created, DeleteError, Directory, Key, ListError, ReadError, Store};
use tokio::time::Instant;

use crate::broken::Broken;

/// How much of the end of a commit is read first; most footers fit.
const FOOTER_GUESS_BYTES: u64 = 16 * 1024;
/// Most keys that one LIST asks for.
const LIST_MAX: usize = 1000;

/// An object that can't be what its key says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("object {key} is damaged: {what}")]
pub struct DamagedObject {
    /// Its key.
    pub key: String,
    /// What is wrong with it.
    pub what: String,
}

/// What became of a commit that was put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Landed {
    /// It stands at its place.
    Durable,
    /// Another's stands there. Unless the log has passed this place (see [`Bucket::put_commit`]), ours never did and never will.
    Other {
        /// Whether the log may have passed the place, so that ours may have stood there before.
        passed: bool,
    },
}

/// What stands at a place that was thought free.
#[derive(Debug)]
pub(crate) enum Probed {
    Free,
    Taken { writer: Nonce },
    Damaged(DamagedObject),
}

/// Why a commit could not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CommitReadError {
    #[error(transparent)]
    Damaged(#[from] DamagedObject),
    #[error(transparent)]
    Store(#[from] ReadError),
}

/// What passes between two tries at the same thing, beyond the store's own patience: a store that refuses, because its disk is
/// full, say, refuses at once.
#[derive(Default)]
struct Pause {
    last: Duration,
    tries: u64,
    told: Option<Instant>,
}

impl Pause {
    const FIRST: Duration = Duration::from_millis(50);
    const LONGEST: Duration = Duration::from_secs(2);
    /// The log says so often that it goes on failing.
    const TOLD_EVERY: Duration = Duration::from_secs(30);

    /// Counts a try that failed. Gives how many have, if that is to be told now: at the first, then once in a while.
    fn failed(&mut self) -> Option<u64> {
        self.tries += 1;
        let due = self.told.is_none_or(|told| told.elapsed() >= Self::TOLD_EVERY);
        due.then(|| {
            self.told = Some(Instant::now());
            self.tries
        })
    }

    async fn wait(&mut self) {
        self.last = (self.last * 2).clamp(Self::FIRST, Self::LONGEST);
        tokio::time::sleep(self.last).await;
    }
}

/// An error with its causes in one line: the last one says what a person can do about it.
fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// One cell's part of the bucket.
#[derive(Debug, Clone)]
pub(crate) struct Bucket {
    store: Store,
    identity: Identity,
    broken: Broken,
}

impl Bucket {
    pub(crate) fn new(store: Store, identity: Identity, broken: Broken) -> Self {
        Self { store, identity, broken }
    }

    pub(crate) fn identity(&self) -> Identity {
        self.identity
    }

    pub(crate) fn buffers(&self) -> &BufferPool {
        self.store.buffers()
    }

    pub(crate) fn encode_commit(&self, commit: &Commit, body: Body) -> Bytes {
        self.store.buffers().freeze(commit_object(&self.identity, commit, body))
    }

    /// Puts a commit at its place, again and again, until its fate is known.
    ///
    /// SUBTLE: another's object at the place does not prove that ours never stood there. Ours may have landed unanswered, been read,
    /// merged away and reclaimed by a successor, whose own late takeover then fell into the hole. A checkpoint beyond the place tells;
    /// so does a LIST that fails, which proves nothing.
    ///
    /// # Order  The LIST begins after the other's object was seen.
    /// # Cancel Its fate is unknown.
    pub(crate) async fn put_commit(&self, place: Place, number: CommitNumber, object: Bytes) -> Landed {
        let key = commit_key(&self.identity, place);
        let mut pause = Pause::default();
        loop {
            match self.store.create(&key, object.clone()).await {
                Ok(Created::New) => return Landed::Durable,
                Ok(Created::Mine) if self.broken.skips_read_back() => return Landed::Other { passed: false },
                Ok(Created::Mine) => return Landed::Durable,
                Ok(Created::Other) => return Landed::Other { passed: self.may_have_passed(number).await },
                Err(error @ (CreateError::NotDone { .. } | CreateError::Unknown { .. })) => {
                    if let Some(tries) = pause.failed() {
                        let error = with_causes(&error);
                        tracing::warn!(%key, error, tries, "a commit can't be stored, and is tried again: nothing is acknowledged until it is; see that the store has room, can be reached and takes writes");
                    }
                    pause.wait().await;
                }
            }
        }
    }

    /// Whether the log may have gone beyond commit `number`, so that its object may have been reclaimed.
    async fn may_have_passed(&self, number: CommitNumber) -> bool {
        if self.broken.skips_list_when_fenced() {
            return false;
        }
        match self.checkpoints().await {
            Ok(checkpoints) => checkpoints.iter().any(|checkpoint| *checkpoint > number),
            Err(error) => {
                tracing::warn!(%number, %error, "checkpoints can't be listed: the fate of commits in flight stays unknown");
                true
            }
        }
    }

    /// Looks whether a place is free, again and again, until the store answers.
    pub(crate) async fn probe(&self, place: Place) -> Probed {
        let mut pause = Pause::default();
        loop {
            match self.read_commit(place).await {
                Ok(None) => return Probed::Free,
                Ok(Some(commit)) => return Probed::Taken { writer: commit.writer },
                Err(CommitReadError::Damaged(damaged)) => return Probed::Damaged(damaged),
                Err(CommitReadError::Store(error)) => {
                    if let Some(tries) = pause.failed() {
                        let error = with_causes(&error);
                        tracing::warn!(%place, error, tries, "the store does not say where the log ends, and is asked again: see that it can be reached");
                    }
                    pause.wait().await;
                }
            }
        }
    }

    /// Reads the commit at a place, its footer only; `None` if nothing stands there.
    pub(crate) async fn read_commit(&self, place: Place) -> Result<Option<Commit>, CommitReadError> {
        let key = commit_key(&self.identity, place);
        let damaged = |what: String| DamagedObject { key: key.to_string(), what };
        let mut length = FOOTER_GUESS_BYTES;
        loop {
            let suffix = match self.store.get_suffix(&key, length).await {
                Ok(suffix) => suffix,
                Err(ReadError::NotFound { .. }) => return Ok(None),
                Err(error) => return Err(error.into()),
            };
            let parsed =
                Footer::parse(&suffix.bytes, suffix.object_size_bytes).map_err(|error| damaged(error.to_string()))?;
            match parsed {
                Parsed::NeedsSuffix(needed) if needed > length => length = needed,
                Parsed::NeedsSuffix(needed) => {
                    return Err(damaged(format!("its footer asks for {needed} bytes")).into());
                }
                Parsed::Whole(footer) => {
                    let Kind::Commit(commit) = footer.kind else {
                        return Err(damaged("it is no commit".to_owned()).into());
                    };
                    if footer.identity != self.identity || commit.place != place {
                        return Err(damaged(format!("it is commit {} at {}", commit.number, commit.place)).into());
                    }
                    return Ok(Some(commit));
                }
            }
        }
    }

    pub(crate) async fn get(&self, key: &Key) -> Result<Bytes, ReadError> {
        self.store.get(key).await
    }

    pub(crate) async fn create(&self, key: &Key, object: Bytes) -> Result<Created, CreateError> {
        self.store.create(key, object).await
    }

    /// Some keys under a directory after `start_after`, in order, and whether there are more.
    pub(crate) async fn list(
        &self,
        directory: &Directory,
        start_after: Option<&Key>,
    ) -> Result<(Vec<Key>, bool), ListError> {
        let listed = self.store.list(directory, start_after, LIST_MAX).await?;
        Ok((listed.objects.into_iter().map(|one| one.key).collect(), listed.more))
    }

    /// The numbers of the checkpoints whose manifest stands, ascending.
    pub(crate) async fn checkpoints(&self) -> Result<Vec<CommitNumber>, ListError> {
        let directory = directory(&layout::checkpoints_prefix(self.identity.cell));
        let mut numbers = Vec::new();
        let mut after: Option<Key> = None;
        loop {
            let (keys, more) = self.list(&directory, after.as_ref()).await?;
            for key in &keys {
                if let Some((number, part)) = self.checkpoint_of(key)
                    && part == layout::MANIFEST
                {
                    numbers.push(number);
                }
            }
            if !more {
                return Ok(numbers);
            }
            after = keys.into_iter().next_back();
        }
    }

    pub(crate) async fn delete(&self, keys: &[Key]) -> Result<(), DeleteError> {
        if keys.is_empty() { Ok(()) } else { self.store.delete(keys).await }
    }

    pub(crate) fn checkpoint_key(&self, number: CommitNumber, part: &str) -> Key {
        key(&layout::checkpoint_key(self.identity.cell, number, part))
    }

    pub(crate) fn log_directory(&self) -> Directory {
        directory(&layout::log_prefix(self.identity.cell))
    }

    pub(crate) fn segments_directory(&self) -> Directory {
        directory(&layout::segments_prefix(self.identity.cell))
    }

    pub(crate) fn checkpoints_directory(&self) -> Directory {
        directory(&layout::checkpoints_prefix(self.identity.cell))
    }

    /// The place that a key of the log stands for.
    pub(crate) fn place_of(&self, key: &Key) -> Option<Place> {
        layout::parse_commit_key(self.identity.cell, key.as_str())
    }

    /// The segment that a key stands for.
    pub(crate) fn segment_of(&self, key: &Key) -> Option<SegmentId> {
        layout::parse_segment_key(self.identity.cell, key.as_str())
    }

    /// The checkpoint and the name of its part that a key stands for.
    pub(crate) fn checkpoint_of<'a>(&self, key: &'a Key) -> Option<(CommitNumber, &'a str)> {
        layout::parse_checkpoint_key(self.identity.cell, key.as_str())
    }
}

fn commit_key(identity: &Identity, place: Place) -> Key {
    key(&layout::commit_key(identity.cell, place))
}

pub(crate) fn key(text: &str) -> Key {
    Key::new(text).expect("keys of the layout are valid")
}

fn directory(text: &str) -> Directory {
    Directory::new(text.trim_end_matches('/')).expect("directories of the layout are valid")
}
