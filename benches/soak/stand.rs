//! Consort as a process, its configuration, and what it says of itself.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use consort_testkit::http;
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::Result;
use crate::ledger::{Decision, MODELS, PRICES};
use crate::provider::KEY;

const START: Duration = Duration::from_secs(20);
/// How many may be in flight: of all runs, of the probed alias, of each model. Small enough for the probe to fill.
pub const PLACES: u64 = 96;
const DECISIONS: &str = "decisions.jsonl";
const JOURNAL: &str = "journal";

/// A running Consort; dropping it ends it.
#[derive(Debug)]
pub struct Consort {
    child: Child,
    pub ext_proc: SocketAddr,
    pub door: SocketAddr,
    pub admin: SocketAddr,
    dir: TempDir,
}

impl Consort {
    /// Starts `program serve` and waits until it listens. It logs as it is shipped, to a file.
    pub async fn start(program: &Path, provider: SocketAddr) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let file = dir.path().join("consort.yaml");
        fs::write(&file, config(provider, dir.path()))?;
        let log = File::create(dir.path().join("log"))?;
        let mut command = Command::new(program);
        command.arg("serve").arg("-c").arg(file).stdin(Stdio::null()).stdout(log).kill_on_drop(true);
        let child = command.spawn().map_err(|error| format!("{}: {error}", program.display()))?;
        let began = Instant::now();
        let [ext_proc, door, admin] = loop {
            let text = fs::read_to_string(dir.path().join("log"))?;
            if let Some(found) = text.lines().find_map(listening) {
                break found;
            }
            if began.elapsed() > START {
                return Err(format!("Consort does not listen: {text}").into());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        Ok(Self { child, ext_proc, door, admin, dir })
    }

    pub fn id(&self) -> Result<u32> {
        Ok(self.child.id().ok_or("Consort has ended")?)
    }

    pub fn decisions(&self) -> PathBuf {
        self.dir.path().join(DECISIONS)
    }

    /// How many runs the journal says to go on, and how large it is, in bytes.
    pub fn journal(&self) -> Result<(u64, u64)> {
        let text = fs::read_to_string(self.dir.path().join(JOURNAL))?;
        let mut going_on = HashSet::new();
        for line in text.lines() {
            let line: Value = serde_json::from_str(line)?;
            match line.get("running") {
                Some(_) => going_on.insert(line["run"].as_u64()),
                None => going_on.remove(&line["run"].as_u64()),
            };
        }
        Ok((going_on.len() as u64, text.len() as u64))
    }

    /// The log's lines at these levels.
    pub fn complaints(&self) -> Result<Vec<String>> {
        let log = BufReader::new(File::open(self.dir.path().join("log"))?);
        let is_one = |line: &String| line.contains(r#""level":"ERROR""#) || line.contains("panicked");
        Ok(log.lines().map_while(std::result::Result::ok).filter(is_one).collect())
    }

    pub async fn metrics(&self) -> Metrics {
        Metrics(http::get(self.admin, "/metrics").send().await.text().to_owned())
    }

    /// The places that models' limits count as taken.
    pub async fn taken(&self) -> u64 {
        let models = http::get(self.admin, "/models").send().await.json();
        let used = |model: &Value| model.pointer("/limits/concurrency/used").and_then(Value::as_u64);
        models["models"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|model| used(model).unwrap_or(u64::MAX / 9))
            .sum()
    }

    /// SIGTERM, and whether it ended well.
    pub async fn end(mut self) -> Result<bool> {
        let id = self.id()?.to_string();
        Command::new("kill").args(["-TERM", &id]).status().await?;
        let ended = tokio::time::timeout(Duration::from_secs(30), self.child.wait()).await;
        Ok(ended.is_ok_and(|status| status.is_ok_and(|status| status.success())))
    }
}

/// What `/metrics` said.
#[derive(Debug)]
pub struct Metrics(String);

impl Metrics {
    /// The sum of a metric's series that have this label, or of all.
    pub fn sum(&self, name: &str, label: &str) -> f64 {
        let series = self.0.lines().filter(|line| {
            let rest = line.strip_prefix(name).unwrap_or("x");
            rest.starts_with([' ', '{']) && line.contains(label)
        });
        series.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }
}

fn listening(line: &str) -> Option<[SocketAddr; 3]> {
    let line: Value = serde_json::from_str(line).ok()?;
    let fields = line.get("fields").filter(|fields| fields["message"] == "listening")?;
    let addr = |name: &str| fields[name].as_str()?.parse().ok();
    Some([addr("addr")?, addr("http")?, addr("admin")?])
}

fn config(provider: SocketAddr, dir: &Path) -> String {
    let model = |name: &&str| {
        format!(
            "- {{display_name: {name}, provider: p, model_name: {name}, timeout: 3000, cooldown: {{enabled: false}}, \
             rate_limit: {{concurrency: {PLACES}}}, cost: {{input_per_1k: {}, output_per_1k: {}}}}}\n",
            PRICES.0, PRICES.1
        )
    };
    let models: String = MODELS.iter().map(model).collect();
    let members = "panel: [{model: m0}, {model: m1}, {model: m2}]";
    let panel = format!("{members}, min_responses: 2");
    let weighted = panel.replace("{model: m0}", "{model: m0, weight: 2}");
    format!(
        "listen: {{ext_proc: '127.0.0.1:0', http: '127.0.0.1:0', admin: '127.0.0.1:0'}}
limits: {{max_inflight: {PLACES}, max_held_bytes: 67108864, max_lateness_ms: 0}}
decisions: {{file: {{path: '{0}/{DECISIONS}', max_bytes: 67108864}}, journal: '{0}/{JOURNAL}'}}
providers: [{{name: p, base_url: 'http://{provider}/v1', api_key: {KEY}}}]
models:
{models}\
- {{display_name: soak-judge, ensemble: {{{panel}, judge: {{model: j0}}, rate_limit: {{concurrency: {PLACES}}}}}}}
- {{display_name: soak-rank, ensemble: {{{panel}, strategy: rank, judge: {{model: j0}}}}}}
- {{display_name: soak-score, ensemble: {{{panel}, strategy: score, judges: [{{model: j0}}, {{model: j1}}]}}}}
- {{display_name: soak-vote, ensemble: {{{panel}, strategy: vote, answer: number}}}}
- {{display_name: soak-weighted, ensemble: {{{weighted}, strategy: weighted, answer: number}}}}
- {{display_name: soak-average, ensemble: {{{panel}, strategy: average}}}}
- {{display_name: soak-first, ensemble: {{{members}, strategy: first, min_responses: 1}}}}
- {{display_name: soak-cascade, ensemble: {{{panel}, judge: {{model: j0}}, cascade: {{start: 2}}, answer: number}}}}
",
        dir.display()
    )
}

/// Reads a file of decisions as it grows and is renamed.
#[derive(Debug)]
pub struct Tail {
    path: PathBuf,
    file: Option<(BufReader<File>, u64)>,
    line: String,
}

impl Tail {
    pub fn of(path: PathBuf) -> Self {
        Self { path, file: None, line: String::new() }
    }

    /// What has been written since; nobody may rename the file twice between two calls.
    pub fn more(&mut self) -> Result<Vec<Decision>> {
        let mut found = Vec::new();
        loop {
            // Looked at first: what is written to a file that has been renamed was written before that.
            let inode = fs::metadata(&self.path).ok().map(|now| now.ino());
            if let Some((file, _)) = &mut self.file {
                while file.read_line(&mut self.line)? > 0 {
                    if !self.line.ends_with('\n') {
                        break;
                    }
                    found.push(serde_json::from_str(&self.line)?);
                    self.line.clear();
                }
            }
            let Some(inode) = inode else { return Ok(found) };
            if self.file.as_ref().is_some_and(|(_, read)| *read == inode) {
                return Ok(found);
            }
            let file = File::open(&self.path)?;
            let inode = file.metadata()?.ino();
            self.file = Some((BufReader::with_capacity(1 << 16, file), inode));
        }
    }
}

/// How many files, sockets and the like a process holds open.
pub fn descriptors(pid: u32) -> Result<u64> {
    Ok(fs::read_dir(format!("/proc/{pid}/fd"))?.count() as u64)
}
