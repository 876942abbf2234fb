//! `lakebed-check.json`: whether the store kept its promises when it was checked. Beside the root, and no part of the log.

use serde::{Deserialize, Serialize};

use crate::FORMAT;
use crate::checksum::{open_json, seal_json};
use crate::error::{FormatError, malformed};

/// Most promises that a verdict names.
const BROKEN_MAX: usize = 100;

/// What a check of the store came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The promises that were not kept; none of them: the store passed.
    pub broken: Vec<Broken>,
    /// When it was checked, in milliseconds since 1970 by the clock of who checked.
    pub time_ms: i64,
    /// The version of Lakebed that checked.
    pub version: String,
}

/// A promise that the store did not keep.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Broken {
    /// Which, such as `create-if-absent`.
    pub promise: String,
    /// What the store did, for a person.
    pub what: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct VerdictV1 {
    format: u32,
    verdict: String,
    broken: Vec<Broken>,
    time_ms: i64,
    version: String,
}

impl Verdict {
    /// Whether every promise was kept.
    pub fn passed(&self) -> bool {
        self.broken.is_empty()
    }

    fn word(&self) -> &'static str {
        if self.passed() { "passed" } else { "failed" }
    }

    /// The bytes of `lakebed-check.json`.
    pub fn encode(&self) -> Vec<u8> {
        let Self { broken, time_ms, version } = self.clone();
        seal_json(&VerdictV1 { format: FORMAT, verdict: self.word().to_owned(), broken, time_ms, version })
    }

    /// Reads `lakebed-check.json`.
    ///
    /// # Errors
    /// It is of a newer format, or damaged.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let VerdictV1 { format, verdict, broken, time_ms, version } = open_json("lakebed-check.json", bytes)?;
        let read = Self { broken, time_ms, version };
        if format != FORMAT || verdict != read.word() || read.broken.len() > BROKEN_MAX {
            let count = read.broken.len();
            return Err(malformed(format!(
                "lakebed-check.json: format {format}, {verdict} with {count} broken promises"
            )));
        }
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(broken: &[(&str, &str)]) -> Verdict {
        let broken = broken.iter().map(|(promise, what)| Broken { promise: (*promise).into(), what: (*what).into() });
        Verdict { broken: broken.collect(), time_ms: 7, version: "0.1.0".to_owned() }
    }

    #[test]
    fn a_verdict_is_read_back_and_no_byte_of_it_can_change() {
        for verdict in [verdict(&[]), verdict(&[("create-if-absent", "2 of 16 rivals created 'x'")])] {
            let bytes = verdict.encode();
            assert_eq!(Verdict::decode(&bytes), Ok(verdict));
            for index in 0..bytes.len() {
                let mut flipped = bytes.clone();
                flipped[index] ^= 1;
                assert!(Verdict::decode(&flipped).is_err() && Verdict::decode(&bytes[..index]).is_err(), "{index}");
            }
        }
    }
}
