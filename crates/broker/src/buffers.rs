//! Buffers for what arrives: accounted before it is read, recycled after the last slice of it is gone.
//!
//! Fresh pages cost eight times as much as used ones, and a produced batch lives on as slices of its frame in the ingest buffer and
//! the tail. So a large frame is read into a buffer of the pool, handed out as [`Bytes`], and its memory comes back when the last
//! slice is dropped.
//!
//! 1. At most `free_bytes_max` lie unused in the pool.
//! 2. A buffer never holds more than twice the bytes that have arrived, plus [`STEP_BYTES`]: what a peer *claims* allocates nothing.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

/// Buffers start at this size and are recycled from it on; smaller ones are the allocator's business.
pub(crate) const STEP_BYTES: usize = 64 * 1024;

/// A pool of used buffers.
#[derive(Debug, Clone)]
pub(crate) struct BufferPool {
    shared: Arc<Shared>,
}

#[derive(Debug)]
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
    pub(crate) fn new(free_bytes_max: usize) -> Self {
        Self { shared: Arc::new(Shared { free_bytes_max, free: Mutex::default() }) }
    }

    /// An empty buffer for a frame of `frame_bytes`: a used one that can hold it, else a fresh one of at most [`STEP_BYTES`], which
    /// grows with what arrives.
    pub(crate) fn take(&self, frame_bytes: usize) -> Vec<u8> {
        if frame_bytes >= STEP_BYTES
            && let Some(used) = self.shared.take(frame_bytes)
        {
            return used;
        }
        Vec::with_capacity(frame_bytes.min(STEP_BYTES))
    }

    /// Makes a buffer immutable; its memory returns to the pool when the last slice is dropped.
    pub(crate) fn freeze(&self, buffer: Vec<u8>) -> Bytes {
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
    fn take(&self, frame_bytes: usize) -> Option<Vec<u8>> {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let index = free.buffers.partition_point(|buffer| buffer.capacity() < frame_bytes);
        // SUBTLE: a buffer of more than four times the size is left for a frame that needs it; else small frames in the tail would
        // pin large buffers, and the tail would hold many times the bytes that it counts.
        if free.buffers.get(index)?.capacity() > frame_bytes.saturating_mul(4) {
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
        assert!(pool.take(usize::MAX).capacity() <= STEP_BYTES);
    }

    #[test]
    fn a_small_frame_leaves_a_much_larger_buffer_to_others() {
        let pool = BufferPool::new(1 << 24);
        drop(pool.freeze(Vec::with_capacity(8 * STEP_BYTES)));
        assert_eq!(pool.take(STEP_BYTES).capacity(), STEP_BYTES);
        assert!(pool.take(4 * STEP_BYTES).capacity() >= 8 * STEP_BYTES);
    }
}
