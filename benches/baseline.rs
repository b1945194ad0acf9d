//! Instructions and allocations of what every request pays, beside those of the committed `benches/baseline.json`.
//!
//! ```text
//! cargo bench --bench baseline               compares; fails where one has grown by more than 10 %
//! cargo bench --bench baseline -- --renew    writes the file anew
//! ```
//!
//! Instructions are counted by valgrind's callgrind, in a child of this program for each case, and only inside of
//! [`measured`]. They do not wobble as time does: `cargo bench --bench micro` has the nanoseconds.

#![expect(clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "a table is what this prints")]

mod cases;

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use allocation_counter::measure;
use cases::Case;
use consort::telemetry::metrics;
use serde::{Deserialize, Serialize};

/// How much more there may be than in the baseline.
const MOST: f64 = 1.10;
/// What a child is told its case by.
const CASE: &str = "CONSORT_BASELINE_CASE";
/// Instructions differ between architectures.
const ARCH: &str = env::consts::ARCH;

/// What a case costs.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Costs {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    instructions: Option<u64>,
    allocations: u64,
    peak_bytes: u64,
}

/// The committed file.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Baseline {
    arch: String,
    cases: BTreeMap<String, Costs>,
}

fn main() -> ExitCode {
    // Before anything counts, as in the program.
    metrics::install();
    if let Ok(name) = env::var(CASE) {
        let case = cases::all().into_iter().find(|case| case.name == name).expect("a case by its name");
        case.prepare();
        measured(&case);
        return ExitCode::SUCCESS;
    }
    // Cargo runs what it benches once as a test, without `--bench`: then one look at each case is enough.
    let is_bench = env::args().any(|argument| argument == "--bench");
    let valgrind = is_bench && has_valgrind();
    let counted: Vec<(Case, Costs)> = cases::all()
        .into_iter()
        .map(|case| {
            let costs = counted(&case, valgrind);
            (case, costs)
        })
        .collect();
    if env::args().any(|argument| argument == "--renew") {
        let cases = counted.iter().map(|(case, costs)| (case.name.clone(), *costs)).collect();
        let baseline = Baseline { arch: ARCH.to_owned(), cases };
        let json = serde_json::to_string_pretty(&baseline).expect("plain data");
        fs::write(file(), json + "\n").expect("the baseline is written");
        return ExitCode::SUCCESS;
    }
    let baseline = fs::read_to_string(file()).ok().and_then(|text| serde_json::from_str(&text).ok());
    let grown = compare(&baseline.unwrap_or_default(), &counted);
    if grown > 0 {
        println!(
            "\n{grown} of them grew by more than 10 %. If they had to: cargo bench --bench baseline -- --renew"
        );
    }
    // A machine without valgrind knows half of it; where everything must be known, that is a failure.
    let is_half = is_bench && !valgrind && env::var_os("CI").is_some();
    if grown > 0 || is_half { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// What callgrind looks into, and nothing around it.
#[inline(never)]
fn measured(case: &Case) {
    case.run();
}

fn counted(case: &Case, valgrind: bool) -> Costs {
    case.prepare();
    let counted = measure(|| case.run());
    Costs {
        instructions: valgrind.then(|| instructions(&case.name)),
        allocations: counted.count_total,
        peak_bytes: counted.bytes_max,
    }
}

/// Prints it all side by side; how many have grown too much.
fn compare(baseline: &Baseline, counted: &[(Case, Costs)]) -> usize {
    println!(
        "{:<44} {:>24} {:>9} {:>18} {:>12}",
        "", "instructions", "per byte", "allocations", "peak bytes"
    );
    let mut grown = 0;
    for (Case { name, bytes, .. }, costs) in counted {
        let each =
            costs.instructions.zip(*bytes).map(|(all, bytes)| format!("{:.2}", all as f64 / bytes as f64));
        let each = each.unwrap_or_default();
        let before = baseline.cases.get(name);
        let instructions = before.filter(|_| baseline.arch == ARCH).and_then(|before| before.instructions);
        let (instructions, more_work) = beside(costs.instructions, instructions);
        let (allocations, more_pieces) =
            beside(Some(costs.allocations), before.map(|before| before.allocations));
        println!("{name:<44} {instructions:>24} {each:>9} {allocations:>18} {:>12}", costs.peak_bytes);
        grown += usize::from(more_work || more_pieces);
    }
    grown
}

/// A number beside what it was, and whether it has grown too much.
fn beside(now: Option<u64>, before: Option<u64>) -> (String, bool) {
    match (now, before) {
        (Some(now), Some(before)) => {
            let ratio = now as f64 / before.max(1) as f64;
            // One allocation more is more than 10 % of few, and still one that somebody added.
            (format!("{now} ({:+.1} %)", (ratio - 1.0) * 100.0), now > before && ratio > MOST)
        }
        (Some(now), None) => (format!("{now} (new)"), false),
        (None, _) => ("–".to_owned(), false),
    }
}

fn file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/baseline.json")
}

fn has_valgrind() -> bool {
    let found =
        Command::new("valgrind").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    let has = found.is_ok_and(|status| status.success());
    if !has {
        println!("no valgrind (of Debian's package of that name): instructions are not counted");
    }
    has
}

/// The instructions of one run of a case.
fn instructions(case: &str) -> u64 {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null", "--collect-atstart=no"])
        .arg("--toggle-collect=baseline::measured")
        .arg(env::current_exe().expect("this program is a file"))
        .env(CASE, case)
        .output()
        .expect("valgrind runs");
    let said = String::from_utf8_lossy(&output.stderr);
    let collected = said.lines().find_map(|line| line.split_once("Collected :"));
    let collected = collected.and_then(|(_, number)| number.trim().parse().ok()).filter(|count| *count > 0);
    collected.unwrap_or_else(|| panic!("{case} was not counted: {said}"))
}
