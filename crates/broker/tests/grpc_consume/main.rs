//! `ConsumeService` of a broker on real sockets, read by a tonic client.

#![allow(clippy::unwrap_used, reason = "a test may stop where it is surprised")]

mod bounds;
mod client;
mod ends;
mod flow;
mod seeks;
mod tokens;
