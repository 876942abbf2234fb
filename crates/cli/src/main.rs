//! The binary `lakebed`: server and client verbs.
//!
//! Data goes to stdout, notices and errors to stderr; see `output`. How the process ends tells what happened: see `failure::Exit`.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "talking on stdout and stderr is what this crate is for")]
#![allow(clippy::disallowed_methods, reason = "the binary is where clocks and randomness come from")]

mod args;
mod bench;
mod check;
mod cluster;
mod config;
mod consume;
mod demo;
mod failure;
mod group;
mod logging;
mod output;
mod pages;
mod produce;
mod profile;
mod progress;
mod record_json;
mod recover;
mod serve;
mod server;
mod sql;
mod storage;
mod topic;
mod version;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::FromArgMatches;
use clap::error::{ContextKind, ErrorKind};

use crate::args::{Args, Verb};
use crate::failure::Failure;
use crate::output::{Format, Output};

/// Threads for file operations and heavy work. More hide a slower disk; each keeps some memory back.
const BLOCKING_THREADS_MAX: usize = 16;

fn main() -> ExitCode {
    let said: Vec<OsString> = std::env::args_os().collect();
    let parsed = args::command().try_get_matches_from(&said).and_then(|matches| Args::from_arg_matches(&matches));
    let args = match parsed {
        Ok(args) => args,
        Err(error) => return misunderstood(&error, format_said(&said)),
    };
    let output = Output { format: args.output };
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = match builder.enable_all().max_blocking_threads(BLOCKING_THREADS_MAX).build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&Failure::new("the runtime can't be started").cause(error), output.format),
    };
    let result = runtime.block_on(run(args.verb, output));
    // What still runs on blocking threads (a file being synced) must not hold up the exit.
    runtime.shutdown_background();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failed(&failure, output.format),
    }
}

async fn run(verb: Verb, output: Output) -> Result<(), Failure> {
    match verb {
        Verb::Dev(args) => serve::dev(args, output).await,
        Verb::Serve(args) => serve::serve(args, output).await,
        Verb::Demo(args) => demo::run(args, output).await,
        Verb::Topic(args) => topic::run(args, output).await,
        Verb::Sql(args) => sql::run(args, output).await,
        Verb::Group(args) => group::run(args, output).await,
        Verb::Cluster(args) => cluster::run(args, output).await,
        Verb::Produce(args) => produce::run(args, output).await,
        Verb::Consume(args) => consume::run(args, output).await,
        Verb::Bench(args) => bench::run(args, output).await,
        Verb::Check(args) => check::run(args, output).await,
        Verb::Storage(args) => storage::run(args, output).await,
        Verb::Recover(args) => recover::run(args, output).await,
        Verb::Completions { shell } => pages::completions(shell),
        Verb::Config(verb) => config::run(verb, output),
        Verb::Profile(verb) => profile::run(&verb, output),
        Verb::Docs { page } => pages::docs(page),
        Verb::Man { directory } => pages::man(directory.as_deref(), output),
        Verb::Version => version::run(output),
    }
}

fn failed(failure: &Failure, format: Format) -> ExitCode {
    failure.print(format);
    ExitCode::from(failure.exit as u8)
}

/// Help and the version are no errors; the rest is told as clap does, or as JSON.
fn misunderstood(error: &clap::Error, format: Format) -> ExitCode {
    let is_help = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
    if is_help || format == Format::Table {
        drop(error.print());
        return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(1));
    }
    let text = error.render().to_string();
    let mut paragraphs = text.split("\n\n");
    let what = paragraphs.next().unwrap_or_default().trim_start_matches("error: ");
    let what = what.lines().map(str::trim).collect::<Vec<_>>().join(" ");
    let suggested = error.get(ContextKind::SuggestedArg).or(error.get(ContextKind::SuggestedSubcommand));
    let hint = match suggested {
        Some(name) => format!("did you mean {name}? See --help"),
        None => "see --help".to_owned(),
    };
    failed(&Failure::usage(what).remedy(hint), format)
}

/// How errors are wanted, as far as that can be told from what could not be understood.
fn format_said(said: &[OsString]) -> Format {
    let mut words = said.iter().filter_map(|word| word.to_str());
    while let Some(word) = words.next() {
        let value = match word {
            "--" => break,
            "-o" | "--output" => words.next(),
            _ => word.strip_prefix("--output=").or_else(|| word.strip_prefix("-o")),
        };
        match value.map(|value| value.trim_start_matches('=')) {
            Some("json") => return Format::Json,
            Some("jsonl") => return Format::Jsonl,
            _ => {}
        }
    }
    Format::Table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wanted_format_is_seen_in_what_is_not_understood() {
        let said = |words: &[&str]| format_said(&words.iter().map(OsString::from).collect::<Vec<_>>());
        assert_eq!(said(&["lakebed", "tropic", "-o", "json"]), Format::Json);
        assert_eq!(said(&["lakebed", "-ojsonl", "x"]), Format::Jsonl);
        assert_eq!(said(&["lakebed", "--output=json"]), Format::Json);
        assert_eq!(said(&["lakebed", "produce", "--", "-o", "json"]), Format::Table);
        assert_eq!(said(&["lakebed", "-o"]), Format::Table);
    }
}
