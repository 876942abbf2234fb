//! Settings of a topic: Kafka's names, what values they take, and those that decide what is admitted.
//!
//! What is kept but has no effect in a log on object storage (replicas, local files) is accepted, because tools set it.

use std::collections::BTreeMap;

use lakebed_compact::Retention;
use lakebed_segment::table::{BLOOM_FILTER, PARTITION_BY, PartitionBy, VALUE_FORMAT, ValueFormat};

/// What values a setting takes.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    /// A whole number in this range, inclusive.
    Number(i64, i64),
    /// `true` or `false`.
    Flag,
    /// A number from 0 to 1.
    Ratio,
    /// One of these.
    One(&'static [&'static str]),
    /// Some of these, separated by commas.
    Some(&'static [&'static str]),
    /// Any text.
    Text,
}

const LONG: i64 = i64::MAX;
const INT: i64 = i32::MAX as i64;

/// Kafka's topic settings (4.x), ascending by name: what values each takes, its default, and the broker's setting of which that is the
/// default (empty if there is none).
const KNOWN: &[(&str, Kind, &str, &str)] = &[
    (CLEANUP_POLICY, Kind::Some(&[COMPACT, DELETE]), DELETE, "log.cleanup.policy"),
    ("compression.gzip.level", Kind::Number(-1, 9), "-1", "compression.gzip.level"),
    ("compression.lz4.level", Kind::Number(1, 17), "9", "compression.lz4.level"),
    (
        "compression.type",
        Kind::One(&["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"]),
        "producer",
        "compression.type",
    ),
    ("compression.zstd.level", Kind::Number(-131_072, 22), "3", "compression.zstd.level"),
    ("delete.retention.ms", Kind::Number(0, LONG), "86400000", "log.cleaner.delete.retention.ms"),
    ("file.delete.delay.ms", Kind::Number(0, LONG), "60000", "log.segment.delete.delay.ms"),
    ("flush.messages", Kind::Number(1, LONG), "9223372036854775807", "log.flush.interval.messages"),
    ("flush.ms", Kind::Number(0, LONG), "9223372036854775807", "log.flush.interval.ms"),
    ("follower.replication.throttled.replicas", Kind::Text, "", ""),
    ("index.interval.bytes", Kind::Number(0, INT), "4096", "log.index.interval.bytes"),
    ("leader.replication.throttled.replicas", Kind::Text, "", ""),
    ("local.retention.bytes", Kind::Number(-2, LONG), "-2", "log.local.retention.bytes"),
    ("local.retention.ms", Kind::Number(-2, LONG), "-2", "log.local.retention.ms"),
    ("max.compaction.lag.ms", Kind::Number(1, LONG), "9223372036854775807", "log.cleaner.max.compaction.lag.ms"),
    (MAX_MESSAGE_BYTES, Kind::Number(0, INT), "1048588", "message.max.bytes"),
    ("message.downconversion.enable", Kind::Flag, "true", "log.message.downconversion.enable"),
    (TIMESTAMP_AFTER_MAX, Kind::Number(0, LONG), "3600000", "log.message.timestamp.after.max.ms"),
    (TIMESTAMP_BEFORE_MAX, Kind::Number(0, LONG), "9223372036854775807", "log.message.timestamp.before.max.ms"),
    (TIMESTAMP_TYPE, Kind::One(&["CreateTime", LOG_APPEND_TIME]), "CreateTime", "log.message.timestamp.type"),
    ("min.cleanable.dirty.ratio", Kind::Ratio, "0.5", "log.cleaner.min.cleanable.ratio"),
    ("min.compaction.lag.ms", Kind::Number(0, LONG), "0", "log.cleaner.min.compaction.lag.ms"),
    ("min.insync.replicas", Kind::Number(1, INT), "1", "min.insync.replicas"),
    ("preallocate", Kind::Flag, "false", "log.preallocate"),
    ("remote.log.copy.disable", Kind::Flag, "false", ""),
    ("remote.log.delete.on.disable", Kind::Flag, "false", ""),
    ("remote.storage.enable", Kind::Flag, "false", ""),
    (RETENTION_BYTES, Kind::Number(-1, LONG), "-1", "log.retention.bytes"),
    (RETENTION_MS, Kind::Number(-1, LONG), "604800000", "log.retention.ms"),
    ("segment.bytes", Kind::Number(14, INT), "1073741824", "log.segment.bytes"),
    ("segment.index.bytes", Kind::Number(4, INT), "10485760", "log.index.size.max.bytes"),
    ("segment.jitter.ms", Kind::Number(0, LONG), "0", "log.roll.jitter.ms"),
    ("segment.ms", Kind::Number(1, LONG), "604800000", "log.roll.ms"),
    (BLOOM_FILTER, Kind::Flag, "false", ""),
    (PARTITION_BY, Kind::One(&PartitionBy::WORDS), PartitionBy::Nothing.word(), ""),
    ("unclean.leader.election.enable", Kind::Flag, "false", "unclean.leader.election.enable"),
    (VALUE_FORMAT, Kind::One(&ValueFormat::WORDS), ValueFormat::Binary.word(), ""),
];

