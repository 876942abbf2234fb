//! What this binary was built from.

use serde::Serialize;

use crate::failure::Failure;
use crate::output::Output;

/// The version with the commit, such as `0.1.0 (b3143e33f1c2)`; the commit is `unknown` if it was not built from a repository.
pub(crate) const LONG: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("BUILD_COMMIT"), ")");

#[derive(Serialize)]
struct Version {
    version: &'static str,
    commit: &'static str,
    target: &'static str,
}

pub(crate) fn run(output: Output) -> Result<(), Failure> {
    let version =
        Version { version: env!("CARGO_PKG_VERSION"), commit: env!("BUILD_COMMIT"), target: env!("BUILD_TARGET") };
    output.one(&version, || format!("lakebed {} for {}\n", LONG, version.target))
}
