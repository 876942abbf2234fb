//! What is made of the description of the command line: completions for shells, manual pages and the page in `docs/`.

use std::fmt::Write;
use std::path::Path;

use clap_complete::Shell;

use crate::args::{self, Page};
use crate::failure::Failure;
use crate::output::{Output, write_out};

/// Columns of the page of verbs.
const PAGE_WIDTH: usize = 110;

/// Prints what `shell` needs.
pub(crate) fn completions(shell: Shell) -> Result<(), Failure> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut args::command(), "lakebed", &mut text);
    write_out(&String::from_utf8_lossy(&text))
}

/// Prints the page of `lakebed`, or writes those of all verbs into a directory.
pub(crate) fn man(directory: Option<&Path>, output: Output) -> Result<(), Failure> {
    let failed = |error: &std::io::Error| Failure::file("the manual pages can't be written", error);
    let Some(directory) = directory else {
        let mut page = Vec::new();
        clap_mangen::Man::new(manual(args::command())).render(&mut page).map_err(|error| failed(&error))?;
        return write_out(&String::from_utf8_lossy(&page));
    };
    std::fs::create_dir_all(directory).map_err(|error| failed(&error))?;
    clap_mangen::generate_to(manual(args::command()), directory).map_err(|error| failed(&error))?;
    output.notice(format!("wrote the manual pages into {}", directory.display()));
    Ok(())
}

/// A manual page has no place before its synopsis: examples come last there.
fn manual(command: clap::Command) -> clap::Command {
    let examples = command.get_before_help().map(|examples| format!("{examples}\n\n")).unwrap_or_default();
    command.after_long_help(examples + args::EXIT_CODES).mut_subcommands(manual)
}

/// Prints a page of `docs/`.
pub(crate) fn docs(page: Page) -> Result<(), Failure> {
    match page {
        Page::Configuration => write_out(&crate::config::reference()),
        Page::Cli => write_out(&cli()),
    }
}

/// The page of all verbs, from their help.
fn cli() -> String {
    let mut text = include_str!("pages/cli.md").to_owned();
    let mut command = args::command().term_width(PAGE_WIDTH);
    command.build();
    describe(&command, &mut text);
    text
}

fn describe(command: &clap::Command, text: &mut String) {
    let name = command.get_bin_name().unwrap_or(command.get_name());
    // Shown as a terminal shows it, without colours; `render` needs one of its own.
    let mut shown = command.clone().term_width(PAGE_WIDTH);
    if command.get_name() != "lakebed" {
        // What all verbs share is told once.
        shown =
            shown.mut_args(|arg| if matches!(arg.get_id().as_str(), "output" | "help") { arg.hide(true) } else { arg });
    }
    let help = shown.render_long_help().to_string();
    let help = help.lines().map(str::trim_end).collect::<Vec<_>>().join("\n");
    let help = help.trim().trim_end_matches(args::EXIT_CODES).trim_end();
    let _ = write!(text, "\n## {name}\n\n```\n{help}\n```\n");
    for below in command.get_subcommands().filter(|below| !below.is_hide_set() && below.get_name() != "help") {
        describe(below, text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_of_verbs_in_the_documentation_is_what_their_help_says() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/cli.md");
        let written = std::fs::read_to_string(path).unwrap_or_default();
        assert!(written == cli(), "run `lakebed docs cli > docs/cli.md`");
    }

    #[test]
    fn completions_of_every_shell_know_every_verb() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish, Shell::PowerShell, Shell::Elvish] {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut args::command(), "lakebed", &mut text);
            let text = String::from_utf8(text).unwrap();
            for word in ["produce", "describe", "completions", "auto-create-topics"] {
                assert!(text.contains(word), "{shell}: {word}");
            }
        }
    }

    #[test]
    fn each_verb_has_a_manual_page() {
        let directory = tempfile::tempdir().unwrap();
        man(Some(directory.path()), Output { format: crate::output::Format::Json }).unwrap();
        for name in ["lakebed", "lakebed-serve", "lakebed-topic-create", "lakebed-config-show"] {
            let page = std::fs::read_to_string(directory.path().join(format!("{name}.1"))).unwrap();
            assert!(page.contains(".TH") && page.contains("Examples"), "{name}");
        }
    }
}
