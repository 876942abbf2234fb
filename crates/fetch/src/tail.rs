//! The tail: the batches that came last, as their producers sent them, and the offset up to which each partition may be read.
//!
//! 1. A partition's batches ascend by offset and do not overlap; gaps are possible.
//! 2. What is held costs at most the bound; the batches that were published first go first, whatever their partition.
//! 3. A *visible* offset never goes back.
//! 4. Batches are handed out as they came in: only the 16 bytes before the part that the CRC covers are replaced.

use std::collections::{BTreeMap, VecDeque};

use bytes::{BufMut, Bytes, BytesMut};
use lakebed_model::{Offset, PartitionKey};
use lakebed_segment::batch::{PREFIX_BYTES, address, address_copy};

use crate::counts::CacheUse;
use crate::request::FetchedBatch;

/// What a batch costs beside its bytes: its place in two queues and the counts of its buffers.
const OVERHEAD_BYTES: usize = 192;
/// Batches up to this size are copied whole: a second piece in the socket write costs more, and a copy lets go of the request.
const COPIED_BYTES_MAX: usize = 1024;

/// A batch that was committed.
#[derive(Debug, Clone)]
pub struct Published {
    /// The partition that it was appended to.
    pub partition: PartitionKey,
    /// Offset of its first record.
    pub base_offset: Offset,
    /// Offset of its last record.
    pub last_offset: Offset,
    /// The batch as its producer sent it; its own base offset is ignored.
    pub batch: Bytes,
}

#[derive(Debug, Default)]
struct PartitionTail {
    visible: Offset,
    batches: VecDeque<FetchedBatch>,
}

/// What the tail has from an offset on.
#[derive(Debug)]
pub(crate) enum TailRead {
    /// The batch that holds the offset, and those that follow without a gap.
    Hit(Vec<FetchedBatch>),
    /// Not the offset itself; what is held begins at `resumes` (if anything above the offset is held).
    Miss {
        /// The first offset above that is held.
        resumes: Option<Offset>,
    },
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Tail {
    partitions: BTreeMap<PartitionKey, PartitionTail>,
    /// One entry for each batch held, in the order of publication.
    order: VecDeque<PartitionKey>,
    held_bytes: usize,
    bound_bytes: usize,
    hits: u64,
    misses: u64,
}

impl Tail {
    /// A tail without batches over partitions that are visible up to the given offsets.
    pub(crate) fn new(bound_bytes: usize, visible: impl Iterator<Item = (PartitionKey, Offset)>) -> Self {
        let partitions =
            visible.map(|(key, visible)| (key, PartitionTail { visible, batches: VecDeque::new() })).collect();
        Self { partitions, order: VecDeque::new(), held_bytes: 0, bound_bytes, hits: 0, misses: 0 }
    }

    /// Up to where a partition may be read; 0 if nothing of it was ever seen.
    pub(crate) fn visible(&self, key: PartitionKey) -> Offset {
        self.partitions.get(&key).map_or(Offset::ZERO, |partition| partition.visible)
    }

    /// Takes committed batches in, in offset order per partition.
    pub(crate) fn publish(&mut self, batches: &[Published]) {
        let mut heads = BytesMut::with_capacity(batches.len() * PREFIX_BYTES);
        for batch in batches {
            self.publish_one(batch, &mut heads);
        }
        while self.held_bytes > self.bound_bytes {
            self.evict();
        }
    }

    /// Makes a partition visible up to an offset; nothing is held.
    pub(crate) fn see(&mut self, key: PartitionKey, offset: Offset) {
        let partition = self.partitions.entry(key).or_default();
        partition.visible = partition.visible.max(offset);
    }

    /// What is held of a partition from `offset` on: whole batches of at most `bytes_max` together, but always the first.
    pub(crate) fn read(&mut self, key: PartitionKey, offset: Offset, bytes_max: usize) -> TailRead {
        let read = self.look(key, offset, bytes_max);
        match read {
            TailRead::Hit(_) => self.hits += 1,
            TailRead::Miss { .. } => self.misses += 1,
        }
        read
    }

    /// How often there was something, and what is held.
    pub(crate) fn use_so_far(&self) -> CacheUse {
        CacheUse { hits: self.hits, misses: self.misses, bytes: self.held_bytes, bytes_max: self.bound_bytes }
    }

