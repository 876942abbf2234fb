//! What was asked of the server, and what S3 would charge for it.
//!
//! Prices are the list prices of S3 Standard in us-east-1: $0.005 per 1000 PUT, POST and LIST requests, $0.0004 per 1000 GET and HEAD
//! requests, nothing for DELETE, nothing for bytes within the region. Storage is not counted, since it goes by the month. Every request that is
//! answered is charged, refused and failed ones too; S3 itself does not charge for 5xx, which makes this an upper bound.
//! A profile changes the latency alone: the prices of S3 Express are not known here.

use std::collections::BTreeMap;
use std::sync::Mutex;

use serde::{Deserialize, Serialize};

/// Dollars for one PUT, POST or LIST.
const WRITE_DOLLARS: f64 = 0.005 / 1000.0;
/// Dollars for one GET or HEAD.
const READ_DOLLARS: f64 = 0.0004 / 1000.0;

/// A kind of request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    /// An object is stored.
    Put,
    /// An object is read.
    Get,
    /// An object is asked for without its body.
    Head,
    /// Keys are listed.
    List,
    /// One object or many are deleted.
    Delete,
    /// An object in parts is begun.
    Begin,
    /// A part of an object is stored.
    Part,
    /// An object is made of its parts.
    Complete,
    /// An object in parts is given up.
    Abort,
    /// Anything else: buckets are made, asked for, listed.
    Other,
}

impl Operation {
    fn dollars(self) -> f64 {
        match self {
            Self::Put | Self::List | Self::Begin | Self::Part | Self::Complete | Self::Other => WRITE_DOLLARS,
            Self::Get | Self::Head => READ_DOLLARS,
            Self::Delete | Self::Abort => 0.0,
        }
    }
}

/// Requests of one kind.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct OperationCounts {
    /// All of them.
    pub requests: u64,
    /// Those answered 2xx and 3xx.
    pub succeeded: u64,
    /// Those answered 4xx.
    pub declined: u64,
    /// Those answered 5xx.
    pub failed: u64,
    /// Those whose connection was cut in place of an answer.
    pub unanswered: u64,
    /// Bytes of the bodies that came in.
    pub bytes_in: u64,
    /// Bytes of the bodies that went out.
    pub bytes_out: u64,
    /// What they cost.
    pub dollars: f64,
}

/// All requests since the start, or since the counts were last cleared.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Counts {
    /// By kind; one that was never asked for is missing.
    pub operations: BTreeMap<Operation, OperationCounts>,
    /// All kinds together.
    pub total: OperationCounts,
}

/// One request for the bill.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Served {
    pub(crate) operation: Operation,
    /// `None`: the connection was cut.
    pub(crate) status: Option<u16>,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Bill {
    counts: Mutex<Counts>,
}

impl Bill {
    pub(crate) fn add(&self, served: Served) {
        let mut counts = self.lock();
        let Counts { operations, total } = &mut *counts;
        for counts in [operations.entry(served.operation).or_default(), total] {
            counts.requests += 1;
            let outcome = match served.status {
                Some(0..400) => &mut counts.succeeded,
                Some(400..500) => &mut counts.declined,
                Some(_) => &mut counts.failed,
                None => &mut counts.unanswered,
            };
            *outcome += 1;
            counts.bytes_in += served.bytes_in;
            counts.bytes_out += served.bytes_out;
            counts.dollars += served.operation.dollars();
        }
    }

    pub(crate) fn counts(&self) -> Counts {
        self.lock().clone()
    }

    /// The counts so far, which begin again at 0.
    pub(crate) fn take(&self) -> Counts {
        std::mem::take(&mut *self.lock())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Counts> {
        self.counts.lock().expect("no code panics while it counts")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thousand_of_each_cost_what_the_list_says() {
        let bill = Bill::default();
        use Operation::{Delete, Get, Head, List, Put};
        for operation in [Put, Get, Head, List, Delete] {
            for status in 0..1000 {
                let status = [Some(200), Some(412), Some(503), None][status % 4];
                bill.add(Served { operation, status, bytes_in: 1, bytes_out: 2 });
            }
        }
        let counts = bill.counts();
        let dollars = |operation| counts.operations[&operation].dollars;
        for (operation, expected) in [(Put, 0.005), (List, 0.005), (Get, 0.0004), (Head, 0.0004), (Delete, 0.0)] {
            assert!((dollars(operation) - expected).abs() < 1e-9, "{operation:?}: {}", dollars(operation));
        }
        assert!((counts.total.dollars - 0.0108).abs() < 1e-9);
        let put = &counts.operations[&Put];
        assert_eq!((put.requests, put.succeeded, put.declined, put.failed, put.unanswered), (1000, 250, 250, 250, 250));
        assert_eq!((put.bytes_in, put.bytes_out), (1000, 2000));
        assert_eq!(bill.take(), counts);
        assert_eq!(bill.counts(), Counts::default());
    }
}
