//! Claims about the table of requests, their shapes and their headers.

use kafka_protocol::messages::*;
use kafka_protocol::protocol::VersionRange;

use super::header::{FrameError, HeaderError, frame_length, parse_header};
use super::schema::{self, BODIES, Struct};
use super::{API_TABLE, API_VERSIONS, GuardError, METADATA, PRODUCE, Support, api, guard, support};

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

#[test]
fn every_decoded_version_has_a_shape_and_no_shape_is_left_over() {
    for api in API_TABLE {
        for version in api.decoded_from..=api.max {
            assert!(schema::body(api.key, version).is_some(), "{} v{version} has no shape", api.name);
        }
    }
    for body in BODIES {
        let api = api(body.key).unwrap();
        assert_eq!((body.since, body.until), (api.decoded_from, api.max), "{}", api.name);
    }
    assert_eq!(BODIES.len(), API_TABLE.len());
}

#[test]
fn shapes_are_counted_for_at_least_what_the_decoder_allocates() {
    fn check<T>(shape: &Struct) {
        let size = size_of::<T>();
        assert!(shape.decoded_bytes >= size, "{}: {size}", std::any::type_name::<T>());
    }
    check::<produce_request::TopicProduceData>(&schema::PRODUCE_TOPIC);
    check::<produce_request::PartitionProduceData>(&schema::PRODUCE_PARTITION);
    check::<fetch_request::FetchTopic>(&schema::FETCH_TOPIC);
    check::<fetch_request::FetchPartition>(&schema::FETCH_PARTITION);
    check::<fetch_request::ForgottenTopic>(&schema::FORGOTTEN_TOPIC);
    check::<list_offsets_request::ListOffsetsTopic>(&schema::LIST_OFFSETS_TOPIC);
    check::<list_offsets_request::ListOffsetsPartition>(&schema::LIST_OFFSETS_PARTITION);
    check::<metadata_request::MetadataRequestTopic>(&schema::METADATA_TOPIC);
    check::<create_topics_request::CreatableTopic>(&schema::CREATABLE_TOPIC);
    check::<create_topics_request::CreatableReplicaAssignment>(&schema::CREATABLE_ASSIGNMENT);
    check::<create_topics_request::CreatableTopicConfig>(&schema::CREATABLE_CONFIG);
    check::<delete_topics_request::DeleteTopicState>(&schema::DELETE_TOPIC);
    check::<offset_for_leader_epoch_request::OffsetForLeaderTopic>(&schema::OFFSET_FOR_LEADER_TOPIC);
    check::<offset_for_leader_epoch_request::OffsetForLeaderPartition>(&schema::OFFSET_FOR_LEADER_PARTITION);
    check::<delete_records_request::DeleteRecordsTopic>(&schema::admin::DELETE_RECORDS_TOPIC);
    check::<delete_records_request::DeleteRecordsPartition>(&schema::admin::DELETE_RECORDS_PARTITION);
    check::<describe_configs_request::DescribeConfigsResource>(&schema::admin::DESCRIBE_CONFIGS_RESOURCE);
    check::<alter_configs_request::AlterConfigsResource>(&schema::admin::ALTER_RESOURCE);
    check::<alter_configs_request::AlterableConfig>(&schema::admin::ALTER_CONFIG);
    check::<incremental_alter_configs_request::AlterConfigsResource>(&schema::admin::INCREMENTAL_RESOURCE);
    check::<incremental_alter_configs_request::AlterableConfig>(&schema::admin::INCREMENTAL_CONFIG);
    check::<create_partitions_request::CreatePartitionsTopic>(&schema::admin::CREATE_PARTITIONS_TOPIC);
    check::<create_partitions_request::CreatePartitionsAssignment>(&schema::admin::CREATE_PARTITIONS_ASSIGNMENT);
    check::<describe_client_quotas_request::ComponentData>(&schema::admin::QUOTA_COMPONENT);
    check::<describe_log_dirs_request::DescribableLogDirTopic>(&schema::admin::TOPIC_WITH_PARTITIONS);
    check::<elect_leaders_request::TopicPartitions>(&schema::admin::TOPIC_WITH_PARTITIONS);
    check::<describe_producers_request::TopicRequest>(&schema::admin::TOPIC_WITH_PARTITIONS);
    check::<list_partition_reassignments_request::ListPartitionReassignmentsTopics>(
        &schema::admin::TOPIC_WITH_PARTITIONS,
    );
    use schema::groups;
    check::<offset_commit_request::OffsetCommitRequestTopic>(&groups::OFFSET_COMMIT_TOPIC);
    check::<offset_commit_request::OffsetCommitRequestPartition>(&groups::OFFSET_COMMIT_PARTITION);
    check::<offset_fetch_request::OffsetFetchRequestTopic>(&groups::OFFSET_FETCH_TOPIC);
    check::<offset_fetch_request::OffsetFetchRequestTopics>(&groups::OFFSET_FETCH_TOPIC);
    check::<offset_fetch_request::OffsetFetchRequestGroup>(&groups::OFFSET_FETCH_GROUP);
    check::<join_group_request::JoinGroupRequestProtocol>(&groups::JOIN_GROUP_PROTOCOL);
    check::<sync_group_request::SyncGroupRequestAssignment>(&groups::SYNC_GROUP_ASSIGNMENT);
    check::<leave_group_request::MemberIdentity>(&groups::LEAVE_GROUP_MEMBER);
    check::<offset_delete_request::OffsetDeleteRequestTopic>(&groups::OFFSET_DELETE_TOPIC);
    check::<offset_delete_request::OffsetDeleteRequestPartition>(&groups::OFFSET_DELETE_PARTITION);
    check::<consumer_group_heartbeat_request::TopicPartitions>(&groups::HELD_TOPIC);
    check::<describe_topic_partitions_request::TopicRequest>(&schema::admin::DESCRIBE_TOPIC_PARTITIONS_TOPIC);
    assert!(size_of::<GroupId>() <= super::guard::DECODED_STRING_BYTES);
    assert!(size_of::<TopicName>() <= super::guard::DECODED_STRING_BYTES);
}

