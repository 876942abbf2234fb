//! The S3 server of our own: it keeps what the conformance suite of stores asks for, and breaks what it is told to break.

#![allow(clippy::unwrap_used, reason = "these are tests")]

mod check;
mod clients;
mod limits;
mod misconduct;
mod parts;
mod server;
#[path = "../../../store/tests/conformance/suite.rs"]
mod suite;

use std::collections::BTreeMap;
use std::time::Duration;

use lakebed_sim::s3::S3Server;
use lakebed_store::{RetryPolicy, Store, StoreOptions, Variables};

/// The variables that lead to `server`, with what stands there otherwise.
pub(crate) fn variables(server: &S3Server, other: &[(&str, &str)]) -> Variables {
    let endpoint = format!("http://{}", server.address());
    let given = [
        ("AWS_ENDPOINT_URL_S3", &*endpoint),
        ("AWS_REGION", "us-east-1"),
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", "test"),
    ];
    let given = given.iter().chain(other).map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Variables(given.collect::<BTreeMap<_, _>>())
}

/// The root `s3://test/root` of the server, asked once for each thing: what goes wrong is told, not tried again.
pub(crate) fn impatient(server: &S3Server) -> Store {
    let retry = RetryPolicy { attempts_max: 1, ..RetryPolicy::default() };
    open(server, &[], retry)
}

/// The same with patience, but without long waits.
pub(crate) fn patient(server: &S3Server) -> Store {
    open(server, &[], RetryPolicy { wait_min: Duration::from_millis(1), ..RetryPolicy::default() })
}

pub(crate) fn open(server: &S3Server, other: &[(&str, &str)], retry: RetryPolicy) -> Store {
    let options = StoreOptions { retry, variables: Some(variables(server, other)), ..StoreOptions::default() };
    Store::open("s3://test/root", &options).unwrap()
}

/// What an error says, with what is below it.
pub(crate) fn told(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}
