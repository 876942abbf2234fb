//! What `check` is told.

use clap::{Args as ClapArgs, Subcommand};

use super::values::parse_size;

#[derive(Debug, ClapArgs)]
pub(crate) struct CheckArgs {
    #[command(subcommand)]
    pub(crate) verb: CheckVerb,
}

#[derive(Debug, Subcommand)]
pub(crate) enum CheckVerb {
    /// Find out whether a store keeps what the log needs, and what it must allow.
    ///
    /// Writes objects below check/ under the root, and deletes them again. The verdict is recorded beside the root; a broker refuses a
    /// root whose verdict is "failed". On S3 a check costs about one cent.
    #[command(before_help = "Examples:
  lakebed check storage s3://bucket/prefix                what it keeps, and the policy it needs
  lakebed check storage s3://bucket/prefix --policy       only the policy, without asking the store
  lakebed check storage s3://bucket/prefix --no-record    without leaving the verdict there")]
    Storage(StorageArgs),
}

#[derive(Debug, ClapArgs)]
pub(crate) struct StorageArgs {
    /// The root: s3://bucket/prefix, gs://bucket/prefix, az://container/prefix, file:///directory, memory://.
    #[arg(value_name = "URL")]
    pub(crate) url: String,
    /// Do not record the verdict.
    #[arg(long)]
    pub(crate) no_record: bool,
    /// Print the policy that the store must allow, and ask nothing of it.
    #[arg(long, conflicts_with_all = ["no_record", "rounds", "large"])]
    pub(crate) policy: bool,
    /// Races of 16 for one key. More find a rarer mistake.
    #[arg(long, value_name = "N", default_value_t = 48, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) rounds: u32,
    /// Size of the large object, such as 64MiB.
    #[arg(long, value_name = "SIZE", default_value = "64MiB", value_parser = parse_size)]
    pub(crate) large: usize,
}
