//! Files that change.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::{Event, RecommendedWatcher, RecursiveMode, Watcher};
use sha2::{Digest, Sha256};
use tokio::sync::Notify;
use tokio::time::Instant;
use tracing::warn;

/// A change is over when nothing has moved for this long: editors and kubelets take several steps.
const QUIET: Duration = Duration::from_millis(50);
/// A directory that never rests is looked at this often.
const LONGEST: Duration = Duration::from_secs(1);

/// Looks at the directories of files. Not at the files: what replaces one is another file, and a mounted ConfigMap
/// changes by a link beside them.
pub(super) struct Watch {
    watcher: Option<RecommendedWatcher>,
    moved: Arc<Notify>,
    unseen: BTreeSet<PathBuf>,
}

impl Watch {
    /// Looks at nothing yet.
    pub(super) fn new() -> Self {
        let moved = Arc::new(Notify::new());
        let tell = Arc::clone(&moved);
        // Our own reading is an event, too. One that is lost may have been anything.
        let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            if event.is_ok_and(|event| event.kind.is_access()) {
                return;
            }
            tell.notify_one();
        });
        let watcher = watcher.map_err(|error| {
            warn!(%error, "files cannot be watched: a change of the configuration takes a SIGHUP");
        });
        Self { watcher: watcher.ok(), moved, unseen: BTreeSet::new() }
    }

    /// Looks at these files too. A directory may have been replaced meanwhile, so that each is looked at anew.
    pub(super) fn look_at<'a>(&mut self, files: impl IntoIterator<Item = &'a Path>) {
        let Some(watcher) = &mut self.watcher else {
            return;
        };
        let directories: BTreeSet<PathBuf> = files.into_iter().flat_map(directories).collect();
        for directory in directories {
            match watcher.watch(&directory, RecursiveMode::NonRecursive) {
                Ok(()) => _ = self.unseen.remove(&directory),
                Err(error) if self.unseen.insert(directory.clone()) => {
                    warn!(directory = %directory.display(), %error, "cannot be watched: a change there takes a SIGHUP");
                }
                Err(_) => {}
            }
        }
    }

    /// Waits until something has changed, and is at rest.
    pub(super) async fn settled(&self) {
        self.moved.notified().await;
        let latest = Instant::now() + LONGEST;
        while Instant::now() < latest {
            let quiet = (Instant::now() + QUIET).min(latest);
            if tokio::time::timeout_at(quiet, self.moved.notified()).await.is_err() {
                return;
            }
        }
    }
}

/// Where a change of what `file` holds would show: beside it, beside what it links to, and beside every directory on
/// the way that is a link. For a directory that is not there, where the way to it ends.
fn directories(file: &Path) -> Vec<PathBuf> {
    let file = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
    let target = fs::canonicalize(&file).ok();
    let links = file.ancestors().filter(|path| path.is_symlink());
    let places = links.chain([&*file]).chain(target.as_deref());
    let there = |path: &Path| path.ancestors().skip(1).find(|dir| dir.is_dir()).map(Path::to_owned);
    places.filter_map(there).collect()
}

/// What files hold, in short. One that cannot be read holds nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fingerprint(BTreeMap<PathBuf, Option<[u8; 32]>>);

impl Fingerprint {
    /// Reads the files.
    pub(super) fn of(files: impl IntoIterator<Item = PathBuf>) -> Self {
        let read = |file: &PathBuf| fs::read(file).ok().map(|bytes| Sha256::digest(bytes).into());
        Self(files.into_iter().map(|file| (read(&file), file)).map(|(digest, file)| (file, digest)).collect())
    }

    /// Reads the same files again.
    pub(super) fn again(&self) -> Self {
        Self::of(self.0.keys().cloned())
    }

    /// The files.
    pub(super) fn files(&self) -> impl Iterator<Item = &Path> {
        self.0.keys().map(PathBuf::as_path)
    }

    /// Whether it is of this file too.
    pub(super) fn knows(&self, file: &Path) -> bool {
        self.0.contains_key(file)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn every_directory_is_looked_at_in_which_a_link_may_be_replaced() {
        let root = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(root.path()).unwrap();
        fs::create_dir_all(root.join("v1/conf")).unwrap();
        fs::create_dir_all(root.join("shared")).unwrap();
        fs::write(root.join("shared/consort.yaml"), "").unwrap();
        symlink(root.join("shared/consort.yaml"), root.join("v1/conf/consort.yaml")).unwrap();
        symlink("v1", root.join("current")).unwrap();
        let seen: BTreeSet<PathBuf> =
            directories(&root.join("current/conf/consort.yaml")).into_iter().collect();
        let expected = [root.clone(), root.join("current/conf"), root.join("shared")];
        assert!(expected.iter().all(|directory| seen.contains(directory)), "{seen:?}");
    }
}
