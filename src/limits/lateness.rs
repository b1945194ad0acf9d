//! Whether this process keeps up with its work.

use std::collections::VecDeque;
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::channel;
use tokio::sync::mpsc::error::TrySendError;
use tracing::warn;

/// How often it is looked.
const EVERY: Duration = Duration::from_millis(20);
/// How many looks may wait for their turn: those of ten seconds.
const MOST_WAITING: usize = 500;
/// Over how long most looks must have found work late before that counts: a crowd that comes at once is served.
const CROWD: Duration = Duration::from_secs(1);
/// For how long after that it counts sooner: who is overloaded by a steady load is so again when it lets more in.
const STEADY: Duration = Duration::from_secs(5);
/// How soon that is.
const SOON: Duration = Duration::from_millis(200);

/// Tells a load that lasts from a crowd that passes: the delay of work is held against a target over an interval, as in
/// CoDel (RFC 8289). There the least delay tells; here most do, for a runtime's queues are not served in order, and some
/// are always lucky.
#[derive(Debug)]
pub(super) struct Lateness {
    /// What is still in time.
    max: Duration,
    /// The looks of the last second: since when each waited for its turn, and whether that was too long.
    looks: VecDeque<(Instant, bool)>,
    /// When there was last too much.
    overloaded: Option<Instant>,
}

impl Lateness {
    pub(super) fn beyond(max: Duration) -> Self {
        Self { max, looks: VecDeque::new(), overloaded: None }
    }

    /// Looks again and again, as work that waits for its turn like any other; ends only where there can be no thread.
    ///
    /// A thread asks for it. A worker serves the short queue of its own first, which the clock and other tasks wake into;
    /// what is too much for that waits in the queue of all workers, and so does who is woken from outside.
    pub(super) async fn watch(mut self, tell: impl Fn(bool)) {
        let (ask, mut asked) = channel(MOST_WAITING);
        let asking = move || {
            while !matches!(ask.try_send(Instant::now()), Err(TrySendError::Closed(_))) {
                thread::sleep(EVERY);
            }
        };
        if let Err(error) = thread::Builder::new().name("lateness".to_owned()).spawn(asking) {
            warn!(%error, "without a thread, limits.max_lateness_ms is not heeded");
            return;
        }
        let mut looks = Vec::new();
        while asked.recv_many(&mut looks, MOST_WAITING).await > 0 {
            tell(self.is_overloaded(Instant::now(), &looks));
            looks.clear();
        }
    }

