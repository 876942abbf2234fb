//! Does a store keep the promises that the log rests on? Asked of the real thing, under concurrency.
//!
//! 1. All that the check writes lies in one directory of its own under the root, and is deleted at the end, whatever came out.
//! 2. It finds broken promises; it can't prove that there are none. A race is run many times for that reason.
//! 3. A store that can't be asked (no answer, no permission) has neither kept nor broken anything: that is a [`CheckError`].

use std::error::Error;
use std::time::Duration;

use crate::cloud::status::Answered;
use crate::create::CreateError;
use crate::key::{Directory, Key};
use crate::read::{DeleteError, ListError, ReadError};
use crate::store::Store;

mod parts;
mod probes;

use probes::Bench;

/// Where a check writes, in a directory of its own for each. Whatever lies there may be deleted when no check runs.
pub const DIRECTORY: &str = "check";

/// How thorough a check is.
#[derive(Clone, Debug)]
pub struct CheckOptions {
    /// Rounds of the race for one key. More find a rarer mistake; each costs 16 PUTs and up to 32 GETs.
    pub rounds: u32,
    /// Size of the large object in bytes: the largest that a broker writes at once.
    pub large_bytes: u64,
    /// Requests of each kind whose latency is taken.
    pub samples: u32,
    /// Names the directory of this check; two that run at once must differ.
    pub nonce: u64,
}

impl Default for CheckOptions {
    fn default() -> Self {
        Self { rounds: 48, large_bytes: 64 << 20, samples: 64, nonce: 0 }
    }
}

/// Something that the log needs of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Promise {
    /// Of several that create an object at one key at once, one does; the others find that one's.
    OneCreates,
    /// What was created is read, whole and at once, also where it was missed before.
    ReadsWhatWasWritten,
    /// What was created is listed at once, in the order of keys, page after page.
    ListsWhatWasWritten,
    /// A part of an object is that part.
    ReadsParts,
    /// A large object comes back as it was.
    KeepsLargeObjects,
    /// An object that is stored in parts is seen when it is completed and not before, whole, and completed only where nothing stands.
    TakesParts,
    /// What was deleted is neither read nor listed, and can be created again.
    Deletes,
}

impl Promise {
    /// All of them, in the order in which they are asked for.
    pub const ALL: [Self; 7] = [
        Self::OneCreates,
        Self::ReadsWhatWasWritten,
        Self::ListsWhatWasWritten,
        Self::ReadsParts,
        Self::KeepsLargeObjects,
        Self::TakesParts,
        Self::Deletes,
    ];

    /// What it is called: in tables, in JSON, and in the record of the verdict.
    pub fn name(self) -> &'static str {
        match self {
            Self::OneCreates => "create-if-absent",
            Self::ReadsWhatWasWritten => "read-after-write",
            Self::ListsWhatWasWritten => "list-after-write",
            Self::ReadsParts => "range-reads",
            Self::KeepsLargeObjects => "large-objects",
            Self::TakesParts => "objects-in-parts",
            Self::Deletes => "deletes",
        }
    }
}

/// Whether a promise was kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Which.
    pub promise: Promise,
    /// Whether it was kept as often as it was asked for.
    pub kept: bool,
    /// What was done, or what went wrong, for a person.
    pub detail: String,
}

/// How long one kind of request takes, one after the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Latency {
    /// `create`, `read` or `list`.
    pub operation: &'static str,
    /// Half of them took no longer.
    pub p50: Duration,
    /// Of a hundred, 99 took no longer.
    pub p99: Duration,
}

/// What a check has found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// One for each promise that was asked for. A store that lets two create is not asked for more.
    pub findings: Vec<Finding>,
    /// Empty if a promise was broken.
    pub latencies: Vec<Latency>,
    /// Requests that the check sent.
    pub requests: u64,
}

impl Report {
    /// Whether every promise was kept.
    pub fn passed(&self) -> bool {
        self.findings.iter().all(|finding| finding.kept)
    }

    /// Those that were not.
    pub fn broken(&self) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(|finding| !finding.kept)
    }
}

/// A check that came to no end: the store could not be asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CheckError {
    /// An object could not be created.
    #[error("an object can't be created")]
    Create(#[from] CreateError),
    /// An object could not be read.
    #[error("an object can't be read")]
    Read(#[from] ReadError),
    /// Objects could not be listed.
    #[error("objects can't be listed")]
    List(#[from] ListError),
    /// Objects could not be deleted.
    #[error("objects can't be deleted")]
    Delete(#[from] DeleteError),
}

impl Store {
    /// Asks the store for every promise that the log rests on.
    ///
    /// # Cost
    /// About `16 * rounds` PUTs, twice as many GETs, and a few hundred requests more; `large_bytes` each way. With the default
    /// about 1000 PUTs and 2000 GETs, one cent on S3.
    ///
    /// # Cancel
    /// What it wrote stays below [`DIRECTORY`].
    ///
    /// # Errors
    /// [`CheckError`] if the store gives no answers to judge.
    pub async fn check(&self, options: &CheckOptions) -> Result<Report, CheckError> {
        let before = self.counts().requests();
        let bench = Bench::new(self.without_hedges(), options.clone());
        let judged = judge(&bench).await;
        let cleaned = bench.clean_up().await;
        let (findings, latencies) = judged?;
        cleaned?;
        Ok(Report { findings, latencies, requests: self.counts().requests() - before })
    }

    /// Whether the store creates an object where another one stands, or can't create one if absent at all; asked with two PUTs.
    /// `Some` is what it did, for a person.
    ///
    /// # Errors
    /// [`CheckError`] if the store gives no answer to judge.
    pub async fn overwrites(&self, nonce: u64) -> Result<Option<String>, CheckError> {
        let bench = Bench::new(self.without_hedges(), CheckOptions { nonce, ..CheckOptions::default() });
        let judged = bench.creates_over_another().await;
        let cleaned = bench.clean_up().await;
        let told = judged?;
        cleaned?;
        Ok(told)
    }
}

async fn judge(bench: &Bench) -> Result<(Vec<Finding>, Vec<Latency>), CheckError> {
    let mut findings = Vec::new();
    for promise in Promise::ALL {
        let asked = match promise {
            Promise::OneCreates => bench.one_creates().await?,
            Promise::ReadsWhatWasWritten => bench.reads_what_was_written().await?,
            Promise::ListsWhatWasWritten => bench.lists_what_was_written().await?,
            Promise::ReadsParts => bench.reads_parts().await?,
            Promise::KeepsLargeObjects => bench.keeps_large_objects().await?,
            Promise::TakesParts => bench.takes_parts().await?,
            Promise::Deletes => bench.deletes().await?,
        };
        let (kept, detail) = match asked {
            Ok(detail) => (true, detail),
            Err(detail) => (false, detail),
        };
        findings.push(Finding { promise, kept, detail });
        // Everything else is asked with creates that must not be mistaken.
        if promise == Promise::OneCreates && !kept {
            break;
        }
    }
    let latencies = match findings.iter().all(|finding| finding.kept) {
        true => bench.latencies().await?,
        false => Vec::new(),
    };
    Ok((findings, latencies))
}

/// Whether a store says that it does not know conditional writes.
fn lacks_conditions(error: &CreateError) -> bool {
    let mut cause = error.source();
    while let Some(error) = cause {
        if error.downcast_ref::<Answered>().is_some_and(|answered| answered.status == 501) {
            return true;
        }
        cause = error.source();
    }
    false
}

fn key(directory: &Directory, name: &str) -> Key {
    directory.key(name).expect("names of the check are portable and short")
}

#[cfg(test)]
mod tests;
