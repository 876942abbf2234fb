//! Zigzag varints as Kafka's records use them (those of protocol buffers), with fast paths for one and two bytes.
//!
//! A number takes at most 5 bytes for 32 bits and 10 for 64, and bits beyond the width are an error. A longer spelling
//! than needed within those bounds is accepted, as Kafka does.

/// Reads an `i32` at `*at` and moves past it; `None` if the bytes end first or the number is too wide.
#[inline(always)]
pub(super) fn read_i32(bytes: &[u8], at: &mut usize) -> Option<i32> {
    let first = *bytes.get(*at)?;
    if first < 0x80 {
        *at += 1;
        return Some(unzigzag(u64::from(first)) as i32);
    }
    let second = *bytes.get(*at + 1)?;
    if second < 0x80 {
        *at += 2;
        return Some(unzigzag(u64::from(first & 0x7f) | u64::from(second) << 7) as i32);
    }
    let wide = read_wide(bytes, at, 5)?;
    Some(unzigzag(u64::from(u32::try_from(wide).ok()?)) as i32)
}

/// Reads an `i64` at `*at` and moves past it; `None` if the bytes end first or the number is too wide.
#[inline(always)]
pub(super) fn read_i64(bytes: &[u8], at: &mut usize) -> Option<i64> {
    let first = *bytes.get(*at)?;
    if first < 0x80 {
        *at += 1;
        return Some(unzigzag(u64::from(first)));
    }
    let second = *bytes.get(*at + 1)?;
    if second < 0x80 {
        *at += 2;
        return Some(unzigzag(u64::from(first & 0x7f) | u64::from(second) << 7));
    }
    read_wide(bytes, at, 10).map(unzigzag)
}

#[cold]
#[inline(never)]
fn read_wide(bytes: &[u8], at: &mut usize, bytes_max: usize) -> Option<u64> {
    let mut number = 0u64;
    for (index, &byte) in bytes[*at..].iter().take(bytes_max).enumerate() {
        let bits = u64::from(byte & 0x7f);
        let shift = 7 * index as u32;
        if bits << shift >> shift != bits {
            return None;
        }
        number |= bits << shift;
        if byte < 0x80 {
            *at += index + 1;
            return Some(number);
        }
    }
    None
}

/// Appends `number` in its shortest form.
#[inline]
pub(super) fn write(out: &mut Vec<u8>, number: i64) {
    let mut rest = zigzag(number);
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// How many bytes [`write`] appends for `number`.
#[inline]
pub(super) fn size(number: i64) -> usize {
    let bits = 64 - (zigzag(number) | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}

#[inline]
fn zigzag(number: i64) -> u64 {
    ((number << 1) ^ (number >> 63)) as u64
}

#[inline]
fn unzigzag(number: u64) -> i64 {
    (number >> 1) as i64 ^ -((number & 1) as i64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig { rng_seed: proptest::test_runner::RngSeed::Fixed(1), ..ProptestConfig::default() })]
        #[test]
        fn every_number_reads_back_in_the_size_foretold(number: i64, shift in 0u32..64) {
            let number = number >> shift;
            let mut out = vec![7];
            write(&mut out, number);
            prop_assert_eq!(out.len() - 1, size(number));
            let mut at = 1;
            prop_assert_eq!(read_i64(&out, &mut at), Some(number));
            prop_assert_eq!(at, out.len());
            at = 1;
            prop_assert_eq!(read_i32(&out, &mut at), i32::try_from(number).ok());
            for cut in 1..out.len() {
                let mut at = 1;
                prop_assert_eq!(read_i64(&out[..cut], &mut at), None);
            }
        }
    }

    #[test]
    fn a_number_wider_than_its_type_is_refused() {
        let (mut wide, mut longer) = (vec![0xff; 9], vec![0xff; 10]);
        wide.push(0x02);
        longer.push(0x00);
        assert_eq!(read_i64(&wide, &mut 0), None);
        assert_eq!(read_i64(&longer, &mut 0), None);
        assert_eq!(read_i32(&[0xff, 0xff, 0xff, 0xff, 0x1f], &mut 0), None);
        assert_eq!(read_i32(&[0x80, 0x80, 0x80, 0x80, 0x80, 0x00], &mut 0), None);
        assert_eq!(read_i32(&[0xff, 0xff, 0xff, 0xff, 0x0f], &mut 0), Some(i32::MIN));
    }

    #[test]
    fn a_longer_spelling_within_the_bound_is_read() {
        let mut at = 0;
        assert_eq!(read_i32(&[0x82, 0x00], &mut at), Some(1));
        assert_eq!(at, 2);
    }
}
