//! The little of Thrift's compact protocol that Parquet's metadata needs: a writer of structs, and a reader that finds fields in
//! bytes that may be anything.
//!
//! Invariant of the reader: it allocates nothing, never reads beyond its bytes, and its depth is bounded.

use crate::error::{FormatError, malformed};

const TRUE: u8 = 1;
const FALSE: u8 = 2;
const BYTE: u8 = 3;
const I16: u8 = 4;
const I32: u8 = 5;
const I64: u8 = 6;
const DOUBLE: u8 = 7;
const BINARY: u8 = 8;
const LIST: u8 = 9;
const SET: u8 = 10;
const STRUCT: u8 = 12;

/// Structs nest at most this deep in what is read.
const DEPTH_MAX: u8 = 16;

/// Writes the fields of one struct, in ascending order of their ids.
pub(crate) struct Fields<'a> {
    out: &'a mut Vec<u8>,
    last: u8,
}

/// Writes a struct.
pub(crate) fn write_struct(out: &mut Vec<u8>, fields: impl FnOnce(&mut Fields<'_>)) {
    fields(&mut Fields { out, last: 0 });
    out.push(0);
}

impl Fields<'_> {
    fn begin(&mut self, id: u8, kind: u8) {
        let delta = id.checked_sub(self.last).filter(|delta| (1..=15).contains(delta));
        self.out.push(delta.expect("fields ascend by less than 16") << 4 | kind);
        self.last = id;
    }

    pub(crate) fn bool(&mut self, id: u8, value: bool) {
        self.begin(id, if value { TRUE } else { FALSE });
    }

    pub(crate) fn i32(&mut self, id: u8, value: i32) {
        self.begin(id, I32);
        write_varint(self.out, zigzag(i64::from(value)));
    }

    pub(crate) fn i64(&mut self, id: u8, value: i64) {
        self.begin(id, I64);
        write_varint(self.out, zigzag(value));
    }

    pub(crate) fn text(&mut self, id: u8, value: &str) {
        self.begin(id, BINARY);
        write_text(self.out, value);
    }

    pub(crate) fn structure(&mut self, id: u8, fields: impl FnOnce(&mut Fields<'_>)) {
        self.begin(id, STRUCT);
        write_struct(self.out, fields);
    }

    pub(crate) fn structures<T>(
        &mut self,
        id: u8,
        items: impl ExactSizeIterator<Item = T>,
        fields: impl Fn(&mut Fields<'_>, T),
    ) {
        self.begin_list(id, STRUCT, items.len());
        for item in items {
            write_struct(self.out, |inner| fields(inner, item));
        }
    }

    pub(crate) fn i32s(&mut self, id: u8, items: &[i32]) {
        self.begin_list(id, I32, items.len());
        for item in items {
            write_varint(self.out, zigzag(i64::from(*item)));
        }
    }

    pub(crate) fn texts(&mut self, id: u8, items: &[&str]) {
        self.begin_list(id, BINARY, items.len());
        for item in items {
            write_text(self.out, item);
        }
    }

    fn begin_list(&mut self, id: u8, kind: u8, length: usize) {
        self.begin(id, LIST);
        if length < 15 {
            self.out.push((length as u8) << 4 | kind);
        } else {
            self.out.push(0xf0 | kind);
            write_varint(self.out, length as u64);
        }
    }
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

fn write_text(out: &mut Vec<u8>, value: &str) {
    write_varint(out, value.len() as u64);
    out.extend_from_slice(value.as_bytes());
}

/// Writes an unsigned LEB128.
pub(crate) fn write_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Reads from bytes that may be anything.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    /// Where the next byte stands.
    pub(crate) position: usize,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, position: 0 }
    }

    fn cut() -> FormatError {
        malformed("metadata ends early")
    }

    fn byte(&mut self) -> Result<u8, FormatError> {
        let byte = *self.bytes.get(self.position).ok_or_else(Self::cut)?;
        self.position += 1;
        Ok(byte)
    }

    fn take(&mut self, length: u64) -> Result<&'a [u8], FormatError> {
        let rest = &self.bytes[self.position..];
        let length = usize::try_from(length).ok().filter(|length| *length <= rest.len()).ok_or_else(Self::cut)?;
        self.position += length;
        Ok(&rest[..length])
    }

    /// Reads an unsigned LEB128.
    pub(crate) fn varint(&mut self) -> Result<u64, FormatError> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(malformed("a number of more than 64 bits"))
    }

    /// Reads the next field's id and kind; `None` at the end of the struct.
    pub(crate) fn field(&mut self, last: i64) -> Result<Option<(i64, u8)>, FormatError> {
        let head = self.byte()?;
        let (delta, kind) = (head >> 4, head & 15);
        if head == 0 {
            return Ok(None);
        }
        let id = if delta == 0 {
            let raw = self.varint()?;
            (raw >> 1) as i64 ^ -((raw & 1) as i64)
        } else {
            last.saturating_add(i64::from(delta))
        };
        Ok(Some((id, kind)))
    }

    /// Reads a binary.
    pub(crate) fn binary(&mut self) -> Result<&'a [u8], FormatError> {
        let length = self.varint()?;
        self.take(length)
    }

    /// Reads the head of a list: how many items, of which kind. An item of every kind that is read has at least one byte.
    pub(crate) fn list(&mut self) -> Result<(u64, u8), FormatError> {
        let head = self.byte()?;
        let length = if head >> 4 == 15 { self.varint()? } else { u64::from(head >> 4) };
        if length > (self.bytes.len() - self.position) as u64 {
            return Err(Self::cut());
        }
        Ok((length, head & 15))
    }

    /// Skips a value.
    pub(crate) fn skip(&mut self, kind: u8) -> Result<(), FormatError> {
        self.skip_within(kind, DEPTH_MAX)
    }

    fn skip_within(&mut self, kind: u8, depth: u8) -> Result<(), FormatError> {
        let depth = depth.checked_sub(1).ok_or_else(|| malformed("metadata nests too deep"))?;
        match kind {
            TRUE | FALSE => Ok(()),
            BYTE => self.take(1).map(drop),
            I16 | I32 | I64 => self.varint().map(drop),
            DOUBLE => self.take(8).map(drop),
            BINARY => self.binary().map(drop),
            LIST | SET => {
                let (length, kind) = self.list()?;
                for _ in 0..length {
                    // SUBTLE: in a list a boolean has a byte of its own; without it a claimed length would be walked for free.
                    if kind == TRUE || kind == FALSE { self.take(1).map(drop)? } else { self.skip_within(kind, depth)? }
                }
                Ok(())
            }
            STRUCT => {
                let mut last = 0;
                while let Some((id, kind)) = self.field(last)? {
                    last = id;
                    self.skip_within(kind, depth)?;
                }
                Ok(())
            }
            other => Err(malformed(format!("metadata holds a value of unknown kind {other}"))),
        }
    }
}

