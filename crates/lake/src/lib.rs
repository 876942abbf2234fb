//! Topics as Iceberg tables: their metadata, its publication in the bucket, and the read-only REST catalog.
//!
//! [`Shown`] (what a version shows, from the state) -> [`Publisher`] (manifests, list, metadata, hint) -> readers, who begin at
//! `version-hint.text`, at a metadata file, or at the catalog. Invariants:
//!
//! 1. Version N shows exactly the files that it was given, and nothing of it ever changes.
//! 2. A reader finds whole tables only: nothing names an object before it stands.
//! 3. The same input gives the same bytes: a publication may be repeated by anyone, at any time.
//!
//! It does not decide what a version shows, nor when one is made: that is the state's. It deletes nothing but metadata that no reader
//! finds any more.

mod avro;
pub mod catalog;
mod file;
mod history;
pub mod layout;
mod manifest;
mod manifest_list;
mod metadata;
mod next;
mod publish;
mod refresh;
mod schema;
mod shown;
mod standing;
mod sweep;
#[cfg(test)]
mod tests;

pub use avro::AvroError;
pub use catalog::{Catalog, CatalogError, CatalogOptions, Loaded, Tables};
pub use file::FileError;
pub use history::hint;
pub use metadata::{Expiry, snapshot_id};
pub use next::BuildError;
pub use publish::{Options, Outcome, Publication, PublishError, Publisher};
pub use refresh::{GivenUp, Refreshes};
pub use shown::{Invalid, PartitionBy, Shown, ShownFile, TableName, TableVersion, ValueFormat, readers_root};
pub use standing::{Extent, NewestTable, StandingError, StandingFile, StandingTable, newest, standing};
pub use sweep::{SweepError, due, due_of, oldest_shown, table_uuid};
