//! Reading a topic's table here, without its catalog: for who wants to show what others would see.

use lakebed_model::{State, TopicId};
use lakebed_segment::layout;
use lakebed_segment::rows::RowSource;
use lakebed_store::Key;

use super::TableError;
use crate::rooms::Rooms;
use crate::storage::ObjectError;
use crate::storage::file::TableFile;

/// Why a table was not read.
#[derive(Debug, thiserror::Error)]
pub enum ReadTableError {
    /// There is no such topic.
    #[error("topic {0} does not exist")]
    UnknownTopic(String),
    /// It could not be made fresh.
    #[error("its table can't be made fresh")]
    Fresh(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A file can't be read.
    #[error("table file {key} can't be read")]
    File {
        /// Its key.
        key: String,
        /// Why.
        source: ObjectError,
    },
}

impl From<TableError> for ReadTableError {
    fn from(error: TableError) -> Self {
        Self::Fresh(Box::new(error))
    }
}

impl Rooms {
    /// Makes all that is acknowledged visible in a topic's table, and calls `visit` with the value of every row of its files, a file after
    /// another. Returns how many files these are.
    ///
    /// # Errors
    /// [`ReadTableError`]
    /// # Cost
    /// A compaction and a publication if anything is new; then every byte of the files.
    pub async fn visit_table(
        &self,
        topic: &str,
        mut visit: impl FnMut(Option<&[u8]>),
    ) -> Result<usize, ReadTableError> {
        let unknown = || ReadTableError::UnknownTopic(topic.to_owned());
        let id = self.log.state().topic_id(topic).ok_or_else(unknown)?;
        self.tables.refresh(id).await?;
        let state = self.log.state();
        let keys = keys_of(&state, id).ok_or_else(unknown)?;
        for key in &keys {
            let failed = |source| ReadTableError::File { key: key.to_string(), source };
            let file = TableFile::open(&self.store, key.clone()).await.map_err(failed)?;
            for part in file.parts(0..file.footer.rows) {
                let read = file.rows(part).await.map_err(failed)?;
                (0..read.rows.len()).for_each(|row| visit(read.rows.value(row)));
            }
        }
        Ok(keys.len())
    }
}

fn keys_of(state: &State, topic: TopicId) -> Option<Vec<Key>> {
    let table = state.topic(topic)?.name.table_name();
    let files = state.table_files(topic).into_iter();
    let key = |id| Key::new(layout::table_file_key(&table, id)).expect("keys of the layout are valid");
    Some(files.map(|(id, _)| key(id)).collect())
}

/// Where others find the table of a topic, given the URL of the store; `None` if no other process can.
pub fn table_location(store_url: &str, topic: &str) -> Option<String> {
    let name = lakebed_model::TopicName::new(topic).ok()?;
    let root = lakebed_lake::readers_root(store_url);
    let is_memory = store_url.starts_with("memory:");
    (!is_memory).then(|| format!("{root}/{}", layout::table_prefix(&name.table_name()).trim_end_matches('/')))
}
