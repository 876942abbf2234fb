//! Tables as they stand in the bucket: for a catalog that knows no more than what was published.

use async_trait::async_trait;
use futures::stream::{self, StreamExt, TryStreamExt};
use lakebed_store::{Directory, ListError, ReadError, Store};

use crate::catalog::{CatalogError, Loaded, Tables};
use crate::history::{self, READS_MAX};
use crate::layout;
use crate::shown::{TableName, TableVersion, readers_root};

/// The tables that were published in a bucket. A load is as fresh as the newest publication, whoever asks.
#[derive(Debug, Clone)]
pub struct StoredTables {
    store: Store,
}

impl StoredTables {
    /// The tables of a store.
    pub fn new(store: Store) -> Self {
        Self { store }
    }

    async fn newest(&self, name: &TableName) -> Result<Option<TableVersion>, ListError> {
        Ok(history::versions(&self.store, name).await?.last().copied())
    }

    /// The names right in a directory that name tables or namespaces.
    async fn names(&self, directory: &str) -> Result<Vec<String>, ListError> {
        let directory = Directory::new(directory).expect("checked names make portable keys");
        self.store.list_directories(&directory).await
    }
}

#[async_trait]
impl Tables for StoredTables {
    /// # Cost
    /// A LIST for each namespace, and a GET for each table.
    async fn tables(&self) -> Result<Vec<TableName>, CatalogError> {
        let mut candidates = Vec::new();
        for namespace in self.names("tables").await? {
            if TableName::new(&*namespace, "x").is_none() {
                continue;
            }
            let tables = self.names(&format!("tables/{namespace}")).await?;
            candidates.extend(tables.into_iter().filter_map(|table| TableName::new(&*namespace, table)));
        }
        let checks = candidates.into_iter().map(async |name| {
            // One that has data, or was withdrawn, but no hint is none yet, or none any more.
            let stands = self.store.exists(&layout::hint_key(&name)).await?;
            Ok::<_, CatalogError>(stands.then_some(name))
        });
        let names: Vec<Option<TableName>> = stream::iter(checks).buffered(READS_MAX).try_collect().await?;
        let mut names: Vec<TableName> = names.into_iter().flatten().collect();
        names.sort();
        Ok(names)
    }

    async fn load(&self, name: &TableName, _fresh: bool) -> Result<Option<Loaded>, CatalogError> {
        if !self.exists(name).await? {
            return Ok(None);
        }
        let Some(version) = self.newest(name).await? else { return Ok(None) };
        let key = layout::metadata_key(name, version);
        let metadata = self.store.get(&key).await?;
        let metadata_location = format!("{}/{key}", readers_root(self.store.url()));
        Ok(Some(Loaded { metadata_location, metadata }))
    }

    async fn exists(&self, name: &TableName) -> Result<bool, CatalogError> {
        Ok(self.store.exists(&layout::hint_key(name)).await?)
    }
}

impl From<ReadError> for CatalogError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::NotFound { .. } | ReadError::OutOfRange { .. } => Self::Broken(told(&error)),
            _ => Self::Unavailable(told(&error)),
        }
    }
}

impl From<ListError> for CatalogError {
    fn from(error: ListError) -> Self {
        Self::Unavailable(told(&error))
    }
}

/// An error with its causes, in one line.
fn told(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