    fn look(&self, key: PartitionKey, offset: Offset, bytes_max: usize) -> TailRead {
        let Some(partition) = self.partitions.get(&key) else { return TailRead::Miss { resumes: None } };
        let first = partition.batches.partition_point(|batch| batch.last_offset < offset);
        match partition.batches.get(first) {
            None => return TailRead::Miss { resumes: None },
            Some(batch) if batch.base_offset > offset => return TailRead::Miss { resumes: Some(batch.base_offset) },
            Some(_) => {}
        }
        let mut read: Vec<FetchedBatch> = Vec::new();
        let mut bytes = 0;
        for batch in partition.batches.range(first..) {
            bytes += batch.size_bytes();
            let follows = read.last().is_none_or(|last| last.next_offset() == batch.base_offset);
            if !follows || (bytes > bytes_max && !read.is_empty()) {
                break;
            }
            read.push(batch.clone());
        }
        TailRead::Hit(read)
    }

    /// Forgets partitions that are no more.
    pub(crate) fn retain(&mut self, exists: impl Fn(PartitionKey) -> bool) {
        let held_bytes = &mut self.held_bytes;
        self.partitions.retain(|key, partition| {
            let keep = exists(*key);
            if !keep {
                *held_bytes -= partition.batches.iter().map(cost_bytes).sum::<usize>();
            }
            keep
        });
        let partitions = &self.partitions;
        self.order.retain(|key| partitions.contains_key(key));
    }

    /// How many partitions are remembered.
    pub(crate) fn partition_count(&self) -> usize {
        self.partitions.len()
    }

    /// What is held, in bytes.
    #[cfg(test)]
    pub(crate) fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    fn publish_one(&mut self, published: &Published, heads: &mut BytesMut) {
        let partition = self.partitions.entry(published.partition).or_default();
        let end = Offset::new(published.last_offset.get() + 1);
        partition.visible = partition.visible.max(end);
        let ascends = partition.batches.back().is_none_or(|last| last.last_offset < published.base_offset);
        let fetched = addressed(published, heads);
        let cost = cost_bytes(&fetched);
        if !ascends || cost > self.bound_bytes {
            return;
        }
        self.held_bytes += cost;
        partition.batches.push_back(fetched);
        self.order.push_back(published.partition);
    }

    fn evict(&mut self) {
        let oldest = self.order.pop_front().expect("what is held has an order");
        let partition = self.partitions.get_mut(&oldest).expect("what has an order is held");
        let batch = partition.batches.pop_front().expect("there is an entry in the order for each batch");
        self.held_bytes -= cost_bytes(&batch);
        if partition.batches.is_empty() {
            partition.batches = VecDeque::new();
        }
    }
}

fn cost_bytes(batch: &FetchedBatch) -> usize {
    batch.size_bytes() + OVERHEAD_BYTES
}

/// The batch with its base offset in place.
fn addressed(published: &Published, heads: &mut BytesMut) -> FetchedBatch {
    let Published { base_offset, last_offset, ref batch, .. } = *published;
    let base = i64::try_from(base_offset.get()).expect("offsets have 63 bits");
    if batch.len() <= COPIED_BYTES_MAX {
        return FetchedBatch { base_offset, last_offset, head: Bytes::new(), batch: address_copy(batch, base) };
    }
    let (head, _) = address(batch, base);
    heads.put_slice(&head);
    FetchedBatch { base_offset, last_offset, head: heads.split().freeze(), batch: batch.clone() }
}

#[cfg(test)]
mod tests {
    use lakebed_model::{PartitionIndex, TopicId};

    use super::*;

    fn key(partition: u32) -> PartitionKey {
        PartitionKey::new(TopicId::new(Default::default()), PartitionIndex::new(partition))
    }

    fn batch(partition: u32, offsets: std::ops::Range<u64>, size: usize) -> Published {
        let batch = (0..size).map(|i| i as u8).collect::<Vec<u8>>();
        Published {
            partition: key(partition),
            base_offset: Offset::new(offsets.start),
            last_offset: Offset::new(offsets.end - 1),
            batch: batch.into(),
        }
    }

