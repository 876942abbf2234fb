//! The keys of a table's metadata, in both directions.
//!
//! ```text
//! {table}/metadata/v{N}.metadata.json                     version N, created once
//! {table}/metadata/version-hint.text                      N, with no newline; may be behind
//! {table}/metadata/snap-{N:010}-{time}-{hash}.avro        the manifest list of version N, which became the newest at that time
//! {table}/metadata/m-{N:010}-{hash}.avro                  a manifest that was written for version N, and may serve later ones
//! ```
//!
//! Names with a hash are made of what is in the object: the same name has the same bytes. All of them sort before `v`, so that one
//! listing from there on finds the versions alone.

use lakebed_store::{Directory, Key};
use uuid::Uuid;

use crate::shown::{TableName, TableVersion};

const HINT: &str = "version-hint.text";
const METADATA_SUFFIX: &str = ".metadata.json";
const AVRO_SUFFIX: &str = ".avro";

/// The directory of a table's metadata.
pub fn metadata_directory(name: &TableName) -> Directory {
    name.directory().directory("metadata").expect("a portable name")
}

/// The metadata of one version.
pub fn metadata_key(name: &TableName, version: TableVersion) -> Key {
    key(name, &format!("v{version}{METADATA_SUFFIX}"))
}

/// The object that names the version to read.
pub fn hint_key(name: &TableName) -> Key {
    key(name, HINT)
}

/// A place in a listing of the metadata, behind manifests and before versions.
pub(crate) fn before_versions(name: &TableName) -> Key {
    key(name, "v")
}

/// The version of a key; `None` if it is no metadata of a version of this table.
pub fn parse_metadata_key(name: &TableName, key: &Key) -> Option<TableVersion> {
    let number = key.name().strip_prefix('v')?.strip_suffix(METADATA_SUFFIX)?;
    let version = TableVersion::new(number.parse().ok()?)?;
    (metadata_key(name, version) == *key).then_some(version)
}

pub(crate) fn manifest_key(name: &TableName, version: TableVersion, content: Uuid) -> Key {
    key(name, &format!("m-{:010}-{}{AVRO_SUFFIX}", version.get(), content.simple()))
}

pub(crate) fn list_key(name: &TableName, version: TableVersion, time_ms: i64, content: Uuid) -> Key {
    key(name, &format!("snap-{:010}-{time_ms}-{}{AVRO_SUFFIX}", version.get(), content.simple()))
}

/// What the name of a manifest or a manifest list says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Avro {
    /// A manifest, and the version that it was written for.
    Manifest(TableVersion),
    /// A manifest list: its version, and when that became the newest, in milliseconds since 1970.
    List(TableVersion, i64),
}

/// Reads the key of a manifest or a manifest list; `None` for any other.
pub(crate) fn parse_avro_key(key: &Key) -> Option<Avro> {
    let version = |number: &str| TableVersion::new(number.parse().ok()?);
    let name = key.name().strip_suffix(AVRO_SUFFIX)?;
    if let Some(name) = name.strip_prefix("m-") {
        return Some(Avro::Manifest(version(name.split_once('-')?.0)?));
    }
    let (number, rest) = name.strip_prefix("snap-")?.split_once('-')?;
    // A time before 1970 has a sign of its own.
    let (time_ms, _) = rest.rsplit_once('-')?;
    Some(Avro::List(version(number)?, time_ms.parse().ok()?))
}

fn key(name: &TableName, object: &str) -> Key {
    metadata_directory(name).key(object).expect("names of metadata are portable")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_versions_parse_back_and_others_do_not() {
        let name = TableName::new("default", "orders").unwrap();
        let version = TableVersion::new(12).unwrap();
        let metadata = metadata_key(&name, version);
        assert_eq!(metadata.as_str(), "tables/default/orders/metadata/v12.metadata.json");
        assert_eq!(parse_metadata_key(&name, &metadata), Some(version));
        for other in ["v012.metadata.json", "v+1.metadata.json", "v0.metadata.json", "v1.json", "x/v1.metadata.json"] {
            assert_eq!(parse_metadata_key(&name, &key(&name, other)), None, "{other}");
        }
        let manifest = manifest_key(&name, version, Uuid::from_u128(5));
        let list = |time_ms| list_key(&name, version, time_ms, Uuid::from_u128(5));
        let expected = [
            (manifest, Avro::Manifest(version)),
            (list(77), Avro::List(version, 77)),
            (list(-5), Avro::List(version, -5)),
        ];
        for (avro, expected) in expected {
            assert_eq!(parse_avro_key(&avro), Some(expected));
            assert!(avro < before_versions(&name), "{avro}");
        }
        assert!(metadata > before_versions(&name) && hint_key(&name) > before_versions(&name));
        assert_eq!(parse_avro_key(&metadata), None);
    }
}
