//! An installation with a network between its parts, and the means to break each of them.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use consort_testkit::envoy::{Envoy, EnvoyOptions};
use consort_testkit::link::Link;
use consort_testkit::provider::{Provider, Received, Reply};
use consort_testkit::redis::Redis;
use consort_testkit::service::Service;
use consort_testkit::upstream::Upstream;
use consort_testkit::{eventually, http, skipped};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::heard::{Heard, hear};
use crate::stack::{ALIAS, CHAT, KEY, ONE_ATTEMPT, ms};

/// The questions' ids: where each run stands when the fault strikes.
pub(super) const PHASES: [&str; 3] = ["panel", "judge", "stream"];
/// How long the last member, or the judge, of the plain questions takes: long enough to strike meanwhile.
const WAIT: Duration = ms(2500);
const WORDS: usize = 60;
const BETWEEN_WORDS: Duration = ms(60);
/// The file of decisions, in the installation's directory.
const DECISIONS: &str = "decisions.jsonl";
/// Where Debian has libfaketime.
const FAKETIME: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";

/// What fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// SIGKILL; another one takes its place.
    ConsortKilled,
    /// SIGSTOP, until its callers have given up; SIGCONT.
    ConsortFrozen,
    /// Connections between Envoy and Consort are reset, and no new one comes about.
    ConsortUnreachable,
    /// What Envoy and Consort say to each other comes 100 ms later.
    ConsortDelayed,
    /// Of what they say, every fifth piece is lost and sent again.
    ConsortLossy,
    /// Envoy drains, finishes what it has, and is replaced.
    EnvoyDrained,
    /// SIGKILL; another one takes its place.
    EnvoyKilled,
    /// Connections to the provider are reset, and no new one comes about.
    ProviderKilled,
    /// The provider says nothing any more.
    ProviderFrozen,
    /// What the provider was saying breaks off in the middle of a body.
    BodyCut,
    ProviderDelayed,
    ProviderLossy,
    /// The limits' Redis is killed, and `on_error` is `open`.
    RedisGone,
    /// The file of decisions takes nothing from the start on.
    DiskFull,
    /// The system's clock is set 2 h ahead.
    ClockAhead,
    /// The same, 2 h back.
    ClockBack,
}

pub(super) struct Rig {
    fault: Fault,
    dir: TempDir,
    config: String,
    provider: Provider,
    upstream: Upstream,
    to_provider: Link,
    to_consort: Link,
    service: Service,
    envoy: Option<Envoy>,
    redis: Option<Redis>,
}

/// Callers that wait.
pub(super) struct Callers([JoinHandle<Heard>; 3]);

impl Callers {
    pub(super) async fn heard(self) -> [Heard; 3] {
        let [panel, judge, stream] = self.0;
        [panel.await.unwrap(), judge.await.unwrap(), stream.await.unwrap()]
    }
}

impl Rig {
    /// None where this machine has no means for the fault, which is said.
    pub(super) async fn start(fault: Fault) -> Option<Self> {
        let needs_faketime = matches!(fault, Fault::ClockAhead | Fault::ClockBack);
        if needs_faketime && !Path::new(FAKETIME).exists() {
            skipped(&format!("{fault:?}: there is no {FAKETIME} (`apt-get install faketime`)"));
            return None;
        }
        let provider = Provider::start().await;
        provider.require_key(KEY);
        script(&provider, fault);
        let redis = if fault == Fault::RedisGone { Some(Redis::start().await) } else { None };
        let (upstream, to_provider) = (Upstream::start().await, Link::to(provider.addr()).await);
        let dir = tempfile::tempdir().expect("a directory");
        let config = config(&to_provider, redis.as_ref(), fault, &dir);
        let service = serve(&config, &dir, needs_faketime).await;
        let to_consort = Link::to(service.addr()).await;
        let envoy = Some(envoy(&to_consort, &upstream).await);
        Some(Self { fault, dir, config, provider, upstream, to_provider, to_consort, service, envoy, redis })
    }

    /// Asks three questions, and waits until each of them is where its id says.
    pub(super) async fn three_callers(&self) -> Callers {
        let (word, mut words) = watch::channel(0);
        let stream = self.ask("stream", true);
        let stream = tokio::spawn(hear(stream, move || word.send_modify(|words| *words += 1)));
        let [judge, panel] = ["judge", "panel"].map(|id| tokio::spawn(hear(self.ask(id, false), || ())));
        self.asked("model-c", "panel").await;
        self.asked("model-judge", "judge").await;
        let _ = words.wait_for(|words| *words >= 4).await;
        Callers([panel, judge, stream])
    }

