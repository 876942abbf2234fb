//! Large buffers for what arrives and what is stored, recycled when the last slice of them is gone.
//!
//! Fresh pages cost eight times as much as used ones. So a large frame is read into a buffer of a pool and a large object is
//! written into one; both are handed out as [`Bytes`], and the memory comes back when the last slice is dropped.
//!
//! 1. At most `free_bytes_max` lie unused in the pool.
//! 2. A buffer has at most twice the capacity that was asked for: what lives on in slices pins no more than that.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

/// Buffers start at this size and are recycled from it on; smaller ones are the allocator's business.
pub const STEP_BYTES: usize = 64 * 1024;

/// A buffer is used for nothing smaller than this part of its capacity.
const CAPACITY_FACTOR_MAX: usize = 2;

/// A pool of used buffers. A handle; clones share the buffers.
#[derive(Debug, Clone, Default)]
pub struct BufferPool {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    free_bytes_max: usize,
    free: Mutex<Free>,
}

#[derive(Debug, Default)]
struct Free {
    bytes: usize,
    /// Ascending by capacity, so that the smallest that suffices is found by bisection.
    buffers: Vec<Vec<u8>>,
}

impl BufferPool {
    /// A pool that keeps at most `free_bytes_max` unused.
    pub fn new(free_bytes_max: usize) -> Self {
        Self { shared: Arc::new(Shared { free_bytes_max, free: Mutex::default() }) }
    }

    /// An empty buffer for what is claimed to have `claimed_bytes`: a used one that can hold it, else a fresh one of at most
    /// [`STEP_BYTES`], which grows with what arrives: a claim allocates nothing.
    pub fn take_for_claim(&self, claimed_bytes: usize) -> Vec<u8> {
        self.used(claimed_bytes).unwrap_or_else(|| Vec::with_capacity(claimed_bytes.min(STEP_BYTES)))
    }

    /// An empty buffer that can hold `bytes`.
    pub fn take(&self, bytes: usize) -> Vec<u8> {
        self.used(bytes).unwrap_or_else(|| Vec::with_capacity(bytes))
    }

    fn used(&self, bytes: usize) -> Option<Vec<u8>> {
        if bytes < STEP_BYTES { None } else { self.shared.take(bytes) }
    }

    /// Makes a buffer immutable; its memory returns to the pool when the last slice is dropped.
    pub fn freeze(&self, buffer: Vec<u8>) -> Bytes {
        if buffer.capacity() < STEP_BYTES {
            return Bytes::from(buffer);
        }
        Bytes::from_owner(Lent { buffer, home: Arc::clone(&self.shared) })
    }

    /// How many bytes lie unused.
    #[cfg(test)]
    pub(crate) fn free_bytes(&self) -> usize {
        self.shared.free.lock().unwrap_or_else(PoisonError::into_inner).bytes
    }
}

impl Shared {
    fn take(&self, bytes: usize) -> Option<Vec<u8>> {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let index = free.buffers.partition_point(|buffer| buffer.capacity() < bytes);
        // SUBTLE: a much larger buffer is left for somebody who needs it; else small frames in the tail would pin large buffers, and
        // the tail would hold many times the bytes that it counts.
        if free.buffers.get(index)?.capacity() > bytes.saturating_mul(CAPACITY_FACTOR_MAX) {
            return None;
        }
        let buffer = free.buffers.remove(index);
        free.bytes -= buffer.capacity();
        Some(buffer)
    }

    fn give(&self, mut buffer: Vec<u8>) {
        buffer.clear();
        let capacity = buffer.capacity();
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        if free.bytes + capacity > self.free_bytes_max {
            return;
        }
        let index = free.buffers.partition_point(|other| other.capacity() < capacity);
        free.buffers.insert(index, buffer);
        free.bytes += capacity;
    }
}

/// A buffer on loan; dropped with the last slice of it.
struct Lent {
    buffer: Vec<u8>,
    home: Arc<Shared>,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.buffer
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.home.give(std::mem::take(&mut self.buffer));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_comes_back_when_the_last_slice_is_dropped() {
        let pool = BufferPool::new(1 << 20);
        let mut buffer = pool.take(STEP_BYTES);
        buffer.resize(STEP_BYTES, 7);
        let address = buffer.as_ptr();
        let frame = pool.freeze(buffer);
        let slice = frame.slice(10..20);
        drop(frame);
        assert_eq!(pool.free_bytes(), 0);
        assert_eq!(&slice[..], &[7; 10]);
        drop(slice);
        assert_eq!(pool.free_bytes(), STEP_BYTES);
        let again = pool.take(STEP_BYTES);
        assert_eq!(again.as_ptr(), address);
    }

    #[test]
    fn the_pool_keeps_no_more_than_its_limit() {
        let pool = BufferPool::new(3 * STEP_BYTES);
        let frames: Vec<Bytes> = (0..10).map(|_| pool.freeze(Vec::with_capacity(STEP_BYTES))).collect();
        drop(frames);
        assert_eq!(pool.free_bytes(), 3 * STEP_BYTES);
    }

    #[test]
    fn a_claim_allocates_one_step_at_most() {
        let pool = BufferPool::new(1 << 20);
        assert!(pool.take_for_claim(usize::MAX).capacity() <= STEP_BYTES);
    }

    #[test]
    fn a_small_frame_leaves_a_much_larger_buffer_to_others() {
        let pool = BufferPool::new(1 << 24);
        drop(pool.freeze(Vec::with_capacity(8 * STEP_BYTES)));
        assert_eq!(pool.take(STEP_BYTES).capacity(), STEP_BYTES);
        assert!(pool.take(5 * STEP_BYTES).capacity() >= 8 * STEP_BYTES);
    }
}
