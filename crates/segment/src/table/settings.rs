//! How the table files of a topic are written: settings of the topic, fixed when it is created.
//!
//! Names and values are those of the topic's configuration. What a newer broker may have set, and this one can't read, counts as the default.

use std::collections::BTreeMap;
use std::fmt;

/// The topic setting of [`ValueFormat`].
pub const VALUE_FORMAT: &str = "value.format";
/// The topic setting of [`PartitionBy`].
pub const PARTITION_BY: &str = "table.partition.by";
/// The topic setting of [`TableSettings::bloom_filter`].
pub const BLOOM_FILTER: &str = "table.bloom.filter";

/// What the values of a topic are, as readers of its table see them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum ValueFormat {
    /// Bytes.
    #[default]
    Binary,
    /// Text in UTF-8.
    String,
    /// JSON texts (RFC 8259) that every reader takes: see [`ValueFormat::holds`].
    Json,
}

impl ValueFormat {
    /// Every format by its word, the default first.
    pub const ALL: [Self; 3] = [Self::Binary, Self::String, Self::Json];
    /// Their words.
    pub const WORDS: [&str; 3] = ["binary", "string", "json"];

    /// Its word in a topic's settings and in a file's footer.
    pub const fn word(self) -> &'static str {
        Self::WORDS[self as usize]
    }

    /// The format of that word.
    pub fn of_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.word() == word)
    }
}

impl fmt::Display for ValueFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// By what a topic's table is partitioned: the time at which rows came in, in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum PartitionBy {
    /// By nothing.
    #[default]
    Nothing,
    /// By the day.
    Day,
    /// By the hour.
    Hour,
}

impl PartitionBy {
    /// Every way by its word, the default first.
    pub const ALL: [Self; 3] = [Self::Nothing, Self::Day, Self::Hour];
    /// Their words.
    pub const WORDS: [&str; 3] = ["none", "day", "hour"];

    /// Its word in a topic's settings.
    pub const fn word(self) -> &'static str {
        Self::WORDS[self as usize]
    }

    /// The way of that word.
    pub fn of_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|by| by.word() == word)
    }

    /// The table's partition that holds rows of an ingest time in milliseconds since 1970: days or hours since then, 0 if it has no partitions.
    pub fn partition_of(self, ingest_time_ms: i64) -> i64 {
        match self {
            Self::Nothing => 0,
            Self::Day => ingest_time_ms.div_euclid(86_400_000),
            Self::Hour => ingest_time_ms.div_euclid(3_600_000),
        }
    }
}

/// See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TableSettings {
    /// What values are.
    pub value_format: ValueFormat,
    /// By what the table is partitioned.
    pub partition_by: PartitionBy,
    /// Whether a file says, by a Bloom filter of each row group, which keys it surely does not have.
    pub bloom_filter: bool,
}

impl TableSettings {
    /// Those of a topic with this configuration.
    pub fn of(config: &BTreeMap<String, String>) -> Self {
        let word = |name: &str| config.get(name).map(String::as_str);
        Self {
            value_format: word(VALUE_FORMAT).and_then(ValueFormat::of_word).unwrap_or_default(),
            partition_by: word(PARTITION_BY).and_then(PartitionBy::of_word).unwrap_or_default(),
            bloom_filter: word(BLOOM_FILTER) == Some("true"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_are_days_and_hours_of_utc() {
        for (by, word) in PartitionBy::ALL.into_iter().zip(PartitionBy::WORDS) {
            let config = BTreeMap::from([(PARTITION_BY.to_owned(), word.to_owned())]);
            assert_eq!((by.word(), TableSettings::of(&config).partition_by), (word, by));
        }
        const HOUR: i64 = 3_600_000;
        for (by, ms, partition) in [
            (PartitionBy::Nothing, i64::MAX, 0),
            (PartitionBy::Day, 24 * HOUR - 1, 0),
            (PartitionBy::Day, 24 * HOUR, 1),
            (PartitionBy::Hour, HOUR - 1, 0),
            (PartitionBy::Hour, 25 * HOUR, 25),
            (PartitionBy::Day, -1, -1),
        ] {
            assert_eq!(by.partition_of(ms), partition, "{by:?} {ms}");
        }
    }

    #[test]
    fn every_word_is_one_of_a_format_and_what_is_none_is_the_default() {
        for (format, word) in ValueFormat::ALL.into_iter().zip(ValueFormat::WORDS) {
            assert_eq!((format.word(), ValueFormat::of_word(word)), (word, Some(format)));
            let config = BTreeMap::from([(VALUE_FORMAT.to_owned(), word.to_owned())]);
            assert_eq!(TableSettings::of(&config).value_format, format);
        }
        let newer = BTreeMap::from([(VALUE_FORMAT.to_owned(), "variant".to_owned())]);
        assert_eq!(TableSettings::of(&newer), TableSettings::default());
        assert_eq!(TableSettings::of(&BTreeMap::new()).value_format, ValueFormat::Binary);
    }
}
