//! How far a member has come: shared by the caller, who uses records, and the task that reads and commits.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// A partition of a topic.
pub(super) type Key = (Arc<str>, i32);

/// What is known of a partition that the member has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    /// Differs each time that the member gets a partition: what was read before it lost it does not count.
    pub(super) turn: u64,
    /// Where reading goes on.
    pub(super) next: Option<i64>,
    /// Behind what the caller was given.
    pub(super) handed: Option<i64>,
    /// Behind what the caller is done with: it has come for more since.
    pub(super) done: Option<i64>,
    /// What is known to be committed.
    pub(super) committed: Option<i64>,
    /// It is being given up: the caller is given nothing more of it.
    pub(super) is_closing: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Progress(Mutex<Inner>);

#[derive(Debug, Default)]
pub(super) struct Inner {
    pub(super) places: BTreeMap<Key, Place>,
    pub(super) member_id: String,
    turn: u64,
    /// Something that the caller was given went to others before it was committed.
    forfeited: bool,
    /// What the caller was given last, if it has not come for more since.
    last: Option<(Key, u64)>,
    /// Told when the caller has come for more.
    returned: Option<oneshot::Sender<()>>,
}

impl Progress {
    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// The member has a partition from now on.
    pub(super) fn take(&mut self, key: Key, committed: Option<i64>) {
        self.turn += 1;
        let (turn, is_closing) = (self.turn, false);
        self.places.insert(key, Place { turn, next: None, handed: None, done: None, committed, is_closing });
    }

    /// The member has other partitions no longer.
    pub(super) fn keep(&mut self, is_kept: impl Fn(&Place) -> bool) {
        let is_open = |place: &Place| place.handed.is_some() && place.handed != place.committed;
        self.forfeited |= self.places.values().any(|place| !is_kept(place) && is_open(place));
        self.places.retain(|_, place| is_kept(place));
    }

    /// Whether something was lost that way since this was asked last.
    pub(super) fn take_forfeited(&mut self) -> bool {
        std::mem::take(&mut self.forfeited)
    }

    /// The caller comes for more: it is done with what it was given.
    pub(super) fn came_back(&mut self) {
        if let Some((key, turn)) = self.last.take()
            && let Some(place) = self.places.get_mut(&key).filter(|place| place.turn == turn)
        {
            place.done = place.handed;
        }
        if let Some(returned) = self.returned.take() {
            // Whoever waited may have gone.
            returned.send(()).ok();
        }
    }

    /// The caller is given what stands before `next`; false if it isn't any more: the partition is being given up, or has been.
    pub(super) fn hand(&mut self, key: &Key, turn: u64, next: i64) -> bool {
        let Some(place) = self.places.get_mut(key).filter(|place| place.turn == turn && !place.is_closing) else {
            return false;
        };
        place.handed = Some(next);
        self.last = Some((key.clone(), turn));
        true
    }

    /// The caller was given less than that: nothing from `offset` on.
    pub(super) fn unread(&mut self, offset: i64) {
        if let Some((key, turn)) = &self.last
            && let Some(place) = self.places.get_mut(key).filter(|place| place.turn == *turn)
        {
            place.handed = place.handed.map(|handed| handed.min(offset));
        }
    }

    /// Resolves when the caller has come for more.
    pub(super) fn when_back(&mut self) -> oneshot::Receiver<()> {
        let (returned, receiver) = oneshot::channel();
        self.returned = Some(returned);
        receiver
    }

    /// Offsets to commit: of what the caller is done with, or, with `handed`, of all that it was given. Those alone that `wanted` names.
    pub(super) fn to_commit(&self, handed: bool, wanted: impl Fn(&Key) -> bool) -> BTreeMap<Key, i64> {
        let of = |(key, place): (&Key, &Place)| {
            let offset = if handed { place.handed } else { place.done }?;
            (wanted(key) && place.committed.is_none_or(|committed| committed != offset)).then(|| (key.clone(), offset))
        };
        self.places.iter().filter_map(of).collect()
    }

    /// These are committed.
    pub(super) fn committed(&mut self, offsets: &BTreeMap<Key, i64>) {
        for (key, offset) in offsets {
            if let Some(place) = self.places.get_mut(key) {
                place.committed = Some(*offset);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(partition: i32) -> Key {
        ("orders".into(), partition)
    }

    #[test]
    fn what_the_caller_was_given_is_done_when_it_comes_for_more() {
        let mut inner = Inner::default();
        inner.take(key(0), Some(3));
        let turn = inner.places[&key(0)].turn;
        assert!(inner.hand(&key(0), turn, 7));
        assert_eq!(inner.to_commit(false, |_| true), BTreeMap::new(), "it may still be at work");
        assert_eq!(inner.to_commit(true, |_| true), BTreeMap::from([(key(0), 7)]));
        inner.came_back();
        assert_eq!(inner.to_commit(false, |_| true), BTreeMap::from([(key(0), 7)]));
        inner.committed(&BTreeMap::from([(key(0), 7)]));
        assert_eq!(inner.to_commit(true, |_| true), BTreeMap::new());
        assert!(inner.hand(&key(0), turn, 20));
        inner.unread(9);
        assert_eq!(inner.to_commit(true, |_| true), BTreeMap::from([(key(0), 9)]));
    }

    #[test]
    fn nothing_is_given_of_a_partition_that_is_given_up_or_was_taken_anew() {
        let mut inner = Inner::default();
        inner.take(key(0), None);
        let turn = inner.places[&key(0)].turn;
        assert!(inner.hand(&key(0), turn, 5));
        inner.places.get_mut(&key(0)).unwrap().is_closing = true;
        assert!(!inner.hand(&key(0), turn, 6));
        let mut back = inner.when_back();
        assert!(back.try_recv().is_err());
        inner.came_back();
        assert!(back.try_recv().is_ok());
        inner.keep(|place| !place.is_closing);
        assert!(inner.take_forfeited() && !inner.take_forfeited(), "it was told once that it was not committed");
        inner.take(key(0), None);
        assert!(!inner.hand(&key(0), turn, 6), "it was read before");
        assert_eq!(inner.to_commit(true, |_| true), BTreeMap::new(), "what was done before was another's");
    }
}
