//! Those who watch runs: each has a queue of its own, and a slow one loses what is oldest.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::Notify;

use super::{Decision, Hub, Outcome, Wanted};

/// How many records a watcher may be behind.
const MOST_WAITING: usize = 1024;

/// Tells of runs as they go on and end. Dropping it ends the watch.
#[derive(Debug)]
pub struct Watch {
    watcher: Arc<Watcher>,
    hub: Weak<Hub>,
}

/// What a watcher is told.
#[derive(Clone, Debug, PartialEq)]
pub enum Told {
    /// A run that has ended, or how far it has come.
    Decision(Arc<Decision>),
    /// So many decisions, at most, will not be told.
    Missed(u64),
}

#[derive(Debug)]
pub(super) struct Watcher {
    pub(super) wanted: Wanted,
    most_waiting: usize,
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Arc<Decision>>,
    missed: u64,
    is_over: bool,
}

impl Watch {
    pub(super) fn new(watcher: Arc<Watcher>, hub: Weak<Hub>) -> Self {
        Self { watcher, hub }
    }

    /// A watch of nothing.
    pub(super) fn over() -> Self {
        let watcher = Watcher::new(Wanted::default(), VecDeque::new(), 0);
        watcher.close();
        Self::new(Arc::new(watcher), Weak::new())
    }

    /// What is told next; none when the process ends. Dropped before its end, this has taken nothing.
    pub async fn next(&mut self) -> Option<Told> {
        loop {
            {
                let mut state = self.watcher.state();
                if state.missed > 0 {
                    return Some(Told::Missed(std::mem::take(&mut state.missed)));
                }
                if let Some(decision) = state.waiting.pop_front() {
                    return Some(Told::Decision(decision));
                }
                if state.is_over {
                    return None;
                }
            }
            self.watcher.changed.notified().await;
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if let Some(hub) = self.hub.upgrade() {
            hub.left(&self.watcher);
        }
    }
}

impl Watcher {
    /// Somebody who is told of these earlier decisions first, and that so many are not there any more.
    pub(super) fn new(wanted: Wanted, earlier: VecDeque<Arc<Decision>>, missed: u64) -> Self {
        let most_waiting = earlier.len() + MOST_WAITING;
        let state = State { waiting: earlier, missed, is_over: false };
        Self { wanted, most_waiting, state: Mutex::new(state), changed: Notify::new() }
    }

    /// Tells of a run, where it is wanted. The newest state of a run is the only one worth knowing.
    pub(super) fn tell(&self, decision: &Arc<Decision>) {
        if !self.wanted.wants(decision) {
            return;
        }
        let mut state = self.state();
        if self.wanted.running {
            state.waiting.retain(|other| other.run != decision.run || other.outcome() != Outcome::Running);
        }
        if state.waiting.len() >= self.most_waiting {
            state.waiting.pop_front();
            state.missed += 1;
        }
        state.waiting.push_back(Arc::clone(decision));
        drop(state);
        self.changed.notify_one();
    }

    /// There is nothing more to tell.
    pub(super) fn close(&self) {
        self.state().is_over = true;
        self.changed.notify_one();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