    fn ask(&self, id: &str, stream: bool) -> http::Call {
        let question = format!("[id:{id}] why?");
        let body =
            json!({"model": ALIAS, "stream": stream, "messages": [{"role": "user", "content": question}]});
        let envoy = self.envoy.as_ref().expect("an Envoy to ask");
        http::post(envoy.addr(), CHAT).header("x-request-id", id).json(&body)
    }

    async fn asked(&self, model: &str, id: &str) {
        eventually(&format!("{model} to be asked for {id}"), ms(20_000), async || {
            self.provider.requests_for(model).iter().any(|received| id_of(received) == id).then_some(())
        })
        .await;
    }

    pub(super) async fn strike(&mut self) {
        match self.fault {
            Fault::ConsortKilled => self.service.kill(),
            Fault::ConsortFrozen => self.service.pause(),
            Fault::ConsortUnreachable => self.to_consort.cut(),
            Fault::ConsortDelayed => self.to_consort.delay(ms(100)),
            Fault::ConsortLossy => self.to_consort.lose(5),
            Fault::EnvoyDrained => {
                let admin = self.envoy.as_ref().expect("an Envoy to drain").admin();
                let told = http::post(admin, "/drain_listeners?graceful").send().await;
                assert_eq!(told.status, 200, "{}", told.text());
            }
            Fault::EnvoyKilled => self.envoy = None,
            Fault::ProviderKilled => self.to_provider.cut(),
            Fault::ProviderFrozen => self.to_provider.silence(),
            Fault::ProviderDelayed => self.to_provider.delay(ms(100)),
            Fault::ProviderLossy => self.to_provider.lose(5),
            Fault::RedisGone => self.redis.as_mut().expect("a Redis to kill").kill(),
            Fault::ClockAhead => set_clock(&self.dir, "+2h"),
            Fault::ClockBack => set_clock(&self.dir, "-2h"),
            Fault::BodyCut | Fault::DiskFull => {}
        }
    }

    /// Everything that is not as it should be while the fault lasts: without Consort, ensembles' requests are refused,
    /// and plain models answer.
    pub(super) async fn meanwhile(&self) -> Vec<String> {
        let is_absent =
            matches!(self.fault, Fault::ConsortKilled | Fault::ConsortFrozen | Fault::ConsortUnreachable);
        if !is_absent {
            return Vec::new();
        }
        let told = hear(self.ask("meanwhile", false), || ()).await.told("meanwhile");
        let envoy = self.envoy.as_ref().expect("an Envoy to ask");
        let plain = http::post(envoy.addr(), CHAT).json(&json!({"model": "gpt-4o"})).send().await;
        let mut wrong = Vec::new();
        if told != "503 ensemble_unavailable" {
            wrong.push(format!("{:?}, meanwhile: {told}", self.fault));
        }
        if plain.header("x-upstream") != "echo" {
            wrong.push(format!(
                "{:?}, a plain model meanwhile: {} {}",
                self.fault,
                plain.status,
                plain.text()
            ));
        }
        wrong
    }

    pub(super) async fn mend(&mut self) {
        match self.fault {
            Fault::ConsortKilled => {
                let service = serve(&self.config, &self.dir, false).await;
                self.to_consort.lead_to(service.addr());
                self.service = service;
            }
            Fault::ConsortFrozen => self.service.resume(),
            Fault::ConsortUnreachable | Fault::ConsortDelayed | Fault::ConsortLossy => self.to_consort.heal(),
            Fault::EnvoyDrained | Fault::EnvoyKilled => {
                self.envoy = Some(envoy(&self.to_consort, &self.upstream).await);
            }
            Fault::ProviderKilled | Fault::ProviderFrozen | Fault::ProviderDelayed | Fault::ProviderLossy => {
                self.to_provider.heal()
            }
            Fault::RedisGone => self.redis.as_mut().expect("a Redis to start anew").restart().await,
            Fault::ClockAhead | Fault::ClockBack => set_clock(&self.dir, "+0"),
            Fault::BodyCut | Fault::DiskFull => {}
        }
    }

