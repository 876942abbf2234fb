//! Frames and request headers: what stands before a body.

use std::str::Utf8Error;

use thiserror::Error;

use super::table::{Support, support};
use super::varint;

/// The shortest request: key, version and correlation id.
const LEAST_FRAME_BYTES: usize = 8;

/// Tagged fields in a header that are skipped; Kafka has defined none for requests so far.
const MAX_TAGGED_FIELDS: u32 = 64;

/// Why a frame is not read. The connection is closed: there is nothing to answer to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum FrameError {
    /// The length is negative, or too small for any request.
    #[error("a frame claims {claimed} bytes, fewer than any request has")]
    TooSmall {
        /// The length that stands before the frame.
        claimed: i32,
    },
    /// The length is above the limit.
    #[error("a frame claims {claimed} bytes, the limit is {max}")]
    TooLarge {
        /// The length that stands before the frame.
        claimed: i32,
        /// The limit in bytes.
        max: usize,
    },
}

/// Checks the length that stands before a frame: at least a header's fixed part, and at most `max` bytes.
///
/// # Errors
/// [`FrameError`]: nothing may be allocated or read for it.
pub fn frame_length(claimed: i32, max: usize) -> Result<usize, FrameError> {
    match usize::try_from(claimed) {
        Ok(length) if length > max => Err(FrameError::TooLarge { claimed, max }),
        Ok(length) if length >= LEAST_FRAME_BYTES => Ok(length),
        _ => Err(FrameError::TooSmall { claimed }),
    }
}

/// What a request says of itself, and where its body begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestHeader<'a> {
    /// Number of the API.
    pub key: i16,
    /// Version of the request.
    pub version: i16,
    /// What the answer begins with.
    pub correlation_id: i32,
    /// The client's name for itself. None also where the rest of the header was not read.
    pub client_id: Option<&'a str>,
    /// What is to be done with the request. Unless it is decoded, nothing after the correlation id was read.
    pub support: Support,
    /// Where in the frame the body begins. Meaningful only if the request is decoded.
    pub body_start: usize,
}

/// Why a header can't be read. The connection is closed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum HeaderError {
    /// The frame ends within the header.
    #[error("request header: {field} claims {claimed} bytes where {remaining} remain")]
    BeyondEnd {
        /// What is cut off.
        field: &'static str,
        /// Bytes it needs.
        claimed: usize,
        /// Bytes of the frame that remain.
        remaining: usize,
    },
    /// The client id has a negative length other than -1, null.
    #[error("request header: client id of length {claimed}")]
    NegativeLength {
        /// The length.
        claimed: i16,
    },
    /// The client id is not UTF-8.
    #[error("request header: client id is not UTF-8")]
    ClientId(#[source] Utf8Error),
    /// A variable-length integer doesn't end, or doesn't fit 32 bits.
    #[error("request header: malformed variable-length integer in its tagged fields")]
    MalformedVarint,
    /// There are more tagged fields than any client has a use for.
    #[error("request header: {claimed} tagged fields, the limit is {MAX_TAGGED_FIELDS}")]
    TooManyTaggedFields {
        /// Their number.
        claimed: u32,
    },
}

/// Reads the header of the request in `frame` (without its length).
///
/// # Errors
/// [`HeaderError`]: the connection is out of step.
pub fn parse_header(frame: &[u8]) -> Result<RequestHeader<'_>, HeaderError> {
    let mut rest = Rest { bytes: frame };
    let key = i16::from_be_bytes(rest.array("API key")?);
    let version = i16::from_be_bytes(rest.array("version")?);
    let correlation_id = i32::from_be_bytes(rest.array("correlation id")?);
    let support = support(key, version);
    let mut client_id = None;
    if let Support::Decoded(api) = support {
        // SUBTLE: not a compact string, even in header version 2, so that any broker can read it.
        let claimed = i16::from_be_bytes(rest.array("client id")?);
        client_id = match usize::try_from(claimed) {
            Ok(length) => Some(str::from_utf8(rest.take("client id", length)?).map_err(HeaderError::ClientId)?),
            Err(_) if claimed == -1 => None,
            Err(_) => return Err(HeaderError::NegativeLength { claimed }),
        };
        if api.request_header_version(version) == 2 {
            rest.skip_tagged_fields()?;
        }
    }
    let body_start = frame.len() - rest.bytes.len();
    Ok(RequestHeader { key, version, correlation_id, client_id, support, body_start })
}

/// What of a frame is not read yet.
struct Rest<'a> {
    bytes: &'a [u8],
}

impl<'a> Rest<'a> {
    fn take(&mut self, field: &'static str, length: usize) -> Result<&'a [u8], HeaderError> {
        let Some((taken, rest)) = self.bytes.split_at_checked(length) else {
            return Err(HeaderError::BeyondEnd { field, claimed: length, remaining: self.bytes.len() });
        };
        self.bytes = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], HeaderError> {
        Ok(self.take(field, N)?.try_into().expect("take returns as many bytes as it was asked for"))
    }

    fn varint(&mut self) -> Result<u32, HeaderError> {
        let (value, length) = varint::read(self.bytes).ok_or(HeaderError::MalformedVarint)?;
        self.bytes = &self.bytes[length..];
        Ok(value)
    }

    fn skip_tagged_fields(&mut self) -> Result<(), HeaderError> {
        let claimed = self.varint()?;
        if claimed > MAX_TAGGED_FIELDS {
            return Err(HeaderError::TooManyTaggedFields { claimed });
        }
        for _ in 0..claimed {
            self.varint()?;
            let length = self.varint()? as usize;
            self.take("tagged field", length)?;
        }
        Ok(())
    }
}
