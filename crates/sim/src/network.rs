//! Messages between brokers: slow, lost, doubled, overtaken; answers are lost, too. What was sent goes on without its sender.

use std::sync::Arc;
use std::time::Duration;

use lakebed_log::AppendError;
use lakebed_model::{FlushOutcome, FlushProposal, Refusal, SegmentId};
use lakebed_segment::body::Body;
use rand::Rng;
use rand::rngs::StdRng;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use crate::broker::Broker;
use crate::climate::{chance, within};
use crate::world::World;

/// How long a broker waits for an answer.
const PATIENCE: Duration = Duration::from_millis(1_500);

/// What a sequencer answers to a flush of another broker.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    /// What came of it.
    pub result: Result<Arc<FlushOutcome>, AppendError>,
    /// The reclaim boundary that the sequencer has seen.
    pub boundary: SegmentId,
}

/// Sends a flush to a sequencer; `None` if no answer came in time.
pub(crate) async fn submit(
    world: &Arc<World>,
    rng: &mut StdRng,
    to: &Arc<Broker>,
    proposal: &FlushProposal,
    body: Option<&Body>,
) -> Option<Reply> {
    let (answer, mut answers) = mpsc::channel(2);
    let trouble = world.climate.message_trouble;
    let copies = if chance(rng, trouble) {
        0
    } else if chance(rng, trouble) {
        world.trace.count("messages doubled");
        2
    } else {
        1
    };
    for _ in 0..copies {
        let journey =
            Journey { there: journey_ms(world, rng), back: journey_ms(world, rng), answer_lost: chance(rng, trouble) };
        let message = (proposal.clone(), body.cloned());
        tokio::spawn(deliver(Arc::clone(world), Arc::clone(to), journey, message, answer.clone()));
    }
    drop(answer);
    // A lost message looks like a slow one.
    let heard = timeout(PATIENCE, async {
        match answers.recv().await {
            Some(reply) => reply,
            None => std::future::pending().await,
        }
    });
    heard.await.ok()
}

struct Journey {
    there: Duration,
    back: Duration,
    answer_lost: bool,
}

fn journey_ms(world: &World, rng: &mut StdRng) -> Duration {
    // Now and then a message takes longer than its sender waits.
    let slow = if chance(rng, world.climate.message_trouble / 2) { rng.random_range(1_000..5_000) } else { 0 };
    Duration::from_millis(within(rng, world.climate.message_ms) + slow)
}

async fn deliver(
    world: Arc<World>,
    to: Arc<Broker>,
    journey: Journey,
    (proposal, body): (FlushProposal, Option<Body>),
    answer: mpsc::Sender<Reply>,
) {
    sleep(journey.there).await;
    let handled = to.gate.unless_dead(async {
        to.gate.pass().await;
        if to.log.state().flush(proposal.id).is_some() {
            world.trace.count("flushes known when sent again");
        }
        let id = proposal.id;
        let result = to.log.submit(proposal, body).await.await;
        to.gate.pass().await;
        if matches!(result, Err(AppendError::Refused(Refusal::BelowReclaimBoundary { .. }))) {
            world.trace.count("flushes below the boundary");
        }
        world.trace.note(format_args!(
            "{} answers flush {id}: {}",
            to.gate.name(),
            if result.is_ok() { "done" } else { "no" }
        ));
        Reply { result, boundary: to.log.state().reclaim_boundary() }
    });
    let Some(reply) = handled.await else { return };
    sleep(journey.back).await;
    if journey.answer_lost {
        world.trace.count("answers lost");
    } else {
        drop(answer.send(reply).await);
    }
}
