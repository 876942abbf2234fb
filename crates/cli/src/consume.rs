//! `lakebed consume`: one line a record, or what `--format` says.
//!
//! Ends well at its bound, at SIGINT, and when nobody reads its output any more, even while it waits for records.

mod member;
mod pattern;

use std::io::{BufWriter, StdoutLock, Write};
use std::os::fd::AsFd;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures::StreamExt;
use indicatif::ProgressBar;
use lakebed_client::{Batch, Client, Consumer, Payload, Start, Stop};
use lakebed_wire::v1;
use tokio::io::Interest;
use tokio::net::unix::pipe::Sender;

pub(crate) use pattern::{FORMAT_HELP, Pattern};

use crate::args::{ConsumeArgs, Place};
use crate::failure::{Exit, Failure};
use crate::output::{Format, Output};
use crate::progress;
use crate::record_json::RecordJson;
use crate::server::Server;

pub(crate) async fn run(args: ConsumeArgs, output: Output) -> Result<(), Failure> {
    if args.format.is_some() && !output.is_table() {
        return Err(Failure::usage("--format and -o json or jsonl can't both say how records are printed"));
    }
    let (client, server) = args.server.connect().await?;
    if let Some(group) = &args.group {
        return member::run(&client, &server, group, &args, output).await;
    }
    let consumer = open(&client, &server, &args).await?;
    let mut printer = Printer::new(&args, output)?;
    let read = read(consumer, &args, &server, &mut printer).await;
    let token = match read {
        Ok(token) => token,
        Err(failure) => {
            // What was read before it failed is printed, and its place kept.
            let (token, failure) = *failure;
            finish(printer, &args, token)?;
            return Err(failure);
        }
    };
    finish(printer, &args, token)
}

fn start(place: Place) -> Start {
    match place {
        Place::Start => Start::Earliest,
        Place::End => Start::Latest,
        Place::Offset(offset) => Start::Offset(offset),
        Place::Time(timestamp_ms) => Start::Timestamp(timestamp_ms),
    }
}

async fn open(client: &Client, server: &Server, args: &ConsumeArgs) -> Result<Consumer, Failure> {
    let mut stop = Stop { records: args.count.filter(|count| *count > 0), latest: args.no_follow, ..Stop::default() };
    match args.until {
        None => {}
        Some(Place::Start) => return Err(Failure::usage("--until start would print nothing")),
        Some(Place::End) => stop.latest = true,
        Some(Place::Offset(offset)) => stop.offset = Some(offset),
        Some(Place::Time(timestamp_ms)) => stop.timestamp_ms = Some(timestamp_ms),
    }
    let mut builder = client.consumer(&args.topic, start(args.from)).stop(stop);
    for partition in &args.partition {
        builder = builder.partition(*partition);
    }
    if let Some(token) = args.resume.as_deref().map(read_token).transpose()?.flatten() {
        builder = builder.resume(token);
    }
    let opened = builder.open().await;
    opened.map_err(|error| Failure::call(format!("topic {} can't be read", args.topic), server, &error))
}

/// Prints until the end. The token of what was printed comes with either result.
async fn read(
    mut consumer: Consumer,
    args: &ConsumeArgs,
    server: &Server,
    printer: &mut Printer,
) -> Result<Bytes, Box<(Bytes, Failure)>> {
    let mut left = args.count.unwrap_or(u64::MAX);
    let mut token = consumer.resume_token();
    let ends = args.no_follow || args.until == Some(Place::End);
    let total = ends.then(|| {
        let tails = consumer.tails().values();
        tails.map(|tail| u64::try_from(tail.high_watermark - tail.next_offset).unwrap_or(0)).sum()
    });
    let bar = progress::of_records(total);
    let stdout = watched_stdout();
    let interrupted = tokio::signal::ctrl_c();
    tokio::pin!(interrupted);
    while left > 0 {
        let batch = tokio::select! {
            biased;
            () = reader_gone(stdout.as_ref()) => break,
            _ = &mut interrupted => break,
            batch = consumer.next() => batch,
        };
        let batch = match batch {
            None => break,
            Some(Ok(batch)) => batch,
            Some(Err(error)) => {
                let failure = Failure::call(format!("topic {} can't be read", args.topic), server, &error);
                return Err(Box::new((token, failure)));
            }
        };
        let printed = print(&batch, &mut left, &bar, printer);
        match printed {
            Ok(true) => token = batch.resume_token,
            Ok(false) => break,
            Err(error) => return closed(error).map(|()| token.clone()).map_err(|failure| Box::new((token, failure))),
        }
    }
    bar.finish_and_clear();
    Ok(token)
}

