//! How large rows become in table files, of each topic: what was written last says it. The state knows only their bytes before compression.

use std::collections::BTreeMap;

use lakebed_model::TopicId;

/// What was written longer ago than so many bytes of rows counts half, and so on.
const MEMORY_BYTES: u64 = 1 << 30;

/// What rows of each topic became so far; nothing is known of others, and they are taken to be as large as they are.
#[derive(Debug, Clone, Default)]
pub struct Packing {
    by_topic: BTreeMap<TopicId, Packed>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Packed {
    bytes_in: u64,
    bytes_out: u64,
}

impl Packing {
    /// Notes that so many bytes of keys, values and headers became so many of table files.
    pub fn note(&mut self, topic: TopicId, bytes_in: u64, bytes_out: u64) {
        let packed = self.by_topic.entry(topic).or_default();
        packed.bytes_in = packed.bytes_in.saturating_add(bytes_in);
        packed.bytes_out = packed.bytes_out.saturating_add(bytes_out);
        while packed.bytes_in > 2 * MEMORY_BYTES {
            packed.bytes_in /= 2;
            packed.bytes_out /= 2;
        }
    }

    /// Forgets topics that are gone.
    pub fn retain(&mut self, is_there: impl Fn(TopicId) -> bool) {
        self.by_topic.retain(|topic, _| is_there(*topic));
    }

    /// About how many bytes of a table file so many bytes of keys, values and headers are.
    pub fn file_bytes(&self, topic: TopicId, bytes: u64) -> u64 {
        match self.by_topic.get(&topic) {
            Some(packed) if packed.bytes_in > 0 => scaled(bytes, packed.bytes_out, packed.bytes_in),
            _ => bytes,
        }
    }
}

/// `bytes` times a ratio.
pub(crate) fn scaled(bytes: u64, numerator: u64, denominator: u64) -> u64 {
    let scaled = u128::from(bytes) * u128::from(numerator) / u128::from(denominator.max(1));
    u64::try_from(scaled).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_last_counts_most() {
        let mut packing = Packing::default();
        let topic = |id| TopicId::new(uuid::Uuid::from_u128(id));
        assert_eq!(packing.file_bytes(topic(1), 1000), 1000, "nothing is known");
        packing.note(topic(1), 400, 100);
        assert_eq!((packing.file_bytes(topic(1), 1000), packing.file_bytes(topic(2), 1000)), (250, 1000));
        packing.note(topic(1), 40 << 30, 40 << 30);
        assert!((990..=1000).contains(&packing.file_bytes(topic(1), 1000)));
        packing.note(topic(1), u64::MAX / 8, 0);
        assert!(packing.file_bytes(topic(1), 1000) < 10);
        packing.retain(|id| id != topic(1));
        assert_eq!(packing.file_bytes(topic(1), u64::MAX), u64::MAX);
    }
}
