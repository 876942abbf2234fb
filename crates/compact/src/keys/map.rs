//! Where each key was seen last, in a fixed amount of memory.
//!
//! Keys are kept as 128 bits of two hashes with random secrets (SipHash), as Kafka keeps an MD5 of each. Two keys that had the same would cost
//! a record of the one that came first: among 10^9 keys of a pass that is as likely as 10^-21, and without the secrets, which are another pair in every pass,
//! nobody can look for such keys.

use std::collections::HashMap;
use std::hash::{BuildHasher, BuildHasherDefault, Hash, Hasher, RandomState};

use lakebed_model::Offset;

/// What an entry takes: two hashes, an offset, and a byte of the table.
const ENTRY_BYTES: usize = 25;

#[derive(Clone, Copy, PartialEq, Eq)]
struct KeyHash(u64, u64);

impl Hash for KeyHash {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.0);
    }
}

/// The first hash is as good as any.
#[derive(Default)]
struct First(u64);

impl Hasher for First {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.0 = self.0.rotate_left(8) ^ u64::from(*byte));
    }

    fn write_u64(&mut self, word: u64) {
        self.0 = word;
    }
}

/// See the module.
pub(crate) struct OffsetMap {
    secrets: (RandomState, RandomState),
    offsets: HashMap<KeyHash, Offset, BuildHasherDefault<First>>,
    keys_max: usize,
}

impl OffsetMap {
    /// A map for the keys of at most so many rows that takes at most about `bytes_max`; a few keys always fit.
    pub(crate) fn new(bytes_max: usize, rows: u64) -> Self {
        // The table has a power of two of places, of which seven of eight are used.
        let places = ((bytes_max / ENTRY_BYTES).max(8) + 1).next_power_of_two() / 2;
        let keys_max = places / 8 * 7;
        let capacity = usize::try_from(rows).unwrap_or(usize::MAX).min(keys_max);
        let offsets = HashMap::with_capacity_and_hasher(capacity, BuildHasherDefault::default());
        Self { secrets: (RandomState::new(), RandomState::new()), offsets, keys_max }
    }

    /// Takes down where a key is; whether there was room for it.
    pub(crate) fn put(&mut self, key: &[u8], offset: Offset) -> bool {
        let hash = self.hash(key);
        // SUBTLE: to insert makes room for one more even where the key is known, so it would double what a full map takes.
        if let Some(known) = self.offsets.get_mut(&hash) {
            *known = offset;
            return true;
        }
        let has_room = self.offsets.len() < self.keys_max;
        if has_room {
            self.offsets.insert(hash, offset);
        }
        has_room
    }

    /// Where a key was seen last.
    pub(crate) fn last(&self, key: &[u8]) -> Option<Offset> {
        self.offsets.get(&self.hash(key)).copied()
    }

    fn hash(&self, key: &[u8]) -> KeyHash {
        KeyHash(self.secrets.0.hash_one(key), self.secrets.1.hash_one(key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_offset_of_each_key_is_known_and_a_full_map_takes_no_other_key() {
        let mut map = OffsetMap::new(32 * ENTRY_BYTES, 1000);
        let key = |number: usize| format!("key {number}").into_bytes();
        let fit = (0..1000).take_while(|number| map.put(&key(*number), Offset::new(*number as u64))).count();
        assert_eq!(fit, 28);
        assert!(map.put(&key(3), Offset::new(77)), "one that is known");
        assert_eq!(map.last(&key(3)), Some(Offset::new(77)));
        assert_eq!((map.last(&key(27)), map.last(&key(28))), (Some(Offset::new(27)), None));
        assert!(map.offsets.capacity() <= 28);
    }
}