/// Finds Parquet's key-values (field 5 of FileMetaData) and hands each to `found`, with the position at which its value begins.
pub(crate) fn key_values<'a>(
    metadata: &'a [u8],
    mut found: impl FnMut(&'a [u8], &'a [u8], usize) -> Result<(), FormatError>,
) -> Result<(), FormatError> {
    let mut reader = Reader::new(metadata);
    let mut last = 0;
    while let Some((id, kind)) = reader.field(last)? {
        last = id;
        if id != 5 {
            reader.skip(kind)?;
            continue;
        }
        let (length, item) = reader.list()?;
        if kind != LIST || item != STRUCT {
            return Err(malformed("key-values are not a list of structs"));
        }
        for _ in 0..length {
            let (key, value, position) = key_value(&mut reader)?;
            found(key, value, position)?;
        }
    }
    if reader.position == metadata.len() { Ok(()) } else { Err(malformed("bytes after the metadata")) }
}

fn key_value<'a>(reader: &mut Reader<'a>) -> Result<(&'a [u8], &'a [u8], usize), FormatError> {
    let (mut key, mut value, mut position) = (&[][..], &[][..], 0);
    let mut last = 0;
    while let Some((id, kind)) = reader.field(last)? {
        last = id;
        match (id, kind) {
            (1, BINARY) => key = reader.binary()?,
            (2, BINARY) => {
                value = reader.binary()?;
                position = reader.position - value.len();
            }
            _ => reader.skip(kind)?,
        }
    }
    Ok((key, value, position))
}