    /// Asks until the answer is a full one, and returns how long that took.
    pub(super) async fn until_well(&self, wrong: &mut Vec<String>) -> Duration {
        let began = Instant::now();
        for number in 0.. {
            let id = format!("fresh{number}");
            let told = hear(self.ask(&id, number % 2 == 1), || ()).await.told(&id);
            if told == "200 full" || began.elapsed() > ms(30_000) {
                break;
            }
            let may_be = ["503", "503 ensemble_unavailable", "200 degraded", "200, broken off"];
            if !may_be.contains(&&*told) && !told.starts_with("50") {
                wrong.push(format!("{:?}, {id}: {told}", self.fault));
            }
            tokio::time::sleep(ms(50)).await;
        }
        began.elapsed()
    }

    /// Everything that is not as it should be about the record of a run: how it ended, and that no call is missing.
    pub(super) async fn recorded(&self, id: &str, outcome: &str) -> Vec<String> {
        let decision = eventually(&format!("{:?}: a decision on {id}", self.fault), ms(20_000), async || {
            self.decisions(id).pop()
        })
        .await;
        let mut wrong = Vec::new();
        let told = decision["outcome"].as_str().unwrap_or_default();
        if outcome != "something" && told != outcome {
            wrong.push(format!("{:?}, {id}: recorded as {told}, not {outcome}", self.fault));
        }
        if self.decisions(id).len() != 1 {
            wrong.push(format!("{:?}, {id}: recorded more than once", self.fault));
        }
        let calls = ["members", "judges"].iter().filter_map(|seat| decision[*seat].as_array()).flatten();
        let made: u64 = calls.filter_map(|call| call["attempts"].as_u64()).sum();
        let received =
            self.provider.requests().iter().filter(|received| id_of(received) == id).count() as u64;
        if made < received {
            wrong.push(format!("{:?}, {id}: {received} calls, {made} recorded: {decision}", self.fault));
        }
        let tokens = decision["usage"]["total_tokens"].as_u64().unwrap_or_default();
        if tokens == 0 && decision["usage"]["estimated"] != true {
            wrong.push(format!("{:?}, {id}: two members had answered, and nothing is billed", self.fault));
        }
        if self.fault == Fault::ConsortKilled {
            wrong.extend(self.left_by_a_kill(id, &decision).await);
        }
        wrong
    }

    /// What is wrong with what another process has recorded of a run that was killed: it names every call that was made and how
    /// far it had come, is in the file as between the log's lines, and Envoy's access log has the run.
    async fn left_by_a_kill(&self, id: &str, decision: &Value) -> Vec<String> {
        let mut wrong = self.logged_by_envoy(id).await;
        let calls = ["members", "judges"].iter().filter_map(|seat| decision[*seat].as_array()).flatten();
        let told = |call: &Value| format!("{}={}", call["model"], call["result"]).replace('"', "");
        let told = calls.map(told).collect::<Vec<_>>().join(" ");
        let made = match id {
            "panel" => "a=usable b=usable c=killed",
            _ => "a=usable b=usable c=usable judge=killed",
        };
        if told != made || decision["error_code"] != "killed" {
            wrong.push(format!("{:?}, {id}: {told}, not {made}: {decision}", self.fault));
        }
        let file = fs::read_to_string(self.dir.path().join(DECISIONS)).unwrap_or_default();
        let lines = file.lines().map(|line| serde_json::from_str(line).expect("a JSON object a line"));
        // A second record would have a `sequence` of its own.
        let of_it: Vec<Value> = lines.filter(|line: &Value| line["request_id"] == id).collect();
        if of_it != [decision.clone()] {
            wrong.push(format!("{:?}, {id}: the file has {file}", self.fault));
        }
        wrong
    }

    fn decisions(&self, id: &str) -> Vec<Value> {
        let mut lines = self.service.logs();
        lines.retain(|line| line["request_id"] == id && line["members"].is_array());
        lines
    }

    async fn logged_by_envoy(&self, id: &str) -> Vec<String> {
        let envoy = self.envoy.as_ref().expect("an Envoy that has logged");
        let line = eventually(&format!("Envoy's line on {id}"), ms(10_000), async || {
            envoy.access_log().into_iter().find(|line| line["request_id"] == id)
        })
        .await;
        let is_told = line["upstream"].is_null() && line["extproc"].as_str().is_some_and(|e| !e.is_empty());
        if is_told { Vec::new() } else { vec![format!("{:?}, {id}: {line}", self.fault)] }
    }

