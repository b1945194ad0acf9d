//! No core dumps: they hold keys, prompts and answers.

use std::io;

use rustix::process::{Resource, Rlimit, setrlimit};

/// Sees to it that this process leaves no core dump, and that others of its user cannot read its memory.
///
/// # Errors
/// When the system refuses that.
pub(super) fn forbid() -> io::Result<()> {
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    // A handler that takes dumps by a pipe is asked whatever the limit is.
    #[cfg(target_os = "linux")]
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)?;
    Ok(())
}
