//! What `dev` and `serve` are told.

use clap::Args as ClapArgs;

use super::values::parse_size;

#[derive(Debug, ClapArgs)]
#[command(before_help = "Examples:
  lakebed dev                                             data in ./lakebed-data
  lakebed dev --store memory://                           nothing is kept
  lakebed dev --kafka-listen 127.0.0.1:0 --listen 127.0.0.1:0    on free ports")]
pub(crate) struct DevArgs {
    /// Where the data is: file:///directory, memory://, s3://bucket/prefix, gs://bucket/prefix, az://container/prefix.
    #[arg(long, value_name = "URL", default_value = "./lakebed-data")]
    pub(crate) store: String,
    #[command(flatten)]
    pub(crate) listen: ListenArgs,
}

#[derive(Debug, ClapArgs)]
#[command(before_help = "Examples:
  lakebed serve --store file:///var/lib/lakebed
  lakebed serve --store s3://bucket/prefix --kafka-listen 0.0.0.0:9092 --advertise broker.example:9092")]
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
    #[arg(long, value_name = "ADDR", default_value = crate::server::DEFAULT)]
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
