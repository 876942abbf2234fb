//! Zstandard in one shot: no window buffer, whatever window the frame claims (up to 128 MiB from a producer's level 22).
//!
//! The output's room is what the blocks that are there could hold, walked before anything is allocated (RFC 8878,
//! 3.1.1), and at most the limit.

use zstd::zstd_safe::{self, zstd_sys::ZSTD_ErrorCode};

use super::super::error::DecodeError;
use super::Output;

/// Cheap, and better than lz4 at about its speed.
const LEVEL: i32 = 1;
const MAGIC: u32 = 0xFD2F_B528;
const SKIPPABLE: std::ops::RangeInclusive<u32> = 0x184D_2A50..=0x184D_2A5F;
/// The most that a block may hold.
const BLOCK_BYTES_MAX: usize = 128 * 1024;

pub(super) fn decompress(compressed: &[u8], output: &mut Output) -> Result<(), DecodeError> {
    let bound = upper_bound(compressed).ok_or(output.bad("frames or blocks are cut off"))?;
    let mut bytes = Vec::with_capacity(bound.min(output.limit));
    let mut context = zstd_safe::DCtx::try_create().ok_or(output.bad("no memory for a context"))?;
    match context.decompress(&mut bytes, compressed) {
        Ok(_) => {
            output.bytes = bytes;
            Ok(())
        }
        // What does not fit although the blocks said that it would is damage.
        Err(code)
            if bound > output.limit && zstd_safe::is_error_kind(code, ZSTD_ErrorCode::ZSTD_error_dstSize_tooSmall) =>
        {
            Err(output.too_large())
        }
        Err(_) => Err(output.bad("damaged frame")),
    }
}

/// The most bytes that the blocks of these whole frames can hold; `None` if one of them is cut off or reserved.
fn upper_bound(mut rest: &[u8]) -> Option<usize> {
    let mut bound = 0usize;
    while !rest.is_empty() {
        let magic = u32::from_le_bytes(*rest.split_off(..4)?.first_chunk()?);
        if SKIPPABLE.contains(&magic) {
            let size = u32::from_le_bytes(*rest.split_off(..4)?.first_chunk()?);
            rest.split_off(..size as usize)?;
        } else if magic == MAGIC {
            bound = bound.saturating_add(frame_bound(&mut rest)?);
        } else {
            return None;
        }
    }
    Some(bound)
}

/// The most bytes that a frame's blocks can hold: what it claims, if that is less. `rest` begins after its magic.
fn frame_bound(rest: &mut &[u8]) -> Option<usize> {
    let descriptor = rest.split_off(..1)?[0];
    let single_segment = descriptor & 1 << 5 != 0;
    let window_bytes = usize::from(!single_segment);
    let dictionary_bytes = [0, 1, 2, 4][usize::from(descriptor & 3)];
    rest.split_off(..window_bytes + dictionary_bytes)?;
    let size_bytes = [usize::from(single_segment), 2, 4, 8][usize::from(descriptor >> 6)];
    let mut size = [0; 8];
    size[..size_bytes].copy_from_slice(rest.split_off(..size_bytes)?);
    let claimed = match size_bytes {
        0 => u64::MAX,
        2 => u64::from_le_bytes(size) + 256,
        _ => u64::from_le_bytes(size),
    };

    let mut bound = 0usize;
    loop {
        let header = rest.split_off(..3)?;
        let header = usize::from(header[0]) | usize::from(header[1]) << 8 | usize::from(header[2]) << 16;
        let size = header >> 3;
        let (stored_bytes, plain_bytes) = match header >> 1 & 3 {
            0 => (size, size),
            1 => (1, size),
            2 => (size, BLOCK_BYTES_MAX),
            _ => return None,
        };
        rest.split_off(..stored_bytes)?;
        bound = bound.saturating_add(plain_bytes.min(BLOCK_BYTES_MAX));
        if header & 1 != 0 {
            break;
        }
    }
    rest.split_off(..if descriptor & 1 << 2 != 0 { 4 } else { 0 })?;
    Some(bound.min(usize::try_from(claimed).unwrap_or(usize::MAX)))
}

pub(super) fn compress(plain: &[u8], out: &mut Vec<u8>) {
    let mut compressed = Vec::with_capacity(zstd_safe::compress_bound(plain.len()));
    zstd_safe::compress(&mut compressed, plain, LEVEL).expect("the output has room for the worst case");
    out.extend_from_slice(&compressed);
}
