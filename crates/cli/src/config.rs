//! From a file, variables and flags to the configuration of a broker, with where each value came from.
//!
//! 1. Rising precedence: defaults, the file of `--config` or `LAKEBED_CONFIG`, `LAKEBED_…` variables, flags.
//! 2. All problems are found before any is told, each with its place; with one of them nothing starts.
//! 3. What settings there are is decided in `lakebed_broker::config` alone; see there how one is added.
//! 4. No secret is shown, neither as a value nor in a problem.

mod file;
mod problem;
mod show;
mod variables;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

use lakebed_broker::Config;
use lakebed_broker::config::{Mode, Setting};

pub(crate) use problem::{Origin, Problem, invalid};
pub(crate) use show::{reference, run};

/// Names the file that is read if `--config` does not.
pub(crate) const FILE_VARIABLE: &str = "LAKEBED_CONFIG";

/// Where values come from besides the defaults.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sources {
    /// The file of `--config`.
    pub(crate) file: Option<PathBuf>,
    /// Flags that were given: names of settings with values as they were written.
    pub(crate) flags: Vec<(&'static Setting, String)>,
    /// The environment.
    pub(crate) variables: Vec<(OsString, OsString)>,
}

/// A configuration, as far as its sources are right.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) config: Config,
    origins: BTreeMap<&'static str, Origin>,
    pub(crate) problems: Vec<Problem>,
}

impl Loaded {
    fn new(mode: Mode) -> Self {
        Self { config: Config::of(mode), origins: BTreeMap::new(), problems: Vec::new() }
    }

    /// Where the value of a setting came from.
    pub(crate) fn origin(&self, setting: &str) -> &Origin {
        self.origins.get(setting).unwrap_or(&Origin::Default)
    }

    /// Sets what was written at `origin`, or notes what is wrong with it.
    fn set(&mut self, setting: &'static Setting, text: &str, origin: Origin) {
        match setting.set(&mut self.config, text) {
            Ok(()) => drop(self.origins.insert(setting.name, origin)),
            Err(what) => {
                self.problems.push(Problem::new(origin, what).of(setting.name, Problem::shown(setting, text)));
            }
        }
    }
}

/// Puts the sources together.
pub(crate) fn load(mode: Mode, sources: &Sources) -> Loaded {
    let mut loaded = Loaded::new(mode);
    if let Some((path, named_by)) = variables::file(sources) {
        file::read(&mut loaded, &path, &named_by);
    }
    variables::read(&mut loaded, &sources.variables);
    for (setting, text) in &sources.flags {
        loaded.set(setting, text, Origin::Flag { name: format!("--{}", setting.flag()) });
    }
    // What is right alone may be wrong together, and what is needed may be missing.
    for wrong in loaded.config.validate() {
        let setting = Setting::named(wrong.setting).expect("what is wrong is a setting");
        let value = setting.value(&loaded.config).to_string();
        let named = loaded.problems.iter().any(|problem| problem.setting.as_deref() == Some(wrong.setting));
        let is_missing = loaded.origin(wrong.setting) == &Origin::Default && value.is_empty();
        let problem = Problem::new(loaded.origin(wrong.setting).clone(), wrong.what);
        if is_missing {
            // A value that can't be read was given all the same.
            if !named {
                let ways = format!("--{}, {} or a file", setting.flag(), setting.variable());
                let mut problem = problem.of(setting.name, String::new());
                problem.hint = Some(format!("with {ways}"));
                loaded.problems.push(problem);
            }
        } else {
            loaded.problems.push(problem.of(setting.name, value));
        }
    }
    loaded
}
