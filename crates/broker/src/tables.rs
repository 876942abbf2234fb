//! Topics as tables: publishes what compaction has made, makes a table fresh for who asks, and deletes files that nobody reads any more.
//!
//! 1. A version is published as it was allotted: the state changes a table's files and its version together.
//! 2. A file is deleted when the state does not name it, no later commit can name it, and no published version has shown it for
//!    [`TableOptions::grace`]: running queries end in that time.
//! 3. How long that is, this process measures: a restart begins anew.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::stream::{self, StreamExt};
use lakebed_compact::{Compactor, RewriteError};
use lakebed_lake::{
    Expiry, PartitionBy, PublishError, Publisher, Shown, ShownFile, SweepError, TableName, TableVersion, ValueFormat,
    readers_root,
};
use lakebed_log::{AppendError, BarrierError, Log};
use lakebed_model::{Change, Compaction, State, TableFileId, TopicId};
use lakebed_segment::layout;
use lakebed_segment::table::{self, TableSettings};
use lakebed_store::{Directory, Key, ListError, Store};
use tokio::time::{Instant, sleep};

pub(crate) mod catalog;
pub(crate) mod reading;
mod reclaim;
mod sight;
#[cfg(test)]
mod tests;
pub(crate) mod told;
mod waiting;

use waiting::{Of, Waiting};

use crate::storage::Listing;

/// Tables that are published at once.
const PUBLISHED_AT_ONCE: usize = 8;
/// After a publication that failed, the next try waits so long.
const REST_AFTER_FAILURE: Duration = Duration::from_secs(5);

/// Settings of [`Tables`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TableOptions {
    /// Files that no version shows any more, and metadata that no version leads to, stay so long for running queries (1 h).
    pub grace: Duration,
}

impl Default for TableOptions {
    fn default() -> Self {
        Self { grace: Duration::from_secs(3600) }
    }
}