    /// Whether there is too much to do; these looks have waited until now, since these times, oldest first.
    fn is_overloaded(&mut self, now: Instant, asked: &[Instant]) -> bool {
        let (Some(oldest), Some(newest)) = (asked.first(), asked.last()) else {
            return false;
        };
        // What came later came along: alone, it would have waited as long.
        let is_late = now.saturating_duration_since(*oldest) > self.max;
        self.looks.extend(asked.iter().map(|asked| (*asked, is_late)));
        let within = |span: Duration| move |at: Instant| newest.saturating_duration_since(at) < span;
        while self.looks.front().is_some_and(|(at, _)| !within(CROWD)(*at)) {
            self.looks.pop_front();
        }
        let is_steady = self.overloaded.is_some_and(|before| now.saturating_duration_since(before) < STEADY);
        let span = if is_steady { SOON } else { CROWD };
        let late = self.looks.iter().filter(|(at, is_late)| *is_late && within(span)(*at)).count();
        // Of all that would have been made: a process that was frozen has made few.
        let is_overloaded = EVERY * u32::try_from(late).unwrap_or(u32::MAX) > span / 2;
        if is_overloaded {
            self.overloaded = Some(now);
        }
        is_overloaded
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    const MAX: Duration = Duration::from_millis(200);
    const LATE: Duration = Duration::from_millis(201);

    /// What is told by so many looks, one at a time, that have waited so long.
    fn told(lateness: &mut Lateness, at: &mut Instant, count: u32, waited: Duration) -> Vec<bool> {
        let look = |_| {
            *at += EVERY;
            lateness.is_overloaded(*at + waited, &[*at])
        };
        (0..count).map(look).collect()
    }

    #[test]
    fn a_crowd_that_passes_is_no_overload_and_a_load_that_lasts_is() {
        let (mut lateness, mut at) = (Lateness::beyond(MAX), Instant::now());
        for _ in 0..9 {
            assert_eq!(told(&mut lateness, &mut at, 24, LATE), [false; 24], "a crowd");
            assert_eq!(told(&mut lateness, &mut at, 26, MAX), [false; 26]);
        }
        let lasts = told(&mut lateness, &mut at, 26, LATE);
        assert_eq!((lasts.iter().position(|told| *told), lasts.last()), (Some(25), Some(&true)));
        let over = told(&mut lateness, &mut at, 10, MAX);
        assert_eq!(
            over.iter().position(|told| !told),
            Some(4),
            "as soon as half of the looks are in time again"
        );
    }

    #[test]
    fn a_few_lucky_looks_hide_no_overload() {
        let (mut lateness, mut at) = (Lateness::beyond(MAX), Instant::now());
        let mut seen = Vec::new();
        for _ in 0..20 {
            seen.extend(told(&mut lateness, &mut at, 3, LATE));
            seen.extend(told(&mut lateness, &mut at, 1, MAX));
        }
        assert!(seen.iter().rev().take(40).all(|told| *told), "{seen:?}");
    }

    #[test]
    fn who_was_overloaded_is_so_again_soon_and_not_for_ever() {
        let (mut lateness, mut at) = (Lateness::beyond(MAX), Instant::now());
        let first_told = |told: Vec<bool>| told.iter().position(|told| *told);
        assert_eq!(first_told(told(&mut lateness, &mut at, 50, LATE)), Some(25));
        told(&mut lateness, &mut at, 100, MAX);
        assert_eq!(first_told(told(&mut lateness, &mut at, 50, LATE)), Some(5), "two seconds later");
        told(&mut lateness, &mut at, 260, MAX);
        assert_eq!(first_told(told(&mut lateness, &mut at, 50, LATE)), Some(25), "five seconds later");
    }

    #[test]
    fn a_process_that_was_frozen_is_not_overloaded_when_it_wakes() {
        let (mut lateness, at) = (Lateness::beyond(MAX), Instant::now());
        let woken = at + Duration::from_secs(60);
        assert!(!lateness.is_overloaded(woken, &[at, at + EVERY, woken]));
        assert!(!lateness.is_overloaded(woken + EVERY, &[woken + EVERY]));
    }

    #[test]
    fn looks_that_have_all_waited_for_one_turn_tell_it_at_once() {
        let (mut lateness, at) = (Lateness::beyond(MAX), Instant::now());
        let looks: Vec<Instant> = (0..100).map(|look| at + EVERY * look).collect();
        assert!(lateness.is_overloaded(at + EVERY * 100, &looks));
    }

    /// Whether a runtime with two workers is ever told to be overloaded that does this for three seconds.
    fn is_told(work: impl FnOnce()) -> bool {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build();
        runtime.unwrap().block_on(async {
            work();
            let told = Arc::new(AtomicBool::new(false));
            let tell = Arc::clone(&told);
            let watch = Lateness::beyond(Duration::from_millis(50))
                .watch(move |is_late| _ = tell.fetch_or(is_late, Ordering::Relaxed));
            // On a worker, as in the service.
            tokio::spawn(watch);
            tokio::time::sleep(Duration::from_secs(3)).await;
            told.load(Ordering::Relaxed)
        })
    }

    #[test]
    fn more_tasks_than_workers_can_serve_are_an_overload() {
        let busy = || {
            for _ in 0..1000 {
                tokio::spawn(async {
                    loop {
                        let began = Instant::now();
                        while began.elapsed() < Duration::from_micros(500) {}
                        tokio::task::yield_now().await;
                    }
                });
            }
        };
        assert!(is_told(busy));
        assert!(!is_told(|| ()));
    }
}
