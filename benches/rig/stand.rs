//! The processes that are measured, each started on its cores; dropping one ends it.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use consort_testkit::envoy::{Envoy, EnvoyOptions, replace_once};
use consort_testkit::http;
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::Result;
use crate::cores::{self, allowed, pin_self};
use crate::provider::Timing;

/// The model that callers ask for; the shipped gate knows it.
pub const ALIAS: &str = "research-ensemble";

const START: Duration = Duration::from_secs(15);

/// A part of the rig in a process of its own.
#[derive(Debug)]
pub struct Part {
    child: Child,
    pub addr: SocketAddr,
}

impl Part {
    /// Starts this very program as one of its parts.
    async fn start(name: &str, on: &[usize]) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(name).stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = spawn_on(on, &mut command)?;
        let stdout = child.stdout.take().ok_or("stdout was piped")?;
        let line = BufReader::new(stdout).lines().next_line().await?;
        let addr = line.ok_or_else(|| format!("{name} ended at its start"))?.parse()?;
        Ok(Self { child, addr })
    }

    pub async fn provider(on: &[usize]) -> Result<Self> {
        Self::start("provider", on).await
    }

    pub async fn processor(on: &[usize]) -> Result<Self> {
        Self::start("processor", on).await
    }

    pub fn id(&self) -> Result<u32> {
        Ok(self.child.id().ok_or("a part of the rig has ended")?)
    }

    /// How long the provider took for the runs since it was last asked, by their request ids.
    pub async fn timings(&self) -> Result<std::collections::HashMap<String, Timing>> {
        Ok(serde_json::from_str(http::get(self.addr, "/timings").send().await.text())?)
    }

    /// How many calls the provider holds.
    pub async fn held(&self) -> Result<usize> {
        Ok(http::get(self.addr, "/held").send().await.text().parse()?)
    }

    pub async fn release(&self) {
        http::get(self.addr, "/release").send().await;
    }
}

fn spawn_on(on: &[usize], command: &mut Command) -> Result<Child> {
    pin_self(on);
    let child = command.spawn();
    pin_self(&allowed());
    let program = command.as_std().get_program().display().to_string();
    Ok(child.map_err(|error| format!("{program}: {error}"))?)
}

/// A running Consort.
#[derive(Debug)]
pub struct Consort {
    child: Child,
    pub addr: SocketAddr,
    dir: TempDir,
    /// Of one whose heap is counted.
    asking: Option<(ChildStdin, Lines<BufReader<ChildStdout>>)>,
}

impl Consort {
    /// Starts `program serve` on these cores and waits until it listens. It logs as it is shipped, to a file.
    pub async fn start(program: &Path, config: &str, on: &[usize]) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let log = File::create(dir.path().join("log"))?;
        let mut command = Self::command(program, config, &dir)?;
        let child = spawn_on(on, command.stdin(Stdio::null()).stdout(log))?;
        let began = Instant::now();
        let addr = loop {
            let text = fs::read_to_string(dir.path().join("log"))?;
            if let Some(addr) = text.lines().find_map(listening) {
                break addr;
            }
            if began.elapsed() > START {
                return Err(format!("Consort does not listen: {text}").into());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        Ok(Self { child, addr, dir, asking: None })
    }

    /// Starts one whose heap is counted.
    pub async fn start_counted(program: &Path, config: &str, on: &[usize]) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let mut command = Self::command(program, config, &dir)?;
        let mut child = spawn_on(on, command.stdin(Stdio::piped()).stdout(Stdio::piped()))?;
        let input = child.stdin.take().ok_or("stdin was piped")?;
        let mut lines = BufReader::new(child.stdout.take().ok_or("stdout was piped")?).lines();
        while let Some(line) = lines.next_line().await? {
            if let Some(addr) = listening(&line) {
                return Ok(Self { child, addr, dir, asking: Some((input, lines)) });
            }
        }
        Err("Consort does not listen".into())
    }

