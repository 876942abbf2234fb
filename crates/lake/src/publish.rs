//! Publication: the objects of a version, written in an order that leaves no reader with half a table.
//!
//! ```text
//! manifests -> manifest list -> v{N}.metadata.json (create-only) -> version-hint.text (over what stands there)
//! ```
//! 1. Nothing names an object before it stands. So a crash anywhere leaves objects that nothing names, or a hint that is behind.
//! 2. Manifests and lists are named by what is in them: a publication that is repeated finds its own.
//! 3. `v{N}` is created once. Who finds another's there has nothing left to do: N shows the same files, whoever published it.
//! 4. After the hint was written the versions are listed: whoever wrote an older one over a newer one repairs it. A hint is behind only
//!    while a publication runs, or after a crash or a write that came late, until the next publication.
//! 5. What a version is built on is at most [`TRUSTED_MAX`] old, or was just listed as the newest: nothing of it has been swept.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{self, StreamExt, TryStreamExt};
use lakebed_log::Offload;
use lakebed_store::{CreateError, Created, DeleteError, Key, ListError, OverwriteError, ReadError, Store};
use tokio::time::Instant;

use crate::file::{self, DataFile, FileError};
use crate::history::{self, READS_MAX};
use crate::layout;
use crate::metadata::{Expiry, TableMetadata, snapshot_id};
use crate::next::{self, BuildError, Published};
use crate::shown::{Invalid, PartitionBy, Shown, ShownFile, TableName, TableVersion};

/// How much of the end of a file is read first; most footers fit.
const FOOTER_GUESS_BYTES: u64 = 64 * 1024;
/// How long the version that we published last is taken for the newest, without looking. Much less than what is superseded is kept.
const TRUSTED_MAX: Duration = Duration::from_secs(600);
/// How often the hint is written by one publication, while others write it too.
const HINTS_MAX: u32 = 8;

/// Settings of a [`Publisher`].
#[derive(Debug, Clone)]
pub struct Options {
    /// How long old versions stay in sight.
    pub expiry: Expiry,
    /// Most files of published tables that are remembered between publications, about 1.5 KiB each. Default 20,000. Fewer: manifests
    /// are read again for the next publication of a table.
    pub remembered_files_max: usize,
    /// Where manifests are encoded.
    pub offload: Offload,
}

impl Default for Options {
    fn default() -> Self {
        Self { expiry: Expiry::default(), remembered_files_max: 20_000, offload: Offload::Blocking }
    }
}

/// What became of a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It was published by this call, or by an earlier one whose answer was lost.
    Published,
    /// Another publisher was first; the version shows the same.
    PublishedByAnother,
    /// A newer version stands already, and nothing was written for this one.
    Superseded {
        /// The newest.
        by: TableVersion,
    },
}

/// A publication that has come to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publication {
    /// What became of it.
    pub outcome: Outcome,
    /// The metadata of the version.
    pub metadata_key: Key,
    /// The id of its snapshot.
    pub snapshot_id: i64,
    /// The version of the oldest snapshot to which the newest metadata leads; `None` if another wrote that.
    pub oldest: Option<TableVersion>,
    /// Files of a partitioned table that lie in several partitions, and were added without one.
    pub unpartitioned: Vec<Key>,
}

