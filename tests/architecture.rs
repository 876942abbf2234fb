//! Holds the arrows between the crates, by `cargo metadata`: who may name whom, which outside crates stay in which room, one version
//! of the crates whose types cross rooms, and no switch of the tests in what is shipped.
//!
//! Each rule is a function from facts to complaints, and is shown to bite on a bad sample.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

/// Which of our crates each crate may name; the rooms in the order of the data's way.
const ARROWS: [(&str, &[&str]); 13] = [
    ("model", &[]),
    ("wire", &[]),
    ("segment", &["model"]),
    ("store", &["model"]),
    ("log", &["model", "segment", "store"]),
    ("ingest", &["model", "segment", "store", "log"]),
    ("fetch", &["model", "segment", "store", "log"]),
    ("compact", &["model", "segment", "store", "log"]),
    ("lake", &["model", "segment", "store", "log"]),
    ("broker", &["model", "wire", "segment", "store", "log", "ingest", "fetch", "compact", "lake"]),
    ("client", &["wire"]),
    ("cli", &["broker", "client", "wire"]),
    (
        SIM,
        &["model", "wire", "segment", "store", "log", "ingest", "fetch", "compact", "lake", "broker", "client", "cli"],
    ),
];
const SIM: &str = "sim";

/// Outside crates (by the beginning of their name) and the rooms that may name them. `sim` may name anything.
const ROOMS: [(&str, &[&str]); 10] = [
    ("object_store", &["store"]),
    ("parquet", &["segment", "compact", "lake"]),
    ("arrow", &["segment", "compact", "lake"]),
    // The generated messages and services name its codec, wherever they are generated.
    ("tonic-prost", &["wire", "broker", "client", "cli"]),
    ("tonic", &["broker", "client", "cli"]),
    ("clap", &["broker", "client", "cli"]),
    ("axum", &["broker"]),
    ("imbl", &["model"]),
    ("anyhow", &["cli"]),
    ("tokio", &["store", "log", "ingest", "fetch", "compact", "lake", "broker", "client", "cli"]),
];

/// Crates whose types cross rooms: two versions of one would be two types of one name.
const ONE_VERSION: [&str; 7] =
    ["arrow-array", "arrow-buffer", "arrow-schema", "parquet", "object_store", "bytes", "tonic"];

/// Names that say nothing.
const EMPTY_NAMES: [&str; 6] = ["common", "util", "utils", "core", "types", "helpers"];

/// A package of ours and what its manifest names, whether to run, to build or to test.
struct Package {
    name: String,
    dependencies: BTreeSet<String>,
}

fn complaints(packages: &[Package]) -> Vec<String> {
    let mut complaints = Vec::new();
    for package in packages {
        let name = &package.name;
        if EMPTY_NAMES.contains(&name.as_str()) {
            complaints.push(format!("{name}: a crate of that name says nothing about what is in it"));
        }
        let Some((_, may_name)) = ARROWS.iter().find(|(room, _)| room == name) else {
            complaints.push(format!("{name} is no room of the design"));
            continue;
        };
        for dependency in &package.dependencies {
            let allowed = match dependency.strip_prefix("lakebed-") {
                Some(ours) => may_name.contains(&ours),
                None => name == SIM || rooms_of(dependency).is_none_or(|rooms| rooms.contains(&name.as_str())),
            };
            if !allowed {
                complaints.push(format!("{name} may not name {dependency}"));
            }
        }
    }
    complaints
}

fn rooms_of(dependency: &str) -> Option<&'static [&'static str]> {
    let named = |name: &str| dependency == name || dependency.starts_with(&format!("{name}-"));
    ROOMS.iter().find(|(name, _)| named(name)).map(|(_, rooms)| *rooms)
}

/// How often each crate stands in a lock file.
fn versions(lock: &str) -> BTreeMap<&str, usize> {
    let names = lock.lines().filter_map(|line| line.strip_prefix("name = \"")?.strip_suffix('"'));
    names.fold(BTreeMap::new(), |mut counts, name| {
        *counts.entry(name).or_default() += 1;
        counts
    })
}

fn cargo(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO")).args(arguments).current_dir(root()).output().unwrap();
    assert!(output.status.success(), "cargo {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn root() -> &'static str {
    concat!(env!("CARGO_MANIFEST_DIR"), "/../..")
}

fn packages() -> Vec<Package> {
    let metadata = cargo(&["metadata", "--format-version=1", "--no-deps", "--offline"]);
    let metadata: Value = serde_json::from_str(&metadata).unwrap();
    let package = |package: &Value| {
        let dependencies = package["dependencies"].as_array().unwrap().iter();
        let name = package["name"].as_str().unwrap();
        Package {
            name: name.strip_prefix("lakebed-").unwrap_or(name).to_owned(),
            dependencies: dependencies.map(|dependency| dependency["name"].as_str().unwrap().to_owned()).collect(),
        }
    };
    metadata["packages"].as_array().unwrap().iter().map(package).collect()
}

#[test]
fn every_crate_names_only_what_it_may() {
    let packages = packages();
    assert!(packages.len() >= 12, "cargo metadata shows the workspace");
    assert_eq!(complaints(&packages), Vec::<String>::new());
}

#[test]
fn a_crate_that_names_what_it_may_not_is_found() {
    let package = |name: &str, dependencies: &[&str]| Package {
        name: name.to_owned(),
        dependencies: dependencies.iter().map(|name| (*name).to_owned()).collect(),
    };
    let bad = [
        package("model", &["lakebed-segment"]),
        package("fetch", &["lakebed-ingest"]),
        package("log", &["object_store"]),
        package("ingest", &["parquet", "arrow-array"]),
        package("wire", &["tonic"]),
        package("segment", &["tokio"]),
        package("broker", &["lakebed-sim"]),
        package("util", &[]),
    ];
    let found = complaints(&bad);
    assert_eq!(found.len(), 10, "{found:#?}");
    let good = [package("wire", &["tonic-prost", "tonic-prost-build"]), package("sim", &["parquet", "lakebed-cli"])];
    assert_eq!(complaints(&good), Vec::<String>::new());
}

#[test]
fn crates_whose_types_cross_rooms_have_one_version() {
    let lock = std::fs::read_to_string(format!("{}/Cargo.lock", root())).unwrap();
    let versions = versions(&lock);
    for name in ONE_VERSION {
        assert_eq!(versions.get(name), Some(&1), "{name}");
    }
}

#[test]
fn two_versions_of_a_crate_are_counted() {
    let lock = "[[package]]\nname = \"parquet\"\nversion = \"1\"\n\n[[package]]\nname = \"parquet\"\nversion = \"2\"\n";
    assert_eq!(versions(lock).get("parquet"), Some(&2));
}

#[test]
fn what_is_shipped_has_no_switch_that_breaks_a_rule() {
    let shipped =
        |package| cargo(&["tree", "--offline", "-p", package, "-e", "features,normal,build", "--prefix=none"]);
    let cli = shipped("lakebed-cli");
    assert!(cli.contains("lakebed-log"), "the tree shows our crates");
    assert!(!cli.contains("broken-rules") && !cli.contains("lakebed-sim"), "{cli}");
    assert!(shipped("lakebed-sim").contains("broken-rules"), "the switch is seen where it is on");
}
