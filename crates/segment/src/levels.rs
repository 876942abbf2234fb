//! Parquet's repetition and definition levels: the RLE / bit-packed hybrid, behind its length in 4 bytes as data page v1 has it.
//!
//! Written: one RLE run if all levels are equal, else one bit-packed run. Read: any mixture.

use crate::error::{FormatError, malformed};
use crate::thrift::{Reader, write_varint};

/// Writes `count` levels below `1 << width`.
pub(crate) fn write_levels(out: &mut Vec<u8>, width: u8, count: usize, mut levels: impl Iterator<Item = u8> + Clone) {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    let first = levels.clone().next().unwrap_or(0);
    if levels.clone().all(|level| level == first) {
        write_varint(out, (count as u64) << 1);
        out.push(first);
    } else {
        write_varint(out, (count.div_ceil(8) as u64) << 1 | 1);
        for _ in 0..count.div_ceil(8) {
            let mut group = 0_u64;
            for (index, level) in levels.by_ref().take(8).enumerate() {
                group |= u64::from(level) << (index * usize::from(width));
            }
            out.extend_from_slice(&group.to_le_bytes()[..usize::from(width)]);
        }
    }
    let length = (out.len() - start - 4) as u32;
    out[start..start + 4].copy_from_slice(&length.to_le_bytes());
}

/// Reads `count` levels of at most `max` from the front of `page`; gives them and the rest of the page.
///
/// The caller has checked `count` against the bytes of the page.
pub(crate) fn read_levels(page: &[u8], max: u8, count: usize) -> Result<(Vec<u8>, &[u8]), FormatError> {
    let cut = || malformed("levels end early");
    let (length, rest) = page.split_first_chunk::<4>().ok_or_else(cut)?;
    let length = u32::from_le_bytes(*length) as usize;
    let (encoded, rest) = rest.split_at_checked(length).ok_or_else(cut)?;
    let width = usize::from(max.ilog2() as u8 + 1);
    let mut levels = Vec::with_capacity(count);
    let mut reader = Reader::new(encoded);
    while levels.len() < count {
        let head = reader.varint()?;
        let missing = count - levels.len();
        if head & 1 == 0 {
            let level = *encoded.get(reader.position).ok_or_else(cut)?;
            reader.position += 1;
            let run = usize::try_from(head >> 1).ok().filter(|run| *run > 0 && *run <= missing).ok_or_else(cut)?;
            levels.resize(levels.len() + run, level);
        } else {
            let groups = usize::try_from(head >> 1).ok().filter(|groups| *groups > 0).ok_or_else(cut)?;
            let bytes = groups.checked_mul(width).ok_or_else(cut)?;
            let packed = encoded.get(reader.position..).and_then(|rest| rest.get(..bytes)).ok_or_else(cut)?;
            reader.position += bytes;
            for index in 0..missing.min(groups * 8) {
                let bit = index * width;
                let pair = u16::from(packed[bit / 8]) | u16::from(packed.get(bit / 8 + 1).copied().unwrap_or(0)) << 8;
                levels.push((pair >> (bit % 8)) as u8 & ((1 << width) - 1));
            }
        }
    }
    if reader.position != encoded.len() || levels.iter().any(|level| *level > max) {
        return Err(malformed("levels are not those of their column"));
    }
    Ok((levels, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(width: u8, max: u8, levels: &[u8]) {
        let mut page = Vec::new();
        write_levels(&mut page, width, levels.len(), levels.iter().copied());
        page.extend_from_slice(b"rest");
        assert_eq!(read_levels(&page, max, levels.len()), Ok((levels.to_vec(), &b"rest"[..])));
        for cut in 0..page.len() - 4 {
            assert!(read_levels(&page[..cut], max, levels.len()).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn levels_are_read_back() {
        round_trip(1, 1, &[1; 1000]);
        round_trip(1, 1, &[0]);
        round_trip(1, 1, &[0, 1, 1, 0, 1, 0, 0, 0, 1, 1]);
        round_trip(2, 3, &[3, 2, 1, 0, 3, 3, 2]);
        round_trip(2, 2, &[2, 0, 0, 2, 2, 2, 1, 0, 0]);
    }

    #[test]
    fn a_claimed_run_is_bounded_by_the_count() {
        let page = [6, 0, 0, 0, 0xfe, 0xff, 0xff, 0xff, 0x0f, 1];
        assert!(read_levels(&page, 1, 8).is_err());
        let packed = [5, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0x0f];
        assert!(read_levels(&packed, 1, 8).is_err());
    }
}
