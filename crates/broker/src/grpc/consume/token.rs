//! Resume tokens: where a whole stream goes on, in bytes that any broker of the cluster takes at any time.
//!
//! Version 1, all of it behind each other:
//!
//! | bytes | what |
//! |---|---|
//! | 1 | the version, 1 |
//! | 16 | id of the cluster |
//! | 16 | id of the topic: a topic that was created again is another one |
//! | 1 | 1 if the stream reads all partitions, those that are added later too; else 0 |
//! | varint | how many partitions |
//! | each | varints: how many partition numbers were left out since the one before, and the offset to go on at |
//! | 4 | CRC-32C of all before, little endian |
//!
//! Invariants: a token that was changed or cut is refused, not misread; a token has at most [`BYTES_MAX`].

use bytes::{BufMut, Bytes, BytesMut};
use lakebed_model::{Offset, TopicId};
use uuid::Uuid;

use super::PARTITIONS_MAX;

const VERSION: u8 = 1;
const HEAD_BYTES: usize = 1 + 16 + 16 + 1;
const CRC_BYTES: usize = 4;
/// Most bytes of a partition and an offset as varints of 32 and 63 bits.
const PLACE_BYTES_MAX: usize = 5 + 9;
/// Most bytes of a token.
pub(super) const BYTES_MAX: usize = HEAD_BYTES + 5 + PARTITIONS_MAX * PLACE_BYTES_MAX + CRC_BYTES;

/// What a token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) cluster: Uuid,
    pub(super) topic: TopicId,
    /// Whether partitions that are added to the topic belong to the stream.
    pub(super) all_partitions: bool,
    /// Partitions, ascending, and where each goes on.
    pub(super) places: Vec<(u32, Offset)>,
}

/// Why bytes are no token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum TokenError {
    #[error("it is of version {0}, and this broker knows version {VERSION}")]
    Version(u8),
    #[error("it is damaged, or not a token")]
    Damaged,
}

/// The bytes of a token over `places`, which ascend.
pub(super) fn encode(
    cluster: Uuid,
    topic: TopicId,
    all_partitions: bool,
    places: impl ExactSizeIterator<Item = (u32, Offset)>,
) -> Bytes {
    let mut out = BytesMut::with_capacity(HEAD_BYTES + 5 + places.len() * 6 + CRC_BYTES);
    out.put_u8(VERSION);
    out.put_slice(cluster.as_bytes());
    out.put_slice(topic.uuid().as_bytes());
    out.put_u8(u8::from(all_partitions));
    put_varint(&mut out, places.len() as u64);
    let mut expected = 0;
    for (partition, offset) in places {
        put_varint(&mut out, u64::from(partition - expected));
        put_varint(&mut out, offset.get());
        expected = partition + 1;
    }
    let crc = crc_fast::crc32_iscsi(&out);
    out.put_u32_le(crc);
    out.freeze()
}

/// What bytes of a client say.
pub(super) fn decode(bytes: &[u8]) -> Result<Token, TokenError> {
    let (&version, _) = bytes.split_first().ok_or(TokenError::Damaged)?;
    if version != VERSION {
        return Err(TokenError::Version(version));
    }
    if bytes.len() > BYTES_MAX {
        return Err(TokenError::Damaged);
    }
    read(bytes).ok_or(TokenError::Damaged)
}

fn read(bytes: &[u8]) -> Option<Token> {
    let (body, crc) = bytes.split_last_chunk::<CRC_BYTES>()?;
    if crc_fast::crc32_iscsi(body) != u32::from_le_bytes(*crc) {
        return None;
    }
    let (head, mut rest) = body.split_at_checked(HEAD_BYTES)?;
    let cluster = Uuid::from_slice(&head[1..17]).ok()?;
    let topic = TopicId::new(Uuid::from_slice(&head[17..33]).ok()?);
    let all_partitions = match head[33] {
        0 => false,
        1 => true,
        _ => return None,
    };
    let count = usize::try_from(take_varint(&mut rest)?).ok().filter(|count| *count <= PARTITIONS_MAX)?;
    let mut places = Vec::with_capacity(count);
    let mut expected: u32 = 0;
    for _ in 0..count {
        let partition = expected.checked_add(u32::try_from(take_varint(&mut rest)?).ok()?)?;
        let offset = take_varint(&mut rest)?;
        i64::try_from(offset).ok()?;
        places.push((partition, Offset::new(offset)));
        expected = partition.checked_add(1)?;
    }
    rest.is_empty().then_some(Token { cluster, topic, all_partitions, places })
}

fn put_varint(out: &mut BytesMut, mut value: u64) {
    while value >= 0x80 {
        out.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(places: &[(u32, u64)], all_partitions: bool) -> Token {
        let places = places.iter().map(|(partition, offset)| (*partition, Offset::new(*offset)));
        Token {
            cluster: Uuid::from_u128(7),
            topic: TopicId::new(Uuid::from_u128(9)),
            all_partitions,
            places: places.collect(),
        }
    }

    fn bytes(token: &Token) -> Bytes {
        encode(token.cluster, token.topic, token.all_partitions, token.places.iter().copied())
    }

    fn samples() -> Vec<Token> {
        let max = i64::MAX as u64;
        vec![token(&[], true), token(&[(0, 0)], false), token(&[(0, 127), (1, 128), (7, max), (99_999, 1 << 40)], true)]
    }

    #[test]
    fn a_token_says_what_it_was_made_of() {
        for token in samples() {
            assert_eq!(decode(&bytes(&token)), Ok(token));
        }
    }

    #[test]
    fn the_largest_token_is_within_its_bound() {
        let places: Vec<(u32, u64)> =
            (0..PARTITIONS_MAX as u32).map(|n| (u32::MAX - 2000 + n, i64::MAX as u64)).collect();
        let token = token(&places, false);
        assert!(bytes(&token).len() <= BYTES_MAX);
        assert_eq!(decode(&bytes(&token)), Ok(token));
    }

    #[test]
    fn a_token_that_was_changed_or_cut_is_refused() {
        for token in samples() {
            let good = bytes(&token);
            for length in 0..good.len() {
                assert_eq!(decode(&good[..length]), Err(TokenError::Damaged), "cut to {length}");
            }
            for bit in 0..good.len() * 8 {
                let mut bad = good.to_vec();
                bad[bit / 8] ^= 1 << (bit % 8);
                assert!(decode(&bad).is_err(), "bit {bit}");
            }
            let longer = [&good[..], &[0]].concat();
            assert_eq!(decode(&longer), Err(TokenError::Damaged));
        }
        assert_eq!(decode(&[2, 0, 0]), Err(TokenError::Version(2)));
    }

    #[test]
    fn what_a_right_checksum_covers_is_checked_nevertheless() {
        let head = |rest: &[u8]| {
            let mut body = bytes(&token(&[], false))[..HEAD_BYTES].to_vec();
            body.extend_from_slice(rest);
            let crc = crc_fast::crc32_iscsi(&body);
            body.extend_from_slice(&crc.to_le_bytes());
            body
        };
        assert!(decode(&head(&[1, 0, 5])).is_ok());
        for wrong in [
            &[2, 0, 5][..],
            &[1, 0, 5, 0],
            &[0xff, 0xff, 0xff, 0xff, 0x7f],
            &[1, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f, 0],
            &[1, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1],
            &[2, 0xff, 0xff, 0xff, 0xff, 0x0f, 0, 0, 0],
        ] {
            assert_eq!(decode(&head(wrong)), Err(TokenError::Damaged), "{wrong:?}");
        }
    }
}
