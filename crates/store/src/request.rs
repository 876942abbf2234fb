//! One request to the store: it waits for its turn, is counted, limited in time, and perhaps hedged.
//!
//! SUBTLE: the time limit and the count begin when the request is sent. What waits for its turn has asked nothing, costs nothing, and may be
//! dropped without a trace.

use crate::backend::{Body, Failure, FailureKind, Span};
use crate::counts::Counter;
use crate::gate::Turn;
use crate::hedge::{Class, Hedged};
use crate::key::Key;
use crate::store::Store;

/// The right to send one request: a turn, where there are turns.
#[derive(Debug)]
pub(crate) struct Pass(Option<Turn>);

impl Store {
    /// Waits until a request may be sent.
    ///
    /// # Cancel
    /// Nothing is left of it.
    pub(crate) async fn pass(&self) -> Pass {
        match self.gate() {
            Some(gate) => Pass(Some(gate.turn(self.priority()).await)),
            None => Pass(None),
        }
    }

    /// A pass that nobody waits for; `None` if there is none now.
    pub(crate) fn free_pass(&self) -> Option<Pass> {
        match self.gate() {
            Some(gate) => gate.free_turn(self.priority()).map(|turn| Pass(Some(turn))),
            None => Some(Pass(None)),
        }
    }

    /// Sends a request and waits for its answer, for no longer than an attempt may take. `bytes` of its result are those of bodies.
    ///
    /// # Cancel
    /// It counts as cancelled; a write may be applied, or may be later.
    pub(crate) async fn send<T>(
        &self,
        pass: Pass,
        counter: &Counter,
        bytes: impl FnOnce(&T) -> u64,
        request: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let Pass(mut turn) = pass;
        let outcome = counter.counted(bytes, self.retry().time_limited(request)).await;
        if let Some(turn) = &mut turn {
            turn.hear(&outcome);
        }
        outcome
    }

    /// Makes a request that is not hedged, when its turn comes.
    pub(crate) async fn ask<T>(
        &self,
        counter: &Counter,
        bytes: impl FnOnce(&T) -> u64,
        request: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let pass = self.pass().await;
        self.send(pass, counter, bytes, request).await
    }

    /// Reads a part of an object, when its turn comes; twice if that takes long. The body is as long as it must be.
    pub(crate) async fn ask_for_body(&self, key: &Key, span: &Span) -> Result<Body, Failure> {
        let counter = &self.counters().get;
        let get = |pass| {
            let get = async {
                let body = self.backend().get(key, span).await?;
                check_length(&body, span)?;
                Ok(body)
            };
            self.send(pass, counter, |body: &Body| body.bytes.len() as u64, get)
        };
        let first = get(self.pass().await);
        // That nothing stands there is an answer like another: each of the two is one to the question whether something does.
        let settles = |failure: &Failure| failure.kind == FailureKind::Absent;
        let Hedged { outcome, .. } = self.hedged(counter, Class::of_span(span), first, get, settles).await;
        outcome
    }
}

/// Compares the bytes that came with those that the object must have in `span`.
fn check_length(body: &Body, span: &Span) -> Result<(), Failure> {
    let size = body.object_size_bytes;
    let expected = match span {
        Span::All => size,
        Span::Range(range) => range.end.min(size).saturating_sub(range.start),
        Span::Last(length) => size.min(*length),
    };
    match body.bytes.len() as u64 == expected {
        true => Ok(()),
        false => Err(Failure::new(
            FailureKind::Doubt,
            format!("{} bytes came of {expected} (object of {size} bytes)", body.bytes.len()),
        )),
    }
}
