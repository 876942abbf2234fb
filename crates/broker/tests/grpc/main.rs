//! `ProduceService` of a real broker over real sockets, driven by tonic's client and, where a client has to misbehave, by bytes.

#![allow(clippy::unwrap_used, reason = "a test may stop where it is surprised")]

mod client;
mod endings;
mod faults;
mod lost;
mod stream;
