//! The guard: proves that a request body may be handed to the decoder.
//!
//! Crate `kafka-protocol` allocates what a body claims, so that four bytes can ask for 150 GB and abort the process
//! (CVE-2022-34917 is the same in Kafka). After [`guard`] has passed a body:
//!
//! 1. every length and every count is one that its own bytes bear out;
//! 2. the decoder allocates at most [`DECODED_PER_BYTE`] times the body + [`DECODED_FREE`].
//!
//! It does not check what fields mean, nor that strings are UTF-8 (the decoder does), nor look into record batches.

use thiserror::Error;

use super::schema::{Kind, Struct, body};
use super::table::{Api, api};

/// How many bytes a decoded request may take for each byte of its body: well above what partitions (at most 6) and
/// topics with ordinary names need.
pub const DECODED_PER_BYTE: usize = 7;

/// What a decoded request may take however small its body is: room for ten thousand topics of one letter.
pub const DECODED_FREE: usize = 768 * 1024;

/// What an unknown tagged field is counted for: a node of the map that the decoder keeps it in.
const UNKNOWN_TAGGED_FIELD_BYTES: usize = 512;

/// What a decoded string takes in an array, beside its bytes, which stay where they are.
pub(super) const DECODED_STRING_BYTES: usize = 40;

/// Why a body must not be decoded. The connection that sent it is out of step, or hostile.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum GuardError {
    /// There is no shape for it.
    #[error("requests of API {key} version {version} are not decoded")]
    Unsupported {
        /// The API's number.
        key: i16,
        /// Version of the request.
        version: i16,
    },
    /// A length, a count or a field of fixed size goes beyond the end of the body.
    #[error("{api} v{version}: field {field} claims {claimed} where {remaining} bytes remain")]
    BeyondEnd {
        /// The API's name.
        api: &'static str,
        /// Version of the request.
        version: i16,
        /// The field.
        field: &'static str,
        /// The length in bytes, or for an array its number of elements.
        claimed: u64,
        /// Bytes of the body that remain.
        remaining: usize,
    },
    /// A length or a count is negative, or null where nothing may be null.
    #[error("{api} v{version}: field {field} has length {claimed}")]
    NegativeLength {
        /// The API's name.
        api: &'static str,
        /// Version of the request.
        version: i16,
        /// The field.
        field: &'static str,
        /// The length or count; null is -1.
        claimed: i64,
    },
    /// The elements are there, but decoded they would take many times the memory of the body.
    #[error(
        "{api} v{version}: field {field} claims {claimed} elements, more than a body of {size_bytes} bytes may have"
    )]
    TooManyElements {
        /// The API's name.
        api: &'static str,
        /// Version of the request.
        version: i16,
        /// The field.
        field: &'static str,
        /// Number of elements.
        claimed: u64,
        /// Size of the body.
        size_bytes: usize,
    },
    /// A variable-length integer doesn't end, or doesn't fit 32 bits.
    #[error(
        "{api} v{version}: field {field} has a malformed variable-length integer, {remaining} bytes before the end"
    )]
    MalformedVarint {
        /// The API's name.
        api: &'static str,
        /// Version of the request.
        version: i16,
        /// The field.
        field: &'static str,
        /// Bytes of the body that remain.
        remaining: usize,
    },
    /// A tagged field doesn't end where it says.
    #[error("{api} v{version}: tagged field {field} claims {claimed} bytes and has {actual}")]
    TagLength {
        /// The API's name.
        api: &'static str,
        /// Version of the request.
        version: i16,
        /// The field.
        field: &'static str,
        /// The length that stands before it.
        claimed: u64,
        /// The length of what it holds.
        actual: usize,
    },
}

/// Checks that a body, what follows the header of a request, can be decoded within bounds; returns how many bytes its fields take.
///
/// SUBTLE: more bytes may follow, which no one reads. Kafka's brokers ignore them, and librdkafka relies on that: asking for all
/// topics in a flexible version of Metadata, it writes the four bytes of a plain null for the one of a compact null.
///
/// # Errors
/// [`GuardError`]: what is wrong and where. The body must not be decoded.
///
/// # Cost
/// One pass over lengths and counts; payloads are skipped. No allocation.
pub fn guard(key: i16, version: i16, bytes: &[u8]) -> Result<usize, GuardError> {
    let unsupported = GuardError::Unsupported { key, version };
    let (Some(api), Some(fields)) = (api(key), body(key, version)) else { return Err(unsupported) };
    if !api.decodes(version) {
        return Err(unsupported);
    }
    let budget = bytes.len().saturating_mul(DECODED_PER_BYTE).saturating_add(DECODED_FREE);
    let mut walk = Walk { shape: Shape { api, version, flexible: api.is_flexible(version) }, bytes, at: 0, budget };
    walk.fields_of(fields)?;
    Ok(walk.at)
}

