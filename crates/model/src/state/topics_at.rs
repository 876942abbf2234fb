//! The topics of one moment, to be compared with those of another.

use std::collections::BTreeSet;

use imbl::OrdMap;
use imbl::ordmap::DiffItem;

use super::State;
use crate::ids::TopicId;
use crate::topic::{Topic, TopicName};

/// The topics of a state. It shares memory with the state, and keeps nothing else of it.
#[derive(Debug, Clone, Default)]
pub struct TopicsAt {
    topics: OrdMap<TopicId, Topic>,
    names: OrdMap<TopicName, TopicId>,
}

impl State {
    /// The topics as they are.
    ///
    /// # Cost Nothing: what is not changed is shared.
    pub fn topics_at(&self) -> TopicsAt {
        TopicsAt { topics: self.topics.clone(), names: self.names.clone() }
    }
}

impl TopicsAt {
    /// The names whose topics are others in `later`, or have other settings or partitions: each with what is there then, if anything.
    ///
    /// # Cost What is shared is not looked at.
    pub fn changes_to<'a>(&self, later: &'a Self) -> Vec<(TopicName, Option<(TopicId, &'a Topic)>)> {
        let mut names: BTreeSet<&TopicName> = BTreeSet::new();
        for difference in self.topics.diff(&later.topics) {
            match difference {
                DiffItem::Add(_, topic) | DiffItem::Remove(_, topic) => drop(names.insert(&topic.name)),
                DiffItem::Update { old, new } => names.extend([&old.1.name, &new.1.name]),
            }
        }
        let known = |name: &TopicName| later.names.get(name).and_then(|id| Some((*id, later.topics.get(id)?)));
        names.into_iter().map(|name| (name.clone(), known(name))).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use uuid::Uuid;

    use super::*;

    fn topics(all: &[(u128, &str, u32)]) -> TopicsAt {
        let mut topics = TopicsAt::default();
        for (id, name, partitions) in all {
            let (id, name) = (TopicId::new(Uuid::from_u128(*id)), TopicName::new(name).unwrap());
            topics.names.insert(name.clone(), id);
            topics.topics.insert(id, Topic { name, partitions: *partitions, config: Arc::default() });
        }
        topics
    }

    fn changes(from: &TopicsAt, to: &TopicsAt) -> Vec<(String, Option<(u128, u32)>)> {
        let changes = from.changes_to(to).into_iter();
        let now = |(id, topic): (TopicId, &Topic)| (id.uuid().as_u128(), topic.partitions);
        changes.map(|(name, known)| (name.as_str().to_owned(), known.map(now))).collect()
    }

    #[test]
    fn what_comes_goes_and_grows_is_told_by_name() {
        let (before, after) =
            (topics(&[(1, "a", 1), (2, "b", 1), (3, "c", 1)]), topics(&[(1, "a", 1), (2, "b", 2), (4, "d", 1)]));
        let expected = [("b".to_owned(), Some((2, 2))), ("c".to_owned(), None), ("d".to_owned(), Some((4, 1)))];
        assert_eq!(changes(&before, &after), expected);
        assert_eq!(changes(&after, &after.clone()), []);
        // Made again under an id that is smaller, and under one that is greater.
        for id in [1, 9] {
            let again = topics(&[(id, "x", 3)]);
            assert_eq!(changes(&topics(&[(5, "x", 3)]), &again), [("x".to_owned(), Some((id, 3)))]);
        }
    }
}
