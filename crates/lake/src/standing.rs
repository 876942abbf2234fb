//! What stands of a table in the bucket, read by who is no publisher: the newest version, the files that it shows, and the objects that
//! lead there. Nothing is written, and the log is not asked.

use std::collections::{BTreeMap, BTreeSet};

use lakebed_store::{Key, ListError, ReadError, Store};
use uuid::Uuid;

use crate::history;
use crate::layout;
use crate::manifest;
use crate::manifest_list::{self, ManifestFile};
use crate::metadata::{DATED_BACK_MS, Snapshot, TableMetadata};
use crate::shown::{TableName, TableVersion};

/// The newest version of a table, and what is still in sight of earlier ones.
#[derive(Debug, Clone)]
pub struct StandingTable {
    /// The versions whose metadata stands, ascending.
    pub versions: Vec<TableVersion>,
    /// What the hint names; `None` if there is none, or it is torn.
    pub hint: Option<TableVersion>,
    /// Who the table is: the id of its topic.
    pub table_uuid: Uuid,
    /// The name of its topic, as far as it is told.
    pub topic: Option<String>,
    /// What else it tells of itself.
    pub properties: BTreeMap<String, String>,
    /// The files of the newest version.
    pub files: Vec<StandingFile>,
    /// Files that earlier versions in sight show and the newest does not, with when the last of these versions was superseded, in
    /// milliseconds since 1970.
    pub earlier: BTreeMap<String, i64>,
    /// What of earlier versions in sight can't be read: a key, and what is wrong.
    pub damaged_earlier: Vec<(String, String)>,
    /// The objects of the metadata that the newest version leads to.
    pub in_sight: BTreeSet<Key>,
}

/// A file as a version shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StandingFile {
    /// Its URI, as readers are told it.
    pub uri: String,
    /// Its rows.
    pub rows: u64,
    /// Its size.
    pub size_bytes: u64,
    /// The lowest and the highest partition and offset of its rows, as far as they are told.
    pub bounds: Option<Extent>,
}

/// Between which partitions and offsets the rows of a file lie, all ends inclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// The lowest and the highest partition.
    pub partitions: (u32, u32),
    /// The lowest and the highest offset, of any of these.
    pub offsets: (u64, u64),
}

/// What the newest metadata of a table says by itself, whatever has become of what it leads to.
#[derive(Debug, Clone)]
pub struct NewestTable {
    /// The versions whose metadata stands, ascending.
    pub versions: Vec<TableVersion>,
    /// Its key.
    pub key: Key,
    /// Who the table is, and what it tells of itself; or why that can't be read.
    pub told: Result<(Uuid, BTreeMap<String, String>), String>,
}

/// Reads the newest metadata of a table; `None` if none of its versions stands.
///
/// # Cost One LIST and one GET.
/// # Errors [`StandingError`]; metadata that can't be understood is none.
pub async fn newest(store: &Store, name: &TableName) -> Result<Option<NewestTable>, StandingError> {
    let versions = history::versions(store, name).await?;
    let Some(newest) = versions.last() else { return Ok(None) };
    let key = layout::metadata_key(name, *newest);
    let told = match get(store, &key).await {
        Ok(bytes) => serde_json::from_slice::<TableMetadata>(&bytes).map_err(|error| error.to_string()),
        Err(StandingError::Damaged { what, .. }) => Err(what),
        Err(error) => return Err(error),
    };
    let told = told.map(|metadata| (metadata.table_uuid, metadata.properties));
    Ok(Some(NewestTable { versions, key, told }))
}

