//! Creating an object, and knowing what came of it.
//!
//! Each attempt is a PUT-if-absent. What its answer says, and what is done then:
//!
//! | answer to one attempt | was it applied? | then |
//! |---|---|---|
//! | success | yes | [`Created::New`] |
//! | exists (412, 409, file exists) | not by this attempt; an earlier one may have been | read back |
//! | refused (403, 400, no space) | no | give up: *not done*, unless an earlier attempt is in doubt |
//! | not sent (connection refused) | no | wait, repeat |
//! | throttled (503 SlowDown, 429) | perhaps: a gateway may say so after the store applied it | doubt; wait, read back |
//! | timeout, cut, other 5xx | perhaps, or later | doubt; wait, read back |
//! | the medium failed (directory sync) | can't be told by anyone | [`CreateError::Unknown`] at once |
//!
//! | read back | then |
//! |---|---|
//! | our bytes | [`Created::Mine`] |
//! | other bytes | [`Created::Other`]: ours can't land any more while that object stands |
//! | absent | wait, repeat the PUT: a conflict was transient, or the doubtful attempt was lost *or is late* |
//! | failed | doubt; wait, repeat the PUT |
//!
//! When the attempts are used up: [`CreateError::NotDone`] if there was no doubt, else [`CreateError::Unknown`]. *A doubtful attempt that reads back absent stays in doubt*, since it may be applied
//! later. It does no harm to repeat the same bytes at the same key: of all attempts at most one is applied.
//!
//! "Our bytes" means the same size and the same last [`COMPARED_BYTES_MAX`] bytes: every object of ours carries its
//! writer's nonce near its end, so two writers' objects differ there.

use futures::TryFutureExt;
use tracing::Instrument;

use crate::backend::{Cause, Failure, FailureKind, Span};
use crate::hedge::{Class, Hedged, Other};
use crate::key::Key;
use crate::payload::Payload;
use crate::retry::Attempts;
use crate::span;
use crate::store::Store;

/// Bytes at the end of an object that a read-back compares. A writer's nonce must lie within them.
pub const COMPARED_BYTES_MAX: u64 = 64 * 1024;

/// A create that is known to have come to an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Created {
    /// Our object stands there, stored by this call.
    New,
    /// Our object stands there: an attempt without an answer had been applied, of this call or of an earlier one.
    Mine,
    /// An object with other bytes stands there. Ours was not stored.
    Other,
}

/// A create that stored nothing, or may have.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CreateError {
    /// This call stored nothing, and nothing of it can be applied later: repeating it is safe, and so is not repeating.
    /// It says nothing of earlier calls: what was unknown after one of them still is.
    #[error("did not create '{key}' ({size_bytes} bytes, {attempts} attempts)")]
    NotDone {
        /// What was to be created.
        key: Key,
        /// The size of its body.
        size_bytes: u64,
        /// How many PUTs were sent.
        attempts: u32,
        /// The last failure.
        source: Cause,
    },
    /// The object may be there, or may still appear. To resolve it, repeat the same bytes at the same key until the
    /// answer is another one; never put other bytes there.
    #[error("cannot tell whether '{key}' was created ({size_bytes} bytes, {attempts} attempts)")]
    Unknown {
        /// What was to be created.
        key: Key,
        /// The size of its body.
        size_bytes: u64,
        /// How many PUTs were sent.
        attempts: u32,
        /// The last failure.
        source: Cause,
    },
}

/// What a read-back found.
pub(crate) enum Standing {
    Mine,
    Other,
    Absent,
}

/// What is known of an object of ours, to know it again.
pub(crate) struct Expected<'a> {
    pub(crate) size_bytes: u64,
    /// Whether it ends with some bytes, which are all of it, or its last [`COMPARED_BYTES_MAX`].
    pub(crate) ends_with: &'a (dyn Fn(&[u8]) -> bool + Send + Sync),
}

impl Store {
    /// Stores `payload` at `key` if nothing stands there; repeats the attempt until its fate is known, within the bounds
    /// of the [`RetryPolicy`](crate::RetryPolicy). The [module](crate::create) has the table of outcomes.
    ///
    /// # Cost
    /// One PUT when all goes well, and no copy of the payload. One PUT and one GET of at most [`COMPARED_BYTES_MAX`]
    /// when something stands there.
    ///
    /// # Cancel
    /// The object may be there, or may appear later: as after [`CreateError::Unknown`].
    ///
    /// # Errors
    /// [`CreateError::NotDone`]: nothing was stored. [`CreateError::Unknown`]: repeat the same bytes at the same key.
    pub async fn create(&self, key: &Key, payload: impl Into<Payload>) -> Result<Created, CreateError> {
        let payload = payload.into();
        let span = span::call("store PUT", key.as_str());
        self.create_until_known(key, payload).instrument(span).await
    }