/// What decides how a kind is encoded.
#[derive(Clone, Copy)]
struct Shape {
    api: &'static Api,
    version: i16,
    flexible: bool,
}

impl Shape {
    /// Bytes that the shortest value of `kind` takes.
    fn least_size(self, kind: Kind) -> usize {
        match kind {
            Kind::Bool | Kind::Int8 | Kind::NullableStruct(_) => 1,
            Kind::Int16 => 2,
            Kind::Int32 => 4,
            Kind::Int64 => 8,
            Kind::Uuid => 16,
            Kind::Struct(fields) => {
                let tagged = usize::from(self.flexible);
                fields
                    .fields
                    .iter()
                    .filter(|field| (field.since..=field.until).contains(&self.version))
                    .map(|field| self.least_size(field.kind))
                    .sum::<usize>()
                    + tagged
            }
            _ if self.flexible => 1,
            Kind::String | Kind::NullableString => 2,
            Kind::NullableBytes | Kind::Array(_) | Kind::NullableArray(_) => 4,
        }
    }
}

/// Bytes that one element takes in the decoder's array.
fn decoded_size(kind: Kind) -> usize {
    match kind {
        Kind::Bool | Kind::Int8 => 1,
        Kind::Int16 => 2,
        Kind::Int32 => 4,
        Kind::Int64 => 8,
        Kind::Uuid => 16,
        Kind::Struct(fields) | Kind::NullableStruct(fields) => fields.decoded_bytes,
        Kind::String | Kind::NullableString | Kind::NullableBytes | Kind::Array(_) | Kind::NullableArray(_) => {
            DECODED_STRING_BYTES
        }
    }
}

/// A place in a body.
struct Walk<'a> {
    shape: Shape,
    bytes: &'a [u8],
    at: usize,
    /// Bytes that may still be allocated for what is ahead.
    budget: usize,
}