/// Why a table is not as fresh as it should be.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// There is no such topic (any more).
    #[error("topic {topic} does not exist")]
    UnknownTopic {
        /// Its id.
        topic: TopicId,
    },
    /// What is acknowledged could not be found out.
    #[error(transparent)]
    Barrier(#[from] BarrierError),
    /// Its rows could not be put into table files.
    #[error(transparent)]
    Compact(#[from] RewriteError),
    /// Its files could not be listed.
    #[error(transparent)]
    List(#[from] ListError),
    /// What its newest metadata leads to could not be found out.
    #[error(transparent)]
    Sweep(#[from] SweepError),
    /// A file that the state names is not there.
    #[error("table file {key} does not stand, but the log names it")]
    Missing {
        /// Its key.
        key: String,
    },
    /// The version could not be published.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// The log did not take it down.
    #[error(transparent)]
    Append(#[from] AppendError),
}

impl TableError {
    /// Whether it stays until somebody mends something.
    fn is_damage(&self) -> bool {
        match self {
            Self::Missing { .. } => true,
            Self::Compact(error) => matches!(
                error,
                RewriteError::Damaged { .. }
                    | RewriteError::Taken { .. }
                    | RewriteError::Unfaithful { .. }
                    | RewriteError::Table(_)
            ),
            Self::Publish(error) => {
                matches!(error, PublishError::Invalid { .. } | PublishError::File { .. } | PublishError::Taken { .. })
            }
            Self::UnknownTopic { .. } | Self::Barrier(_) | Self::List(_) | Self::Sweep(_) | Self::Append(_) => false,
        }
    }
}

/// See the module. A handle; clones share it.
#[derive(Debug, Clone)]
pub struct Tables {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    log: Log,
    store: Store,
    compactor: Compactor,
    publisher: Publisher,
    options: TableOptions,
    /// One at a time writes what readers of a table see. By name: topics that follow one another under one have their turns together.
    turns: Mutex<BTreeMap<TableName, Arc<tokio::sync::Mutex<()>>>>,
    /// Tables that readers may see.
    in_sight: Mutex<BTreeMap<TopicId, TableName>>,
    waiting: Waiting,
    /// Of each table that was published: the version of the oldest snapshot to which its newest metadata leads.
    oldest: Mutex<BTreeMap<TopicId, u32>>,
    /// When a table's metadata was last looked through for what no reader needs.
    swept: Mutex<BTreeMap<TopicId, Instant>>,
}

impl Tables {
    /// Tables over a log. [`Tables::run`] must run for anything to be published by itself.
    pub fn new(log: Log, store: Store, compactor: Compactor, table_options: TableOptions) -> Self {
        let age_ms = i64::try_from(table_options.grace.as_millis()).unwrap_or(i64::MAX);
        let expiry = Expiry { age_ms, ..Expiry::default() };
        let options =
            lakebed_lake::Options { expiry, offload: log.seams().offload, ..lakebed_lake::Options::default() };
        let publisher = Publisher::new(store.clone(), options);
        let is_rash = log.broken().deletes_table_files_at_once();
        let table_options = if is_rash { TableOptions { grace: Duration::from_millis(100) } } else { table_options };
        Self {
            inner: Arc::new(Inner {
                log,
                store,
                compactor,
                publisher,
                options: table_options,
                turns: Mutex::default(),
                in_sight: Mutex::default(),
                waiting: Waiting::default(),
                oldest: Mutex::default(),
                swept: Mutex::default(),
            }),
        }
    }

    /// Publishes what is behind, and deletes what nobody reads any more, until the log closes.
    ///
    /// # Cancel
    /// May leave metadata that nothing names, and versions that are published later.
    pub async fn run(self) {
        tokio::select! {
            biased;
            () = self.publish_all() => {}
            () = self.reclaim() => {}
            () = self.survey() => {}
        }
    }

    /// Publishes what is behind, until the log closes.
    async fn publish_all(&self) {
        let log = &self.inner.log;
        let mut commits = log.watch();
        while log.is_closed().is_none() {
            commits.mark_unchanged();
            let state = log.state();
            let behind: Vec<TopicId> =
                state.tables().filter(|(_, table)| table.published < table.version).map(|(id, _)| id).collect();
            let publications: Vec<_> = behind.into_iter().map(|topic| self.published(topic)).collect();
            let all = stream::iter(publications).buffer_unordered(PUBLISHED_AT_ONCE);
            let all = all.fold(true, |all, done| std::future::ready(all && done));
            let (all, gone) = futures::join!(all, self.withdraw_deleted(&state));
            if !all || !gone {
                tokio::select! {
                    biased;
                    _ = log.closed() => return,
                    () = sleep(REST_AFTER_FAILURE) => {}
                }
                continue;
            }
            tokio::select! {
                biased;
                _ = log.closed() => return,
                changed = commits.changed() => if changed.is_err() { return },
            }
        }
    }

    /// Publishes a table; whether it is.
    async fn published(&self, topic: TopicId) -> bool {
        match self.publish(topic).await {
            Ok(()) | Err(TableError::UnknownTopic { .. }) => true,
            Err(error) if self.inner.log.is_closed().is_some() => {
                tracing::debug!(%error, "a table is not published: the log is closed");
                false
            }
            Err(error) => {
                let error = &error as &(dyn std::error::Error + 'static);
                tracing::warn!(error, %topic, "a table could not be published; trying again later");
                false
            }
        }
    }

    /// Makes everything of a topic that is acknowledged now visible to readers of its table.
    ///
    /// # Errors
    /// [`TableError`]
    /// # Cost
    /// A barrier, a compaction of what is in no table file, a publication if anything changed.
    pub async fn refresh(&self, topic: TopicId) -> Result<(), TableError> {
        if !self.inner.log.broken().refreshes_without_barrier() {
            self.inner.log.barrier().await?;
        }
        self.inner.compactor.refresh(topic).await?;
        let state = self.inner.log.state();
        if state.topic(topic).is_none() {
            return Err(TableError::UnknownTopic { topic });
        }
        if state.table(topic).is_none() {
            let first = move |state: &State| match state.table(topic) {
                None => Ok(vec![Change::Compact(Compaction { topic, files: Vec::new() })]),
                // Somebody else was first.
                Some(_) => Ok(Vec::new()),
            };
            match self.inner.log.alter(first).await {
                Err(AppendError::Refused(_)) | Ok(_) => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.publish(topic).await
    }

    /// Publishes the newest version of a table, unless it is.
    async fn publish(&self, topic: TopicId) -> Result<(), TableError> {
        let gone = TableError::UnknownTopic { topic };
        let Some(name) = table_name(&self.inner.log.state(), topic) else { return Err(gone) };
        let turn = self.turn(&name);
        let _turn = turn.lock().await;
        // SUBTLE: before the state is read: whoever finds the topic deleted later than that finds that its table may be in sight.
        self.in_sight().insert(topic, name.clone());
        let state = self.inner.log.state();
        let Some(table) = state.table(topic) else { return Err(gone) };
        if table.published >= table.version {
            return Ok(());
        }
        let (shown, unnamed) = self.shown(&state, topic).await?;
        // What was noticed while it was being written must not go while a version that shows it is on its way.
        self.inner.waiting.forget(shown.files.iter().map(|file| &file.key));
        let oldest_before = self.oldest().get(&topic).copied();
        let published = self.inner.publisher.publish(&shown).await?;
        self.remember_oldest(topic, None);
        let changed = self.inner.log.change(Change::PublishTable { topic, version: table.version }).await;
        // SUBTLE: not before: the catalog hands out the version before until the log has taken this one down.
        self.inner.waiting.saw(&unnamed, oldest_before);
        match changed {
            // Deleted meanwhile: what was published is withdrawn when this turn has ended.
            Err(AppendError::Refused(_)) if self.inner.log.state().topic(topic).is_none() => {
                return Err(gone);
            }
            changed => changed?,
        };
        self.remember_oldest(topic, published.oldest);
        // SUBTLE: a file that was being written when it was noticed is named by now, and its time begins anew when it is dropped.
        self.inner.waiting.forget(shown.files.iter().map(|file| &file.key));
        // From now on no version that a reader may begin with has these.
        self.inner.waiting.notice(Of::Table(topic, table.version), unnamed, self.inner.options.grace);
        if self.is_to_be_swept(topic) {
            self.sweep(&shown.name, None).await;
        }
        Ok(())
    }

    /// Whether a table's metadata was last looked through, or first published by this process, long ago.
    fn is_to_be_swept(&self, topic: TopicId) -> bool {
        let now = Instant::now();
        let mut swept = self.inner.swept.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = swept.get(&topic).is_some_and(|at| now.duration_since(*at) >= self.inner.options.grace);
        if is_due || !swept.contains_key(&topic) {
            swept.insert(topic, now);
        }
        is_due
    }

    /// Deletes the metadata of a table that no reader needs any more. What stands there is listed, or was. What fails is found again next time.
    async fn sweep(&self, name: &TableName, standing: Option<&[Key]>) {
        let (store, now_ms) = (&self.inner.store, (self.inner.log.seams().wall)());
        let age_ms = i64::try_from(self.inner.options.grace.as_millis()).unwrap_or(i64::MAX);
        let found = match standing {
            Some(keys) => lakebed_lake::due_of(store, name, keys, now_ms, age_ms).await,
            None => lakebed_lake::due(store, name, now_ms, age_ms).await,
        };
        let due = match found {
            Ok(due) => due,
            Err(error) => {
                let error = &error as &(dyn std::error::Error + 'static);
                return tracing::warn!(error, table = %name, "old metadata of a table could not be found");
            }
        };
        match store.delete(&due).await {
            Ok(()) => tracing::debug!(table = %name, objects = due.len(), "old metadata of a table is deleted"),
            Err(error) => {
                let error = &error as &(dyn std::error::Error + 'static);
                tracing::warn!(error, table = %name, "old metadata of a table could not be deleted");
            }
        }
    }

    /// What the newest version of a table shows, and which files stand there besides.
    async fn shown(&self, state: &State, topic: TopicId) -> Result<(Shown, Vec<Key>), TableError> {
        let (Some(table), Some(about)) = (state.table(topic), state.topic(topic)) else {
            return Err(TableError::UnknownTopic { topic });
        };
        let table_name = about.name.table_name();
        let mut standing = self.data_files(&table_name).await?;
        let mut files = Vec::new();
        for (id, rows) in state.table_files(topic) {
            let Some((key, size_bytes)) = standing.remove(&id) else {
                return Err(TableError::Missing { key: layout::table_file_key(&table_name, id) });
            };
            files.push(ShownFile { key, size_bytes, rows });
        }
        let shown = Shown {
            table_uuid: topic.uuid(),
            name: name_of(&table_name),
            topic: about.name.as_str().to_owned(),
            root: readers_root(self.inner.store.url()),
            version: TableVersion::new(u64::from(table.version)).expect("the state allots versions from 1 on"),
            commit: table.commit,
            time_ms: table.time_ms,
            value_format: match TableSettings::of(&about.config).value_format {
                table::ValueFormat::Binary => ValueFormat::Binary,
                table::ValueFormat::String | table::ValueFormat::Json => ValueFormat::Text,
            },
            partition_by: match TableSettings::of(&about.config).partition_by {
                table::PartitionBy::Nothing => PartitionBy::Nothing,
                table::PartitionBy::Day => PartitionBy::Day,
                table::PartitionBy::Hour => PartitionBy::Hour,
            },
            properties: told::properties(self.inner.log.identity().cluster_id, state, topic),
            files,
        };
        Ok((shown, standing.into_values().map(|(key, _)| key).collect()))
    }

    /// The table files that stand in a table's directory, with their sizes.
    async fn data_files(&self, table: &str) -> Result<BTreeMap<TableFileId, (Key, u64)>, ListError> {
        let directory = Directory::new(layout::table_data_prefix(table).trim_end_matches('/'));
        let mut listing = Listing::of(&self.inner.store, directory.expect("names of tables make portable keys"));
        let mut files = BTreeMap::new();
        while let Some(page) = listing.next().await? {
            for object in page {
                if let Some((_, id)) = layout::parse_table_file_key(object.key.as_str()) {
                    files.insert(id, (object.key, object.size_bytes));
                }
            }
        }
        Ok(files)
    }
}

fn name_of(table: &str) -> TableName {
    TableName::new(layout::NAMESPACE, table).expect("names of topics make names of tables")
}

/// The table of a topic; `None` if there is no such topic.
fn table_name(state: &State, topic: TopicId) -> Option<TableName> {
    state.topic(topic).map(|about| name_of(&about.name.table_name()))
}
