//! `lakebed config show|template`, and the reference in `docs/configuration.md`.

use std::fmt::Write;

use lakebed_broker::Config;
use lakebed_broker::config::{AUTO, Kind, Mode, Setting, TABLE, Value};
use serde::Serialize;

use super::problem::takes;
use super::{Origin, invalid, load};
use crate::args::ConfigVerb;
use crate::failure::Failure;
use crate::output::{Output, write_out};

/// Columns of comments in the template.
const WIDTH: usize = 100;

/// A setting as it is shown.
#[derive(Serialize)]
struct Shown {
    name: &'static str,
    value: Option<String>,
    origin: Origin,
}

pub(crate) fn run(verb: ConfigVerb, output: Output) -> Result<(), Failure> {
    match verb {
        ConfigVerb::Template { mode } => write_out(&template(mode.into())),
        ConfigVerb::Show { origin, mode, settings } => {
            let loaded = load(mode.into(), &settings.sources());
            let shown: Vec<Shown> = TABLE
                .iter()
                .map(|setting| {
                    let value = Some(setting.value(&loaded.config).to_string()).filter(|value| !value.is_empty());
                    Shown { name: setting.name, value, origin: loaded.origin(setting.name).clone() }
                })
                .collect();
            let value = |shown: &Shown| shown.value.clone().unwrap_or_else(|| "-".to_owned());
            if origin {
                let row = |shown: &Shown| [shown.name.to_owned(), value(shown), shown.origin.to_string()];
                output.list("settings", &shown, ["setting", "value", "origin"], row)?;
            } else {
                output.list("settings", &shown, ["setting", "value"], |shown| [shown.name.to_owned(), value(shown)])?;
            }
            // A store need not be named only to look.
            let problems: Vec<_> = loaded.problems.into_iter().filter(|problem| !problem.is_missing()).collect();
            if problems.is_empty() { Ok(()) } else { Err(invalid(&problems)) }
        }
    }
}

/// The value as it is written in a file.
fn toml_value(value: &Value) -> String {
    match value {
        Value::Switch(_) | Value::Count(_) => value.to_string(),
        _ => format!("{:?}", value.to_string()),
    }
}

fn is_missing(value: &Value) -> bool {
    matches!(value, Value::Text(text) if text.is_empty())
}

/// A file with every setting at its default, all of it comments.
pub(super) fn template(mode: Mode) -> String {
    let (config, verb) = (Config::of(mode), verb(mode));
    let mut text = format!(
        "# Settings of `lakebed {verb} --config FILE`, each at its default: take the # away from what you change.\n# Variables \
         (LAKEBED_ and the name in capitals) go before this file, flags before both.\n"
    );
    for (group, settings) in groups() {
        let _ = write!(text, "\n# == {group}\n");
        for setting in settings {
            let value = setting.value(&config);
            text.push('\n');
            comment(&mut text, &format!("{}. {}.", setting.what, setting.effect));
            let auto = setting.auto.map(|auto| format!(" {AUTO}: {auto}.")).unwrap_or_default();
            comment(&mut text, &format!("Takes {}.{auto}", takes(setting)));
            let example = if is_missing(&value) { "\"s3://bucket/prefix\"".to_owned() } else { toml_value(&value) };
            let _ = writeln!(text, "#{} = {example}", setting.name);
        }
    }
    text
}

fn comment(text: &mut String, sentence: &str) {
    let mut line = "#".to_owned();
    for word in sentence.split_whitespace() {
        if line.chars().count() + 1 + word.chars().count() > WIDTH {
            let _ = writeln!(text, "{line}");
            line.truncate(1);
        }
        line.push(' ');
        line.push_str(word);
    }
    let _ = writeln!(text, "{line}");
}

/// The settings that are documented, by their groups, in the order of the table.
fn groups() -> Vec<(&'static str, Vec<&'static Setting>)> {
    let mut groups: Vec<(&'static str, Vec<&'static Setting>)> = Vec::new();
    for setting in TABLE.iter().filter(|setting| !setting.for_tests) {
        match groups.iter_mut().find(|(group, _)| *group == setting.group) {
            Some((_, settings)) => settings.push(setting),
            None => groups.push((setting.group, vec![setting])),
        }
    }
    groups
}

fn verb(mode: Mode) -> &'static str {
    match mode {
        Mode::Serve => "serve",
        Mode::Dev => "dev",
    }
}

const PREAMBLE: &str = "# Configuration

<!-- Made by `lakebed docs configuration`; a test holds it. -->

A broker (`lakebed serve`, `lakebed dev`) takes each setting from the last of these that names it:

1. its default,
2. one TOML file, named by `--config FILE` or the variable `LAKEBED_CONFIG`; without tables, one `name = value` a line,
3. the variable `LAKEBED_` and its name in capitals; an empty variable counts as not set,
4. its flag, the name with dashes. A switch is turned on by its flag and off by `--no-` and its name.

Nothing starts with a wrong setting: all problems are told at once, with file, line and column, variable or flag, and the nearest name for one that does
not exist. Of variables that begin with `LAKEBED_`, these are not taken for settings: `LAKEBED_SERVER`, `LAKEBED_CONFIG` and
`LAKEBED_PROFILE_DIR` (see [the command line](cli.md)), `LAKEBED_TEST_…`, and those that Kubernetes makes for a Service
(`LAKEBED_SERVICE_HOST`, `LAKEBED_PORT_9092_TCP`, …).

- `lakebed config template > lakebed.toml` writes a file with every setting, commented out;
- `lakebed config show --origin --config lakebed.toml` shows every value and where it came from.

Sizes are written `64KiB`, `256MiB`, `1GiB` (or `KB`, `MB`, `GB`, which count in thousands), durations `250ms`, `30s`, `10m`, `1h`, `7d`.
Secrets have no place in these settings: credentials of a store come from the variables and files of its own tools. What looks like one, the user or query of a URL,
is never printed.
";

/// The reference of all settings, as Markdown.
pub(crate) fn reference() -> String {
    let mut text = PREAMBLE.to_owned();
    for (group, settings) in groups() {
        let _ = write!(text, "\n## {group}\n");
        for setting in settings {
            let _ = write!(text, "\n### {}\n\n{}.\n\n", setting.name, setting.what);
            let _ = writeln!(text, "- takes: {}", takes(setting));
            let _ = writeln!(text, "- default: {}", defaults(setting));
            if let Some(auto) = setting.auto {
                let _ = writeln!(text, "- `{AUTO}`: {auto}");
            }
            let off = if setting.kind == Kind::Switch { format!(", `--no-{}`", setting.flag()) } else { String::new() };
            let _ = writeln!(text, "- variable `{}`, flag `--{}`{off}", setting.variable(), setting.flag());
            let _ = writeln!(text, "\n{}.", setting.effect);
        }
    }
    text
}

fn defaults(setting: &Setting) -> String {
    let of = |mode| {
        let value = setting.value(&Config::of(mode));
        if is_missing(&value) { "none: it must be given".to_owned() } else { format!("`{value}`") }
    };
    let (serve, dev) = (of(Mode::Serve), of(Mode::Dev));
    if serve == dev { serve } else { format!("{serve}; `dev`: {dev}") }
}
