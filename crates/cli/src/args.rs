//! What can be said on the command line: the verbs, and what all of them share.
//!
//! 1. Each verb that does something shows examples before anything else (`before_help`); a test holds it.
//! 2. `-o` is understood by every verb, and by the errors of all of them.
//! 3. [`command`] is the one description: parsing, help, completions, manual pages and `docs/cli.md` are made of it.

mod bench;
mod check;
mod cluster;
mod consume;
mod demo;
mod group;
mod place;
mod produce;
mod settings;
mod sql;
mod storage;
mod topic;
mod values;

use clap::{Args as ClapArgs, CommandFactory, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use std::path::PathBuf;

pub(crate) use bench::{BenchArgs, BenchTarget, BenchValues, Phase};
pub(crate) use check::{CheckArgs, CheckVerb, StorageArgs};
pub(crate) use cluster::{ClusterArgs, ClusterVerb};
pub(crate) use consume::ConsumeArgs;
pub(crate) use demo::DemoArgs;
pub(crate) use group::{GroupArgs, GroupVerb};
pub(crate) use place::Place;
pub(crate) use produce::{Input, ProduceArgs};
pub(crate) use settings::{ConfigVerb, DevArgs, SettingArgs};
pub(crate) use sql::{Engine, SqlArgs};
pub(crate) use storage::{RecoverArgs, StoreArgs, StoreVerb};
pub(crate) use topic::{TopicArgs, TopicVerb};

use crate::output::Format;

/// A Kafka-class log on object storage: every durable record is Parquet.
#[derive(Debug, Parser)]
#[command(name = "lakebed", version = crate::version::LONG, arg_required_else_help = true, before_help = EXAMPLES)]
#[command(max_term_width = 120)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) verb: Verb,
    /// How results and errors are printed: table (for people), json (one document), jsonl (a line for each item).
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t, global = true, hide_possible_values = true)]
    pub(crate) output: Format,
}

const EXAMPLES: &str = "Examples:
  lakebed demo                                     real records as a table, within seconds
  lakebed dev                                      start a broker here, data in ./lakebed-data
  lakebed topic create orders --partitions 4       make a topic
  echo hello | lakebed produce orders              write a record
  lakebed consume orders --from start --count 1    read it
  lakebed serve --store s3://bucket/prefix         a broker on a bucket";

/// What every verb's long help ends with.
pub(crate) const EXIT_CODES: &str =
    "Exit codes: 0 done, 1 failed, 2 wrong usage or settings, 3 not found, 4 conflict, 5 try again later.";

const TEMPLATE: &str = "{about-with-newline}\n{before-help}{usage-heading} {usage}\n\n{all-args}{after-help}";

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Start a broker for development: a local directory, topics made on first use.
    #[command(before_help = "Examples:
  lakebed dev                                                    data in ./lakebed-data
  lakebed dev --store memory://                                  nothing is kept
  lakebed dev --kafka-listen 127.0.0.1:0 --listen 127.0.0.1:0    on free ports")]
    Dev(DevArgs),
    /// Start a broker.
    #[command(before_help = "Examples:
  lakebed serve --store file:///var/lib/lakebed
  lakebed serve --config /etc/lakebed.toml
  lakebed serve --store s3://bucket/prefix --kafka-listen 0.0.0.0:9092 --advertise kafka.lan:9092")]
    Serve(SettingArgs),
    /// Start a broker with real records, and show them as a table within seconds.
    Demo(DemoArgs),
    /// Show the settings of a broker, and where each came from.
    #[command(subcommand)]
    Config(ConfigVerb),
    /// Show and choose the broker that client verbs talk to.
    #[command(subcommand)]
    Profile(ProfileVerb),
    /// Create, list, describe, alter and delete topics, and list the objects and files that hold their records.
    Topic(TopicArgs),
    /// Print what DuckDB, pyiceberg, Spark and Trino are told to read a topic as a table.
    Sql(SqlArgs),
    /// List, describe, reset and delete consumer groups.
    Group(GroupArgs),
    /// Show the cluster, and ask how a broker is.
    Cluster(ClusterArgs),
    /// Write lines as records.
    Produce(ProduceArgs),
    /// Read records as lines.
    Consume(ConsumeArgs),
    /// Measure a broker, checking what it reads back.
    Bench(BenchArgs),
    /// Find out whether what Lakebed rests on can bear it.
    Check(CheckArgs),
    /// Look at what stands in a store: how much, what nothing needs, and whether all of it is as it was written.
    Storage(StoreArgs),
    /// Make a cluster anew from its tables, after its log was lost.
    ///
    /// Every file is verified first. Refuses a root where lakebed.json or anything of a log stands. docs/recovery.md says what comes back.
    Recover(RecoverArgs),
    /// Print what a shell needs to complete commands.
    #[command(before_help = "Examples:
  lakebed completions bash > ~/.local/share/bash-completion/completions/lakebed
  lakebed completions zsh > ~/.zfunc/_lakebed
  lakebed completions fish > ~/.config/fish/completions/lakebed.fish")]
    Completions {
        /// Which shell.
        shell: Shell,
    },
    /// Print the manual page, or write the pages of all verbs into a directory.
    #[command(before_help = "Examples:
  lakebed man | man -l -
  lakebed man /usr/local/share/man/man1")]
    Man {
        /// Where the pages go; it is made if it does not exist [default: one page, to standard output].
        directory: Option<PathBuf>,
    },
    /// Print a page of the documentation, as it stands in docs/.
    #[command(
        hide = true,
        before_help = "Examples:
  lakebed docs configuration > docs/configuration.md
  lakebed docs cli > docs/cli.md"
    )]
    Docs {
        /// Which page.
        page: Page,
    },
    /// Print the version and the commit that it was built from.
    #[command(before_help = "Examples:
  lakebed version
  lakebed version -o json")]
    Version,
}

