//! What `cluster` is told.

use clap::{Args as ClapArgs, Subcommand};

use super::ServerArgs;

#[derive(Debug, ClapArgs)]
pub(crate) struct ClusterArgs {
    #[command(subcommand)]
    pub(crate) verb: ClusterVerb,
    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ClusterVerb {
    /// Show the cluster: its id, its store, its brokers and how far its log is.
    #[command(before_help = "Examples:
  lakebed cluster info
  lakebed cluster info -o json | jq .brokers")]
    Info,
    /// Ask a broker whether it serves and is ready, and if not, why.
    #[command(before_help = "Examples:
  lakebed cluster health
  lakebed cluster health --exit-code    for containers: ends with 5 if it is not healthy")]
    Health {
        /// End with 5 if it is not healthy [default: with 0 if it answers].
        #[arg(long)]
        exit_code: bool,
    },
}
