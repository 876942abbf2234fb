//! Snappy: the raw format (librdkafka), and the chunks of snappy-java (Java, kafka-python, Go), known by their magic.
//!
//! Chunked: a header of 16 bytes, then chunks of a big-endian length and raw snappy. We write chunks: Java, librdkafka,
//! kafka-python and the Go clients all read them, and a raw stream only most of them.

use super::super::error::DecodeError;
use super::Output;

/// Magic, version 1, oldest compatible version 1.
const CHUNKED: [u8; 16] = *b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01";
const MAGIC_BYTES: usize = 8;
/// Plain bytes per chunk: the block of snappy-java.
const CHUNK_BYTES: usize = 32 * 1024;
/// Three bytes of snappy say at most 64: a greater claim is a lie.
const RATIO_MAX: usize = 22;

pub(super) fn decompress(compressed: &[u8], output: &mut Output) -> Result<(), DecodeError> {
    if !compressed.starts_with(&CHUNKED[..MAGIC_BYTES]) {
        return raw(compressed, output);
    }
    let mut rest = compressed.get(CHUNKED.len()..).ok_or(output.bad("chunked header is cut off"))?;
    while !rest.is_empty() {
        let (length, chunks) = rest.split_first_chunk().ok_or(output.bad("chunk length is cut off"))?;
        let (chunk, after) = chunks
            .split_at_checked(u32::from_be_bytes(*length) as usize)
            .ok_or(output.bad("chunk is longer than the bytes that remain"))?;
        raw(chunk, output)?;
        rest = after;
    }
    Ok(())
}

fn raw(compressed: &[u8], output: &mut Output) -> Result<(), DecodeError> {
    let claimed = snap::raw::decompress_len(compressed).map_err(|_| output.bad("length is malformed"))?;
    if claimed > compressed.len().saturating_mul(RATIO_MAX) {
        return Err(output.bad("length is more than the bytes can hold"));
    }
    let start = output.lengthen(claimed);
    if output.bytes.len() - start < claimed {
        return Err(output.too_large());
    }
    match snap::raw::Decoder::new().decompress(compressed, &mut output.bytes[start..]) {
        Ok(written) if written == claimed => Ok(()),
        _ => Err(output.bad("damaged block")),
    }
}

pub(super) fn compress(plain: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&CHUNKED);
    let mut encoder = snap::raw::Encoder::new();
    for chunk in plain.chunks(CHUNK_BYTES) {
        let length_at = out.len();
        let start = length_at + 4;
        out.resize(start + snap::raw::max_compress_len(chunk.len()), 0);
        let written = encoder.compress(chunk, &mut out[start..]).expect("the output has room for the worst case");
        out[length_at..start].copy_from_slice(&(written as u32).to_be_bytes());
        out.truncate(start + written);
    }
}
