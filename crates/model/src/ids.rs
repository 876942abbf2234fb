//! Newtypes for everything that is counted or named, so that two numbers never swap.
//!
//! Invariant: text forms are canonical (parsing what `Display` wrote gives the same value, and nothing else parses), because keys
//! in the bucket are made of them.

use std::fmt;
use std::str::FromStr;

use ulid::Ulid;
use uuid::Uuid;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident, $inner:ty) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name($inner);

        impl $name {
            /// The value zero.
            pub const ZERO: Self = Self(0);

            /// Wraps a plain number.
            pub const fn new(value: $inner) -> Self {
                Self(value)
            }

            /// The plain number.
            pub const fn get(self) -> $inner {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }
    };
}

number!(
    /// Position of a record in its partition, dense from 0 (Kafka's offset).
    Offset,
    u64
);
number!(
    /// Position of a commit in its cell's log, counted over all epochs from 0.
    CommitNumber,
    u64
);
number!(
    /// How many sequencers a cell's log has had; directory 0 belongs to epoch 0 and to nobody.
    Epoch,
    u32
);
number!(
    /// The set of rules in force; a commit that raises it makes new rules begin there.
    FeatureLevel,
    u16
);
number!(
    /// One process's life as a writer; in every object that it writes, so that it can tell its own from another's.
    Nonce,
    u64
);
number!(
    /// Index of a cell in the list of `lakebed.json`.
    Cell,
    u16
);
number!(
    /// Index of a partition in its topic.
    PartitionIndex,
    u32
);
number!(
    /// How many times the members of a consumer group were counted anew; 0 for a group that had none.
    Generation,
    u32
);
number!(
    /// Kafka's producer id.
    ProducerId,
    i64
);
number!(
    /// The number by which Kafka clients know a broker; from 1 on.
    NodeId,
    i32
);
number!(
    /// Kafka's producer epoch.
    ProducerEpoch,
    i16
);
number!(
    /// Kafka's sequence number of a record of one producer in one partition; wraps to 0 after `i32::MAX`.
    Sequence,
    i32
);

impl Offset {
    /// The offset `rows` further on, or `None` where Kafka's 63 bits end.
    pub fn checked_add(self, rows: u64) -> Option<Self> {
        self.0.checked_add(rows).filter(|value| *value <= i64::MAX as u64).map(Self)
    }

    /// How many offsets lie in `earlier..self`; 0 if `earlier` is not earlier.
    pub fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl CommitNumber {
    /// The number after this one.
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl Generation {
    /// The greatest that Kafka's 31 bits hold.
    pub const MAX: Self = Self(i32::MAX as u32);

    /// The one after it; above [`Generation::MAX`] there is none that is taken.
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl Sequence {
    /// The sequence `count` further on, wrapping as Kafka's does.
    pub fn advance(self, count: u32) -> Self {
        Self(((i64::from(self.0) + i64::from(count)) % (i64::from(i32::MAX) + 1)) as i32)
    }
}

macro_rules! ulid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Ulid);

        impl $name {
            /// The smallest id.
            pub const MIN: Self = Self(Ulid::nil());

            /// Wraps a ULID.
            pub const fn new(ulid: Ulid) -> Self {
                Self(ulid)
            }

            /// The ULID.
            pub const fn ulid(self) -> Ulid {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                let ulid = Ulid::from_string(text).map_err(|_| IdError { text: text.to_owned() })?;
                if ulid.to_string() == text { Ok(Self(ulid)) } else { Err(IdError { text: text.to_owned() }) }
            }
        }
    };
}

ulid_id!(
    /// Names one flush of one broker, from its buffer to its outcome.
    FlushId
);
ulid_id!(
    /// Names an object under `segments/`; a flush that was uploaded first has its flush id as its segment id.
    SegmentId
);

ulid_id!(
    /// Names a table file: a Parquet file of one topic under `tables/`. Minted as segments are, so that one reclaim boundary judges both.
    TableFileId
);

impl From<TableFileId> for SegmentId {
    fn from(id: TableFileId) -> Self {
        Self(id.0)
    }
}

impl From<FlushId> for SegmentId {
    fn from(id: FlushId) -> Self {
        Self(id.0)
    }
}

/// A text that is no canonical id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a canonical id")]
pub struct IdError {
    text: String,
}

/// Identity of a topic for ever: a topic that was deleted and created again is another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicId(Uuid);

impl TopicId {
    /// Wraps a UUID.
    pub const fn new(uuid: Uuid) -> Self {
        Self(uuid)
    }

    /// The UUID.
    pub const fn uuid(self) -> Uuid {
        self.0
    }
}

impl fmt::Display for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.hyphenated())
    }
}

/// One partition of one topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartitionKey {
    /// The topic.
    pub topic: TopicId,
    /// The partition in it.
    pub partition: PartitionIndex,
}

impl PartitionKey {
    /// Names a partition.
    pub const fn new(topic: TopicId, partition: PartitionIndex) -> Self {
        Self { topic, partition }
    }
}

impl fmt::Display for PartitionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.topic, self.partition)
    }
}

/// One directory of a commit log: `{epoch:010}-{nonce:016x}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Directory {
    /// The epoch whose commits stand in it.
    pub epoch: Epoch,
    /// Drawn by the takeover that names it, so that two rivals never name the same one.
    pub nonce: Nonce,
}

impl fmt::Display for Directory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:010}-{:016x}", self.epoch.get(), self.nonce.get())
    }
}

impl FromStr for Directory {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let wrong = || IdError { text: text.to_owned() };
        let (epoch, nonce) = text.split_once('-').ok_or_else(wrong)?;
        let directory = Self {
            epoch: Epoch::new(epoch.parse().map_err(|_| wrong())?),
            nonce: Nonce::new(u64::from_str_radix(nonce, 16).map_err(|_| wrong())?),
        };
        if directory.to_string() == text { Ok(directory) } else { Err(wrong()) }
    }
}

/// Where a commit stands: the `index`-th object of a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The directory.
    pub directory: Directory,
    /// Counted from 0 in the directory.
    pub index: u64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{:012}", self.directory, self.index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_canonical_text_of_an_id_is_read() {
        let directory = Directory { epoch: Epoch::new(7), nonce: Nonce::new(0xAB) };
        assert_eq!(directory.to_string(), "0000000007-00000000000000ab");
        assert_eq!(directory.to_string().parse(), Ok(directory));
        let others = ["7-ab", "0000000007-00000000000000AB", "+000000007-00000000000000ab", "0000000007", "", "é-é"];
        for text in others {
            assert!(text.parse::<Directory>().is_err(), "{text}");
        }
        let id = FlushId::new(Ulid(1 << 100));
        assert_eq!(id.to_string().parse(), Ok(id));
        for text in
            [id.to_string().to_lowercase(), "8ZZZZZZZZZZZZZZZZZZZZZZZZZ".to_owned(), "x".repeat(26), String::new()]
        {
            assert!(text.parse::<FlushId>().is_err() || text == id.to_string(), "{text}");
        }
    }

    #[test]
    fn offsets_end_at_63_bits() {
        assert_eq!(Offset::new(i64::MAX as u64 - 1).checked_add(1), Some(Offset::new(i64::MAX as u64)));
        assert_eq!(Offset::new(i64::MAX as u64).checked_add(1), None);
        assert_eq!(Offset::new(5).checked_add(u64::MAX), None);
    }
}
