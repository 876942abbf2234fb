//! Kafka's protocol: which requests we take, and guards that make them safe to decode.

mod table;

pub use table::*;

#[cfg(test)]
mod tests;
