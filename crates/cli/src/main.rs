//! The binary `lakebed`: server and client verbs.
//!
//! Data goes to stdout, notices and errors to stderr. Exit codes: 0 done, 1 failed, 2 wrong usage (clap's), 3 not found,
//! 4 conflict, 5 unavailable, try again.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "talking on stdout and stderr is what this crate is for")]
#![allow(clippy::disallowed_methods, reason = "the binary is where clocks and randomness come from")]

mod args;
mod bench;
mod consume;
mod failure;
mod produce;
mod serve;
mod topic;

use std::process::ExitCode;

use clap::Parser;

use crate::args::{Args, Verb};
use crate::failure::Failure;

/// Threads for file operations and heavy work. More hide a slower disk; each keeps some memory back.
const BLOCKING_THREADS_MAX: usize = 16;

fn main() -> ExitCode {
    let args = Args::parse();
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = match builder.enable_all().max_blocking_threads(BLOCKING_THREADS_MAX).build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: the runtime can't be started\n  cause: {error}");
            return ExitCode::FAILURE;
        }
    };
    let result = runtime.block_on(run(args.verb));
    // What still runs on blocking threads (a file being synced) must not hold up the exit.
    runtime.shutdown_background();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::from(failure.code)
        }
    }
}

async fn run(verb: Verb) -> Result<(), Failure> {
    match verb {
        Verb::Dev(args) => serve::dev(args).await,
        Verb::Serve(args) => serve::serve(args).await,
        Verb::Topic(args) => topic::run(args).await,
        Verb::Produce(args) => produce::run(args).await,
        Verb::Consume(args) => consume::run(args).await,
        Verb::Bench(args) => bench::run(args).await,
    }
}
