//! Proofs of the record batch: round trips against ourselves and crate `kafka-protocol`, damage, and each rule broken.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod damage;
mod records;
mod round_trip;
mod rules;
