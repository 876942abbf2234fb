//! From one version to the next: which manifests stay and which are written. Pure.
//!
//! 1. A manifest is written anew only when a file in it goes, or when it is merged with smaller ones; else its object is named again.
//! 2. A file that stays keeps the snapshot and the sequence number that it came with.
//! 3. Manifests double: one is merged with those that are not larger than what is written anyway. So n files lie in at most
//!    log2([`ENTRIES_MAX`]) + 2n / [`ENTRIES_MAX`] manifests of a spec, and each file is written about log2([`ENTRIES_MAX`]) times.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use lakebed_store::Key;
use uuid::Uuid;

use crate::avro::AvroError;
use crate::file::DataFile;
use crate::layout;
use crate::manifest::{self, Entry, Status};
use crate::manifest_list::{self, ManifestFile};
use crate::metadata::{self, DATED_BACK_MS, Expiry, Snapshot, TableMetadata};
use crate::schema;
use crate::shown::{PartitionBy, Shown, ShownFile, TableVersion};

/// Most entries of a manifest that is written: about 1 MiB.
pub(crate) const ENTRIES_MAX: usize = 4096;

/// A manifest with what is in it.
#[derive(Debug, Clone)]
pub(crate) struct Manifest {
    pub(crate) file: ManifestFile,
    pub(crate) entries: Arc<Vec<Entry>>,
}

impl Manifest {
    fn live(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(|entry| entry.is_live())
    }
}

/// A published version.
#[derive(Debug, Clone)]
pub(crate) struct Published {
    pub(crate) version: TableVersion,
    pub(crate) metadata: TableMetadata,
    pub(crate) manifests: Vec<Manifest>,
}

impl Published {
    /// Files that it shows.
    pub(crate) fn live(&self) -> impl Iterator<Item = &Entry> {
        self.manifests.iter().flat_map(Manifest::live)
    }
}

/// The objects of a version, in the order in which they are to be written.
#[derive(Debug)]
pub(crate) struct Objects {
    pub(crate) manifests: Vec<(Key, Bytes)>,
    pub(crate) list: (Key, Bytes),
    pub(crate) metadata: (Key, Bytes),
    /// The version as it will have been published.
    pub(crate) published: Published,
}

/// A file whose facts are not those that it was published with: keys are never used twice.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The file.
    #[error("file '{key}' was published with {rows} rows in {size_bytes} bytes, and is shown with others")]
    Changed {
        /// Its key.
        key: Key,
        /// Its rows, as published.
        rows: u64,
        /// Its size, as published.
        size_bytes: u64,
    },
    /// An object could not be encoded: a bug.
    #[error(transparent)]
    Encode(#[from] AvroError),
}

/// The files of `shown` that `previous` does not show.
pub(crate) fn added<'a>(shown: &'a Shown, previous: Option<&Published>) -> Vec<&'a ShownFile> {
    let before: BTreeSet<&str> =
        previous.iter().flat_map(|previous| previous.live()).map(|entry| entry.file.path.as_str()).collect();
    shown.files.iter().filter(|file| !before.contains(shown.uri(&file.key).as_str())).collect()
}

