//! Unsigned variable-length integers of 32 bits, least significant seven bits first (KIP-482).

use bytes::{BufMut, BytesMut};

/// Longest encoding of 32 bits.
const MAX_LENGTH: usize = 5;

/// Reads the integer at the beginning of `bytes`: its value, and its length in bytes.
///
/// None if it doesn't end within `bytes` or five bytes, or doesn't fit 32 bits.
pub(super) fn read(bytes: &[u8]) -> Option<(u32, usize)> {
    let mut value = 0u64;
    for (index, byte) in bytes.iter().take(MAX_LENGTH).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return u32::try_from(value).ok().map(|value| (value, index + 1));
        }
    }
    None
}

/// Writes `value` in as few bytes as it takes.
pub(super) fn write(buffer: &mut BytesMut, mut value: u32) {
    while value >= 0x80 {
        buffer.put_u8((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    buffer.put_u8(value as u8);
}