impl Walk<'_> {
    fn remaining(&self) -> usize {
        self.bytes.len() - self.at
    }

    fn fields_of(&mut self, fields: &'static Struct) -> Result<(), GuardError> {
        for field in fields.fields {
            if (field.since..=field.until).contains(&self.shape.version) {
                self.value(field.name, field.kind)?;
            }
        }
        if self.shape.flexible { self.tagged_fields(fields) } else { Ok(()) }
    }

    fn value(&mut self, field: &'static str, kind: Kind) -> Result<(), GuardError> {
        match kind {
            Kind::Bool | Kind::Int8 | Kind::Int16 | Kind::Int32 | Kind::Int64 | Kind::Uuid => {
                self.skip(field, self.shape.least_size(kind))
            }
            Kind::String | Kind::NullableString => {
                let claimed = if self.shape.flexible { self.compact(field)? } else { self.int16(field)? };
                self.text(field, claimed, matches!(kind, Kind::NullableString))
            }
            Kind::NullableBytes => {
                let claimed = if self.shape.flexible { self.compact(field)? } else { self.int32(field)? };
                self.text(field, claimed, true)
            }
            Kind::Array(element) => self.array(field, *element, false),
            Kind::NullableArray(element) => self.array(field, *element, true),
            Kind::Struct(fields) => self.fields_of(fields),
            // SUBTLE: only 1 says that it is there; for every other byte the decoder reads no further.
            Kind::NullableStruct(fields) if self.take::<1>(field)? == [1] => self.fields_of(fields),
            Kind::NullableStruct(_) => Ok(()),
        }
    }

    /// Skips `claimed` bytes, where -1 is null.
    fn text(&mut self, field: &'static str, claimed: i64, nullable: bool) -> Result<(), GuardError> {
        match usize::try_from(claimed) {
            Ok(length) => self.skip(field, length),
            Err(_) if claimed == -1 && nullable => Ok(()),
            Err(_) => Err(self.negative(field, claimed)),
        }
    }

    fn array(&mut self, field: &'static str, element: Kind, nullable: bool) -> Result<(), GuardError> {
        let claimed = if self.shape.flexible { self.compact(field)? } else { self.int32(field)? };
        let Ok(count) = usize::try_from(claimed) else {
            return if claimed == -1 && nullable { Ok(()) } else { Err(self.negative(field, claimed)) };
        };
        // An element that takes no bytes would make any count plausible.
        let least = self.shape.least_size(element).max(1);
        if count > self.remaining() / least {
            return Err(self.beyond(field, count));
        }
        let decoded = count.saturating_mul(decoded_size(element));
        self.spend(field, count, decoded)?;
        for _ in 0..count {
            self.value(field, element)?;
        }
        Ok(())
    }

    /// The tagged fields that end a struct (KIP-482).
    fn tagged_fields(&mut self, fields: &'static Struct) -> Result<(), GuardError> {
        let field = "tagged fields";
        let count = self.varint(field)? as usize;
        // A tag and a length, one byte each at least.
        if count > self.remaining() / 2 {
            return Err(self.beyond(field, count));
        }
        for _ in 0..count {
            let tag = self.varint(field)?;
            let length = self.varint(field)? as usize;
            if length > self.remaining() {
                return Err(self.beyond(field, length));
            }
            let known = fields.tagged.iter().find(|known| known.tag == tag && self.shape.version >= known.since);
            let Some(known) = known else {
                self.spend(field, count, UNKNOWN_TAGGED_FIELD_BYTES)?;
                self.skip(field, length)?;
                continue;
            };
            // SUBTLE: the decoder ignores the length of a tag that it knows: one that lies would put the decoder and
            // this walk out of step, and the decoder would read counts that nobody has checked.
            let start = self.at;
            self.value(known.name, known.kind)?;
            let actual = self.at - start;
            if actual != length {
                let Shape { api, version, .. } = self.shape;
                return Err(GuardError::TagLength {
                    api: api.name,
                    version,
                    field: known.name,
                    claimed: length as u64,
                    actual,
                });
            }
        }
        Ok(())
    }

    fn spend(&mut self, field: &'static str, count: usize, decoded_bytes: usize) -> Result<(), GuardError> {
        match self.budget.checked_sub(decoded_bytes) {
            Some(left) => {
                self.budget = left;
                Ok(())
            }
            None => Err(GuardError::TooManyElements {
                api: self.shape.api.name,
                version: self.shape.version,
                field,
                claimed: count as u64,
                size_bytes: self.bytes.len(),
            }),
        }
    }

    fn skip(&mut self, field: &'static str, length: usize) -> Result<(), GuardError> {
        if length > self.remaining() {
            return Err(self.beyond(field, length));
        }
        self.at += length;
        Ok(())
    }

    fn take<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], GuardError> {
        let Some((taken, _)) = self.bytes[self.at..].split_first_chunk::<N>() else {
            return Err(self.beyond(field, N));
        };
        self.at += N;
        Ok(*taken)
    }

    fn int16(&mut self, field: &'static str) -> Result<i64, GuardError> {
        Ok(i16::from_be_bytes(self.take(field)?).into())
    }

    fn int32(&mut self, field: &'static str) -> Result<i64, GuardError> {
        Ok(i32::from_be_bytes(self.take(field)?).into())
    }

    /// A compact length: one more than the length, so that 0 is null (-1 here).
    fn compact(&mut self, field: &'static str) -> Result<i64, GuardError> {
        Ok(i64::from(self.varint(field)?) - 1)
    }

    fn varint(&mut self, field: &'static str) -> Result<u32, GuardError> {
        match super::varint::read(&self.bytes[self.at..]) {
            Some((value, length)) => {
                self.at += length;
                Ok(value)
            }
            None => Err(GuardError::MalformedVarint {
                api: self.shape.api.name,
                version: self.shape.version,
                field,
                remaining: self.remaining(),
            }),
        }
    }

    fn beyond(&self, field: &'static str, claimed: usize) -> GuardError {
        GuardError::BeyondEnd {
            api: self.shape.api.name,
            version: self.shape.version,
            field,
            claimed: claimed as u64,
            remaining: self.remaining(),
        }
    }

    fn negative(&self, field: &'static str, claimed: i64) -> GuardError {
        GuardError::NegativeLength { api: self.shape.api.name, version: self.shape.version, field, claimed }
    }
}
