//! What is damaged in the store is said once, however often consumers ask for it.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use lakebed_fetch::FetchError;

/// So many objects are remembered; beyond them each answer is said again.
const OBJECTS_MAX: usize = 1024;

/// The damaged objects that were told of.
#[derive(Debug, Default)]
pub struct DamageLog {
    told: Mutex<BTreeSet<String>>,
}

impl DamageLog {
    /// Logs a damaged object the first time that a read fails of it; other errors are not for this log.
    pub fn note(&self, partition: &lakebed_model::PartitionKey, error: &FetchError) {
        let FetchError::Damaged { object, what } = error else { return };
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.len() < OBJECTS_MAX && !told.insert(object.clone()) {
            return;
        }
        tracing::error!(object, what, %partition, "an object is damaged: its records can't be read, others can");
    }
}
