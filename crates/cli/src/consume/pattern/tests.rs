//! Each part, modifier and escape of the language, and what is told of what it does not know.

use bytes::Bytes;
use lakebed_wire::v1;

use super::Pattern;

fn record() -> v1::Record {
    let header = |key: &str, value: Option<&'static [u8]>| v1::Header {
        key: key.to_owned(),
        value: value.map(Bytes::from_static),
    };
    v1::Record {
        key: Some(Bytes::from_static(b"k\xff")),
        value: Some(Bytes::from_static("a \"pie\"".as_bytes())),
        headers: vec![header("a", Some(b"1")), header("a", None), header("b", Some(b"\x00"))],
        timestamp: Some(1_767_323_045_678),
        offset: Some(42),
        ..v1::Record::default()
    }
}

fn printed(pattern: &str, record: &v1::Record) -> Vec<u8> {
    let mut out = Vec::new();
    Pattern::parse(pattern).unwrap().write(&mut out, "orders", 3, record).unwrap();
    out
}

#[test]
fn every_part_prints_its_part_of_the_record() {
    let cases: [(&str, &[u8]); 22] = [
        ("%t", b"orders"),
        ("%p", b"3"),
        ("%o", b"42"),
        ("%k", b"k\xff"),
        ("%k{hex}", b"6bff"),
        ("%k{base64}", b"a/8="),
        ("%k{json}", br#"{"base64":"a/8="}"#),
        ("%v", br#"a "pie""#),
        ("%v{json}", br#""a \"pie\"""#),
        ("%K/%V", b"2/7"),
        ("%h", b"a=1,a=,b=\x00"),
        ("%h{hex}", b"a=31,a=,b=00"),
        ("%h{json}", br#"[{"key":"a","value":"1"},{"key":"a","value":null},{"key":"b","value":"\u0000"}]"#),
        ("%H", b"3"),
        ("%T", b"1767323045678"),
        ("%T{ms}", b"1767323045678"),
        ("%T{s}", b"1767323045"),
        ("%T{rfc3339}", b"2026-01-02T03:04:05.678Z"),
        ("100%%", b"100%"),
        (r"\n\t\r\0\\\x7f", b"\n\t\r\0\\\x7f"),
        ("{%p}", b"{3}"),
        ("%p: %o\\n", b"3: 42\n"),
    ];
    for (pattern, expected) in cases {
        assert_eq!(printed(pattern, &record()), expected, "{pattern}");
    }
}

#[test]
fn what_a_record_does_not_have_is_not_what_is_empty() {
    let none = v1::Record::default();
    let empty = v1::Record { key: Some(Bytes::new()), value: Some(Bytes::new()), ..v1::Record::default() };
    let pattern = "%k|%v|%K|%V|%k{json}|%h|%h{json}|%T|%T{s}|%T{rfc3339}";
    assert_eq!(printed(pattern, &none), b"||-1|-1|null||[]|-1|-1|-1");
    assert_eq!(printed(pattern, &empty), b"||0|0|\"\"||[]|-1|-1|-1");
}

#[test]
fn times_that_have_no_such_form_are_numbers() {
    for timestamp in [-5, 253_402_300_800_000, i64::MAX] {
        let record = v1::Record { timestamp: Some(timestamp), ..v1::Record::default() };
        assert_eq!(printed("%T{rfc3339}", &record), timestamp.to_string().into_bytes());
    }
}

#[test]
fn what_is_not_understood_is_named() {
    let cases = [
        ("%", "ends in %"),
        ("%q", "%q is unknown"),
        ("%k{octal}", "%k{octal} is unknown"),
        ("%k{hex", "no closing brace"),
        ("%p{hex}", "%p has no {hex}"),
        ("%T{week}", "%T{week} is unknown"),
        ("\\", "ends in a backslash"),
        ("\\q", "\\q is unknown"),
        ("\\x1", "is no byte"),
        ("\\xzz", "is no byte"),
    ];
    for (pattern, part) in cases {
        let error = Pattern::parse(pattern).unwrap_err();
        assert!(error.contains(part), "{pattern}: {error}");
    }
}
