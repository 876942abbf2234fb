//! The file: TOML, one `name = value` a line, no tables.

use std::io::Read;
use std::path::Path;

use lakebed_broker::config::{Kind, Setting};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::problem::takes;
use super::{Loaded, Origin, Problem};

/// More than any list of settings; what is larger is something else.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Sets what the file says. A file that can't be read is a problem of whoever named it.
pub(super) fn read(loaded: &mut Loaded, path: &Path, named_by: &Origin) {
    let text = match read_text(path) {
        Ok(text) => text,
        Err(what) => {
            let mut problem = Problem::new(named_by.clone(), format!("{} {what}", path.display()));
            problem.hint = Some("write one with `lakebed config template > FILE`".to_owned());
            loaded.problems.push(problem);
            return;
        }
    };
    let place = |at: usize| origin(path, &text, at);
    let (table, errors) = DeTable::parse_recoverable(&text);
    for error in errors {
        let at = error.span().map_or(0, |span| span.start);
        // A message may have several lines.
        let what = error.message().lines().collect::<Vec<_>>().join(", ");
        loaded.problems.push(Problem::new(place(at), format!("is not TOML: {what}")));
    }
    let mut entries: Vec<_> = table.get_ref().iter().collect();
    // In the order of the file, which is not the table's.
    entries.sort_by_key(|(name, _)| name.span().start);
    for (name, value) in entries {
        let Some(setting) = Setting::named(name.get_ref()) else {
            loaded.problems.push(unknown(place(name.span().start), name.get_ref(), value.get_ref()));
            continue;
        };
        match written(setting, value, &text) {
            Ok(text) => loaded.set(setting, &text, place(value.span().start)),
            Err((shown, what)) => {
                let problem = Problem::new(place(value.span().start), what).of(setting.name, shown);
                loaded.problems.push(problem);
            }
        }
    }
}

fn unknown(origin: Origin, name: &str, value: &DeValue<'_>) -> Problem {
    let mut problem = Problem::unknown(origin, name, |setting| setting.name.to_owned());
    if matches!(value, DeValue::Table(_)) {
        problem.message = "is no setting: there are no tables".to_owned();
    }
    problem
}

/// A value as text that the setting reads; or how it may be shown, and what is wrong with its type.
fn written(setting: &Setting, value: &Spanned<DeValue<'_>>, text: &str) -> Result<String, (String, String)> {
    let refused = |found: &str| {
        let source = text.get(value.span()).unwrap_or_default();
        (Problem::shown(setting, source), format!("must be {}, not {found}", takes(setting)))
    };
    match (value.get_ref(), setting.kind) {
        (DeValue::Boolean(on), Kind::Switch) => Ok(on.to_string()),
        (DeValue::Boolean(_), _) => Err(refused("a boolean")),
        // Without a unit: a size in bytes; a duration says that it needs one.
        (DeValue::Integer(number), Kind::Count { .. } | Kind::Size { .. } | Kind::Span { .. }) => {
            let plain = number.as_str().replace('_', "");
            if number.radix() == 10 { Ok(plain) } else { Err(refused("a number with another base than ten")) }
        }
        (DeValue::Integer(_), _) => Err(refused("a number")),
        (DeValue::String(word), Kind::Switch | Kind::Count { .. }) if setting.auto.is_none() || word != "auto" => {
            Err(refused("a text in quotes"))
        }
        (DeValue::String(word), _) => Ok(word.to_string()),
        (DeValue::Float(_), _) => Err(refused("a number with a fraction")),
        (DeValue::Datetime(_), _) => Err(refused("a date")),
        (DeValue::Array(_), _) => Err(refused("a list")),
        (DeValue::Table(_), _) => Err(refused("a table")),
    }
}

fn read_text(path: &Path) -> Result<String, String> {
    let mut bytes = Vec::new();
    let opened = std::fs::File::open(path);
    let read = opened.and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes));
    read.map_err(|error| format!("can't be read: {error}"))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err("has more than 1 MiB: it is no configuration".to_owned());
    }
    String::from_utf8(bytes).map_err(|error| {
        let line =
            1 + error.as_bytes()[..error.utf8_error().valid_up_to()].iter().filter(|byte| **byte == b'\n').count();
        format!("is not text: line {line} is not UTF-8")
    })
}

/// The place in the file of a byte of its text; columns count characters.
fn origin(path: &Path, text: &str, at: usize) -> Origin {
    let before = &text[..text.floor_char_boundary(at)];
    let line_begins = before.rfind('\n').map_or(0, |newline| newline + 1);
    Origin::File {
        file: path.to_owned(),
        line: 1 + before.matches('\n').count(),
        column: 1 + before[line_begins..].chars().count(),
    }
}
