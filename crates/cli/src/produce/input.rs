//! Where records come from. Files and standard input are read on a thread of their own, for reading them blocks.

use std::fs::File;
use std::io::{BufRead, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use lakebed_client::Message;
use lakebed_wire::v1;
use tokio::sync::mpsc;

use crate::args::{Input, ProduceArgs};
use crate::failure::Failure;
use crate::record_json;

/// Records that wait to be sent.
const RECORDS_MAX: usize = 1024;
/// Largest line or file that becomes a record: no broker takes more.
const RECORD_BYTES_MAX: u64 = 128 << 20;

/// A record with the bytes of input that it was, or why reading ends.
pub(super) type Read = Result<(Message, u64), Failure>;

/// Opens the input; answers its records, and its bytes if they are known.
///
/// # Errors
/// A file can't be opened.
pub(super) fn open(args: &ProduceArgs) -> Result<(mpsc::Receiver<Read>, Option<u64>), Failure> {
    let (sender, receiver) = mpsc::channel(RECORDS_MAX);
    let mut files = Vec::new();
    let mut total = Some(0);
    for path in &args.file {
        let opened = File::open(path);
        let file = opened
            .map_err(|error| Failure::file(format!("{} (from --file) can't be opened", path.display()), &error))?;
        let size = file.metadata().ok().filter(std::fs::Metadata::is_file).map(|metadata| metadata.len());
        total = total.zip(size).map(|(total, size)| total + size);
        files.push((path.clone(), file));
    }
    let shape = Shape {
        input: args.input,
        separator: args.key_separator.clone().map(String::into_bytes).filter(|separator| !separator.is_empty()),
        key: args.key.clone().map(Bytes::from),
        headers: args.header.clone(),
        tombstones: args.tombstones,
        null: args.null.clone().map(String::into_bytes),
        partition: args.partition.map(|partition| i32::try_from(partition).unwrap_or(i32::MAX)),
    };
    let total = total.filter(|_| !files.is_empty());
    std::thread::spawn(move || {
        if files.is_empty() {
            drop(shape.read("standard input", std::io::stdin(), &sender));
        }
        for (path, file) in files {
            if shape.read(&name(&path), file, &sender).is_err() {
                return;
            }
        }
    });
    Ok((receiver, total))
}

fn name(path: &Path) -> String {
    PathBuf::from(path).display().to_string()
}

/// How input becomes records.
struct Shape {
    input: Input,
    separator: Option<Vec<u8>>,
    key: Option<Bytes>,
    headers: Vec<(String, String)>,
    tombstones: bool,
    null: Option<Vec<u8>>,
    partition: Option<i32>,
}

/// Nobody takes records any more, or reading has failed.
struct Ended;

impl Shape {
    fn read(&self, name: &str, input: impl std::io::Read, records: &mpsc::Sender<Read>) -> Result<(), Ended> {
        let mut input = BufReader::with_capacity(1 << 20, input);
        let mut number = 0_u64;
        loop {
            number += 1;
            let mut text = Vec::new();
            let mut bounded = input.by_ref().take(RECORD_BYTES_MAX);
            let read = match self.input {
                Input::Whole => bounded.read_to_end(&mut text),
                Input::Lines | Input::Json => bounded.read_until(b'\n', &mut text),
            };
            let size = text.len() as u64;
            let place = match self.input {
                Input::Whole => name.to_owned(),
                Input::Lines | Input::Json => format!("line {number} of {name}"),
            };
            let record = match read {
                Err(error) => Err(Failure::file(format!("{name} can't be read"), &error)),
                Ok(0) if self.input != Input::Whole => return Ok(()),
                Ok(_) if size >= RECORD_BYTES_MAX => {
                    let what = format!("{place} is larger than any record, {RECORD_BYTES_MAX} bytes");
                    Err(Failure::new(what).remedy("see what a record is with `lakebed produce --help`, --input"))
                }
                Ok(_) => self.record(text).map(|message| (message, size)).map_err(|error| {
                    Failure::new(format!("{place} {error}")).remedy("see the form with `lakebed produce --help`")
                }),
            };
            let failed = record.is_err();
            if records.blocking_send(record).is_err() || failed {
                return Err(Ended);
            }
            if self.input == Input::Whole {
                return Ok(());
            }
        }
    }

    /// The record that a line or a file is.
    fn record(&self, mut text: Vec<u8>) -> Result<Message, String> {
        if self.input != Input::Whole && text.last() == Some(&b'\n') {
            text.pop();
        }
        let mut message = match self.input {
            Input::Json => record_json::parse(&text)?,
            Input::Lines => {
                let text = Bytes::from(text);
                let (key, value) = split(&text, self.separator.as_deref());
                Message::from(v1::Record { key, value: Some(value), ..v1::Record::default() })
            }
            Input::Whole => Message::new(text),
        };
        let record = message.record_mut();
        record.key = record.key.take().filter(|key| self.null.as_deref() != Some(key)).or_else(|| self.key.clone());
        record.value = record
            .value
            .take()
            .filter(|value| self.null.as_deref() != Some(value) && !(self.tombstones && value.is_empty()));
        record.timestamp = record.timestamp.or_else(now_ms);
        let more = self.headers.iter();
        record
            .headers
            .extend(more.map(|(key, value)| v1::Header { key: key.clone(), value: Some(Bytes::from(value.clone())) }));
        Ok(match self.partition {
            Some(partition) => message.partition(partition),
            None => message,
        })
    }
}

fn now_ms() -> Option<i64> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
    i64::try_from(since.as_millis()).ok()
}

/// Key and value of a line.
fn split(line: &Bytes, separator: Option<&[u8]>) -> (Option<Bytes>, Bytes) {
    let Some(separator) = separator else { return (None, line.clone()) };
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
        assert_eq!(split(&line, Some(b"::")), (Some(Bytes::from_static(b"a")), Bytes::from_static(b"b::c")));
        assert_eq!(split(&line, Some(b"|")), (None, line.clone()));
        assert_eq!(split(&line, None), (None, line.clone()));
        let empty_key = Bytes::from_static(b"::v");
        assert_eq!(split(&empty_key, Some(b"::")), (Some(Bytes::new()), Bytes::from_static(b"v")));
    }
}
