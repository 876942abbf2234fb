//! Whether the store is one that the log can rest on: the check that a person asks for, its verdict, and what a broker makes of it when it starts.
//!
//! 1. A verdict stands beside the root (`lakebed-check.json`), once. A failed one is never replaced by a check that passed: a store that
//!    races is lucky now and then.
//! 2. A broker refuses a root whose verdict is "failed". Without a verdict it asks a bucket one question of its own, with two PUTs; a
//!    check is not needed to serve.

use lakebed_segment::FormatError;
use lakebed_segment::layout::VERDICT_KEY;
use lakebed_segment::verdict::{Broken, Verdict};
use lakebed_store::{CreateError, Created, DeleteError, Key, OpenError, ReadError, Store, StoreOptions};

pub use lakebed_store::check::{CheckError, CheckOptions, Finding, Latency, Promise, Report};

/// Attempts to write a verdict while others write theirs.
const RECORD_ATTEMPTS_MAX: u32 = 8;

/// A store that was checked.
#[derive(Debug)]
pub struct Checked {
    /// The root as a URL, without secrets.
    pub url: String,
    /// What was found.
    pub report: Report,
    /// What stands beside the root about it.
    pub recorded: Recorded,
}

/// What became of a verdict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recorded {
    /// It was not to be recorded.
    No,
    /// It is recorded now.
    Now,
    /// The same verdict was recorded before.
    Before,
    /// An earlier check failed, and stays recorded although this one passed.
    StillFailed,
    /// The store takes no conditional writes, so it can't be recorded; a broker finds that out by itself.
    Impossible,
}

impl Recorded {
    /// Its name, for JSON.
    pub fn name(&self) -> &'static str {
        match self {
            Self::No => "no",
            Self::Now => "now",
            Self::Before => "before",
            Self::StillFailed => "still_failed",
            Self::Impossible => "impossible",
        }
    }
}

/// A check that did not come to a verdict, or could not record it.
#[derive(Debug, thiserror::Error)]
pub enum CheckStorageError {
    /// The store can't be opened.
    #[error("the store {url} can't be opened")]
    Open {
        /// The store.
        url: String,
        /// Why.
        source: OpenError,
    },
    /// The store gives no answers that could be judged.
    #[error("the store {url} can't be checked")]
    Unanswered {
        /// The store.
        url: String,
        /// Why.
        source: CheckError,
        /// What a person can do about it.
        remedy: Option<String>,
    },
    /// The verdict could not be written or read.
    #[error("the verdict can't be recorded")]
    NotRecorded {
        /// Why.
        source: VerdictError,
        /// What a person can do about it.
        remedy: Option<String>,
    },
}

