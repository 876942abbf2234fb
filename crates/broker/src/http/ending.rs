//! How a long call learns that its connection is about to end.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::broker::DRAIN_MAX;
use crate::grpc::status::status;
use crate::reason::Reason;

/// How long answers may take on a connection that has reached its age: it is cut off soon after.
const AGED_DRAIN_MAX: Duration = Duration::from_secs(4);

/// In the extensions of every request of the HTTP port. A stream that lives long waits for [`Ending::told`], finishes what it has
/// begun, and ends with a status: what it has not said when the time is up, it can't say any more.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ending {
    /// The broker stops.
    pub(super) shutdown: CancellationToken,
    /// The connection has reached its age, and the time in which its calls should have ended by themselves has passed.
    pub(super) aged: CancellationToken,
}

/// Why a connection is about to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Why {
    /// The broker stops.
    Shutdown,
    /// The connection has reached its age.
    Age,
}

impl Ending {
    /// The one of a request; one that never comes if the request did not arrive on the HTTP port (in tests).
    pub(crate) fn of(extensions: &axum::http::Extensions) -> Self {
        extensions.get().cloned().unwrap_or_default()
    }

    /// Waits until the connection is about to end.
    ///
    /// # Cancel Safe.
    pub(crate) async fn told(&self) -> Why {
        tokio::select! {
            biased;
            () = self.shutdown.cancelled() => Why::Shutdown,
            () = self.aged.cancelled() => Why::Age,
        }
    }
}

impl Why {
    /// How long what was begun may take to be answered from then on.
    pub(crate) fn patience(self) -> Duration {
        match self {
            Self::Shutdown => DRAIN_MAX,
            Self::Age => AGED_DRAIN_MAX,
        }
    }

    /// What a call ends with that is not done: nothing of what has not been answered happened, and another connection takes it.
    pub(crate) fn status(self) -> Status {
        match self {
            Self::Shutdown => status(Reason::ShuttingDown, "the broker is shutting down: connect again", []),
            Self::Age => status(Reason::ConnectionAged, "the connection has reached its age: connect again", []),
        }
    }
}
