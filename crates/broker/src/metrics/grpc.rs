//! gRPC calls by method and code. Methods are those of the services that are served; every other path is one, `other`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use lakebed_store::Histogram;
use prost::Message;
use prost_types::FileDescriptorSet;
use tokio::time::Instant;

/// The codes by their numbers.
pub(super) const CODES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];
/// What a client gets that has gone, and what is said by an answer that says nothing.
const CANCELLED: usize = 1;
const UNKNOWN: usize = 2;
/// The method of calls that are not served.
const OTHER: &str = "other";

/// One method.
#[derive(Debug)]
pub(super) struct MethodCounts {
    /// As in the path, without the first slash.
    pub(super) name: String,
    /// Whether either side streams: how long such a call takes is up to the client.
    pub(super) streams: bool,
    pub(super) begun: AtomicU64,
    pub(super) ended: [AtomicU64; CODES.len()],
    pub(super) latency: Histogram,
}

/// All methods.
#[derive(Debug)]
pub(crate) struct GrpcCounts {
    pub(super) methods: Vec<MethodCounts>,
    by_path: BTreeMap<String, usize>,
}

/// One call, from its request to the end of its answer. Dropped before that, it counts as cancelled.
#[derive(Debug)]
pub(crate) struct Call {
    counts: Arc<GrpcCounts>,
    method: usize,
    begun: Instant,
    ended: bool,
}

impl MethodCounts {
    fn new(name: String, streams: bool) -> Self {
        let (begun, ended) = (AtomicU64::new(0), Default::default());
        Self { name, streams, begun, ended, latency: Histogram::of_times() }
    }

    /// Calls that are under way.
    pub(super) fn open(&self) -> u64 {
        let ended: u64 = self.ended.iter().map(|code| code.load(Ordering::Relaxed)).sum();
        self.begun.load(Ordering::Relaxed).saturating_sub(ended)
    }
}

impl GrpcCounts {
    /// Counts of the services that this broker serves, by their descriptors.
    pub(super) fn new() -> Self {
        let sets = [
            lakebed_wire::DESCRIPTOR_SET,
            tonic_health::pb::FILE_DESCRIPTOR_SET,
            tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
            tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
        ];
        let mut methods: Vec<MethodCounts> = sets.into_iter().flat_map(methods_of).collect();
        methods.push(MethodCounts::new(OTHER.to_owned(), true));
        let by_path = methods.iter().enumerate().map(|(index, method)| (format!("/{}", method.name), index)).collect();
        Self { methods, by_path }
    }

    /// A call of a path begins.
    pub(crate) fn begin(self: &Arc<Self>, path: &str) -> Call {
        let method = self.by_path.get(path).copied().unwrap_or(self.methods.len() - 1);
        self.methods[method].begun.fetch_add(1, Ordering::Relaxed);
        Call { counts: Arc::clone(self), method, begun: Instant::now(), ended: false }
    }
}

impl Call {
    /// The method that is called, as in the label.
    pub(crate) fn method(&self) -> &str {
        &self.counts.methods[self.method].name
    }

    /// The call has ended with this `grpc-status`.
    pub(crate) fn end(&mut self, status: Option<&[u8]>) {
        let code = status.and_then(|status| std::str::from_utf8(status).ok()?.parse::<usize>().ok());
        self.end_with(code.filter(|code| *code < CODES.len()).unwrap_or(UNKNOWN));
    }

    fn end_with(&mut self, code: usize) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        let method = &self.counts.methods[self.method];
        method.ended[code].fetch_add(1, Ordering::Relaxed);
        if !method.streams {
            method.latency.observe_time(self.begun.elapsed());
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.end_with(CANCELLED);
    }
}

/// The methods of the services in a descriptor set.
fn methods_of(set: &[u8]) -> Vec<MethodCounts> {
    let set = FileDescriptorSet::decode(set).expect("descriptors that were compiled in can be read");
    let mut methods = Vec::new();
    for file in set.file {
        for service in &file.service {
            methods.extend(service.method.iter().map(|method| {
                let streams = method.client_streaming() || method.server_streaming();
                MethodCounts::new(format!("{}.{}/{}", file.package(), service.name(), method.name()), streams)
            }));
        }
    }
    methods
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(counts: &GrpcCounts, name: &str, code: &str) -> u64 {
        let method = counts.methods.iter().find(|method| method.name == name).unwrap();
        method.ended[CODES.iter().position(|known| *known == code).unwrap()].load(Ordering::Relaxed)
    }

    #[test]
    fn calls_count_once_by_method_and_code_and_what_is_not_served_is_other() {
        let counts = Arc::new(GrpcCounts::new());
        let mut call = counts.begin("/lakebed.v1.ProduceService/Produce");
        call.end(Some(b"5"));
        drop(call);
        assert_eq!(counted(&counts, "lakebed.v1.ProduceService/Produce", "NOT_FOUND"), 1);
        assert_eq!(counted(&counts, "lakebed.v1.ProduceService/Produce", "CANCELLED"), 0);
        drop(counts.begin("/lakebed.v1.ConsumeService/Consume"));
        assert_eq!(counted(&counts, "lakebed.v1.ConsumeService/Consume", "CANCELLED"), 1);
        for path in ["/lakebed.v1.ProduceService/Nothing", "/", "", "/../../etc"] {
            counts.begin(path).end(Some(b"12"));
        }
        assert_eq!(counted(&counts, OTHER, "UNIMPLEMENTED"), 4);
        for garbage in [None, Some(&b"17"[..]), Some(b"-1"), Some(b"\xff")] {
            counts.begin("/").end(garbage);
        }
        assert_eq!(counted(&counts, OTHER, "UNKNOWN"), 4);
        let unary = counts.methods.iter().find(|method| method.name.ends_with("/Produce")).unwrap();
        assert_eq!((unary.streams, unary.latency.counted().count(), unary.open()), (false, 1, 0));
    }

    #[test]
    fn the_codes_are_those_of_grpc() {
        for (number, name) in (0..).zip(CODES) {
            let ours = name.replace('_', "").to_lowercase();
            assert_eq!(format!("{:?}", tonic::Code::from_i32(number)).to_lowercase(), ours);
        }
    }
}
