//! Spans of calls to the store, for traces. They have a target of their own, so that nothing is made of them unless traces are exported.

use tracing::Span;

/// The target of all spans that are exported as traces.
pub const TRACE_TARGET: &str = "lakebed::trace";

/// The span of one call, with its retries; `what` is a key or a directory.
pub(crate) fn call(operation: &'static str, what: &str) -> Span {
    tracing::debug_span!(target: TRACE_TARGET, "store", otel.name = operation, otel.kind = "client", key = what, attempts = tracing::field::Empty)
}
