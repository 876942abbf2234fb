//! What `bench` is told.

use std::path::PathBuf;

use clap::{Args as ClapArgs, ValueEnum};

use super::ServerArgs;
use super::values::parse_size;

#[derive(Debug, ClapArgs)]
#[command(before_help = "Examples:
  lakebed bench                                       Kafka, 1 GiB of records of 1 KiB
  lakebed bench grpc --volume 256MiB --partitions 4
  lakebed bench disk --directory /var/lib/lakebed     the floor below a local store")]
pub(crate) struct BenchArgs {
    /// What to measure: Kafka, gRPC, or the bare disk for comparison.
    #[arg(value_enum, default_value = "kafka")]
    pub(crate) what: BenchTarget,
    /// The broker's Kafka address [default: that of the current profile if it names the broker, else 127.0.0.1:9092].
    #[arg(long, value_name = "ADDR")]
    pub(crate) kafka: Option<String>,
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
    /// The same as `-o jsonl`.
    #[arg(long, hide = true)]
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
