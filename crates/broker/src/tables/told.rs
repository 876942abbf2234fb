//! What the metadata of a table tells of its topic, for who makes a cluster anew from it: properties whose names begin with `lakebed.`.
//!
//! 1. They are as of the publication of their version: a change of settings alone publishes none.
//! 2. [`SEAL`] is a hash of all that is told here, for JSON has no checksum: what was changed by anybody, or by chance, is not believed.

use std::collections::BTreeMap;
use std::fmt::Write;

use lakebed_model::topic::PARTITIONS_MAX;
use lakebed_model::{Offset, PartitionIndex, PartitionKey, State, TopicId};
use uuid::Uuid;

/// Whose table it is: the id of the cluster.
const CLUSTER: &str = "lakebed.cluster";
/// How many partitions the topic has.
const PARTITIONS: &str = "lakebed.partitions";
/// Where partitions begin that don't begin at 0: `partition:offset`, separated by commas. Absent if there are none, or too many.
const LOG_STARTS: &str = "lakebed.log-starts";
/// Before the name of a setting of the topic.
const CONFIG: &str = "lakebed.config.";
/// See the module: 32 hexadecimal digits.
const SEAL: &str = "lakebed.seal";

/// Most partitions of which the log start is told: 20 bytes each, in every version.
const LOG_STARTS_MAX: usize = 10_000;

/// What was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Told {
    /// Whose table it is.
    pub(crate) cluster_id: Uuid,
    /// How many partitions the topic has.
    pub(crate) partitions: u32,
    /// Where partitions begin that don't begin at 0, as far as that is told.
    pub(crate) log_starts: BTreeMap<u32, Offset>,
    /// The topic's settings, which nobody has checked.
    pub(crate) config: BTreeMap<String, String>,
}

/// The properties of the table of a topic; none if there is no such topic.
pub(crate) fn properties(cluster_id: Uuid, state: &State, topic: TopicId) -> BTreeMap<String, String> {
    let Some(about) = state.topic(topic) else { return BTreeMap::new() };
    let key = |index: &u32| PartitionKey::new(topic, PartitionIndex::new(*index));
    let start = |index: u32| Some((index, state.partition(key(&index))?.log_start));
    let starts = (0..about.partitions).filter_map(start).filter(|(_, start)| *start > Offset::ZERO).collect();
    let config = (*about.config).clone();
    Told { cluster_id, partitions: about.partitions, log_starts: starts, config }.to_properties()
}

impl Told {
    fn to_properties(&self) -> BTreeMap<String, String> {
        let config = self.config.iter().map(|(name, value)| (format!("{CONFIG}{name}"), value.clone()));
        let mut properties: BTreeMap<String, String> = config.collect();
        properties.insert(CLUSTER.to_owned(), self.cluster_id.hyphenated().to_string());
        properties.insert(PARTITIONS.to_owned(), self.partitions.to_string());
        if (1..=LOG_STARTS_MAX).contains(&self.log_starts.len()) {
            let starts: Vec<String> = self.log_starts.iter().map(|(index, start)| format!("{index}:{start}")).collect();
            properties.insert(LOG_STARTS.to_owned(), starts.join(","));
        }
        properties.insert(SEAL.to_owned(), seal(&properties));
        properties
    }

    /// Reads them from all properties of a table.
    ///
    /// # Errors
    /// Why they are not believed, or that there are none.
    pub(crate) fn read(properties: &BTreeMap<String, String>) -> Result<Self, String> {
        let of = |name: &str| properties.get(name).ok_or_else(|| format!("its metadata has no property {name}"));
        let bad = |name: &str, value: &str| format!("the property {name} of its metadata is {value:?}");
        let found = of(SEAL)?;
        if *found != seal(properties) {
            return Err(format!("the properties of its metadata are not those that {SEAL} was made of"));
        }
        let (cluster, count) = (of(CLUSTER)?, of(PARTITIONS)?);
        let cluster_id = Uuid::try_parse(cluster).map_err(|_| bad(CLUSTER, cluster))?;
        let partitions = count.parse().ok().filter(|count| (1..=PARTITIONS_MAX).contains(count));
        let partitions: u32 = partitions.ok_or_else(|| bad(PARTITIONS, count))?;
        let text = properties.get(LOG_STARTS).map(String::as_str).unwrap_or_default();
        let pair = |pair: &str| {
            let (index, start) = pair.split_once(':')?;
            let index = index.parse().ok().filter(|index| *index < partitions)?;
            let start: u64 = start.parse().ok().filter(|start| i64::try_from(*start).is_ok())?;
            Some((index, Offset::new(start)))
        };
        let pairs = text.split(',').filter(|text| !text.is_empty());
        let log_starts: Option<BTreeMap<u32, Offset>> = pairs.map(pair).collect();
        let log_starts = log_starts.ok_or_else(|| bad(LOG_STARTS, text))?;
        let config = properties.iter().filter_map(|(name, value)| Some((name.strip_prefix(CONFIG)?, value)));
        let config = config.map(|(name, value)| (name.to_owned(), value.clone())).collect();
        Ok(Self { cluster_id, partitions, log_starts, config })
    }
}