/// Why a table can't be looked at.
#[derive(Debug, thiserror::Error)]
pub enum StandingError {
    /// An object is missing, or is not what it should be.
    #[error("{key}: {what}")]
    Damaged {
        /// Its key.
        key: String,
        /// What is wrong.
        what: String,
    },
    /// The store gave no good answer.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The store gave no good answer.
    #[error(transparent)]
    List(#[from] ListError),
}

/// Looks at a table; `None` if none of its versions stands.
///
/// # Cost
/// One LIST, a GET each of the hint, the newest metadata, and every list and manifest that is in sight of it.
/// # Errors
/// [`StandingError`]
pub async fn standing(store: &Store, name: &TableName) -> Result<Option<StandingTable>, StandingError> {
    // What a hint names stood before it did: a listing that begins later has it, also while somebody publishes.
    let hint = history::hint(store, name).await?;
    let versions = history::versions(store, name).await?;
    let Some(newest) = versions.last() else { return Ok(None) };
    let key = layout::metadata_key(name, *newest);
    let metadata: TableMetadata =
        serde_json::from_slice(&get(store, &key).await?).map_err(|error| damaged(&key, error))?;
    let current = metadata.current().ok_or_else(|| damaged(&key, "it names no snapshot of its own"))?.clone();
    // The metadata may have been written where the bucket had another name: what is below the table's own directory counts.
    let location = metadata.location.clone();
    let below = |uri: &str| {
        let path = uri.strip_prefix(&*location).and_then(|path| path.strip_prefix('/'));
        path.and_then(|path| name.directory().key(path).ok())
    };
    let mut reached = Reached {
        table_uuid: metadata.table_uuid,
        in_sight: BTreeSet::from([key.clone(), layout::hint_key(name)]),
        read: BTreeMap::new(),
    };
    reached.in_sight.extend(metadata.metadata_log.iter().filter_map(|logged| below(&logged.metadata_file)));
    let files = reached.files_of(store, &key, &current, &below, true).await?;
    let shown: BTreeSet<&str> = files.iter().map(|file| file.uri.as_str()).collect();
    let (mut earlier, mut damaged_earlier) = (BTreeMap::new(), Vec::new());
    for (index, snapshot) in metadata.snapshots.iter().enumerate() {
        if snapshot.snapshot_id == current.snapshot_id {
            continue;
        }
        let superseded_ms = metadata.snapshots.get(index + 1).map_or(current.timestamp_ms, |next| next.timestamp_ms);
        let superseded_ms = superseded_ms.saturating_add(DATED_BACK_MS);
        let shown_then = match reached.files_of(store, &key, snapshot, &below, false).await {
            Ok(files) => files,
            Err(StandingError::Damaged { key, what }) => {
                damaged_earlier.push((key, what));
                continue;
            }
            Err(error) => return Err(error),
        };
        for file in shown_then {
            if !shown.contains(file.uri.as_str()) {
                let last = earlier.entry(file.uri).or_insert(superseded_ms);
                *last = superseded_ms.max(*last);
            }
        }
    }
    drop(shown);
    Ok(Some(StandingTable {
        hint,
        table_uuid: metadata.table_uuid,
        topic: metadata.properties.get("lakebed.topic").cloned(),
        properties: metadata.properties.clone(),
        files,
        earlier,
        damaged_earlier,
        in_sight: reached.in_sight,
        versions,
    }))
}

/// The objects that were come to.
struct Reached {
    table_uuid: Uuid,
    in_sight: BTreeSet<Key>,
    /// The live files of each manifest.
    read: BTreeMap<Key, Vec<StandingFile>>,
}

impl Reached {
    /// The files of a snapshot.
    async fn files_of(
        &mut self,
        store: &Store,
        metadata: &Key,
        snapshot: &Snapshot,
        below: &impl Fn(&str) -> Option<Key>,
        is_newest: bool,
    ) -> Result<Vec<StandingFile>, StandingError> {
        let elsewhere = |at: &Key, uri: &str| damaged(at, format!("it names {uri}, which is not below the table"));
        let list_key = below(&snapshot.manifest_list).ok_or_else(|| elsewhere(metadata, &snapshot.manifest_list))?;
        let list = get_named(store, &list_key, self.table_uuid).await?;
        let list = manifest_list::decode(&list).map_err(|error| damaged(&list_key, error))?;
        self.in_sight.insert(list_key.clone());
        let mut files = Vec::new();
        for manifest in list {
            let key = below(&manifest.path).ok_or_else(|| elsewhere(&list_key, &manifest.path))?;
            if !self.read.contains_key(&key) {
                let live = read_manifest(store, &key, &manifest, self.table_uuid).await?;
                if let Some(stray) = live.iter().find(|file| below(&file.uri).is_none()).filter(|_| is_newest) {
                    return Err(elsewhere(&key, &stray.uri));
                }
                self.read.insert(key.clone(), live);
            }
            files.extend(self.read[&key].iter().cloned());
            self.in_sight.insert(key);
        }
        Ok(files)
    }
}

async fn read_manifest(
    store: &Store,
    key: &Key,
    named: &ManifestFile,
    table_uuid: Uuid,
) -> Result<Vec<StandingFile>, StandingError> {
    let bytes = get_named(store, key, table_uuid).await?;
    let entries = manifest::decode(named.by, &bytes).map_err(|error| damaged(key, error))?;
    let live = entries.iter().filter(|entry| entry.is_live());
    Ok(live
        .map(|entry| StandingFile {
            uri: entry.file.path.clone(),
            rows: entry.file.rows,
            size_bytes: entry.file.size_bytes,
            bounds: entry.file.bounds(),
        })
        .collect())
}

/// An object whose name has a hash of its bytes.
async fn get_named(store: &Store, key: &Key, table_uuid: Uuid) -> Result<bytes::Bytes, StandingError> {
    let bytes = get(store, key).await?;
    let hash = Uuid::new_v5(&table_uuid, &bytes).simple().to_string();
    match key.name().strip_suffix(".avro").is_some_and(|name| name.ends_with(&hash)) {
        true => Ok(bytes),
        false => Err(damaged(key, "its bytes are not those that its name has the hash of")),
    }
}

async fn get(store: &Store, key: &Key) -> Result<bytes::Bytes, StandingError> {
    match store.get(key).await {
        Ok(bytes) => Ok(bytes),
        Err(ReadError::NotFound { .. }) => Err(damaged(key, "nothing stands there")),
        Err(error) => Err(error.into()),
    }
}

fn damaged(key: &Key, what: impl ToString) -> StandingError {
    StandingError::Damaged { key: key.to_string(), what: what.to_string() }
}
