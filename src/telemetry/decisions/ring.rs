//! The newest decisions.

use std::collections::VecDeque;
use std::sync::Arc;

use prost::Message as _;

use super::Decision;

/// The newest decisions, as many as are to be kept and find room, and the count of all.
#[derive(Debug)]
pub(super) struct Ring {
    size: usize,
    max_bytes: usize,
    /// What the kept ones take, by their encoded sizes.
    bytes: usize,
    kept: VecDeque<Arc<Decision>>,
    /// The sequence before the first one of this process.
    first: u64,
    last: u64,
}

impl Ring {
    /// An empty ring of this size, in decisions and in bytes; the sequences that it gives out are greater than `first`.
    pub(super) fn new(size: usize, max_bytes: usize, first: u64) -> Self {
        Self { size, max_bytes, bytes: 0, kept: VecDeque::new(), first, last: first }
    }

    /// The next sequence.
    pub(super) fn next(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    /// Keeps a decision, in the place of the oldest ones where there is no other.
    pub(super) fn push(&mut self, decision: Arc<Decision>) {
        if self.size == 0 {
            return;
        }
        self.bytes += decision.encoded_len();
        self.kept.push_back(decision);
        while self.kept.len() > self.size || self.bytes > self.max_bytes {
            let Some(oldest) = self.kept.pop_front() else { break };
            self.bytes -= oldest.encoded_len();
        }
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
