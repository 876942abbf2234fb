//! What waits to be deleted, and why.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lakebed_model::TopicId;
use lakebed_store::Key;
use tokio::sync::Notify;
use tokio::time::Instant;

/// Most files that wait to be deleted; more are found again later.
const WAITING_MAX: usize = 100_000;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    objects: Mutex<BTreeMap<Key, Wait>>,
    changed: Notify,
}

/// Why an object waits, and until when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wait {
    /// Whose it is.
    pub(super) of: Of,
    /// When it was noticed.
    pub(super) since: Instant,
    /// Until when a reader could begin with metadata that leads to it, as far as is known.
    pub(super) seen: Instant,
    /// When it is looked at.
    pub(super) until: Instant,
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
        let now = Instant::now();
        let mut objects = self.objects();
        for key in keys {
            if objects.len() < WAITING_MAX {
                objects.entry(key).or_insert(Wait { of, since: now, seen: now, until: now + grace });
            }
        }
        drop(objects);
        self.changed.notify_one();
    }

    /// Has objects deleted that a topic has left which is gone. Those that waited as files of its table have the whole time before them, and
    /// those of the table of `again`, a topic that has its name now, stay what they are.
    pub(super) fn notice_left(&self, again: Option<TopicId>, keys: impl IntoIterator<Item = Key>, grace: Duration) {
        let is_of_former = |wait: &Wait| matches!(wait.of, Of::Table(topic, _) if Some(topic) != again);
        let keys: Vec<Key> = keys.into_iter().collect();
        let mut objects = self.objects();
        for key in &keys {
            if objects.get(key).is_some_and(is_of_former) {
                objects.remove(key);
            }
        }
        drop(objects);
        self.notice(Of::Nobody, keys, grace);
    }

    /// Metadata led to these objects of a table until now, if the oldest snapshot in sight was that of version `oldest`.
    pub(super) fn saw(&self, keys: &[Key], oldest: Option<u32>) {
        let now = Instant::now();
        let mut objects = self.objects();
        for key in keys {
            if let Some(wait) = objects.get_mut(key)
                && let Of::Table(_, version) = wait.of
                && oldest.is_none_or(|oldest| oldest < version)
            {
                wait.seen = now;
            }
        }
    }

    /// Lets objects stay.
    pub(super) fn forget<'a>(&self, keys: impl Iterator<Item = &'a Key>) {
        let mut objects = self.objects();
        for key in keys {
            objects.remove(key);
        }
    }

    /// How an object waits; `None` if it does not.
    pub(super) fn of(&self, key: &Key) -> Option<Wait> {
        self.objects().get(key).copied()
    }

    /// When something is due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.objects().values().map(|wait| wait.until).min()
    }

    /// Waits until there is more that waits.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// What is due.
    pub(super) fn due(&self, now: Instant) -> Vec<(Key, Wait)> {
        let objects = self.objects();
        objects.iter().filter(|(_, wait)| wait.until <= now).map(|(key, wait)| (key.clone(), *wait)).collect()
    }

    /// Has objects looked at again, at a time for each.
    pub(super) fn again(&self, keys: impl IntoIterator<Item = (Key, Instant)>) {
        let mut objects = self.objects();
        for (key, until) in keys {
            if let Some(wait) = objects.get_mut(&key) {
                wait.until = until;
            }
        }
    }
}