/// Prints a batch; answers whether all of it.
fn print(batch: &Batch, left: &mut u64, bar: &ProgressBar, printer: &mut Printer) -> std::io::Result<bool> {
    let Payload::Records(records) = &batch.payload else { return Ok(true) };
    for record in records {
        if *left == 0 {
            printer.out.flush()?;
            return Ok(false);
        }
        printer.write(batch.partition, record)?;
        *left -= 1;
    }
    bar.inc(records.len() as u64);
    printer.out.flush()?;
    Ok(true)
}

/// A pipe or a socket, whose other end may go; anything else can't be watched.
fn watched_stdout() -> Option<Sender> {
    let stdout = std::io::stdout().as_fd().try_clone_to_owned().ok();
    stdout.and_then(|fd| Sender::from_owned_fd_unchecked(fd).ok())
}

/// Waits until nobody reads what is printed.
async fn reader_gone(stdout: Option<&Sender>) {
    match stdout {
        Some(stdout) if stdout.ready(Interest::ERROR).await.is_ok() => {}
        _ => std::future::pending().await,
    }
}

/// Writes records to stdout.
struct Printer {
    out: BufWriter<StdoutLock<'static>>,
    topic: String,
    style: Style,
    printed: u64,
}

enum Style {
    Pattern(Pattern),
    /// One document with a list.
    Json,
    Jsonl,
}

impl Printer {
    fn new(args: &ConsumeArgs, output: Output) -> Result<Self, Failure> {
        let style = match (output.format, &args.format, &args.key_separator) {
            (Format::Json, ..) => Style::Json,
            (Format::Jsonl, ..) => Style::Jsonl,
            (Format::Table, Some(pattern), _) => Style::Pattern(pattern.clone()),
            (Format::Table, None, Some(separator)) => Style::Pattern(Pattern::key_and_value(separator)),
            (Format::Table, None, None) => Style::Pattern(Pattern::value()),
        };
        let out = BufWriter::with_capacity(1 << 20, std::io::stdout().lock());
        let mut printer = Self { out, topic: args.topic.clone(), style, printed: 0 };
        if matches!(printer.style, Style::Json) {
            printer.out.write_all(b"{\"records\": [").or_else(closed)?;
        }
        Ok(printer)
    }

    fn write(&mut self, partition: i32, record: &v1::Record) -> std::io::Result<()> {
        match &self.style {
            Style::Pattern(pattern) => pattern.write(&mut self.out, &self.topic, partition, record)?,
            Style::Json | Style::Jsonl => {
                if matches!(self.style, Style::Json) {
                    self.out.write_all(if self.printed == 0 { b"\n" } else { b",\n" })?;
                }
                serde_json::to_writer(&mut self.out, &RecordJson::new(&self.topic, partition, record))?;
                if matches!(self.style, Style::Jsonl) {
                    self.out.write_all(b"\n")?;
                }
            }
        }
        self.printed += 1;
        Ok(())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.out.flush()
    }

    fn end(mut self) -> Result<(), Failure> {
        if matches!(self.style, Style::Json) {
            let end: &[u8] = if self.printed == 0 { b"]}\n" } else { b"\n]}\n" };
            self.out.write_all(end).or_else(closed)?;
        }
        self.out.flush().or_else(closed)
    }
}

fn finish(printer: Printer, args: &ConsumeArgs, token: Bytes) -> Result<(), Failure> {
    printer.end()?;
    match &args.resume {
        Some(path) if !token.is_empty() => write_token(path, &token),
        _ => Ok(()),
    }
}

/// A reader that has gone (`| head`) is no failure.
fn closed(error: std::io::Error) -> Result<(), Failure> {
    match error.kind() {
        std::io::ErrorKind::BrokenPipe => Ok(()),
        _ => Err(Failure::new("stdout can't be written").cause(error)),
    }
}

/// The token of a file; none if there is no such file.
fn read_token(path: &Path) -> Result<Option<Bytes>, Failure> {
    let text = match std::fs::read_to_string(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => {
            return Err(Failure::file(format!("{} (from --resume) can't be read", path.display()), &error));
        }
        Ok(text) => text,
    };
    let token = STANDARD.decode(text.trim()).map_err(|error| {
        Failure::new(format!("{} (from --resume) holds no resume token", path.display()))
            .cause(error)
            .remedy("name the file that an earlier consume wrote, or remove it to begin at --from")
            .code("INVALID_RESUME_TOKEN", Exit::Usage)
    })?;
    Ok(Some(Bytes::from(token)))
}

/// Replaces the file as a whole: a token that was written half is none.
fn write_token(path: &Path, token: &[u8]) -> Result<(), Failure> {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let text = STANDARD.encode(token) + "\n";
    let written = std::fs::write(&name, text).and_then(|()| std::fs::rename(&name, path));
    written.map_err(|error| Failure::file(format!("{} (from --resume) can't be written", path.display()), &error))
}