/// Our own settings: what each does, for people.
const OURS: &[(&str, &str)] = &[
    (
        BLOOM_FILTER,
        "Whether files of the topic's table have a Bloom filter of their keys, by which readers leave out those without the key that they look \
         for. It takes ten bits a key. A change holds for files that are written from then on.",
    ),
    (
        PARTITION_BY,
        "By what the topic's table is partitioned: none, or the day or the hour (UTC) at which records came in. Fixed when the topic is created.",
    ),
    (
        VALUE_FORMAT,
        "What the column `value` of the topic's table holds: binary (bytes), string (text in UTF-8) or json. A record's value that is no such \
         thing is accepted all the same, and stands in the column `_kafka_value_raw`. Fixed when the topic is created.",
    ),
];

/// Those of them that are fixed when a topic is created: its files would contradict one another, or its table's schema.
const FIXED: &[&str] = &[PARTITION_BY, VALUE_FORMAT];

const CLEANUP_POLICY: &str = "cleanup.policy";
const COMPACT: &str = "compact";
const DELETE: &str = "delete";
const RETENTION_BYTES: &str = "retention.bytes";
const RETENTION_MS: &str = "retention.ms";
const MAX_MESSAGE_BYTES: &str = "max.message.bytes";
const TIMESTAMP_AFTER_MAX: &str = "message.timestamp.after.max.ms";
const TIMESTAMP_BEFORE_MAX: &str = "message.timestamp.before.max.ms";
const TIMESTAMP_TYPE: &str = "message.timestamp.type";
const LOG_APPEND_TIME: &str = "LogAppendTime";

/// Kafka's default: 1 MiB and the overhead of a batch.
const MAX_MESSAGE_BYTES_DEFAULT: usize = (1 << 20) + 12;
/// Producers' timestamps can lie, and retention goes by them: what claims to be from the future is refused beyond an hour.
const TIMESTAMP_AFTER_MAX_DEFAULT_MS: i64 = 3_600_000;

/// Why a setting can't be kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettingError {
    /// No setting of that name.
    #[error("unknown topic setting {name:?}{}", hint(*nearest))]
    Unknown {
        /// The name, cut after 100 characters.
        name: String,
        /// The known name that is most alike, if one is near.
        nearest: Option<&'static str>,
    },
    /// A value that it does not take.
    #[error("topic setting {name}={value:?}: {expected}")]
    Value {
        /// The setting.
        name: &'static str,
        /// The value, cut after 100 characters.
        value: String,
        /// What it takes.
        expected: String,
    },
    /// It is fixed when a topic is created.
    #[error(
        "topic setting {name} is {is:?} and stays so: it is fixed when the topic is created, its table files are written by it. \
         For {asked:?} create another topic"
    )]
    Fixed {
        /// The setting.
        name: &'static str,
        /// Its value.
        is: String,
        /// The value that it should have, or its default.
        asked: String,
    },
}

/// What kind of value a setting has, as Kafka tells it to its clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ValueType {
    /// `true` or `false`.
    Boolean,
    /// A text.
    String,
    /// A number of 32 bits.
    Int,
    /// A number of 64 bits.
    Long,
    /// A number with a fraction.
    Double,
    /// Texts, separated by commas.
    List,
}

/// What is known of a topic setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    /// Its name.
    pub name: &'static str,
    /// Its value where none was given.
    pub default: &'static str,
    /// The broker's setting that Kafka takes this default from, if there is one.
    pub broker_name: Option<&'static str>,
    /// What kind of value it has.
    pub value_type: ValueType,
    /// What it does; `None` for Kafka's own settings.
    pub documentation: Option<&'static str>,
}

