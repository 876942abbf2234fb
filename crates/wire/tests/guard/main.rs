//! What the guard lets through, crate `kafka-protocol` decodes within bounds; what a client sends, it lets through.
//!
//! A binary of its own, because it measures what is allocated: its tests run one at a time.

#![allow(clippy::unwrap_used, reason = "a test may stop where it is surprised")]
#![allow(unreachable_pub, reason = "shared with the fuzz targets")]

#[path = "../../../../fuzz/src/allocation.rs"]
mod allocation;
mod corpus;
mod fuzzed;
mod generate;
#[path = "../../../../fuzz/src/request.rs"]
mod request;

use std::sync::{Mutex, MutexGuard, PoisonError};

use allocation::{allocated_by, within_bound};
use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::{ApiKey, RequestKind};
use lakebed_wire::kafka::{API_TABLE, Api, FETCH, FIND_COORDINATOR, GuardError, METADATA, PRODUCE, guard};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What came of a body.
#[derive(Debug, PartialEq)]
enum Outcome {
    Refused(GuardError),
    Undecodable,
    Decoded(Box<RequestKind>),
}

/// Guards `body` and decodes it if it passes, and checks what that allocates.
fn guard_and_decode(api: &Api, version: i16, body: &Bytes) -> Outcome {
    within_bound(body.len(), || match guard(api.key, version, body) {
        Err(error) => Outcome::Refused(error),
        Ok(taken) => {
            let mut rest = body.clone();
            let decoded = RequestKind::decode(ApiKey::try_from(api.key).unwrap(), &mut rest, version);
            match decoded {
                Err(_) => Outcome::Undecodable,
                Ok(request) => {
                    let decoded = body.len() - rest.len();
                    assert_eq!(decoded, taken, "{} v{version}: guard and decoder are out of step: {body:?}", api.name);
                    Outcome::Decoded(Box::new(request))
                }
            }
        }
    })
}

fn versions() -> impl Iterator<Item = (&'static Api, i16)> {
    API_TABLE.iter().flat_map(|api| (api.decoded_from..=api.max).map(move |version| (api, version)))
}

fn encoded(random: &mut StdRng, api: &Api, version: i16) -> (RequestKind, Bytes) {
    let request = generate::request(random, api.key, version);
    let mut body = BytesMut::new();
    request.encode(&mut body, version).unwrap();
    (request, body.freeze())
}

#[test]
fn what_a_client_sends_passes_and_is_decoded_to_what_was_sent() {
    let _alone = alone();
    for (api, version) in versions() {
        for seed in 0..100 {
            let (request, body) = encoded(&mut StdRng::seed_from_u64(seed), api, version);
            let outcome = guard_and_decode(api, version, &body);
            assert_eq!(outcome, Outcome::Decoded(Box::new(request)), "{} v{version} seed {seed}", api.name);
        }
    }
}

#[test]
fn a_body_that_is_cut_off_is_refused_and_what_follows_one_is_not_read() {
    let _alone = alone();
    for (api, version) in versions() {
        for seed in 0..5 {
            let (request, body) = encoded(&mut StdRng::seed_from_u64(seed), api, version);
            for cut in 0..body.len() {
                let outcome = guard_and_decode(api, version, &body.slice(..cut));
                assert!(matches!(outcome, Outcome::Refused(_)), "{} v{version} seed {seed} cut at {cut}", api.name);
            }
            let longer = [&body[..], &[0xff; 3]].concat().into();
            let outcome = guard_and_decode(api, version, &longer);
            assert_eq!(outcome, Outcome::Decoded(Box::new(request)), "{} v{version} seed {seed}, longer", api.name);
        }
    }
}

fn mutate(random: &mut StdRng, body: &[u8]) -> Bytes {
    let mut bytes = body.to_vec();
    for _ in 0..random.random_range(1..4) {
        let at = random.random_range(0..=bytes.len());
        let interesting = [0, 1, 2, 0x7f, 0x80, 0xff, random.random()];
        let byte = interesting[random.random_range(0..interesting.len())];
        match random.random_range(0..5) {
            0 if at < bytes.len() => bytes[at] = byte,
            1 => bytes.insert(at, byte),
            2 if at < bytes.len() => drop(bytes.remove(at)),
            3 => {
                let large = [&i32::MAX.to_be_bytes()[..], &[0xff, 0xff, 0xff, 0xff, 7], &[0x7f, 0xff]];
                let large = large[random.random_range(0..large.len())];
                let end = (at + large.len()).min(bytes.len());
                bytes.splice(at..end, large.iter().copied());
            }
            4 => bytes.truncate(at),
            _ => bytes.push(byte),
        }
    }
    bytes.into()
}

