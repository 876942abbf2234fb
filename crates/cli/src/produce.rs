//! `lakebed produce`: one record a line.
//!
//! A line is a record when it ends in a newline or the input does; an empty line is an empty value. Bytes are kept as they are.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::time::Duration;

use bytes::Bytes;
use lakebed_client::{Client, partition_for_key};
use lakebed_wire::v1;
use tokio::sync::mpsc;

use crate::args::ProduceArgs;
use crate::failure::Failure;
use crate::output::Output;
use crate::server::Server;

/// A batch is sent when it has this many bytes or records, or when no line has come for [`LINGER`].
const BATCH_BYTES_MAX: usize = 512 * 1024;
const BATCH_RECORDS_MAX: usize = 5000;
/// How long a record waits for others.
const LINGER: Duration = Duration::from_millis(5);
/// Lines that wait to be sent.
const LINES_MAX: usize = 4096;

pub(crate) async fn run(args: ProduceArgs, output: Output) -> Result<(), Failure> {
    let (client, server) = args.server.connect().await?;
    let described = client.describe_topic(&args.topic).await;
    let described =
        described.map_err(|error| Failure::call(format!("topic {} can't be written", args.topic), &server, &error))?;
    let partitions = u32::try_from(described.partitions.len()).unwrap_or(1);
    let mut lines = open_lines(&args)?;
    let mut sender =
        Sender { client, server, topic: args.topic.clone(), buffers: BTreeMap::new(), bytes: 0, records: 0, sent: 0 };
    let mut round = 0_u32;
    loop {
        let line = match tokio::time::timeout(LINGER, lines.recv()).await {
            Err(_) => {
                sender.flush().await?;
                lines.recv().await
            }
            Ok(line) => line,
        };
        let Some(line) = line else { break };
        let line = line.map_err(|error| Failure::new("the input can't be read").cause(error))?;
        let (key, value) = split_line(&line, args.key_separator.as_deref().map(str::as_bytes));
        let partition = match (args.partition, &key) {
            (Some(partition), _) => partition,
            (None, Some(key)) => partition_for_key(key, partitions),
            // Records without a key stay together for a batch, then go to the next partition.
            (None, None) => round % partitions.max(1),
        };
        sender.buffer(partition, key, value);
        if sender.bytes >= BATCH_BYTES_MAX || sender.records >= BATCH_RECORDS_MAX {
            sender.flush().await?;
            round = round.wrapping_add(1);
        }
    }
    sender.flush().await?;
    output.notice(format!("produced {} records to {}", sender.sent, sender.topic));
    output.one(&serde_json::json!({ "topic": sender.topic, "records": sender.sent }), String::new)
}

struct Sender {
    client: Client,
    server: Server,
    topic: String,
    buffers: BTreeMap<u32, Vec<v1::Record>>,
    bytes: usize,
    records: usize,
    sent: u64,
}

impl Sender {
    fn buffer(&mut self, partition: u32, key: Option<Bytes>, value: Bytes) {
        self.bytes += value.len() + key.as_ref().map_or(0, Bytes::len);
        self.records += 1;
        let timestamp = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let timestamp = timestamp.ok().and_then(|since| i64::try_from(since.as_millis()).ok());
        let record = v1::Record { key, value: Some(value), timestamp, ..Default::default() };
        self.buffers.entry(partition).or_default().push(record);
    }

    async fn flush(&mut self) -> Result<(), Failure> {
        for (partition, records) in std::mem::take(&mut self.buffers) {
            let count = records.len() as u64;
            let partition =
                i32::try_from(partition).map_err(|_| Failure::new(format!("there is no partition {partition}")))?;
            let produced = self.client.produce(&self.topic, Some(partition), records).await;
            produced.map_err(|error| {
                let what = format!(
                    "{count} records for partition {partition} of {} are not acknowledged ({} before are)",
                    self.topic, self.sent
                );
                Failure::call(what, &self.server, &error)
            })?;
            self.sent += count;
        }
        (self.bytes, self.records) = (0, 0);
        Ok(())
    }
}

/// Reads lines on a thread of their own, for reading standard input blocks.
fn open_lines(args: &ProduceArgs) -> Result<mpsc::Receiver<std::io::Result<Bytes>>, Failure> {
    let input: Box<dyn Read + Send> = match &args.file {
        None => Box::new(std::io::stdin()),
        Some(path) => {
            let opened = std::fs::File::open(path);
            let what = || format!("{} (from --file) can't be opened", path.display());
            Box::new(opened.map_err(|error| Failure::file(what(), &error))?)
        }
    };
    let (sender, receiver) = mpsc::channel(LINES_MAX);
    std::thread::spawn(move || {
        let mut input = BufReader::with_capacity(1 << 20, input);
        loop {
            let mut line = Vec::new();
            let read = input.read_until(b'\n', &mut line);
            let message = match read {
                Ok(0) => return,
                Ok(_) => {
                    if line.last() == Some(&b'\n') {
                        line.pop();
                    }
                    Ok(Bytes::from(line))
                }
                Err(error) => Err(error),
            };
            let failed = message.is_err();
            if sender.blocking_send(message).is_err() || failed {
                return;
            }
        }
    });
    Ok(receiver)
}

/// Key and value of a line.
fn split_line(line: &Bytes, separator: Option<&[u8]>) -> (Option<Bytes>, Bytes) {
    let Some(separator) = separator.filter(|separator| !separator.is_empty()) else { return (None, line.clone()) };
    match line.windows(separator.len()).position(|window| window == separator) {
        Some(at) => (Some(line.slice(..at)), line.slice(at + separator.len()..)),
        None => (None, line.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_splits_at_the_first_separator_only() {
        let line = Bytes::from_static(b"a::b::c");
        assert_eq!(split_line(&line, Some(b"::")), (Some(Bytes::from_static(b"a")), Bytes::from_static(b"b::c")));
        assert_eq!(split_line(&line, Some(b"|")), (None, line.clone()));
        assert_eq!(split_line(&line, None), (None, line.clone()));
        let empty_key = Bytes::from_static(b"::v");
        assert_eq!(split_line(&empty_key, Some(b"::")), (Some(Bytes::new()), Bytes::from_static(b"v")));
    }
}
