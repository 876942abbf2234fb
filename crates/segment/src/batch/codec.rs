//! The five codecs of record batches. Reading is bounded: output stops at a limit, and its buffer grows with what has
//! arrived, never with what a frame claims. Writing takes the framing that every known client reads.
//!
//! Checksums inside lz4 frames are not verified: the batch's own CRC covers the same bytes, and old clients got the
//! frame's wrong. Those of gzip and zstd come with their decoders.

use std::io::{Read, Write};

use super::error::DecodeError;

mod lz4;
mod snappy;
mod zstandard;

/// How a batch's records are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codec {
    /// Not at all.
    None,
    /// RFC 1952; several members in a row are one stream.
    Gzip,
    /// Raw, or in the chunks of snappy-java; written in the latter, in blocks of 32 KiB.
    Snappy,
    /// The lz4 frame format; written with independent blocks of 64 KiB, since Java's clients read no others.
    Lz4,
    /// RFC 8878; written at level 1.
    Zstd,
}

impl Codec {
    /// All of them, in the order of their ids.
    pub const ALL: [Self; 5] = [Self::None, Self::Gzip, Self::Snappy, Self::Lz4, Self::Zstd];

    /// The codec of Kafka's number for it.
    #[must_use]
    pub fn from_id(id: u8) -> Option<Self> {
        Self::ALL.get(usize::from(id)).copied()
    }

    /// Kafka's number for it, as in a batch's attributes.
    #[must_use]
    pub fn id(self) -> u8 {
        self as u8
    }
}

/// Output that ends at a limit.
struct Output {
    bytes: Vec<u8>,
    codec: Codec,
    limit: usize,
}

impl Output {
    fn bad(&self, what: &'static str) -> DecodeError {
        DecodeError::Decompress { codec: self.codec, what }
    }

    fn too_large(&self) -> DecodeError {
        DecodeError::TooLarge { limit: self.limit as u64 }
    }

    /// Lengthens the output by `more` zeroed bytes to be overwritten, or as many as the limit leaves.
    /// The buffer at least doubles, but never beyond the limit. Returns where they begin.
    fn lengthen(&mut self, more: usize) -> usize {
        let start = self.bytes.len();
        let end = start.saturating_add(more).min(self.limit);
        if end > self.bytes.capacity() {
            let capacity = end.max(self.bytes.capacity().saturating_mul(2).min(self.limit));
            self.bytes.reserve_exact(capacity - start);
        }
        self.bytes.resize(end, 0);
        start
    }

    fn append(&mut self, literal: &[u8]) -> Result<(), DecodeError> {
        let start = self.lengthen(literal.len());
        if self.bytes.len() - start < literal.len() {
            return Err(self.too_large());
        }
        self.bytes[start..].copy_from_slice(literal);
        Ok(())
    }
}

/// Decompresses `compressed`, which `codec` made.
///
/// # Errors
/// [`DecodeError::TooLarge`] as soon as there is more than `limit`; [`DecodeError::Decompress`] for what `codec` can't
/// have made.
pub(super) fn decompress(codec: Codec, compressed: &[u8], limit: usize) -> Result<Vec<u8>, DecodeError> {
    let mut output = Output { bytes: Vec::new(), codec, limit };
    match codec {
        Codec::None => output.append(compressed)?,
        Codec::Gzip => gunzip(compressed, &mut output)?,
        Codec::Snappy => snappy::decompress(compressed, &mut output)?,
        Codec::Lz4 => lz4::decompress(compressed, &mut output)?,
        Codec::Zstd => zstandard::decompress(compressed, &mut output)?,
    }
    let mut bytes = output.bytes;
    if bytes.capacity() - bytes.len() > bytes.len() / 4 {
        bytes.shrink_to_fit();
    }
    Ok(bytes)
}

/// Appends `plain` to `out`, compressed by `codec`.
pub(super) fn compress(codec: Codec, plain: &[u8], out: &mut Vec<u8>) {
    const WHY: &str = "a vector takes every write";
    match codec {
        Codec::None => out.extend_from_slice(plain),
        Codec::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(out, flate2::Compression::default());
            encoder.write_all(plain).expect(WHY);
            encoder.finish().expect(WHY);
        }
        Codec::Snappy => snappy::compress(plain, out),
        Codec::Lz4 => lz4::compress(plain, out),
        Codec::Zstd => zstandard::compress(plain, out),
    }
}

fn gunzip(compressed: &[u8], output: &mut Output) -> Result<(), DecodeError> {
    let mut decoder = flate2::bufread::MultiGzDecoder::new(compressed);
    let mut filled = 0;
    loop {
        output.lengthen(compressed.len().max(output.bytes.len()).max(1024));
        if filled == output.bytes.len() {
            // At the limit: the stream must be at its end.
            return match decoder.read(&mut [0]) {
                Ok(0) => Ok(()),
                Ok(_) => Err(output.too_large()),
                Err(_) => Err(output.bad("damaged stream")),
            };
        }
        while filled < output.bytes.len() {
            match decoder.read(&mut output.bytes[filled..]) {
                Ok(0) => {
                    output.bytes.truncate(filled);
                    return Ok(());
                }
                Ok(read) => filled += read,
                Err(_) => return Err(output.bad("damaged stream")),
            }
        }
    }
}
