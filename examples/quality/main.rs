//! Which strategy serves on one's own recordings: what models answered once is replayed through a whole
//! installation, by every strategy, and compared with the truth.
//!
//! ```text
//! cargo run --release --example quality -- examples/quality/sample.jsonl
//! ```
//!
//! `recordings.rs` tells the format, `--help` the options. The table goes to standard output. Whatever ends it, an
//! error, Ctrl-C or `kill`, every process that it started ends with it.

mod answers;
mod judge;
mod recordings;
mod replay;
mod report;
mod strategies;
mod table;

use std::error::Error;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use consort::cli::Cli;
use consort_testkit::fetch;
use futures_util::{StreamExt as _, TryStreamExt as _};
use indicatif::{ProgressBar, ProgressStyle};
use tokio::signal::unix::{SignalKind, signal};

use answers::{AnswerKind, Answers};
use judge::RealJudge;
use recordings::Recordings;
use replay::{Plan, Replay};
use report::{Report, Tally};
use strategies::Strategy;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// Replays recorded answers by every strategy, and tells how often each is right.
#[derive(Debug, Parser)]
#[command(name = "quality")]
struct Options {
    /// One JSON object a line: `prompt`, `answer` (the truth), `candidates` (model to text).
    file: PathBuf,
    /// Take the first N recordings only.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
    /// How answers are read for comparing.
    #[arg(long, value_enum, default_value = "number")]
    answer: AnswerKind,
    /// Weights of members; 1 where none is given. Default: each member's share of right answers in this file.
    #[arg(long, value_name = "MODEL=W", value_delimiter = ',', value_parser = weight)]
    weights: Vec<(String, f64)>,
    /// Try these strategies only.
    #[arg(long, value_enum, value_name = "STRATEGY", value_delimiter = ',')]
    only: Vec<Strategy>,
    /// How many questions are asked at once.
    #[arg(long, value_name = "N", default_value = "16", value_parser = clap::value_parser!(u16).range(1..))]
    concurrency: u16,
    /// Let a real judge judge, behind this OpenAI-compatible API. `pairwise` asks it about every two answers in
    /// both orders: 42 times for a panel of seven.
    #[arg(long, value_name = "URL", requires = "judge_model")]
    judge_url: Option<String>,
    /// What that API calls the judge.
    #[arg(long, value_name = "NAME", requires = "judge_url")]
    judge_model: Option<String>,
    /// The environment variable with that API's key.
    #[arg(long, value_name = "VAR", requires = "judge_url")]
    judge_key_env: Option<String>,
    /// Print tables in Markdown.
    #[arg(long)]
    markdown: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    // The service that is measured is a process of its own, and `cargo run --example` builds no other program.
    if std::env::args_os().nth(1).is_some_and(|command| command == "serve") {
        return Cli::parse().run().await;
    }
    let options = Options::parse();
    let ran = tokio::select! {
        ran = Box::pin(run(options)) => ran,
        stopped = told_to_stop() => stopped,
    };
    ran.unwrap_or_else(|error| {
        let _ = writeln!(io::stderr(), "quality: {error}");
        ExitCode::FAILURE
    })
}

async fn run(options: Options) -> Result<ExitCode> {
    let answers = Answers::of(options.answer)?;
    let limit = options.limit.map(usize::try_from).transpose()?;
    let recordings = Arc::new(Recordings::read(&options.file, limit, &answers)?);
    let mut report = Report::of(Arc::clone(&recordings), &options.weights)?;
    let strategies = options.strategies(recordings.members.len());
    let judge = options.judge_url.zip(options.judge_model);
    let replay = Replay::start(Plan {
        recordings: Arc::clone(&recordings),
        answers,
        answer: options.answer,
        weights: report.weights().to_vec(),
        strategies: strategies.clone(),
        judge: judge.map(|(url, model)| RealJudge { url, model, key_env: options.judge_key_env }),
    })
    .await?;
    let progress = progress(strategies.len() * recordings.questions.len());
    for strategy in strategies {
        progress.set_message(strategy.title());
        let tally = tally(&replay, strategy, usize::from(options.concurrency), &progress).await?;
        report.add(strategy, tally, replay.plan().judge.as_ref());
    }
    progress.finish_and_clear();
    // Whoever closed our output does not want to hear of it.
    let _ = write!(io::stdout(), "{}", report.shown(options.markdown));
    Ok(ExitCode::SUCCESS)
}

impl Options {
    /// The strategies to try, in the table's order.
    fn strategies(&self, members: usize) -> Vec<Strategy> {
        let is_wanted = |one: &Strategy| self.only.is_empty() || self.only.contains(one);
        let all = <Strategy as clap::ValueEnum>::value_variants().iter().copied();
        all.filter(is_wanted).filter(|one| one.takes(self.answer, members)).collect()
    }
}

/// Asks every question of one strategy's ensemble.
async fn tally(
    replay: &Replay,
    strategy: Strategy,
    concurrency: usize,
    progress: &ProgressBar,
) -> Result<Tally> {
    replay.prepare(strategy);
    let questions = futures_util::stream::iter(&replay.plan().recordings.questions);
    let asked = questions.map(async |question| Ok((question, replay.ask(strategy, question).await?)));
    asked
        .buffer_unordered(concurrency)
        .try_fold(Tally::default(), async |mut tally, (question, outcome)| {
            progress.inc(1);
            tally.add(&question.truth, outcome);
            Ok(tally)
        })
        .await
}

/// On standard error, and only where somebody watches.
fn progress(length: usize) -> ProgressBar {
    let bar = ProgressBar::new(u64::try_from(length).unwrap_or(u64::MAX));
    match ProgressStyle::with_template("{msg:24} {wide_bar} {pos}/{len} ({eta})") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

fn weight(text: &str) -> Result<(String, f64)> {
    let (model, weight) = text.rsplit_once('=').ok_or("not MODEL=WEIGHT")?;
    let weight: f64 = weight.parse()?;
    if weight.is_finite() && weight > 0.0 {
        Ok((model.to_owned(), weight))
    } else {
        Err("a weight is above 0".into())
    }
}

/// Without listening, the default of each signal would leave Envoy and the service behind.
async fn told_to_stop() -> Result<ExitCode> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        _ = hangup.recv() => {}
    }
    // A download has a thread of its own.
    fetch::interrupt();
    Ok(ExitCode::from(130))
}
