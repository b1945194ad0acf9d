//! An installation with a network between its parts, and the means to break each of them.

mod record;

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use consort_testkit::envoy::{Envoy, EnvoyOptions};
use consort_testkit::link::Link;
use consort_testkit::provider::{Provider, Received, Reply};
use consort_testkit::redis::Redis;
use consort_testkit::service::Service;
use consort_testkit::upstream::Upstream;
use consort_testkit::{eventually, http, lacking};
use serde_json::json;
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::bill::{self, PRICES};
use super::heard::{Heard, hear};
use crate::stack::{ALIAS, CHAT, KEY, ONE_ATTEMPT, ms};

/// The questions' ids: where each run stands when the fault strikes.
pub(super) const PHASES: [&str; 3] = ["panel", "judge", "stream"];
/// Every run's `deadline_ms`.
pub(super) const DEADLINE: Duration = ms(8000);
/// How long the last member, or the judge, of the plain questions takes: long enough to strike meanwhile.
const WAIT: Duration = ms(2500);
const WORDS: usize = 60;
const BETWEEN_WORDS: Duration = ms(60);
/// The file of decisions, in the installation's directory.
const DECISIONS: &str = "decisions.jsonl";
/// How far the clock is set.
const HOURS: i64 = 2;
/// How much later things come on a slow network, each way.
const SLOW: Duration = ms(100);

/// What fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// SIGKILL; another one takes its place.
    ConsortKilled,
    /// SIGSTOP, until its callers have given up; SIGCONT.
    ConsortFrozen,
    /// Connections between Envoy and Consort are reset, and no new one comes about.
    ConsortUnreachable,
    /// Nothing arrives between Envoy and Consort, and nobody is told.
    ConsortSilent,
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
    /// The same, and `on_error` is `closed`.
    RedisGoneClosed,
    /// The file of decisions takes nothing from the start on.
    DiskFull,
    /// The system's clock is set 2 h ahead.
    ClockAhead,
    /// The same, 2 h back.
    ClockBack,
}

impl Fault {
    fn is_redis(self) -> bool {
        matches!(self, Self::RedisGone | Self::RedisGoneClosed)
    }

