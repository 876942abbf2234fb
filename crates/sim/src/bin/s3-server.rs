//! An S3 server in memory for tests and measurements, with misconduct on demand: `s3-server --bucket test`.
//!
//! Prints one JSON line when it serves: `{"event":"ready","endpoint":"http://…","control":"http://…","buckets":[…],"access_key":…,"access_keys":[…],"secret_key":…}`.
//! `lakebed_sim::s3::control` documents what the control endpoint takes. It ends at SIGINT or SIGTERM, or when it is killed.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context;
use clap::Parser;
use lakebed_sim::s3::conduct::{Conduct, Profile};
use lakebed_sim::s3::{Options, S3Server};
use tokio::signal::unix::{SignalKind, signal};

/// What a conduct looks like.
const CONDUCTS: &str = r#"Conducts, for --conduct and, while it runs, for `curl -X PUT CONTROL/conduct -d`:
  {}  as S3 promises, as fast as it can; ends all that was told before
  {"profile":"standard"}
      the latency of S3 Standard (or of "express"); {"latency":{"median_ms":20,"sigma":0.4}} is one of its own
  {"limits":{}}
      503 beyond 3500 writes and 5500 reads in a second for each prefix; {"limits":{"writes_per_second":100}}
  {"outage":"refused"}
      nobody can connect
  {"rules":[{"fault":"silence","access_key":"b"}]}
      one client is cut off and hears nothing until another conduct heals it
  {"rules":[{"fault":"cut_connection","address":"127.0.0.2"}]}
      the same, told apart by its address, and with its connections cut
  {"rules":[{"fault":"internal_error","applied_after_ms":5000,"operation":"put","key_contains":"log/","times":3}]}
      three late PUTs: answered 500, applied after 5 s, or with `curl -X POST CONTROL/late`
  {"rules":[{"fault":"cut_connection","applied":true,"probability":0.01}]}
      one answer of a hundred is lost
`lakebed_sim::s3::conduct` documents the rest. CONTROL/counts says what was asked, and what S3 would charge for it."#;

#[derive(Debug, Parser)]
#[command(
    about = "An S3 server in memory for tests and measurements, with misconduct on demand.",
    after_long_help = CONDUCTS
)]
struct Args {
    /// Loopback address of the S3 endpoint; port 0 takes a free one.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Loopback address of the control endpoint; port 0 takes a free one.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0")]
    control: SocketAddr,
    /// A bucket that exists from the start; may be repeated.
    #[arg(long = "bucket", value_name = "NAME", default_value = "test")]
    buckets: Vec<String>,
    /// An access key that is known; may be repeated, so that rules can tell clients apart.
    #[arg(long = "access-key", value_name = "NAME", default_value = "test")]
    access_keys: Vec<String>,
    /// The secret of each access key.
    #[arg(long, default_value = "test")]
    secret_key: String,
    /// Bytes of objects and bodies that are held at most; a PUT beyond is answered 403 QuotaExceeded.
    #[arg(long, value_name = "BYTES", default_value_t = 1 << 30)]
    memory_bytes: usize,
    /// Seed of latencies and faults.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// How it behaves at first, as JSON; see below.
    #[arg(long, value_name = "JSON", default_value = "{}")]
    conduct: String,
    /// The latency at first, as `{"profile":…}` of a conduct has it.
    #[arg(long, value_enum)]
    profile: Option<Profile>,
    /// Serve a directory with crate s3s-fs instead: a store whose create-if-absent is not atomic.
    #[arg(long, value_name = "DIR")]
    filesystem: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let mut conduct: Conduct = serde_json::from_str(&args.conduct).context("--conduct can't be followed")?;
    if let Some(profile) = args.profile {
        conduct.profile = profile;
    }
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let options = Options {
        listen: args.listen,
        control: args.control,
        buckets: args.buckets,
        access_keys: args.access_keys,
        secret_key: args.secret_key,
        memory_bytes_max: args.memory_bytes,
        seed: args.seed,
        conduct,
        filesystem: args.filesystem,
        ..Options::default()
    };
    let server = S3Server::start(options.clone()).await.context("the server can't start")?;
    let ready = serde_json::json!({
        "event": "ready",
        "endpoint": format!("http://{}", server.address()),
        "control": format!("http://{}", server.control_address()),
        "buckets": options.buckets,
        "access_key": options.access_keys.first(),
        "access_keys": options.access_keys,
        "secret_key": options.secret_key,
    });
    writeln!(std::io::stdout(), "{ready}")?;
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    Ok(())
}
