//! Every byte flipped, every length cut, of small batches of every codec: an error, or exactly the same rows.

use bytes::Bytes;
use lakebed_segment::batch::{Codec, decode, split};

use crate::records::{LIMITS, Owned, encode, fields, owned, set_crc, with_records};

fn sample() -> Vec<Owned> {
    let headers = vec![
        ("a".to_owned(), Some(b"1".to_vec())),
        ("a".to_owned(), None),
        (String::new(), Some(Vec::new())),
        ("a".to_owned(), Some(b"1".to_vec())),
    ];
    let record = |offset, timestamp_ms, key: Option<&[u8]>, value: Option<&[u8]>, headers| Owned {
        offset,
        timestamp_ms,
        key: key.map(<[u8]>::to_vec),
        value: value.map(<[u8]>::to_vec),
        headers,
    };
    vec![
        record(9, 1_700_000_000_000, Some(b"key"), Some(&[b'x'; 150]), vec![]),
        record(10, -1, None, Some(b""), headers),
        record(11, 1_700_000_000_009, Some(b""), None, vec![]),
    ]
}

#[test]
fn a_flipped_bit_is_refused_unless_the_log_sets_that_field() {
    for codec in Codec::ALL {
        let batch = encode(fields(codec), &sample());
        let whole = decode(batch.clone(), &LIMITS).unwrap();
        assert_eq!(owned(&whole.rows, 9), sample());
        for (at, bit) in (0..batch.len()).flat_map(|at| (0..8).map(move |bit| (at, bit))) {
            let mut damaged = batch.to_vec();
            damaged[at] ^= 1 << bit;
            let outcome = decode(Bytes::from(damaged), &LIMITS);
            let of_the_log = at < 8 || (12..16).contains(&at);
            match outcome {
                Ok(decoded) => assert!(of_the_log && decoded.rows == whole.rows, "{codec:?}, bit {bit} of byte {at}"),
                Err(error) => assert!(!of_the_log, "{codec:?}, bit {bit} of byte {at}: {error}"),
            }
        }
    }
}

#[test]
fn a_batch_cut_anywhere_is_refused() {
    for codec in Codec::ALL {
        let batch = encode(fields(codec), &sample());
        for cut in 0..batch.len() {
            assert!(decode(batch.slice(..cut), &LIMITS).is_err(), "{codec:?} cut at {cut}");
            assert!(split(batch.slice(..cut)).is_err(), "{codec:?} cut at {cut}");
            if cut >= 61 {
                // What the producer itself cut: length and CRC fit.
                let cut_before = with_records(&batch, codec, &batch[61..cut]);
                if let Ok(decoded) = decode(cut_before, &LIMITS) {
                    assert_eq!(owned(&decoded.rows, 9), sample(), "{codec:?} cut at {cut}");
                }
            }
        }
        let longer = Bytes::from([&batch[..], b"x"].concat());
        assert!(decode(longer.clone(), &LIMITS).is_err() && split(longer).is_err());
    }
}

/// A producer may send anything under a CRC that fits: no rows are right then, but nothing may panic, and what is
/// accepted must be whole.
#[test]
fn a_flipped_bit_under_a_right_crc_never_breaks_the_decoder() {
    let mut refused = 0;
    for codec in Codec::ALL {
        let batch = encode(fields(codec), &sample());
        for (at, bit) in (21..batch.len()).flat_map(|at| (0..8).map(move |bit| (at, bit))) {
            let mut damaged = batch.to_vec();
            damaged[at] ^= 1 << bit;
            set_crc(&mut damaged);
            match decode(Bytes::from(damaged), &LIMITS) {
                Ok(decoded) => assert_eq!(owned(&decoded.rows, 9).len(), decoded.header.count as usize),
                Err(_) => refused += 1,
            }
        }
    }
    assert!(refused > 1000, "only {refused} were refused: the damage did not reach the records");
}