    /// In hours, ahead of the machine's.
    fn sets_clock_by(self) -> Option<i64> {
        match self {
            Self::ClockAhead => Some(HOURS),
            Self::ClockBack => Some(-HOURS),
            _ => None,
        }
    }
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
    /// None where this machine has no means for the fault, which is said. CI's has to have them.
    pub(super) async fn start(fault: Fault) -> Option<Self> {
        let needs_faketime = fault.sets_clock_by().is_some();
        if needs_faketime && !faketime().exists() {
            let path = faketime();
            let why = format!("{fault:?}: there is no {} (`apt-get install faketime`)", path.display());
            lacking(&why);
            return None;
        }
        let provider = Provider::start().await;
        provider.require_key(KEY);
        script(&provider, fault);
        let redis = if fault.is_redis() { Some(Redis::start().await) } else { None };
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
            Fault::ConsortSilent => self.to_consort.silence(),
            Fault::ConsortDelayed => self.to_consort.delay(SLOW),
            Fault::ConsortLossy => self.to_consort.lose(5),
            Fault::EnvoyDrained => {
                let admin = self.envoy.as_ref().expect("an Envoy to drain").admin();
                let told = http::post(admin, "/drain_listeners?graceful").send().await;
                assert_eq!(told.status, 200, "{}", told.text());
            }
            Fault::EnvoyKilled => self.envoy = None,
            Fault::ProviderKilled => self.to_provider.cut(),
            Fault::ProviderFrozen => self.to_provider.silence(),
            Fault::ProviderDelayed => self.to_provider.delay(SLOW),
            Fault::ProviderLossy => self.to_provider.lose(5),
            Fault::RedisGone | Fault::RedisGoneClosed => {
                self.redis.as_mut().expect("a Redis to kill").kill();
            }
            Fault::ClockAhead => set_clock(&self.dir, HOURS),
            Fault::ClockBack => set_clock(&self.dir, -HOURS),
            Fault::BodyCut | Fault::DiskFull => {}
        }
    }

    /// Everything that is not as it should be while the fault lasts, with what shows that it does.
    pub(super) async fn meanwhile(&self) -> Vec<String> {
        match self.fault {
            Fault::ConsortKilled
            | Fault::ConsortFrozen
            | Fault::ConsortUnreachable
            | Fault::ConsortSilent => self.without_consort().await,
            // To Consort and back; to the members and back, to the judge and back.
            Fault::ConsortDelayed => self.late(&self.to_consort, 2 * SLOW).await,
            Fault::ProviderDelayed => self.late(&self.to_provider, 4 * SLOW).await,
            Fault::ConsortLossy => self.late(&self.to_consort, Duration::ZERO).await,
            Fault::ProviderLossy => self.late(&self.to_provider, Duration::ZERO).await,
            Fault::ClockAhead | Fault::ClockBack => self.by_another_clock().await,
            Fault::RedisGone => self.without_limits("200 full").await,
            Fault::RedisGoneClosed => self.without_limits("503 limits_unavailable").await,
            _ => Vec::new(),
        }
    }

    /// On a network that is slow, or loses: what was said has come late, and a run takes as long as that makes it.
    async fn late(&self, link: &Link, at_least: Duration) -> Vec<String> {
        let late = link.late();
        let heard = hear(self.ask("meanwhile", false), || ()).await;
        let told = heard.told("meanwhile");
        if late > 0 && heard.took >= at_least && told == "200 full" {
            return Vec::new();
        }
        let fault = self.fault;
        vec![format!("{fault:?}: {late} pieces were late, and a run after them: {told} in {:?}", heard.took)]
    }

    /// A run that begins now has begun at another time of day, and takes as long as any.
    async fn by_another_clock(&self) -> Vec<String> {
        let told = hear(self.ask("meanwhile", false), || ()).await.told("meanwhile");
        let decision = self.decision("meanwhile").await;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is not 1970").as_secs() as i64;
        let began = decision["started_at_ms"].as_i64().unwrap_or_default() / 1000;
        let expected = now + 3600 * self.fault.sets_clock_by().expect("it is set");
        if told == "200 full" && began.abs_diff(expected) < 300 {
            return Vec::new();
        }
        vec![format!("{:?}: {told}, began {} s from the machine's time", self.fault, began - now)]
    }

    /// Consort knows that its Redis does not answer, and a new run is decided by `on_error`.
    async fn without_limits(&self, expected: &str) -> Vec<String> {
        let told = hear(self.ask("meanwhile", false), || ()).await.told("meanwhile");
        let ready = http::get(self.service.admin(), "/readyz").send().await;
        let store = &ready.json()["dependencies"]["limits_store"];
        if told == expected && ready.status == 200 && store["state"] == "unreachable" {
            return Vec::new();
        }
        vec![format!("{:?}: {told}, and {} {}", self.fault, ready.status, ready.text())]
    }

    /// Ensembles' requests are refused, and plain models answer.
    async fn without_consort(&self) -> Vec<String> {
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
            Fault::ConsortUnreachable
            | Fault::ConsortSilent
            | Fault::ConsortDelayed
            | Fault::ConsortLossy => self.to_consort.heal(),
            Fault::EnvoyDrained | Fault::EnvoyKilled => {
                self.envoy = Some(envoy(&self.to_consort, &self.upstream).await);
            }
            Fault::ProviderKilled | Fault::ProviderFrozen | Fault::ProviderDelayed | Fault::ProviderLossy => {
                self.to_provider.heal()
            }
            Fault::RedisGone | Fault::RedisGoneClosed => {
                self.redis.as_mut().expect("a Redis to start anew").restart().await;
            }
            Fault::ClockAhead | Fault::ClockBack => set_clock(&self.dir, 0),
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
            let usage = bill::claimed(name);
            let reply = match (name, &*id) {
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
            };
            reply.usage(usage)
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
            let on_error = if fault == Fault::RedisGone { "open" } else { "closed" };
            let redis = format!("{{url: '{url}', timeout_ms: 300, on_error: {on_error}}}");
            (format!("limits: {{store: {{redis: {redis}}}}}\n"), ", rate_limit: {rpm: 1000}")
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
            format!(
                "- {{display_name: {name}, provider: p, model_name: model-{name}, {ONE_ATTEMPT}, \
                 cost: {{input_per_1k: {}, output_per_1k: {}}}}}\n",
                PRICES.0, PRICES.1
            )
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
     timeout_ms: 5000, deadline_ms: {}{limit}}}
",
        journal.display(),
        DEADLINE.as_millis(),
    )
}

async fn serve(config: &str, dir: &TempDir, has_own_clock: bool) -> Service {
    if has_own_clock {
        set_clock(dir, 0);
    }
    Service::start_with(env!("CARGO_BIN_EXE_consort"), config, |command| {
        if has_own_clock {
            command.env("LD_PRELOAD", faketime()).env("FAKETIME_TIMESTAMP_FILE", clock(dir));
            // Durations are measured by another clock, which nobody sets.
            command.env("FAKETIME_NO_CACHE", "1").env("DONT_FAKE_MONOTONIC", "1");
        }
    })
    .await
}

/// Where Debian has libfaketime.
fn faketime() -> PathBuf {
    format!("/usr/lib/{}-linux-gnu/faketime/libfaketimeMT.so.1", std::env::consts::ARCH).into()
}

fn clock(dir: &TempDir) -> PathBuf {
    dir.path().join("clock")
}

/// Written beside and moved there, so that nobody reads half of it.
fn set_clock(dir: &TempDir, hours: i64) {
    let beside = dir.path().join("clock.new");
    fs::write(&beside, format!("{hours:+}h\n")).expect("ours");
    fs::rename(beside, clock(dir)).expect("ours");
}

async fn envoy(to_consort: &Link, upstream: &Upstream) -> Envoy {
    let options = EnvoyOptions::shipped("envoy.yaml").consort(to_consort.addr()).upstream(upstream.addr());
    let envoy = Envoy::start(options).await;
    envoy.wait_healthy().await;
    envoy
}
