//! What consumers of the classic protocol tell one another of what they read: enough of Kafka's `ConsumerProtocolSubscription` to know
//! the names of their topics.

use bytes::{BufMut, Bytes, BytesMut};

/// The latest version of what consumers tell one another that is written here.
const VERSION_MAX: i16 = 3;
/// The protocol type of consumers.
pub(crate) const PROTOCOL_TYPE: &str = "consumer";

/// The topics of a subscription; `None` if it is not one.
pub(crate) fn topics(metadata: &[u8]) -> Option<Vec<String>> {
    let (version, rest) = metadata.split_first_chunk::<2>()?;
    if i16::from_be_bytes(*version) < 0 {
        return None;
    }
    let (count, mut rest) = rest.split_first_chunk::<4>()?;
    let count = usize::try_from(i32::from_be_bytes(*count)).ok()?;
    // Two bytes of length for each at least: nothing is allocated for a count that its bytes don't bear out.
    if count > rest.len() / 2 {
        return None;
    }
    let mut names = Vec::with_capacity(count);
    for _ in 0..count {
        let (length, after) = rest.split_first_chunk::<2>()?;
        let (name, after) = after.split_at_checked(usize::try_from(i16::from_be_bytes(*length)).ok()?)?;
        names.push(std::str::from_utf8(name).ok()?.to_owned());
        rest = after;
    }
    Some(names)
}

/// What a subscription says that its member holds; empty for one of a version that does not say. `None` if it is not one.
pub(crate) fn owned(metadata: &[u8]) -> Option<Vec<(String, Vec<u32>)>> {
    let (version, rest) = metadata.split_first_chunk::<2>()?;
    let (count, mut rest) = rest.split_first_chunk::<4>()?;
    for _ in 0..i32::from_be_bytes(*count) {
        let (length, after) = rest.split_first_chunk::<2>()?;
        rest = after.split_at_checked(usize::try_from(i16::from_be_bytes(*length)).ok()?)?.1;
    }
    let (length, rest) = rest.split_first_chunk::<4>()?;
    // Null is -1.
    let rest = rest.split_at_checked(usize::try_from(i32::from_be_bytes(*length).max(0)).ok()?)?.1;
    if i16::from_be_bytes(*version) < 1 { Some(Vec::new()) } else { topics_with_partitions(rest) }
}

/// An assignment of these partitions, ascending by topic, in the version of a member's subscription.
pub(crate) fn write_assignment(metadata: &[u8], partitions: &[(&str, u32)]) -> Bytes {
    let version = metadata.first_chunk::<2>().map_or(0, |version| i16::from_be_bytes(*version)).clamp(0, VERSION_MAX);
    let mut assignment = BytesMut::new();
    assignment.put_i16(version);
    let topics: Vec<&[(&str, u32)]> = partitions.chunk_by(|one, next| one.0 == next.0).collect();
    let number = |count: usize| i32::try_from(count).unwrap_or(i32::MAX);
    assignment.put_i32(number(topics.len()));
    for topic in topics {
        let name = topic.first().map_or("", |(name, _)| name);
        assignment.put_i16(i16::try_from(name.len()).unwrap_or(i16::MAX));
        assignment.put_slice(name.as_bytes());
        assignment.put_i32(number(topic.len()));
        for (_, partition) in topic {
            assignment.put_u32(*partition);
        }
    }
    // No data of the user.
    assignment.put_i32(-1);
    assignment.freeze()
}

/// What an assignment (Kafka's `ConsumerProtocolAssignment`) gives; `None` if it is not one.
pub(crate) fn assigned(assignment: &[u8]) -> Option<Vec<(String, Vec<u32>)>> {
    let (version, rest) = assignment.split_first_chunk::<2>()?;
    if i16::from_be_bytes(*version) < 0 { None } else { topics_with_partitions(rest) }
}