/// What `profile` is told.
#[derive(Debug, Subcommand)]
pub(crate) enum ProfileVerb {
    /// List profiles; the one in use has a star.
    #[command(before_help = "Examples:
  lakebed profile list")]
    List,
    /// Let client verbs talk to the broker of a profile.
    #[command(before_help = "Examples:
  lakebed profile use dev")]
    Use {
        /// Its name.
        name: String,
    },
    /// Show a profile and the file that it stands in.
    #[command(before_help = "Examples:
  lakebed profile show
  lakebed profile show -o json | jq -r .server")]
    Show {
        /// Its name [default: the one in use].
        name: Option<String>,
    },
}

/// A generated page of the documentation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Page {
    /// All settings of a broker.
    Configuration,
    /// All verbs.
    Cli,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct ServerArgs {
    /// The broker's gRPC address [default: $LAKEBED_SERVER, else the broker that `lakebed dev` started last, else 127.0.0.1:7070].
    #[arg(long, value_name = "ADDR", global = true)]
    pub(crate) server: Option<String>,
}

/// The command line as it is parsed and described.
pub(crate) fn command() -> clap::Command {
    let command = dress(Args::command());
    // The flags of `serve`, which shows them.
    let show =
        |show: clap::Command| show.mut_args(|arg| if arg.get_help_heading().is_some() { arg.hide(true) } else { arg });
    command.mut_subcommand("config", |config| config.mut_subcommand("show", show))
}

/// Examples first, exit codes last, for a command and all below it.
fn dress(command: clap::Command) -> clap::Command {
    let last = match command.get_after_help() {
        Some(more) => format!("{more}\n\n{EXIT_CODES}"),
        None => EXIT_CODES.to_owned(),
    };
    command.help_template(TEMPLATE).after_long_help(last).mut_subcommands(dress)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The commands that have no commands below them, with their full names.
    fn leaves(command: &clap::Command, name: &str, found: &mut Vec<(String, clap::Command)>) {
        if command.get_subcommands().count() == 0 {
            found.push((name.to_owned(), command.clone()));
        }
        for below in command.get_subcommands() {
            leaves(below, &format!("{name} {}", below.get_name()), found);
        }
    }

    #[test]
    fn the_command_line_is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn every_verb_shows_examples_that_parse_before_anything_else() {
        let mut found = Vec::new();
        leaves(&command(), "lakebed", &mut found);
        assert!(found.len() >= 12, "the verbs are seen: {}", found.len());
        for (name, verb) in found {
            let examples = verb.get_before_help().unwrap_or_else(|| panic!("{name} has no examples")).to_string();
            let lines: Vec<&str> = examples.lines().collect();
            assert_eq!(lines[0], "Examples:", "{name}");
            let own = lines[1..].iter().filter(|line| line.contains(&name)).count();
            assert!(own > 0, "{name} has no example of its own: {examples}");
            for line in &lines[1..] {
                let said = line.split_once("lakebed ").map_or("", |(_, said)| said);
                // Up to what the shell takes, or the remark behind two spaces.
                let said = said.split(['|', '>', '#']).next().unwrap_or_default();
                let said = said.split("  ").next().unwrap_or_default();
                let words = said.split_whitespace().map(|word| word.trim_matches('\''));
                let parsed = command().try_get_matches_from(std::iter::once("lakebed").chain(words));
                assert!(parsed.is_ok(), "{name}: {line}: {}", parsed.unwrap_err());
            }
        }
    }

    #[test]
    fn exit_codes_are_told_by_the_long_help_of_every_verb() {
        let mut found = Vec::new();
        leaves(&command(), "lakebed", &mut found);
        for (name, mut verb) in found {
            let help = verb.render_long_help().to_string();
            assert!(help.contains("Exit codes: 0 done"), "{name}: {help}");
            assert!(help.find("Examples:") < help.find("Usage:"), "{name}: {help}");
        }
    }
}
