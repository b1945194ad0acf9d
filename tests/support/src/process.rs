use std::path::Path;
use std::process::{Child, Command, ExitStatus};

/// A child that does not outlive its owner. It is killed by its handle and reaped, so no other process can be hit.
#[derive(Debug)]
pub(crate) struct Kept(pub(crate) Child);

impl Kept {
    /// `None` while it runs.
    pub(crate) fn exited(&mut self) -> Option<ExitStatus> {
        self.0.try_wait().expect("a child of ours can be waited for")
    }

    /// Sends a signal by name (`TERM`, `STOP`, …). The child is unreaped, so its id is still its own.
    pub(crate) fn signal(&mut self, name: &str) {
        if self.exited().is_some() {
            return;
        }
        let status = Command::new("kill")
            .args([&format!("-{name}"), &self.0.id().to_string()])
            .status()
            .expect("kill is everywhere");
        assert!(status.success(), "kill -{name} failed");
    }

    pub(crate) fn kill(&mut self) -> ExitStatus {
        let _ = self.0.kill(); // it may have ended by itself
        self.0.wait().expect("a child of ours can be waited for")
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The last `lines` of a log, for a failure's message.
pub(crate) fn tail(path: &Path, lines: usize) -> String {
    let text = std::fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let text = text.unwrap_or_else(|error| format!("({}: {error})", path.display()));
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}
