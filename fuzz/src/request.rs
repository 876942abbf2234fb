//! Requests: what is claimed of any frame that a Kafka client may send, from its header on.
//!
//! 1. Neither the header's parser, nor the guard, nor the decoder behind it panics; together they allocate within the bound of
//!    [`crate::allocation`].
//! 2. Guard and decoder agree on where a body ends, and the decoder takes nothing that the guard refuses.
//! 3. What is decoded, encoded and decoded again is the same.

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::{ApiKey, RequestKind};
use lakebed_wire::kafka::{Support, guard, parse_header};

use crate::allocation::within_bound;

/// Asserts the claims of `input`. Returns whether it was accepted.
pub fn check(input: &[u8]) -> bool {
    let frame = Bytes::copy_from_slice(input);
    let Some((key, version, request)) = within_bound(frame.len(), || read(&frame)) else { return false };
    let mut body = BytesMut::new();
    request.encode(&mut body, version).expect("what was decoded can be encoded");
    let again = RequestKind::decode(key, &mut body.freeze(), version).expect("what was encoded is decoded");
    assert_eq!(again, request, "{key:?} v{version}");
    true
}

fn read(frame: &Bytes) -> Option<(ApiKey, i16, RequestKind)> {
    let header = parse_header(frame).ok()?;
    let Support::Decoded(api) = header.support else { return None };
    let body = frame.slice(header.body_start..);
    let taken = guard(api.key, header.version, &body).ok()?;
    let key = ApiKey::try_from(api.key).expect("an API of the table has a message");
    let mut rest = body.clone();
    let request = RequestKind::decode(key, &mut rest, header.version).ok()?;
    assert_eq!(body.len() - rest.len(), taken, "{} v{}: guard and decoder are out of step", api.name, header.version);
    Some((key, header.version, request))
}
