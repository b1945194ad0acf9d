//! `consort replay`: which strategy serves on one's own recordings. What models answered once is given to every
//! strategy, and compared with the truth.

mod answers;
mod judge;
mod recordings;
mod rehearsal;
mod report;
mod strategies;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args, ValueEnum};
use futures_util::{StreamExt as _, TryStreamExt as _};
use indicatif::{ProgressBar, ProgressStyle};

use super::Result;
use answers::{AnswerKind, Answers};
use judge::RealJudge;
use recordings::Recordings;
use rehearsal::{Plan, Rehearsal};
use report::{Report, Tally};
use strategies::Strategy;

/// Replays recorded answers by every strategy, and tells how often each is right.
#[derive(Debug, Args)]
pub(super) struct Replay {
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

impl Replay {
    /// Replays, and prints the tables.
    pub(super) async fn run(self) -> Result<ExitCode> {
        let answers = Answers::of(self.answer)?;
        let limit = self.limit.map(usize::try_from).transpose()?;
        let recordings = Arc::new(Recordings::read(&self.file, limit, &answers)?);
        let mut report = Report::of(Arc::clone(&recordings), &self.weights)?;
        let strategies = self.strategies(recordings.members.len());
        let judge = self.judge_url.zip(self.judge_model);
        let rehearsal = Rehearsal::new(Plan {
            recordings: Arc::clone(&recordings),
            answers,
            answer: self.answer,
            weights: report.weights().to_vec(),
            strategies: strategies.clone(),
            judge: judge.map(|(url, model)| RealJudge { url, model, key_env: self.judge_key_env }),
        })?;
        let progress = progress(strategies.len() * recordings.questions.len());
        for strategy in strategies {
            progress.set_message(strategy.title());
            let tally = tally(&rehearsal, strategy, usize::from(self.concurrency), &progress).await?;
            report.add(strategy, tally, rehearsal.plan().judge.as_ref());
        }
        progress.finish_and_clear();
        write!(io::stdout(), "{}", report.shown(self.markdown))?;
        Ok(ExitCode::SUCCESS)
    }

    /// The strategies to try, in the table's order.
    fn strategies(&self, members: usize) -> Vec<Strategy> {
        let is_wanted = |one: &Strategy| self.only.is_empty() || self.only.contains(one);
        let all = Strategy::value_variants().iter().copied();
        all.filter(is_wanted).filter(|one| one.takes(self.answer, members)).collect()
    }
}

/// Asks every question of one strategy's ensemble.
async fn tally(
    rehearsal: &Rehearsal,
    strategy: Strategy,
    concurrency: usize,
    progress: &ProgressBar,
) -> Result<Tally> {
    rehearsal.prepare(strategy);
    let questions = futures_util::stream::iter(&rehearsal.plan().recordings.questions);
    let asked = questions.map(async |question| Ok((question, rehearsal.ask(strategy, question).await?)));
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
