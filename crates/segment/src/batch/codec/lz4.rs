//! The lz4 frame format, read by our own walk over its blocks: a decoder that trusted the frame's header would allocate
//! the 4 MiB that it may claim.

use std::io::Write;

use lz4_flex::block::{DecompressError, decompress_into_with_dict};
use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};

use super::super::error::DecodeError;
use super::Output;

const MAGIC: u32 = 0x184D_2204;
/// How far back a match may reach.
const WINDOW_BYTES: usize = 64 * 1024;
/// A byte of lz4 lengthens a match by at most 255, and a sequence has a few bytes beside.
const RATIO_MAX: usize = 255;
const STORED: u32 = 1 << 31;

/// What a frame's header says of its blocks.
struct Frame {
    linked: bool,
    block_checksums: bool,
    content_checksum: bool,
    block_bytes_max: usize,
}

pub(super) fn decompress(mut rest: &[u8], output: &mut Output) -> Result<(), DecodeError> {
    loop {
        let frame = frame(&mut rest).map_err(|what| output.bad(what))?;
        let frame_start = output.bytes.len();
        while let Some((stored, data)) = block(&mut rest, &frame).map_err(|what| output.bad(what))? {
            if stored {
                output.append(data)?;
            } else {
                let window_start = if frame.linked { frame_start } else { output.bytes.len() };
                decompress_block(data, &frame, window_start, output)?;
            }
        }
        if rest.is_empty() {
            return Ok(());
        }
    }
}

fn take<'a>(rest: &mut &'a [u8], bytes: usize) -> Result<&'a [u8], &'static str> {
    rest.split_off(..bytes).ok_or("frame is cut off")
}

fn take_u32(rest: &mut &[u8]) -> Result<u32, &'static str> {
    let bytes = rest.split_off(..4).and_then(|four| four.first_chunk()).ok_or("frame is cut off")?;
    Ok(u32::from_le_bytes(*bytes))
}

fn frame(rest: &mut &[u8]) -> Result<Frame, &'static str> {
    if take_u32(rest)? != MAGIC {
        return Err("no frame begins here");
    }
    let descriptor = take(rest, 2)?;
    let (flags, block) = (descriptor[0], descriptor[1]);
    if flags >> 6 != 1 {
        return Err("unknown frame version");
    }
    if flags & 1 != 0 {
        return Err("frame needs a dictionary");
    }
    let block_bytes_max = match block >> 4 & 7 {
        size @ 4..=7 => 1 << (8 + 2 * size),
        _ => return Err("unknown block size"),
    };
    let content_size_bytes = if flags & 1 << 3 != 0 { 8 } else { 0 };
    let header_checksum_bytes = 1;
    take(rest, content_size_bytes + header_checksum_bytes)?;
    Ok(Frame {
        linked: flags & 1 << 5 == 0,
        block_checksums: flags & 1 << 4 != 0,
        content_checksum: flags & 1 << 2 != 0,
        block_bytes_max,
    })
}

/// The next block, and whether it is stored as it is; `None` at the end of the frame.
fn block<'a>(rest: &mut &'a [u8], frame: &Frame) -> Result<Option<(bool, &'a [u8])>, &'static str> {
    let word = take_u32(rest)?;
    if word == 0 {
        take(rest, if frame.content_checksum { 4 } else { 0 })?;
        return Ok(None);
    }
    let bytes = (word & !STORED) as usize;
    if bytes > frame.block_bytes_max {
        return Err("block is larger than the frame allows");
    }
    let data = take(rest, bytes)?;
    take(rest, if frame.block_checksums { 4 } else { 0 })?;
    Ok(Some((word & STORED != 0, data)))
}

fn decompress_block(data: &[u8], frame: &Frame, window_start: usize, output: &mut Output) -> Result<(), DecodeError> {
    let most = frame.block_bytes_max.min(data.len().saturating_mul(RATIO_MAX));
    let start = output.lengthen(most);
    let room = output.bytes.len() - start;
    let (before, into) = output.bytes.split_at_mut(start);
    let window = &before[window_start.max(start.saturating_sub(WINDOW_BYTES))..];
    match decompress_into_with_dict(data, into, window) {
        Ok(written) => {
            output.bytes.truncate(start + written);
            Ok(())
        }
        Err(DecompressError::OutputTooSmall { .. }) if room < most => Err(output.too_large()),
        Err(_) => Err(output.bad("damaged block")),
    }
}

pub(super) fn compress(plain: &[u8], out: &mut Vec<u8>) {
    const WHY: &str = "a vector takes every write";
    let info = FrameInfo::new().block_mode(BlockMode::Independent).block_size(BlockSize::Max64KB);
    let mut encoder = FrameEncoder::with_frame_info(info, out);
    encoder.write_all(plain).expect(WHY);
    encoder.finish().expect(WHY);
}
