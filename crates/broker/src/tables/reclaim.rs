//! Deleting what no reader of a table needs any more: files that no version shows, and the metadata of tables whose topics are gone.
//!
//! 1. A table file is deleted when the state does not name it, no later commit can, the newest metadata of its table leads to no snapshot that
//!    shows it, and it has waited for [`TableOptions::grace`](super::TableOptions::grace).
//! 2. Snapshots expire when a version is published. A table that gets none by itself gets one that shows what the last one showed, when a file
//!    has waited for twice the grace: at most one for each time that a table lost files.
//! 3. What a crash has left is found by a survey of the whole directory of tables, at the start and once a day: files that nothing names, metadata
//!    of quiet tables, and tables of topics that are gone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lakebed_lake::{TableName, TableVersion};
use lakebed_model::{Change, Compaction, ObjectId, SegmentId, State, TopicId};
use lakebed_segment::layout;
use lakebed_store::{Directory, Key, ListError};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until};

use super::{LISTED_MAX, REST_AFTER_FAILURE, TableError, Tables, name_of};

/// Most files that wait to be deleted; more are found again later.
const WAITING_MAX: usize = 100_000;
/// Most objects of one table that a survey looks at; the others are found when the table is published.
const SURVEYED_MAX: usize = 1_000_000;
/// A file that a snapshot still shows is looked at so often in the time of the grace; that asks the store for nothing as long as the table is one
/// that this process has published.
const LOOKS: u32 = 8;
/// How often everything is looked through. A survey lists each object of each table, a thousand at a time, and reads a table's newest metadata
/// and the lists of the versions that are kept: with 10,000 quiet tables of 40 objects and two versions 400 LISTs and 30,000 GETs, so $0.014 on S3,
/// and once a day $0.43 a month.
const SURVEY_EVERY: Duration = Duration::from_secs(86_400);

/// What waits to be deleted.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    objects: Mutex<BTreeMap<Key, Wait>>,
    changed: Notify,
}

/// Why an object waits, and until when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Wait {
    of: Of,
    since: Instant,
    /// When it is looked at.
    until: Instant,
}

/// Whose object it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Of {
    /// Of a table, whose snapshots show it no more from that version on.
    Table(TopicId, u32),
    /// Of a topic that is gone.
    Nobody,
}

impl Waiting {
    fn objects(&self) -> MutexGuard<'_, BTreeMap<Key, Wait>> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has objects deleted after `grace`; those that wait already do so no longer for it.
    pub(super) fn notice(&self, of: Of, keys: impl IntoIterator<Item = Key>, grace: Duration) {
        let since = Instant::now();
        let mut objects = self.objects();
        for key in keys {
            if objects.len() < WAITING_MAX {
                objects.entry(key).or_insert(Wait { of, since, until: since + grace });
            }
        }
        drop(objects);
        self.changed.notify_one();
    }