/// Every topic setting, by name.
pub fn all_known() -> impl Iterator<Item = Known> {
    KNOWN.iter().map(|(name, kind, default, broker_name)| Known {
        name,
        default,
        broker_name: Some(*broker_name).filter(|name| !name.is_empty()),
        value_type: match kind {
            Kind::Number(_, max) if *max <= INT => ValueType::Int,
            Kind::Number(..) => ValueType::Long,
            Kind::Flag => ValueType::Boolean,
            Kind::Ratio => ValueType::Double,
            Kind::One(_) => ValueType::String,
            // The one kind of text is a list of replicas.
            Kind::Some(_) | Kind::Text => ValueType::List,
        },
        documentation: OURS.iter().find(|(ours, _)| ours == name).map(|(_, what)| *what),
    })
}

/// The settings that decide what is admitted to a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AdmissionSettings {
    /// Largest batch as it comes, in bytes.
    pub max_message_bytes: usize,
    /// Oldest timestamp accepted, in milliseconds before now.
    pub timestamp_before_max_ms: i64,
    /// Newest timestamp accepted, in milliseconds after now.
    pub timestamp_after_max_ms: i64,
    /// Whether records get the time at which they are appended.
    pub log_append_time: bool,
    /// Whether records must have keys, because the last one of each is kept.
    pub keys_required: bool,
}

impl AdmissionSettings {
    /// Those of a topic with this configuration; a value that can't be read counts as absent.
    pub fn of(config: &BTreeMap<String, String>) -> Self {
        let number = |name: &str| config.get(name).and_then(|value| value.parse::<i64>().ok());
        Self {
            max_message_bytes: number(MAX_MESSAGE_BYTES)
                .and_then(|bytes| usize::try_from(bytes).ok())
                .unwrap_or(MAX_MESSAGE_BYTES_DEFAULT),
            timestamp_before_max_ms: number(TIMESTAMP_BEFORE_MAX).unwrap_or(i64::MAX),
            timestamp_after_max_ms: number(TIMESTAMP_AFTER_MAX).unwrap_or(TIMESTAMP_AFTER_MAX_DEFAULT_MS),
            log_append_time: config.get(TIMESTAMP_TYPE).is_some_and(|kind| kind == LOG_APPEND_TIME),
            keys_required: lakebed_model::topic::compacts_keys(config),
        }
    }
}

/// What a topic with this configuration keeps; a value that can't be read counts as absent.
pub fn retention(config: &BTreeMap<String, String>) -> Retention {
    let value = |name: &str| config.get(name).map_or_else(|| default_of(name), String::as_str);
    if !value(CLEANUP_POLICY).split(',').any(|part| part.trim() == DELETE) {
        return Retention::default();
    }
    let number = |name: &str| value(name).parse::<i64>().or_else(|_| default_of(name).parse()).ok();
    Retention {
        age_ms: number(RETENTION_MS).filter(|age_ms| *age_ms >= 0),
        bytes: number(RETENTION_BYTES).and_then(|bytes| u64::try_from(bytes).ok()),
    }
}

fn default_of(name: &str) -> &'static str {
    KNOWN.iter().find(|(known, ..)| *known == name).map_or("", |(_, _, default, _)| default)
}

/// Checks a topic's settings.
///
/// # Errors
/// [`SettingError`] of the first that can't be kept, by name.
pub fn check(config: &BTreeMap<String, String>) -> Result<(), SettingError> {
    for (name, value) in config {
        let (name, kind) = known(name)?;
        if let Err(expected) = kind.check(value) {
            return Err(SettingError::Value { name, value: value.chars().take(100).collect(), expected });
        }
    }
    Ok(())
}

/// Checks that what is fixed when a topic is created stays as it is.
///
/// # Errors
/// [`SettingError::Fixed`]
pub fn check_fixed(now: &BTreeMap<String, String>, then: &BTreeMap<String, String>) -> Result<(), SettingError> {
    for name in FIXED {
        let (name, _) = known(name)?;
        let default = all_known().find(|known| known.name == name).map_or("", |known| known.default);
        let value = |config: &BTreeMap<String, String>| config.get(name).map_or(default, String::as_str).to_owned();
        let (is, asked) = (value(now), value(then));
        if is != asked {
            return Err(SettingError::Fixed { name, is, asked });
        }
    }
    Ok(())
}

