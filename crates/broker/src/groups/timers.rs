//! What is due when: one time per timer, in order.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use lakebed_model::GroupId;

/// Milliseconds on a clock that never goes back.
pub(crate) type Millis = u64;

/// What can become due in a group.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Timer {
    /// The members have had their time to join.
    Join,
    /// The members have had their time to ask for their assignments.
    Sync,
    /// A member, or one that was only given its id, was not heard of for its session.
    Member(Arc<str>),
    /// A member has had its time to let go of partitions.
    Revoke(Arc<str>),
    /// A member that joins and asks was told to join again, and has had its time to.
    MustJoin(Arc<str>),
    /// It has joined, and has had its time to ask for its assignment.
    MustSync(Arc<str>),
}

/// Which timer of which group.
type Key = (GroupId, Timer);

/// All timers.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    due: BTreeMap<Key, Millis>,
    order: BTreeSet<(Millis, Key)>,
}

impl Timers {
    /// Sets a timer, anew if it is set.
    pub(crate) fn set(&mut self, group: &GroupId, timer: Timer, due: Millis) {
        let key = (group.clone(), timer);
        if let Some(old) = self.due.insert(key.clone(), due) {
            self.order.remove(&(old, key.clone()));
        }
        self.order.insert((due, key));
    }

    /// Sets a timer, unless it is set.
    pub(crate) fn set_if_absent(&mut self, group: &GroupId, timer: Timer, due: Millis) {
        if !self.due.contains_key(&(group.clone(), timer.clone())) {
            self.set(group, timer, due);
        }
    }

    /// Takes a timer back, if it is set.
    pub(crate) fn cancel(&mut self, group: &GroupId, timer: Timer) {
        let key = (group.clone(), timer);
        if let Some(due) = self.due.remove(&key) {
            self.order.remove(&(due, key));
        }
    }

    /// When the next one is due.
    pub(crate) fn next_due(&self) -> Option<Millis> {
        self.order.first().map(|(due, _)| *due)
    }

    /// Takes the first one that is due at `now`.
    pub(crate) fn pop(&mut self, now: Millis) -> Option<Key> {
        self.order.first().filter(|(due, _)| *due <= now)?;
        let (_, key) = self.order.pop_first()?;
        self.due.remove(&key);
        Some(key)
    }
}
