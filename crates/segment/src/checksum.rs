//! CRC-32C, and JSON documents that carry their own.

use std::ops::Range;

use crc_fast::{CrcAlgorithm, Digest};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::FORMAT;
use crate::error::{FormatError, malformed};

/// How many hexadecimal digits a CRC-32C has in text.
pub(crate) const DIGITS: usize = 8;

/// What every document ends with, but for the digits in the middle.
const SEAL_START: &[u8] = b",\"crc32c\":\"";
const SEAL_END: &[u8] = b"\"}\n";

/// CRC-32C (Castagnoli, RFC 3720).
pub(crate) fn crc32c(bytes: &[u8]) -> u32 {
    crc_fast::crc32_iscsi(bytes)
}

/// CRC-32C of `bytes` with the bytes at `digits` taken as ASCII zeros.
pub(crate) fn crc32c_with_zeros(bytes: &[u8], digits: Range<usize>) -> u32 {
    let mut digest = Digest::new(CrcAlgorithm::Crc32Iscsi);
    digest.update(&bytes[..digits.start]);
    digest.update(&[b'0'; DIGITS][..digits.len()]);
    digest.update(&bytes[digits.end..]);
    digest.finalize() as u32
}

/// Reads exactly eight lower-case hexadecimal digits.
pub(crate) fn parse_digits(digits: &[u8]) -> Result<u32, FormatError> {
    let text = std::str::from_utf8(digits).ok().filter(|text| text.len() == DIGITS);
    let value = text.and_then(|text| u32::from_str_radix(text, 16).ok());
    match value {
        Some(value) if format!("{value:08x}").as_bytes() == digits => Ok(value),
        _ => Err(malformed("a checksum is not eight hexadecimal digits")),
    }
}

/// Writes a document that ends with its own checksum: the CRC-32C of all its bytes with the digits as zeros.
pub(crate) fn seal_json<T: Serialize>(document: &T) -> Vec<u8> {
    let mut bytes = serde_json::to_vec(document).expect("persisted types have string keys and no failing serializer");
    assert!(bytes.len() > 2 && bytes.pop() == Some(b'}'), "a document is an object with fields");
    bytes.extend_from_slice(SEAL_START);
    let start = bytes.len();
    bytes.extend_from_slice(&[b'0'; DIGITS]);
    bytes.extend_from_slice(SEAL_END);
    let digits = format!("{:08x}", crc32c(&bytes));
    bytes[start..start + DIGITS].copy_from_slice(digits.as_bytes());
    bytes
}

/// Reads a document of [`seal_json`]: the format first, then the checksum, then the rest.
///
/// # Errors
/// [`FormatError::Newer`] if `format` in it is newer; else the checksum or the text is wrong.
pub(crate) fn open_json<T: DeserializeOwned>(what: &str, bytes: &[u8]) -> Result<T, FormatError> {
    #[derive(serde::Deserialize)]
    struct Version {
        format: u32,
    }
    // A newer format may seal its documents in another way: its number is all that is read of it.
    if let Ok(Version { format }) = serde_json::from_slice::<Version>(bytes)
        && format > FORMAT
    {
        return Err(FormatError::Newer { found: format, supported: FORMAT });
    }
    let sealed = || malformed(format!("{what} does not end with its checksum"));
    let head = bytes.strip_suffix(SEAL_END).ok_or_else(sealed)?;
    let start = head.len().checked_sub(DIGITS).ok_or_else(sealed)?;
    let content = head[..start].strip_suffix(SEAL_START).ok_or_else(sealed)?;
    let expected = parse_digits(&head[start..])?;
    let found = crc32c_with_zeros(bytes, start..head.len());
    if found != expected {
        return Err(FormatError::Checksum { what: what.to_owned(), expected, found });
    }
    let mut document = content.to_vec();
    document.push(b'}');
    serde_json::from_slice(&document).map_err(|error| malformed(format!("{what}: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_castagnolis() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc32c_with_zeros(b"12345678xyz", 0..8), crc32c(b"00000000xyz"));
    }
}
