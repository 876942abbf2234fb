//! A hash over what was written to a partition, and what was read of it.

use bytes::Bytes;
use crc_fast::{CrcAlgorithm, Digest};

/// Over batches in their order: each gives the CRC-64/NVME of its values, and these are folded as FNV-1a folds bytes, so order counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Hash(u64);

impl Hash {
    pub(super) const EMPTY: Self = Self(0xcbf2_9ce4_8422_2325);

    /// Goes on with the hash of a batch, or of a partition.
    #[must_use]
    pub(super) fn then(self, next: u64) -> Self {
        Self((self.0 ^ next).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(23))
    }

    pub(super) fn get(self) -> u64 {
        self.0
    }
}

/// The hash of the values of a batch.
pub(super) fn of_values(values: &[Bytes]) -> u64 {
    let mut digest = Digest::new(CrcAlgorithm::Crc64Nvme);
    values.iter().for_each(|value| digest.update(value));
    digest.finalize()
}

/// A hash over records that come one by one; batches are told apart by their number of records.
pub(super) struct Reader {
    hash: Hash,
    batch: Digest,
    left: u32,
    records: u32,
}

impl Reader {
    pub(super) fn new(records: u32) -> Self {
        Self { hash: Hash::EMPTY, batch: Digest::new(CrcAlgorithm::Crc64Nvme), left: records, records }
    }

    pub(super) fn record(&mut self, value: &[u8]) {
        self.batch.update(value);
        self.left -= 1;
        if self.left == 0 {
            self.hash = self.hash.then(self.batch.finalize());
            self.batch = Digest::new(CrcAlgorithm::Crc64Nvme);
            self.left = self.records;
        }
    }

    /// A batch as a whole, whose bytes are those that were written; only where a batch begins.
    pub(super) fn batch(&mut self, hash: u64) {
        self.hash = self.hash.then(hash);
    }

    pub(super) fn hash(&self) -> Hash {
        self.hash
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_one_by_one_and_batches_as_a_whole_have_one_hash_and_order_counts() {
        let batches: Vec<Vec<Bytes>> =
            (0..4_u8).map(|batch| (0..3_u8).map(|record| Bytes::from(vec![batch, record])).collect()).collect();
        let whole = batches.iter().fold(Hash::EMPTY, |hash, batch| hash.then(of_values(batch)));
        let mut reader = Reader::new(3);
        reader.batch(of_values(&batches[0]));
        batches[1..].iter().flatten().for_each(|value| reader.record(value));
        assert_eq!(reader.hash(), whole);
        let backwards = batches.iter().rev().fold(Hash::EMPTY, |hash, batch| hash.then(of_values(batch)));
        assert_ne!(backwards, whole);
    }
}
