//! The bytes of one object on their way to the store: any number of pieces, never copied together.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

/// The body of an object to create. Cloning shares the bytes.
#[derive(Clone, Debug, Default)]
pub struct Payload {
    parts: Arc<[Bytes]>,
    size_bytes: u64,
}

impl Payload {
    /// Bytes of the whole body.
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// The pieces, in order; none of them is empty.
    pub fn parts(&self) -> &[Bytes] {
        &self.parts
    }

    /// Whether the body ends with `tail`.
    pub fn ends_with(&self, tail: &[u8]) -> bool {
        let mut tail = tail;
        for part in self.parts.iter().rev() {
            let compared = part.len().min(tail.len());
            if part[part.len() - compared..] != tail[tail.len() - compared..] {
                return false;
            }
            tail = &tail[..tail.len() - compared];
        }
        tail.is_empty()
    }

    /// The bytes `start..end` of the body, cut to its size.
    ///
    /// # Cost
    /// Copies only when the range spans several pieces.
    pub fn slice(&self, start: u64, end: u64) -> Bytes {
        let (start, end) = (start.min(self.size_bytes) as usize, end.min(self.size_bytes) as usize);
        let mut joined = BytesMut::new();
        let mut part_start = 0;
        for part in &*self.parts {
            let part_end = part_start + part.len();
            let (from, to) = (start.max(part_start), end.min(part_end));
            if from < to {
                let piece = part.slice(from - part_start..to - part_start);
                if piece.len() == end - start {
                    return piece;
                }
                if joined.is_empty() {
                    joined.reserve(end - start);
                }
                joined.extend_from_slice(&piece);
            }
            part_start = part_end;
        }
        joined.freeze()
    }
}

impl From<Vec<Bytes>> for Payload {
    fn from(parts: Vec<Bytes>) -> Self {
        let parts: Arc<[Bytes]> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        let size_bytes = parts.iter().map(|part| part.len() as u64).sum();
        Self { parts, size_bytes }
    }
}

impl From<Bytes> for Payload {
    fn from(body: Bytes) -> Self {
        vec![body].into()
    }
}

impl From<Vec<u8>> for Payload {
    fn from(body: Vec<u8>) -> Self {
        Bytes::from(body).into()
    }
}

impl From<&'static [u8]> for Payload {
    fn from(body: &'static [u8]) -> Self {
        Bytes::from_static(body).into()
    }
}

impl From<&'static str> for Payload {
    fn from(body: &'static str) -> Self {
        body.as_bytes().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_in_pieces_reads_as_one_body() {
        let payload = Payload::from(vec![Bytes::from("abc"), Bytes::new(), Bytes::from("de"), Bytes::from("f")]);
        assert_eq!(payload.size_bytes(), 6);
        for start in 0..8 {
            for end in start..8 {
                let expected = &b"abcdef"[start.min(6)..end.min(6)];
                assert_eq!(payload.slice(start as u64, end as u64), expected, "{start}..{end}");
                assert_eq!(payload.ends_with(expected), end >= 6 || start == end, "{start}..{end}");
            }
        }
        assert!(!payload.ends_with(b"xabcdef"));
        assert!(!payload.ends_with(b"xbcdef"));
    }
}
