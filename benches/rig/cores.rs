//! Which cores a process runs on, and what CPU time and memory it has taken: all from the kernel.

use std::fs;
use std::io;

use rustix::thread::{CpuSet, Pid, sched_getaffinity, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};

use crate::Result;

/// Who runs where.
#[derive(Clone, Debug)]
pub struct Layout {
    /// Envoy's cores.
    pub envoy: Vec<usize>,
    /// The external processor's: Consort's, or the do-nothing one's.
    pub processor: Vec<usize>,
    /// The providers'.
    pub provider: Vec<usize>,
    /// The generator's, which is the rig's own.
    pub generator: Vec<usize>,
}

impl Layout {
    /// What passes through works Envoy hardest: of two cores it has one.
    pub fn for_passing() -> Self {
        Self::place([0, 1, 1, 1])
    }

    /// An ensemble works Consort hardest.
    pub fn for_ensembles() -> Self {
        Self::place([0, 1, 0, 0])
    }

    /// Where two or three cores are shared as `two` says: Envoy, processor, provider, generator. With more there is a
    /// core for each, with one there is no choice.
    fn place(two: [usize; 4]) -> Self {
        let cores = allowed();
        let [envoy, processor, provider, generator] =
            if cores.len() > 3 { [0, 1, 2, 3] } else { two }.map(|at| vec![cores[at % cores.len()]]);
        Self { envoy, processor, provider, generator }
    }
}

/// The cores that the rig may use, as they were when it began.
pub fn allowed() -> Vec<usize> {
    use std::sync::OnceLock;
    static ALLOWED: OnceLock<Vec<usize>> = OnceLock::new();
    let found = || {
        let set = sched_getaffinity(None).unwrap_or_default();
        (0..CpuSet::MAX_CPU).filter(|core| set.is_set(*core)).collect()
    };
    ALLOWED.get_or_init(found).clone()
}

/// Lets this thread, and whatever it starts from now on, run on these cores only.
pub fn pin_self(cores: &[usize]) {
    pin_thread(None, cores);
}

/// Lets all threads of a process run on these cores only.
pub fn pin(pid: u32, cores: &[usize]) -> Result<()> {
    for entry in fs::read_dir(format!("/proc/{pid}/task"))? {
        let thread = entry?.file_name().to_string_lossy().parse().ok().and_then(Pid::from_raw);
        pin_thread(thread, cores);
    }
    Ok(())
}

/// Where the kernel does not let us, it decides itself.
fn pin_thread(thread: Option<Pid>, cores: &[usize]) {
    let mut set = CpuSet::new();
    cores.iter().for_each(|core| set.set(*core));
    if let Err(error) = sched_setaffinity(thread, &set) {
        tracing::warn!(%error, "not pinned");
    }
}

/// The CPU time that the threads of a process have taken so far, in seconds.
pub fn cpu_seconds(pid: u32) -> Result<f64> {
    let mut nanoseconds = 0;
    for entry in fs::read_dir(format!("/proc/{pid}/task"))? {
        // A thread may end between the two.
        if let Ok(text) = fs::read_to_string(entry?.path().join("schedstat")) {
            nanoseconds += first_number(&text).unwrap_or(0);
        }
    }
    Ok(nanoseconds as f64 / 1e9)
}

/// The resident memory of a process in bytes: now, and at its peak since [`forget_peak`].
pub fn resident(pid: u32) -> Result<(u64, u64)> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let field = |name: &str| {
        let value = status.lines().find_map(|line| line.strip_prefix(name)).and_then(first_number);
        value.map(|kib| kib * 1024).ok_or_else(|| io::Error::other(format!("no {name} in /proc")))
    };
    Ok((field("VmRSS:")?, field("VmHWM:")?))
}

/// Begins anew with a process's peak.
pub fn forget_peak(pid: u32) -> Result<()> {
    Ok(fs::write(format!("/proc/{pid}/clear_refs"), "5")?)
}

/// Nanoseconds on a clock that all processes of the machine share.
pub fn now() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

fn first_number(text: &str) -> Option<u64> {
    text.split_whitespace().next()?.parse().ok()
}
