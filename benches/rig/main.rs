//! How fast Consort is, beside what it stands on, on one machine.
//!
//! ```text
//! cargo run --release --example rig                       all scenarios, about 12 minutes
//! cargo run --release --example rig -- --quick            the same in small: whether the rig lives
//! cargo run --release --example rig -- --only ensemble    some of them
//! ```
//!
//! What is compared takes turns (A B A B); a window with a failed request counts for nothing; what is told is the median
//! with the median distance from it. Each process has its core, where there are enough: `docs/performance.md` says more.

#![expect(
    clippy::print_stdout,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a program that reports, and is nobody's library"
)]

mod caller;
mod cores;
mod load;
mod processor;
mod provider;
mod report;
mod scenarios;
mod stand;
mod stats;

use std::error::Error;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use clap::{Parser, Subcommand, ValueEnum};
use indicatif::ProgressBar;

use load::Generator;
use report::{Findings, Report};
use scenarios::{big, ensemble, many, overload, passing, straggler};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// Measures Consort beside what it stands on.
#[derive(Debug, Parser)]
#[command(name = "rig")]
struct Options {
    /// Small windows, few rounds: shows that the rig lives.
    #[arg(long)]
    quick: bool,
    /// These scenarios alone.
    #[arg(long, value_delimiter = ',')]
    only: Vec<Scenario>,
    /// Where the report goes: report.md and report.json.
    #[arg(long, default_value = "target/rig")]
    out: PathBuf,
    /// The program that is measured, instead of the one that is built now.
    #[arg(long)]
    consort: Option<PathBuf>,
    #[command(subcommand)]
    part: Option<Part>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Scenario {
    Passing,
    Ensemble,
    Straggler,
    Big,
    Many,
    Overload,
}

/// What the rig starts of itself, in processes of their own.
#[derive(Clone, Copy, Debug, Subcommand)]
#[command(hide = true)]
enum Part {
    Provider,
    Processor,
}

/// What all scenarios need.
pub struct Rig {
    pub is_quick: bool,
    pub generator: Generator,
    /// The release program.
    pub consort: PathBuf,
    /// The same, with its heap counted.
    pub counted: PathBuf,
    pub progress: ProgressBar,
}

impl Rig {
    /// What takes part in a full run, and what in a quick one.
    pub fn choose<T>(&self, full: T, quick: T) -> T {
        if self.is_quick { quick } else { full }
    }

    pub fn say(&self, what: impl Into<String>) {
        let what = what.into();
        if self.progress.is_hidden() {
            tracing::info!("{what}");
        }
        self.progress.set_message(what);
    }
}

fn main() -> ExitCode {
    let options = Options::parse();
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_target(false).init();
    // One thread: what it pins itself to is where its callers run.
    let runtime = match options.part {
        Some(Part::Processor) => tokio::runtime::Builder::new_multi_thread().enable_all().build(),
        _ => tokio::runtime::Builder::new_current_thread().enable_all().build(),
    };
    let ran = runtime.map_err(Into::into).and_then(|runtime| {
        runtime.block_on(async {
            match options.part {
                Some(Part::Provider) => provider::serve(announce).await.map(|()| true),
                Some(Part::Processor) => processor::serve(announce).await.map(|()| true),
                None => Box::pin(run(&options)).await,
            }
        })
    });
    match ran {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn announce(addr: SocketAddr) {
    println!("{addr}");
}

/// Whether every window of every scenario was valid.
async fn run(options: &Options) -> Result<bool> {
    let began = Instant::now();
    cores::allowed();
    let (consort, counted) = built(options.consort.as_deref())?;
    let progress = ProgressBar::new_spinner();
    progress.enable_steady_tick(Duration::from_millis(250));
    let rig = Rig { is_quick: options.quick, generator: Generator::new()?, consort, counted, progress };
    let mut report = Report::new(options.quick);
    let wants = |scenario| options.only.is_empty() || options.only.contains(&scenario);
    for scenario in Scenario::value_variants().iter().copied().filter(|scenario| wants(*scenario)) {
        report.add(found(&rig, scenario).await?);
        report.seconds = began.elapsed().as_secs_f64();
        report.write(&options.out)?;
    }
    rig.progress.finish_and_clear();
    println!("{}", report.markdown()?);
    Ok(report.invalid_windows == 0)
}

async fn found(rig: &Rig, scenario: Scenario) -> Result<Findings> {
    match scenario {
        Scenario::Passing => Box::pin(passing::find(rig)).await,
        Scenario::Ensemble => Box::pin(ensemble::find(rig)).await,
        Scenario::Straggler => Box::pin(straggler::find(rig)).await,
        Scenario::Big => Box::pin(big::find(rig)).await,
        Scenario::Many => Box::pin(many::find(rig)).await,
        Scenario::Overload => Box::pin(overload::find(rig)).await,
    }
}

/// The program that is measured and the one whose heap is counted, built as they would be shipped.
fn built(given: Option<&Path>) -> Result<(PathBuf, PathBuf)> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    // What `cargo run` tells the rig of its own package would have dependencies built again.
    for (name, _) in std::env::vars_os() {
        if ["CARGO_PKG_", "CARGO_MANIFEST_"].iter().any(|told| name.to_string_lossy().starts_with(told)) {
            build.env_remove(name);
        }
    }
    build.current_dir(consort_testkit::workspace()).args(["build", "--release", "--locked"]);
    if given.is_none() {
        build.args(["--bin", "consort"]);
    }
    if !build.args(["--example", "counted"]).status()?.success() {
        return Err("the programs to measure could not be built".into());
    }
    // Beside this example: target/release/examples/rig.
    let examples = std::env::current_exe()?.parent().map(Path::to_owned).ok_or("a program lies somewhere")?;
    let release =
        examples.parent().ok_or("examples lie in the profile's directory")?.with_file_name("release");
    let consort = given.map_or_else(|| release.join("consort"), Path::to_owned);
    Ok((consort, release.join("examples/counted")))
}
