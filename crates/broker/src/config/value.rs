//! Values of settings: how they are written, and what they may be.
//!
//! Sizes are `512B`, `64KiB`, `256MiB`, `1GiB`, `2TiB` (`KB`, `MB`, `GB` count in thousands), durations `250ms`, `30s`, `10m`, `1h`, `7d`.

use std::fmt;
use std::time::Duration;

use super::{SecretProperties, check_origin, split_address};

/// What stands for "as suits the rest" where a setting has such a value.
pub const AUTO: &str = "auto";

/// A value of a setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// On or off.
    Switch(bool),
    /// Bytes.
    Size(u64),
    /// A time span.
    Span(Duration),
    /// A number of things.
    Count(u64),
    /// A text, an address or a URL; without secrets where it is shown.
    Text(String),
    /// None: what suits the rest.
    Auto,
}

/// What kind of value a setting takes, and its bounds (inclusive).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `true` or `false`.
    Switch,
    /// A size, in bytes.
    Size {
        /// The least.
        min: u64,
        /// The most.
        max: u64,
    },
    /// A time span.
    Span {
        /// The least.
        min: Duration,
        /// The most.
        max: Duration,
    },
    /// A number of things.
    Count {
        /// The least.
        min: u64,
        /// The most.
        max: u64,
    },
    /// `HOST:PORT`.
    Address,
    /// A URL or path; secrets in it are never shown.
    Url,
    /// Any text but none; what it must be else is looked at where it is used.
    Text,
    /// One of a few words.
    Choice(&'static [&'static str]),
    /// Origins of web pages, separated by commas, or `*`.
    Origins,
    /// `name=value`, separated by commas; most values are never shown.
    Properties,
}

impl Value {
    /// Whether it is on. Only for values of a [`Kind::Switch`].
    pub(super) fn switch(&self) -> bool {
        matches!(self, Self::Switch(true))
    }

    /// The number of bytes or things. Only for values of [`Kind::Size`] and [`Kind::Count`].
    pub(super) fn number(&self) -> usize {
        match self {
            Self::Size(number) | Self::Count(number) => usize::try_from(*number).unwrap_or(usize::MAX),
            other => unreachable!("the kind of the setting decides: {other:?} is no number"),
        }
    }

    /// The time span, unless it is `auto`.
    pub(super) fn span(&self) -> Option<Duration> {
        match self {
            Self::Span(span) => Some(*span),
            _ => None,
        }
    }

    /// The text, unless it is `auto`.
    pub(super) fn text(self) -> Option<String> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }
}

/// As it is written in a file, but without quotes.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Switch(on) => write!(f, "{on}"),
            Self::Size(bytes) => f.write_str(&size(*bytes)),
            Self::Span(span) => f.write_str(&time_span(*span)),
            Self::Count(count) => write!(f, "{count}"),
            Self::Text(text) => f.write_str(&lakebed_store::redact_url(text)),
            Self::Auto => f.write_str(AUTO),
        }
    }
}

impl Kind {
    /// Reads a value as it is written.
    ///
    /// # Errors
    /// What is wrong with it, for a person: "must be …".
    pub fn parse(&self, text: &str) -> Result<Value, String> {
        let value = match self {
            Self::Properties => {
                SecretProperties::from(text).check()?;
                Value::Text(text.to_owned())
            }
            Self::Switch => match text {
                "true" => Value::Switch(true),
                "false" => Value::Switch(false),
                _ => return Err("must be true or false".to_owned()),
            },
            Self::Size { .. } => Value::Size(parse_size(text)?),
            Self::Span { .. } => Value::Span(parse_time_span(text)?),
            Self::Count { .. } => Value::Count(text.parse().map_err(|_| "must be a whole number".to_owned())?),
            Self::Address | Self::Url | Self::Text | Self::Choice(_) | Self::Origins => Value::Text(text.to_owned()),
        };
        match self.complaint(&value) {
            Some(complaint) => Err(complaint),
            None => Ok(value),
        }
    }

