//! Load by `wrk`, of Debian's package of that name.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;

use serde::Deserialize;
use tempfile::TempDir;
use tokio::process::Command;

use crate::Result;
use crate::stats::Window;

/// What a window of load asks for.
#[derive(Clone, Debug)]
pub struct Ask {
    pub path: &'static str,
    pub body: String,
    pub connections: usize,
    pub seconds: u64,
}

/// What wrk is told: the request, and to say what came of it as JSON.
const SCRIPT: &str = r#"
function init(args)
  local body = io.open(args[1], "rb")
  wrk.method, wrk.body = "POST", body:read("*a")
  wrk.headers["Content-Type"] = "application/json"
  body:close()
end
function done(summary, latency)
  local e = summary.errors
  print(string.format(
    '\nDONE {"requests":%d,"microseconds":%d,"p50":%f,"p99":%f,"failed":%d}',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    e.connect + e.read + e.write + e.status + e.timeout))
end
"#;

#[derive(Deserialize)]
struct Done {
    requests: u64,
    microseconds: f64,
    p50: f64,
    p99: f64,
    failed: u64,
}

/// The generator; its files go with it.
#[derive(Debug)]
pub struct Generator {
    dir: TempDir,
}

impl Generator {
    pub fn new() -> Result<Self> {
        let found =
            std::process::Command::new("wrk").arg("-v").stdout(Stdio::null()).stderr(Stdio::null()).status();
        found.map_err(|error| format!("wrk: {error}; it is in Debian's package wrk"))?;
        let dir = tempfile::tempdir()?;
        fs::write(dir.path().join("script.lua"), SCRIPT)?;
        Ok(Self { dir })
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Lets so many callers ask again and again for so long, each on a connection of its own.
    pub async fn run(&self, target: SocketAddr, ask: &Ask) -> Result<Window> {
        fs::write(self.file("body"), &ask.body)?;
        let mut wrk = Command::new("wrk");
        wrk.args(["-t1", "--timeout", "20s"]);
        wrk.arg(format!("-c{}", ask.connections)).arg(format!("-d{}s", ask.seconds));
        wrk.arg("-s").arg(self.file("script.lua")).arg(format!("http://{target}{}", ask.path));
        wrk.arg("--").arg(self.file("body"));
        let output = wrk.stdin(Stdio::null()).kill_on_drop(true).output().await?;
        let text = String::from_utf8_lossy(&output.stdout);
        let done = text.lines().find_map(|line| line.strip_prefix("DONE "));
        let done = done.ok_or_else(|| format!("wrk: {text}{}", String::from_utf8_lossy(&output.stderr)))?;
        let done: Done = serde_json::from_str(done)?;
        Ok(Window {
            requests: done.requests,
            failed: done.failed,
            seconds: done.microseconds / 1e6,
            p50_ms: done.p50 / 1e3,
            p99_ms: done.p99 / 1e3,
            ..Window::default()
        })
    }
}
