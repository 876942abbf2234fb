//! A seeded world for the real code: brokers that live and die on a store that fails as stores do, clients that remember what they
//! were told, and a checker that shares no code with what it judges. Never shipped.
//!
//! 1. A world follows from its seed: one thread, a paused clock, no chance but the seed's. Equal seeds give equal traces.
//! 2. The code under test is the real one (`log`, `ingest`, `fetch`, `compact`, `segment`, `store`); only the store's backend, the network between
//!    brokers and the clients are the world's.
//! 3. Leaving a rule of the log out ([`lakebed_log::broken::Broken`]) makes the checker complain; the tests hold it to that.
//!
//! Beside the worlds, and in real time: [`s3`], a server for clients that are other processes.

mod admin;
mod batches;
mod broker;
mod bucket;
mod checker;
mod client;
pub mod climate;
mod cluster;
mod consumer;
mod faults;
mod fetcher;
mod groups;
mod history;
mod liveness;
pub mod many;
mod member;
mod merge;
mod neighbour;
mod network;
mod process;
mod producers;
mod reader;
mod rows;
pub mod rules;
pub mod s3;
mod tables;
pub mod trace;
mod uploader;
mod world;

pub use climate::Climate;
pub use world::{Report, World};
