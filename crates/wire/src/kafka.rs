//! Kafka's protocol: which requests we take, and guards that make them safe to decode.
//!
//! The way of a request: [`frame_length`] before its bytes are read, [`parse_header`], [`guard`] over the body, and then
//! the decoder of crate `kafka-protocol`, which is not named here. Record batches inside are crate `segment`'s.

mod fetch_response;
mod guard;
mod header;
mod partitioner;
mod schema;
mod table;
mod varint;

pub use fetch_response::{FetchResponse, FetchResponseError, FetchedPartition, FetchedTopic, fetch_response};
pub use guard::{DECODED_FREE, DECODED_PER_BYTE, GuardError, guard};
pub use header::{FrameError, HeaderError, RequestHeader, frame_length, parse_header};
pub use partitioner::partition_for_key;
pub use table::*;

#[cfg(test)]
mod tests;
