//! What has been published of a table, as it stands in the bucket.

use futures::stream::{self, StreamExt, TryStreamExt};
use lakebed_store::{Key, ListError, ReadError, Store};

use crate::layout;
use crate::manifest;
use crate::manifest_list;
use crate::metadata::TableMetadata;
use crate::next::{Manifest, Published};
use crate::shown::{Shown, TableName, TableVersion};

/// Objects that are read at once.
pub(crate) const READS_MAX: usize = 16;
/// Most objects of one listing.
const LISTED_MAX: usize = 10_000;
/// How many versions are tried, from the newest on, until one can be read.
const TRIED_MAX: usize = 4;

/// The versions whose metadata stands in the bucket, ascending.
///
/// # Cost
/// One LIST.
/// # Errors
/// [`ListError`]
pub(crate) async fn versions(store: &Store, name: &TableName) -> Result<Vec<TableVersion>, ListError> {
    let directory = layout::metadata_directory(name);
    let mut after = layout::before_versions(name);
    let mut versions = Vec::new();
    loop {
        let listing = store.list(&directory, Some(&after), LISTED_MAX).await?;
        versions.extend(listing.objects.iter().filter_map(|listed| layout::parse_metadata_key(name, &listed.key)));
        match listing.objects.last() {
            Some(last) if listing.more => after = last.key.clone(),
            _ => break,
        }
    }
    versions.sort_unstable();
    Ok(versions)
}

/// The version that the hint names; `None` if there is none, or it is torn.
///
/// # Cost
/// One GET.
/// # Errors
/// [`ReadError`], never that nothing stands there.
pub async fn hint(store: &Store, name: &TableName) -> Result<Option<TableVersion>, ReadError> {
    match store.get(&layout::hint_key(name)).await {
        Ok(bytes) => Ok(std::str::from_utf8(&bytes).ok().and_then(|text| TableVersion::new(text.parse().ok()?))),
        Err(ReadError::NotFound { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The newest of `versions` below the one that is shown whose metadata, list and manifests can all be read. `None` if none of the
/// newest can: the table then begins anew, without its history.
///
/// # Cost
/// A GET each of metadata and list, and one for each manifest.
/// # Errors
/// [`ReadError`] if the store gave no good answer. What is missing or damaged is told in the log, and no error.
pub(crate) async fn published(
    store: &Store,
    shown: &Shown,
    versions: &[TableVersion],
) -> Result<Option<Published>, ReadError> {
    let before = versions.iter().rev().filter(|version| **version < shown.version);
    for version in before.take(TRIED_MAX) {
        match read(store, shown, *version).await {
            Ok(published) => return Ok(published),
            Err(Unusable::Store(error)) => return Err(error),
            Err(Unusable::Damaged(what)) => {
                tracing::warn!(table = %shown.name, %version, what, "a published version can't be read, the one before is tried");
            }
        }
    }
    Ok(None)
}

enum Unusable {
    Store(ReadError),
    Damaged(String),
}

/// `None` if the version is of another table or of another place: nothing follows from it for this one.
async fn read(store: &Store, shown: &Shown, version: TableVersion) -> Result<Option<Published>, Unusable> {
    let bytes = get(store, &layout::metadata_key(&shown.name, version)).await?;
    let metadata: TableMetadata = serde_json::from_slice(&bytes).map_err(damaged)?;
    if metadata.table_uuid != shown.table_uuid || metadata.location != shown.location() {
        return Ok(None);
    }
    let current = metadata.current().ok_or_else(|| damaged("it names no snapshot of its own"))?;
    let list = get(store, &key_of(shown, &current.manifest_list)?).await?;
    let files = manifest_list::decode(&list).map_err(damaged)?;
    let read = |file: manifest_list::ManifestFile| async move {
        let bytes = get(store, &key_of(shown, &file.path)?).await?;
        let entries = manifest::decode(file.by, &bytes).map_err(damaged)?;
        Ok::<Manifest, Unusable>(Manifest { file, entries: entries.into() })
    };
    let reads: Vec<_> = files.into_iter().map(read).collect();
    let manifests = stream::iter(reads).buffered(READS_MAX).try_collect().await?;
    Ok(Some(Published { version, metadata, manifests }))
}

async fn get(store: &Store, key: &Key) -> Result<bytes::Bytes, Unusable> {
    match store.get(key).await {
        Ok(bytes) => Ok(bytes),
        Err(error @ ReadError::NotFound { .. }) => Err(damaged(error)),
        Err(error) => Err(Unusable::Store(error)),
    }
}

/// The key of a URI below the root.
fn key_of(shown: &Shown, uri: &str) -> Result<Key, Unusable> {
    let key =
        uri.strip_prefix(&shown.root).and_then(|path| path.strip_prefix('/')).and_then(|path| Key::new(path).ok());
    key.ok_or_else(|| damaged(format!("it names {uri}, which is not below {}", shown.root)))
}

fn damaged(what: impl ToString) -> Unusable {
    Unusable::Damaged(what.to_string())
}
