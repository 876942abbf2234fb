//! What requests cost: list prices of the large providers, so that a broker can show about what it spends.
//!
//! Requests only: neither what lies in the bucket nor what leaves the provider's region is counted. Regions, volumes and contracts
//! change these numbers; ratios stay.

use crate::counts::{Counts, OperationCounts};

/// Dollars of a billion requests: prices are fractions of a cent for a thousand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prices {
    /// Of PUT.
    pub put: u64,
    /// Of GET.
    pub get: u64,
    /// Of LIST.
    pub list: u64,
    /// Of DELETE.
    pub delete: u64,
}

/// Nothing is paid for requests.
pub const FREE: Prices = Prices { put: 0, get: 0, list: 0, delete: 0 };
/// Amazon S3 Standard, us-east-1: $0.005 for 1000 PUT or LIST, $0.0004 for 1000 GET, DELETE is free.
pub const S3: Prices = Prices { put: 5_000, get: 400, list: 5_000, delete: 0 };
/// Google Cloud Storage, Standard, one region: $0.005 for 1000 of class A (PUT, LIST), $0.0004 for 1000 of class B (GET), DELETE is free.
pub const GCS: Prices = Prices { put: 5_000, get: 400, list: 5_000, delete: 0 };
/// Azure Blob Storage, hot tier, locally redundant: $0.0065 for 1000 writes or lists, $0.0005 for 1000 reads, DELETE is free.
pub const AZURE: Prices = Prices { put: 6_500, get: 500, list: 6_500, delete: 0 };

impl Prices {
    /// The prices of the store at `url`, by its scheme. Whatever answers at an endpoint of the operator's own counts as the provider
    /// whose protocol it speaks.
    pub fn of(url: &str) -> Self {
        match url.split(':').next() {
            Some("s3") => S3,
            Some("gs") => GCS,
            Some("az") => AZURE,
            _ => FREE,
        }
    }

    /// What some requests cost in dollars, by operation: PUT, GET, LIST, DELETE.
    pub fn dollars(&self, counts: &Counts) -> [f64; 4] {
        let dollars = |price: u64, counts: &OperationCounts| price as f64 * counts.billed() as f64 / 1e9;
        [
            dollars(self.put, &counts.put),
            dollars(self.get, &counts.get),
            dollars(self.list, &counts.list),
            dollars(self.delete, &counts.delete),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_million_puts_and_gets_on_s3_cost_five_dollars_and_forty_cents_and_nothing_in_a_directory() {
        let million =
            OperationCounts { succeeded: 999_999, declined: 1, failed: 7, throttled: 9, ..Default::default() };
        let counts = Counts { put: million, get: million, ..Counts::default() };
        assert_eq!(Prices::of("s3://bucket/root").dollars(&counts), [5.0, 0.4, 0.0, 0.0]);
        assert_eq!(Prices::of("file:///data").dollars(&counts), [0.0; 4]);
        assert_eq!(Prices::of("memory://").dollars(&counts), [0.0; 4]);
    }
}
