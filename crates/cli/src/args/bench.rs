//! What `bench` is told.

use std::path::PathBuf;

use clap::{Args as ClapArgs, ValueEnum};

use super::ServerArgs;
use super::values::parse_size;

#[derive(Debug, ClapArgs)]
#[command(before_help = "Examples:
  lakebed bench                                       Kafka, 1 GiB of records of 1 KiB
  lakebed bench grpc --volume 256MiB --partitions 4
  lakebed bench kafka --rate 20000 --seconds-max 30   latencies at that rate, none left out
  lakebed bench grpc --phase consume --consumers 2    writes first, measures reading
  lakebed bench disk --directory /var/lib/lakebed     the floor below a local store")]
pub(crate) struct BenchArgs {
    /// What to measure: Kafka, gRPC (a stream of batches), gRPC with a call for each batch, or the bare disk for comparison.
    #[arg(value_enum, default_value = "kafka")]
    pub(crate) what: BenchTarget,
    /// What of it: writing and reading at once, writing alone (what was written is read back and compared afterwards), or reading what was
    /// written before.
    #[arg(long, value_name = "PHASE", value_enum, default_value_t)]
    pub(crate) phase: Phase,
    /// Records a second to write, all partitions together. Latencies count from when a batch was due, also if it could not be sent
    /// then [default: as fast as it goes].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) rate: Option<u64>,
    /// The broker's Kafka address [default: that of the current profile if it names the broker, else 127.0.0.1:9092].
    #[arg(long, value_name = "ADDR")]
    pub(crate) kafka: Option<String>,
    /// Topic to write to; made if it does not exist.
    #[arg(long, value_name = "NAME", default_value = "bench")]
    pub(crate) topic: String,
    /// Partitions to make the topic with; each has a connection of its own.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) partitions: u32,
    /// Bytes of data to write, such as 1GiB.
    #[arg(long, value_name = "SIZE", default_value = "1GiB", value_parser = parse_size)]
    pub(crate) volume: usize,
    /// Stop after this many seconds even if the volume is not written.
    #[arg(long, value_name = "N", default_value_t = 60)]
    pub(crate) seconds_max: u64,
    /// Bytes of one value.
    #[arg(long, value_name = "SIZE", default_value = "1KiB", value_parser = parse_size)]
    pub(crate) record: usize,
    /// What values are made of.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) values: BenchValues,
    /// Bytes of one batch; at most this, at least one record.
    #[arg(long, value_name = "SIZE", default_value = "64KiB", value_parser = parse_size)]
    pub(crate) batch: usize,
    /// Requests in flight on a connection.
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub(crate) in_flight: usize,
    /// Consumers that follow each partition while it is written.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) consumers: u32,
    /// Have gRPC consumers get records, not Kafka batches as they were written.
    #[arg(long)]
    pub(crate) records: bool,
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
    GrpcUnary,
    Disk,
}

/// What of a load is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Phase {
    /// Writing, and reading as it is written.
    #[default]
    EndToEnd,
    /// Writing.
    Produce,
    /// Reading.
    Consume,
}

/// What values are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum BenchValues {
    /// Letters, which shrink by a quarter.
    #[default]
    Text,
    /// Bytes that can't be compressed.
    Random,
}
