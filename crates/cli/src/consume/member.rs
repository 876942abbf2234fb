//! `lakebed consume TOPIC --group GROUP`: as a member of a group.
//!
//! What is committed has been printed: a batch is printed and flushed before the next one is asked for, and counts as used then.

use std::time::Duration;

use futures::StreamExt;
use lakebed_client::{Client, ClientError, GroupBatch, GroupConsumer};

use super::{Printer, closed, reader_gone, start, watched_stdout};
use crate::args::ConsumeArgs;
use crate::failure::Failure;
use crate::output::Output;
use crate::progress;
use crate::server::Server;

/// How often what was printed is committed.
const COMMIT_INTERVAL: Duration = Duration::from_secs(1);

/// How printing ended.
enum Ended {
    /// At a bound, an interrupt, or because nobody reads any more.
    Well,
    Failed(Failure),
}

pub(super) async fn run(
    client: &Client,
    server: &Server,
    group: &str,
    args: &ConsumeArgs,
    output: Output,
) -> Result<(), Failure> {
    let failure = |error: &ClientError| {
        Failure::call(format!("topic {} can't be read by group {group}", args.topic), server, error)
    };
    let topic = client.describe_topic(&args.topic).await.map_err(|error| failure(&error))?;
    drop(topic);
    let mut builder = client.group(group).topic(&args.topic).start(start(args.from)).client_id("lakebed");
    builder = builder.commit_interval(Some(COMMIT_INTERVAL));
    if let Some(instance) = &args.instance {
        builder = builder.instance_id(instance);
    }
    let mut member = builder.open().await.map_err(|error| failure(&error))?;
    let mut printer = Printer::new(args, output)?;
    let ended = read(&mut member, args, &mut printer, failure).await;
    let printed = printer.end();
    match ended {
        Ended::Failed(failure) => {
            // The failure says more than one of leaving after it.
            drop(member.close().await);
            Err(failure)
        }
        Ended::Well => {
            let left = member.close().await;
            printed?;
            left.map_err(|error| Failure::call("what was printed last may not be committed".to_owned(), server, &error))
        }
    }
}

async fn read(
    member: &mut GroupConsumer,
    args: &ConsumeArgs,
    printer: &mut Printer,
    failure: impl Fn(&ClientError) -> Failure,
) -> Ended {
    let mut left = args.count.unwrap_or(u64::MAX);
    let bar = progress::of_records(args.count);
    let stdout = watched_stdout();
    let interrupted = tokio::signal::ctrl_c();
    tokio::pin!(interrupted);
    while left > 0 {
        let batch = tokio::select! {
            biased;
            () = reader_gone(stdout.as_ref()) => break,
            _ = &mut interrupted => break,
            batch = member.next() => batch,
        };
        let batch = match batch {
            None => break,
            Some(Ok(batch)) => batch,
            Some(Err(error)) => return Ended::Failed(failure(&error)),
        };
        let printed = print(&batch, &mut left, printer);
        bar.inc(printed.count);
        if printed.count < batch.records.len() as u64 {
            let first_left = usize::try_from(printed.count).ok().and_then(|at| batch.records.get(at));
            member.unread(first_left.and_then(|record| record.offset).unwrap_or(batch.next_offset));
        }
        if let Err(error) = printed.result {
            match closed(error) {
                Ok(()) => break,
                Err(failure) => return Ended::Failed(failure),
            }
        }
    }
    bar.finish_and_clear();
    Ended::Well
}

/// What came of printing a batch.
struct Printed {
    /// How many of its records are with the reader, as far as can be told.
    count: u64,
    result: std::io::Result<()>,
}

fn print(batch: &GroupBatch, left: &mut u64, printer: &mut Printer) -> Printed {
    let mut count = 0;
    for record in &batch.records {
        if *left == 0 {
            break;
        }
        if let Err(error) = printer.write(batch.partition, record) {
            return Printed { count: 0, result: Err(error) };
        }
        *left -= 1;
        count += 1;
    }
    match printer.flush() {
        Ok(()) => Printed { count, result: Ok(()) },
        // Nothing of it may have been read.
        Err(error) => Printed { count: 0, result: Err(error) },
    }
}