#[test]
fn a_metadata_body_of_4_bytes_that_claims_two_billion_topics_is_refused() {
    let claimed = i32::MAX as u64;
    assert_eq!(
        guard(METADATA, 1, &i32::MAX.to_be_bytes()),
        Err(GuardError::BeyondEnd { api: "Metadata", version: 1, field: "topics", claimed, remaining: 0 })
    );
}

#[test]
fn a_produce_body_of_12_bytes_that_claims_two_billion_topics_is_refused() {
    // No transactional id, acks -1, a timeout, and the count of topics.
    let body = [&[0xff, 0xff, 0xff, 0xff][..], &30_000i32.to_be_bytes(), &i32::MAX.to_be_bytes()].concat();
    assert_eq!(body.len(), 12);
    let claimed = i32::MAX as u64;
    assert_eq!(
        guard(PRODUCE, 7, &body),
        Err(GuardError::BeyondEnd { api: "Produce", version: 7, field: "topics", claimed, remaining: 0 })
    );
}

#[test]
fn a_struct_that_may_be_null_is_walked_only_where_it_is_there() {
    use super::DESCRIBE_TOPIC_PARTITIONS as KEY;
    let before = [1, 0, 0, 7, 0xd0];
    let there = [&before[..], &[1, 3, b'a', b'b', 0, 0, 0, 4, 0, 0]].concat();
    assert_eq!(guard(KEY, 0, &there), Ok(there.len()));
    for absent in [0xff, 0, 2] {
        assert_eq!(guard(KEY, 0, &[&before[..], &[absent, 0]].concat()), Ok(7), "{absent}");
    }
    for cut in 0..there.len() {
        assert!(guard(KEY, 0, &there[..cut]).is_err(), "{cut}");
    }
}

