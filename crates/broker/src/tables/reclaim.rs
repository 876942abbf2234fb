//! Deleting what no reader of a table needs any more: files that no version shows, and the metadata of tables whose topics are gone.
//!
//! 1. A table file is deleted when the state does not name it, no later commit can, and for [`TableOptions::grace`](super::TableOptions::grace)
//!    the newest metadata of its table has led to no snapshot that shows it.
//! 2. Snapshots expire when a version is published. A table that gets none by itself gets one that shows what the last one showed, when a file
//!    has waited for twice the grace: at most one for each time that a table lost files, and none before the last one is published.
//! 3. What a crash has left is found by a survey of the whole directory of tables, at the start and once a day: files that nothing names, metadata
//!    of quiet tables, hints that are not what they should be, and tables of topics that are gone.

use std::collections::BTreeMap;
use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;

use lakebed_lake::{TableName, TableVersion};
use lakebed_model::{Change, Compaction, ObjectId, SegmentId, State, TopicId};
use lakebed_segment::layout;
use lakebed_store::{Directory, Key, ListError};
use tokio::time::{Instant, sleep, sleep_until};

use super::waiting::{Of, Wait};
use super::{REST_AFTER_FAILURE, TableError, Tables, table_name};
use crate::storage::Listing;

/// Most objects of one table that a survey looks at; the others are found when the table is published.
const SURVEYED_MAX: usize = 1_000_000;
/// A file that a snapshot still shows is looked at so often in the time of the grace; that asks the store for nothing as long as the table is one
/// that this process has published.
const LOOKS: u32 = 8;
/// How often everything is looked through. A survey lists each object of each table, a thousand at a time, and reads a table's hint, its newest
/// metadata and the lists of the versions that are kept: with 10,000 quiet tables of 40 objects and two versions 400 LISTs and 40,000 GETs, so
/// $0.018 on S3, and once a day $0.54 a month.
const SURVEY_EVERY: Duration = Duration::from_secs(86_400);

/// Whether an object may go.
#[derive(Debug, PartialEq, Eq)]
enum Judgement {
    Dead,
    /// It is needed after all.
    Stays,
    /// A commit that is under way may still name it.
    NotYet,
}

/// What the state says of an object that has waited.
fn judge(state: &State, key: &Key, of: Of) -> Judgement {
    if let Some((_, id)) = layout::parse_table_file_key(key.as_str()) {
        return match state.object(ObjectId::Table(id)) {
            Some(_) => Judgement::Stays,
            None if SegmentId::from(id) < state.reclaim_boundary() => Judgement::Dead,
            None => Judgement::NotYet,
        };
    }
    // Metadata waits only if its topic was gone. If there is one again, it has a part in the history of that one's table.
    match (of, table_of(key)) {
        (Of::Nobody, Some(table)) if state.topic_of_table(table).is_none() => Judgement::Dead,
        _ => Judgement::Stays,
    }
}

/// The name of the table to which a key belongs.
fn table_of(key: &Key) -> Option<&str> {
    let mut parts = key.as_str().split('/').skip(1);
    (parts.next() == Some(layout::NAMESPACE)).then(|| parts.next()).flatten()
}

impl Tables {
    /// Deletes what has waited long enough, until the log closes.
    pub(super) async fn reclaim(&self) {
        let (log, waiting) = (&self.inner.log, &self.inner.waiting);
        while log.is_closed().is_none() {
            let next = waiting.next();
            tokio::select! {
                biased;
                _ = log.closed() => return,
                () = waiting.changed() => {}
                () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => self.delete_due().await,
            }
        }
    }

