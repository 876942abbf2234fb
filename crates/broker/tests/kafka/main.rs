//! A broker on real sockets, driven with crate `kafka-protocol` as the client's codec.

#![allow(clippy::unwrap_used, reason = "a test may stop where it is surprised")]

mod admin;
mod client;
mod durability;
mod group_versions;
mod hostile;
mod http;
mod http_connections;
mod in_flight;
mod records;
mod topics;
mod versions;
