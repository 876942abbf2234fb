//! `docs/errors.md`: what stands there is what the table says. To write it anew: `LAKEBED_WRITE_DOCS=1 cargo test --workspace errors_page`.

use super::{Fate, TABLE};

const HEAD: &str = "\
# Errors

Written from the table in `crates/broker/src/reason.rs`: what clients of gRPC and clients of Kafka are told for the same reason, and what
became of what they asked for.

A gRPC status that the broker makes has `google.rpc.ErrorInfo` in its details, with the domain `lakebed`, the reason below, and the facts
(topic, partition, offsets, sizes) as metadata. INVALID_ARGUMENT has `google.rpc.BadRequest` with the field, where it is one field. What
passes by itself has `google.rpc.RetryInfo` with the pause after which to try again. The answer has `x-request-id`, which the broker's log
has too.

| reason | gRPC | Kafka | what became of it | what to do |
|---|---|---|---|---|
";

const TAIL: &str = "
## What may have happened

- **UNAVAILABLE with our ErrorInfo means that nothing happened.** So do all others with our ErrorInfo but OUTCOME_UNKNOWN and INTERNAL.
  Sending the same again stores it once.
- **A status without our ErrorInfo was not made by the broker**, whatever its code: by the client's library when a connection broke
  (UNAVAILABLE, in most of them), when a deadline passed (DEADLINE_EXCEEDED) or the call was cancelled (CANCELLED), or by a proxy. A write
  may have happened then: what was sent is not taken back by hanging up.
- Calls that did not reach the broker are repeated by gRPC's libraries themselves: those that were sent on a connection after it had said
  that it ends (GOAWAY), and those above the bound of calls on a connection (REFUSED_STREAM). tonic's channel does not repeat the former:
  it reports CANCELLED, `operation was canceled`.
- Deadlines are the client's: the broker does not look at `grpc-timeout`.

What tonic finds wrong with a request before a call begins (no message, an unknown method, a compression that is not taken) is told with
a reason of this table; so is what is no Protobuf message. A request that is not one of gRPC at all gets a status of HTTP: 404 for an
unknown path, 405 unless it is a POST, 415 for another content type, 431 for too many headers.
";

fn page() -> String {
    let mut page = HEAD.to_owned();
    for row in TABLE {
        let fate = match row.reason.fate() {
            Fate::NothingHappened => "nothing happened",
            Fate::MayHaveHappened => "**may have happened**",
        };
        let (grpc, kafka) = (capitals(&format!("{:?}", row.grpc)), capitals(&format!("{:?}", row.kafka)));
        let line =
            format!("| {} | {grpc} | {kafka} ({}) | {fate} | {} |\n", row.name, row.kafka.code(), row.reason.advice());
        page.push_str(&line);
    }
    page + TAIL
}

/// `NotFound` as `NOT_FOUND`.
fn capitals(name: &str) -> String {
    let mut out = String::new();
    for (index, letter) in name.chars().enumerate() {
        if letter.is_uppercase() && index > 0 {
            out.push('_');
        }
        out.push(letter.to_ascii_uppercase());
    }
    out
}

#[test]
fn the_errors_page_says_what_the_table_says() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/errors.md");
    let expected = page();
    if std::env::var_os("LAKEBED_WRITE_DOCS").is_some() {
        std::fs::write(&path, &expected).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == expected,
        "docs/errors.md is not what the table says: LAKEBED_WRITE_DOCS=1 cargo test --workspace errors_page"
    );
}
