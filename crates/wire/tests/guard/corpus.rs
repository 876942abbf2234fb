//! The seeds of `fuzz/seeds/request`: one request of every kind and version that is decoded, from its header on.

use bytes::{BufMut, BytesMut};
use lakebed_wire::kafka::API_TABLE;
use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::generate;

/// The files with their names, the same in every run.
pub(crate) fn files() -> Vec<(String, Vec<u8>)> {
    let versions = API_TABLE.iter().flat_map(|api| (api.decoded_from..=api.max).map(move |version| (api, version)));
    versions
        .map(|(api, version)| {
            let mut random = StdRng::seed_from_u64(u64::from(version.unsigned_abs()));
            let mut frame = BytesMut::new();
            frame.put_i16(api.key);
            frame.put_i16(version);
            frame.put_i32(1);
            frame.put_i16(6);
            frame.put_slice(b"client");
            if api.request_header_version(version) == 2 {
                frame.put_u8(0);
            }
            generate::request(&mut random, api.key, version).encode(&mut frame, version).expect("it is valid");
            (format!("{}-v{version}.frame", api.name), frame.to_vec())
        })
        .collect()
}
