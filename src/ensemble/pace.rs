//! In which order a panel is asked.

use std::ops::Range;
use std::time::Duration;

use super::alias::Execution;

/// Says which members are to be asked next. It holds no clock and no task.
#[derive(Clone, Debug)]
pub(super) struct Pace {
    members: usize,
    /// How many have been asked; they are the first ones in panel order.
    asked: usize,
    first: usize,
    step: usize,
    delay: Option<Duration>,
}

impl Pace {
    /// The pace of a panel of so many members.
    pub(super) fn new(execution: &Execution, members: usize) -> Self {
        let (first, step, delay) = match execution {
            Execution::Parallel => (members, 1, None),
            Execution::Sequential => (1, 1, None),
            Execution::Cascade(cascade) => (cascade.start.get(), cascade.step.get(), None),
            Execution::Hedged(delay) => (1, 1, Some(*delay)),
        };
        Self { members, asked: 0, first, step, delay }
    }

    /// The members to ask now: at the beginning, and whenever those asked so far have not been enough.
    pub(super) fn next(&mut self) -> Range<usize> {
        let more = if self.asked == 0 { self.first } else { self.step };
        let from = self.asked;
        self.asked = (from + more).min(self.members);
        from..self.asked
    }

    /// After how long the next ones are asked although the others have not ended; none where they wait.
    pub(super) fn delay(&self) -> Option<Duration> {
        self.delay.filter(|_| !self.is_done())
    }

    /// Whether a member's failure is reason enough to ask the next one.
    pub(super) fn replaces(&self) -> bool {
        self.delay.is_some()
    }

    /// How many have been asked.
    pub(super) fn asked(&self) -> usize {
        self.asked
    }

    /// Whether all have been asked.
    fn is_done(&self) -> bool {
        self.asked == self.members
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use super::*;
    use crate::ensemble::Cascade;

    fn waves(execution: &Execution, members: usize) -> Vec<Vec<usize>> {
        let mut pace = Pace::new(execution, members);
        let mut waves = Vec::new();
        while !pace.is_done() {
            waves.push(pace.next().collect());
        }
        assert_eq!(pace.next(), members..members);
        waves
    }

    #[test]
    fn every_member_is_asked_once_in_panel_order() {
        let cascade = |start, step| {
            let size = |n| NonZeroUsize::new(n).unwrap();
            Execution::Cascade(Cascade { start: size(start), step: size(step), agreement: 1.0 })
        };
        assert_eq!(waves(&Execution::Parallel, 3), [[0, 1, 2]]);
        assert_eq!(waves(&Execution::Sequential, 3), [[0], [1], [2]]);
        assert_eq!(waves(&cascade(2, 2), 5), [vec![0, 1], vec![2, 3], vec![4]]);
        assert_eq!(waves(&cascade(3, 1), 3), [[0, 1, 2]]);
    }

    #[test]
    fn only_a_hedge_asks_on_while_others_are_silent() {
        let hedged = Execution::Hedged(Duration::from_millis(300));
        let mut pace = Pace::new(&hedged, 2);
        assert_eq!((pace.next(), pace.delay()), (0..1, Some(Duration::from_millis(300))));
        assert!(pace.replaces());
        assert_eq!((pace.next(), pace.delay()), (1..2, None));
        let pace = Pace::new(&Execution::Sequential, 2);
        assert!(pace.delay().is_none() && !pace.replaces());
    }
}