    /// Deletes what is due and may go.
    async fn delete_due(&self) {
        let (now, state, grace) = (Instant::now(), self.inner.log.state(), self.inner.options.grace);
        let (mut dead, mut stays, mut later, mut left) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let mut of_tables: BTreeMap<TopicId, Vec<Key>> = BTreeMap::new();
        for (key, wait) in self.inner.waiting.due(now) {
            match (judge(&state, &key, wait.of), wait.of) {
                (Judgement::Stays, _) => stays.push(key),
                (Judgement::NotYet, _) => later.push((key, now + grace)),
                (Judgement::Dead, Of::Table(topic, _)) if state.topic(topic).is_some() => {
                    of_tables.entry(topic).or_default().push(key);
                }
                // Its topic has been deleted, and it has the time of what that has left before it.
                (Judgement::Dead, Of::Table(..)) => left.push(key),
                (Judgement::Dead, Of::Nobody) => dead.push(key),
            }
        }
        self.inner.waiting.forget(stays.iter());
        self.inner.waiting.notice_left(None, left, grace);
        for (topic, files) in of_tables {
            match self.unseen(topic, files).await {
                Ok((unseen, seen)) => {
                    dead.extend(unseen);
                    later.extend(seen);
                }
                Err(error) => {
                    let error = &error as &(dyn std::error::Error + 'static);
                    tracing::warn!(error, %topic, "it is not known what readers of a table see; trying again later");
                }
            }
        }
        self.inner.waiting.again(later);
        dead.sort();
        match self.inner.store.delete(&dead).await {
            Ok(()) => self.inner.waiting.forget(dead.iter()),
            Err(error) => {
                let error = &error as &(dyn std::error::Error + 'static);
                tracing::warn!(error, files = dead.len(), "files of tables could not be deleted; trying again later");
            }
        }
        // Whatever failed is due still: it is not asked for again at once.
        let rest = Instant::now() + REST_AFTER_FAILURE;
        self.inner.waiting.again(self.inner.waiting.due(now).into_iter().map(|(key, _)| (key, rest)));
    }

    /// Sorts files of a table: those that no metadata led to for the grace with which a reader could begin, and the others, with when they are
    /// looked at again. For one that has waited for too long the old snapshots expire by a new version.
    async fn unseen(&self, topic: TopicId, files: Vec<Key>) -> Result<(Vec<Key>, Vec<(Key, Instant)>), TableError> {
        if self.inner.log.broken().deletes_seen_table_files() {
            return Ok((files, Vec::new()));
        }
        let (now, grace) = (Instant::now(), self.inner.options.grace);
        let mut oldest = self.oldest_shown(topic).await?;
        let is_seen = |wait: &Wait, oldest: Option<u32>| matches!(wait.of, Of::Table(_, version) if oldest.is_some_and(|oldest| oldest < version));
        let waits = files.iter().filter_map(|key| self.inner.waiting.of(key));
        if waits.into_iter().any(|wait| wait.since + 2 * grace <= now && is_seen(&wait, oldest)) {
            if let Err(error) = self.let_go(topic).await {
                let error = &error as &(dyn std::error::Error + 'static);
                tracing::warn!(error, %topic, "old snapshots of a table could not expire; trying again later");
            }
            oldest = self.oldest_shown(topic).await?;
        }
        let (mut unseen, mut later) = (Vec::new(), Vec::new());
        for key in files {
            // A publication may have marked it meanwhile, or found that it is named.
            match self.inner.waiting.of(&key) {
                None => {}
                Some(wait) if is_seen(&wait, oldest) => later.push((key, now + grace / LOOKS)),
                Some(wait) if wait.seen + grace > now => later.push((key, wait.seen + grace)),
                Some(_) => unseen.push(key),
            }
        }
        Ok((unseen, later))
    }

    /// Publishes a version that shows what the last one shows, so that snapshots expire; unless the last one is not published yet, or so young
    /// that snapshots before it would stay.
    async fn let_go(&self, topic: TopicId) -> Result<(), TableError> {
        let grace_ms = i64::try_from(self.inner.options.grace.as_millis()).unwrap_or(i64::MAX);
        let long_ago_ms = (self.inner.log.seams().wall)().saturating_sub(grace_ms);
        let advance = move |state: &State| {
            let table = state.table(topic);
            let helps = table.is_some_and(|table| table.published == table.version && table.time_ms < long_ago_ms);
            Ok(if helps { vec![Change::Compact(Compaction { topic, files: Vec::new() })] } else { Vec::new() })
        };
        self.inner.log.alter(advance).await?;
        self.publish(topic).await
    }

    /// The version of the oldest snapshot to which a table's newest metadata leads; `None` if nothing is published.
    async fn oldest_shown(&self, topic: TopicId) -> Result<Option<u32>, TableError> {
        if let Some(known) = self.oldest().get(&topic).copied() {
            return Ok(Some(known));
        }
        let Some(name) = table_name(&self.inner.log.state(), topic) else { return Ok(None) };
        let turn = self.turn(&name);
        let _turn = turn.lock().await;
        let oldest = lakebed_lake::oldest_shown(&self.inner.store, &name).await?;
        self.remember_oldest(topic, oldest);
        Ok(oldest.map(TableVersion::get))
    }

    /// Of each table that was published: the version of the oldest snapshot to which its newest metadata leads.
    pub(super) fn oldest(&self) -> MutexGuard<'_, BTreeMap<TopicId, u32>> {
        self.inner.oldest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps what the newest metadata of a table leads to; `None` if that is not known.
    pub(super) fn remember_oldest(&self, topic: TopicId, oldest: Option<TableVersion>) {
        match oldest {
            Some(oldest) => drop(self.oldest().insert(topic, oldest.get())),
            None => drop(self.oldest().remove(&topic)),
        }
    }

    /// Looks through all tables, at the start and once a day, until the log closes.
    pub(super) async fn survey(&self) {
        let log = &self.inner.log;
        while log.is_closed().is_none() {
            let rest = match self.survey_once().await {
                Ok(()) => SURVEY_EVERY,
                Err(error) => {
                    let error = &error as &(dyn std::error::Error + 'static);
                    tracing::warn!(error, "the tables could not be looked through; trying again later");
                    REST_AFTER_FAILURE
                }
            };
            tokio::select! {
                biased;
                _ = log.closed() => return,
                () = sleep(rest) => {}
            }
        }
    }

    /// Looks through all tables once.
    ///
    /// # Errors
    /// [`ListError`]: some tables were not looked at. What fails of one table is told, and keeps no other.
    /// # Cost
    /// See [`SURVEY_EVERY`]. Holds the names of a table's objects.
    async fn survey_once(&self) -> Result<(), ListError> {
        let directory = Directory::new(format!("tables/{}", layout::NAMESPACE)).expect("a portable name");
        let mut of_table: (String, Vec<Key>) = Default::default();
        let mut listing = Listing::of(&self.inner.store, directory);
        while let Some(page) = listing.next().await? {
            for object in page {
                let Some(table) = table_of(&object.key) else { continue };
                if *table != of_table.0 {
                    let table = table.to_owned();
                    self.survey_table(std::mem::replace(&mut of_table, (table, Vec::new()))).await;
                }
                if of_table.1.len() < SURVEYED_MAX {
                    of_table.1.push(object.key);
                }
            }
        }
        self.survey_table(of_table).await;
        Ok(())
    }

    /// Judges what stands in the directory of a table.
    async fn survey_table(&self, (table, keys): (String, Vec<Key>)) {
        // Somebody else's, that can't be a table of ours.
        let Some(name) = TableName::new(layout::NAMESPACE, &table) else { return };
        let state = self.inner.log.state();
        let Some(topic) = state.topic_of_table(&table) else {
            // A crash came right after its deletion.
            return match self.withdraw(&name).await {
                Ok(()) => tracing::debug!(table = %name, "the table of a deleted topic is withdrawn"),
                Err(error) => {
                    let error = &error as &(dyn std::error::Error + 'static);
                    tracing::warn!(error, table = %name, "the table of a deleted topic could not be withdrawn");
                }
            };
        };
        let is_unnamed = |key: &&Key| {
            let id = layout::parse_table_file_key(key.as_str()).map(|(_, id)| ObjectId::Table(id));
            id.is_some_and(|id| state.object(id).is_none())
        };
        let unnamed: Vec<Key> = keys.iter().filter(is_unnamed).cloned().collect();
        // Earlier versions may show them, also one that is still on its way.
        let version = state.table(topic).map_or(0, |table| table.version);
        self.inner.waiting.notice(Of::Table(topic, version), unnamed, self.inner.options.grace);
        let turn = self.turn(&name);
        let _turn = turn.lock().await;
        if let Err(error) = self.survey_hint(topic, &name, &keys).await {
            let error = &error as &(dyn std::error::Error + 'static);
            tracing::warn!(error, table = %name, "the hint of a table may not name its newest version");
        }
        self.sweep(&name, Some(&keys)).await;
    }
}
