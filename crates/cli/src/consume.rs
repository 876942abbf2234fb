//! `lakebed consume`: one line a record.

use std::io::Write;

use futures::StreamExt;
use lakebed_client::{ConsumeOptions, Start};
use lakebed_wire::v1;

use crate::args::{ConsumeArgs, From};
use crate::failure::{Exit, Failure};
use crate::output::Output;

pub(crate) async fn run(args: ConsumeArgs, _output: Output) -> Result<(), Failure> {
    if args.count == Some(0) {
        return Ok(());
    }
    let (client, server) = args.server.connect().await?;
    let start = match args.from {
        From::Start => Start::Earliest,
        From::End => Start::Latest,
        From::Offset(offset) => Start::Offset(offset),
    };
    let mut options = ConsumeOptions::new(&args.topic, start);
    options.partitions.extend(args.partition);
    let failed = |error: &_| Failure::call(format!("topic {} can't be read", args.topic), &server, error);
    let mut consumer = client.consume(options).await.map_err(|error| failed(&error))?;
    let mut left = args.count.unwrap_or(u64::MAX);
    let mut output = std::io::BufWriter::with_capacity(1 << 20, std::io::stdout().lock());
    while let Some(response) = consumer.next().await {
        let v1::consume_response::Response::Batch(batch) = response.map_err(|error| failed(&error))? else { continue };
        let Some(v1::consume_batch::Payload::Records(records)) = batch.payload else { continue };
        for record in records.records {
            if let Err(error) = write_record(&mut output, &record, args.key_separator.as_deref()) {
                return closed(error);
            }
            left -= 1;
            if left == 0 {
                return output
                    .flush()
                    .or_else(closed_io)
                    .map_err(|error| Failure::new("stdout can't be written").cause(error));
            }
        }
        if let Err(error) = output.flush() {
            return closed(error);
        }
    }
    Err(Failure::new("the broker ended the stream")
        .remedy("start again from the last offset that you have")
        .code("STREAM_ENDED", Exit::Unavailable))
}

fn write_record(output: &mut impl Write, record: &v1::Record, key_separator: Option<&str>) -> std::io::Result<()> {
    if let Some(separator) = key_separator {
        output.write_all(record.key.as_deref().unwrap_or_default())?;
        output.write_all(separator.as_bytes())?;
    }
    output.write_all(record.value.as_deref().unwrap_or_default())?;
    output.write_all(b"\n")
}

/// A reader that has gone (`| head`) is no failure.
fn closed(error: std::io::Error) -> Result<(), Failure> {
    closed_io(error).map_err(|error| Failure::new("stdout can't be written").cause(error))
}

fn closed_io(error: std::io::Error) -> std::io::Result<()> {
    if error.kind() == std::io::ErrorKind::BrokenPipe { Ok(()) } else { Err(error) }
}
