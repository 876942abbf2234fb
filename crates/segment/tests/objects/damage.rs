//! A flipped byte or a cut anywhere is an error or harmless; it never gives other rows or another commit.

use bytes::Bytes;
use lakebed_segment::FormatError;
use lakebed_segment::checkpoint::{Manifest, decode, encode};
use lakebed_segment::commit::commit_object;
use lakebed_segment::footer::{Footer, Parsed};

use crate::samples::{commit_with_rows, content, identity, snapshot};
use crate::{footer_of, read_all, records_of};

fn object() -> Bytes {
    commit_object(&identity(), &commit_with_rows(), content().body()).into()
}

#[test]
fn a_commit_with_any_bit_flipped_is_an_error_or_the_right_rows() {
    let object = object();
    let (footer, rows) = read_all(&object).unwrap();
    let records = records_of(&rows);
    let mut harmless = 0;
    for index in 0..object.len() {
        for bit in [0, 3, 7] {
            let mut bytes = object.to_vec();
            bytes[index] ^= 1 << bit;
            if let Ok((read_footer, read_rows)) = read_all(&Bytes::from(bytes)) {
                assert_eq!(read_footer, footer, "flip at {index}");
                assert_eq!(records_of(&read_rows), records, "flip at {index}");
                harmless += 1;
            }
        }
    }
    // The magic in front, and the pages of topic and partition, which readers of runs do not use.
    let unread = footer.ranges(0..footer.rows).unwrap()[0].start * 3;
    assert!(harmless <= unread, "{harmless} flips went unnoticed, at most {unread} bits are not read");
}

#[test]
fn a_commit_cut_at_any_length_is_an_error() {
    let object = object();
    for length in 0..object.len() {
        let cut = object.slice(..length);
        assert!(Footer::parse(&cut, length as u64).is_err(), "cut at {length}");
        // The end is there, but the front is not.
        let suffix = object.slice(object.len() - length..);
        match Footer::parse(&suffix, object.len() as u64).unwrap() {
            Parsed::NeedsSuffix(bytes) => assert!(bytes > length as u64 && bytes <= object.len() as u64),
            Parsed::Whole(footer) => {
                assert_eq!(footer, footer_of(&object).unwrap());
                let start = (object.len() - length) as u64;
                let read = footer.read(0..footer.rows, &[(start, suffix)]);
                let needed = footer.ranges(0..footer.rows).unwrap()[0].start;
                assert_eq!(read.is_ok(), start <= needed, "suffix of {length}");
            }
        }
    }
}

#[test]
fn a_newer_format_says_so() {
    let object = object();
    let text = object.windows(2).position(|pair| pair == b"\x011").unwrap();
    let mut bytes = object.to_vec();
    bytes[text + 1] = b'7';
    assert_eq!(footer_of(&Bytes::from(bytes)), Err(FormatError::Newer { found: 7, supported: 1 }));
}

#[test]
fn a_checkpoint_with_any_byte_flipped_or_cut_is_an_error() {
    let snapshot = snapshot();
    let checkpoint = encode(&identity(), &snapshot, None);
    let manifest = Manifest::decode(&checkpoint.manifest).unwrap();
    let parts: Vec<Bytes> = checkpoint.parts.iter().map(|(_, bytes)| bytes.clone()).collect();
    assert_eq!(decode(&manifest, &parts), Ok(snapshot));
    for index in 0..checkpoint.manifest.len() {
        let mut bytes = checkpoint.manifest.to_vec();
        bytes[index] ^= 1;
        assert!(Manifest::decode(&bytes).is_err(), "manifest flipped at {index}");
        assert!(Manifest::decode(&checkpoint.manifest[..index]).is_err(), "manifest cut at {index}");
    }
    for (number, part) in parts.iter().enumerate() {
        for index in 0..part.len() {
            let mut damaged = parts.clone();
            let mut bytes = part.to_vec();
            bytes[index] ^= 1;
            damaged[number] = bytes.into();
            assert!(decode(&manifest, &damaged).is_err(), "part {number} flipped at {index}");
            damaged[number] = part.slice(..index);
            assert!(decode(&manifest, &damaged).is_err(), "part {number} cut at {index}");
        }
    }
}