/// A hash of what is told here.
fn seal(properties: &BTreeMap<String, String>) -> String {
    let mut text = String::new();
    let sealed = |name: &str| matches!(name, CLUSTER | PARTITIONS | LOG_STARTS) || name.starts_with(CONFIG);
    for (name, value) in properties.iter().filter(|(name, _)| sealed(name)) {
        // Lengths, so that nothing can be read in two ways.
        let _ = writeln!(text, "{}:{name}={}:{value}", name.len(), value.len());
    }
    Uuid::new_v5(&Uuid::nil(), text.as_bytes()).simple().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told() -> Told {
        let config = [("cleanup.policy", "compact,delete"), ("retention.ms", "5"), ("value.format", "json")];
        Told {
            cluster_id: Uuid::from_u128(7),
            partitions: 12,
            log_starts: [(0, Offset::new(5)), (11, Offset::new(i64::MAX as u64))].into(),
            config: config.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        }
    }

    #[test]
    fn what_is_told_is_read_among_other_properties() {
        for told in [told(), Told { log_starts: BTreeMap::new(), config: BTreeMap::new(), ..told() }] {
            let mut properties = told.to_properties();
            properties.insert("gc.enabled".to_owned(), "false".to_owned());
            properties.insert("lakebed.topic".to_owned(), "orders".to_owned());
            assert_eq!(Told::read(&properties), Ok(told));
        }
    }

    #[test]
    fn a_change_of_any_property_is_noticed() {
        let whole = told().to_properties();
        for name in whole.keys() {
            let mut without = whole.clone();
            without.remove(name);
            let why = Told::read(&without).unwrap_err();
            assert!(why.contains(SEAL), "{why}");
            let mut other = whole.clone();
            other.entry(name.clone()).and_modify(|value| value.push('1'));
            assert!(Told::read(&other).is_err(), "{name}");
        }
        let mut more = whole;
        more.insert("lakebed.config.retention.bytes".to_owned(), "1".to_owned());
        assert!(Told::read(&more).unwrap_err().contains("lakebed.seal"));
        assert_eq!(Told::read(&BTreeMap::new()), Err("its metadata has no property lakebed.seal".to_owned()));
    }

    /// A seal says that nobody has changed them, not that they make sense.
    #[test]
    fn what_makes_no_sense_is_said_by_name() {
        for (name, value) in [
            (PARTITIONS, "0"),
            (PARTITIONS, "100001"),
            (PARTITIONS, "many"),
            (CLUSTER, "mine"),
            (LOG_STARTS, "12:1"),
            (LOG_STARTS, "1:9223372036854775808"),
            (LOG_STARTS, "1"),
        ] {
            let mut properties = told().to_properties();
            properties.insert(name.to_owned(), value.to_owned());
            properties.insert(SEAL.to_owned(), seal(&properties));
            assert_eq!(Told::read(&properties), Err(format!("the property {name} of its metadata is {value:?}")));
        }
    }

    #[test]
    fn too_many_log_starts_are_left_out() {
        let log_starts = (0..=10_000).map(|index| (index, Offset::new(1))).collect();
        let properties = Told { partitions: 20_000, log_starts, ..told() }.to_properties();
        assert_eq!(Told::read(&properties).unwrap().log_starts, BTreeMap::new());
    }
}
