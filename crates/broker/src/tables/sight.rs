//! What readers find first of a table: its hint names its newest version, and where there is no topic there is none.
//!
//! 1. Who writes or deletes a hint has the turn of the table's name, and goes by the state as it is then. So a publication that was under way
//!    when its topic was deleted has ended before its table is withdrawn, and the hint of a topic that was created again is left alone.
//! 2. A publication notes that its table may be in sight before it reads the state: what it publishes of a topic that is deleted meanwhile is
//!    withdrawn after it.
//! 3. What another process writes late, as one that has been fenced may, is found by the next survey.

use std::collections::BTreeMap;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use futures::stream::{self, StreamExt};
use lakebed_lake::{PublishError, SweepError, TableName};
use lakebed_model::{ObjectId, State, TopicId};
use lakebed_segment::layout;
use lakebed_store::{DeleteError, Key, ListError, ReadError};

use super::{PUBLISHED_AT_ONCE, Tables, name_of};
use crate::storage::Listing;

/// Why a table's hint is not known to be what it should be, or what stands of a table that is gone is not known.
#[derive(Debug, thiserror::Error)]
pub(super) enum SightError {
    #[error("its hint can't be deleted")]
    Withdraw(#[from] DeleteError),
    #[error("its hint can't be repaired")]
    Repair(#[from] PublishError),
    #[error("its hint can't be read")]
    Hint(#[from] ReadError),
    #[error("it is not known whose table it is")]
    Whose(#[from] SweepError),
    #[error("its files can't be listed")]
    List(#[from] ListError),
}

impl Tables {
    /// Whose turn it is to write what readers of a table see.
    pub(super) fn turn(&self, name: &TableName) -> Arc<tokio::sync::Mutex<()>> {
        let mut turns = self.inner.turns.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(turns.entry(name.clone()).or_default())
    }

    /// Forgets the turn of a name, unless somebody else waits for it.
    fn drop_turn(&self, name: &TableName, turn: Arc<tokio::sync::Mutex<()>>) {
        let mut turns = self.inner.turns.lock().unwrap_or_else(PoisonError::into_inner);
        drop(turn);
        if turns.get(name).is_some_and(|turn| Arc::strong_count(turn) == 1) {
            turns.remove(name);
        }
    }

    pub(super) fn in_sight(&self) -> MutexGuard<'_, BTreeMap<TopicId, TableName>> {
        self.inner.in_sight.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the tables of deleted topics out of readers' sight, and has their files deleted later; whether that could be done.
    pub(super) async fn withdraw_deleted(&self, state: &State) -> bool {
        let gone: Vec<(TopicId, TableName)> = {
            let mut in_sight = self.in_sight();
            for (topic, _) in state.tables() {
                if let (false, Some(about)) = (in_sight.contains_key(&topic), state.topic(topic)) {
                    in_sight.insert(topic, name_of(&about.name.table_name()));
                }
            }
            let gone = in_sight.iter().filter(|(topic, _)| state.topic(**topic).is_none());
            gone.map(|(topic, name)| (*topic, name.clone())).collect()
        };
        let withdrawals: Vec<_> = gone.into_iter().map(|(topic, name)| self.withdrawn(topic, name)).collect();
        let all = stream::iter(withdrawals).buffer_unordered(PUBLISHED_AT_ONCE);
        all.fold(true, |all, done| std::future::ready(all && done)).await
    }

    /// Withdraws the table of a topic that is gone; whether it is.
    async fn withdrawn(&self, topic: TopicId, name: TableName) -> bool {
        match self.withdraw(&name).await {
            Ok(()) => {
                self.inner.swept.lock().unwrap_or_else(PoisonError::into_inner).remove(&topic);
                self.remember_oldest(topic, None);
                self.in_sight().remove(&topic);
                true
            }
            Err(error) => {
                let error = &error as &(dyn std::error::Error + 'static);
                tracing::warn!(error, table = %name, "the table of a deleted topic could not be withdrawn");
                false
            }
        }
    }

    /// Takes what a topic that is gone has left under its name out of readers' sight, and has it deleted later.
    ///
    /// # Cost
    /// A DELETE, and a LIST for each thousand objects; if there is a topic of that name again, one LIST and two GETs more.
    pub(super) async fn withdraw(&self, name: &TableName) -> Result<(), SightError> {
        let turn = self.turn(name);
        let mine = turn.lock().await;
        self.mend_hint(name).await?;
        let hint = lakebed_lake::layout::hint_key(name);
        let is_rash = self.inner.log.broken().deletes_gone_tables_at_once();
        let grace = if is_rash { Duration::ZERO } else { self.inner.options.grace };
        let mut listing = Listing::of(&self.inner.store, name.directory());
        while let Some(page) = listing.next().await? {
            let state = self.inner.log.state();
            let is_named = |key: &Key| {
                let id = layout::parse_table_file_key(key.as_str()).map(|(_, id)| ObjectId::Table(id));
                id.is_some_and(|id| state.object(id).is_some())
            };
            let keys = page.into_iter().map(|listed| listed.key).filter(|key| *key != hint && !is_named(key));
            self.inner.waiting.notice_left(state.topic_of_table(&name.table), keys, grace);
        }
        drop(mine);
        self.drop_turn(name, turn);
        Ok(())
    }

    /// Makes the hint of a table name its newest version, if a topic of its name has published one, and else deletes it. Who calls it has
    /// the turn.
    async fn mend_hint(&self, name: &TableName) -> Result<(), SightError> {
        let state = self.inner.log.state();
        let is_of_topic = match state.topic_of_table(&name.table) {
            None => false,
            Some(topic) if state.table(topic).is_some_and(|table| table.published > 0) => true,
            // What stands is a former topic's; or its own, of which a log that was made anew knows nothing, or not yet.
            Some(topic) => lakebed_lake::table_uuid(&self.inner.store, name).await? == Some(topic.uuid()),
        };
        if is_of_topic {
            self.inner.publisher.repair_hint(name).await?;
        } else if !self.inner.log.broken().leaves_hints() {
            self.inner.publisher.withdraw(name).await?;
        }
        Ok(())
    }

    /// Mends the hint of a topic's table, if it is not what it should be by a listing of the table. Who calls it has the turn.
    pub(super) async fn survey_hint(&self, topic: TopicId, name: &TableName, listed: &[Key]) -> Result<(), SightError> {
        let is_published = self.inner.log.state().table(topic).is_some_and(|table| table.published > 0);
        let stands = listed.contains(&lakebed_lake::layout::hint_key(name));
        let is_sound = if is_published && stands {
            let newest = listed.iter().filter_map(|key| lakebed_lake::layout::parse_metadata_key(name, key)).max();
            lakebed_lake::hint(&self.inner.store, name).await? == newest
        } else {
            is_published == stands
        };
        if is_sound { Ok(()) } else { self.mend_hint(name).await }
    }
}
