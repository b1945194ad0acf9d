//! Where decisions go once they are made, and who is told of runs that go on.

mod file;
mod journal;
mod ring;
mod watch;
mod writer;

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use self::file::Rotated;
use self::journal::{Journal, Opened};
use self::ring::Ring;
use self::watch::Watcher;
use self::writer::{Ended, Writer};
use super::decision::{Decision, Outcome};
use super::line;

pub use self::watch::{Told, Watch};

/// Takes the decision of every run, and hands it on to whoever wants it. Requests never wait for any of them. The
/// default hands on to nobody but the log.
#[derive(Clone, Debug, Default)]
pub struct Decisions(Option<Arc<Hub>>);

/// Where decisions go, besides the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sinks {
    /// A file of JSON lines.
    pub file: Option<DecisionFile>,
    /// A file of the runs that go on, which the next process reads.
    pub journal: Option<PathBuf>,
    /// Whether they go to standard output, as JSON lines.
    pub stdout: bool,
    /// How many of the newest are kept in memory for those who ask.
    pub ring: usize,
    /// How much memory these may take, in bytes of their encoded form.
    pub ring_bytes: usize,
    /// How much of each text is kept, in bytes; none keeps no texts.
    pub max_content_bytes: Option<usize>,
}

impl Default for Sinks {
    /// Nowhere.
    fn default() -> Self {
        Self {
            file: None,
            journal: None,
            stdout: false,
            ring: 0,
            ring_bytes: usize::MAX,
            max_content_bytes: None,
        }
    }
}

/// A file of JSON lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecisionFile {
    /// Where it is.
    pub path: PathBuf,
    /// Past how many bytes it is renamed, and a new one is begun; none leaves that to others.
    pub max_bytes: Option<u64>,
}