#[test]
fn a_tagged_field_that_lies_about_its_length_is_refused() {
    // Fetch v12 without topics, and its cluster id "ab" as tag 0 of a length that stands at `at`.
    let mut body = vec![0; 4 * 4 + 1 + 4 * 2];
    body.extend([1, 1, 1, 1, 0, 3, 3, b'a', b'b']);
    assert_eq!(guard(super::FETCH, 12, &body), Ok(body.len()));
    let at = body.len() - 4;
    body[at] = 2;
    assert_eq!(
        guard(super::FETCH, 12, &body),
        Err(GuardError::TagLength { api: "Fetch", version: 12, field: "cluster_id", claimed: 2, actual: 3 })
    );
}

#[test]
fn versions_that_are_not_decoded_are_not_guarded() {
    assert_eq!(guard(PRODUCE, 2, &[]), Err(GuardError::Unsupported { key: PRODUCE, version: 2 }));
    assert_eq!(guard(9999, 0, &[]), Err(GuardError::Unsupported { key: 9999, version: 0 }));
}

#[test]
fn a_frame_length_is_taken_up_to_the_limit_and_no_further() {
    assert_eq!(frame_length(8, 100), Ok(8));
    assert_eq!(frame_length(100, 100), Ok(100));
    assert_eq!(frame_length(101, 100), Err(FrameError::TooLarge { claimed: 101, max: 100 }));
    assert_eq!(frame_length(i32::MAX, 64 << 20), Err(FrameError::TooLarge { claimed: i32::MAX, max: 64 << 20 }));
    for claimed in [i32::MIN, -1, 0, 7] {
        assert_eq!(frame_length(claimed, 100), Err(FrameError::TooSmall { claimed }));
    }
}

#[test]
fn a_header_ends_where_its_version_says() {
    let plain = [&[0, 3, 0, 8, 0, 0, 0, 7, 0, 2][..], b"ab", b"body"].concat();
    let header = parse_header(&plain).unwrap();
    assert_eq!((header.key, header.version, header.correlation_id, header.client_id), (3, 8, 7, Some("ab")));
    assert_eq!(&plain[header.body_start..], b"body");

    let flexible = [&[0, 3, 0, 9, 0, 0, 0, 7, 0xff, 0xff, 1, 5, 3, 9, 9, 9][..], b"body"].concat();
    let header = parse_header(&flexible).unwrap();
    assert_eq!(header.client_id, None);
    assert_eq!(&flexible[header.body_start..], b"body");
}

#[test]
fn a_header_that_is_cut_off_or_lies_is_refused() {
    let whole = [0, 3, 0, 9, 0, 0, 0, 7, 0, 2, b'a', b'b', 1, 5, 1, 9];
    assert!(parse_header(&whole).is_ok());
    for cut in 0..whole.len() {
        assert!(parse_header(&whole[..cut]).is_err(), "cut at {cut}");
    }
    let long = [0, 3, 0, 1, 0, 0, 0, 7, 0x7f, 0xff, b'a'];
    let field = "client id";
    assert_eq!(parse_header(&long), Err(HeaderError::BeyondEnd { field, claimed: 0x7fff, remaining: 1 }));
    assert_eq!(parse_header(&[0, 3, 0, 1, 0, 0, 0, 7, 0xff, 0xfe]), Err(HeaderError::NegativeLength { claimed: -2 }));
    assert!(matches!(parse_header(&[0, 3, 0, 1, 0, 0, 0, 7, 0, 1, 0xff]), Err(HeaderError::ClientId(_))));
}

#[test]
fn an_unknown_version_of_api_versions_is_read_no_further_than_its_correlation_id() {
    let header = parse_header(&[0, 18, 0, 99, 0, 0, 0, 7]).unwrap();
    assert_eq!((header.correlation_id, header.support), (7, Support::AnswerApiVersionsZero));
}

#[test]
fn all_topics_as_librdkafka_asks_for_them_are_four_bytes_and_three_that_nobody_reads() {
    assert_eq!(guard(METADATA, 13, &[0, 0, 0, 0, 1, 0, 0]), Ok(4));
}
