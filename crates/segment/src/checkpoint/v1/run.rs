//! A run as format 1 persists it: a list of eight, or of ten if compaction of keys made it.

use serde::de::{Error, SeqAccess, Visitor};
use serde::ser::SerializeSeq;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::DenseV1;

/// Base offset, rows, object, first row, bytes, first and last timestamp in milliseconds, hash; then, if they are not the number of rows and
/// `false`, how many offsets it covers, and whether it is clean.
pub(super) struct RunV1 {
    pub(super) run: DenseV1,
    pub(super) keys: Option<(u64, bool)>,
}

impl Serialize for RunV1 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Some((span, clean)) = &self.keys else { return self.run.serialize(serializer) };
        let (base, rows, object, first_row, bytes, first_ms, last_ms, hash) = &self.run;
        let mut list = serializer.serialize_seq(Some(10))?;
        list.serialize_element(base)?;
        list.serialize_element(rows)?;
        list.serialize_element(object)?;
        list.serialize_element(first_row)?;
        list.serialize_element(bytes)?;
        list.serialize_element(first_ms)?;
        list.serialize_element(last_ms)?;
        list.serialize_element(hash)?;
        list.serialize_element(span)?;
        list.serialize_element(clean)?;
        list.end()
    }
}

impl<'de> Deserialize<'de> for RunV1 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(OfList)
    }
}

struct OfList;

impl<'de> Visitor<'de> for OfList {
    type Value = RunV1;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a run: a list of 8 or 10")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<RunV1, A::Error> {
        fn next<'de, T: Deserialize<'de>, A: SeqAccess<'de>>(list: &mut A, at: usize) -> Result<T, A::Error> {
            list.next_element()?.ok_or_else(|| Error::invalid_length(at, &OfList))
        }
        let list = &mut list;
        let run = (
            next(list, 0)?,
            next(list, 1)?,
            next(list, 2)?,
            next(list, 3)?,
            next(list, 4)?,
            next(list, 5)?,
            next(list, 6)?,
            next(list, 7)?,
        );
        let keys = match list.next_element()? {
            None => None,
            Some(span) => Some((span, next(list, 9)?)),
        };
        Ok(RunV1 { run, keys })
    }
}
