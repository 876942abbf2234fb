//! The tasks that a broker can't be without: one that ends is noticed, and ends the broker.

use lakebed_log::Log;
use tokio::task::JoinError;
use tokio_util::task::AbortOnDropHandle;

use super::RunError;

/// A task that runs for as long as the broker does.
type Part = AbortOnDropHandle<()>;

/// See the module.
#[derive(Debug)]
pub(super) struct Parts {
    /// Accepts Kafka's connections.
    pub(super) listening: Part,
    /// Accepts the connections of gRPC and HTTP.
    pub(super) listening_http: Part,
    /// Hands what was committed to the readers.
    pub(super) publishing: Part,
    /// Merges small objects. On its own it would only be missed when producers are made to wait for it.
    pub(super) merging: Part,
    /// Publishes tables, and deletes files that no table shows any more.
    pub(super) tabling: Part,
    /// Removes what topics don't keep.
    pub(super) retaining: Part,
    /// Keeps the time of groups, and writes what they commit.
    pub(super) grouping: Part,
    /// Asks whether another broker has taken over.
    pub(super) probing: Part,
    /// Has the log forget idle producers. Without it the state would keep them until its bound.
    pub(super) expiring: Part,
    /// Keeps the members of the cluster.
    pub(super) keeping_members: Part,
}

impl Parts {
    /// Waits until one of them ends, and says which.
    pub(super) async fn ended(&mut self, log: &Log) -> RunError {
        let (part, ended) = tokio::select! {
            biased;
            ended = &mut self.listening => ("Kafka listener", ended),
            ended = &mut self.listening_http => ("HTTP listener", ended),
            ended = &mut self.publishing => ("hand-over to readers", ended),
            ended = &mut self.merging => ("merging", ended),
            ended = &mut self.tabling => ("publication of tables", ended),
            ended = &mut self.retaining => ("retention", ended),
            ended = &mut self.grouping => ("coordinator of groups", ended),
            ended = &mut self.probing => ("look for a takeover", ended),
            ended = &mut self.expiring => ("expiry of producers", ended),
            ended = &mut self.keeping_members => ("look after members", ended),
        };
        part_ended(log, part, ended)
    }

    /// Ends them all, and waits until they are gone, and with them their hold on the store.
    pub(super) async fn stop(self) {
        let Self { listening, listening_http, publishing, merging, tabling, .. } = self;
        let Self { retaining, grouping, probing, expiring, keeping_members, .. } = self;
        let first = [listening, listening_http, publishing, merging, tabling];
        for part in first.into_iter().chain([retaining, grouping, probing, expiring, keeping_members]) {
            part.abort();
            if !part.is_finished() {
                // Whatever comes of it.
                drop(part.await);
            }
        }
    }
}

/// Most parts end when the log closes, too; that is the better reason.
pub(super) fn part_ended(log: &Log, part: &'static str, ended: Result<(), JoinError>) -> RunError {
    let why = match (log.is_closed(), ended) {
        (Some(closed), _) => return RunError::LogClosed(closed),
        (None, Ok(())) => "it returned".to_owned(),
        (None, Err(error)) => error.to_string(),
    };
    RunError::PartEnded { part, why }
}
