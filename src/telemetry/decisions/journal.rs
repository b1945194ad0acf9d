//! Keeps what goes on in a file, so that the next process can record what a killed one had asked of providers.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tracing::warn;

use self::pages::Pages;
use super::{Decision, Outcome, SinkError};
use crate::telemetry::Seldom;
use crate::telemetry::record::{KILLED, RUNNING, end_running};

/// How long the thread rests when the file took nothing.
const REST: Duration = Duration::from_millis(200);

/// Tells a thread of the runs that go on, which keeps a file of them. Of each run only the newest state waits: what
/// waits is bounded by the runs in flight, and no run is lost because others were told of.
#[derive(Clone, Debug)]
pub(super) struct Journal {
    news: Arc<Mutex<News>>,
    /// Without a sender the thread ends.
    bell: SyncSender<()>,
}

/// What a journal begins with.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) journal: Journal,
    pub(super) thread: JoinHandle<()>,
    /// What the process before had under way when it was killed, as records of it. The journal has them until they
    /// are told to be [`Over`].
    pub(super) killed: Vec<Decision>,
}

/// What the thread is to be told.
#[derive(Debug, Default)]
struct News {
    /// The newest state of each of these runs; none when it is over.
    waiting: HashMap<u64, Option<Arc<Decision>>>,
    /// The runs that the file may name.
    known: HashSet<u64>,
}

/// Tells the journal that a run is over, once nobody holds it any more: until its decision is written, the journal is
/// what is left of it.
#[derive(Debug)]
pub(super) struct Over {
    journal: Journal,
    run: u64,
}

impl Journal {
    /// Opens the journal at the path, and begins its thread.
    ///
    /// # Errors
    /// When another process keeps its journal there, or it cannot be written, or there can be no thread.
    pub(super) fn open(path: &Path) -> Result<Opened, SinkError> {
        let (pages, mut killed) = Pages::open(path)?;
        killed.iter_mut().for_each(end);
        let known = killed.iter().map(|decision| decision.run).collect();
        let news = Arc::new(Mutex::new(News { known, ..News::default() }));
        // One ring is enough, however much there is to be told.
        let (bell, rung) = sync_channel(1);
        let told = Arc::clone(&news);
        let thread = thread::Builder::new().name("journal".to_owned());
        let thread = thread.spawn(move || keep(pages, &told, &rung));
        let thread = thread.map_err(|source| SinkError::Journal { path: path.to_owned(), source })?;
        Ok(Opened { journal: Self { news, bell }, thread, killed })
    }

    /// Tells how far a run has come.
    pub(super) fn tell(&self, running: Arc<Decision>) {
        lock(&self.news).waiting.insert(running.run, Some(running));
        self.ring();
    }

    /// What is to be held while the decision of a run that has ended is not written yet.
    pub(super) fn over(&self, run: u64) -> Arc<Over> {
        Arc::new(Over { journal: self.clone(), run })
    }

    fn is_over(&self, run: u64) {
        let mut news = lock(&self.news);
        if news.known.contains(&run) {
            news.waiting.insert(run, None);
        } else {
            news.waiting.remove(&run);
        }
        drop(news);
        self.ring();
    }

    fn ring(&self) {
        // Where it rings already, the thread will come, and finds this too.
        let _ = self.bell.try_send(());
    }
}

impl News {
    fn take(&mut self) -> HashMap<u64, Option<Arc<Decision>>> {
        let taken = std::mem::take(&mut self.waiting);
        for (run, state) in &taken {
            if state.is_some() {
                self.known.insert(*run);
            } else {
                self.known.remove(run);
            }
        }
        taken
    }
}

impl Drop for Over {
    fn drop(&mut self) {
        self.journal.is_over(self.run);
    }
}

fn lock(news: &Mutex<News>) -> MutexGuard<'_, News> {
    news.lock().unwrap_or_else(PoisonError::into_inner)
}

fn keep(mut pages: Pages, news: &Mutex<News>, rung: &Receiver<()>) {
    let failures = Seldom::new();
    let mut is_last = false;
    while !is_last {
        is_last = rung.recv_timeout(Seldom::RHYTHM) == Err(RecvTimeoutError::Disconnected);
        let taken = lock(news).take();
        if let Err(error) = pages.write(taken) {
            if failures.is_due() {
                warn!(%error, "the journal could not be written; what goes on is tried again");
            }
            // More is put together meanwhile, and tried in one.
            thread::sleep(REST);
        }
    }
    if let Err(error) = pages.close() {
        warn!(%error, "the journal was not emptied");
    }
}

/// Gives an end to a run that was killed, as far as the journal knows it.
fn end(decision: &mut Decision) {
    decision.outcome = Outcome::Failed.into();
    KILLED.clone_into(&mut decision.error_code);
    let calls = decision.members.iter_mut().chain(&mut decision.judges);
    for attempt in calls.flat_map(|call| &mut call.tries).filter(|attempt| attempt.result == RUNNING) {
        KILLED.clone_into(&mut attempt.result);
    }
    let calls = decision.members.iter_mut().chain(&mut decision.judges);
    end_running(calls, KILLED, decision.total_ms);
}

mod pages;

#[cfg(test)]
mod tests;
