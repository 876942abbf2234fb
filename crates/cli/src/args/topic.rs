//! What `topic` is told.

use clap::{Args as ClapArgs, Subcommand};

use super::ServerArgs;
use super::values::parse_setting;

#[derive(Debug, ClapArgs)]
pub(crate) struct TopicArgs {
    #[command(subcommand)]
    pub(crate) verb: TopicVerb,
    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TopicVerb {
    /// Make a topic.
    #[command(before_help = "Examples:
  lakebed topic create orders
  lakebed topic create orders --partitions 4 --config retention.ms=86400000")]
    Create {
        /// Its name.
        name: String,
        /// How many partitions [default: the broker's].
        #[arg(long, value_name = "N")]
        partitions: Option<i32>,
        /// A setting, NAME=VALUE; may be repeated.
        #[arg(long, value_name = "NAME=VALUE", value_parser = parse_setting)]
        config: Vec<(String, String)>,
    },
    /// List topics.
    #[command(before_help = "Examples:
  lakebed topic list
  lakebed topic list -o jsonl | jq -r .name")]
    List,
    /// Show a topic and the offsets of its partitions.
    #[command(before_help = "Examples:
  lakebed topic describe orders
  lakebed topic describe orders -o json | jq .partitions[].latest_offset")]
    Describe {
        /// Its name.
        name: String,
    },
    /// Delete a topic and all that is in it.
    #[command(before_help = "Examples:
  lakebed topic delete orders")]
    Delete {
        /// Its name.
        name: String,
    },
}
