//! The real `consort` program, with its logs at hand.

use std::io::{BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::process::{Kept, tail};

const NO_PORT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// A running `consort serve`; dropping it kills it.
#[derive(Debug)]
pub struct Service {
    child: Mutex<Kept>,
    addr: SocketAddr,
    admin: SocketAddr,
    http: Option<SocketAddr>,
    logs: Arc<Mutex<Vec<Value>>>,
    dir: TempDir,
}

impl Service {
    /// Runs `binary serve -c FILE` and waits until it listens.
    ///
    /// `binary` is `env!("CARGO_BIN_EXE_consort")`, which only the program's own tests can name. The configuration
    /// should listen on `127.0.0.1:0`: the port is read from the first JSON log line on stdout whose
    /// `fields.message` is `listening`, at `fields.addr`. Operators' listener, at `fields.admin`, gets a port of its
    /// own too, unless the configuration says something of `admin:`.
    pub async fn start(binary: impl AsRef<Path>, config_yaml: &str) -> Self {
        Self::start_with(binary, config_yaml, |_| {}).await
    }

    /// As [`Service::start`], with a hand on the command: for arguments and environment.
    pub async fn start_with(
        binary: impl AsRef<Path>,
        config_yaml: &str,
        adjust: impl FnOnce(&mut Command),
    ) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let config = dir.path().join("consort.yaml");
        std::fs::write(&config, config_yaml).expect("the configuration is written");
        let errors = std::fs::File::create(dir.path().join("stderr")).expect("a file for stderr");
        let mut command = Command::new(binary.as_ref());
        command.arg("serve").arg("-c").arg(&config);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(errors);
        // Debug builds are late, and a crowd of them beside one another is later: whose matter that is says so.
        if !config_yaml.contains("max_lateness_ms") {
            command.env("CONSORT__LIMITS__MAX_LATENESS_MS", "0");
        }
        if !config_yaml.contains("admin:") {
            command.env("CONSORT__LISTEN__ADMIN", "127.0.0.1:0");
        }
        adjust(&mut command);
        let child = command.spawn();
        let mut child = child.unwrap_or_else(|error| panic!("{}: {error}", binary.as_ref().display()));
        let stdout = child.stdout.take().expect("stdout was piped");
        let logs = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&logs);
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let entry = serde_json::from_str(&line).unwrap_or_else(|_| json!({"raw": line}));
                sink.lock().unwrap_or_else(PoisonError::into_inner).push(entry);
            }
        });
        let child = Mutex::new(Kept(child));
        let mut service = Self { child, addr: NO_PORT, admin: NO_PORT, http: None, logs, dir };
        (service.addr, service.admin, service.http) =
            crate::eventually("consort to listen", Duration::from_secs(15), async || {
                service.assert_running();
                service.logs().iter().find_map(listening)
            })
            .await;
        service
    }

    /// Where its ext_proc door listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Where operators ask it; port 0 where it does not listen for them.
    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// Where its plain HTTP door listens; panics when the configuration opens none.
    pub fn http(&self) -> SocketAddr {
        self.http.expect("the configuration says `listen.http`")
    }

    /// The configuration's file, for tests that change it under the running program.
    pub fn config_path(&self) -> PathBuf {
        self.dir.path().join("consort.yaml")
    }

    /// What it has logged, line by line; a line that is not JSON is `{"raw": …}`.
    pub fn logs(&self) -> Vec<Value> {
        self.logs.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What it has written to stderr.
    pub fn stderr(&self) -> String {
        tail(&self.dir.path().join("stderr"), usize::MAX)
    }

    /// Waits, at most 10 s, for a log line.
    pub async fn wait_for_log(&self, matches: impl Fn(&Value) -> bool) -> Value {
        crate::eventually("a line in consort's log", Duration::from_secs(10), async || {
            self.logs().into_iter().find(|line| matches(line))
        })
        .await
    }

    /// The process id, for reading its memory or descriptors.
    pub fn id(&self) -> u32 {
        self.child().0.id()
    }

    /// SIGKILL: what a crash looks like.
    pub fn kill(&self) {
        self.child().kill();
    }

    /// SIGSTOP: alive, silent.
    pub fn pause(&self) {
        self.signal("STOP");
    }

    /// SIGCONT.
    pub fn resume(&self) {
        self.signal("CONT");
    }

    /// Any signal by its short name: `TERM` to drain, `HUP` to reload.
    pub fn signal(&self, name: &str) {
        self.child().signal(name);
    }

    /// Waits for it to end by itself.
    pub async fn wait_exit(&self, within: Duration) -> ExitStatus {
        crate::eventually("consort to exit", within, async || self.child().exited()).await
    }

    fn child(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn assert_running(&self) {
        let exited = self.child().exited();
        if let Some(status) = exited {
            panic!("consort ended with {status}\nlogs: {:#?}\n{}", self.logs(), self.stderr());
        }
    }
}

/// The addresses that a line tells: of the ext_proc door, for operators, of the plain HTTP door. A Unix socket has no
/// port, so that nobody connects to it by mistake.
fn listening(line: &Value) -> Option<(SocketAddr, SocketAddr, Option<SocketAddr>)> {
    let fields = line.get("fields").filter(|fields| fields["message"] == "listening")?;
    let address = |name| {
        let told = fields.get(name).and_then(Value::as_str).unwrap_or("unix:");
        if told.starts_with("unix:") { Some(NO_PORT) } else { told.parse().ok() }
    };
    Some((address("addr")?, address("admin")?, address("http").filter(|http| *http != NO_PORT)))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const STAND_IN: &str = r#"#!/bin/sh
echo 'not JSON'
echo '{"level":"INFO","fields":{"message":"listening","addr":"127.0.0.1:4242","args":"'"$*"'"}}'
trap 'echo "{\"fields\":{\"message\":\"draining\"}}"; exit 3' TERM
while :; do sleep 0.02; done
"#;

    #[tokio::test]
    async fn a_service_is_known_by_its_log_and_led_by_signals() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let program = dir.path().join("consort");
        std::fs::write(&program, STAND_IN).expect("written");
        let executable = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(&program, executable).expect("ours");
        let service = Service::start(&program, "models: []").await;
        assert_eq!(service.addr().port(), 4242);
        assert_eq!(service.logs()[0], json!({"raw": "not JSON"}));
        let args = service.logs()[1]["fields"]["args"].to_string();
        assert!(args.contains("serve -c ") && args.contains("consort.yaml"), "{args}");
        service.pause();
        service.signal("TERM");
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(service.child().exited(), None, "it is stopped");
        service.resume();
        service.wait_for_log(|line| line["fields"]["message"] == "draining").await;
        let status = service.wait_exit(Duration::from_secs(5)).await;
        assert_eq!(status.code(), Some(3));
    }
}
