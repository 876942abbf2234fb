//! What can be said on the command line.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};

/// Where client verbs find a broker.
pub(crate) const DEFAULT_SERVER: &str = "127.0.0.1:7070";

/// A Kafka-class log on object storage: every durable record is Parquet.
#[derive(Debug, Parser)]
#[command(name = "lakebed", version, about, arg_required_else_help = true, after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

const EXAMPLES: &str = "Examples:
  lakebed dev                                      start a broker here, data in ./lakebed-data
  lakebed topic create orders --partitions 4       make a topic
  echo hello | lakebed produce orders              write a record
  lakebed consume orders --from start --count 1    read it
  lakebed serve --store s3://bucket/prefix         a broker on a bucket";

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Start a broker for development: a local directory, topics made on first use.
    Dev(DevArgs),
    /// Start a broker.
    Serve(ServeArgs),
    /// Create, list, describe and delete topics.
    Topic(TopicArgs),
    /// Write lines as records.
    Produce(ProduceArgs),
    /// Read records as lines.
    Consume(ConsumeArgs),
    /// Measure a broker, checking what it reads back.
    Bench(BenchArgs),
}

#[derive(Debug, ClapArgs)]
pub(crate) struct DevArgs {
    /// Where the data is: file:///directory, memory://, s3://bucket/prefix, gs://bucket/prefix, az://container/prefix.
    #[arg(long, value_name = "URL", default_value = "./lakebed-data")]
    pub(crate) store: String,
    #[command(flatten)]
    pub(crate) listen: ListenArgs,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct ServeArgs {
    /// Where the data is: file:///directory, memory://, s3://bucket/prefix, gs://bucket/prefix, az://container/prefix.
    #[arg(long, value_name = "URL")]
    pub(crate) store: String,
    /// Create topics that clients ask for, with 1 partition.
    #[arg(long)]
    pub(crate) auto_create_topics: bool,
    #[command(flatten)]
    pub(crate) listen: ListenArgs,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct ListenArgs {
    /// Address for Kafka clients; port 0 takes a free one.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9092")]
    pub(crate) kafka_listen: String,
    /// Address for gRPC and HTTP; port 0 takes a free one.
    #[arg(long, value_name = "ADDR", default_value = DEFAULT_SERVER)]
    pub(crate) listen: String,
    /// HOST:PORT that Kafka clients are told to connect to [default: where they reached the broker].
    #[arg(long, value_name = "ADDR")]
    pub(crate) advertise: Option<String>,
    /// Memory for buffers and caches together, such as 256MiB or 1GiB. More serves more consumers from memory; at its bound producers wait.
    #[arg(long, value_name = "SIZE", default_value = "1GiB", value_parser = parse_size)]
    pub(crate) memory: usize,
    /// Milliseconds between flushes [default: 2 on a local directory, 250 on a bucket, 0 in memory]. More costs fewer requests, less
    /// acknowledges sooner.
    #[arg(long, value_name = "MS")]
    pub(crate) flush_interval_ms: Option<u64>,
    /// Serve fresh records from the store too, not from memory (for tests: it is slower).
    #[arg(long, hide = true)]
    pub(crate) no_tail: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct ServerArgs {
    /// The broker's gRPC address.
    #[arg(long, value_name = "ADDR", env = "LAKEBED_SERVER", default_value = DEFAULT_SERVER, global = true)]
    pub(crate) server: String,
}

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
    List,
    /// Show a topic and the offsets of its partitions.
    Describe {
        /// Its name.
        name: String,
    },
    /// Delete a topic and all that is in it.
    Delete {
        /// Its name.
        name: String,
    },
}

#[derive(Debug, ClapArgs)]
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

#[derive(Debug, ClapArgs)]
pub(crate) struct ConsumeArgs {
    /// Name of the topic.
    pub(crate) topic: String,
    /// Where to begin: start, end, or an offset.
    #[arg(long, value_name = "start|end|OFFSET", default_value = "start", value_parser = parse_from)]
    pub(crate) from: From,
    /// Stop after this many records [default: go on for ever].
    #[arg(long, value_name = "N")]
    pub(crate) count: Option<u64>,
    /// Read this partition only [default: all].
    #[arg(long, value_name = "N")]
    pub(crate) partition: Option<i32>,
    /// Print the key, this, and the value.
    #[arg(long, value_name = "S")]
    pub(crate) key_separator: Option<String>,
    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

/// Where to begin.
#[derive(Debug, Clone, Copy)]
pub(crate) enum From {
    Start,
    End,
    Offset(i64),
}

#[derive(Debug, ClapArgs)]
pub(crate) struct BenchArgs {
    /// What to measure: Kafka, gRPC, or the bare disk for comparison.
    #[arg(value_enum, default_value = "kafka")]
    pub(crate) what: BenchTarget,
    /// The broker's Kafka address.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9092")]
    pub(crate) kafka: String,
    /// Topic to write to; made if it does not exist.
    #[arg(long, default_value = "bench")]
    pub(crate) topic: String,
    /// Partitions to make the topic with; each has a connection of its own.
    #[arg(long, default_value_t = 1)]
    pub(crate) partitions: u32,
    /// Bytes of data to write, such as 1GiB.
    #[arg(long, value_name = "SIZE", default_value = "1GiB", value_parser = parse_size)]
    pub(crate) volume: usize,
    /// Stop after this many seconds even if the volume is not written.
    #[arg(long, default_value_t = 60)]
    pub(crate) seconds_max: u64,
    /// Bytes of one value.
    #[arg(long, value_name = "SIZE", default_value = "1KiB", value_parser = parse_size)]
    pub(crate) record: usize,
    /// Bytes of one batch; at most this, at least one record.
    #[arg(long, value_name = "SIZE", default_value = "64KiB", value_parser = parse_size)]
    pub(crate) batch: usize,
    /// Requests in flight on a connection.
    #[arg(long, default_value_t = 5)]
    pub(crate) in_flight: usize,
    /// Consumers that follow each partition while it is written.
    #[arg(long, default_value_t = 1)]
    pub(crate) consumers: u32,
    /// Directory in which the bare disk is measured.
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub(crate) directory: PathBuf,
    /// Print one JSON line instead of a table.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

/// What `bench` measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum BenchTarget {
    Kafka,
    Grpc,
    Disk,
}

fn parse_from(text: &str) -> Result<From, String> {
    match text {
        "start" => Ok(From::Start),
        "end" => Ok(From::End),
        _ => match text.parse::<i64>() {
            Ok(offset) if offset >= 0 => Ok(From::Offset(offset)),
            _ => Err("must be start, end, or an offset of 0 or more".to_owned()),
        },
    }
}

fn parse_setting(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("must be NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

/// `1024`, `64KiB`, `256MiB`, `1GiB`; `KB`, `MB`, `GB` count in thousands.
fn parse_size(text: &str) -> Result<usize, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: usize = number.parse().map_err(|_| "must begin with a number, such as 256MiB")?;
    let factor: usize = match unit.trim() {
        "" | "B" => 1,
        "KiB" | "K" => 1 << 10,
        "MiB" | "M" => 1 << 20,
        "GiB" | "G" => 1 << 30,
        "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        other => return Err(format!("unknown unit {other:?}: use B, KiB, MiB or GiB")),
    };
    number
        .checked_mul(factor)
        .filter(|size| *size > 0)
        .ok_or_else(|| "must be more than 0 and fit this machine".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn sizes_have_units() {
        assert_eq!(parse_size("256MiB"), Ok(256 << 20));
        assert_eq!(parse_size("1GiB"), Ok(1 << 30));
        assert_eq!(parse_size("1500"), Ok(1500));
        assert_eq!(parse_size("2KB"), Ok(2000));
        for wrong in ["", "MiB", "0", "1TiB", "-1", "99999999999999999999"] {
            assert!(parse_size(wrong).is_err(), "{wrong}");
        }
    }
}
