//! Groups whose partitions are assigned here: beats, and being told unasked that there is something new.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use lakebed_model::{Generation, GroupId, GroupKind, State};
use tokio::sync::{Notify, oneshot};

use super::member::GroupError;
use super::reconcile::assign::Assignor;
use super::reconcile::describe::{DescribedAssigned, Progress};
use super::reconcile::member::{Beat, Beaten, Departure};
use super::reconcile::topics::Known;
use super::{Answer, Groups, gone};

/// By group and member id.
type Listeners = BTreeMap<(GroupId, Arc<str>), Arc<Notify>>;

/// Members that are told when asking would tell them something new.
#[derive(Debug, Default)]
pub(super) struct Nudges {
    listeners: Mutex<Listeners>,
}

impl Nudges {
    pub(super) fn nudge(&self, group: GroupId, member: Arc<str>) {
        let listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(listener) = listeners.get(&(group, member)) {
            listener.notify_one();
        }
    }
}

/// The ear of one member; it listens no longer when this is dropped.
#[derive(Debug)]
pub(crate) struct Nudged {
    groups: Groups,
    key: (GroupId, Arc<str>),
    heard: Arc<Notify>,
}

impl Nudged {
    /// Waits until asking would tell the member something new: another epoch or assignment, or that it is no member any more. What came
    /// since it was awaited last is not missed; the member is nudged once until it has asked.
    pub(crate) async fn nudged(&self) {
        self.heard.notified().await;
    }
}

impl Drop for Nudged {
    fn drop(&mut self) {
        let mut listeners = self.groups.inner.nudges.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        if listeners.get(&self.key).is_some_and(|listener| Arc::ptr_eq(listener, &self.heard)) {
            listeners.remove(&self.key);
        }
    }
}

impl Groups {
    /// Tells the machine of topics that come, go and grow, for ever.
    pub(super) async fn keep_topics(&self) {
        let mut commits = self.inner.log.watch();
        loop {
            self.see_topics();
            // The log is closed: whoever runs this ends as well.
            if commits.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }

    /// Tells the machine of topics that came, went or grew since it was told last.
    pub(super) fn see_topics(&self) {
        let mut seen = self.inner.topics.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.inner.log.state().topics_at();
        let changes = seen.changes_to(&now);
        if !changes.is_empty() {
            let changes = changes.into_iter().map(|(name, topic)| {
                let known = topic.map(|(id, topic)| Known { id, partitions: topic.partitions });
                (name, known)
            });
            self.step(|machine, at| machine.topics_changed(at, changes));
        }
        *seen = now;
    }

    /// A member is there: it is told its epoch, and what it may read if that is new. Answered when what it is told is durable.
    ///
    /// # Cancel  The member stays until its session ends.
    pub(crate) fn beat(&self, beat: Beat) -> impl Future<Output = Result<Beaten, GroupError>> + Send + use<> {
        let (to, answer) = oneshot::channel();
        self.see_topics();
        let stored = self.stored(&beat.group);
        self.step(|machine, now| machine.beat(now, beat, &stored, to));
        async move {
            match answer.await {
                Ok(Answer::Beat(answer)) => answer,
                Ok(Answer::Join(_) | Answer::Sync(_)) | Err(_) => Err(gone()),
            }
        }
    }

    /// A member goes.
    ///
    /// # Errors
    /// [`GroupError`]
    pub(crate) fn depart(&self, departure: &Departure) -> Result<(), GroupError> {
        let stored = self.stored(&departure.group);
        self.step(|machine, now| machine.depart(now, departure, &stored))
    }

    /// An ear for a member of our gRPC service. A second one of the same member takes the place of the first.
    pub(crate) fn listen(&self, group: &GroupId, member_id: &str) -> Nudged {
        let (key, heard) = ((group.clone(), Arc::from(member_id)), Arc::new(Notify::new()));
        let mut listeners = self.inner.nudges.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        listeners.insert(key.clone(), Arc::clone(&heard));
        Nudged { groups: self.clone(), key, heard }
    }

    /// Whether it is a member that is told its epoch by beats.
    pub(crate) fn beats(&self, id: &GroupId, member_id: &str) -> bool {
        self.machine().beats(id, member_id)
    }

    /// Whether a member may ask for committed offsets with this epoch; below 0: as none.
    ///
    /// # Errors
    /// [`GroupError`]
    pub(crate) fn check_fetch(&self, id: &GroupId, member_id: Option<&str>, epoch: i32) -> Result<(), GroupError> {
        self.machine().check_fetch(id, member_id, epoch)
    }

    /// A group whose partitions are assigned here: its members if it has some, else what `state` knows of it.
    pub(crate) fn describe_assigned(&self, id: &GroupId, state: &State) -> Option<DescribedAssigned> {
        let machine = self.machine();
        if let Some(live) = machine.describe_assigned(id) {
            return Some(live);
        }
        if machine.describe(id).is_some_and(|live| live.phase != super::group::Phase::Empty) {
            return None;
        }
        state.group(id).filter(|group| group.kind != GroupKind::Classic).map(|group| DescribedAssigned {
            kind: group.kind,
            progress: Progress::Empty,
            epoch: group.generation,
            // The last that left began an epoch for which no target was made.
            target_epoch: match group.members {
                0 => Generation::new(group.generation.get().saturating_sub(1)),
                _ => group.generation,
            },
            assignor: Assignor::ALL[0],
            members: Vec::new(),
        })
    }
}
