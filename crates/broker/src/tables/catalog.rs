//! What the REST catalog asks of the broker: every topic is a table, and a load is as fresh as its client wants.

use std::sync::Arc;

use async_trait::async_trait;
use lakebed_lake::{CatalogError, Loaded, Refreshes, TableName, TableVersion, Tables as CatalogTables, readers_root};
use lakebed_model::{State, TopicId};
use lakebed_segment::layout;

use super::{TableError, Tables, name_of};

/// Tables for the catalog: those who want one fresh at the same time share a refresh.
pub(crate) struct Fresh {
    tables: Tables,
    refreshes: Refreshes<TopicId, Result<(), Arc<TableError>>>,
}

impl Fresh {
    pub(crate) fn new(tables: Tables) -> Self {
        let refreshed = tables.clone();
        let refreshes = Refreshes::new(move |topic| {
            let tables = refreshed.clone();
            async move { tables.refresh(topic).await.map_err(Arc::new) }
        });
        Self { tables, refreshes }
    }

    async fn state(&self) -> Result<State, CatalogError> {
        let behind = self.tables.inner.log.barrier().await;
        behind.map_err(|error| CatalogError::Unavailable(format!("the log can't be read up to its end: {error}")))
    }
}

#[async_trait]
impl CatalogTables for Fresh {
    async fn tables(&self) -> Result<Vec<TableName>, CatalogError> {
        let state = self.state().await?;
        let mut names: Vec<TableName> = state.topics().map(|(_, topic)| name_of(&topic.name.table_name())).collect();
        names.sort();
        Ok(names)
    }

    async fn load(&self, name: &TableName, fresh: bool) -> Result<Option<Loaded>, CatalogError> {
        let mut state = self.state().await?;
        let Some(topic) = topic_of(&state, name) else { return Ok(None) };
        let published = |state: &State| state.table(topic).map_or(0, |table| table.published);
        // What was never published can't be shown otherwise.
        if fresh || published(&state) == 0 {
            match self.refreshes.next(topic).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) if matches!(*error, TableError::UnknownTopic { .. }) => return Ok(None),
                Ok(Err(error)) => return Err(refused(&error)),
                Err(given_up) => return Err(CatalogError::Unavailable(given_up.to_string())),
            }
            state = self.tables.inner.log.state();
        }
        let Some(version) = TableVersion::new(u64::from(published(&state))) else { return Ok(None) };
        let key = lakebed_lake::layout::metadata_key(name, version);
        let store = &self.tables.inner.store;
        let metadata = store.get(&key).await?;
        Ok(Some(Loaded { metadata_location: format!("{}/{key}", readers_root(store.url())), metadata }))
    }

    async fn exists(&self, name: &TableName) -> Result<bool, CatalogError> {
        Ok(topic_of(&self.state().await?, name).is_some())
    }
}

fn topic_of(state: &State, name: &TableName) -> Option<TopicId> {
    if name.namespace == layout::NAMESPACE { state.topic_of_table(&name.table) } else { None }
}

/// What a client of the catalog is told of a table that can't be made fresh.
fn refused(error: &TableError) -> CatalogError {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    let text = format!("the table can't be made fresh: {text}");
    if error.is_damage() { CatalogError::Broken(text) } else { CatalogError::Unavailable(text) }
}
