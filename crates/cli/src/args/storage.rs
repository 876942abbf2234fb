//! What `storage` and `recover` are told.

use clap::{Args as ClapArgs, Subcommand};

use super::values::parse_size;

#[derive(Debug, ClapArgs)]
pub(crate) struct StoreArgs {
    #[command(subcommand)]
    pub(crate) verb: StoreVerb,
}

const READ_ONLY: &str = "It reads alone, and takes nothing from a broker that serves meanwhile: what that writes and deletes after this has \
begun may be told as it was before.";

#[derive(Debug, Subcommand)]
pub(crate) enum StoreVerb {
    /// Show how much is stored: by what it is, and by topic; what of it is needed, what waits for its end, and what nothing names.
    #[command(after_help = READ_ONLY, before_help = "Examples:
  lakebed storage usage s3://bucket/prefix
  lakebed storage usage ./lakebed-data -o json | jq '.kinds[] | select(.kind == \"table files\")'")]
    Usage(RootArgs),
    /// List what nothing needs: why it still stands, and since when it may go. Deletes nothing.
    #[command(after_help = READ_ONLY, before_help = "Examples:
  lakebed storage orphans s3://bucket/prefix
  lakebed storage orphans ./lakebed-data -o jsonl | jq -r .key")]
    Orphans {
        #[command(flatten)]
        root: RootArgs,
        /// At most this many.
        #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
        count: u32,
    },
    /// Read every object, and compare it with its own hashes and with what the log says of it.
    ///
    /// Ends with 1 if anything is damaged: each object is named with what is wrong, which records it holds, and what can be done. If it is
    /// interrupted it tells what it has found, and how to go on.
    #[command(after_help = READ_ONLY, before_help = "Examples:
  lakebed storage scrub s3://bucket/prefix
  lakebed storage scrub s3://bucket/prefix --topic orders
  lakebed storage scrub s3://bucket/prefix --rate 50MiB    at most so many bytes a second")]
    Scrub {
        #[command(flatten)]
        root: RootArgs,
        /// Only objects with records of this topic, and its table.
        #[arg(long, value_name = "TOPIC")]
        topic: Option<String>,
        /// Read no more than so many bytes a second.
        #[arg(long, value_name = "SIZE", value_parser = parse_size)]
        rate: Option<usize>,
        /// Go on behind the last object that an earlier scrub has read, which it names when it is interrupted. What was written below it since is
        /// not read.
        #[arg(long, value_name = "KEY")]
        after: Option<String>,
    },
}

#[derive(Debug, ClapArgs)]
pub(crate) struct RootArgs {
    /// The root: s3://bucket/prefix, gs://bucket/prefix, az://container/prefix, file:///directory, or a path.
    pub(crate) url: String,
}

#[derive(Debug, ClapArgs)]
#[command(before_help = "Examples:
  lakebed recover s3://bucket/prefix --dry-run    verify everything, and say what would be
  lakebed recover s3://bucket/prefix
  lakebed recover s3://bucket/prefix --set-aside  without what can't be read")]
pub(crate) struct RecoverArgs {
    #[command(flatten)]
    pub(crate) root: RootArgs,
    /// Verify everything and say what would be, but write nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Go on without what can't be read, or contradicts the rest: it is moved to set-aside/, and what is missing is told by offset [default: then
    /// nothing is written].
    #[arg(long)]
    pub(crate) set_aside: bool,
}
