//! A file of lines that others may rename at any time.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::DecisionFile;

/// A file that is appended to. When it was renamed or removed, the next lines begin a new one.
#[derive(Debug)]
pub(super) struct Rotated {
    path: PathBuf,
    max_bytes: Option<u64>,
    file: Option<File>,
    /// Whether the last line may have no end.
    is_torn: bool,
}

impl Rotated {
    /// Opens the file.
    ///
    /// # Errors
    /// When it cannot be.
    pub(super) fn open(file: &DecisionFile) -> io::Result<Self> {
        let DecisionFile { path, max_bytes } = file.clone();
        let file = Some(append_to(&path)?);
        Ok(Self { path, max_bytes, file, is_torn: false })
    }

    /// Appends whole lines.
    ///
    /// # Errors
    /// When they could not be written, or not all of them. The next ones are tried anew.
    pub(super) fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        let mut file = self.current(lines.len() as u64)?;
        if self.is_torn {
            file.write_all(b"\n")?;
            self.is_torn = false;
        }
        if let Err(error) = file.write_all(lines) {
            self.is_torn = true;
            return Err(error);
        }
        self.file = Some(file);
        Ok(())
    }

    /// The file at the path, with room for so many bytes; it is given back when it could be written to.
    fn current(&mut self, room: u64) -> io::Result<File> {
        let Some(file) = self.file.take().filter(|file| is_at(&self.path, file)) else {
            return append_to(&self.path);
        };
        let size = file.metadata()?.len();
        if size > 0 && self.max_bytes.is_some_and(|most| size.saturating_add(room) > most) {
            let mut older = self.path.clone().into_os_string();
            older.push(".1");
            fs::rename(&self.path, older)?;
            return append_to(&self.path);
        }
        Ok(file)
    }
}

/// Opens a file to append to, and to read.
pub(super) fn append_to(path: &Path) -> io::Result<File> {
    // They may hold what callers wrote.
    OpenOptions::new().read(true).append(true).create(true).mode(0o640).open(path)
}

/// Whether the path still leads to this file.
pub(super) fn is_at(path: &Path, file: &File) -> bool {
    let (Ok(there), Ok(ours)) = (fs::metadata(path), file.metadata()) else {
        return false;
    };
    (there.dev(), there.ino()) == (ours.dev(), ours.ino())
}
