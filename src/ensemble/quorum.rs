//! When a panel has said enough.

use std::num::NonZeroUsize;

/// Counts the usable candidates of a panel. It holds no clock and no task.
#[derive(Clone, Debug)]
pub struct Quorum {
    needed: usize,
    usable: usize,
    /// Members that have not ended yet.
    open: usize,
    /// Required members that have not given a candidate yet.
    required: usize,
    /// A required member failed.
    broken: bool,
}

/// What a panel's results so far mean.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verdict {
    /// It may still be met.
    #[default]
    Wait,
    /// It is met.
    Reached,
    /// It cannot be met any more.
    Unreachable,
}

impl Quorum {
    /// A quorum of `needed` out of `members`, among which all the `required` ones.
    pub fn new(needed: NonZeroUsize, members: usize, required: usize) -> Self {
        Self { needed: needed.get(), usable: 0, open: members, required, broken: false }
    }

    /// Takes one member's end: whether it is required, and whether it gave a usable candidate.
    pub fn observe(&mut self, required: bool, usable: bool) -> Verdict {
        self.open = self.open.saturating_sub(1);
        if usable {
            self.usable += 1;
            self.required -= usize::from(required);
        } else {
            self.broken |= required;
        }
        self.verdict()
    }

    /// What the results so far mean.
    pub fn verdict(&self) -> Verdict {
        if self.broken || self.usable + self.open < self.needed {
            Verdict::Unreachable
        } else if self.usable >= self.needed && self.required == 0 {
            Verdict::Reached
        } else {
            Verdict::Wait
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn quorum(needed: usize, members: usize, required: usize) -> Quorum {
        Quorum::new(NonZeroUsize::new(needed).unwrap(), members, required)
    }

    #[test]
    fn it_is_reached_with_the_last_needed_candidate() {
        let mut q = quorum(2, 3, 0);
        assert_eq!(q.observe(false, true), Verdict::Wait);
        assert_eq!(q.observe(false, false), Verdict::Wait);
        assert_eq!(q.observe(false, true), Verdict::Reached);
    }

    #[test]
    fn it_is_unreachable_with_the_first_failure_too_many() {
        let mut q = quorum(2, 3, 0);
        assert_eq!(q.observe(false, false), Verdict::Wait);
        assert_eq!(q.observe(false, false), Verdict::Unreachable);
    }

    #[test]
    fn a_required_member_is_waited_for_and_missed() {
        let mut q = quorum(1, 3, 1);
        assert_eq!(q.observe(false, true), Verdict::Wait);
        assert_eq!(q.clone().observe(true, true), Verdict::Reached);
        assert_eq!(q.observe(true, false), Verdict::Unreachable);
    }

    proptest! {
        /// A verdict other than Wait is final, every panel ends in one, and it says what was counted.
        #[test]
        fn verdicts_are_final_and_true(
            ends in proptest::collection::vec((any::<bool>(), any::<bool>()), 1..12),
            needed in 1..12usize,
        ) {
            let needed = needed.min(ends.len());
            let required = ends.iter().filter(|(r, _)| *r).count();
            let mut q = quorum(needed, ends.len(), required);
            let mut last = q.verdict();
            for (required, usable) in &ends {
                let next = q.observe(*required, *usable);
                prop_assert!(last == Verdict::Wait || next == last);
                last = next;
            }
            let met = ends.iter().filter(|(_, u)| *u).count() >= needed && ends.iter().all(|(r, u)| !r || *u);
            prop_assert_eq!(last, if met { Verdict::Reached } else { Verdict::Unreachable });
        }
    }
}
