//! Mixed traffic with faults for as long as one likes, and an oracle that knows what every answer must be.
//!
//! ```text
//! cargo run --release --example soak -- --minutes 60
//! cargo run --example soak                              two minutes
//! ```
//!
//! Callers → a real Envoy with the shipped file → Consort → scripted providers. Everything about request number n
//! follows from n (`plan`): what is asked, what fails, what the answer is. The books of callers, providers and
//! decisions are held against one another run by run (`ledger`). The verdict is a table, and the exit code.

#![expect(
    clippy::print_stdout,
    clippy::indexing_slicing,
    reason = "a program that reports, and is nobody's library"
)]

mod caller;
mod ledger;
mod plan;
mod provider;
mod stand;
mod verdict;
mod vitals;

#[path = "../rig/cores.rs"]
#[expect(dead_code, reason = "the rig's; here it reads memory and CPU time")]
mod cores;

use std::error::Error;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Parser;
use consort_testkit::envoy::{Envoy, EnvoyOptions};
use futures_util::future::join_all;

use caller::Callers;
use ledger::Ledger;
use provider::Provider;
use stand::{Consort, PLACES, Tail};
use verdict::Verdict;
use vitals::Line;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// What a run may leave behind in memory, in bytes: less than any allocation that it could forget.
const LEFT_BEHIND: f64 = 16.0;
/// How much of the journal may stay when nothing goes on, in bytes: it is emptied beyond that.
const JOURNAL_AT_REST: u64 = 64 << 10;
/// How long callers ask before it is looked what Consort has at rest, so that whatever is made once has been made.
const WARM_UP: Duration = Duration::from_secs(8);
/// How often decisions are read and memory is measured.
const EVERY: Duration = Duration::from_millis(500);
/// How long at most what goes on may take to come to rest.
const SETTLE: Duration = Duration::from_secs(20);

/// Soaks Consort.
#[derive(Debug, Parser)]
#[command(name = "soak")]
struct Options {
    /// How long the load lasts.
    #[arg(long, default_value_t = 2.0)]
    minutes: f64,
    /// How many callers ask at once.
    #[arg(long, default_value_t = 64)]
    callers: usize,
    /// The number of the first request: others see other faults elsewhere.
    #[arg(long, default_value_t = 1)]
    first: u64,
    /// Where the report goes as well, as Markdown.
    #[arg(long)]
    out: Option<PathBuf>,
    /// The program that is soaked, instead of the one that is built now.
    #[arg(long)]
    consort: Option<PathBuf>,
    /// Tests the oracle: every so many runs are answered with what belongs to the next one.
    #[arg(long, default_value_t = 0)]
    swap: u64,
}

