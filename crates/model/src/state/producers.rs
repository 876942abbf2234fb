//! Producer ids, and the bounds on what is remembered of producers.
//!
//! 1. A number is allotted once: allotments follow one another without a gap, whoever asks for them.
//! 2. A partition remembers at most [`PRODUCERS_PER_PARTITION_MAX`] producers, all partitions together at most [`PRODUCERS_MAX`]. At the
//!    bound those that were idle for longest make room, many at a time, so that each costs little. That is a rule of the log and not a
//!    choice of a broker: who mints ids can't grow the state of any reader.
//! 3. What was idle for long is forgotten by an entry that names the time and says how many it forgets; nothing here reads a clock.
//!
//! A producer that was forgotten may go on with any sequence (KIP-360); a batch of it that is sent again is appended again.

use super::{Refusal, State};
use crate::ids::{PartitionKey, ProducerId};
use crate::producer::{NUMBERS_MAX, Producer};

/// Most producers that one partition remembers. Half of them are forgotten to make room.
pub const PRODUCERS_PER_PARTITION_MAX: usize = 4_000;
/// Most producers that are remembered, counted once a partition: some 50 MB. A quarter of them is forgotten to make room.
pub const PRODUCERS_MAX: usize = 200_000;
/// Most producer ids that one entry allots.
pub const PRODUCER_IDS_AT_ONCE_MAX: u32 = 100_000;

impl State {
    /// How many producer ids were allotted: the number of the next.
    pub fn producer_ids_allotted(&self) -> u64 {
        self.producer_ids
    }

    /// What a partition remembers of its producers.
    pub fn producers_of(&self, key: PartitionKey) -> impl Iterator<Item = (ProducerId, &Producer)> {
        let range = (key, ProducerId::new(i64::MIN))..=(key, ProducerId::new(i64::MAX));
        self.producers.range(range).map(|((_, id), producer)| (*id, producer))
    }

    /// How many producers are remembered, counted once a partition.
    pub fn producer_count(&self) -> usize {
        self.producers.len()
    }

    /// How many of them wrote last before `before_ms`.
    ///
    /// # Cost
    /// Visits every remembered producer, of which there are at most [`PRODUCERS_MAX`].
    pub fn idle_producers(&self, before_ms: i64) -> u64 {
        self.producers.values().filter(|producer| producer.last_ms < before_ms).count() as u64
    }

    pub(super) fn allot_producer_ids(&mut self, first: u64, count: u32) -> Result<(), Refusal> {
        let end = first.checked_add(u64::from(count)).filter(|end| *end <= NUMBERS_MAX);
        match end {
            Some(end) if first == self.producer_ids && (1..=PRODUCER_IDS_AT_ONCE_MAX).contains(&count) => {
                self.producer_ids = end;
                Ok(())
            }
            _ => Err(Refusal::ProducerIdsOutOfRange { first, count, next: self.producer_ids }),
        }
    }

    pub(super) fn expire_producers(&mut self, before_ms: i64, forgotten: u64) -> Result<(), Refusal> {
        let idle: Vec<_> =
            self.producers.iter().filter(|(_, one)| one.last_ms < before_ms).map(|(place, _)| *place).collect();
        if idle.is_empty() || idle.len() as u64 != forgotten {
            return Err(Refusal::ExpiryDiffers { before_ms, forgotten, idle: idle.len() as u64 });
        }
        idle.into_iter().for_each(|(key, id)| self.forget_producer(key, id));
        Ok(())
    }

    /// Remembers what is known of a producer now, and forgets others if there is no room for one more.
    pub(super) fn remember_producer(&mut self, key: PartitionKey, id: ProducerId, producer: Producer) {
        if self.producers.contains_key(&(key, id)) {
            self.producers.insert((key, id), producer);
            return;
        }
        if self.producer_counts.get(&key).is_some_and(|count| *count as usize >= PRODUCERS_PER_PARTITION_MAX) {
            let all = self.producers_of(key).map(|(id, known)| (known.last_ms, key, id)).collect();
            self.forget_idlest(all, PRODUCERS_PER_PARTITION_MAX / 2);
        }
        if self.producers.len() >= PRODUCERS_MAX {
            let all = self.producers.iter().map(|((key, id), known)| (known.last_ms, *key, *id)).collect();
            self.forget_idlest(all, PRODUCERS_MAX / 4);
        }
        self.insert_producer(key, id, producer);
    }

    /// Forgets `count` of these: those that wrote last before the others, and of equals those that come first.
    fn forget_idlest(&mut self, mut all: Vec<(i64, PartitionKey, ProducerId)>, count: usize) {
        all.select_nth_unstable(count - 1);
        all.into_iter().take(count).for_each(|(_, key, id)| self.forget_producer(key, id));
    }

    fn insert_producer(&mut self, key: PartitionKey, id: ProducerId, producer: Producer) {
        if self.producers.insert((key, id), producer).is_none() {
            let count = self.producer_counts.get(&key).copied().unwrap_or_default();
            self.producer_counts.insert(key, count + 1);
        }
    }

    fn forget_producer(&mut self, key: PartitionKey, id: ProducerId) {
        if self.producers.remove(&(key, id)).is_some() {
            match self.producer_counts.get(&key) {
                Some(count) if *count > 1 => {
                    let count = count - 1;
                    self.producer_counts.insert(key, count);
                }
                _ => drop(self.producer_counts.remove(&key)),
            }
        }
    }

    pub(super) fn forget_producers_of(&mut self, key: PartitionKey) {
        let ids: Vec<_> = self.producers_of(key).map(|(id, _)| id).collect();
        ids.into_iter().for_each(|id| self.forget_producer(key, id));
    }

    pub(crate) fn restore_producers(&mut self, key: PartitionKey, producers: Vec<(ProducerId, Producer)>) {
        producers.into_iter().for_each(|(id, producer)| self.insert_producer(key, id, producer));
    }
}
