//! What the rig says in the end: for people as Markdown, for programs as JSON.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde::Serialize;

use crate::Result;
use crate::stats::Stat;

/// Everything that one run of the rig has found.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    pub machine: Vec<(&'static str, String)>,
    pub targets: Vec<Target>,
    pub tables: Vec<Table>,
    /// Windows that count for nothing since a request of theirs failed.
    pub invalid_windows: usize,
    pub seconds: f64,
}

/// What was promised, and what came of it.
#[derive(Debug, Serialize)]
pub struct Target {
    pub what: &'static str,
    pub bound: Bound,
    pub value: Stat,
    pub unit: &'static str,
    pub is_met: bool,
}

#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

impl Target {
    pub fn new(what: &'static str, bound: Bound, value: Stat, unit: &'static str) -> Self {
        let is_met = match bound {
            Bound::AtLeast(least) => value.median >= least,
            Bound::AtMost(most) => value.median <= most,
        };
        Self { what, bound, value, unit, is_met }
    }
}

#[derive(Debug, Serialize)]
pub struct Table {
    pub title: &'static str,
    pub note: &'static str,
    pub columns: Vec<&'static str>,
    pub rows: Vec<Vec<Cell>>,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum Cell {
    Text(String),
    Value(Stat),
}

impl From<Stat> for Cell {
    fn from(stat: Stat) -> Self {
        Self::Value(stat)
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::Text(text.into())
    }
}

/// What a scenario has found.
#[derive(Debug, Default)]
pub struct Findings {
    pub targets: Vec<Target>,
    pub tables: Vec<Table>,
    pub invalid_windows: usize,
}

impl Report {
    pub fn new(is_quick: bool) -> Self {
        Self { machine: machine(is_quick), ..Self::default() }
    }

    pub fn add(&mut self, found: Findings) {
        self.targets.extend(found.targets);
        self.tables.extend(found.tables);
        self.invalid_windows += found.invalid_windows;
    }

    pub fn write(&self, directory: &Path) -> Result<()> {
        fs::create_dir_all(directory)?;
        fs::write(directory.join("report.md"), self.markdown()?)?;
        Ok(fs::write(directory.join("report.json"), serde_json::to_string_pretty(self)?)?)
    }

    pub fn markdown(&self) -> Result<String> {
        let mut text = String::new();
        for (name, value) in &self.machine {
            writeln!(text, "- {name}: {value}")?;
        }
        writeln!(text, "- took {:.0} s; {} windows were invalid", self.seconds, self.invalid_windows)?;
        if !self.targets.is_empty() {
            text.push_str("\n## Targets\n\n| what | target | measured | |\n|---|---|---|---|\n");
        }
        for target in &self.targets {
            let bound = match target.bound {
                Bound::AtLeast(least) => format!("≥ {}", number(least)),
                Bound::AtMost(most) => format!("≤ {}", number(most)),
            };
            let verdict = if target.is_met { "met" } else { "**missed**" };
            let (unit, value) = (target.unit, shown(&target.value));
            writeln!(text, "| {} | {bound}{unit} | {value}{unit} | {verdict} |", target.what)?;
        }
        for table in &self.tables {
            writeln!(text, "\n## {}\n\n{}\n", table.title, table.note)?;
            writeln!(text, "| {} |\n|{}", table.columns.join(" | "), "---|".repeat(table.columns.len()))?;
            for row in &table.rows {
                let cells: Vec<String> = row.iter().map(Cell::shown).collect();
                writeln!(text, "| {} |", cells.join(" | "))?;
            }
        }
        Ok(text)
    }
}

impl Cell {
    pub fn shown(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Value(stat) => shown(stat),
        }
    }
}

fn shown(stat: &Stat) -> String {
    match stat.n {
        0 => "invalid".to_owned(),
        1 => number(stat.median),
        _ => format!("{} ± {}", number(stat.median), number(stat.spread)),
    }
}

/// Three digits that tell something.
fn number(value: f64) -> String {
    match value.abs() {
        100.0.. => format!("{value:.0}"),
        10.0.. => format!("{value:.1}"),
        1.0.. => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

fn machine(is_quick: bool) -> Vec<(&'static str, String)> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.split_once(':').map_or("unknown", |(_, value)| value.trim()).to_owned()
    };
    let said = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output();
        output
            .map_or("unknown".to_owned(), |output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let cores = crate::cores::allowed().len();
    let kernel = read("/proc/sys/kernel/osrelease");
    let load = read("/proc/loadavg");
    vec![
        (
            "machine",
            format!(
                "{}, {cores} cores, {}",
                field(&read("/proc/cpuinfo"), "model name"),
                std::env::consts::ARCH
            ),
        ),
        ("memory", field(&read("/proc/meminfo"), "MemTotal")),
        ("kernel", kernel.trim().to_owned()),
        ("load before", load.split_whitespace().next().unwrap_or_default().to_owned()),
        ("Envoy", consort_testkit::fetch::ENVOY_VERSION.to_owned()),
        ("commit", said("git", &["rev-parse", "--short", "HEAD"])),
        ("compiler", said("rustc", &["--version"])),
        (
            "run",
            if is_quick { "quick: it shows that the rig lives, not how fast Consort is" } else { "full" }
                .to_owned(),
        ),
    ]
}