/// Checks names of settings.
///
/// # Errors
/// [`SettingError::Unknown`] of the first that is none.
pub fn check_names<'a>(mut names: impl Iterator<Item = &'a String>) -> Result<(), SettingError> {
    names.try_for_each(|name| known(name).map(drop))
}

fn known(name: &str) -> Result<(&'static str, Kind), SettingError> {
    let index = KNOWN.binary_search_by(|(known, ..)| (*known).cmp(name));
    index.map(|index| (KNOWN[index].0, KNOWN[index].1)).map_err(|_| {
        let name: String = name.chars().take(100).collect();
        SettingError::Unknown { nearest: nearest(&name), name }
    })
}

impl SettingError {
    /// The setting that is meant, as the client wrote it.
    pub fn setting(&self) -> &str {
        match self {
            Self::Unknown { name, .. } => name,
            Self::Value { name, .. } | Self::Fixed { name, .. } => name,
        }
    }
}

impl Kind {
    fn check(self, value: &str) -> Result<(), String> {
        let (fits, expected) = match self {
            Self::Number(min, max) => {
                (value.parse().is_ok_and(|number| (min..=max).contains(&number)), format!("must be {min} to {max}"))
            }
            Self::Flag => (matches!(value, "true" | "false"), "must be true or false".to_owned()),
            Self::Ratio => {
                (value.parse().is_ok_and(|ratio: f64| (0.0..=1.0).contains(&ratio)), "must be 0 to 1".to_owned())
            }
            Self::One(choices) => (choices.contains(&value), format!("must be one of {}", choices.join(", "))),
            Self::Some(choices) => {
                let fits = value.split(',').all(|part| choices.contains(&part.trim()));
                (fits, format!("must be some of {}", choices.join(", ")))
            }
            Self::Text => (true, String::new()),
        };
        if fits { Ok(()) } else { Err(expected) }
    }
}

/// The known name that is most like `name`, if one is near.
fn nearest(name: &str) -> Option<&'static str> {
    const NEAR: f64 = 0.8;
    let name = name.to_ascii_lowercase().replace(['-', '_'], ".");
    let rate = |known: &'static str| {
        // Part of a name is near it, as in `retention`; the whole of one, as in `retention.ms.max`, too.
        let is_part = name.len() > 3 && (known.contains(&name) || name.contains(known));
        (if is_part { NEAR } else { 0.0 }.max(strsim::jaro_winkler(known, &name)), known)
    };
    let best = KNOWN.iter().map(|(known, ..)| rate(known)).max_by(|(one, _), (other, _)| one.total_cmp(other));
    best.filter(|(rating, _)| *rating >= NEAR).map(|(_, known)| known)
}