    /// Lets objects stay.
    pub(super) fn forget<'a>(&self, keys: impl Iterator<Item = &'a Key>) {
        let mut objects = self.objects();
        for key in keys {
            objects.remove(key);
        }
    }

    fn next(&self) -> Option<Instant> {
        self.objects().values().map(|wait| wait.until).min()
    }

    fn due(&self, now: Instant) -> Vec<(Key, Wait)> {
        let objects = self.objects();
        objects.iter().filter(|(_, wait)| wait.until <= now).map(|(key, wait)| (key.clone(), *wait)).collect()
    }

    fn again(&self, keys: impl Iterator<Item = Key>, until: Instant) {
        let mut objects = self.objects();
        for key in keys {
            if let Some(wait) = objects.get_mut(&key) {
                wait.until = until;
            }
        }
    }
}

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
                () = waiting.changed.notified() => {}
                () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => self.delete_due().await,
            }
        }
    }

    /// Deletes what is due and may go.
    async fn delete_due(&self) {
        let (now, state) = (Instant::now(), self.inner.log.state());
        let (mut dead, mut stays, mut not_yet) = (Vec::new(), Vec::new(), Vec::new());
        let grace = self.inner.options.grace;
        let mut of_tables: BTreeMap<TopicId, Vec<(Key, u32, bool)>> = BTreeMap::new();
        for (key, wait) in self.inner.waiting.due(now) {
            match (judge(&state, &key, wait.of), wait.of) {
                (Judgement::Stays, _) => stays.push(key),
                (Judgement::NotYet, _) => not_yet.push(key),
                (Judgement::Dead, Of::Table(topic, version)) if state.table(topic).is_some() => {
                    of_tables.entry(topic).or_default().push((key, version, wait.since + 2 * grace <= now));
                }
                (Judgement::Dead, _) => dead.push(key),
            }
        }
        self.inner.waiting.forget(stays.iter());
        for (topic, files) in of_tables {
            match self.unseen(topic, files).await {
                Ok((unseen, seen)) => {
                    dead.extend(unseen);
                    self.inner.waiting.again(seen.into_iter(), now + grace / LOOKS);
                }
                Err(error) => {
                    let error = &error as &(dyn std::error::Error + 'static);
                    tracing::warn!(error, %topic, "it is not known what readers of a table see; trying again later");
                }
            }
        }
        self.inner.waiting.again(not_yet.into_iter(), now + grace);
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
        let failed = self.inner.waiting.due(now).into_iter().map(|(key, _)| key);
        self.inner.waiting.again(failed, rest);
    }

    /// Sorts files of a table: those that no snapshot shows which the newest metadata leads to, and the others. For one that has waited for too
    /// long the old snapshots expire by a new version.
    async fn unseen(&self, topic: TopicId, files: Vec<(Key, u32, bool)>) -> Result<(Vec<Key>, Vec<Key>), TableError> {
        let mut oldest = self.oldest_shown(topic).await?;
        let is_seen = |version: u32, oldest: Option<u32>| oldest.is_some_and(|oldest| oldest < version);
        if files.iter().any(|(_, version, is_overdue)| *is_overdue && is_seen(*version, oldest)) {
            self.inner.log.change(Change::Compact(Compaction { topic, files: Vec::new() })).await?;
            self.publish(topic).await?;
            oldest = self.oldest_shown(topic).await?;
        }
        let (seen, unseen): (Vec<_>, Vec<_>) = files.into_iter().partition(|(_, version, _)| is_seen(*version, oldest));
        let keys = |files: Vec<(Key, u32, bool)>| files.into_iter().map(|(key, ..)| key).collect();
        Ok((keys(unseen), keys(seen)))
    }

    /// The version of the oldest snapshot to which a table's newest metadata leads; `None` if nothing is published.
    async fn oldest_shown(&self, topic: TopicId) -> Result<Option<u32>, TableError> {
        if let Some(known) = self.oldest().get(&topic).copied() {
            return Ok(Some(known));
        }
        let state = self.inner.log.state();
        let Some(about) = state.topic(topic) else { return Ok(None) };
        let name = name_of(&about.name.table_name());
        let turn = self.turn(topic);
        let _turn = turn.lock().await;
        let oldest = lakebed_lake::oldest_shown(&self.inner.store, &name).await?;
        self.remember_oldest(topic, oldest);
        Ok(oldest.map(TableVersion::get))
    }

    fn oldest(&self) -> MutexGuard<'_, BTreeMap<TopicId, u32>> {
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
        let mut after: Option<Key> = None;
        loop {
            let listing = self.inner.store.list(&directory, after.as_ref(), LISTED_MAX).await?;
            after = listing.objects.last().map(|object| object.key.clone());
            for object in listing.objects {
                let Some(table) = table_of(&object.key) else { continue };
                if *table != of_table.0 {
                    let table = table.to_owned();
                    self.survey_table(std::mem::replace(&mut of_table, (table, Vec::new()))).await;
                }
                if of_table.1.len() < SURVEYED_MAX {
                    of_table.1.push(object.key);
                }
            }
            if !listing.more {
                self.survey_table(of_table).await;
                return Ok(());
            }
        }
    }

    /// Judges what stands in the directory of a table.
    async fn survey_table(&self, (table, keys): (String, Vec<Key>)) {
        // Somebody else's, that can't be a table of ours.
        let Some(name) = TableName::new(layout::NAMESPACE, &table) else { return };
        let state = self.inner.log.state();
        let Some(topic) = state.topic_of_table(&table) else { return self.survey_gone(&name, keys).await };
        let is_unnamed = |key: &&Key| {
            let id = layout::parse_table_file_key(key.as_str()).map(|(_, id)| ObjectId::Table(id));
            id.is_some_and(|id| state.object(id).is_none())
        };
        let unnamed: Vec<Key> = keys.iter().filter(is_unnamed).cloned().collect();
        // Earlier versions may show them, also one that is still on its way.
        let version = state.table(topic).map_or(0, |table| table.version);
        self.inner.waiting.notice(Of::Table(topic, version), unnamed, self.inner.options.grace);
        let turn = self.turn(topic);
        let _turn = turn.lock().await;
        // What a topic that was never published shows is a former one's of its name.
        let is_published = self.inner.log.state().table(topic).is_some_and(|table| table.published > 0);
        if !is_published && keys.contains(&lakebed_lake::layout::hint_key(&name)) {
            self.withdraw(&name).await;
        }
        self.sweep(&name, Some(&keys)).await;
    }

    async fn withdraw(&self, name: &TableName) {
        match self.inner.publisher.withdraw(name).await {
            Ok(()) => tracing::info!(table = %name, "the table of a deleted topic is withdrawn"),
            Err(error) => {
                let error = &error as &(dyn std::error::Error + 'static);
                tracing::warn!(error, table = %name, "the table of a deleted topic could not be withdrawn");
            }
        }
    }

    /// Judges what a topic has left that is gone: a crash came right after its deletion.
    async fn survey_gone(&self, name: &TableName, keys: Vec<Key>) {
        let hint = lakebed_lake::layout::hint_key(name);
        if keys.contains(&hint) {
            self.withdraw(name).await;
        }
        self.inner.waiting.notice(Of::Nobody, keys.into_iter().filter(|key| *key != hint), self.inner.options.grace);
        // Created again meanwhile, and published: its hint is put back.
        if self.inner.log.state().topic_of_table(&name.table).is_some()
            && let Err(error) = self.inner.publisher.repair_hint(name).await
        {
            let error = &error as &(dyn std::error::Error + 'static);
            tracing::warn!(error, table = %name, "the hint of a table may be missing until its next version");
        }
    }

    /// The names of everything in a table's directory.
    pub(super) async fn objects_of(&self, name: &TableName) -> Result<BTreeSet<Key>, ListError> {
        let (mut keys, mut after) = (BTreeSet::new(), None::<Key>);
        loop {
            let listing = self.inner.store.list(&name.directory(), after.as_ref(), LISTED_MAX).await?;
            after = listing.objects.last().map(|object| object.key.clone());
            keys.extend(listing.objects.into_iter().map(|object| object.key));
            if !listing.more {
                return Ok(keys);
            }
        }
    }
}
