//! What is wrong with a configuration, and where.

use std::fmt;
use std::path::PathBuf;

use lakebed_broker::config::{AUTO, Kind, Setting};
use serde::Serialize;
use serde_json::{Value, json};

use crate::failure::{Exit, Failure};

/// The longest part of a value that is shown.
const SHOWN_MAX: usize = 80;

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub(crate) enum Origin {
    /// Nobody said anything.
    Default,
    /// A place in a file, counted from 1.
    File { file: PathBuf, line: usize, column: usize },
    /// An environment variable.
    Variable { name: String },
    /// A flag, with its dashes.
    Flag { name: String },
}

impl Origin {
    /// As the end of a sentence.
    pub(crate) fn told(&self) -> String {
        match self {
            Self::Default => "the default".to_owned(),
            origin => format!("from {origin}"),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { file, line, column } => write!(f, "{}:{line}:{column}", file.display()),
            Self::Variable { name } => write!(f, "variable {name}"),
            Self::Flag { name } => write!(f, "flag {name}"),
        }
    }
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Problem {
    pub(crate) origin: Origin,
    /// The setting, or what was written in the place of one.
    pub(crate) setting: Option<String>,
    /// What was given, without secrets.
    pub(crate) value: Option<String>,
    /// What is wrong: "must be …".
    pub(crate) message: String,
    /// What was meant, perhaps.
    pub(crate) hint: Option<String>,
}

impl Problem {
    pub(super) fn new(origin: Origin, message: impl Into<String>) -> Self {
        Self { origin, setting: None, value: None, message: message.into(), hint: None }
    }

    pub(super) fn of(mut self, setting: &str, value: String) -> Self {
        self.setting = Some(setting.to_owned());
        self.value = Some(value).filter(|value| !value.is_empty());
        self
    }

    /// Whether nobody gave what must be given.
    pub(super) fn is_missing(&self) -> bool {
        self.origin == Origin::Default && self.value.is_none()
    }

    /// A name that is no setting: with the nearest one, written as `write` does.
    pub(super) fn unknown(origin: Origin, name: &str, write: impl Fn(&Setting) -> String) -> Self {
        let mut problem = Self::new(origin, "is no setting");
        problem.hint = nearest(name).map(|setting| format!("did you mean {}?", write(setting)));
        problem.setting = Some(name.to_owned());
        problem
    }

    /// A value that was refused, as it may be shown: short, and without what may be a secret.
    pub(super) fn shown(setting: &Setting, text: &str) -> String {
        let text = match setting.kind {
            Kind::Url => lakebed_broker::config::SecretUrl::from(text).to_string(),
            Kind::Properties => lakebed_broker::config::SecretProperties::from(text).to_string(),
            _ => text.to_owned(),
        };
        // What a terminal would take for an order is spelled out.
        let plain = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
        let shown: String = text.chars().take(SHOWN_MAX).map(plain).collect();
        if text.chars().nth(SHOWN_MAX).is_some() { shown + "…" } else { shown }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A flag and a variable name the setting already.
        let name = match &self.origin {
            Origin::Variable { name } | Origin::Flag { name } => Some(name),
            Origin::Default | Origin::File { .. } => self.setting.as_ref(),
        };
        if matches!(self.origin, Origin::File { .. }) {
            write!(f, "{}: ", self.origin)?;
        }
        match (name, &self.value) {
            (Some(name), Some(value)) => write!(f, "{name} = {value}: ")?,
            (Some(name), None) => write!(f, "{name} ")?,
            _ => {}
        }
        f.write_str(&self.message)?;
        match &self.hint {
            Some(hint) if hint.starts_with("with ") => write!(f, " {hint}"),
            Some(hint) => write!(f, ": {hint}"),
            None => Ok(()),
        }
    }
}

/// The failure that tells all problems.
pub(crate) fn invalid(problems: &[Problem]) -> Failure {
    let what = match problems.len() {
        1 => "a setting is wrong".to_owned(),
        count => format!("{count} settings are wrong"),
    };
    let listed = problems.iter().map(|problem| (problem.to_string(), facts(problem)));
    Failure::new(what)
        .code("CONFIG_INVALID", Exit::Usage)
        .problems(listed.collect())
        .remedy("see all settings with `lakebed config template`, and where values come from with `lakebed config show --origin`")
}

fn facts(problem: &Problem) -> Value {
    serde_json::to_value(problem).unwrap_or_else(|error| json!({ "message": error.to_string() }))
}

/// The setting whose name is nearest to `name`, if one is near.
fn nearest(name: &str) -> Option<&'static Setting> {
    const NEAR: f64 = 0.75;
    let name = name.to_ascii_lowercase().replace('-', "_");
    let similarity = |setting: &Setting| {
        // Part of a name is near it, as in `interval`; the whole of one, as in `flush_interval_ms`, too.
        let is_part = name.len() > 3 && (setting.name.contains(&name) || name.contains(setting.name));
        if is_part { NEAR } else { 0.0 }.max(strsim::jaro_winkler(setting.name, &name))
    };
    let rated = lakebed_broker::config::TABLE.iter().map(|setting| (similarity(setting), setting));
    let best = rated.fold(None, |best: Option<(f64, &'static Setting)>, (rating, setting)| match best {
        Some((most, _)) if most >= rating => best,
        _ => Some((rating, setting)),
    });
    best.filter(|(rating, _)| *rating >= NEAR).map(|(_, setting)| setting)
}

/// What a setting takes, for a person.
pub(super) fn takes(setting: &Setting) -> String {
    match setting.auto {
        Some(_) => format!("{}, or {AUTO}", setting.kind.describe()),
        None => setting.kind.describe(),
    }
}