#[test]
fn no_damage_makes_guard_and_decoder_panic_or_allocate_without_bound() {
    let _alone = alone();
    let (mut refused, mut decoded) = (0, 0);
    for (api, version) in versions() {
        let mut random = StdRng::seed_from_u64(u64::from(version.unsigned_abs()));
        for _ in 0..20 {
            let (_, body) = encoded(&mut random, api, version);
            for _ in 0..50 {
                match guard_and_decode(api, version, &mutate(&mut random, &body)) {
                    Outcome::Refused(_) => refused += 1,
                    Outcome::Decoded(_) => decoded += 1,
                    Outcome::Undecodable => {}
                }
            }
        }
    }
    assert!(refused > 1000 && decoded > 1000, "{refused} refused, {decoded} decoded: too one-sided to show anything");
}

#[test]
fn bodies_of_noise_are_harmless() {
    let _alone = alone();
    let mut random = StdRng::seed_from_u64(0);
    for (api, version) in versions() {
        for _ in 0..200 {
            let length = random.random_range(0..64);
            let body = (0..length).map(|_| random.random::<u8>() & random.random::<u8>()).collect();
            guard_and_decode(api, version, &body);
        }
    }
}

fn row(key: i16) -> &'static Api {
    lakebed_wire::kafka::api(key).unwrap()
}

/// A body of `count` times `element` after `before` and a count, and then `after`.
fn repeated(before: &[u8], count: u32, element: &[u8], after: &[u8], compact: bool) -> Bytes {
    let mut body = before.to_vec();
    if compact {
        let mut value = count + 1;
        while value >= 0x80 {
            body.push(value as u8 | 0x80);
            value >>= 7;
        }
        body.push(value as u8);
    } else {
        body.extend(count.to_be_bytes());
    }
    body.extend(element.repeat(count as usize));
    body.extend(after);
    body.into()
}

#[test]
fn many_of_the_smallest_elements_are_decoded_within_bounds_or_refused() {
    let _alone = alone();
    let fetch = [0; 4 * 4 + 1];
    let mut refused = 0;
    for count in [1, 100, 5_000, 20_000, 1_000_000] {
        let bodies = [
            // Topics with empty names; with one unknown tagged field each; coordinator keys that are empty; topics
            // without partitions; partitions of null.
            (METADATA, 0, repeated(&[], count, &[0, 0], &[], false)),
            (METADATA, 9, repeated(&[], count, &[1, 1, 5, 0], &[1, 0, 0, 0], true)),
            (FIND_COORDINATOR, 4, repeated(&[0], count, &[1], &[0], true)),
            (FETCH, 4, repeated(&fetch, count, &[0, 0, 0, 0, 0, 0], &[], false)),
            (PRODUCE, 9, repeated(&[0, 0, 1, 0, 0, 0, 1, 2, 2, b'a'], count, &[0, 0, 0, 0, 0, 0], &[0, 0], true)),
        ];
        for (key, version, body) in bodies {
            let outcome = guard_and_decode(row(key), version, &body);
            match outcome {
                Outcome::Refused(GuardError::TooManyElements { .. }) => refused += 1,
                Outcome::Decoded(_) => {}
                other => panic!("API {key} v{version} with {count} elements: {other:?}"),
            }
        }
    }
    assert!(refused > 5, "only {refused} were refused");
}

#[test]
fn a_request_for_many_real_topics_is_not_refused() {
    let _alone = alone();
    let element = [&[0, 20][..], b"orders.eu-west-1.raw"].concat();
    let body = repeated(&[], 100_000, &element, &[], false);
    assert!(matches!(guard_and_decode(row(METADATA), 0, &body), Outcome::Decoded(_)));
}

#[test]
fn claims_of_two_billion_topics_are_refused_without_allocation() {
    let _alone = alone();
    let metadata = Bytes::copy_from_slice(&i32::MAX.to_be_bytes());
    let before = [&[0xff, 0xff, 0xff, 0xff][..], &30_000i32.to_be_bytes()].concat();
    let produce = Bytes::from([&before[..], &i32::MAX.to_be_bytes()].concat());
    assert_eq!((metadata.len(), produce.len()), (4, 12));
    for (key, version, body) in [(METADATA, 1, metadata), (PRODUCE, 7, produce)] {
        let (refused, allocated) = allocated_by(|| guard(key, version, &body));
        assert!(matches!(refused, Err(GuardError::BeyondEnd { field: "topics", remaining: 0, .. })), "{refused:?}");
        // The test harness has threads of its own; the decoder would have asked for 150 GB.
        assert!(allocated < 4096, "{allocated}");
    }
}
