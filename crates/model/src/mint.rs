//! Minting of ids that only grow: the clock and the randomness come in, so a wrong clock delays nothing and loses nothing.

use ulid::Ulid;

/// Mints the ULIDs of one broker's flushes and segments.
///
/// Invariant: every id is greater than all before it and than the reclaim boundary that was given with it.
#[derive(Debug, Clone)]
pub struct Mint {
    last: Ulid,
}

impl Default for Mint {
    fn default() -> Self {
        Self::new()
    }
}

impl Mint {
    /// A mint that has minted nothing.
    pub const fn new() -> Self {
        Self { last: Ulid::nil() }
    }

    /// Mints the next id.
    ///
    /// `now_ms` is a wall clock (only for humans and for listing order), `random` 64 fresh random bits, `floor` the reclaim boundary
    /// that the broker has seen.
    pub fn next(&mut self, now_ms: u64, random: u64, floor: Ulid) -> Ulid {
        let fresh = Ulid::from_parts(now_ms, u128::from(random) << 16);
        let above = self.last.max(floor);
        // SUBTLE: a step of a random size, not of one: two brokers above the same floor must not mint the same id.
        let stepped = Ulid(above.0.saturating_add(1 + u128::from(random)));
        self.last = if fresh > above { fresh } else { stepped };
        self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_grow_when_the_clock_goes_back_and_stay_above_the_floor() {
        let mut mint = Mint::new();
        let a = mint.next(1_000, 5, Ulid::nil());
        let b = mint.next(10, 9, Ulid::nil());
        let floor = Ulid::from_parts(5_000, 3);
        let c = mint.next(20, 1, floor);
        assert!(a < b && b < c && c > floor);
    }
}
