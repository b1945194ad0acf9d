//! Writes decisions as JSON lines, on a thread of its own: disks and pipes may be slow, and requests never wait.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};

use tracing::warn;

use super::Decision;
use super::journal::Over;
use crate::telemetry::{Seldom, metrics};

/// How many decisions may wait to be written.
const MOST_WAITING: usize = 1024;
/// How many bytes are written at once, about.
const BATCH: usize = 64 << 10;

/// A thread that writes, and the queue in front of it.
#[derive(Debug)]
pub(super) struct Writer {
    queue: SyncSender<Ended>,
    losses: Arc<Losses>,
    thread: JoinHandle<()>,
}

/// The decision of a run that has ended.
#[derive(Clone, Debug)]
pub(super) struct Ended {
    pub(super) decision: Arc<Decision>,
    /// Held until the decision is written, where there is a journal, by the writer that it goes to first.
    pub(super) over: Option<Arc<Over>>,
}

impl Writer {
    /// Begins a thread that writes lines by `write`.
    ///
    /// # Errors
    /// When there can be no thread.
    pub(super) fn begin(
        sink: &'static str,
        mut write: impl FnMut(&[u8]) -> io::Result<()> + Send + 'static,
    ) -> io::Result<Self> {
        let (queue, waiting) = sync_channel(MOST_WAITING);
        let losses = Arc::new(Losses { sink, lost: AtomicU64::new(0), told: Seldom::new() });
        let known = Arc::clone(&losses);
        let thread = thread::Builder::new().name(sink.to_owned());
        let thread = thread.spawn(move || write_all(&waiting, &mut write, &known))?;
        Ok(Self { queue, losses, thread })
    }

    /// Has a decision written, unless too many wait already.
    pub(super) fn take(&self, ended: &Ended) {
        if self.queue.try_send(ended.clone()).is_err() {
            self.losses.add(1, "too slow");
        }
    }

    /// Has a decision written; waits while too many wait already.
    pub(super) fn wait_and_take(&self, ended: &Ended) {
        // The thread lasts as long as the queue.
        let _ = self.queue.send(ended.clone());
    }

    #[cfg(test)]
    pub(super) fn lost(&self) -> u64 {
        self.losses.lost.load(Ordering::Relaxed)
    }

    /// Lets the thread write what waits, and end.
    pub(super) fn end(self) -> JoinHandle<()> {
        self.thread
    }
}

fn write_all(waiting: &Receiver<Ended>, write: &mut impl FnMut(&[u8]) -> io::Result<()>, losses: &Losses) {
    let (mut lines, mut over) = (Vec::new(), Vec::new());
    loop {
        let first = match waiting.recv_timeout(Seldom::RHYTHM) {
            Ok(ended) => ended,
            Err(RecvTimeoutError::Timeout) => {
                losses.tell("earlier");
                continue;
            }
            Err(RecvTimeoutError::Disconnected) => break,
        };
        lines.clear();
        let mut count = 0;
        let mut next = Some(first);
        while let Some(ended) = next {
            // A decision is always JSON.
            if serde_json::to_writer(&mut lines, &*ended.decision).is_ok() {
                lines.push(b'\n');
                count += 1;
            }
            over.extend(ended.over);
            next = if lines.len() < BATCH { waiting.try_recv().ok() } else { None };
        }
        if let Err(error) = write(&lines) {
            losses.add(count, &error.to_string());
        }
        over.clear();
    }
    losses.tell_all("earlier");
}

/// Decisions that were not written.
#[derive(Debug)]
struct Losses {
    sink: &'static str,
    /// Those not told yet.
    lost: AtomicU64,
    told: Seldom,
}

impl Losses {
    fn add(&self, count: u64, cause: &str) {
        self.lost.fetch_add(count, Ordering::Relaxed);
        metrics::decisions_lost().increment(count);
        self.tell(cause);
    }

    /// Tells of what was lost, seldom.
    fn tell(&self, cause: &str) {
        if self.lost.load(Ordering::Relaxed) > 0 && self.told.is_due() {
            self.tell_all(cause);
        }
    }

    fn tell_all(&self, cause: &str) {
        let lost = self.lost.swap(0, Ordering::Relaxed);
        if lost > 0 {
            warn!(lost, sink = self.sink, cause, "decisions were not written");
        }
    }
}
