//! What of a table's metadata no reader needs any more, found from what stands in the bucket alone.
//!
//! A reader may use what it found for the time that superseded versions are kept: the version that it began with, and the earlier ones to
//! which that leads. So an object is due only if
//!
//! 1. the newest version does not lead to it, by its snapshots or by its log of earlier metadata; and
//! 2. every version that leads to it was superseded longer ago than that. The names of manifest lists say when each version began. Of the
//!    versions that were not, the oldest leads to all that the others lead to and that is older than itself.
//!
//! What belongs to a version above the newest may be of a publication that is running, and is left alone.

use std::collections::{BTreeMap, BTreeSet};

use futures::stream::{self, StreamExt, TryStreamExt};
use lakebed_store::{Key, ListError, ReadError, Store};
use uuid::Uuid;

use crate::avro::AvroError;
use crate::history::{self, READS_MAX};
use crate::layout::{self, Avro};
use crate::manifest_list;
use crate::metadata::TableMetadata;
use crate::shown::{TableName, TableVersion};

/// Objects of one listing.
const LISTED_MAX: usize = 10_000;

/// Why it is not known what is due. Nothing was deleted.
#[derive(Debug, thiserror::Error)]
pub enum SweepError {
    /// The metadata could not be listed now.
    #[error(transparent)]
    List(#[from] ListError),
    /// An object could not be read now.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The newest version's metadata is damaged.
    #[error("the metadata '{key}' can't be read")]
    Metadata {
        /// Its key.
        key: Key,
        /// Why.
        source: serde_json::Error,
    },
    /// A manifest list is damaged.
    #[error("the manifest list '{key}' can't be read")]
    ManifestList {
        /// Its key.
        key: Key,
        /// Why.
        source: AvroError,
    },
}

/// What stands in the directory of a table's metadata.
#[derive(Default)]
struct Standing {
    versions: BTreeMap<TableVersion, Key>,
    lists: Vec<(TableVersion, Key)>,
    manifests: Vec<(TableVersion, Key)>,
    /// When each version began. Of two lists of one version the later counts: nothing is due too early.
    begun_ms: BTreeMap<TableVersion, i64>,
}

/// The objects of a table's metadata that no reader needs any more, if versions are kept for `age_ms` after they were superseded.
///
/// # Cost
/// One LIST, one GET of the newest metadata and one of that of the oldest version that is kept, and one for the list of each of these.
/// # Errors
/// [`SweepError`]
pub async fn due(store: &Store, name: &TableName, now_ms: i64, age_ms: i64) -> Result<Vec<Key>, SweepError> {
    due_among(store, Standing::of(store, name).await?, now_ms, age_ms).await
}

/// As [`due`], of what a listing of the table has shown just now.
///
/// # Cost
/// As [`due`], without the LIST.
/// # Errors
/// [`SweepError`]
pub async fn due_of(
    store: &Store,
    name: &TableName,
    listed: &[Key],
    now_ms: i64,
    age_ms: i64,
) -> Result<Vec<Key>, SweepError> {
    let mut standing = Standing::default();
    listed.iter().for_each(|key| standing.take(name, key));
    due_among(store, standing, now_ms, age_ms).await
}

/// The version of the oldest snapshot to which a table's newest metadata leads; `None` if it has none.
///
/// # Cost
/// One LIST, one GET.
/// # Errors
/// [`SweepError`]
pub async fn oldest_shown(store: &Store, name: &TableName) -> Result<Option<TableVersion>, SweepError> {
    let Some(newest) = history::versions(store, name).await?.last().copied() else { return Ok(None) };
    Ok(metadata_of(store, &layout::metadata_key(name, newest)).await?.oldest())
}

/// Whose table it is by its newest metadata: the id of its topic; `None` if no version stands.
///
/// # Cost
/// One LIST, one GET.
/// # Errors
/// [`SweepError`]
pub async fn table_uuid(store: &Store, name: &TableName) -> Result<Option<Uuid>, SweepError> {
    let Some(newest) = history::versions(store, name).await?.last().copied() else { return Ok(None) };
    Ok(Some(metadata_of(store, &layout::metadata_key(name, newest)).await?.table_uuid))
}

async fn metadata_of(store: &Store, key: &Key) -> Result<TableMetadata, SweepError> {
    let metadata = serde_json::from_slice(&store.get(key).await?);
    metadata.map_err(|source| SweepError::Metadata { key: key.clone(), source })
}

async fn due_among(store: &Store, standing: Standing, now_ms: i64, age_ms: i64) -> Result<Vec<Key>, SweepError> {
    let Some((newest, key)) = standing.versions.last_key_value() else { return Ok(Vec::new()) };
    let mut leads_to = led_to(&metadata_of(store, key).await?);
    let is_past =
        |version: &TableVersion| version < newest && standing.is_past(*version, now_ms.saturating_sub(age_ms));
    let oldest_kept = standing.versions.iter().find(|(version, _)| !is_past(version));
    if let Some((_, key)) = oldest_kept.filter(|(version, _)| *version < newest) {
        leads_to.extend(led_to(&metadata_of(store, key).await?));
    }
    let is_due = |(version, key): &(&TableVersion, &Key)| is_past(version) && !leads_to.contains(key.name());
    let mut due: Vec<Key> = standing.versions.iter().filter(is_due).map(|(_, key)| key.clone()).collect();
    let (past, kept): (Vec<_>, Vec<_>) = standing.lists.iter().partition(|(version, key)| is_due(&(version, key)));
    due.extend(past.into_iter().map(|(_, key)| key.clone()));
    let needed = manifests_of(store, kept.into_iter().map(|(_, key)| key)).await?;
    let unneeded = standing.manifests.iter().filter(|(version, key)| version <= newest && !needed.contains(key.name()));
    due.extend(unneeded.map(|(_, key)| key.clone()));
    Ok(due)
}

/// The names of the manifest lists and of the earlier metadata to which a version leads.
fn led_to(metadata: &TableMetadata) -> BTreeSet<String> {
    let lists = metadata.snapshots.iter().map(|snapshot| &snapshot.manifest_list);
    let earlier = metadata.metadata_log.iter().map(|logged| &logged.metadata_file);
    lists.chain(earlier).map(|uri| name_of(uri).to_owned()).collect()
}

impl Standing {
    async fn of(store: &Store, name: &TableName) -> Result<Self, ListError> {
        let directory = layout::metadata_directory(name);
        let mut standing = Self::default();
        let mut after: Option<Key> = None;
        loop {
            let listing = store.list(&directory, after.as_ref(), LISTED_MAX).await?;
            for listed in &listing.objects {
                standing.take(name, &listed.key);
            }
            after = listing.objects.last().map(|last| last.key.clone());
            if !listing.more {
                return Ok(standing);
            }
        }
    }

