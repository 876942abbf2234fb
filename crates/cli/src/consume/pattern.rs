//! The language of `--format`: after the one of `rpk topic consume`, one letter a part of the record.

use std::io::Write;
use std::time::{Duration, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use lakebed_wire::v1;

use crate::record_json::{header_list, text_or_base64};

/// What `--help` says about it.
pub(crate) const FORMAT_HELP: &str = "Patterns for --format:
  %t topic        %k key        %K length of the key      %T timestamp, in milliseconds since 1970
  %p partition    %v value      %V length of the value    %T{s} in seconds, %T{rfc3339} as a date
  %o offset       %h headers    %H number of headers      %% a percent sign
Keys, values and headers are printed as they are, or with {hex}, {base64} or {json}: %k{hex}, %v{json}. %h prints name=value,name=value.
What a record does not have is nothing, -1 for %K, %V and %T, null with {json}. Escapes: \\n \\t \\r \\0 \\\\ \\xHH.";

/// A pattern that was understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pattern(Vec<Piece>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(Vec<u8>),
    Topic,
    Partition,
    Offset,
    Key(Encoding),
    Value(Encoding),
    KeyLength,
    ValueLength,
    Headers(Encoding),
    HeaderCount,
    Timestamp(Unit),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Encoding {
    Raw,
    Hex,
    Base64,
    Json,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    Milliseconds,
    Seconds,
    Rfc3339,
}

impl Pattern {
    /// Understands a pattern.
    ///
    /// # Errors
    /// What is wrong, and what there is.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut plain = Vec::new();
        let mut left = text.chars();
        while let Some(c) = left.next() {
            match c {
                '%' => match parse_part(&mut left)? {
                    Piece::Text(text) => plain.extend(text),
                    part => {
                        if !plain.is_empty() {
                            pieces.push(Piece::Text(std::mem::take(&mut plain)));
                        }
                        pieces.push(part);
                    }
                },
                '\\' => plain.push(parse_escape(&mut left)?),
                c => plain.extend(c.to_string().bytes()),
            }
        }
        if !plain.is_empty() {
            pieces.push(Piece::Text(plain));
        }
        Ok(Self(pieces))
    }

    /// Key, separator, value and the end of the line.
    pub(crate) fn key_and_value(separator: &str) -> Self {
        let [key, value] = [Piece::Key(Encoding::Raw), Piece::Value(Encoding::Raw)];
        Self(vec![key, Piece::Text(separator.into()), value, Piece::Text(b"\n".to_vec())])
    }

    /// The value and the end of the line.
    pub(crate) fn value() -> Self {
        Self(vec![Piece::Value(Encoding::Raw), Piece::Text(b"\n".to_vec())])
    }

    /// Writes a record.
    pub(crate) fn write(
        &self,
        out: &mut impl Write,
        topic: &str,
        partition: i32,
        record: &v1::Record,
    ) -> std::io::Result<()> {
        let length = |bytes: Option<&bytes::Bytes>| bytes.map_or(-1, |bytes| bytes.len() as i64);
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => out.write_all(text)?,
                Piece::Topic => write!(out, "{topic}")?,
                Piece::Partition => write!(out, "{partition}")?,
                Piece::Offset => write!(out, "{}", record.offset.unwrap_or(-1))?,
                Piece::Key(encoding) => write_bytes(out, record.key.as_deref(), *encoding)?,
                Piece::Value(encoding) => write_bytes(out, record.value.as_deref(), *encoding)?,
                Piece::KeyLength => write!(out, "{}", length(record.key.as_ref()))?,
                Piece::ValueLength => write!(out, "{}", length(record.value.as_ref()))?,
                Piece::Headers(encoding) => write_headers(out, &record.headers, *encoding)?,
                Piece::HeaderCount => write!(out, "{}", record.headers.len())?,
                Piece::Timestamp(unit) => write_timestamp(out, record.timestamp, *unit)?,
            }
        }
        Ok(())
    }
}

