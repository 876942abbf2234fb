//! The steps of groups whose partitions are assigned here.

use lakebed_model::{Generation, GroupId, GroupKind, TopicName};

use super::super::group::{Context, Group, Phase};
use super::super::member::{Effect, GroupError, Join};
use super::super::reconcile;
use super::super::reconcile::describe::DescribedAssigned;
use super::super::reconcile::member::{Beat, Departure};
use super::super::reconcile::topics::Known;
use super::super::timers::Millis;
use super::{GROUP_BYTES, Machine, Seat, Stored};

impl<T> Machine<T> {
    /// Takes in what became of topics; `None`: it is gone. Members that can be told so learn that there may be something new.
    pub(crate) fn topics_changed(
        &mut self,
        now: Millis,
        changes: impl IntoIterator<Item = (TopicName, Option<Known>)>,
    ) {
        if !self.topics.update(changes) {
            return;
        }
        let assigned = self.groups.iter().filter(|(_, seat)| matches!(seat, Seat::Assigned(_)));
        let ids: Vec<GroupId> = assigned.map(|(id, _)| id.clone()).collect();
        for id in ids {
            self.with_seat(now, &id, |seat, cx| match seat {
                Seat::Assigned(group) => group.topics_changed(cx),
                Seat::Classic(_) => {}
            });
        }
    }

    /// A member is there; the answer comes as an effect, now or later.
    pub(crate) fn beat(&mut self, now: Millis, beat: Beat, stored: &Stored, to: T) {
        if let Err(error) = self.check_beat(&beat, stored) {
            return self.effects.push(Effect::Beat { to, answer: Err(error) });
        }
        let id = beat.group.clone();
        self.seat(now, &id, stored, Some(beat.kind));
        self.with_seat(now, &id, |seat, cx| match seat {
            Seat::Assigned(group) if group.kind == beat.kind => group.beat(cx, beat, to),
            Seat::Classic(group) if beat.kind == GroupKind::Consumer => match Self::upgraded(group, cx, &beat) {
                Ok(mut group) => {
                    group.beat(cx, beat, to);
                    *seat = Seat::Assigned(group);
                }
                Err(error) => cx.effects.push(Effect::Beat { to, answer: Err(error) }),
            },
            Seat::Assigned(_) | Seat::Classic(_) => {
                cx.effects.push(Effect::Beat { to, answer: Err(GroupError::OtherKind) });
            }
        });
    }

    /// A group of the classic protocol as one that a member can be taken into which is assigned its partitions here.
    fn upgraded(group: &mut Group<T>, cx: &mut Context<'_, T>, beat: &Beat) -> Result<reconcile::Group<T>, GroupError> {
        if group.members.len() >= cx.members_max {
            return Err(GroupError::GroupFull);
        }
        if let Some(pattern) = beat.pattern.as_deref().filter(|pattern| !pattern.is_empty()) {
            reconcile::pattern::compile(pattern).map_err(|why| GroupError::InvalidPattern { why })?;
        }
        group.upgraded(cx)
    }

    /// A member of the classic protocol joins a group whose partitions are assigned here.
    pub(super) fn join_assigned(&mut self, now: Millis, join: Join, to: T) {
        let id = join.group.clone();
        self.with_seat(now, &id, |seat, cx| match seat {
            Seat::Assigned(group) => group.join(cx, join, to),
            Seat::Classic(group) => group.join(cx, join, to),
        });
    }

    fn check_beat(&self, beat: &Beat, stored: &Stored) -> Result<(), GroupError> {
        self.check_named(&beat.group)?;
        if beat.epoch > Generation::ZERO && self.assigned(&beat.group).is_none() {
            return Err(self.without_members(&beat.group, stored));
        }
        // About what it may take: itself, its group if it is the first, and where it is the first to want them, the partitions.
        let names: usize = beat.names.iter().flatten().map(|name| 64 + name.len()).sum();
        let instance = [&beat.instance_id, &beat.rack_id].into_iter().flatten().map(String::len).sum::<usize>();
        let texts = beat.pattern.as_ref().map_or(0, String::len) + 3 * (beat.client_id.len() + instance);
        let texts = texts + 4 * beat.member_id.len();
        if self.bytes + names + texts + super::super::member::MEMBER_BYTES + GROUP_BYTES > self.limits.bytes_max {
            return Err(GroupError::Overloaded);
        }
        Ok(())
    }

    /// Why somebody is no member of a group that is not in memory as one whose partitions are assigned here.
    fn without_members(&self, id: &GroupId, stored: &Stored) -> GroupError {
        let is_other = self.classic(id).is_some_and(|group| group.phase != Phase::Empty);
        match stored.kind {
            // Its members were lost with their coordinator, and join again.
            Some(GroupKind::Consumer | GroupKind::Grpc) if !is_other => GroupError::UnknownMember,
            _ => GroupError::GroupNotFound,
        }
    }

    /// A member goes.
    ///
    /// # Errors
    /// [`GroupError`]
    pub(crate) fn depart(&mut self, now: Millis, departure: &Departure, stored: &Stored) -> Result<(), GroupError> {
        self.check_named(&departure.group)?;
        let departed = self.with_seat(now, &departure.group, |seat, cx| match seat {
            Seat::Assigned(group) => Some(group.depart(cx, departure)),
            Seat::Classic(_) => None,
        });
        departed.flatten().unwrap_or_else(|| Err(self.without_members(&departure.group, stored)))
    }

    /// Whether it is a member that is told its epoch by beats.
    pub(crate) fn beats(&self, id: &GroupId, member_id: &str) -> bool {
        self.assigned(id).and_then(|group| group.members.get(member_id)).is_some_and(|member| member.joins.is_none())
    }

    /// Whether a member of a group whose partitions are assigned here may ask for committed offsets. Of other groups everybody may.
    ///
    /// # Errors
    /// [`GroupError`]
    pub(crate) fn check_fetch(&self, id: &GroupId, member_id: Option<&str>, epoch: i32) -> Result<(), GroupError> {
        match (self.assigned(id), member_id) {
            (None, _) => Ok(()),
            (Some(_), None) if epoch < 0 => Ok(()),
            (Some(group), member_id) => group.check_epoch(member_id.unwrap_or_default(), epoch),
        }
    }

    /// A group whose partitions are assigned here, if it has members.
    pub(crate) fn describe_assigned(&self, id: &GroupId) -> Option<DescribedAssigned> {
        self.assigned(id).filter(|group| !group.members.is_empty()).map(super::reconcile::Group::describe)
    }
}
