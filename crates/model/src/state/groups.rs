//! Generations and committed offsets: what may follow what.
//!
//! 1. A group's generations only rise, and none is used twice under one name, not even after the group was deleted.
//! 2. Whatever changes a group names the generation in force, or is refused: a coordinator whose time has passed changes nothing.
//! 3. What expires is what was committed before a time that the entry names, so an offset that is committed meanwhile stays.
//! 4. Committed offsets belong to partitions that exist; they go with their topic.

use imbl::OrdMap;

use super::{Refusal, State};
use crate::group::{
    CommitOffsets, CommittedOffset, DeleteOffsets, GROUPS_BYTES_MAX, Group, GroupId, OFFSET_METADATA_BYTES_MAX,
    PROTOCOL_TYPE_BYTES_MAX, StartGeneration,
};
use crate::ids::{Generation, PartitionKey, TopicId};

/// The groups of a cell.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Groups {
    pub(crate) by_id: OrdMap<GroupId, Group>,
    /// How many offsets each group has in each topic: which groups a deleted topic concerns.
    pub(crate) by_topic: OrdMap<(TopicId, GroupId), u32>,
    /// The highest generation of any group that was deleted.
    pub(crate) gone: Generation,
    /// What all groups count together.
    pub(crate) bytes: u64,
}

impl Groups {
    pub(crate) fn new() -> Self {
        Self { by_id: OrdMap::new(), by_topic: OrdMap::new(), gone: Generation::ZERO, bytes: 0 }
    }

    /// Puts a whole group in; for a state that is restored.
    pub(crate) fn restore(&mut self, id: GroupId, group: Group) {
        self.bytes = self.bytes.saturating_add(group.bytes(&id));
        for key in group.offsets.keys() {
            self.count(key.topic, &id);
        }
        self.by_id.insert(id, group);
    }

    fn count(&mut self, topic: TopicId, id: &GroupId) {
        *self.by_topic.entry((topic, id.clone())).or_insert(0) += 1;
    }

    fn discount(&mut self, topic: TopicId, id: &GroupId) {
        let key = (topic, id.clone());
        match self.by_topic.get_mut(&key) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(self.by_topic.remove(&key)),
        }
    }

    fn forget(&mut self, id: &GroupId, key: PartitionKey) {
        let Some(group) = self.by_id.get_mut(id) else { return };
        if let Some(old) = group.offsets.remove(&key) {
            self.bytes -= old.bytes();
            self.discount(key.topic, id);
        }
    }
}

/// Changing.
impl State {
    pub(crate) fn start_generation(&mut self, start: &StartGeneration) -> Result<(), Refusal> {
        let current = self.latest_generation(&start.group);
        if start.generation <= current || start.generation > Generation::MAX {
            let named = start.generation;
            return Err(Refusal::StaleGeneration { group: start.group.clone(), named, current });
        }
        if start.protocol_type.len() > PROTOCOL_TYPE_BYTES_MAX {
            return Err(Refusal::Malformed { what: "a protocol type is too long" });
        }
        let known = self.groups.by_id.get(&start.group);
        let group = Group {
            kind: start.kind,
            protocol_type: start.protocol_type.clone(),
            generation: start.generation,
            members: start.members,
            since_ms: start.time_ms,
            offsets: known.map(|known| known.offsets.clone()).unwrap_or_default(),
        };
        let before = known.map_or(0, |known| known.own_bytes(&start.group));
        self.take_bytes(before, group.own_bytes(&start.group))?;
        self.groups.by_id.insert(start.group.clone(), group);
        Ok(())
    }

    pub(crate) fn commit_offsets(&mut self, commit: &CommitOffsets) -> Result<(), Refusal> {
        if commit.offsets.is_empty() || !commit.offsets.is_sorted_by(|(one, _), (next, _)| one < next) {
            return Err(Refusal::Malformed { what: "committed offsets ascend by partition, and there is one" });
        }
        self.check_generation(&commit.group, commit.generation)?;
        for (key, committed) in &commit.offsets {
            if self.partition(*key).is_none() {
                return Err(Refusal::UnknownPartition { partition: *key });
            }
            let metadata_bytes = committed.metadata.len();
            if metadata_bytes > OFFSET_METADATA_BYTES_MAX || i64::try_from(committed.offset.get()).is_err() {
                return Err(Refusal::Malformed { what: "a committed offset or its metadata is too large" });
            }
        }
        let (mut before, mut after) = (0_u64, 0_u64);
        let known = self.groups.by_id.get(&commit.group);
        let mut group = known.cloned().unwrap_or_else(Group::without_members);
        if known.is_none() {
            after += group.own_bytes(&commit.group);
        }
        let mut new = Vec::new();
        for (key, committed) in &commit.offsets {
            after += committed.bytes();
            match group.offsets.insert(*key, committed.clone()) {
                Some(old) => before += old.bytes(),
                None => new.push(key.topic),
            }
        }
        self.take_bytes(before, after)?;
        self.groups.by_id.insert(commit.group.clone(), group);
        new.into_iter().for_each(|topic| self.groups.count(topic, &commit.group));
        Ok(())
    }