/// Builds the objects of a version. `previous` is one of the same table at the same place, `arrived` describes the files that it lacks.
///
/// # Errors
/// [`BuildError`]
pub(crate) fn build(
    shown: &Shown,
    previous: Option<&Published>,
    arrived: Vec<DataFile>,
    expiry: &Expiry,
) -> Result<Objects, BuildError> {
    let id = metadata::snapshot_id(shown.table_uuid, shown.version);
    let sequence = i64::from(shown.version.get());
    let before = previous.map_or(&[][..], |previous| &previous.manifests);
    let mut sorted = sort(shown, before, id)?;
    let mut changes = Changes::of(&sorted.pending, &arrived);
    for file in arrived {
        let entry = Entry { status: Status::Added, snapshot: id, sequence, file: Arc::new(file) };
        sorted.pending.entry(entry.file.by).or_default().push(entry);
    }
    let mut manifests = Vec::new();
    let mut written = Vec::new();
    for (by, pending) in sorted.pending {
        let entries = merge(pending, sorted.kept.get_mut(&by).unwrap_or(&mut Vec::new()));
        for entries in in_pieces(entries) {
            let bytes: Bytes = manifest::encode(by, shown.value_format, &entries)?.into();
            let key = layout::manifest_key(&shown.name, shown.version, digest(shown, &bytes));
            let file = ManifestFile::of(shown.uri(&key), bytes.len(), by, id, sequence, &entries);
            manifests.push(Manifest { file, entries: Arc::new(entries) });
            written.push((key, bytes));
        }
    }
    manifests.extend(sorted.kept.into_values().flatten());
    let files: Vec<ManifestFile> = manifests.iter().map(|manifest| manifest.file.clone()).collect();
    changes.total_files = shown.files.len() as u64;
    changes.total_rows = manifests.iter().flat_map(Manifest::live).map(|entry| entry.file.rows).sum();
    changes.total_bytes = shown.files.iter().map(|file| file.size_bytes).sum();
    let before = previous.map(|previous| &previous.metadata);
    let parent = before.map(|before| before.current_snapshot_id);
    let list: Bytes = manifest_list::encode(id, parent, sequence, &files)?.into();
    let time_ms = metadata::snapshot_time_ms(shown, before);
    let list_key =
        layout::list_key(&shown.name, shown.version, time_ms.saturating_add(DATED_BACK_MS), digest(shown, &list));
    let snapshot = Snapshot {
        snapshot_id: id,
        parent_snapshot_id: parent,
        sequence_number: sequence,
        timestamp_ms: time_ms,
        manifest_list: shown.uri(&list_key),
        summary: changes.summary(shown),
        schema_id: shown.value_format.schema_id(),
    };
    let metadata =
        TableMetadata::next(shown, previous.map(|previous| (previous.version, &previous.metadata)), snapshot, expiry);
    let bytes: Bytes = metadata.to_bytes().into();
    Ok(Objects {
        manifests: written,
        list: (list_key, list),
        metadata: (layout::metadata_key(&shown.name, shown.version), bytes),
        published: Published { version: shown.version, metadata, manifests },
    })
}

/// The manifests of the version before, sorted by what becomes of them.
struct Sorted {
    /// Those that stay as they are.
    kept: BTreeMap<PartitionBy, Vec<Manifest>>,
    /// Entries of those that a file has gone from.
    pending: BTreeMap<PartitionBy, Vec<Entry>>,
}

fn sort(shown: &Shown, manifests: &[Manifest], id: i64) -> Result<Sorted, BuildError> {
    let files: BTreeMap<String, &ShownFile> = shown.files.iter().map(|file| (shown.uri(&file.key), file)).collect();
    let mut sorted = Sorted { kept: BTreeMap::new(), pending: BTreeMap::new() };
    for manifest in manifests {
        let mut entries = Vec::with_capacity(manifest.entries.len());
        for entry in manifest.live() {
            let file = &entry.file;
            match files.get(&file.path) {
                None => entries.push(Entry { status: Status::Deleted, snapshot: id, ..entry.clone() }),
                Some(now) if now.size_bytes == file.size_bytes && now.rows <= file.rows => {
                    entries.push(Entry { status: Status::Existing, ..entry.clone() });
                }
                Some(now) => {
                    return Err(BuildError::Changed {
                        key: now.key.clone(),
                        rows: file.rows,
                        size_bytes: file.size_bytes,
                    });
                }
            }
        }
        if entries.iter().any(|entry| !entry.is_live()) {
            sorted.pending.entry(manifest.file.by).or_default().append(&mut entries);
        } else if !entries.is_empty() {
            sorted.kept.entry(manifest.file.by).or_default().push(manifest.clone());
        }
    }
    Ok(sorted)
}

/// Takes manifests out of `kept` that are not larger than what is written anyway.
fn merge(mut pending: Vec<Entry>, kept: &mut Vec<Manifest>) -> Vec<Entry> {
    kept.sort_by_key(|manifest| std::cmp::Reverse((manifest.live().count(), manifest.file.path.clone())));
    while let Some(smallest) = kept.last() {
        let count = smallest.live().count();
        if count > pending.len() || pending.len() + count > ENTRIES_MAX {
            break;
        }
        pending.extend(smallest.live().map(|entry| Entry { status: Status::Existing, ..entry.clone() }));
        kept.pop();
    }
    // The order of their making, so that files of a time lie together.
    pending.sort_by(|a, b| a.file.path.cmp(&b.file.path));
    kept.sort_by(|a, b| a.file.path.cmp(&b.file.path));
    pending
}

