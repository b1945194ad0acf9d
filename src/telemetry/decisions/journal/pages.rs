//! The journal's file: one JSON object a line, a run's newest state or its end.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::fs::{self, File, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tracing::warn;

use super::super::file::{append_to, is_at};
use super::super::{Decision, SinkError};

/// Past how many bytes the file is written anew, with nothing in it but what goes on.
const MOST: u64 = 8 << 20;
/// Past how many bytes it is emptied when nothing goes on.
const LITTLE: u64 = 64 << 10;

/// A file of the runs that go on. It is locked as long as this is held: nobody else writes it.
#[derive(Debug)]
pub(super) struct Pages {
    path: PathBuf,
    file: File,
    size: u64,
    /// Past which size it is written anew: where much goes on, that is not done for every line.
    most: u64,
    /// The newest line of each run that goes on.
    running: BTreeMap<u64, Vec<u8>>,
    /// Whether the file does not say what it should.
    is_torn: bool,
}

/// Nothing else is in it: a decision has a `run`, too, and must not be read as the end of one.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    run: u64,
    /// How far it has come; none when it is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    running: Option<Decision>,
}

impl Pages {
    /// Opens the file at the path. What it says to go on was another process's: it is returned, and kept, as the runs
    /// 1, 2, 3, ….
    ///
    /// # Errors
    /// When another process holds it, or it cannot be read and written, or it is no journal's: that is left as it is.
    pub(super) fn open(path: &Path) -> Result<(Self, Vec<Decision>), SinkError> {
        let because = |source| SinkError::Journal { path: path.to_owned(), source };
        let mut file = append_to(path).map_err(because)?;
        if !file.metadata().map_err(because)?.is_file() {
            return Err(because(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file")));
        }
        match file.try_lock() {
            // Another process may have written its own anew between our opening and locking.
            Ok(()) if is_at(path, &file) => {}
            Ok(()) | Err(TryLockError::WouldBlock) => {
                return Err(SinkError::JournalTaken { path: path.to_owned() });
            }
            Err(TryLockError::Error(source)) => return Err(because(source)),
        }
        let mut written = Vec::new();
        file.read_to_end(&mut written).map_err(because)?;
        let Left { runs: mut left, read, unread } = left(&written);
        if unread > 0 && read == 0 {
            let none = "it is another file: none of its lines is a journal's";
            return Err(because(io::Error::new(io::ErrorKind::InvalidData, none)));
        }
        if unread > 0 {
            warn!(path = %path.display(), lines = unread, "the journal has lines that cannot be read");
        }
        left.iter_mut().zip(1..).for_each(|(decision, run)| decision.run = run);
        let running = left.iter().map(|decision| (decision.run, line(decision.run, Some(decision.clone()))));
        let running = running.collect();
        let mut pages = Self { path: path.to_owned(), file, size: 0, most: MOST, running, is_torn: true };
        match pages.write_anew() {
            // It is tried again with what follows; the old file says the same until then.
            Err(error)
                if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => {}
            tried => tried.map_err(because)?,
        }
        Ok((pages, left))
    }

    /// Writes the newest states of these runs.
    ///
    /// # Errors
    /// When they could not be written. The next time, everything is.
    pub(super) fn write(&mut self, news: HashMap<u64, Option<Arc<Decision>>>) -> io::Result<()> {
        let mut lines = Vec::new();
        for (run, state) in news {
            let state = state.map(|running| Arc::unwrap_or_clone(running).without_texts());
            let goes_on = state.is_some();
            let line = line(run, state);
            lines.extend_from_slice(&line);
            if goes_on {
                self.running.insert(run, line);
            } else {
                self.running.remove(&run);
            }
        }
        if !is_at(&self.path, &self.file) {
            // It was removed or moved. Whoever has begun another one there since then keeps it.
            self.is_torn = true;
            let file = append_to(&self.path)?;
            file.try_lock()?;
            self.file = file;
        }
        let size = self.size + lines.len() as u64;
        if self.running.is_empty() && (self.is_torn || size > LITTLE) {
            self.empty()
        } else if self.is_torn || size > self.most {
            self.write_anew()
        } else {
            self.size = size;
            self.file.write_all(&lines).inspect_err(|_| self.is_torn = true)
        }
    }

    /// Empties the file, where nothing goes on.
    ///
    /// # Errors
    /// When it cannot be.
    pub(super) fn close(mut self) -> io::Result<()> {
        if self.running.is_empty() { self.empty() } else { Ok(()) }
    }

    fn empty(&mut self) -> io::Result<()> {
        self.is_torn = true;
        self.file.set_len(0)?;
        (self.size, self.most, self.is_torn) = (0, MOST, false);
        Ok(())
    }

    /// Writes the file beside and moves it here: at every moment there is one that says what goes on, and that is
    /// locked.
    fn write_anew(&mut self) -> io::Result<()> {
        // Until it is done.
        self.is_torn = true;
        let mut beside = OsString::from(&self.path);
        beside.push(".new");
        let mut file = append_to(Path::new(&beside))?;
        file.try_lock()?;
        let lines = self.running.values().map(Vec::as_slice).collect::<Vec<_>>().concat();
        // What it has was left by a process that was killed right here.
        let written = file.set_len(0).and_then(|()| file.write_all(&lines));
        if let Err(error) = written.and_then(|()| fs::rename(&beside, &self.path)) {
            // Half of it would take the room that there is too little of.
            let _ = fs::remove_file(&beside);
            return Err(error);
        }
        self.file = file;
        self.size = lines.len() as u64;
        self.most = MOST.max(2 * self.size);
        self.is_torn = false;
        Ok(())
    }
}

fn line(run: u64, running: Option<Decision>) -> Vec<u8> {
    // A decision is always JSON.
    let mut line = serde_json::to_vec(&Line { run, running }).unwrap_or_default();
    line.push(b'\n');
    line
}

/// What lines say.
#[derive(Default)]
struct Left {
    /// The runs that go on.
    runs: Vec<Decision>,
    /// How many lines are a journal's, and how many are not.
    read: usize,
    unread: usize,
}

/// A last line without an end was being written when the process was killed; its run stands as the line before says.
fn left(written: &[u8]) -> Left {
    let (mut left, mut running) = (Left::default(), BTreeMap::new());
    for line in written.split_inclusive(|byte| *byte == b'\n') {
        match serde_json::from_slice(line) {
            Ok(Line { run, running: state }) => {
                left.read += 1;
                match state {
                    Some(decision) => running.insert(run, decision),
                    None => running.remove(&run),
                };
            }
            Err(_) => left.unread += usize::from(line.ends_with(b"\n")),
        }
    }
    left.runs = running.into_values().collect();
    left
}
