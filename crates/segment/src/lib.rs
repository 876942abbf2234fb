//! Parquet bytes <-> record batches <-> Arrow: the format, pure, without I/O.

pub mod batch;
