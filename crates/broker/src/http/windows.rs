//! HTTP/2 flow control: how much a connection may send that nobody has read yet.
//!
//! A window is a promise of memory: what a client has sent into it is held until somebody reads it. All connections together are
//! promised at most a budget and, each, what HTTP/2 does not let a server go below ([`WINDOW_MIN`]). So the worst case, every client
//! filling its window and nobody reading, is `budget + connections * 64 KiB`: with the default 1 GiB of memory and 10,000
//! connections, 43 MiB + 625 MiB; with 100 connections, 50 MiB.
//!
//! What a connection gets is a quarter of what is left, so that the first ones, which are all that most brokers have, get as much as
//! a fast link takes, and late ones still get their share. (hyper's adaptive window would begin at 64 KiB, grow to 16 MiB without
//! regard to the others, and not shrink.)

use std::sync::{Arc, Mutex, PoisonError};

/// The window that a connection begins with by RFC 9113, 6.9.2; it can't be made smaller.
const WINDOW_MIN: u32 = 65_535;
/// Most that one connection gets: 200 MiB/s over a link of 40 ms.
const WINDOW_MAX: u32 = 8 << 20;
/// Most that one stream of a connection gets.
const STREAM_WINDOW_MAX: u32 = 4 << 20;
/// One connection gets one so many-th of what is left.
const SHARE: usize = 4;

/// The budget of all windows. A handle; clones share it.
#[derive(Debug, Clone)]
pub(super) struct Windows {
    left_bytes: Arc<Mutex<usize>>,
}

/// The windows of one connection; dropped with it.
#[derive(Debug)]
pub(super) struct Window {
    budget: Windows,
    taken_bytes: usize,
}

impl Windows {
    /// A budget of `bytes` beyond what each connection has anyway.
    pub(super) fn new(bytes: usize) -> Self {
        Self { left_bytes: Arc::new(Mutex::new(bytes)) }
    }

    /// The windows of a new connection.
    pub(super) fn take(&self) -> Window {
        let mut left_bytes = self.left_bytes.lock().unwrap_or_else(PoisonError::into_inner);
        let taken_bytes = (*left_bytes / SHARE).min((WINDOW_MAX - WINDOW_MIN) as usize);
        *left_bytes -= taken_bytes;
        Window { budget: self.clone(), taken_bytes }
    }
}

impl Window {
    /// What all streams of the connection together may have sent that is not read, in bytes.
    pub(super) fn of_connection(&self) -> u32 {
        WINDOW_MIN + u32::try_from(self.taken_bytes).expect("at most WINDOW_MAX")
    }

    /// The same for one stream.
    pub(super) fn of_stream(&self) -> u32 {
        self.of_connection().min(STREAM_WINDOW_MAX)
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        *self.budget.left_bytes.lock().unwrap_or_else(PoisonError::into_inner) += self.taken_bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_connections_get_large_windows_and_all_together_no_more_than_the_budget() {
        let windows = Windows::new(64 << 20);
        let mut taken = vec![windows.take()];
        assert_eq!((taken[0].of_connection(), taken[0].of_stream()), (WINDOW_MAX, STREAM_WINDOW_MAX));
        taken.extend((0..1000).map(|_| windows.take()));
        assert!(taken.iter().all(|window| (WINDOW_MIN..=WINDOW_MAX).contains(&window.of_connection())));
        let beyond: usize = taken.iter().map(|window| (window.of_connection() - WINDOW_MIN) as usize).sum();
        assert!(((64 << 20) - 8 * SHARE..=64 << 20).contains(&beyond), "{beyond}");
        drop(taken);
        assert_eq!(windows.take().of_connection(), WINDOW_MAX, "what was taken comes back");
    }
}
