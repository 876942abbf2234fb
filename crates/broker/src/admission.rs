//! Admission of producers' batches, whichever protocol brings them: how much is decompressed at once, and where.

use bytes::Bytes;
use lakebed_ingest::{AdmitError, Admitted, BatchLimits, admit};
use tokio::sync::OwnedSemaphorePermit;

use crate::config::Budget;
use crate::rooms::Rooms;

/// Compressed batches of at least this many bytes are decompressed away from the threads that serve sockets: it takes longer than
/// half a millisecond.
const INFLATE_ELSEWHERE_BYTES: usize = 64 * 1024;
/// Most bytes of one request's batches once decompressed, however much memory there is.
const INFLATED_BYTES_MAX: usize = 64 << 20;
/// Where the attributes of a record batch name its codec (Kafka's record batch, magic 2).
const CODEC_AT: usize = 22;
const CODEC_MASK: u8 = 0b111;

/// Most bytes of one request's batches once decompressed.
pub(crate) fn inflated_bytes_max(budget: &Budget) -> usize {
    (budget.ingest_bytes / 2).min(INFLATED_BYTES_MAX)
}

/// Whether a record batch claims to be compressed.
pub(crate) fn is_compressed(batch: &[u8]) -> bool {
    batch.get(CODEC_AT).is_some_and(|attributes| attributes & CODEC_MASK != 0)
}

impl Rooms {
    /// Waits for the right to decompress; it is held until the ingest buffer counts what is decompressed.
    pub(crate) async fn inflating(&self) -> OwnedSemaphorePermit {
        self.inflating.clone().acquire_owned().await.expect("the semaphore is never closed")
    }

    /// Admits a batch as it came. One that is compressed needs [`Rooms::inflating`].
    pub(crate) async fn admit(&self, batch: Bytes, limits: BatchLimits) -> Result<Admitted, AdmitError> {
        if is_compressed(&batch) && batch.len() >= INFLATE_ELSEWHERE_BYTES {
            self.seams.offload.run(move || admit(batch, &limits)).await
        } else {
            admit(batch, &limits)
        }
    }
}