    /// What is wrong with a value, for a person; nothing if it may be.
    pub fn complaint(&self, value: &Value) -> Option<String> {
        match (self, value) {
            (Self::Size { min, max }, Value::Size(bytes)) if !(min..=max).contains(&bytes) => {
                Some(format!("must be {} to {}", size(*min), size(*max)))
            }
            (Self::Span { min, max }, Value::Span(span)) if !(min..=max).contains(&span) => {
                Some(format!("must be {} to {}", time_span(*min), time_span(*max)))
            }
            (Self::Count { min, max }, Value::Count(count)) if !(min..=max).contains(&count) => {
                Some(format!("must be {min} to {max}"))
            }
            (Self::Address, Value::Text(text)) => split_address(text).err().map(str::to_owned),
            (Self::Url | Self::Text, Value::Text(text)) if text.is_empty() => Some("must be given".to_owned()),
            (Self::Origins, Value::Text(text)) => {
                let wrong = text.split(',').map(str::trim).find(|origin| check_origin(origin).is_err())?;
                check_origin(wrong).err().map(|what| format!("{what}, unlike {wrong:?}"))
            }
            (Self::Choice(words), Value::Text(text)) if !words.contains(&text.as_str()) => {
                Some(format!("must be {}", words.join(" or ")))
            }
            _ => None,
        }
    }

    /// What it takes, for a person.
    pub fn describe(&self) -> String {
        match self {
            Self::Switch => "true or false".to_owned(),
            Self::Size { min, max } => format!("a size, {} to {}", size(*min), size(*max)),
            Self::Span { min, max } => format!("a duration, {} to {}", time_span(*min), time_span(*max)),
            Self::Count { min, max } => format!("a number, {min} to {max}"),
            Self::Address => "an address, HOST:PORT".to_owned(),
            Self::Url => "a URL or a path".to_owned(),
            Self::Text => "a text".to_owned(),
            Self::Choice(words) => words.join(" or "),
            Self::Origins => "origins, separated by commas, or *".to_owned(),
            Self::Properties => "name=value, separated by commas".to_owned(),
        }
    }

    /// What stands for its value in help texts.
    pub fn placeholder(&self) -> &'static str {
        match self {
            Self::Switch => "true|false",
            Self::Size { .. } => "SIZE",
            Self::Span { .. } => "DURATION",
            Self::Count { .. } => "N",
            Self::Address => "ADDR",
            Self::Url => "URL",
            Self::Text => "TEXT",
            Self::Choice(_) => "WORD",
            Self::Origins => "ORIGINS",
            Self::Properties => "NAME=VALUE,…",
        }
    }
}

const SIZES: [(&str, u64); 12] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("B", 1),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1_000),
    ("G", 1 << 30),
    ("M", 1 << 20),
    ("K", 1 << 10),
];

const SPANS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Bytes of `1024`, `64KiB`, `256MiB`, `1GiB`; `KB`, `MB` and `GB` count in thousands.
///
/// # Errors
/// What is wrong with it, for a person.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let (number, unit) = number_and_unit(text).ok_or("must be a number with a unit, such as 256MiB")?;
    if unit.is_empty() {
        return Ok(number);
    }
    let unit = SIZES.iter().find(|(name, _)| *name == unit).ok_or_else(|| unknown_unit(unit, "B, KiB, MiB or GiB"))?;
    number.checked_mul(unit.1).ok_or_else(|| "is too large".to_owned())
}

/// The time span of `250ms`, `30s`, `10m`, `1h`, `7d`.
///
/// # Errors
/// What is wrong with it, for a person.
pub fn parse_time_span(text: &str) -> Result<Duration, String> {
    let (number, unit) = number_and_unit(text).ok_or("must be a number with a unit, such as 250ms or 10m")?;
    if unit.is_empty() && number > 0 {
        return Err(format!("needs a unit, such as {number}ms, {number}s or {number}m"));
    }
    let unit = if unit.is_empty() { "ms" } else { unit };
    let unit = SPANS.iter().find(|(name, _)| *name == unit).ok_or_else(|| unknown_unit(unit, "ms, s, m, h or d"))?;
    number.checked_mul(unit.1).map(Duration::from_millis).ok_or_else(|| "is too long".to_owned())
}