    fn bases(read: TailRead) -> Vec<u64> {
        match read {
            TailRead::Hit(batches) => batches.iter().map(|batch| batch.base_offset.get()).collect(),
            TailRead::Miss { .. } => Vec::new(),
        }
    }

    #[test]
    fn a_batch_goes_out_as_it_came_in_with_its_offset_and_without_a_copy() {
        for size in [100, 5000] {
            let mut tail = Tail::new(1 << 20, std::iter::empty());
            let published = batch(0, 1000..1010, size);
            tail.publish(std::slice::from_ref(&published));
            let TailRead::Hit(read) = tail.read(key(0), Offset::new(1005), 1) else { panic!("it is held") };
            let bytes: Vec<u8> = read[0].chunks().flatten().collect();
            assert_eq!(bytes[..8], 1000_u64.to_be_bytes());
            assert_eq!(bytes[8..12], published.batch[8..12]);
            assert_eq!(bytes[12..16], [0; 4], "the leader epoch is constant");
            assert_eq!(bytes[16..], published.batch[16..]);
            let shared = read[0].chunks().last().unwrap().as_ptr() == published.batch[PREFIX_BYTES..].as_ptr();
            assert_eq!(shared, size > COPIED_BYTES_MAX);
        }
    }

    #[test]
    fn a_read_begins_with_the_batch_of_its_offset_and_ends_at_its_limit_or_a_gap() {
        let mut tail = Tail::new(1 << 20, std::iter::empty());
        tail.publish(&[batch(0, 10..20, 100), batch(0, 20..30, 100), batch(0, 30..40, 100), batch(0, 50..60, 100)]);
        assert_eq!(bases(tail.read(key(0), Offset::new(10), 1000)), [10, 20, 30]);
        assert_eq!(bases(tail.read(key(0), Offset::new(29), 1000)), [20, 30]);
        assert_eq!(bases(tail.read(key(0), Offset::new(10), 250)), [10, 20]);
        assert_eq!(bases(tail.read(key(0), Offset::new(10), 0)), [10], "the first always");
        for (offset, resumes) in [(9, Some(10)), (40, Some(50)), (60, None)] {
            let TailRead::Miss { resumes: found } = tail.read(key(0), Offset::new(offset), 1000) else { panic!() };
            assert_eq!(found, resumes.map(Offset::new));
        }
    }

    #[test]
    fn what_was_published_first_goes_first_and_the_bound_holds() {
        let each = 100 + OVERHEAD_BYTES;
        let mut tail = Tail::new(each * 3, std::iter::empty());
        tail.publish(&[batch(0, 0..1, 100), batch(1, 0..1, 100), batch(0, 1..2, 100), batch(1, 1..2, 100)]);
        assert_eq!(tail.held_bytes(), each * 3);
        assert_eq!(bases(tail.read(key(0), Offset::new(1), 1000)), [1]);
        assert!(bases(tail.read(key(0), Offset::new(0), 1000)).is_empty());
        tail.publish(&[batch(2, 0..1, 100)]);
        assert!(bases(tail.read(key(1), Offset::new(0), 1000)).is_empty());
        assert_eq!(tail.held_bytes(), each * 3);
    }

    #[test]
    fn a_partition_stays_visible_when_its_batches_are_evicted_or_never_held() {
        let mut tail = Tail::new(0, [(key(1), Offset::new(7))].into_iter());
        tail.publish(&[batch(0, 0..5, 100)]);
        assert_eq!((tail.visible(key(0)), tail.held_bytes()), (Offset::new(5), 0));
        assert_eq!((tail.visible(key(1)), tail.visible(key(2))), (Offset::new(7), Offset::ZERO));
        tail.publish(&[batch(1, 3..6, 100)]);
        assert_eq!(tail.visible(key(1)), Offset::new(7), "never back");
    }

    #[test]
    fn a_forgotten_partition_gives_its_bytes_back() {
        let mut tail = Tail::new(1 << 20, std::iter::empty());
        tail.publish(&[batch(0, 0..1, 100), batch(1, 0..1, 100)]);
        tail.retain(|partition| partition == key(1));
        assert_eq!((tail.held_bytes(), tail.partition_count()), (100 + OVERHEAD_BYTES, 1));
        tail.bound_bytes = 0;
        tail.publish(&[]);
        assert_eq!(tail.held_bytes(), 0);
    }
}
