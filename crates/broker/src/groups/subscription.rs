//! What consumers of the classic protocol tell one another of what they read: enough of Kafka's `ConsumerProtocolSubscription` to know
//! the names of their topics.

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

/// What an assignment (Kafka's `ConsumerProtocolAssignment`) gives; `None` if it is not one.
pub(crate) fn assigned(assignment: &[u8]) -> Option<Vec<(String, Vec<u32>)>> {
    let (version, rest) = assignment.split_first_chunk::<2>()?;
    if i16::from_be_bytes(*version) < 0 {
        return None;
    }
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
