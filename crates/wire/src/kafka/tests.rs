//! Claims about the table of requests.

use kafka_protocol::messages::ApiKey;
use kafka_protocol::protocol::VersionRange;

use super::{API_TABLE, API_VERSIONS, PRODUCE, Support, api, support};

#[test]
fn header_versions_are_those_of_kafka() {
    for api in API_TABLE {
        let theirs = ApiKey::try_from(api.key).unwrap();
        for version in api.decoded_from..=api.max {
            assert_eq!(
                api.request_header_version(version),
                theirs.request_header_version(version),
                "{api:?} {version}"
            );
            assert_eq!(
                api.response_header_version(version),
                theirs.response_header_version(version),
                "{api:?} {version}"
            );
        }
    }
}

#[test]
fn every_decoded_version_is_one_that_the_decoder_has() {
    for api in API_TABLE {
        let VersionRange { min, max } = ApiKey::try_from(api.key).unwrap().valid_versions();
        assert!(min <= api.decoded_from && api.max <= max, "{api:?}: the decoder has {min} to {max}");
        assert!(api.min <= api.decoded_from && api.decoded_from <= api.max, "{api:?}");
    }
}

#[test]
fn the_table_is_in_the_order_of_keys_without_duplicates() {
    assert!(API_TABLE.is_sorted_by(|one, next| one.key < next.key));
}

#[test]
fn produce_below_3_is_shown_but_never_decoded() {
    let produce = api(PRODUCE).unwrap();
    assert_eq!((produce.min, produce.max), (0, 12));
    for version in 0..3 {
        assert_eq!(support(PRODUCE, version), Support::Close);
    }
    assert_eq!(support(PRODUCE, 3), Support::Decoded(produce));
}

#[test]
fn an_unknown_version_of_api_versions_is_answered_and_of_others_is_not() {
    for version in [-1, 5, i16::MAX] {
        assert_eq!(support(API_VERSIONS, version), Support::AnswerApiVersionsZero);
        assert_eq!(support(PRODUCE, version.max(13)), Support::Close);
    }
    assert_eq!(support(9999, 0), Support::Close);
}
