//! What `produce` is told.

use std::path::PathBuf;

use clap::Args as ClapArgs;

use super::ServerArgs;

#[derive(Debug, ClapArgs)]
#[command(before_help = "Examples:
  echo hello | lakebed produce orders
  lakebed produce orders --file lines.txt --key-separator :")]
pub(crate) struct ProduceArgs {
    /// Name of the topic.
    pub(crate) topic: String,
    /// Read lines from this file [default: standard input].
    #[arg(long, value_name = "F")]
    pub(crate) file: Option<PathBuf>,
    /// What stands between key and value in a line; lines without it have no key.
    #[arg(long, value_name = "S")]
    pub(crate) key_separator: Option<String>,
    /// Write to this partition [default: by the key as Kafka does; records without a key go round].
    #[arg(long, value_name = "N")]
    pub(crate) partition: Option<u32>,
    #[command(flatten)]
    pub(crate) server: ServerArgs,
}
