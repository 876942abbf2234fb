//! `lakebed produce`: lines, JSON objects or whole files as records.
//!
//! What was read before the input fails, before a line that is no record, or before SIGINT, is written and acknowledged; the failure says how
//! many records that is.

mod input;

use indicatif::ProgressBar;
use lakebed_client::{Ack, ClientError, Producer};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::args::ProduceArgs;
use crate::failure::{Exit, Failure};
use crate::output::Output;
use crate::progress;
use crate::server::Server;
use input::Read;

/// Acknowledgements that are waited for; the producer bounds their bytes.
const ACKS_MAX: usize = 1 << 16;
/// How long a record waits for others.
const LINGER: std::time::Duration = std::time::Duration::from_millis(5);

pub(crate) async fn run(args: ProduceArgs, output: Output) -> Result<(), Failure> {
    let (client, server) = args.server.connect().await?;
    let producer = client.producer(&args.topic).linger(LINGER).retry_unknown(args.at_least_once).open().await;
    let producer =
        producer.map_err(|error| Failure::call(format!("topic {} can't be written", args.topic), &server, &error))?;
    let (records, total) = input::open(&args)?;
    let bar = progress::of_input(total);
    let (acks, waiting) = mpsc::channel(ACKS_MAX);
    let acknowledged = tokio::spawn(wait(waiting));
    let (stopped, acknowledged) = send(&producer, records, acks, acknowledged, &bar).await;
    let flushed = tokio::select! {
        biased;
        flushed = producer.close() => flushed,
        // Again, or while what was read waits for a broker that is away.
        _ = tokio::signal::ctrl_c() => {
            let what = format!("interrupted: what was not acknowledged to topic {} may be written or not", args.topic);
            return Err(Failure::new(what).code("INTERRUPTED", Exit::Failed));
        }
    };
    let (count, failed) = acknowledged.await.map_err(|error| Failure::new("the producer ended").cause(error))?;
    bar.finish_and_clear();
    let records = if count == 1 { "record" } else { "records" };
    if let Some(error) = failed.or(flushed.err()) {
        return Err(refused(&args.topic, count, &server, &error));
    }
    if let Some(failure) = stopped {
        output.notice(format!("produced {count} {records} to {}", args.topic));
        return Err(failure);
    }
    output.notice(format!("produced {count} {records} to {}", args.topic));
    output.one(&serde_json::json!({ "topic": args.topic, "records": count }), String::new)
}

/// Counts acknowledgements until all have come, or one is an error.
async fn wait(mut acks: mpsc::Receiver<Ack>) -> (u64, Option<ClientError>) {
    let mut count = 0;
    while let Some(ack) = acks.recv().await {
        match ack.await {
            Ok(_) => count += 1,
            Err(error) => {
                acks.close();
                // Of those that were sent behind it, some may be stored.
                while let Some(ack) = acks.recv().await {
                    count += u64::from(ack.await.is_ok());
                }
                return (count, Some(error));
            }
        }
    }
    (count, None)
}

type Waiting = JoinHandle<(u64, Option<ClientError>)>;

/// Sends what is read until the input ends, or something stops it: that is the failure.
async fn send(
    producer: &Producer,
    mut records: mpsc::Receiver<Read>,
    acks: mpsc::Sender<Ack>,
    acknowledged: Waiting,
    bar: &ProgressBar,
) -> (Option<Failure>, Waiting) {
    let interrupted = tokio::signal::ctrl_c();
    tokio::pin!(interrupted);
    loop {
        let read = tokio::select! {
            biased;
            _ = &mut interrupted => {
                let failure = Failure::new("interrupted: the rest of the input is not written").code("INTERRUPTED", Exit::Failed);
                return (Some(failure), acknowledged);
            }
            () = acks.closed() => return (None, acknowledged),
            read = records.recv() => read,
        };
        let message = match read {
            None => return (None, acknowledged),
            Some(Err(failure)) => return (Some(failure), acknowledged),
            Some(Ok((message, bytes))) => {
                bar.inc(bytes);
                message
            }
        };
        // Either ends only after a failure, which the acknowledgements tell.
        let Ok(ack) = producer.send(message).await else { return (None, acknowledged) };
        if acks.send(ack).await.is_err() {
            return (None, acknowledged);
        }
    }
}

fn refused(topic: &str, acknowledged: u64, server: &Server, error: &ClientError) -> Failure {
    let records = if acknowledged == 1 { "record is" } else { "records are" };
    Failure::call(format!("topic {topic} can't be written; {acknowledged} {records} acknowledged"), server, error)
}
