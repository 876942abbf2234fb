//! Who compacts keys of which topic now: that reads and writes all of it, and what changes it meanwhile makes that be for nothing.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lakebed_model::TopicId;

/// The topics whose keys are being compacted, and those that somebody waits for. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Busy {
    topics: Arc<Mutex<Topics>>,
}

#[derive(Debug, Default)]
struct Topics {
    cleaned: BTreeSet<TopicId>,
    awaited: BTreeSet<TopicId>,
}

/// Says that a topic is being cleaned for as long as it lives.
pub(crate) struct Mark {
    busy: Busy,
    topic: TopicId,
}

impl Mark {
    /// The topic.
    pub(crate) fn topic(&self) -> TopicId {
        self.topic
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        self.busy.topics().cleaned.remove(&self.topic);
    }
}

impl Busy {
    /// Whether keys of a topic are being compacted.
    pub(crate) fn is_cleaned(&self, topic: TopicId) -> bool {
        self.topics().cleaned.contains(&topic)
    }

    /// Begins with a topic, unless somebody waits for it.
    pub(crate) fn mark(&self, topic: TopicId) -> Option<Mark> {
        let mut topics = self.topics();
        (!topics.awaited.contains(&topic) && topics.cleaned.insert(topic)).then(|| Mark { busy: self.clone(), topic })
    }

    /// Whether a topic has to be waited for; it is not begun with again before it was [let go](Self::let_go).
    pub(crate) fn wait_for(&self, topic: TopicId) -> bool {
        let mut topics = self.topics();
        let is_cleaned = topics.cleaned.contains(&topic);
        if is_cleaned {
            topics.awaited.insert(topic);
        }
        is_cleaned
    }

    /// Nobody waits for a topic any more, but for those in `awaited`.
    pub(crate) fn let_go(&self, awaited: &BTreeSet<TopicId>) {
        self.topics().awaited.retain(|topic| awaited.contains(topic));
    }

    fn topics(&self) -> MutexGuard<'_, Topics> {
        self.topics.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn who_waits_for_a_topic_comes_before_the_next_compaction_of_its_keys() {
        let (busy, topic) = (Busy::default(), TopicId::new(Uuid::from_u128(1)));
        assert!(!busy.wait_for(topic) && !busy.is_cleaned(topic));
        let mark = busy.mark(topic);
        assert!(mark.is_some() && busy.is_cleaned(topic) && busy.mark(topic).is_none());
        assert!(busy.wait_for(topic));
        drop(mark);
        assert!(!busy.is_cleaned(topic) && busy.mark(topic).is_none(), "somebody waited");
        busy.let_go(&BTreeSet::from([topic]));
        assert!(busy.mark(topic).is_none(), "and still does");
        busy.let_go(&BTreeSet::new());
        assert!(busy.mark(topic).is_some());
    }
}
