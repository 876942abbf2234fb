//! What a sequencer tells those who follow it: every commit that has become durable, none before.
//!
//! 1. Commits are kept for followers only while there are some, newest first, up to [`FEED_BYTES_MAX`] and without very large ones: whoever is
//!    further behind, or at one of those, is told the number, and reads the log.
//! 2. A commit is encoded once, however many follow.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use lakebed_model::{Commit, CommitNumber};
use lakebed_segment::commit::encode_commit;
use tokio::sync::watch;

use crate::append_error::Closed;
use crate::handle::Log;

/// What is kept for followers, in bytes as encoded: seconds of a busy log.
const FEED_BYTES_MAX: usize = 8 << 20;
/// The largest commit that is told, as encoded: with what is around it it fits into a message of gRPC as every client takes it.
const COMMIT_BYTES_MAX: usize = (4 << 20) - (64 << 10);

/// The newest commits, for those who follow.
#[derive(Debug, Default)]
pub(crate) struct Recent {
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    followers: usize,
    /// In order, without a gap.
    commits: VecDeque<(CommitNumber, Bytes)>,
    bytes: usize,
}

impl Recent {
    /// Takes note of a commit that is durable. They come in order.
    pub(crate) fn push(&self, commit: &Commit) {
        let mut kept = self.lock();
        if kept.followers == 0 {
            return;
        }
        let encoded = Bytes::from(encode_commit(commit));
        if encoded.len() > COMMIT_BYTES_MAX {
            // It is read; what is kept goes on behind it, without a gap.
            (kept.commits, kept.bytes) = (VecDeque::new(), 0);
            return;
        }
        kept.bytes += encoded.len();
        kept.commits.push_back((commit.number, encoded));
        while kept.bytes > FEED_BYTES_MAX
            && let Some((_, gone)) = kept.commits.pop_front()
        {
            kept.bytes -= gone.len();
        }
    }

    fn get(&self, number: CommitNumber) -> Option<Bytes> {
        let kept = self.lock();
        let first = kept.commits.front()?.0;
        let index = usize::try_from(number.get().checked_sub(first.get())?).ok()?;
        kept.commits.get(index).map(|(_, encoded)| encoded.clone())
    }

    /// How many follow.
    pub(crate) fn followers(&self) -> usize {
        self.lock().followers
    }

    fn enter(&self) {
        self.lock().followers += 1;
    }

    fn leave(&self) {
        let mut kept = self.lock();
        kept.followers -= 1;
        if kept.followers == 0 {
            *kept = Kept::default();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is told next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fed {
    /// The next commit, as [`lakebed_segment::commit::decode_commit`] reads it.
    Commit(Bytes),
    /// So many are durable; those that were not told are to be read.
    Number(CommitNumber),
}

/// The commits of a log from some number on, as they become durable.
#[derive(Debug)]
pub struct Feed {
    recent: Arc<Recent>,
    next: CommitNumber,
    durable: watch::Receiver<CommitNumber>,
    closed: watch::Receiver<Option<Closed>>,
}

impl Log {
    /// What becomes durable from commit `from` on.
    pub fn feed(&self, from: CommitNumber) -> Feed {
        let recent = Arc::clone(self.recent());
        // SUBTLE: before the number is looked at, so that no commit falls between what it says and what is kept.
        recent.enter();
        Feed { recent, next: from, durable: self.watch(), closed: self.closings() }
    }

    /// How many follow this broker.
    pub fn followers(&self) -> usize {
        self.recent().followers()
    }
}

impl Feed {
    /// Waits for the next; `None` when the log is closed.
    ///
    /// # Cancel Nothing is lost.
    pub async fn next(&mut self) -> Option<Fed> {
        loop {
            let durable = *self.durable.borrow_and_update();
            if let Some(commit) = self.recent.get(self.next) {
                self.next = self.next.next();
                return Some(Fed::Commit(commit));
            }
            if self.next < durable {
                self.next = durable;
                return Some(Fed::Number(durable));
            }
            tokio::select! {
                biased;
                closed = self.closed.wait_for(Option::is_some) => {
                    // The last of what became durable is told, too.
                    drop(closed);
                    if self.next >= *self.durable.borrow() {
                        return None;
                    }
                }
                changed = self.durable.changed() => if changed.is_err() { return None },
            }
        }
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.recent.leave();
    }
}
