//! Which values may stand in a column that says that it holds texts, or JSON.
//!
//! SUBTLE: readers parse every value of a column that is annotated as JSON, and one that they can't parse fails the query, not the row. So it is not
//! enough that a value looks like JSON: nothing may be annotated that one of them refuses. DuckDB refuses a lone surrogate, and an early version
//! crashes on 100,000 brackets; a number beyond an f64 is read as text by one and as infinity by another.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};

use super::ValueFormat;

impl ValueFormat {
    /// Whether a value may stand in `value`; else it stands in `_kafka_value_raw`.
    ///
    /// JSON is one text of RFC 8259 without a byte order mark: at most 127 brackets deep, no number beyond an f64, no escape of half a surrogate
    /// pair. Names may be there twice.
    ///
    /// # Cost
    /// Reads the value once; of JSON it copies one string or name at a time if that has escapes.
    pub fn holds(self, value: &[u8]) -> bool {
        match self {
            Self::Binary => true,
            Self::String => std::str::from_utf8(value).is_ok(),
            Self::Json => std::str::from_utf8(value).is_ok_and(|text| serde_json::from_str::<Checked>(text).is_ok()),
        }
    }
}

/// JSON that was parsed and forgotten.
///
/// SUBTLE: not serde's `IgnoredAny`, for which serde_json takes any depth and any escape.
struct Checked;

impl<'de> Deserialize<'de> for Checked {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Self)
    }
}

impl<'de> Visitor<'de> for Checked {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_str<E>(self, _: &str) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self, A::Error> {
        while items.next_element::<Self>()?.is_some() {}
        Ok(self)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self, A::Error> {
        while members.next_entry::<Self, Self>()?.is_some() {}
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nested(depth: usize) -> Vec<u8> {
        format!("{}{}", "[".repeat(depth), "]".repeat(depth)).into_bytes()
    }

    fn members(depth: usize) -> Vec<u8> {
        format!("{}1{}", "{\"a\":".repeat(depth), "}".repeat(depth)).into_bytes()
    }

    fn number(digits: usize) -> Vec<u8> {
        format!("{{\"n\":{}}}", "9".repeat(digits)).into_bytes()
    }

    #[test]
    fn json_is_what_every_reader_takes() {
        let good: Vec<Vec<u8>> = vec![
            b"null".into(),
            b" \t\r\n{\"user_id\": 1}\r\n ".into(),
            b"{}".into(),
            b"[]".into(),
            b"\"\"".into(),
            b"-0".into(),
            b"1e-999".into(),
            b"18446744073709551616".into(),
            b"{\"a\":1,\"a\":2,\"\":3}".into(),
            b"\"\\u0000\\ud83d\\ude00\\/\"".into(),
            "\"Gr\u{fc}\u{df}e \u{ffff}\u{10ffff}\u{7f}\"".into(),
            number(308),
            nested(127),
            members(127),
        ];
        for value in good {
            assert!(ValueFormat::Json.holds(&value), "{}", String::from_utf8_lossy(&value));
        }
    }

    #[test]
    fn what_one_reader_refuses_is_no_json() {
        let bad: Vec<Vec<u8>> = vec![
            b"".into(),
            b" ".into(),
            b"{".into(),
            b"{\"user_id\": 1} x".into(),
            b"{\"a\":1}\n{\"a\":2}".into(),
            b"{\"a\":1,}".into(),
            b"{\"a\":1}\0".into(),
            b"{'a':1}".into(),
            b"{a:1}".into(),
            b"{1:1}".into(),
            b"/**/1".into(),
            b"NaN".into(),
            b"[Infinity]".into(),
            b"[-Infinity]".into(),
            b"True".into(),
            b"01".into(),
            b"+1".into(),
            b".5".into(),
            b"1.".into(),
            b"-".into(),
            b"1e999".into(),
            b"-1e999".into(),
            b"\"\\ud800\"".into(),
            b"\"\\udc00\"".into(),
            b"\"\\ud800\\ud800\"".into(),
            b"{\"\\ud800\":1}".into(),
            b"\"\\x41\"".into(),
            b"\"\\uABCG\"".into(),
            b"\"a\tb\"".into(),
            b"\"a\0b\"".into(),
            b"\xef\xbb\xbf{}".into(),
            b"\x0c{}".into(),
            b"\xc2\xa0{}".into(),
            b"\"\xff\"".into(),
            b"\"\xc0\x80\"".into(),
            b"\"\xed\xa0\x80\"".into(),
            number(400),
            nested(128),
            members(128),
            nested(1_000_000),
            b"[".repeat(1_000_000),
        ];
        for value in bad {
            let shown = String::from_utf8_lossy(&value[..value.len().min(80)]).into_owned();
            assert!(!ValueFormat::Json.holds(&value), "{shown}");
        }
    }

    #[test]
    fn texts_are_utf_8_and_bytes_are_anything() {
        for (value, is_text) in [(&b""[..], true), (b"a\0b", true), (b"\xff", false), (b"\xed\xa0\x80", false)] {
            assert_eq!(ValueFormat::String.holds(value), is_text, "{value:?}");
            assert!(ValueFormat::Binary.holds(value));
        }
    }
}
