//! What `demo` is told.

use clap::Args as ClapArgs;

#[derive(Debug, ClapArgs)]
#[command(before_help = "Examples:
  lakebed demo
  lakebed demo --exit                     do not go on serving
  lakebed demo --store ./lakebed-demo     keep what it writes")]
pub(crate) struct DemoArgs {
    /// Where its data goes: a directory or a URL, as of `serve` [default: a temporary directory, deleted at the end].
    #[arg(long, value_name = "URL")]
    pub(crate) store: Option<String>,
    /// End when the tables have been shown [default: serve until Ctrl-C].
    #[arg(long)]
    pub(crate) exit: bool,
    /// Address for Kafka clients; port 0 takes a free one.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0")]
    pub(crate) kafka_listen: String,
    /// Address for gRPC and HTTP; port 0 takes a free one.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0")]
    pub(crate) listen: String,
}