fn in_pieces(entries: Vec<Entry>) -> Vec<Vec<Entry>> {
    let count = entries.len().div_ceil(ENTRIES_MAX).max(1);
    let size = entries.len().div_ceil(count).max(1);
    entries.chunks(size).map(<[Entry]>::to_vec).collect()
}

/// A name made of the bytes.
fn digest(shown: &Shown, bytes: &[u8]) -> Uuid {
    Uuid::new_v5(&shown.table_uuid, bytes)
}

/// What a snapshot changed, for its summary.
#[derive(Default)]
struct Changes {
    added: [u64; 3],
    removed: [u64; 3],
    partitions: usize,
    /// Whether the files that went and those that came hold the same rows, as far as their bounds and counts can tell.
    rewrites: bool,
    total_files: u64,
    total_rows: u64,
    total_bytes: u64,
}

impl Changes {
    fn of(pending: &BTreeMap<PartitionBy, Vec<Entry>>, arrived: &[DataFile]) -> Self {
        let removed: Vec<&DataFile> =
            pending.values().flatten().filter(|entry| !entry.is_live()).map(|entry| &*entry.file).collect();
        let arrived: Vec<&DataFile> = arrived.iter().collect();
        let tally = |files: &[&DataFile]| {
            [
                files.len() as u64,
                files.iter().map(|file| file.rows).sum(),
                files.iter().map(|file| file.size_bytes).sum(),
            ]
        };
        let partitions: BTreeSet<(PartitionBy, Option<i32>)> =
            removed.iter().chain(&arrived).map(|file| (file.by, file.partition)).collect();
        let (added, gone) = (tally(&arrived), tally(&removed));
        let (come, went) = (extremes(&arrived), extremes(&removed));
        let rewrites = added[1] == gone[1] && come == went && come.iter().all(Option::is_some);
        Self { added, removed: gone, partitions: partitions.len(), rewrites, ..Self::default() }
    }

    fn summary(&self, shown: &Shown) -> BTreeMap<String, String> {
        let operation = match (self.added[0], self.removed[0]) {
            (_, 0) => "append",
            (0, _) => "delete",
            _ if self.rewrites => "replace",
            _ => "overwrite",
        };
        let mut summary = BTreeMap::from([("operation".to_owned(), operation.to_owned())]);
        let mut set = |key: &str, value: u64| {
            summary.insert(key.to_owned(), value.to_string());
        };
        for (prefix, size, [files, rows, bytes]) in
            [("added", "added-files-size", self.added), ("deleted", "removed-files-size", self.removed)]
        {
            if files > 0 {
                set(&format!("{prefix}-data-files"), files);
                set(&format!("{prefix}-records"), rows);
                set(size, bytes);
            }
        }
        set("changed-partition-count", self.partitions as u64);
        set("total-data-files", self.total_files);
        set("total-records", self.total_rows);
        set("total-files-size", self.total_bytes);
        for none in ["total-delete-files", "total-position-deletes", "total-equality-deletes"] {
            set(none, 0);
        }
        set("lakebed.commit", shown.commit.get());
        set("lakebed.version", u64::from(shown.version.get()));
        summary
    }
}

/// The lowest and highest partition and offset.
fn extremes(files: &[&DataFile]) -> [Option<i64>; 4] {
    let number = |bytes: &[u8]| match bytes.len() {
        4 => Some(i64::from(i32::from_le_bytes(bytes.try_into().ok()?))),
        _ => Some(i64::from_le_bytes(bytes.try_into().ok()?)),
    };
    let columns = |id: i32| files.iter().filter_map(move |file| file.columns.get(&id));
    let lowest = |id| columns(id).filter_map(|column| number(column.lower.as_deref()?)).min();
    let highest = |id| columns(id).filter_map(|column| number(column.upper.as_deref()?)).max();
    [lowest(schema::PARTITION), lowest(schema::OFFSET), highest(schema::PARTITION), highest(schema::OFFSET)]
}