fn hint(nearest: Option<&str>) -> String {
    match nearest {
        Some(nearest) => format!("; did you mean {nearest:?}?"),
        None => "; they are called as Kafka's, such as \"retention.ms\"".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(name: &str, value: &str) -> BTreeMap<String, String> {
        BTreeMap::from([(name.to_owned(), value.to_owned())])
    }

    #[test]
    fn the_known_settings_ascend() {
        assert!(KNOWN.is_sorted_by(|a, b| a.0 < b.0));
    }

    #[test]
    fn every_default_is_a_value_that_its_setting_takes() {
        for known in all_known() {
            assert_eq!(check(&config(known.name, known.default)), Ok(()), "{}", known.name);
        }
        let admission = AdmissionSettings::of(&all_known().map(|one| (one.name.into(), one.default.into())).collect());
        assert_eq!(admission, AdmissionSettings::of(&BTreeMap::new()), "what is told is what is done");
    }

    #[test]
    fn an_unknown_setting_is_refused_with_the_nearest_name_if_one_is_near() {
        for (name, expected) in [
            ("retention.milliseconds", Some("retention.ms")),
            ("retention", Some("retention.ms")),
            ("retention.sm", Some("retention.ms")),
            ("RETENTION_MS", Some("retention.ms")),
            ("clean.up.policy", Some("cleanup.policy")),
            ("max.message.byte", Some("max.message.bytes")),
            ("min.insync.replica", Some("min.insync.replicas")),
            ("", None),
            ("x", None),
            ("colour", None),
            ("owner", None),
            ("quota", None),
            ("team.name", None),
            ("unicorn", None),
        ] {
            let refused = check(&config(name, "1")).unwrap_err();
            assert_eq!(refused, SettingError::Unknown { name: name.to_owned(), nearest: expected }, "{name}");
        }
        let long = check(&config(&"z".repeat(1 << 20), "1")).unwrap_err().to_string();
        assert!(long.len() < 200 && long.contains("Kafka's") && !long.contains("did you mean"), "{long}");
    }

    #[test]
    fn values_are_checked_by_kind() {
        for (name, value, fits) in [
            ("retention.ms", "-1", true),
            ("retention.ms", "-2", false),
            ("retention.ms", "soon", false),
            ("cleanup.policy", "compact,delete", true),
            ("cleanup.policy", "delete, compact", true),
            ("cleanup.policy", "delete", true),
            ("cleanup.policy", "compact", true),
            ("cleanup.policy", "", false),
            ("cleanup.policy", "shred", false),
            ("min.cleanable.dirty.ratio", "0.5", true),
            ("min.cleanable.dirty.ratio", "NaN", false),
            ("message.timestamp.type", "LogAppendTime", true),
            ("message.timestamp.type", "logappendtime", false),
            ("preallocate", "yes", false),
            ("value.format", "json", true),
            ("value.format", "JSON", false),
            ("value.format", "avro", false),
        ] {
            assert_eq!(check(&config(name, value)).is_ok(), fits, "{name}={value}");
        }
    }

    #[test]
    fn what_table_files_are_written_by_stays_as_it_was_when_the_topic_was_created() {
        let (json, binary, none) = (config("value.format", "json"), config("value.format", "binary"), BTreeMap::new());
        for (now, then, stays) in [
            (&json, &json, true),
            (&none, &binary, true),
            (&binary, &none, true),
            (&json, &none, false),
            (&none, &json, false),
        ] {
            let checked = check_fixed(now, then);
            assert_eq!(checked.is_ok(), stays, "{now:?} {then:?}");
            if let Err(refused) = checked {
                assert_eq!(refused.setting(), "value.format");
            }
        }
        let refused = check_fixed(&json, &none).unwrap_err().to_string();
        assert!(refused.contains("is \"json\" and stays so") && refused.contains("another topic"), "{refused}");
        for known in all_known() {
            let says_so = known.documentation.is_some_and(|what| what.contains("Fixed when"));
            assert_eq!(says_so, FIXED.contains(&known.name), "{}", known.name);
        }
    }

    #[test]
    fn retention_goes_by_the_policy_and_kafkas_defaults() {
        let of = |settings: &[(&str, &str)]| {
            let config = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            let Retention { age_ms, bytes } = retention(&config);
            (age_ms, bytes)
        };
        let week = Some(7 * 86_400_000);
        assert_eq!(of(&[]), (week, None));
        assert_eq!(of(&[("retention.ms", "-1")]), (None, None));
        assert_eq!(of(&[("retention.ms", "0"), ("retention.bytes", "0")]), (Some(0), Some(0)));
        assert_eq!(of(&[("retention.ms", "5"), ("retention.bytes", "-1")]), (Some(5), None));
        assert_eq!(of(&[("retention.ms", "nonsense")]), (week, None));
        assert_eq!(of(&[("cleanup.policy", "compact"), ("retention.ms", "5"), ("retention.bytes", "9")]), (None, None));
        assert_eq!(of(&[("cleanup.policy", "compact, delete"), ("retention.bytes", "9")]), (week, Some(9)));
    }

    #[test]
    fn admission_takes_what_was_set_and_the_defaults() {
        let absent = AdmissionSettings::of(&BTreeMap::new());
        assert_eq!((absent.max_message_bytes, absent.timestamp_after_max_ms), (1_048_588, 3_600_000));
        assert!(!absent.log_append_time);
        assert_eq!(AdmissionSettings::of(&config("max.message.bytes", "77")).max_message_bytes, 77);
        assert!(AdmissionSettings::of(&config("message.timestamp.type", "LogAppendTime")).log_append_time);
        assert!(!absent.keys_required);
        assert!(AdmissionSettings::of(&config("cleanup.policy", "delete,compact")).keys_required);
    }
}