fn topics_with_partitions(rest: &[u8]) -> Option<Vec<(String, Vec<u32>)>> {
    let (count, mut rest) = rest.split_first_chunk::<4>()?;
    let count = usize::try_from(i32::from_be_bytes(*count)).ok()?;
    // Two bytes for the name and four for the count of each at least, as above.
    if count > rest.len() / 6 {
        return None;
    }
    let mut topics = Vec::with_capacity(count);
    for _ in 0..count {
        let (length, after) = rest.split_first_chunk::<2>()?;
        let (name, after) = after.split_at_checked(usize::try_from(i16::from_be_bytes(*length)).ok()?)?;
        let (partitions, after) = after.split_first_chunk::<4>()?;
        let bytes = usize::try_from(i32::from_be_bytes(*partitions)).ok()?.checked_mul(4)?;
        let (partitions, after) = after.split_at_checked(bytes)?;
        let index = |four: &[u8]| u32::from_be_bytes([four[0], four[1], four[2], four[3]]);
        topics.push((std::str::from_utf8(name).ok()?.to_owned(), partitions.chunks_exact(4).map(index).collect()));
        rest = after;
    }
    Some(topics)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_member_holds_is_read_from_its_subscription() {
        let names = [0, 0, 0, 1, 0, 1, b'a', 0, 0, 0, 2, 9, 9];
        let held = [0, 0, 0, 1, 0, 1, b'a', 0, 0, 0, 1, 0, 0, 0, 7];
        let whole = [&[0, 1][..], &names, &held].concat();
        assert_eq!(owned(&whole), Some(vec![("a".to_owned(), vec![7])]));
        assert_eq!(owned(&[&[0, 0][..], &names].concat()), Some(Vec::new()), "version 0 does not say");
        for cut in 0..whole.len() {
            assert_eq!(owned(&whole[..cut]), None, "{cut}");
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let partitions = [("a", 1), ("a", 3), ("b", 0)];
        for (subscribed, version) in [(0, 0), (3, 3), (9, VERSION_MAX)] {
            let written = write_assignment(&[0, subscribed, 7], &partitions);
            assert_eq!(written[..2], version.to_be_bytes());
            assert_eq!(assigned(&written), Some(vec![("a".to_owned(), vec![1, 3]), ("b".to_owned(), vec![0])]));
        }
        assert_eq!(assigned(&write_assignment(&[], &[])), Some(Vec::new()));
    }

    #[test]
    fn the_partitions_of_an_assignment_are_read_and_what_is_none_is_refused() {
        let one = [0, 1, b'a', 0, 0, 0, 2, 0, 0, 0, 7, 0, 0, 0, 9];
        let whole = [&[0, 1, 0, 0, 0, 1][..], &one, &[0xff, 0xff, 0xff, 0xff]].concat();
        assert_eq!(assigned(&whole), Some(vec![("a".to_owned(), vec![7, 9])]));
        for cut in 0..6 + one.len() {
            assert_eq!(assigned(&whole[..cut]), None, "{cut}");
        }
        assert_eq!(assigned(&[0, 0, 0x7f, 0xff, 0xff, 0xff]), None);
        assert_eq!(assigned(&[0, 0, 0, 0, 0, 1, 0, 0, 0x7f, 0xff, 0xff, 0xff]), None);
    }

    #[test]
    fn the_topics_of_a_subscription_are_read_and_what_is_none_is_refused() {
        let whole = [&[0, 1, 0, 0, 0, 2, 0, 1, b'a', 0, 2, b'b', b'c'][..], &[0xff, 0xff, 0xff, 0xff]].concat();
        assert_eq!(topics(&whole), Some(vec!["a".to_owned(), "bc".to_owned()]));
        for cut in 0..13 {
            assert_eq!(topics(&whole[..cut]), None, "{cut}");
        }
        assert_eq!(topics(&[0, 0, 0x7f, 0xff, 0xff, 0xff]), None);
        assert_eq!(topics(&[0, 0, 0, 0, 0, 0]), Some(Vec::new()));
    }
}