fn number_and_unit(text: &str) -> Option<(u64, &str)> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    Some((number.parse().ok()?, unit.trim_start()))
}

fn unknown_unit(unit: &str, units: &str) -> String {
    format!("has the unknown unit {unit:?}: use {units}")
}

/// A number of bytes in the largest unit in which it is whole.
pub(super) fn size(bytes: u64) -> String {
    whole(bytes, &SIZES[..5])
}

/// A time span in the largest unit in which it is whole.
pub(super) fn time_span(span: Duration) -> String {
    whole(u64::try_from(span.as_millis()).unwrap_or(u64::MAX), &SPANS)
}

fn whole(number: u64, units: &[(&str, u64)]) -> String {
    let fits = units.iter().find(|(_, factor)| number > 0 && number.is_multiple_of(*factor));
    let (name, factor) = fits.or(units.last()).expect("there are units");
    format!("{}{name}", number / factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_time_spans_are_read_and_written() {
        for (text, bytes) in
            [("256MiB", 256 << 20), ("1GiB", 1 << 30), ("2KB", 2000), ("1500", 1500), ("3 MiB", 3 << 20)]
        {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
            assert_eq!(parse_size(&size(bytes)), Ok(bytes), "{text}");
        }
        for (text, ms) in
            [("250ms", 250), ("0", 0), ("2s", 2000), ("10m", 600_000), ("1h", 3_600_000), ("7d", 604_800_000)]
        {
            assert_eq!(parse_time_span(text), Ok(Duration::from_millis(ms)), "{text}");
            assert_eq!(parse_time_span(&time_span(Duration::from_millis(ms))), Ok(Duration::from_millis(ms)), "{text}");
        }
        assert_eq!((size(1536), time_span(Duration::from_secs(90))), ("1536B".to_owned(), "90s".to_owned()));
    }

    #[test]
    fn what_is_wrong_with_a_size_or_time_span_is_told() {
        for (text, part) in
            [("", "such as"), ("MiB", "such as"), ("1XB", "unknown unit"), ("-1", "such as"), ("99999999TiB", "large")]
        {
            let complaint =
                parse_size(text).and_then(|bytes| Kind::Size { min: 0, max: 1 }.parse(&size(bytes)).map(|_| ()));
            assert!(complaint.clone().is_err_and(|complaint| complaint.contains(part)), "{text}: {complaint:?}");
        }
        for (text, part) in [("250", "250ms"), ("", "such as"), ("1y", "unknown unit"), ("1.5s", "unknown unit")] {
            assert!(parse_time_span(text).is_err_and(|complaint| complaint.contains(part)), "{text}");
        }
    }

    #[test]
    fn bounds_are_told_in_the_unit_of_the_value() {
        let kind = Kind::Size { min: 1 << 20, max: 1 << 30 };
        assert_eq!(kind.parse("1KiB"), Err("must be 1MiB to 1GiB".to_owned()));
        assert_eq!(kind.parse("1MiB"), Ok(Value::Size(1 << 20)));
        assert_eq!(kind.parse("1GiB"), Ok(Value::Size(1 << 30)));
        let kind = Kind::Span { min: Duration::from_secs(1), max: Duration::from_secs(60) };
        assert_eq!(kind.parse("0"), Err("must be 1s to 1m".to_owned()));
        assert_eq!(Kind::Count { min: 1, max: 2 }.parse("3"), Err("must be 1 to 2".to_owned()));
        assert_eq!(Kind::Choice(&["a", "b"]).parse("c"), Err("must be a or b".to_owned()));
        assert_eq!(Kind::Switch.parse("yes"), Err("must be true or false".to_owned()));
    }
}