fn parse_part(left: &mut std::str::Chars<'_>) -> Result<Piece, String> {
    let letter = left.next().ok_or("ends in %; write %% for a percent sign")?;
    let modifier = match left.as_str().strip_prefix('{') {
        None => None,
        Some(rest) => {
            let (name, rest) = rest.split_once('}').ok_or_else(|| format!("%{letter}{{ has no closing brace"))?;
            *left = rest.chars();
            Some(name)
        }
    };
    let encoding = |modifier| match modifier {
        None => Ok(Encoding::Raw),
        Some("hex") => Ok(Encoding::Hex),
        Some("base64") => Ok(Encoding::Base64),
        Some("json") => Ok(Encoding::Json),
        Some(other) => Err(format!("%{letter}{{{other}}} is unknown: there are hex, base64 and json")),
    };
    let plain = |piece| match modifier {
        None => Ok(piece),
        Some(other) => Err(format!("%{letter} has no {{{other}}}")),
    };
    match letter {
        'k' => encoding(modifier).map(Piece::Key),
        'v' => encoding(modifier).map(Piece::Value),
        'h' => encoding(modifier).map(Piece::Headers),
        'T' => match modifier {
            None | Some("ms") => Ok(Piece::Timestamp(Unit::Milliseconds)),
            Some("s") => Ok(Piece::Timestamp(Unit::Seconds)),
            Some("rfc3339") => Ok(Piece::Timestamp(Unit::Rfc3339)),
            Some(other) => Err(format!("%T{{{other}}} is unknown: there are ms, s and rfc3339")),
        },
        't' => plain(Piece::Topic),
        'p' => plain(Piece::Partition),
        'o' => plain(Piece::Offset),
        'K' => plain(Piece::KeyLength),
        'V' => plain(Piece::ValueLength),
        'H' => plain(Piece::HeaderCount),
        '%' => plain(Piece::Text(b"%".to_vec())),
        other => Err(format!("%{other} is unknown: there are %t %p %o %k %v %K %V %h %H %T and %%")),
    }
}

fn parse_escape(left: &mut std::str::Chars<'_>) -> Result<u8, String> {
    match left.next() {
        Some('n') => Ok(b'\n'),
        Some('t') => Ok(b'\t'),
        Some('r') => Ok(b'\r'),
        Some('0') => Ok(0),
        Some('\\') => Ok(b'\\'),
        Some('x') => {
            let digits: String = left.by_ref().take(2).collect();
            match u8::from_str_radix(&digits, 16) {
                Ok(byte) if digits.len() == 2 && !digits.starts_with('+') => Ok(byte),
                _ => Err(format!("\\x{digits} is no byte: two hexadecimal digits follow \\x")),
            }
        }
        Some(other) => Err(format!("\\{other} is unknown: there are \\n \\t \\r \\0 \\\\ and \\xHH")),
        None => Err("ends in a backslash; write \\\\ for one".to_owned()),
    }
}

fn write_bytes(out: &mut impl Write, bytes: Option<&[u8]>, encoding: Encoding) -> std::io::Result<()> {
    match (bytes, encoding) {
        (_, Encoding::Json) => write!(out, "{}", text_or_base64(bytes)),
        (None, _) => Ok(()),
        (Some(bytes), Encoding::Raw) => out.write_all(bytes),
        (Some(bytes), Encoding::Hex) => bytes.iter().try_for_each(|byte| write!(out, "{byte:02x}")),
        (Some(bytes), Encoding::Base64) => write!(out, "{}", STANDARD.encode(bytes)),
    }
}

fn write_headers(out: &mut impl Write, headers: &[v1::Header], encoding: Encoding) -> std::io::Result<()> {
    if encoding == Encoding::Json {
        return write!(out, "{}", header_list(headers));
    }
    for (index, header) in headers.iter().enumerate() {
        let comma = if index == 0 { "" } else { "," };
        write!(out, "{comma}{}=", header.key)?;
        write_bytes(out, header.value.as_deref(), encoding)?;
    }
    Ok(())
}

fn write_timestamp(out: &mut impl Write, timestamp_ms: Option<i64>, unit: Unit) -> std::io::Result<()> {
    let Some(timestamp_ms) = timestamp_ms else { return write!(out, "-1") };
    match unit {
        Unit::Milliseconds => write!(out, "{timestamp_ms}"),
        Unit::Seconds => write!(out, "{}", timestamp_ms.div_euclid(1000)),
        Unit::Rfc3339 => {
            let time =
                u64::try_from(timestamp_ms).ok().and_then(|ms| UNIX_EPOCH.checked_add(Duration::from_millis(ms)));
            // Years of five digits and times before 1970 have no such form.
            match time.filter(|_| timestamp_ms < 253_402_300_800_000) {
                Some(time) => write!(out, "{}", humantime::format_rfc3339_millis(time)),
                None => write!(out, "{timestamp_ms}"),
            }
        }
    }
}

#[cfg(test)]
mod tests;