    async fn create_until_known(&self, key: &Key, payload: Payload) -> Result<Created, CreateError> {
        let mut attempts = self.retry().begin();
        let mut doubt = false;
        loop {
            let (put, is_left_open) = self.create_once_or_twice(key, &payload, &mut attempts).await;
            tracing::Span::current().record("attempts", i64::from(attempts.made()));
            let failure = match put {
                Ok(created) => return Ok(created),
                Err(failure) => failure,
            };
            doubt |= is_left_open;
            tracing::debug!(%key, kind = ?failure.kind, cause = %failure.cause, "a create did not succeed");
            let conflict = failure.kind == FailureKind::Exists;
            if !conflict {
                self.tell_of_trouble(&failure, &attempts);
            }
            match failure.kind {
                FailureKind::Refused | FailureKind::Absent => {
                    return Err(given_up(key, payload.size_bytes(), &attempts, doubt, failure));
                }
                FailureKind::Broken => return Err(given_up(key, payload.size_bytes(), &attempts, true, failure)),
                FailureKind::Exists | FailureKind::NotSent => {}
                FailureKind::Throttled | FailureKind::Doubt => doubt = true,
            }
            // A conflict is read at once, since it usually has an answer; a store in trouble is given time first.
            let more = conflict || attempts.wait().await;
            if conflict || doubt {
                match self.read_back_payload(key, &payload).await {
                    Ok(Standing::Mine) => return Ok(Created::Mine),
                    Ok(Standing::Other) => return Ok(Created::Other),
                    Ok(Standing::Absent) => {}
                    Err(_) => doubt = true,
                }
            }
            if !more || conflict && !attempts.wait().await {
                return Err(given_up(key, payload.size_bytes(), &attempts, doubt, failure));
            }
        }
    }

    /// One attempt, as one PUT or two. Says too whether the other one may have been applied, or may be later, should this one have failed.
    ///
    /// SUBTLE: two PUTs of the same bytes at the same key are as safe at the same time as one after the other, since of both at most one is
    /// applied, and it does not matter which: the bytes are ours, and nobody else's have our nonce. So the hedge that finds an object
    /// in its way reads it back, and "ours" found so ([`Created::Mine`]) means what [`Created::New`] means. What must not be
    /// taken for known is the fate of the PUT that is not waited for any more: whoever gives up while it may still land has to say
    /// [`CreateError::Unknown`], or the caller would use its key, or its offsets, for something else.
    async fn create_once_or_twice(
        &self,
        key: &Key,
        payload: &Payload,
        attempts: &mut Attempts<'_>,
    ) -> (Result<Created, Failure>, bool) {
        attempts.begin_one();
        let counter = &self.counters().put;
        let put = |pass| self.send(pass, counter, |()| payload.size_bytes(), self.backend().create(key, payload));
        let first = put(self.pass().await).map_ok(|()| Created::New);
        let second = async |pass| match put(pass).await {
            Ok(()) => Ok(Created::New),
            Err(failure) if failure.kind == FailureKind::Exists => match self.read_back_payload(key, payload).await {
                Ok(Standing::Mine) => Ok(Created::Mine),
                Ok(Standing::Other) => Ok(Created::Other),
                // The first is in its way, and not done yet: it is the one to wait for.
                Ok(Standing::Absent) => Err(Failure { kind: FailureKind::NotSent, ..failure }),
                // What keeps from reading says nothing of the writing.
                Err(unread) => Err(Failure { kind: FailureKind::Doubt, ..unread }),
            },
            Err(failure) => Err(failure),
        };
        let class = Class::of_size(payload.size_bytes());
        let settles = |failure: &Failure| failure.kind == FailureKind::Exists;
        let Hedged { outcome, other } = self.hedged(counter, class, first, second, settles).await;
        if !matches!(other, Other::None) {
            attempts.count_hedge();
        }
        let is_left_open = match other {
            Other::None => false,
            Other::Unanswered => true,
            Other::Failed(failure) => {
                matches!(failure.kind, FailureKind::Throttled | FailureKind::Doubt | FailureKind::Broken)
            }
        };
        (outcome, is_left_open)
    }

    async fn read_back_payload(&self, key: &Key, payload: &Payload) -> Result<Standing, Failure> {
        let expected = Expected { size_bytes: payload.size_bytes(), ends_with: &|tail| payload.ends_with(tail) };
        self.read_back(key, &expected).await
    }

    /// Looks at what stands where an object of ours may.
    pub(crate) async fn read_back(&self, key: &Key, expected: &Expected<'_>) -> Result<Standing, Failure> {
        let compared = expected.size_bytes.min(COMPARED_BYTES_MAX);
        // An empty payload has no tail to ask for, and some stores refuse to give a suffix of nothing.
        let span = Span::Last(compared.max(1));
        match self.ask_for_body(key, &span).await {
            Err(failure) if failure.kind == FailureKind::Absent => Ok(Standing::Absent),
            Err(failure) => Err(failure),
            Ok(body) if body.object_size_bytes != expected.size_bytes => Ok(Standing::Other),
            Ok(body) if (expected.ends_with)(&body.bytes) => Ok(Standing::Mine),
            Ok(_) => Ok(Standing::Other),
        }
    }
}

/// The end of a create whose attempts are used up, or whose last one says that more are of no use.
pub(crate) fn given_up(
    key: &Key,
    size_bytes: u64,
    attempts: &Attempts<'_>,
    unknown: bool,
    failure: Failure,
) -> CreateError {
    let (key, attempts, source) = (key.clone(), attempts.made(), failure.cause);
    match unknown {
        true => CreateError::Unknown { key, size_bytes, attempts, source },
        false => CreateError::NotDone { key, size_bytes, attempts, source },
    }
}

#[cfg(test)]
mod tests;
