//! Replay: from the newest readable checkpoint, commit by commit, footers only, to the first free place.

use futures::stream::{FuturesOrdered, StreamExt};
use lakebed_model::{ApplyError, Commit, CommitNumber, Entry, Epoch, Place, State};
use lakebed_segment::checkpoint::Manifest;
use lakebed_store::{ListError, ReadError};

use crate::broken::Broken;
use crate::bucket::{Bucket, CommitReadError, DamagedObject};
use crate::checkpoint::{self, LoadError};
use crate::seams::Offload;

/// Commits that are read ahead at first, and at most.
const READ_AHEAD_MIN: usize = 4;
const READ_AHEAD_MAX: usize = 64;
/// LISTs of checkpoints before replay gives up: each of them means that others wrote at least one since the one before.
const LISTS_MAX: usize = 16;

/// Why a log can't be replayed.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// An object is damaged.
    #[error(transparent)]
    Damaged(#[from] DamagedObject),
    /// The store could not be read.
    #[error("the log can't be read: {0}")]
    Read(#[from] ReadError),
    /// The store could not be listed.
    #[error("the log can't be listed: {0}")]
    List(#[from] ListError),
    /// A commit does not follow from those before it.
    #[error("the log contradicts itself: {0}")]
    Apply(#[from] ApplyError),
    /// No checkpoint can be read, and without one the log can't be.
    #[error("checkpoint {number} is needed but can't be read: {what}")]
    Checkpoint {
        /// Its number.
        number: CommitNumber,
        /// What is wrong.
        what: String,
    },
    /// Others replace the checkpoints faster than they can be read.
    #[error(
        "the checkpoints were replaced {lists} times while this broker read them: \
         the sequencer writes them faster than they can be read from here; try again when it is less busy"
    )]
    Outrun {
        /// How often they were listed.
        lists: usize,
    },
}

/// A state on its way to the end of the log.
pub(crate) struct Replay {
    bucket: Bucket,
    state: State,
    kept: Option<(State, Manifest)>,
    broken: Broken,
    offload: Offload,
}

/// What stopped a stretch of reading.
enum Stop {
    /// Nothing stands at the next place.
    Nothing,
    /// A takeover stands there, read but not yet followed.
    Takeover(Box<Commit>),
}

impl Replay {
    /// Begins at a state, usually the empty one.
    pub(crate) fn new(bucket: Bucket, state: State, broken: Broken, offload: Offload) -> Self {
        Self { bucket, state, kept: None, broken, offload }
    }

    /// Where it has come to.
    pub(crate) fn state(&self) -> &State {
        &self.state
    }

    /// The number of the checkpoint that it began from; 0 if from none.
    pub(crate) fn newest_loaded(&self) -> CommitNumber {
        self.kept.as_ref().map_or(CommitNumber::ZERO, |(state, _)| state.number())
    }

    /// The state that it has come to.
    pub(crate) fn into_state(self) -> State {
        self.state
    }

    /// The checkpoint that it began from.
    pub(crate) fn into_kept(self) -> Option<(State, Manifest)> {
        self.kept
    }

    /// Goes on to the first free place.
    ///
    /// # Errors
    /// [`ReplayError`]; what has been replayed so far stays.
    pub(crate) async fn reach_the_end(&mut self) -> Result<(), ReplayError> {
        self.reach_beyond(None).await
    }

    /// Goes on until the log has left the directory of an epoch, or to the first free place.
    ///
    /// # Errors
    /// [`ReplayError`]; what has been replayed so far stays.
    pub(crate) async fn reach_beyond(&mut self, epoch: Option<Epoch>) -> Result<(), ReplayError> {
        if self.state.number() == CommitNumber::ZERO {
            self.jump().await?;
        }
        while !self.is_beyond(epoch) {
            match self.read_on().await? {
                // The end, or reclaimed: LIST tells.
                Stop::Nothing => {
                    if !self.jump().await? {
                        return Ok(());
                    }
                }
                Stop::Takeover(takeover) => {
                    // SUBTLE: a takeover at a place that was reclaimed is no part of the log; only a LIST begun after its GET tells.
                    if self.broken.skips_list_before_following() || !self.jump().await? {
                        self.state.apply(&takeover)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Applies commits from the next place on, until nothing stands there, or a takeover does.
    async fn read_on(&mut self) -> Result<Stop, ReplayError> {
        let mut ahead = READ_AHEAD_MIN;
        let mut reads = FuturesOrdered::new();
        let mut next = self.state.place();
        loop {
            while reads.len() < ahead {
                let (bucket, place) = (self.bucket.clone(), next);
                reads.push_back(async move { bucket.read_commit(place).await });
                next = Place { index: next.index + 1, ..next };
            }
            let read = reads.next().await.expect("reads were begun above");
            match read {
                Ok(None) => return Ok(Stop::Nothing),
                Ok(Some(commit)) if is_takeover(&commit) => return Ok(Stop::Takeover(Box::new(commit))),
                Ok(Some(commit)) => self.state.apply(&commit)?,
                Err(CommitReadError::Damaged(damaged)) => return Err(damaged.into()),
                Err(CommitReadError::Store(error)) => return Err(error.into()),
            }
            ahead = (ahead * 2).min(READ_AHEAD_MAX);
        }
    }

    fn is_beyond(&self, epoch: Option<Epoch>) -> bool {
        epoch.is_some_and(|epoch| self.state.place().directory.epoch > epoch)
    }

    /// Loads the newest readable checkpoint that is beyond the state, if there is one.
    ///
    /// SUBTLE: between LIST and GET the sequencer may have written two more and deleted those that were listed. One that is missing
    /// is damage only if a later LIST still names the same.
    async fn jump(&mut self) -> Result<bool, ReplayError> {
        let mut numbers = self.bucket.checkpoints().await?;
        for _ in 0..LISTS_MAX {
            let failure = match self.load_newest_of(&numbers).await? {
                Ok(jumped) => return Ok(jumped),
                Err(failure) => failure,
            };
            let before = std::mem::replace(&mut numbers, self.bucket.checkpoints().await?);
            if numbers == before {
                return self.do_without(&numbers, failure);
            }
            tracing::debug!(missing = %failure.what, "checkpoints were replaced meanwhile; reading the new ones");
        }
        Err(ReplayError::Outrun { lists: LISTS_MAX + 1 })
    }

    /// Loads the newest readable of the listed checkpoints that is beyond the state: whether there is one, or why there is none.
    async fn load_newest_of(&mut self, numbers: &[CommitNumber]) -> Result<Result<bool, Unreadable>, ReplayError> {
        let mut failure = None;
        let beyond = numbers.iter().rev().copied().take_while(|number| *number > self.state.number());
        for number in beyond.collect::<Vec<_>>() {
            match checkpoint::load(&self.bucket, number, self.offload).await {
                Ok((state, manifest)) => {
                    tracing::debug!(%number, "checkpoint loaded");
                    self.kept = Some((state.clone(), manifest));
                    self.state = state;
                    return Ok(Ok(true));
                }
                Err(LoadError::Store(error)) => return Err(error.into()),
                Err(LoadError::Damaged(what)) => {
                    tracing::warn!(%number, %what, "a checkpoint can't be read; trying an older one");
                    failure.get_or_insert(Unreadable { number, what });
                }
            }
        }
        Ok(failure.map_or(Ok(false), Err))
    }

    /// No listed checkpoint beyond the state can be read: whether the log itself can be trusted from here on.
    fn do_without(&self, numbers: &[CommitNumber], failure: Unreadable) -> Result<bool, ReplayError> {
        // Nothing at or above the older of two kept checkpoints is reclaimed.
        let older = numbers.len().checked_sub(2).and_then(|index| numbers.get(index).copied());
        if self.state.number() >= older.unwrap_or(CommitNumber::ZERO) {
            return Ok(false);
        }
        Err(ReplayError::Checkpoint { number: failure.number, what: failure.what })
    }
}

/// A checkpoint that can't be read.
struct Unreadable {
    number: CommitNumber,
    what: String,
}

fn is_takeover(commit: &Commit) -> bool {
    matches!(commit.entries.as_slice(), [Entry::Takeover(_)])
}
