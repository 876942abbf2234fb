//! What stands in a store, looked at without a broker.

pub(crate) mod file;

pub use file::ObjectError;
