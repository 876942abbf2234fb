//! The format: Parquet bytes <-> rows <-> record batches; commit objects, segments, checkpoints, and the keys under which they stand.
//!
//! Pure: no I/O, no runtime, no clock. `docs/format.md` is the specification of everything that is written here. Invariants:
//!
//! 1. Equal input gives equal bytes, on every machine and at every time.
//! 2. Every byte that a reader uses is covered by a checksum that is verified before the byte is used.
//! 3. What is read back is exactly what was written, or an error: never wrong rows, a panic, or an allocation that a few bytes claim.
//!
//! What it does not do: decide anything (crate `model`), move bytes (crate `store`), or decide what goes into which file (crate `compact`).

pub mod batch;
pub mod body;
pub mod checkpoint;
pub mod commit;
pub mod footer;
pub mod ipc;
pub mod layout;
pub mod root;
pub mod row_hash;
pub mod row_set;
pub mod rows;
pub mod table;
pub mod verdict;

mod checksum;
mod error;
mod levels;
mod schema;
mod text;
mod thrift;

pub use error::FormatError;

/// The version of the format that is written, and the newest that is read.
pub const FORMAT: u32 = 1;
