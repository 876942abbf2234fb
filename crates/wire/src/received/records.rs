//! A walk over the records of an encoded `lakebed.v1.Records`, and over the headers of each: nothing is copied or allocated.
//!
//! What is yielded was read to its end: headers that come with a record are well formed. Unknown fields are skipped, as protobuf
//! demands; where a field that may come once comes again, the last counts.

/// Why bytes are no records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed: {what}")]
pub struct Malformed {
    /// What is wrong.
    pub what: &'static str,
}

/// The records of a message. Ends after the first error.
#[derive(Debug, Clone)]
pub struct Records<'a> {
    rest: &'a [u8],
}

/// One record.
#[derive(Debug, Clone)]
pub struct Record<'a> {
    /// Absent is not empty.
    pub key: Option<&'a [u8]>,
    /// Absent is not empty.
    pub value: Option<&'a [u8]>,
    /// Milliseconds since 1970.
    pub timestamp_ms: Option<i64>,
    /// The producer has none to give.
    pub offset: Option<i64>,
    /// In order.
    pub headers: Headers<'a>,
}

/// The headers of a record: key, which is UTF-8, and value.
#[derive(Debug, Clone)]
pub struct Headers<'a> {
    record: &'a [u8],
    left: usize,
}

impl<'a> Records<'a> {
    /// Walks over an encoded `lakebed.v1.Records`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.rest.is_empty() {
            let record = match Field::read(&mut self.rest) {
                Ok(Field::Bytes(1, bytes)) => Record::read(bytes),
                Ok(Field::Varint(1, _) | Field::Other(1)) => Err(Malformed { what: "records are messages" }),
                Ok(_) => continue,
                Err(error) => Err(error),
            };
            if record.is_err() {
                self.rest = &[];
            }
            return Some(record);
        }
        None
    }
}

impl<'a> Record<'a> {
    fn read(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let headers = Headers { record: bytes, left: 0 };
        let mut record = Self { key: None, value: None, timestamp_ms: None, offset: None, headers };
        let mut rest = bytes;
        while !rest.is_empty() {
            match Field::read(&mut rest)? {
                Field::Bytes(1, key) => record.key = Some(key),
                Field::Bytes(2, value) => record.value = Some(value),
                Field::Bytes(3, header) => {
                    read_header(header)?;
                    record.headers.left += 1;
                }
                Field::Varint(4, timestamp) => record.timestamp_ms = Some(timestamp as i64),
                Field::Varint(5, offset) => record.offset = Some(offset as i64),
                Field::Varint(1..=3, _) | Field::Bytes(4..=6, _) | Field::Other(1..=6) => {
                    return Err(Malformed { what: "a field of a record has another type than it must have" });
                }
                Field::Varint(..) | Field::Bytes(..) | Field::Other(_) => {}
            }
        }
        Ok(record)
    }
}

impl<'a> Iterator for Headers<'a> {
    type Item = (&'a [u8], Option<&'a [u8]>);

    fn next(&mut self) -> Option<Self::Item> {
        while self.left > 0 {
            if let Field::Bytes(3, header) = Field::read(&mut self.record).expect("the record was read to its end") {
                self.left -= 1;
                return Some(read_header(header).expect("it was read with its record"));
            }
        }
        None
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Headers<'_> {}

fn read_header(mut bytes: &[u8]) -> Result<(&[u8], Option<&[u8]>), Malformed> {
    let (mut key, mut value) = (&[][..], None);
    while !bytes.is_empty() {
        match Field::read(&mut bytes)? {
            Field::Bytes(1, bytes) if std::str::from_utf8(bytes).is_err() => {
                return Err(Malformed { what: "the key of a header is not UTF-8" });
            }
            Field::Bytes(1, bytes) => key = bytes,
            Field::Bytes(2, bytes) => value = Some(bytes),
            Field::Varint(1..=2, _) | Field::Other(1..=2) => {
                return Err(Malformed { what: "a field of a header has another type than it must have" });
            }
            Field::Varint(..) | Field::Bytes(..) | Field::Other(_) => {}
        }
    }
    Ok((key, value))
}

/// One field with its number.
enum Field<'a> {
    Varint(u32, u64),
    Bytes(u32, &'a [u8]),
    /// Of a fixed width; no field of ours is.
    Other(u32),
}

impl<'a> Field<'a> {
    /// Reads a field and moves past it.
    #[inline]
    fn read(rest: &mut &'a [u8]) -> Result<Self, Malformed> {
        let key = varint(rest)?;
        let number = u32::try_from(key >> 3).ok().filter(|number| (1..=FIELD_MAX).contains(number));
        let number = number.ok_or(Malformed { what: "a field's number is out of range" })?;
        match key & 7 {
            0 => Ok(Self::Varint(number, varint(rest)?)),
            1 => take(rest, 8).map(|_| Self::Other(number)),
            2 => {
                let length = varint(rest)?;
                take(rest, length).map(|bytes| Self::Bytes(number, bytes))
            }
            5 => take(rest, 4).map(|_| Self::Other(number)),
            _ => Err(Malformed { what: "a field of a type that is not used" }),
        }
    }
}

/// The greatest number that a field can have.
const FIELD_MAX: u32 = (1 << 29) - 1;

#[inline]
fn take<'a>(rest: &mut &'a [u8], length: u64) -> Result<&'a [u8], Malformed> {
    let cut = usize::try_from(length).ok().and_then(|length| rest.split_at_checked(length));
    let (taken, left) = cut.ok_or(Malformed { what: "a field is longer than the bytes that remain" })?;
    *rest = left;
    Ok(taken)
}

/// A variable-length integer of at most 64 bits.
#[inline]
fn varint(rest: &mut &[u8]) -> Result<u64, Malformed> {
    let bytes = *rest;
    if let Some((&byte, left)) = bytes.split_first()
        && byte < 0x80
    {
        *rest = left;
        return Ok(u64::from(byte));
    }
    let mut value = 0;
    for (index, byte) in bytes.iter().take(10).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * index);
        // The tenth byte has room for the last of the 64 bits.
        if index == 9 && *byte > 1 {
            break;
        }
        if byte & 0x80 == 0 {
            *rest = &bytes[index + 1..];
            return Ok(value);
        }
    }
    Err(Malformed { what: "an integer does not end within 64 bits" })
}