#[tokio::main]
async fn main() -> ExitCode {
    let options = Options::parse();
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_target(false).init();
    match Box::pin(soak(&options)).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// What must be as it was before.
#[derive(Clone, Copy, Debug)]
struct Rest {
    descriptors: u64,
    tasks: u64,
}

struct Soak {
    ledger: Arc<Ledger>,
    provider: Provider,
    consort: Consort,
    envoy: Envoy,
    tail: Tail,
    /// Minutes since the beginning, and the bytes of Consort and Envoy.
    memory: Vec<(f64, [u64; 2])>,
}

async fn soak(options: &Options) -> Result<bool> {
    let program = built(options)?;
    let mut soak = Soak::start(&program, options.swap).await?;
    // What is made once, and kept, is made now.
    let mut next = soak.load(options.callers, WARM_UP, options.first, false).await?;
    soak.settle().await?;
    let before = soak.rest().await?;
    let began = Instant::now();
    let cpu = soak.cpu()?;
    let lasts = Duration::from_secs_f64(options.minutes * 60.0);
    next = soak.load(options.callers, lasts, next, true).await?;
    let seconds = began.elapsed().as_secs_f64();
    let used: Vec<f64> = soak.cpu()?.iter().zip(cpu).map(|(now, before)| (now - before) / seconds).collect();
    let probe = soak.probe().await?;
    soak.settle().await?;
    let verdict = soak.verdict(before, probe, options.minutes).await?;
    let totals = soak.ledger.totals();
    let mut report = format!(
        "Soak of {} minutes, {} callers: {} requests ({:.0}/s), {} of plain models; {} calls of models, of which {} were faulty; \
         {:.2} cores of Consort, {:.2} of Envoy, {:.2} of callers and providers.\n\nRequests with a fault: ",
        options.minutes,
        options.callers,
        totals.asked,
        totals.asked as f64 / seconds,
        totals.passed,
        totals.calls,
        totals.faults,
        used[0],
        used[1],
        used[2],
    );
    let troubled = caller::troubled(options.first..next).map(|(name, count)| format!("{name} {count}"));
    report.push_str(&format!("{}.\n\n{}\n", troubled.join(", "), verdict.table()));
    for wrong in &totals.wrongs {
        report.push_str(&format!("\n- {wrong}"));
    }
    println!("{report}");
    if let Some(out) = &options.out {
        std::fs::write(out, &report)?;
    }
    let ended = soak.consort.end().await?;
    println!("\n{}", if verdict.holds() && ended { "PASS" } else { "FAIL" });
    Ok(verdict.holds() && ended)
}

impl Soak {
    async fn start(program: &std::path::Path, swap: u64) -> Result<Self> {
        let ledger = Arc::<Ledger>::default();
        let provider = Provider::start(Arc::clone(&ledger), swap).await?;
        let consort = Consort::start(program, provider.addr).await?;
        let tail = Tail::of(consort.decisions());
        let shipped = EnvoyOptions::shipped("envoy.yaml");
        let envoy = Envoy::start(shipped.consort(consort.ext_proc).upstream(provider.addr)).await;
        envoy.wait_healthy().await;
        Ok(Self { ledger, provider, consort, envoy, tail, memory: Vec::new() })
    }

    /// Lets callers ask for so long, from this number on; the number of the next request.
    async fn load(&mut self, callers: usize, lasts: Duration, first: u64, is_watched: bool) -> Result<u64> {
        let door = (self.envoy.addr(), self.consort.door);
        let all = Arc::new(Callers::new(door.0, door.1, Arc::clone(&self.ledger), first));
        let (began, mut said) = (Instant::now(), Instant::now());
        let until = began + lasts;
        let asking: Vec<_> = (0..callers)
            .map(|caller| {
                let all = Arc::clone(&all);
                tokio::spawn(async move { all.one(caller, until).await })
            })
            .collect();
        while !asking.iter().all(|caller| caller.is_finished()) {
            tokio::time::sleep(EVERY).await;
            self.read()?;
            if is_watched && Instant::now() < until {
                let bytes = [self.consort.id()?, self.envoy.id()]
                    .map(|pid| cores::resident(pid).map_or(0, |now| now.0));
                self.memory.push((began.elapsed().as_secs_f64() / 60.0, bytes));
            }
            if said.elapsed() > Duration::from_secs(30) {
                said = Instant::now();
                let totals = self.ledger.totals();
                let rss = self.memory.last().map_or(0, |(_, bytes)| bytes[0] >> 10);
                tracing::info!(asked = totals.asked, wrong = totals.wrong, rss_kib = rss, "soaking");
            }
        }
        for caller in asking {
            caller.await?;
        }
        Ok(all.made())
    }

    fn read(&mut self) -> Result<()> {
        for decision in self.tail.more()? {
            self.ledger.decided(decision);
        }
        Ok(())
    }

    /// Waits until nothing goes on any more, as far as it ends.
    async fn settle(&mut self) -> Result<()> {
        let began = Instant::now();
        let (mut last, mut calm) = (None, 0);
        while began.elapsed() < SETTLE && calm < 6 {
            tokio::time::sleep(Duration::from_millis(250)).await;
            self.provider.hang_up();
            self.read()?;
            let inflight = self.consort.metrics().await.sum("consort_inflight", "");
            let now = (self.ledger.open(), inflight as u64, stand::descriptors(self.consort.id()?)?);
            calm = if last == Some(now) && now.1 == 0 { calm + 1 } else { 0 };
            last = Some(now);
        }
        Ok(())
    }

    async fn rest(&self) -> Result<Rest> {
        let pid = self.consort.id()?;
        // The connections of these questions may still be closing: what is left behind stays.
        let (mut descriptors, mut tasks) = (u64::MAX, u64::MAX);
        for _ in 0..10 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            descriptors = descriptors.min(stand::descriptors(pid)?);
            tasks = tasks.min(self.consort.metrics().await.sum("consort_tasks", "") as u64);
        }
        Ok(Rest { descriptors, tasks })
    }

    /// Takes every place at once, and one more: a permit that leaked would be missed.
    async fn probe(&mut self) -> Result<(u64, u64)> {
        let callers = Callers::new(self.envoy.addr(), self.consort.door, Arc::clone(&self.ledger), 0);
        let asked = join_all((0..=PLACES).map(|i| callers.probe(plan::PROBE + i))).await;
        let with = |status| asked.iter().filter(|seen| **seen == Some(status)).count() as u64;
        Ok((with(200), with(503) + with(429)))
    }

    fn cpu(&self) -> Result<[f64; 3]> {
        let seconds = |pid| cores::cpu_seconds(pid);
        Ok([seconds(self.consort.id()?)?, seconds(self.envoy.id())?, seconds(std::process::id())?])
    }

    async fn verdict(&mut self, before: Rest, probe: (u64, u64), minutes: f64) -> Result<Verdict> {
        self.ledger.finish();
        let totals = self.ledger.totals();
        let metrics = self.consort.metrics().await;
        let after = self.rest().await?;
        let count = |name: &str, label: &str| metrics.sum(name, label).round() as u64;
        let mut verdict = Verdict::default();
        verdict.none("wrong answers, and books that differ", totals.wrong);
        verdict.none("runs in flight", count("consort_inflight", ""));
        let (going_on, bytes) = self.consort.journal()?;
        verdict.none("runs that go on by the journal", going_on);
        verdict.says("bytes of the journal", bytes.to_string(), bytes <= JOURNAL_AT_REST);
        verdict.none("places that models' limits count as taken", self.consort.taken().await);
        let places = format!("{} of {PLACES} taken, {} refused", probe.0, probe.1);
        verdict.says("every place can be taken at once, and not one more", places, probe == (PLACES, 1));
        for (what, before, after) in [
            ("file descriptors", before.descriptors, after.descriptors),
            ("tasks", before.tasks, after.tasks),
        ] {
            verdict.says(
                format!("Consort's {what}, before and after"),
                format!("{before} and {after}"),
                after <= before,
            );
        }
        verdict.none("its connections to providers", self.provider.connections() as u64);
        for stat in [
            "http.llm.downstream_rq_active",
            "cluster.consort.upstream_rq_active",
            "cluster.upstream.upstream_rq_active",
        ] {
            verdict.none(format!("Envoy's {stat}"), self.envoy.stats(stat).await);
        }
        verdict.none("errors in Consort's log", self.consort.complaints()?.len() as u64);
        self.grown(&mut verdict, totals.closed as f64 / minutes);
        verdict.same(
            "runs: decisions, and by metrics",
            totals.decisions(),
            count("consort_requests_total", ""),
        );
        for (outcome, decisions) in &totals.outcomes {
            let label = format!("outcome=\"{outcome}\"");
            verdict.same(format!("… {outcome}"), *decisions, count("consort_requests_total", &label));
        }
        verdict.same("plain requests: callers', and the upstream's", totals.passed, totals.upstream);
        verdict.same("… and by metrics", totals.passed, count("consort_passthrough_total", ""));
        let members = ["m0", "m1", "m2"]
            .map(|model| count("consort_member_calls_total", &format!("model=\"{model}\"")));
        verdict.same("members' calls: decisions', and by metrics", totals.members, members.iter().sum());
        verdict.same(
            "retries: decisions', and by metrics",
            totals.retries,
            count("consort_retries_total", ""),
        );
        let unarrived = format!("{} and {}", totals.attempts, totals.calls);
        let is_near = totals.calls <= totals.attempts;
        verdict.says("attempts: decisions', and calls that reached providers", unarrived, is_near);
        let (told, billed) = (totals.told, totals.billed);
        let what =
            format!("tokens read of the {} runs that were billed in full: told, and billed", totals.exact);
        verdict.same(what, told.prompt_tokens, billed.prompt_tokens);
        verdict.same("… written", told.completion_tokens, billed.completion_tokens);
        for (kind, tokens) in
            [("input", totals.tokens.prompt_tokens), ("output", totals.tokens.completion_tokens)]
        {
            let label = format!("gen_ai_token_type=\"{kind}\"");
            let counted = count("gen_ai_client_token_usage_sum", &label);
            verdict.same(format!("tokens of all runs, {kind}: decisions', and by metrics"), tokens, counted);
        }
        let cost = metrics.sum("consort_cost_usd_total", "");
        let is_same = (cost - totals.cost_usd).abs() < 1e-6 * cost.max(1.0);
        verdict.says(
            "US dollars: decisions', and by metrics",
            format!("{:.4} and {cost:.4}", totals.cost_usd),
            is_same,
        );
        Ok(verdict)
    }

    /// Whether Consort's memory has grown with the runs, after the first quarter of the time.
    fn grown(&self, verdict: &mut Verdict, runs_a_minute: f64) {
        let settled = &self.memory[self.memory.len() / 4..];
        let bound = LEFT_BEHIND * runs_a_minute;
        for (which, name) in ["Consort's", "Envoy's"].into_iter().enumerate() {
            let samples: Vec<_> = settled.iter().map(|(at, bytes)| (*at, bytes[which] as f64)).collect();
            let Some(line) = Line::through(&samples) else {
                verdict.says(format!("{name} memory"), "too short to tell", which > 0);
                continue;
            };
            let ends =
                [samples.first(), samples.last()].map(|at| at.map_or(0.0, |at| at.1 / f64::from(1 << 20)));
            let seen = format!(
                "{:+.1} ± {:.1} KiB/min, {:.1} → {:.1} MiB; bound {:.1} KiB/min",
                line.slope / 1024.0,
                line.error / 1024.0,
                ends[0],
                ends[1],
                bound / 1024.0
            );
            // Beyond doubt: by two errors. Envoy is only told of.
            let holds = which > 0 || line.slope - 2.0 * line.error <= bound;
            verdict.says(format!("{name} memory"), seen, holds);
        }
    }
}

/// The program that is soaked, built as this one was.
fn built(options: &Options) -> Result<PathBuf> {
    if let Some(program) = &options.consort {
        return Ok(program.clone());
    }
    // Beside this example: target/{profile}/examples/soak.
    let examples =
        std::env::current_exe()?.parent().map(std::path::Path::to_owned).ok_or("a program lies somewhere")?;
    let profile = examples.parent().ok_or("examples lie in the profile's directory")?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    // With the example, so that dependencies keep the features with which they are built.
    build.current_dir(consort_testkit::workspace()).args([
        "build",
        "--locked",
        "--bin",
        "consort",
        "--example",
        "soak",
    ]);
    if profile.ends_with("release") {
        build.arg("--release");
    }
    if !build.status()?.success() {
        return Err("the program to soak could not be built".into());
    }
    Ok(profile.join("consort"))
}
