//! The newest decisions.

use std::collections::VecDeque;
use std::sync::Arc;

use super::Decision;

/// The newest decisions, as many as are to be kept, and the count of all.
#[derive(Debug)]
pub(super) struct Ring {
    size: usize,
    kept: VecDeque<Arc<Decision>>,
    /// The sequence before the first one of this process.
    first: u64,
    last: u64,
}

impl Ring {
    /// An empty ring of this size; the sequences that it gives out are greater than `first`.
    pub(super) fn new(size: usize, first: u64) -> Self {
        Self { size, kept: VecDeque::new(), first, last: first }
    }

    /// The next sequence.
    pub(super) fn next(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    /// Keeps a decision, in the place of the oldest one where there is no other.
    pub(super) fn push(&mut self, decision: Arc<Decision>) {
        if self.size == 0 {
            return;
        }
        if self.kept.len() == self.size {
            self.kept.pop_front();
        }
        self.kept.push_back(decision);
    }

    /// The kept ones after this one, oldest first.
    pub(super) fn since(&self, sequence: u64) -> impl DoubleEndedIterator<Item = &Arc<Decision>> {
        let at = self.kept.partition_point(|decision| decision.sequence <= sequence);
        self.kept.range(at..)
    }

    /// How many after this one, of this process, are not kept any more.
    pub(super) fn lost_since(&self, sequence: u64) -> u64 {
        let last_lost = self.kept.front().map_or(self.last, |oldest| oldest.sequence - 1);
        last_lost.saturating_sub(sequence.max(self.first))
    }
}
