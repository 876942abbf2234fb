//! What the members of a group want, resolved to the topics that there are.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use lakebed_model::{TopicId, TopicName};

use super::member::Member;
use super::pattern;
use super::topics::{Known, Topics};

/// What all members of a group want together.
#[derive(Debug, Default)]
pub(super) struct Subscribed {
    /// The version of the topics that it was resolved for.
    version: u64,
    /// A member has gone: what it alone wanted is still here.
    outdated: bool,
    /// Topics that are wanted by name, whether they exist or not.
    names: BTreeSet<Arc<str>>,
    /// The patterns, each with the names that match it.
    patterns: BTreeMap<Arc<str>, BTreeSet<TopicName>>,
    /// The topics that are wanted and exist.
    topics: BTreeMap<TopicName, Known>,
}

impl Subscribed {
    /// A member has gone.
    pub(super) fn are_outdated(&mut self) {
        self.outdated = true;
    }

    /// Resolves anew what may resolve to something else: what the topics changed, and what `changed` members or one that has gone did. Whether
    /// the topics that are wanted, or how many partitions they have, are others than before.
    pub(super) fn refresh(&mut self, topics: &Topics, members: &BTreeMap<Arc<str>, Member>, changed: bool) -> bool {
        let anew = std::mem::take(&mut self.outdated) || changed;
        if !anew && !self.is_concerned(topics) {
            self.version = topics.version();
            return false;
        }
        self.match_changed(topics);
        if anew {
            self.names = members.values().flat_map(|member| &member.names).cloned().collect();
            let wanted: BTreeSet<&Arc<str>> = members.values().filter_map(|member| member.pattern.as_ref()).collect();
            self.patterns.retain(|pattern, _| wanted.contains(pattern));
            for pattern in wanted {
                if !self.patterns.contains_key(pattern) {
                    self.patterns.insert(Arc::clone(pattern), matching(pattern, topics));
                }
            }
        }
        let matched = self.patterns.values().flatten();
        let matched = matched.filter_map(|name| Some((name.clone(), topics.get(name.as_str())?)));
        let named = self.names.iter().filter_map(|name| Some((TopicName::new(name).ok()?, topics.get(name)?)));
        let now: BTreeMap<TopicName, Known> = matched.chain(named).collect();
        let differs = now != self.topics;
        self.topics = now;
        differs
    }

    /// Matches the names that changed since it was last done.
    fn match_changed(&mut self, topics: &Topics) {
        let since = std::mem::replace(&mut self.version, topics.version());
        if since == self.version || self.patterns.is_empty() {
            return;
        }
        let changed: Option<Vec<&TopicName>> = topics.changed_since(since).map(Iterator::collect);
        for (pattern, matched) in &mut self.patterns {
            let Some(changed) = &changed else {
                *matched = matching(pattern, topics);
                continue;
            };
            let Ok(compiled) = pattern::compile(pattern) else { continue };
            for name in changed {
                if topics.get(name.as_str()).is_some() && compiled.is_match(name.as_str()) {
                    matched.insert((*name).clone());
                } else {
                    matched.remove(*name);
                }
            }
        }
    }

    /// Whether a change of the topics since it was resolved may concern it.
    pub(super) fn is_concerned(&self, topics: &Topics) -> bool {
        if self.version == topics.version() {
            return false;
        }
        let Some(mut changed) = topics.changed_since(self.version) else { return true };
        let patterns: Vec<_> = self.patterns.keys().filter_map(|pattern| pattern::compile(pattern).ok()).collect();
        changed.any(|name| {
            self.topics.contains_key(name)
                || self.names.contains(name.as_str())
                || patterns.iter().any(|pattern| pattern.is_match(name.as_str()))
        })
    }

    /// The topics that a member wants and that exist.
    pub(super) fn topics_of(&self, member: &Member) -> BTreeSet<TopicId> {
        let named = member.names.iter().filter_map(|name| self.topics.get(&TopicName::new(name).ok()?));
        let matched = member.pattern.iter().filter_map(|pattern| self.patterns.get(pattern)).flatten();
        let matched = matched.filter_map(|name| self.topics.get(name));
        named.chain(matched).map(|known| known.id).collect()
    }

    /// The names of the topics that are wanted and exist.
    pub(super) fn name_of_each(&self) -> BTreeMap<TopicId, &str> {
        self.topics.iter().map(|(name, known)| (known.id, name.as_str())).collect()
    }

    /// How many partitions the topics have that are wanted and exist.
    pub(super) fn partitions(&self) -> BTreeMap<TopicId, u32> {
        self.topics.values().map(|known| (known.id, known.partitions)).collect()
    }

    /// Whether a member wants the topic of that name.
    pub(super) fn wants(&self, name: &str) -> bool {
        self.names.contains(name) || self.patterns.values().flatten().any(|matched| matched.as_str() == name)
    }
}

fn matching(text: &str, topics: &Topics) -> BTreeSet<TopicName> {
    // Patterns are checked before a member is taken in with one.
    let Ok(compiled) = pattern::compile(text) else { return BTreeSet::new() };
    topics.names().filter(|name| compiled.is_match(name.as_str())).cloned().collect()
}