    pub(crate) fn delete_offsets(&mut self, delete: &DeleteOffsets) -> Result<(), Refusal> {
        if delete.partitions.is_empty() || !delete.partitions.is_sorted_by(|one, next| one < next) {
            return Err(Refusal::Malformed { what: "deleted offsets ascend by partition, and there is one" });
        }
        self.check_known(&delete.group, delete.generation)?;
        for key in &delete.partitions {
            self.groups.forget(&delete.group, *key);
        }
        Ok(())
    }

    pub(crate) fn expire_offsets(
        &mut self,
        id: &GroupId,
        generation: Generation,
        before_ms: i64,
    ) -> Result<(), Refusal> {
        self.check_known(id, generation)?;
        let Some(group) = self.groups.by_id.get(id) else { return Ok(()) };
        if group.members > 0 {
            return Err(Refusal::GroupHasMembers { group: id.clone() });
        }
        let old = group.offsets.iter().filter(|(_, committed)| committed.time_ms < before_ms);
        let old: Vec<PartitionKey> = old.map(|(key, _)| *key).collect();
        if old.len() == group.offsets.len() && group.since_ms < before_ms {
            return self.delete_group(id, generation);
        }
        old.into_iter().for_each(|key| self.groups.forget(id, key));
        Ok(())
    }

    pub(crate) fn delete_group(&mut self, id: &GroupId, generation: Generation) -> Result<(), Refusal> {
        self.check_known(id, generation)?;
        let Some(group) = self.groups.by_id.remove(id) else { return Ok(()) };
        self.groups.bytes -= group.bytes(id);
        for key in group.offsets.keys() {
            self.groups.discount(key.topic, id);
        }
        self.groups.gone = self.groups.gone.max(generation);
        Ok(())
    }

    /// Drops what groups have committed in a topic that is gone.
    pub(crate) fn drop_offsets_of(&mut self, topic: TopicId) {
        let least = GroupId::new("").expect("the empty id is one");
        let holders = self.groups.by_topic.range((topic, least)..).take_while(|((owner, _), _)| *owner == topic);
        let holders: Vec<GroupId> = holders.map(|((_, id), _)| id.clone()).collect();
        for id in holders {
            let Some(group) = self.groups.by_id.get(&id) else { continue };
            let from = group.offsets.range(PartitionKey::first_of(topic)..);
            let gone: Vec<PartitionKey> = from.map(|(key, _)| *key).take_while(|key| key.topic == topic).collect();
            gone.into_iter().for_each(|key| self.groups.forget(&id, key));
        }
    }

    /// Counts bytes of groups, within their bound.
    fn take_bytes(&mut self, before: u64, after: u64) -> Result<(), Refusal> {
        let bytes = self.groups.bytes - before + after;
        // What makes it no larger is taken even above the bound.
        if bytes > GROUPS_BYTES_MAX && after > before {
            return Err(Refusal::GroupsFull { bytes_max: GROUPS_BYTES_MAX });
        }
        self.groups.bytes = bytes;
        Ok(())
    }

    fn check_generation(&self, id: &GroupId, named: Generation) -> Result<(), Refusal> {
        let current = self.groups.by_id.get(id).map_or(Generation::ZERO, |group| group.generation);
        if named == current { Ok(()) } else { Err(Refusal::StaleGeneration { group: id.clone(), named, current }) }
    }

    fn check_known(&self, id: &GroupId, named: Generation) -> Result<(), Refusal> {
        if self.groups.by_id.contains_key(id) {
            self.check_generation(id, named)
        } else {
            Err(Refusal::UnknownGroup { group: id.clone() })
        }
    }
}

/// Reading.
impl State {
    /// A group, if it has had members or committed an offset and was not deleted since.
    pub fn group(&self, id: &GroupId) -> Option<&Group> {
        self.groups.by_id.get(id)
    }

    /// All groups, by id.
    pub fn groups(&self) -> impl Iterator<Item = (&GroupId, &Group)> {
        self.groups.by_id.iter()
    }

    /// How many groups there are.
    pub fn group_count(&self) -> usize {
        self.groups.by_id.len()
    }

    /// What all groups count together against [`GROUPS_BYTES_MAX`].
    pub fn groups_bytes(&self) -> u64 {
        self.groups.bytes
    }

    /// The highest generation of any group that was deleted.
    pub fn generation_gone(&self) -> Generation {
        self.groups.gone
    }

    /// The highest generation that the name may have had: the next one is greater.
    pub fn latest_generation(&self, id: &GroupId) -> Generation {
        self.groups.by_id.get(id).map_or(Generation::ZERO, |group| group.generation).max(self.groups.gone)
    }

    /// What a group has committed in a partition.
    pub fn committed(&self, id: &GroupId, key: PartitionKey) -> Option<&CommittedOffset> {
        self.group(id).and_then(|group| group.offsets.get(&key))
    }
}
