//! Claims about the generated messages.

use std::collections::BTreeSet;

use bytes::Bytes;
use prost::Message;
use prost_types::FileDescriptorSet;

use crate::v1;

#[test]
fn the_descriptor_set_names_every_service_and_holds_its_imports() {
    let set = FileDescriptorSet::decode(crate::DESCRIPTOR_SET).expect("it was encoded by the build");
    let services: BTreeSet<&str> =
        set.file.iter().flat_map(|file| &file.service).map(|service| service.name()).collect();
    assert_eq!(services, BTreeSet::from(["AdminService", "ConsumeService", "GroupService", "ProduceService"]));
    let files: BTreeSet<&str> = set.file.iter().map(|file| file.name()).collect();
    for import in set.file.iter().flat_map(|file| &file.dependency) {
        assert!(files.contains(import.as_str()), "{import} is imported but not in the set");
    }
}

#[test]
fn a_record_that_came_in_is_a_slice_of_the_buffer_that_it_came_in() {
    let sent = v1::Record { value: Some(Bytes::from(vec![7; 4096])), ..Default::default() };
    let buffer = Bytes::from(sent.encode_to_vec());
    let value = v1::Record::decode(buffer.clone()).unwrap().value.unwrap();
    assert!(buffer.as_ptr_range().contains(&value.as_ptr()), "the value was copied");
}

#[test]
fn null_and_empty_are_told_apart() {
    let sent = v1::Record {
        key: None,
        value: Some(Bytes::new()),
        headers: vec![
            v1::Header { key: "a".into(), value: None },
            v1::Header { key: "a".into(), value: Some(Bytes::new()) },
        ],
        ..Default::default()
    };
    assert_eq!(v1::Record::decode(sent.encode_to_vec().as_slice()).unwrap(), sent);
}
