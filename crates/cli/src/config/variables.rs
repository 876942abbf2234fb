//! The variables: `LAKEBED_` and the name of a setting in capitals.
//!
//! Every other variable that begins with `LAKEBED_` is a problem, so that a mistyped one is noticed, but for three kinds:
//!
//! 1. those that other verbs read ([`OTHERS`]),
//! 2. `LAKEBED_TEST_…`, which are for tests,
//! 3. those that Kubernetes puts into containers beside a Service of that name (`LAKEBED_SERVICE_HOST`, `LAKEBED_PORT_9092_TCP`).
//!
//! An empty variable is one that is not set, so that `${STORE:-}` in a compose file works.

use std::ffi::OsString;
use std::path::PathBuf;

use lakebed_broker::config::{Setting, TABLE};

use super::{FILE_VARIABLE, Loaded, Origin, Problem, Sources};

const PREFIX: &str = "LAKEBED_";

/// Variables of other verbs, and of the choice of the file.
pub(super) const OTHERS: [&str; 3] = [FILE_VARIABLE, crate::server::VARIABLE, crate::profile::DIRECTORY_VARIABLE];

const TESTS: &str = "LAKEBED_TEST_";

/// The file to read, and who named it.
pub(super) fn file(sources: &Sources) -> Option<(PathBuf, Origin)> {
    if let Some(path) = &sources.file {
        return Some((path.clone(), Origin::Flag { name: "--config".to_owned() }));
    }
    let given = sources.variables.iter().find(|(name, value)| name == FILE_VARIABLE && !value.is_empty());
    given.map(|(_, path)| (path.into(), Origin::Variable { name: FILE_VARIABLE.to_owned() }))
}

/// Sets what the variables say.
pub(super) fn read(loaded: &mut Loaded, variables: &[(OsString, OsString)]) {
    let mut ours: Vec<(&str, &OsString)> =
        variables.iter().filter_map(|(name, value)| Some((name.to_str()?, value))).collect();
    ours.retain(|(name, value)| name.starts_with(PREFIX) && !value.is_empty() && !is_of_others(name));
    ours.sort();
    for (name, value) in ours {
        let origin = Origin::Variable { name: name.to_owned() };
        let Some(setting) = TABLE.iter().find(|setting| setting.variable() == name) else {
            let mut problem = Problem::unknown(origin, name.trim_start_matches(PREFIX), Setting::variable);
            // The origin names it already.
            problem.setting = None;
            loaded.problems.push(problem);
            continue;
        };
        match value.to_str() {
            Some(text) => loaded.set(setting, text, origin),
            None => loaded.problems.push(Problem::new(origin, "is not UTF-8").of(setting.name, String::new())),
        }
    }
}

fn is_of_others(name: &str) -> bool {
    OTHERS.contains(&name) || name.starts_with(TESTS) || is_of_kubernetes(name)
}

/// `…_SERVICE_HOST`, `…_SERVICE_PORT`, `…_SERVICE_PORT_{name}`, `…_PORT`, `…_PORT_{number}_{protocol}` and what follows that.
pub(super) fn is_of_kubernetes(name: &str) -> bool {
    let protocols = ["TCP", "UDP", "SCTP"];
    let is_port = |(number, rest): (&str, &str)| {
        !number.is_empty()
            && number.bytes().all(|byte| byte.is_ascii_digit())
            && protocols.contains(&rest.split('_').next().unwrap_or_default())
    };
    name.ends_with("_SERVICE_HOST")
        || name.ends_with("_SERVICE_PORT")
        || name.contains("_SERVICE_PORT_")
        || name.ends_with("_PORT")
        || name.match_indices("_PORT_").any(|(at, port)| name[at + port.len()..].split_once('_').is_some_and(is_port))
}