    /// What is wrong at the end: a prompt that reached the upstream, or a loss that nobody counted.
    pub(super) async fn at_last(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        let is_prompt = |body: &[u8]| body.windows(4).any(|bytes| bytes == b"[id:");
        if self.upstream.requests().iter().any(|r| r.body.as_deref().is_none_or(is_prompt)) {
            wrong.push(format!("{:?}: a prompt has reached the upstream", self.fault));
        }
        if self.fault == Fault::DiskFull {
            let metrics = http::get(self.service.admin(), "/metrics").send().await;
            let lost =
                metrics.text().lines().find_map(|line| line.strip_prefix("consort_decisions_lost_total "));
            if lost.and_then(|n| n.parse::<f64>().ok()).is_none_or(|lost| lost < 3.0) {
                wrong.push(format!("{:?}: {lost:?} decisions counted as lost", self.fault));
            }
        }
        wrong
    }
}

/// Every answer says whom it is of and what was asked.
fn script(provider: &Provider, fault: Fault) {
    for (model, name) in [("model-a", "a"), ("model-b", "b"), ("model-c", "c"), ("model-judge", "judge")] {
        provider.model(model).answer(move |asked| {
            let id = id_of(asked);
            let word = format!("{name}-{id}");
            match (name, &*id) {
                ("c", "panel") | ("judge", "judge") => {
                    let reply = Reply::text(word).delay(WAIT);
                    if fault == Fault::BodyCut { reply.cut_after(0) } else { reply }
                }
                ("judge", "stream") => {
                    let word = format!("{word} ");
                    let reply = Reply::stream(&[&*word; WORDS], BETWEEN_WORDS);
                    if fault == Fault::BodyCut { reply.cut_after(WORDS / 2) } else { reply }
                }
                _ => Reply::text(word),
            }
        });
    }
}

/// The id in the question, in whatever that is wrapped.
fn id_of(received: &Received) -> String {
    let text = received.json.to_string();
    let id = text.split("[id:").nth(1).and_then(|rest| rest.split(']').next());
    id.unwrap_or_default().to_owned()
}

fn config(to_provider: &Link, redis: Option<&Redis>, fault: Fault, dir: &TempDir) -> String {
    let provider = to_provider.addr();
    let (store, limit) = match redis {
        Some(redis) => {
            let url = redis.url();
            (
                format!("limits: {{store: {{redis: {{url: '{url}', timeout_ms: 300, on_error: open}}}}}}\n"),
                ", rate_limit: {rpm: 1000}",
            )
        }
        None => (String::new(), ""),
    };
    let file = match fault {
        Fault::DiskFull => "/dev/full".into(),
        _ => dir.path().join(DECISIONS),
    };
    let (file, journal) = (file.display(), dir.path().join("journal"));
    let models: String = ["a", "b", "c", "judge"]
        .iter()
        .map(|name| {
            format!("- {{display_name: {name}, provider: p, model_name: model-{name}, {ONE_ATTEMPT}}}\n")
        })
        .collect();
    format!(
        "listen: {{ext_proc: '127.0.0.1:0'}}
{store}providers: [{{name: p, base_url: 'http://{provider}/v1', api_key: {KEY}}}]
decisions: {{stdout: true, file: {{path: '{file}'}}, journal: '{}'}}
models:
{models}- display_name: {ALIAS}
  ensemble:
    {{panel: [{{model: a}}, {{model: b}}, {{model: c}}], judge: {{model: judge}}, min_responses: 2,
     timeout_ms: 5000, deadline_ms: 8000{limit}}}
",
        journal.display()
    )
}

async fn serve(config: &str, dir: &TempDir, has_own_clock: bool) -> Service {
    if has_own_clock {
        set_clock(dir, "+0");
    }
    Service::start_with(env!("CARGO_BIN_EXE_consort"), config, |command| {
        if has_own_clock {
            command.env("LD_PRELOAD", FAKETIME).env("FAKETIME_TIMESTAMP_FILE", clock(dir));
            // Durations are measured by another clock, which nobody sets.
            command.env("FAKETIME_NO_CACHE", "1").env("DONT_FAKE_MONOTONIC", "1");
        }
    })
    .await
}

fn clock(dir: &TempDir) -> PathBuf {
    dir.path().join("clock")
}

/// Written beside and moved there, so that nobody reads half of it.
fn set_clock(dir: &TempDir, offset: &str) {
    let beside = dir.path().join("clock.new");
    fs::write(&beside, format!("{offset}\n")).expect("ours");
    fs::rename(beside, clock(dir)).expect("ours");
}

async fn envoy(to_consort: &Link, upstream: &Upstream) -> Envoy {
    let options = EnvoyOptions::shipped("envoy.yaml").consort(to_consort.addr()).upstream(upstream.addr());
    let envoy = Envoy::start(options).await;
    envoy.wait_healthy().await;
    envoy
}
