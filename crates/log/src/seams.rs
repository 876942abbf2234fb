//! What comes in from outside: the wall clock, randomness, and where heavy work runs. A simulation owns all three.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};

use tokio::sync::oneshot;

/// How much others go before work that nobody waits for (`man 7 sched`, "The nice value"): at 10 they get nine times as much of a core.
#[cfg(target_os = "linux")]
const NICE: i32 = 10;

/// A wall clock: milliseconds since 1970. It dates things for people; it decides nothing.
pub type Wall = Arc<dyn Fn() -> i64 + Send + Sync>;

/// The seams of one process.
#[derive(Clone)]
pub struct Seams {
    /// The wall clock.
    pub wall: Wall,
    /// Seeds every random choice (nonces, ids, jitter). Must differ between processes.
    pub seed: u64,
    /// Where work of more than half a millisecond runs.
    pub offload: Offload,
}

impl fmt::Debug for Seams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seams").field("seed", &self.seed).field("offload", &self.offload).finish_non_exhaustive()
    }
}

/// Where CPU work runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offload {
    /// On the runtime's blocking threads.
    Blocking,
    /// At once, on the calling task: deterministic.
    Inline,
}

impl Offload {
    /// Runs `work` and returns what it returned.
    ///
    /// # Cancel
    /// If the future is dropped, work that has begun on a blocking thread ends there and its result is dropped.
    ///
    /// # Panics
    /// If `work` panics, or the runtime shuts down.
    pub async fn run<T: Send + 'static>(self, work: impl FnOnce() -> T + Send + 'static) -> T {
        match self {
            Self::Inline => work(),
            Self::Blocking => match tokio::task::spawn_blocking(work).await {
                Ok(result) => result,
                Err(error) => match error.try_into_panic() {
                    Ok(panic) => std::panic::resume_unwind(panic),
                    Err(cancelled) => panic!("blocking work was cancelled: {cancelled}"),
                },
            },
        }
    }

    /// The same for work that nobody waits for: on a thread of its own, one piece after another, to which the system gives what others
    /// leave.
    ///
    /// # Cancel
    /// As [`Offload::run`].
    ///
    /// # Panics
    /// If `work` panics.
    pub async fn run_gently<T: Send + 'static>(self, work: impl FnOnce() -> T + Send + 'static) -> T {
        if self == Self::Inline {
            return work();
        }
        let (answer, answered) = oneshot::channel();
        let job = move || {
            // Who no longer waits does not need to know.
            drop(answer.send(catch_unwind(AssertUnwindSafe(work))));
        };
        gentle_thread().send(Box::new(job)).expect("the thread lives as long as its sender");
        match answered.await.expect("a job answers, also if it panics") {
            Ok(result) => result,
            Err(panic) => resume_unwind(panic),
        }
    }
}

/// More jobs than wait at once: each task that has such work waits for its answer.
const JOBS_MAX: usize = 1024;

type Job = Box<dyn FnOnce() + Send>;

/// The thread for work that nobody waits for.
fn gentle_thread() -> &'static SyncSender<Job> {
    static THREAD: OnceLock<SyncSender<Job>> = OnceLock::new();
    THREAD.get_or_init(|| {
        let (sender, jobs) = sync_channel::<Job>(JOBS_MAX);
        let work = move || {
            // Of the calling thread alone, on Linux. Elsewhere, or where it is forbidden, it is as others are.
            #[cfg(target_os = "linux")]
            rustix::process::setpriority_process(None, NICE).ok();
            jobs.into_iter().for_each(|job| job());
        };
        let thread = std::thread::Builder::new().name("lakebed-gentle".to_owned()).spawn(work);
        thread.expect("a process can have one thread more");
        sender
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn gentle_work_answers_and_its_panics_are_the_callers() {
        for offload in [Offload::Blocking, Offload::Inline] {
            assert_eq!(offload.run_gently(|| 6 * 7).await, 42);
            let panics = tokio::spawn(offload.run_gently(|| panic!("as told")));
            assert!(panics.await.unwrap_err().is_panic());
            assert_eq!(offload.run_gently(|| 6 * 7).await, 42, "after a panic");
        }
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn gentle_work_gets_what_others_leave() {
        // `man 5 proc`, stat: the nice value is field 19, and the name in field 2 may hold anything.
        let nice = || {
            let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
            stat.rsplit_once(')').unwrap().1.split_whitespace().nth(16).unwrap().parse::<i32>().unwrap()
        };
        let before = nice();
        assert_eq!(Offload::Blocking.run_gently(nice).await, NICE.max(before));
        assert_eq!(Offload::Blocking.run(nice).await, before);
        assert_eq!(nice(), before);
    }
}