/// A verdict that can't be read or written.
#[derive(Debug, thiserror::Error)]
pub enum VerdictError {
    /// It could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// It could not be written.
    #[error(transparent)]
    Create(#[from] CreateError),
    /// An older one could not be deleted.
    #[error(transparent)]
    Delete(#[from] DeleteError),
    /// What stands there is none.
    #[error("{VERDICT_KEY} can't be used: {0}")]
    Unusable(FormatError),
    /// Others record theirs at the same time.
    #[error("{VERDICT_KEY} changes all the time")]
    Crowded,
}

impl CheckStorageError {
    /// What a person can do about it, where that is known.
    pub fn remedy(&self) -> Option<String> {
        match self {
            Self::Open { .. } => Some("check the URL, and what the environment says about the store".to_owned()),
            Self::NotRecorded { source: VerdictError::Unusable(_), .. } => {
                Some(format!("look at {VERDICT_KEY} below the root; when it is deleted, the next check writes it anew"))
            }
            Self::Unanswered { remedy, .. } | Self::NotRecorded { remedy, .. } => remedy.clone(),
        }
    }
}

/// Checks the store at `url` and, if `record` is set, writes its verdict beside the root. `time_ms` and `version` go into the verdict.
///
/// # Errors
/// [`CheckStorageError`]; nothing is recorded.
pub async fn check_storage(
    url: &str,
    options: &CheckOptions,
    record: Option<(i64, &str)>,
) -> Result<Checked, CheckStorageError> {
    let store_options = StoreOptions { seed: options.nonce, ..StoreOptions::default() };
    let store =
        Store::open(url, &store_options).map_err(|source| CheckStorageError::Open { url: url.to_owned(), source })?;
    check_store(&store, options, record).await
}

/// As [`check_storage`], on a store that is open already.
///
/// # Errors
/// [`CheckStorageError`]; nothing is recorded.
pub async fn check_store(
    store: &Store,
    options: &CheckOptions,
    record: Option<(i64, &str)>,
) -> Result<Checked, CheckStorageError> {
    let url = store.url().to_owned();
    let report = store.check(options).await.map_err(|source| {
        let remedy = store.remedy(&source);
        CheckStorageError::Unanswered { url: url.clone(), source, remedy }
    })?;
    let recorded = match record {
        None => Recorded::No,
        Some((time_ms, version)) => {
            let broken = report
                .broken()
                .map(|finding| Broken { promise: finding.promise.name().to_owned(), what: finding.detail.clone() });
            let verdict = Verdict { broken: broken.collect(), time_ms, version: version.to_owned() };
            record_verdict(store, &verdict).await.map_err(|source| {
                let remedy = store.remedy(&source);
                CheckStorageError::NotRecorded { source, remedy }
            })?
        }
    };
    Ok(Checked { url, report, recorded })
}

async fn record_verdict(store: &Store, verdict: &Verdict) -> Result<Recorded, VerdictError> {
    for _ in 0..RECORD_ATTEMPTS_MAX {
        match read_verdict(store).await? {
            Some(before) if before.passed() == verdict.passed() => return Ok(Recorded::Before),
            Some(before) if !before.passed() => return Ok(Recorded::StillFailed),
            Some(_) => store.delete(&[verdict_key()]).await?,
            None => {}
        }
        match store.create(&verdict_key(), verdict.encode()).await {
            Ok(Created::New | Created::Mine) => return Ok(Recorded::Now),
            Ok(Created::Other) => {}
            Err(CreateError::NotDone { .. }) if !verdict.passed() => return Ok(Recorded::Impossible),
            Err(error) => return Err(error.into()),
        }
    }
    Err(VerdictError::Crowded)
}

/// The verdict beside the root, if there is one.
pub(crate) async fn read_verdict(store: &Store) -> Result<Option<Verdict>, VerdictError> {
    match store.get(&verdict_key()).await {
        Ok(bytes) => Verdict::decode(&bytes).map(Some).map_err(VerdictError::Unusable),
        Err(ReadError::NotFound { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn verdict_key() -> Key {
    Key::new(VERDICT_KEY).expect("keys of the layout are valid")
}

/// Why a broker does not start on a store.
#[derive(Debug, thiserror::Error)]
pub enum UnsafeError {
    /// It breaks a promise that the log rests on.
    #[error("the store {url} does not keep what the log needs: {}", what.join("; "))]
    Broken {
        /// The store.
        url: String,
        /// What it does.
        what: Vec<String>,
    },
    /// Whether it does is not known: there is no usable verdict, and it gives no answer.
    #[error("the store {url} can't be used")]
    Verdict {
        /// The store.
        url: String,
        /// Why.
        source: VerdictError,
        /// What a person can do about it.
        remedy: Option<String>,
    },
    /// It gives no answer to the one question that is asked of it.
    #[error("the store {url} can't be used")]
    Unanswered {
        /// The store.
        url: String,
        /// Why.
        source: CheckError,
        /// What a person can do about it.
        remedy: Option<String>,
    },
}

impl UnsafeError {
    /// What a person can do about it, where that is known.
    pub(crate) fn remedy(&self) -> Option<String> {
        match self {
            Self::Broken { url, .. } => Some(format!(
                "use another store: records would be lost on this one. `lakebed check storage {url}` shows what it does; --accept-unsafe-store serves all the same"
            )),
            Self::Verdict { source: VerdictError::Unusable(_), url, .. } => Some(format!(
                "delete {VERDICT_KEY} there, and check the store again with `lakebed check storage {url}`"
            )),
            Self::Verdict { remedy, .. } | Self::Unanswered { remedy, .. } => remedy.clone(),
        }
    }
}

/// Refuses a store that is known not to keep what the log needs, or that shows it at the first question.
///
/// # Cost   One GET; of a bucket without a verdict two PUTs, a GET, a LIST and a DELETE more.
/// # Errors [`UnsafeError`]; the log is as it was.
pub(crate) async fn refuse_unsafe(store: &Store, nonce: u64) -> Result<(), UnsafeError> {
    let url = store.url().to_owned();
    let verdict = read_verdict(store).await.map_err(|source| {
        let remedy = store.remedy(&source);
        UnsafeError::Verdict { url: url.clone(), source, remedy }
    })?;
    let told = |broken: &Broken| format!("{}: {}", broken.promise, broken.what);
    match verdict {
        Some(verdict) if verdict.passed() => Ok(()),
        Some(verdict) => Err(UnsafeError::Broken { url, what: verdict.broken.iter().map(told).collect() }),
        // A directory and memory are our own code.
        None if url.starts_with("file:") || url.starts_with("memory:") => Ok(()),
        None => match store.overwrites(nonce).await {
            Ok(None) => Ok(()),
            Ok(Some(what)) => Err(UnsafeError::Broken { url, what: vec![what] }),
            Err(source) => {
                let remedy = store.remedy(&source);
                Err(UnsafeError::Unanswered { url, source, remedy })
            }
        },
    }
}
