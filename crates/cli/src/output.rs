//! How verbs print: data on stdout, as a table, one JSON document or a line of JSON for each item; notices on stderr.
//!
//! 1. With `-o json` or `-o jsonl`, stdout holds JSON and nothing else, and notices are left out.
//! 2. A table is the same on a terminal and elsewhere, but for colours.
//! 3. A reader that has gone (`| head`) is no failure.

use std::io::Write;

use anstyle::Style;
use clap::ValueEnum;
use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

use crate::failure::Failure;

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Format {
    /// For people: columns, or text.
    #[default]
    Table,
    /// One JSON document.
    Json,
    /// A line of JSON for each item.
    Jsonl,
}

/// Where a verb prints.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    /// How.
    pub(crate) format: Format,
}

impl Output {
    /// Whether people read it.
    pub(crate) fn is_table(self) -> bool {
        self.format == Format::Table
    }

    /// Prints items: `columns` and `row` make the table; as JSON they are `{name: [items]}`, or a line each.
    ///
    /// # Errors
    /// stdout can't be written.
    pub(crate) fn list<T: Serialize, const N: usize>(
        self,
        name: &str,
        items: &[T],
        columns: [&str; N],
        row: impl Fn(&T) -> [String; N],
    ) -> Result<(), Failure> {
        match self.format {
            Format::Table if items.is_empty() => Ok(()),
            Format::Table => write_out(&table(columns, items.iter().map(row))),
            Format::Json => self.document(&serde_json::json!({ name: items })),
            Format::Jsonl => items.iter().try_for_each(|item| self.document(item)),
        }
    }

    /// Prints one thing: `text` for people.
    ///
    /// # Errors
    /// stdout can't be written.
    pub(crate) fn one<T: Serialize>(self, item: &T, text: impl FnOnce() -> String) -> Result<(), Failure> {
        if self.is_table() { write_out(&text()) } else { self.document(item) }
    }

    /// Says on stderr what was done, to people only.
    pub(crate) fn notice(self, text: impl AsRef<str>) {
        if self.is_table() {
            eprintln!("{}", text.as_ref());
        }
    }

    fn document(self, item: &impl Serialize) -> Result<(), Failure> {
        let text = match self.format {
            Format::Json => serde_json::to_string_pretty(item),
            _ => serde_json::to_string(item),
        };
        write_out(&(text.map_err(|error| Failure::new("the result can't be written as JSON").cause(error))? + "\n"))
    }
}

/// Writes to stdout, colours only where they are shown.
///
/// # Errors
/// stdout can't be written.
pub(crate) fn write_out(text: &str) -> Result<(), Failure> {
    let mut stdout = anstream::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::new("stdout can't be written").cause(error))
        }
        _ => Ok(()),
    }
}

/// Columns two spaces apart under their headings.
pub(crate) fn table<const N: usize>(columns: [&str; N], rows: impl Iterator<Item = [String; N]>) -> String {
    const HEADING: Style = Style::new().bold();
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(columns.map(str::to_uppercase));
    table.add_rows(rows);
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let mut text = String::new();
    for (index, line) in table.lines().enumerate() {
        let line = line.trim_end();
        text += &if index == 0 { format!("{HEADING}{line}{HEADING:#}\n") } else { format!("{line}\n") };
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_two_spaces_apart_under_their_headings() {
        let rows = [["orders", "4"], ["a-longer-name", "12"]].map(|row| row.map(str::to_owned));
        let text = table(["name", "partitions"], rows.into_iter());
        let plain = anstream::adapter::strip_str(&text).to_string();
        assert_eq!(plain, "NAME           PARTITIONS\norders         4\na-longer-name  12\n");
        assert_ne!(text, plain, "headings stand out on a terminal");
    }
}