/// A version that was not published, or of which that is not known. It may be tried again.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The version can't be as it was given.
    #[error("version {version} of table {name} can't be published")]
    Invalid {
        /// Of which table.
        name: TableName,
        /// Which version.
        version: TableVersion,
        /// Why not.
        source: Invalid,
    },
    /// A file is not what the state says.
    #[error("table file '{key}' can't be published")]
    File {
        /// Which file.
        key: Key,
        /// What is wrong with it.
        source: FileError,
    },
    /// The version before does not fit.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// Something could not be read now.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The versions could not be listed now.
    #[error(transparent)]
    List(#[from] ListError),
    /// An object could not be written now, or may have been.
    #[error(transparent)]
    Create(#[from] CreateError),
    /// The version stands, but the hint could not be written.
    #[error("the version is published, but its hint may be behind")]
    Hint(#[from] OverwriteError),
    /// Something else stands where an object of the version should.
    #[error("another object stands at '{key}': nobody else may write there; move it away")]
    Taken {
        /// Where.
        key: Key,
    },
}

/// Publishes versions of tables, and remembers what it published last. Clones share what is remembered.
#[derive(Debug, Clone)]
pub struct Publisher {
    store: Store,
    options: Options,
    remembered: Arc<Mutex<BTreeMap<TableName, Remembered>>>,
}

#[derive(Debug, Clone)]
struct Remembered {
    published: Arc<Published>,
    at: Instant,
}

impl Publisher {
    /// A publisher that has published nothing yet.
    pub fn new(store: Store, options: Options) -> Self {
        Self { store, options, remembered: Arc::default() }
    }

    /// Publishes a version, unless a newer one stands.
    ///
    /// # Cost
    /// Four PUTs (manifest, list, metadata, hint), one LIST and two GETs when this publisher published the version before; one GET for
    /// each file that came. Else also a LIST, and a GET each for the metadata, the list and the manifests of the version before.
    /// # Cancel
    /// As a crash: may leave objects that nothing names, or a hint that is behind. Repeating it ends it.
    /// # Errors
    /// [`PublishError`]
    pub async fn publish(&self, shown: &Shown) -> Result<Publication, PublishError> {
        let (name, version) = (&shown.name, shown.version);
        shown.validate().map_err(|source| PublishError::Invalid { name: name.clone(), version, source })?;
        let previous = match self.remembered(shown) {
            Some(previous) => Some(previous),
            None => {
                let versions = history::versions(&self.store, name).await?;
                match versions.last() {
                    Some(newest) if *newest >= version => return self.already(shown, *newest).await,
                    _ => self.read_previous(shown, &versions).await?,
                }
            }
        };
        let added: Vec<ShownFile> = next::added(shown, previous.as_deref()).into_iter().cloned().collect();
        let arrived = self.describe(shown, &added).await?;
        let strays = added.iter().zip(&arrived).filter(|(_, file)| file.by != shown.partition_by);
        let unpartitioned: Vec<Key> = strays.map(|(shown, _)| shown.key.clone()).collect();
        let (given, expiry) = (shown.clone(), self.options.expiry.clone());
        let built =
            self.options.offload.run(move || next::build(&given, previous.as_deref(), arrived, &expiry)).await?;
        // SUBTLE: collected, for the futures of a closure that borrows are not known to be `Send`.
        let manifests: Vec<_> = built.manifests.iter().map(|(key, bytes)| self.create(key, bytes)).collect();
        stream::iter(manifests).buffered(READS_MAX).try_collect::<Vec<()>>().await?;
        self.create(&built.list.0, &built.list.1).await?;
        let (metadata_key, metadata) = built.metadata;
        let outcome = match self.store.create(&metadata_key, metadata).await? {
            Created::New | Created::Mine => Outcome::Published,
            Created::Other if self.is_of_table(shown, &metadata_key).await? => Outcome::PublishedByAnother,
            Created::Other => return Err(PublishError::Taken { key: metadata_key }),
        };
        // SUBTLE: of another's version we do not know the manifests, and must not build on ours.
        let published = (outcome == Outcome::Published).then_some(built.published);
        let oldest = published.as_ref().and_then(|published| published.metadata.oldest());
        self.remember(shown, published);
        self.point(name, Some(version)).await?;
        let snapshot_id = snapshot_id(shown.table_uuid, version);
        Ok(Publication { outcome, metadata_key, snapshot_id, oldest, unpartitioned })
    }

    /// Makes the hint of a table name its newest version, if it does not.
    ///
    /// # Cost
    /// One LIST and one GET if all is well.
    /// # Errors
    /// [`PublishError`]: reading, listing or writing the hint.
    pub async fn repair_hint(&self, name: &TableName) -> Result<(), PublishError> {
        self.point(name, None).await
    }

    /// Takes a table out of readers' sight, before its files are deleted: those who ask from now on find no table.
    ///
    /// # Errors
    /// [`DeleteError`]
    pub async fn withdraw(&self, name: &TableName) -> Result<(), DeleteError> {
        self.forget(name);
        self.store.delete(&[layout::hint_key(name)]).await
    }

    /// The version stands, or one that is newer.
    async fn already(&self, shown: &Shown, newest: TableVersion) -> Result<Publication, PublishError> {
        let metadata_key = layout::metadata_key(&shown.name, shown.version);
        let outcome = match newest == shown.version {
            true if self.is_of_table(shown, &metadata_key).await? => Outcome::PublishedByAnother,
            true => return Err(PublishError::Taken { key: metadata_key }),
            false => Outcome::Superseded { by: newest },
        };
        self.point(&shown.name, None).await?;
        let snapshot_id = snapshot_id(shown.table_uuid, shown.version);
        Ok(Publication { outcome, metadata_key, snapshot_id, oldest: None, unpartitioned: Vec::new() })
    }

    /// Whether the metadata there is a version of the table that is shown.
    async fn is_of_table(&self, shown: &Shown, key: &Key) -> Result<bool, ReadError> {
        let metadata = serde_json::from_slice::<TableMetadata>(&self.store.get(key).await?);
        Ok(metadata.is_ok_and(|metadata| {
            let id = snapshot_id(shown.table_uuid, shown.version);
            metadata.table_uuid == shown.table_uuid && metadata.current_snapshot_id == id
        }))
    }

    async fn create(&self, key: &Key, bytes: &Bytes) -> Result<(), PublishError> {
        match self.store.create(key, bytes.clone()).await? {
            Created::New | Created::Mine => Ok(()),
            Created::Other => Err(PublishError::Taken { key: key.clone() }),
        }
    }

    /// Writes the hint until it names the newest version. `written` stands for sure, and is the newest as far as we know.
    async fn point(&self, name: &TableName, written: Option<TableVersion>) -> Result<(), PublishError> {
        let mut newest = written;
        for _ in 0..HINTS_MAX {
            if let Some(newest) = newest
                && history::hint(&self.store, name).await?.is_none_or(|hint| hint < newest)
            {
                self.store.overwrite(&layout::hint_key(name), newest.to_string().into_bytes()).await?;
            }
            // SUBTLE: listed after the hint was written. A publisher of a newer version that looked at the hint before we wrote it
            // had created its version by then, so we see it, and repair what we have done.
            let listed = history::versions(&self.store, name).await?.last().copied();
            let hint = history::hint(&self.store, name).await?;
            if hint == listed {
                return Ok(());
            }
            newest = listed;
            // It names what is not there: a reader would fail, so the older one that is there is better.
            if hint > listed
                && let Some(listed) = listed
            {
                self.store.overwrite(&layout::hint_key(name), listed.to_string().into_bytes()).await?;
            }
        }
        // Others write it as often as we do, each of them after its own version stood.
        Ok(())
    }

    async fn read_previous(
        &self,
        shown: &Shown,
        versions: &[TableVersion],
    ) -> Result<Option<Arc<Published>>, PublishError> {
        let newest = versions.iter().rev().find(|version| **version < shown.version);
        let kept = self.remembered.lock().unwrap_or_else(PoisonError::into_inner).get(&shown.name).cloned();
        if let Some(kept) = kept.filter(|kept| Some(&kept.published.version) == newest && fits(shown, &kept.published))
        {
            return Ok(Some(kept.published));
        }
        Ok(history::published(&self.store, shown, versions).await?.map(Arc::new))
    }

    /// Reads the footers of files.
    async fn describe(&self, shown: &Shown, files: &[ShownFile]) -> Result<Vec<DataFile>, PublishError> {
        let read = |file| async move {
            let described = describe(&self.store, file, shown.uri(&file.key), shown.partition_by).await?;
            described.map_err(|source| PublishError::File { key: file.key.clone(), source })
        };
        // SUBTLE: collected, for the futures of a closure that borrows are not known to be `Send`.
        let reads: Vec<_> = files.iter().map(read).collect();
        stream::iter(reads).buffered(READS_MAX).try_collect().await
    }

    /// How long what was published last is taken for the newest: much less than what is superseded is kept.
    fn trusted(&self) -> Duration {
        let kept = Duration::from_millis(u64::try_from(self.options.expiry.age_ms).unwrap_or(0));
        TRUSTED_MAX.min(kept / 6)
    }

    /// What we published last, if it can be taken for the newest.
    fn remembered(&self, shown: &Shown) -> Option<Arc<Published>> {
        let remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = remembered.get(&shown.name)?;
        let usable = kept.at.elapsed() < self.trusted()
            && kept.published.version < shown.version
            && fits(shown, &kept.published);
        usable.then(|| kept.published.clone())
    }

    fn remember(&self, shown: &Shown, published: Option<Published>) {
        let Some(published) = published else { return self.forget(&shown.name) };
        let mut remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        remembered.insert(shown.name.clone(), Remembered { published: Arc::new(published), at: Instant::now() });
        // A table without files costs something too.
        let weight = |kept: &Remembered| 1 + kept.published.live().count();
        let mut total: usize = remembered.values().map(weight).sum();
        while total > self.options.remembered_files_max
            && let Some(oldest) = remembered.iter().min_by_key(|(_, kept)| kept.at).map(|(name, _)| name.clone())
        {
            total -= remembered.remove(&oldest).as_ref().map_or(0, weight);
        }
    }

    fn forget(&self, name: &TableName) {
        self.remembered.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
    }
}

/// Whether a published version is one of the table that is shown, at the same place.
fn fits(shown: &Shown, published: &Published) -> bool {
    published.metadata.table_uuid == shown.table_uuid && published.metadata.location == shown.location()
}

/// Describes a file by its footer: one GET, or two if the footer is long.
async fn describe(
    store: &Store,
    file: &ShownFile,
    path: String,
    by: PartitionBy,
) -> Result<Result<DataFile, FileError>, ReadError> {
    let mut length = FOOTER_GUESS_BYTES;
    loop {
        let suffix = store.get_suffix(&file.key, length).await?;
        let found = suffix.object_size_bytes;
        if found != file.size_bytes {
            return Ok(Err(FileError::Counts { what: "bytes", expected: file.size_bytes, found }));
        }
        match file::parse_footer(&suffix.bytes, found) {
            Ok(Ok(footer)) => return Ok(file::describe(path, by, found, file.rows, &footer)),
            Ok(Err(needed)) if needed > length => length = needed,
            Ok(Err(needed)) => return Ok(Err(FileError::Footer(format!("it asks for {needed} bytes")))),
            Err(error) => return Ok(Err(error)),
        }
    }
}
