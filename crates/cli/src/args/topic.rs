//! What `topic` is told.

use clap::{ArgGroup, Args as ClapArgs, Subcommand};

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
        /// Check everything, but make nothing.
        #[arg(long)]
        validate_only: bool,
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
    /// Change settings of a topic, or add partitions.
    #[command(before_help = "Examples:
  lakebed topic alter orders --config retention.ms=86400000 --config max.message.bytes=2000000
  lakebed topic alter orders --unset retention.ms     the default again
  lakebed topic alter orders --partitions 8           partitions are never taken away")]
    #[command(group = ArgGroup::new("change").required(true).multiple(true).args(["config", "unset", "partitions"]))]
    Alter {
        /// Its name.
        name: String,
        /// A setting, NAME=VALUE; may be repeated.
        #[arg(long, value_name = "NAME=VALUE", value_parser = parse_setting)]
        config: Vec<(String, String)>,
        /// The name of a setting that has its default again; may be repeated.
        #[arg(long, value_name = "NAME")]
        unset: Vec<String>,
        /// How many partitions there are then: more than now.
        #[arg(long, value_name = "N")]
        partitions: Option<i32>,
        /// Check everything, but change nothing.
        #[arg(long)]
        validate_only: bool,
    },
    /// Delete a topic and all that is in it.
    #[command(before_help = "Examples:
  lakebed topic delete orders
  lakebed topic delete orders --validate-only")]
    Delete {
        /// Its name.
        name: String,
        /// Check everything, but delete nothing.
        #[arg(long)]
        validate_only: bool,
    },
    /// List the files of a topic's table, and the segments that wait to become such files.
    #[command(before_help = "Examples:
  lakebed topic files orders
  lakebed topic files orders -o jsonl | jq -r 'select(.kind == \"table\").uri'")]
    Files {
        /// Name of the topic.
        name: String,
    },
    /// List the Parquet objects that hold a topic's records, by partition and offset.
    #[command(before_help = "Examples:
  lakebed topic segments orders
  lakebed topic segments orders --partition 0 --from-offset 1000
  lakebed topic segments orders -o jsonl | jq -r .uri | sort -u")]
    Segments {
        /// Name of the topic.
        name: String,
        /// Of this partition only [default: all].
        #[arg(long, value_name = "N")]
        partition: Option<i32>,
        /// Only what holds records at or after this offset.
        #[arg(long, value_name = "OFFSET")]
        from_offset: Option<i64>,
        /// Only what holds records before this offset.
        #[arg(long, value_name = "OFFSET")]
        to_offset: Option<i64>,
        /// At most this many.
        #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
        count: u32,
    },
}
