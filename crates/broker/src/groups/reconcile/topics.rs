//! The topics that there are, as far as assignment needs them, and which of them changed lately.

use std::collections::{BTreeMap, VecDeque};

use lakebed_model::{TopicId, TopicName};

/// So many changes are remembered; whoever has seen less looks through everything.
const CHANGES_MAX: usize = 4096;

/// A topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) id: TopicId,
    /// Partitions `0..partitions` exist.
    pub(crate) partitions: u32,
}

/// All topics. Its version rises with every change.
#[derive(Debug, Default)]
pub(crate) struct Topics {
    version: u64,
    known: BTreeMap<TopicName, Known>,
    /// The versions that changes came with, ascending.
    changes: VecDeque<(u64, TopicName)>,
}

impl Topics {
    /// Takes in what became of some topics; `None`: it is gone. Whether anything is new.
    pub(crate) fn update(&mut self, changes: impl IntoIterator<Item = (TopicName, Option<Known>)>) -> bool {
        let version = self.version + 1;
        for (name, now) in changes {
            let before = match now {
                Some(known) => self.known.insert(name.clone(), known),
                None => self.known.remove(&name),
            };
            if before != now {
                self.version = version;
                self.changes.push_back((version, name));
            }
        }
        let surplus = self.changes.len().saturating_sub(CHANGES_MAX);
        self.changes.drain(..surplus);
        self.version == version
    }

    /// Rises when something changes.
    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    /// The topic of a name.
    pub(crate) fn get(&self, name: &str) -> Option<Known> {
        TopicName::new(name).ok().and_then(|name| self.known.get(&name).copied())
    }

    /// All names.
    pub(crate) fn names(&self) -> impl Iterator<Item = &TopicName> {
        self.known.keys()
    }

    /// The names of topics that changed after `version`; `None` if that is too long ago to tell.
    pub(crate) fn changed_since(&self, version: u64) -> Option<impl Iterator<Item = &TopicName>> {
        // SUBTLE: of the oldest version that is remembered some changes may be forgotten.
        let complete =
            self.changes.len() < CHANGES_MAX || self.changes.front().is_some_and(|(oldest, _)| *oldest <= version);
        let first = self.changes.partition_point(|(changed, _)| *changed <= version);
        complete.then(|| self.changes.range(first..).map(|(_, name)| name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn named(number: u32) -> TopicName {
        TopicName::new(&format!("t{number}")).unwrap()
    }

    fn known(partitions: u32) -> Option<Known> {
        Some(Known { id: TopicId::new(Uuid::from_u128(1)), partitions })
    }

    fn changed(topics: &Topics, version: u64) -> Option<Vec<String>> {
        topics.changed_since(version).map(|names| names.map(|name| name.as_str().to_owned()).collect())
    }

    #[test]
    fn what_changed_since_a_version_is_told_or_said_not_to_be_known() {
        let mut topics = Topics::default();
        assert!(topics.update([(named(1), known(1)), (named(2), known(1))]));
        assert!(!topics.update([(named(1), known(1))]), "nothing is new");
        assert!(topics.update([(named(1), known(2))]));
        assert!(topics.update([(named(2), None)]));
        assert_eq!(changed(&topics, 0), Some(vec!["t1".into(), "t2".into(), "t1".into(), "t2".into()]));
        assert_eq!(changed(&topics, 2), Some(vec!["t2".into()]));
        assert_eq!(changed(&topics, 3), Some(Vec::new()));
        assert_eq!((topics.get("t1"), topics.get("t2"), topics.get("no/name")), (known(2), None, None));
        for number in 0..10_000 {
            topics.update([(named(number), known(7))]);
        }
        assert_eq!(changed(&topics, 3), None);
        assert_eq!(changed(&topics, topics.version() - 1), Some(vec!["t9999".into()]));
        assert!(topics.changes.len() <= CHANGES_MAX);
    }
}