    fn take(&mut self, name: &TableName, key: &Key) {
        if let Some(version) = layout::parse_metadata_key(name, key) {
            self.versions.insert(version, key.clone());
        }
        match layout::parse_avro_key(key) {
            Some(Avro::Manifest(version)) => self.manifests.push((version, key.clone())),
            Some(Avro::List(version, time_ms)) => {
                let begun_ms = self.begun_ms.entry(version).or_insert(time_ms);
                *begun_ms = time_ms.max(*begun_ms);
                self.lists.push((version, key.clone()));
            }
            None => {}
        }
    }

    /// Whether the version was superseded before `until_ms`, by a version that stands.
    fn is_past(&self, version: TableVersion, until_ms: i64) -> bool {
        let mut later =
            self.begun_ms.iter().filter(|(later, _)| **later > version && self.versions.contains_key(later));
        later.any(|(_, begun_ms)| *begun_ms < until_ms)
    }
}

/// The names of the manifests of some lists.
async fn manifests_of(store: &Store, lists: impl Iterator<Item = &Key>) -> Result<BTreeSet<String>, SweepError> {
    let read = |key: Key| async move {
        let bytes = store.get(&key).await?;
        manifest_list::decode(&bytes).map_err(|source| SweepError::ManifestList { key: key.clone(), source })
    };
    let reads: Vec<_> = lists.cloned().map(read).collect();
    let read: Vec<Vec<manifest_list::ManifestFile>> = stream::iter(reads).buffered(READS_MAX).try_collect().await?;
    Ok(read.into_iter().flatten().map(|manifest| name_of(&manifest.path).to_owned()).collect())
}

fn name_of(uri: &str) -> &str {
    uri.rsplit_once('/').map_or(uri, |(_, name)| name)
}