/// A sink that cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// The file cannot be written.
    #[error("cannot write decisions to {}", path.display())]
    File {
        /// As configured.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Nothing can be written to standard output.
    #[error("cannot write decisions to standard output")]
    Stdout(#[source] io::Error),
    /// The journal cannot be read or written.
    #[error("decisions.journal: cannot keep a journal in {}", path.display())]
    Journal {
        /// As configured.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another process keeps its journal in the same file.
    #[error("decisions.journal: another process keeps its journal in {}; each needs its own", path.display())]
    JournalTaken {
        /// As configured.
        path: PathBuf,
    },
}

/// Which decisions are wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Those of this alias.
    pub alias: Option<String>,
    /// Those that ended like this.
    pub outcome: Option<Outcome>,
    /// Those of runs that go on. Where an outcome is wanted, these are not: they have none.
    pub running: bool,
}

#[derive(Debug)]
struct Hub {
    max_content_bytes: Option<usize>,
    is_journaled: bool,
    runs: AtomicU64,
    /// How many watchers want to know of runs that go on.
    followers: AtomicUsize,
    kept: Mutex<Kept>,
}

/// What is behind one lock, so that a decision is in the same place for everybody.
#[derive(Debug)]
struct Kept {
    ring: Ring,
    watchers: Vec<Arc<Watcher>>,
    /// That of the file is the first.
    writers: Vec<Writer>,
    journal: Option<(Journal, JoinHandle<()>)>,
    is_closed: bool,
}

impl Decisions {
    /// Opens these sinks. What a process before has left in the journal goes to them at once.
    ///
    /// # Errors
    /// When a file cannot be written, or no thread can be begun, or another process has the journal.
    pub fn open(sinks: &Sinks) -> Result<Self, SinkError> {
        let mut writers = Vec::new();
        if let Some(file) = &sinks.file {
            let because = |source| SinkError::File { path: file.path.clone(), source };
            let mut file = Rotated::open(file).map_err(because)?;
            let writer = Writer::begin("decisions-file", move |lines| file.write(lines));
            writers.push(writer.map_err(because)?);
        }
        if sinks.stdout {
            let write = |lines: &[u8]| io::Write::write_all(&mut io::stdout().lock(), lines);
            writers.push(Writer::begin("decisions-stdout", write).map_err(SinkError::Stdout)?);
        }
        let opened = sinks.journal.as_deref().map(Journal::open).transpose()?;
        let (journal, killed) = match opened {
            Some(Opened { journal, thread, killed }) => (Some((journal, thread)), killed),
            None => (None, Vec::new()),
        };
        // Processes that follow each other count on, which a watcher of both relies on.
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let first = u64::try_from(since_1970.as_micros()).unwrap_or(0);
        let kept = Kept {
            ring: Ring::new(sinks.ring, sinks.ring_bytes, first),
            watchers: Vec::new(),
            writers,
            journal,
            is_closed: false,
        };
        let hub = Hub {
            max_content_bytes: sinks.max_content_bytes,
            is_journaled: sinks.journal.is_some(),
            runs: AtomicU64::new(killed.len() as u64),
            followers: AtomicUsize::new(0),
            kept: Mutex::new(kept),
        };
        for decision in killed {
            // Nobody is served yet who would have to wait, and these are all that is known of what they cost.
            hub.take(decision, Writer::wait_and_take);
        }
        Ok(Self(Some(Arc::new(hub))))
    }

    /// The newest `limit` of those kept that are wanted and ended after the one with this sequence, oldest first.
    pub fn recent(&self, wanted: &Wanted, since: u64, limit: usize) -> Vec<Arc<Decision>> {
        let Some(hub) = &self.0 else {
            return Vec::new();
        };
        let kept = hub.kept();
        let newest = kept.ring.since(since).rev().filter(|d| wanted.wants(d)).take(limit);
        let mut recent: Vec<_> = newest.cloned().collect();
        recent.reverse();
        recent
    }

    /// Tells of what is wanted: first of what is kept and ended after the one with the sequence `since`, where that
    /// is given, then of what happens from now on.
    pub fn watch(&self, mut wanted: Wanted, since: Option<u64>) -> Watch {
        let Some(hub) = &self.0 else {
            return Watch::over();
        };
        let mut kept = hub.kept();
        let earlier = since.into_iter().flat_map(|since| kept.ring.since(since));
        let earlier = earlier.filter(|d| wanted.wants(d)).cloned().collect();
        let missed = since.map_or(0, |since| kept.ring.lost_since(since));
        wanted.running &= wanted.outcome.is_none();
        let is_following = wanted.running;
        let watcher = Arc::new(Watcher::new(wanted, earlier, missed));
        if kept.is_closed {
            watcher.close();
            // It is none of those that are counted.
            return Watch::new(watcher, Weak::new());
        }
        kept.watchers.push(Arc::clone(&watcher));
        hub.followers.fetch_add(usize::from(is_following), Ordering::Relaxed);
        drop(kept);
        Watch::new(watcher, Arc::downgrade(hub))
    }

    /// Ends all watches, and writes what is still to be written; gives up after this time. What is decided later
    /// goes to the log alone.
    pub async fn close(&self, limit: Duration) {
        let Some(hub) = &self.0 else {
            return;
        };
        let (writers, journal) = {
            let mut kept = hub.kept();
            kept.is_closed = true;
            kept.watchers.drain(..).for_each(|watcher| watcher.close());
            (std::mem::take(&mut kept.writers), kept.journal.take())
        };
        let until = tokio::time::Instant::now() + limit;
        // All of them are told before one is waited for. The journal's thread ends when no writer needs it any more.
        let mut endings: Vec<_> = writers.into_iter().map(Writer::end).collect();
        endings.extend(journal.map(|(_, thread)| thread));
        for ending in endings {
            while !ending.is_finished() && tokio::time::Instant::now() < until {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    }

    /// How much of each text is kept, in bytes; none when no texts are.
    pub(super) fn max_content_bytes(&self) -> Option<usize> {
        self.0.as_ref()?.max_content_bytes
    }

    /// A number for a new run.
    pub(super) fn next_run(&self) -> u64 {
        self.0.as_ref().map_or(0, |hub| hub.runs.fetch_add(1, Ordering::Relaxed) + 1)
    }

    /// Whether anybody wants to know of runs that go on, a journal included.
    pub(super) fn are_followed(&self) -> bool {
        self.0.as_ref().is_some_and(|hub| hub.is_journaled || hub.followers.load(Ordering::Relaxed) > 0)
    }

    /// Tells how far a run has come.
    pub(super) fn tell(&self, running: Decision) {
        if let Some(hub) = &self.0 {
            let running = Arc::new(running);
            let kept = hub.kept();
            kept.watchers.iter().for_each(|watcher| watcher.tell(&running));
            if let Some((journal, _)) = &kept.journal {
                journal.tell(running);
            }
        }
    }

    /// Takes the decision of a run that has ended.
    pub(super) fn take(&self, decision: Decision) {
        match &self.0 {
            Some(hub) => hub.take(decision, Writer::take),
            None => line::write(&decision),
        }
    }
}

impl Hub {
    /// Takes a decision, and gives it to the writers like this.
    fn take(&self, mut decision: Decision, give: impl Fn(&Writer, &Ended)) {
        line::write(&decision);
        let mut kept = self.kept();
        decision.sequence = kept.ring.next();
        let over = kept.journal.as_ref().map(|(journal, _)| journal.over(decision.run));
        let mut ended = Ended { decision: Arc::new(decision), over };
        kept.watchers.iter().for_each(|watcher| watcher.tell(&ended.decision));
        for writer in &kept.writers {
            give(writer, &ended);
            // One record is enough: where standard output is stuck, the file still has the run.
            ended.over = None;
        }
        kept.ring.push(ended.decision);
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A watcher has left.
    fn left(&self, watcher: &Arc<Watcher>) {
        let mut kept = self.kept();
        kept.watchers.retain(|other| !Arc::ptr_eq(other, watcher));
        self.followers.fetch_sub(usize::from(watcher.wanted.running), Ordering::Relaxed);
    }
}

impl Wanted {
    fn wants(&self, decision: &Decision) -> bool {
        let is_of_alias = self.alias.as_ref().is_none_or(|alias| *alias == decision.alias);
        is_of_alias
            && match decision.outcome() {
                Outcome::Running => self.running,
                outcome => self.outcome.is_none_or(|wanted| wanted == outcome),
            }
    }
}

#[cfg(test)]
mod tests;