    fn command(program: &Path, config: &str, dir: &TempDir) -> Result<Command> {
        // Apart from the log: Consort watches the directory of its configuration, and would hear of each line.
        let file = dir.path().join("etc/consort.yaml");
        fs::create_dir(dir.path().join("etc"))?;
        fs::write(&file, config)?;
        let mut command = Command::new(program);
        command.arg("serve").arg("-c").arg(file).kill_on_drop(true);
        Ok(command)
    }

    pub fn id(&self) -> Result<u32> {
        Ok(self.child.id().ok_or_else(|| format!("Consort has ended: {}", self.dir.path().display()))?)
    }

    /// The heap in use, and the most of it since this was last asked, in bytes.
    pub async fn heap(&mut self) -> Result<(u64, u64)> {
        let (input, lines) = self.asking.as_mut().ok_or("its heap is not counted")?;
        input.write_all(b"\n").await?;
        while let Some(line) = lines.next_line().await? {
            let said: Value = serde_json::from_str(&line)?;
            if let (Some(heap), Some(peak)) = (said["heap"].as_u64(), said["peak"].as_u64()) {
                return Ok((heap, peak));
            }
        }
        Err("Consort has ended".into())
    }
}

fn listening(line: &str) -> Option<SocketAddr> {
    let line: Value = serde_json::from_str(line).ok()?;
    let fields = line.get("fields").filter(|fields| fields["message"] == "listening")?;
    fields["addr"].as_str()?.parse().ok()
}

/// A configuration of a panel and a judge at these paces of the provider: a delay in ms, `stall` or `hold`.
pub fn config(provider: SocketAddr, members: &[&str], judge: &str, ensemble: &str, provided: &str) -> String {
    let base = |pace: &str, role: &str| format!("http://{provider}/{pace}/{role}/v1");
    let mut providers = format!("- {{name: judge, base_url: '{}'{provided}}}\n", base(judge, "judge"));
    let mut models = "- {display_name: judge, provider: judge, model_name: m}\n".to_owned();
    let mut panel = Vec::new();
    for (i, pace) in members.iter().enumerate() {
        providers.push_str(&format!("- {{name: p{i}, base_url: '{}'{provided}}}\n", base(pace, "member")));
        models.push_str(&format!("- {{display_name: m{i}, provider: p{i}, model_name: m}}\n"));
        panel.push(format!("{{model: m{i}}}"));
    }
    format!(
        "listen: {{ext_proc: '127.0.0.1:0', admin: '127.0.0.1:0'}}
limits: {{max_inflight: 20000}}
providers:
{providers}models:
{models}- display_name: {ALIAS}
  ensemble: {{panel: [{}], judge: {{model: judge}}, {ensemble}}}
",
        panel.join(", ")
    )
}

/// How the shipped attachment is changed for a comparison.
#[derive(Clone, Copy, Debug)]
pub enum Attachment {
    /// As it is shipped.
    Shipped,
    /// With the gate.
    Gated,
    /// Not at all: the filter is turned off on the route.
    None,
}

/// Starts Envoy with one worker.
pub async fn envoy(
    attachment: Attachment,
    processor: SocketAddr,
    upstream: SocketAddr,
    on: &[usize],
) -> Result<Envoy> {
    let options = match attachment {
        Attachment::Gated => EnvoyOptions::shipped("envoy-gate.yaml"),
        Attachment::Shipped => EnvoyOptions::shipped("envoy.yaml"),
        Attachment::None => EnvoyOptions::shipped("envoy.yaml").edit(|yaml| {
            // Where Consort is not asked, the fence would read every body.
            let fence = ["hold", "reader", "refusal"];
            fence.iter().fold(replace_once(yaml, "overrides: {}  ", "disabled: true  "), |yaml, part| {
                let on = "\"@type\": type.googleapis.com/envoy.config.route.v3.FilterConfig";
                let on = format!("{0:18}consort.fence.{part}:\n{0:20}{on}\n{0:20}config: {{}}\n", "");
                replace_once(yaml, &on, "")
            })
        }),
    };
    let envoy = Envoy::start(options.consort(processor).upstream(upstream)).await;
    cores::pin(envoy.id(), on)?;
    envoy.wait_healthy().await;
    Ok(envoy)
}
