//! What became of the commits that a sequencer had in flight when it was fenced, and what it answers.
//!
//! 1. Another's object at a place proves nothing alone: if the log has gone beyond it, ours may have stood there and been reclaimed
//!    since. Then the log itself is asked: its states name every directory of it, and the takeover that closed each, for ever.
//! 2. What stood below that takeover in our directory was written by us, for nobody else writes there: it is the commit in flight.
//!    What stood at it or above did not happen and never will, for our directory is closed.
//! 3. If the log can't be read up to there, the fate is unknown, and said to be.

use std::collections::VecDeque;
use std::sync::Arc;

use lakebed_model::{Commit, CommitNumber, Place, Refusal};

use crate::append_error::{AppendError, BarrierError, Closed};
use crate::handle::Shared;
use crate::replay::{Replay, ReplayError};
use crate::sequencer::{Answer, InFlight};

/// Reads the log on until it has closed our directory, makes durable what of `in_flight` happened, and answers it.
///
/// Returns whether the fate of what is left is known: it did not happen.
///
/// # Cost
/// A LIST, and the GETs of a checkpoint (its manifest and its parts) or of the commits up to the takeover.
pub(crate) async fn look_up(shared: &Arc<Shared>, in_flight: &mut VecDeque<InFlight>) -> Result<bool, Closed> {
    let Some(first) = in_flight.front().map(|one| one.commit.place) else { return Ok(true) };
    let takeover = match closed_at(shared, first).await {
        Ok(Some(takeover)) => takeover,
        Ok(None) => return Ok(false),
        Err(error) => {
            tracing::warn!(%error, "the log can't be read: the fate of what was in flight stays unknown");
            return Ok(false);
        }
    };
    let happened = |commit: &Commit| commit.place.index < takeover.index;
    let mut count = 0;
    while let Some(one) = in_flight.pop_front_if(|one| happened(&one.commit)) {
        shared.publish(&one.commit)?;
        one.answers.into_iter().for_each(|answer| answer.give(shared));
        count += 1;
    }
    tracing::info!(%takeover, count, "commits that were in flight are in the log");
    Ok(true)
}

/// Where our directory was closed.
async fn closed_at(shared: &Arc<Shared>, ours: Place) -> Result<Option<Place>, ReplayError> {
    let mut replay = Replay::new(shared.bucket.clone(), shared.state(), shared.broken, shared.seams.offload);
    replay.reach_beyond(Some(ours.directory.epoch)).await?;
    Ok(replay.state().takeover_of(ours.directory))
}

/// What a log that closes answers to what needs a proof or a commit that will not come.
pub(crate) struct Last<'a> {
    /// Why it closes.
    pub(crate) reason: &'a Closed,
    /// Commits below this number are durable.
    pub(crate) durable: CommitNumber,
    /// Whether what was in flight, and is not durable, is known not to have happened.
    pub(crate) known: bool,
}

impl Last<'_> {
    /// Answers it.
    pub(crate) fn answer(&self, answer: Answer) {
        let why = || self.reason.clone();
        let not_done = || AppendError::NotDone { why: why() };
        let not_durable = || if self.known { not_done() } else { AppendError::Unknown { why: why() } };
        match answer {
            // A flush that was sent again, and that is durable: that stays so, whoever is the sequencer.
            Answer::Flush(to, Ok(outcome)) if outcome.number < self.durable => drop(to.send(Ok(outcome))),
            Answer::Flush(to, Ok(_)) => drop(to.send(Err(not_durable()))),
            // It may have been committed so long ago that nobody remembers.
            Answer::Flush(to, Err(AppendError::Refused(Refusal::BelowReclaimBoundary { .. }))) => {
                drop(to.send(Err(AppendError::Unknown { why: why() })));
            }
            // The refusal may rest on what is no longer so; that it was not done is true all the same.
            Answer::Flush(to, Err(_)) => drop(to.send(Err(not_done()))),
            Answer::Change(to, Ok(_)) => drop(to.send(Err(not_durable()))),
            Answer::Change(to, Err(_)) => drop(to.send(Err(not_done()))),
            Answer::Barrier(to) => drop(to.send(Err(BarrierError::Closed { why: why() }))),
        }
    }
}
