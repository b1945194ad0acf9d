//! Whether this process keeps up with its work.

use std::time::Duration;

use tokio::time::Instant;

/// How often it is looked.
const EVERY: Duration = Duration::from_millis(20);
/// How long work must have been late all the time before that counts: a crowd that comes at once is served.
const CROWD: Duration = Duration::from_secs(1);
/// For how long after that it counts at once: who is overloaded by a steady load is so again as soon as it lets more in.
const STEADY: Duration = Duration::from_secs(5);

/// Tells a load that lasts from a crowd that passes. The idea of a target, and of an interval in which the delay never
/// falls below it, is CoDel's (RFC 8289).
#[derive(Debug)]
pub(super) struct Lateness {
    /// What is still in time.
    max: Duration,
    /// Since when every look has found work late.
    since: Option<Instant>,
    /// When there was last too much.
    overloaded: Option<Instant>,
}

impl Lateness {
    pub(super) fn beyond(max: Duration) -> Self {
        Self { max, since: None, overloaded: None }
    }

    /// Looks again and again, as work that waits for its turn like any other; never ends.
    pub(super) async fn watch(mut self, tell: impl Fn(bool)) {
        loop {
            let due = Instant::now() + EVERY;
            tokio::time::sleep_until(due).await;
            // Who is woken by the clock may be served before those who wait: behind them it is told how long that takes.
            tokio::task::yield_now().await;
            let now = Instant::now();
            tell(self.is_overloaded(now, now - due));
        }
    }

    /// Whether there is too much to do, by the delay that was found now.
    fn is_overloaded(&mut self, now: Instant, late: Duration) -> bool {
        if late <= self.max {
            self.since = None;
            return false;
        }
        let since = *self.since.get_or_insert(now);
        let is_steady = self.overloaded.is_some_and(|last| now - last < STEADY);
        let is_overloaded = is_steady || now - since >= CROWD;
        if is_overloaded {
            self.overloaded = Some(now);
        }
        is_overloaded
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    const MAX: Duration = Duration::from_millis(200);
    const LATE: Duration = Duration::from_millis(201);

    /// What is told when looks find such delays, so far apart.
    fn told(lateness: &mut Lateness, at: &mut Instant, delays: &[Duration], apart: Duration) -> Vec<bool> {
        let look = |late: &Duration| {
            *at += apart;
            lateness.is_overloaded(*at, *late)
        };
        delays.iter().map(look).collect()
    }

    #[test]
    fn a_crowd_that_passes_is_no_overload_and_a_load_that_lasts_is() {
        let (mut lateness, mut at) = (Lateness::beyond(MAX), Instant::now());
        let apart = Duration::from_millis(250);
        let crowd =
            told(&mut lateness, &mut at, &[LATE, LATE, LATE, LATE, MAX, LATE, LATE, LATE, LATE], apart);
        assert_eq!(crowd, [false; 9], "one look in time is enough");
        let load = told(&mut lateness, &mut at, &[LATE, LATE, MAX], apart);
        assert_eq!(load, [true, true, false], "and one is enough again");
    }

    #[test]
    fn who_was_overloaded_is_so_again_at_once_and_not_for_ever() {
        let (mut lateness, mut at) = (Lateness::beyond(MAX), Instant::now());
        told(&mut lateness, &mut at, &[LATE; 5], CROWD);
        let again = told(&mut lateness, &mut at, &[MAX, LATE], Duration::from_secs(2));
        assert_eq!(again, [false, true]);
        assert_eq!(told(&mut lateness, &mut at, &[MAX, LATE], Duration::from_secs(3)), [false, false]);
    }

    #[test]
    fn a_process_that_was_frozen_is_not_overloaded_when_it_wakes() {
        let (mut lateness, mut at) = (Lateness::beyond(MAX), Instant::now());
        let frozen = told(&mut lateness, &mut at, &[Duration::from_secs(60), Duration::ZERO], EVERY);
        assert_eq!(frozen, [false, false]);
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_nothing_to_do_is_never_late() {
        let seen = RefCell::new(Vec::new());
        let watch = Lateness::beyond(MAX).watch(|is_overloaded| seen.borrow_mut().push(is_overloaded));
        assert!(tokio::time::timeout(Duration::from_secs(10), watch).await.is_err());
        assert!(seen.borrow().len() > 400 && !seen.borrow().contains(&true));
    }
}
