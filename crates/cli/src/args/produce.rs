//! What `produce` is told.

use std::path::PathBuf;

use clap::{Args as ClapArgs, ValueEnum};

use super::ServerArgs;
use super::values::parse_setting;

const JSON_HELP: &str = "With --input json each line is an object: {\"key\", \"value\", \"headers\", \"partition\", \"timestamp\"}, of which only \"value\" must be there.
Keys and values are text, {\"base64\": \"...\"} for bytes that are not text, or null for none; any other JSON is taken as its own text.
\"headers\" is [{\"key\": \"name\", \"value\": ...}, ...] or {\"name\": ..., ...}. What `lakebed consume -o jsonl` prints can be produced again.";

#[derive(Debug, ClapArgs)]
#[command(before_help = "Examples:
  echo hello | lakebed produce orders
  lakebed produce orders --file lines.txt --key-separator :
  lakebed produce orders --input json --file records.jsonl
  lakebed produce images --input whole --file a.png --file b.png -H type=image/png
  echo gone: | lakebed produce orders --key-separator : -Z")]
#[command(after_help = JSON_HELP)]
pub(crate) struct ProduceArgs {
    /// Name of the topic.
    pub(crate) topic: String,
    /// Read this file; may be repeated [default: standard input].
    #[arg(long, value_name = "F")]
    pub(crate) file: Vec<PathBuf>,
    /// What a record is: a line, a line with a JSON object, or a whole file.
    #[arg(long, value_name = "WHAT", value_enum, default_value_t)]
    pub(crate) input: Input,
    /// What stands between key and value in a line; lines without it have no key.
    #[arg(long, value_name = "S")]
    pub(crate) key_separator: Option<String>,
    /// The key of records that bring none.
    #[arg(short, long, value_name = "K")]
    pub(crate) key: Option<String>,
    /// A header of every record, NAME=VALUE; may be repeated.
    #[arg(short = 'H', long, value_name = "NAME=VALUE", value_parser = parse_setting)]
    pub(crate) header: Vec<(String, String)>,
    /// Write empty values as tombstones: records without a value.
    #[arg(short = 'Z', long)]
    pub(crate) tombstones: bool,
    /// Write values (and keys) that are exactly this as none.
    #[arg(long, value_name = "S")]
    pub(crate) null: Option<String>,
    /// Write to this partition [default: by the key as Kafka does; records without a key go round].
    #[arg(long, value_name = "N")]
    pub(crate) partition: Option<u32>,
    /// Send again what may have been stored when the connection was lost: it may then be stored twice [default: fail].
    #[arg(long)]
    pub(crate) at_least_once: bool,
    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

/// What a record is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Input {
    /// A line; its end is no part of it.
    #[default]
    Lines,
    /// A line with a JSON object.
    Json,
    /// A whole file, or all of standard input.
    Whole,
}
