//! What stands in a store, looked at without becoming its broker: how much for whom, what nothing names, and whether all of it is what was
//! written; and a cluster made anew from its tables.
//!
//! 1. [`Storage`] writes nothing, whatever it is asked, and needs no lock: a broker may serve meanwhile. What it tells is then as of its
//!    reading; what a broker has rewritten or deleted since is no damage, and is looked at again before it is told as such.
//! 2. Memory is bounded by the state and one page of a listing; objects are read a part at a time.
//! 3. Only [`recover`](recover::recover) writes: into a root that has neither `lakebed.json` nor a log.

mod fate;
pub(crate) mod file;
mod names;
pub mod recover;
pub mod scrub;
pub mod usage;

use std::collections::BTreeMap;

use lakebed_lake::{StandingError, TableName};
use lakebed_log::{Looked, Offload, OpenError};
use lakebed_model::Cell;
use lakebed_segment::layout;
pub use lakebed_store::Key;
use lakebed_store::{Directory, ListError, Listed, ReadError, Store, StoreOptions};

pub use fate::{Fate, Judged};
pub use file::ObjectError;
pub use names::Kind;

/// Objects of one listing.
const LISTED_MAX: usize = 1000;

/// Why a store could not be looked at. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// The store can't be opened.
    #[error("the store {url} can't be opened")]
    Open {
        /// The store, without secrets.
        url: String,
        /// Why.
        source: lakebed_store::OpenError,
    },
    /// Nothing of Lakebed stands there.
    #[error("there is no {key} at {url}", key = layout::ROOT_KEY)]
    NoRoot {
        /// The store.
        url: String,
    },
    /// The log can't be read.
    #[error("the log at {url} can't be read")]
    Log {
        /// The store.
        url: String,
        /// Why.
        source: Box<OpenError>,
    },
    /// A table's metadata can't be read.
    #[error("the metadata of table {table} can't be read")]
    Table {
        /// Its name.
        table: String,
        /// Why.
        source: StandingError,
    },
    /// There is no such topic.
    #[error("topic {0:?} does not exist")]
    UnknownTopic(String),
    /// The store gave no good answer.
    #[error(transparent)]
    List(#[from] ListError),
    /// The store gave no good answer.
    #[error(transparent)]
    Read(#[from] ReadError),
}

impl StorageError {
    /// A stable name for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Open { .. } => "STORE_NOT_OPENED",
            Self::NoRoot { .. } => "ROOT_NOT_FOUND",
            Self::Log { .. } => "LOG_NOT_READ",
            Self::Table { .. } => "TABLE_NOT_READ",
            Self::UnknownTopic(_) => "TOPIC_NOT_FOUND",
            Self::List(_) | Self::Read(_) => "STORE_NOT_READ",
        }
    }

    /// What a person can do about it.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Open { .. } => {
                "check the URL, that the directory or bucket exists, and what the environment says about it"
            }
            Self::NoRoot { .. } => {
                "check the URL; if the log is lost and tables/ is still there, `lakebed recover` makes a cluster of it"
            }
            Self::Log { .. } => "see docs/recovery.md for what can be done about a damaged log",
            Self::Table { .. } => "see what is damaged with `lakebed storage scrub`",
            Self::UnknownTopic(_) => "see what there is with `lakebed storage usage`",
            Self::List(_) | Self::Read(_) => "see that the store can be reached, and try again",
        }
    }
}

/// A store that is looked at.
#[derive(Debug)]
pub struct Storage {
    store: Store,
    log: Looked,
}

impl Storage {
    /// Opens a store for reading, and reads its log to the end.
    ///
    /// # Errors
    /// [`StorageError`]
    pub async fn open(url: &str) -> Result<Self, StorageError> {
        let store = Store::open_read_only(url, &StoreOptions::default())
            .map_err(|source| StorageError::Open { url: lakebed_store::redact_url(url).into_owned(), source })?;
        let log = look(&store).await?;
        Ok(Self { store, log })
    }

    /// The root as a URL, without secrets.
    pub fn url(&self) -> &str {
        self.store.url()
    }

    /// How many commits had been made when the log was read.
    pub fn commits(&self) -> u64 {
        self.log.state.number().get()
    }
}

async fn look(store: &Store) -> Result<Looked, StorageError> {
    let url = || store.url().to_owned();
    let looked = lakebed_log::look(store, Cell::ZERO, Offload::Blocking).await;
    looked.map_err(|source| match source {
        OpenError::Read { source: ReadError::NotFound { .. } } => StorageError::NoRoot { url: url() },
        source => StorageError::Log { url: url(), source: Box::new(source) },
    })
}

/// The objects of a directory and all below it, a page at a time.
pub(crate) struct Listing<'a> {
    store: &'a Store,
    directory: Directory,
    after: Option<Key>,
    more: bool,
}

impl<'a> Listing<'a> {
    pub(crate) fn of(store: &'a Store, directory: Directory) -> Self {
        Self { store, directory, after: None, more: true }
    }

    /// The next page; `None` behind the last.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<Listed>>, ListError> {
        if !self.more {
            return Ok(None);
        }
        let page = self.store.list(&self.directory, self.after.as_ref(), LISTED_MAX).await?;
        self.more = page.more;
        self.after = page.objects.last().map(|listed| listed.key.clone()).or(self.after.take());
        Ok(Some(page.objects))
    }
}

/// The tables that have a directory, whether or not the state knows them.
pub(crate) async fn tables_of(store: &Store) -> Result<Vec<TableName>, ListError> {
    let directory = directory(&format!("{}{}", layout::TABLES_PREFIX, layout::NAMESPACE));
    let names = store.list_directories(&directory).await?;
    Ok(names.into_iter().filter_map(|table| TableName::new(layout::NAMESPACE, table)).collect())
}

pub(crate) fn directory(path: &str) -> Directory {
    Directory::new(path.trim_end_matches('/')).expect("directories of the layout are portable")
}

pub(crate) fn key(path: &str) -> Key {
    Key::new(path).expect("keys of the layout are portable")
}

/// Sums by name.
pub(crate) type Sums<T> = BTreeMap<String, T>;
