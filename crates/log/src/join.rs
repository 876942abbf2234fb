//! Joining a log that others may serve: follow its sequencer, or take it over if there is none.

use std::sync::Arc;

use lakebed_model::{Nonce, State};
use lakebed_segment::commit::Identity;
use lakebed_store::Store;
use rand::rngs::StdRng;
use rand::{RngCore, SeedableRng};
use tokio::sync::{mpsc, watch};

use crate::bucket::Bucket;
use crate::follower::{Follower, Following};
use crate::handle::{Log, Role, Shared};
use crate::open::{ClosedGuard, OpenError, Options, REQUESTS_MAX, lead, rooted, take_over};
use crate::replay::Replay;
use crate::seams::Seams;

/// What a process knows of a log that it has served or followed; it need not be read again.
#[derive(Debug, Clone)]
pub struct Known {
    identity: Identity,
    /// Large, and mostly passed on.
    state: Box<State>,
}

/// How a log was joined.
#[derive(Debug)]
pub enum Joined {
    /// There is a sequencer, or was until a moment ago: this broker follows it.
    Follows(Log),
    /// There is nobody to follow: nobody has taken it over yet, or whoever has takes no calls or had this broker's address. It is to be taken
    /// over.
    Alone {
        /// From where.
        known: Known,
        /// Who has this broker's address; `None` if nobody has.
        namesake: Option<Nonce>,
    },
}

impl Log {
    /// Joins the log of a cell: creates it if the store is empty, and reads it to its end.
    ///
    /// Must be called in a tokio runtime: what follows is a task of it.
    ///
    /// # Errors
    /// [`OpenError`]
    /// # Cancel Nothing has changed, except that an empty log may stand.
    /// # Cost   GET root (unless `known`), LIST and GET of a checkpoint, a GET a commit behind it.
    pub async fn join(
        store: Store,
        options: Options,
        seams: Seams,
        following: Following,
        known: Option<Known>,
    ) -> Result<Joined, OpenError> {
        let mut rng = StdRng::seed_from_u64(seams.seed);
        let Known { identity, state } = match known {
            Some(known) => known,
            None => {
                let (identity, state) = rooted(&store, &options, &mut rng).await?;
                Known { identity, state: Box::new(state) }
            }
        };
        let bucket = Bucket::new(store, identity, options.broken);
        let mut replay = Replay::new(bucket.clone(), *state, options.broken, seams.offload);
        replay.reach_the_end().await?;
        let state = replay.into_state();
        let address = state.owner_address();
        if address.is_empty() || address == options.address {
            let namesake = state.owner().filter(|_| !address.is_empty());
            let known = Known { identity, state: Box::new(state) };
            return Ok(Joined::Alone { known, namesake });
        }
        tracing::info!(sequencer = address, commits = %state.number(), "this broker follows the sequencer");
        let (nonce, number) = (Nonce::new(rng.next_u64()), state.number());
        let shared = Arc::new(Shared::new(bucket, options, seams, nonce, (state, number)));
        let (requests, receiver) = mpsc::channel(REQUESTS_MAX);
        let (closed_sender, closed) = watch::channel(None);
        let follower = Follower::new(Arc::clone(&shared), receiver, following);
        let task = tokio::spawn(ClosedGuard::run(closed_sender, async |sender| follower.run(sender).await));
        Ok(Joined::Follows(Self::new(Role::Follower, shared, requests, closed, task.abort_handle())))
    }

    /// Takes a log over that is known already, unless somebody has done that since: then `None`.
    ///
    /// # Errors
    /// [`OpenError`]
    /// # Cancel A takeover may stand in the log; whoever was the sequencer is fenced.
    /// # Cost   A GET a commit that has come since, LIST, PUT of the takeover, LIST.
    pub async fn succeed(
        store: Store,
        options: Options,
        seams: Seams,
        known: Known,
    ) -> Result<Result<Self, Known>, OpenError> {
        let Known { identity, state } = known;
        let mut rng = StdRng::seed_from_u64(seams.seed);
        let bucket = Bucket::new(store, identity, options.broken);
        let nonce = nonce_of(&seams);
        rng.next_u64();
        let only_epoch = Some(state.place().directory.epoch);
        match take_over(&bucket, *state, only_epoch, &options, &seams, nonce, &mut rng).await? {
            Ok((state, keeper)) => Ok(Ok(lead(bucket, options, seams, nonce, (state, keeper)))),
            Err(state) => Ok(Err(Known { identity, state: Box::new(state) })),
        }
    }

    /// What this process knows of the log: [`Log::join`] and [`Log::succeed`] go on from there.
    pub fn known(&self) -> Known {
        Known { identity: self.identity(), state: Box::new(self.state()) }
    }
}

/// The nonce of whoever [succeeds](Log::succeed) with these seams.
pub fn nonce_of(seams: &Seams) -> Nonce {
    Nonce::new(StdRng::seed_from_u64(seams.seed).next_u64())
}
