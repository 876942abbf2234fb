//! How records go into and out of the clients: lines of words, bytes as x and hexadecimal digits, null as -.

use std::error::Error;
use std::fmt::Write;
use std::io::BufRead;

/// Whatever goes wrong ends a client, which prints it.
pub type Done<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// Numbers go to the partition that they leave when divided by this.
pub const PARTITIONS: i32 = 4;

/// A record as it stands in a line: "timestamp key value name=value...".
#[derive(Debug)]
pub struct Line {
    pub timestamp_ms: i64,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

impl Line {
    /// Reads a line.
    pub fn parse(line: &str) -> Done<Self> {
        let mut words = line.split(' ');
        let timestamp_ms = words.next().ok_or("no time")?.parse()?;
        let key = bytes(words.next().ok_or("no key")?)?;
        let value = bytes(words.next().ok_or("no value")?)?;
        let mut headers = Vec::new();
        for word in words {
            let (name, value) = word.split_once('=').ok_or("a header has no value")?;
            headers.push((String::from_utf8(bytes(name)?.ok_or("a header has no name")?)?, bytes(value)?));
        }
        Ok(Self { timestamp_ms, key, value, headers })
    }
}

impl std::fmt::Display for Line {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{} {} {}", self.timestamp_ms, word(self.key.as_deref()), word(self.value.as_deref()))?;
        for (name, value) in &self.headers {
            write!(out, " {}={}", word(Some(name.as_bytes())), word(value.as_deref()))?;
        }
        Ok(())
    }
}

/// The records of standard input.
pub fn records() -> Done<Vec<Line>> {
    std::io::stdin().lock().lines().map(|line| Line::parse(&line?)).collect()
}

/// A channel of the numbers of standard input, one in a line; it ends with the input.
pub fn numbers() -> tokio::sync::mpsc::Receiver<i64> {
    let (sender, receiver) = tokio::sync::mpsc::channel(1000);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            let Some(number) = line.ok().and_then(|line| line.parse().ok()) else { return };
            if sender.blocking_send(number).is_err() {
                return;
            }
        }
    });
    receiver
}

fn bytes(word: &str) -> Done<Option<Vec<u8>>> {
    let Some(digits) = word.strip_prefix('x') else { return Ok(None) };
    let pairs = digits.as_bytes().chunks(2);
    let bytes: Result<Vec<u8>, _> = pairs.map(|pair| u8::from_str_radix(&String::from_utf8_lossy(pair), 16)).collect();
    Ok(Some(bytes?))
}

fn word(bytes: Option<&[u8]>) -> String {
    let Some(bytes) = bytes else { return "-".to_owned() };
    bytes.iter().fold("x".to_owned(), |mut word, byte| {
        let _ = write!(word, "{byte:02x}");
        word
    })
}
