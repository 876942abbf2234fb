//! Where a store is, as other programs must be told: no secrets, and nothing that the URL says already.

use crate::store::Store;

/// How an S3 store is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// Its endpoint as a URL, without secrets; `None`: that of AWS.
    pub endpoint: Option<String>,
    /// Its region.
    pub region: String,
    /// Whether the bucket stands in the path of requests, and not in the host's name.
    pub path_style: bool,
}

impl Store {
    /// How others reach it; `None` if its URL says all.
    pub fn address(&self) -> Option<&Address> {
        self.origins()?.address.as_ref()
    }
}
