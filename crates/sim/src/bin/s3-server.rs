//! An S3 server in memory for tests and measurements, with misconduct on demand: `s3-server --bucket test`.
//!
//! Prints one JSON line when it serves: `{"event":"ready","endpoint":"http://…","control":"http://…","buckets":[…],"access_key":…,"secret_key":…}`.
//! `lakebed_sim::s3::control` documents what the control endpoint takes. It ends at SIGINT or SIGTERM, or when it is killed.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context;
use clap::Parser;
use lakebed_sim::s3::conduct::Conduct;
use lakebed_sim::s3::{Options, S3Server};
use tokio::signal::unix::{SignalKind, signal};

#[derive(Debug, Parser)]
#[command(about = "An S3 server in memory for tests and measurements, with misconduct on demand.")]
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
    /// The access key that is known.
    #[arg(long, default_value = "test")]
    access_key: String,
    /// Its secret.
    #[arg(long, default_value = "test")]
    secret_key: String,
    /// Bytes of objects and bodies that are held at most; a PUT beyond is answered 403 QuotaExceeded.
    #[arg(long, value_name = "BYTES", default_value_t = 1 << 30)]
    memory_bytes: usize,
    /// Seed of latencies and faults.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// How it behaves at first, as JSON: such as '{"latency":{"median_ms":20,"sigma":0.4}}'.
    #[arg(long, value_name = "JSON", default_value = "{}")]
    conduct: String,
    /// Serve a directory with crate s3s-fs instead: a store whose create-if-absent is not atomic.
    #[arg(long, value_name = "DIR")]
    filesystem: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let conduct: Conduct = serde_json::from_str(&args.conduct).context("--conduct can't be followed")?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let options = Options {
        listen: args.listen,
        control: args.control,
        buckets: args.buckets,
        access_key: args.access_key,
        secret_key: args.secret_key,
        memory_bytes_max: args.memory_bytes,
        seed: args.seed,
        conduct,
        filesystem: args.filesystem,
    };
    let server = S3Server::start(options.clone()).await.context("the server can't start")?;
    let ready = serde_json::json!({
        "event": "ready",
        "endpoint": format!("http://{}", server.address()),
        "control": format!("http://{}", server.control_address()),
        "buckets": options.buckets,
        "access_key": options.access_key,
        "secret_key": options.secret_key,
    });
    writeln!(std::io::stdout(), "{ready}")?;
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    Ok(())
}
