//! `consort replay`: recorded answers, by every strategy.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use bytes::Bytes;
use consort::chat::{Completion, Request};
use consort::ensemble::{Reader, Reading};
use consort_testkit::provider::{Provider, Reply};
use consort_testkit::workspace;
use serde_json::value::to_raw_value;
use serde_json::{Value, json};

/// Six questions of our own, in the table's format.
const SAMPLE: &str = "examples/quality/sample.jsonl";
/// 400 questions of GSM8K with the answers of seven models, recorded beside the checkout.
const RECORDED: &str = "../shared/data/gsm8k-panel.jsonl";

#[tokio::test]
async fn every_strategy_has_its_row() {
    let table = table(&[SAMPLE]).await;
    // Who is first depends on the machine.
    let (first, rest): (Vec<&str>, Vec<&str>) = table.lines().partition(|line| line.starts_with("first "));
    assert!(first.len() == 1 && first[0].contains(" 100.0 % "), "{first:?}");
    insta::assert_snapshot!(rest.join("\n"));
}

#[tokio::test]
async fn votes_over_recorded_answers_are_as_right_as_the_reference() {
    let Some(file) = recorded() else { return };
    let arguments = ["--markdown", "--only", "vote,weighted,cascade", &file.display().to_string()];
    let table = table(&arguments).await;
    let members = [
        ("gpt-4o-mini-2024-07-18", 95.2),
        ("claude-3-haiku-20240307", 87.8),
        ("gemini-1.5-flash", 90.8),
        ("gemma-2-9b-it", 86.5),
        ("Meta-Llama-3-8B-Instruct", 77.5),
        ("Qwen2-7B-Instruct", 81.8),
        ("Mistral-Nemo-Instruct-2407", 84.5),
    ];
    for (member, accuracy) in members {
        assert!((cell(&table, member, 1) - accuracy).abs() <= 0.3, "{member}\n{table}");
        assert!(cell(&table, member, 2) >= 99.0, "{member} is read\n{table}");
    }
    let strategies =
        [("vote (plurality)", 94.2), ("weighted", 94.5), ("cascade (start 2, step 1), vote", 94.0)];
    for (strategy, accuracy) in strategies {
        assert!(cell(&table, strategy, 1) >= accuracy - 0.3, "{strategy}\n{table}");
        assert!(cell(&table, strategy, 4) <= 0.3, "{strategy} is as it should be\n{table}");
    }
    let saving = cell(&table, "cascade (start 2, step 1), vote", 2);
    assert!((30.0..=35.4).contains(&saving), "the share of the calls that a cascade needs\n{table}");
    assert!((cell(&table, "at least one right", 1) - 99.2).abs() <= 0.3, "{table}");
}

#[test]
fn recorded_answers_are_read_as_the_reference_reads_them() {
    let Some(file) = recorded() else { return };
    let question = json!({"model": "any", "messages": [{"role": "user", "content": "?"}]}).to_string();
    let reading = Reading::Number { pattern: None, pointer: None };
    let reader = Reader::of(&reading, &Request::parse(Bytes::from(question)).unwrap());
    let (mut texts, mut disagreements) = (0, Vec::new());
    for line in fs::read_to_string(file).unwrap().lines() {
        let recording: Value = serde_json::from_str(line).unwrap();
        for (member, text) in recording["candidates"].as_object().unwrap() {
            let text = text.as_str().unwrap();
            let message = to_raw_value(&json!({"role": "assistant", "content": text})).unwrap();
            let ours = reader.key(&Completion::from_message(message).unwrap()).map(|key| key.shown());
            let reference = reference(text);
            let is_same = match (&ours, reference) {
                (Some(ours), Some(reference)) => {
                    ours.parse::<f64>().is_ok_and(|ours| (ours - reference).abs() < 1e-9)
                }
                (None, None) => true,
                _ => false,
            };
            texts += 1;
            if !is_same {
                disagreements.push(format!("{} {member}: {reference:?}, not {ours:?}", recording["id"]));
            }
        }
    }
    assert!(disagreements.len() * 1000 <= texts * 5, "of {texts}:\n{}", disagreements.join("\n"));
}

/// The first number in the last `"answer"` of a text.
fn reference(text: &str) -> Option<f64> {
    let (_, after) = text.rsplit_once("\"answer\"")?;
    let value = after.trim_start().strip_prefix(':')?.trim_start();
    let value = match value.strip_prefix('"') {
        Some(quoted) => quoted.split('"').next()?,
        None => value.split(['\n', '}']).next()?,
    };
    let begins = value.find(|c: char| c.is_ascii_digit())?;
    let is_negative = value[..begins].ends_with('-');
    let digits: String =
        value[begins..].chars().take_while(|c| c.is_ascii_digit() || matches!(c, ',' | '.')).collect();
    let number: f64 = digits.replace(',', "").trim_end_matches('.').parse().ok()?;
    Some(if is_negative { -number } else { number })
}

#[tokio::test]
async fn letters_are_compared_where_the_answers_are_choices() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let said = |a: &str, b: &str, c: &str| json!({"a|b": a, "second": b, "third": c});
    let lines = [
        json!({"prompt": "1?", "answer": "B", "candidates": said("The answer is (B).", "b", "C")}),
        json!({"prompt": "2?", "answer": "D", "candidates": said("**D**", "I cannot tell.", "Answer: A")}),
    ];
    fs::write(file.path(), lines.map(|line| line.to_string()).join("\n")).unwrap();
    let path = file.path().display().to_string();
    let arguments =
        ["--answer", "choice", "--weights", "a|b=2,third=1.5", "--only", "weighted,median", &path];
    let table = table(&arguments).await;
    insta::assert_snapshot!(table);
}

#[tokio::test]
async fn a_real_judge_takes_the_place_of_the_played_one() {
    let provider = Provider::start().await;
    provider.require_key("sk-of-the-judge");
    provider.model("wise").reply(Reply::text("The answer is 108."));
    let url = provider.base_url();
    let judge = ["--judge-url", &url, "--judge-model", "wise", "--judge-key-env", "QUALITY_JUDGE_KEY"];
    let arguments = [&judge[..], &["--markdown", "--only", "judge", "--limit", "2", SAMPLE]].concat();
    let output = run(&arguments).await;
    let table = String::from_utf8(output.stdout).unwrap();
    // It is right about apples, and not about the rent.
    assert_eq!(
        (cell(&table, "judge, by wise", 1), cell(&table, "judge, by wise", 3)),
        (50.0, 1.0),
        "{table}"
    );
    assert!(!table.contains("played"), "{table}");
    assert_eq!(provider.requests_for("wise").len(), 2);
}

#[tokio::test]
async fn what_is_wrong_is_named_with_its_line() {
    let good = json!({"prompt": "1?", "answer": "1", "candidates": {"a": "1", "b": "2"}});
    let with = |field: &str, value: Value| {
        let mut line = good.clone();
        line["prompt"] = json!("2?");
        line[field] = value;
        format!("{good}\n\n{line}\n")
    };
    let rows = [
        (String::new(), "it has no recordings"),
        (format!("{good}\n{{\"prompt\":"), "line 2: prompt: EOF while parsing a value at column 10"),
        (format!("{good} {{}}"), "line 1: trailing characters at column"),
        (json!({"prompt": "1?", "answer": "1"}).to_string(), "line 1: missing field `candidates`"),
        (with("answer", json!(18)), "line 3: answer: invalid type: integer `18`, expected a string"),
        (with("answer", json!("who knows")), "line 3: answer: nothing can be read from \"who knows\""),
        (with("prompt", json!("1?")), "line 3: prompt: the same as that of line 1"),
        (with("candidates", json!({})), "line 3: candidates: \"a\" is missing, which the first line has"),
        (with("candidates", json!({"a": "1", "b": null})), "line 3: candidates.b: not a text"),
        (
            with("candidates", json!({"a": "1", "b": "1", "c": "1"})),
            "line 3: candidates: \"c\" is not among the first line's models",
        ),
    ];
    for (text, told) in rows {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), &text).unwrap();
        let path = file.path().display().to_string();
        let output = run(&[&path]).await;
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{error}");
        assert!(error.starts_with(&format!("consort: {path}")) && error.contains(told), "{told}: {error}");
    }
    let wrong = [
        (&["nowhere.jsonl"][..], "nowhere.jsonl: No such file"),
        (&["--weights", "oak=1", SAMPLE], "--weights: \"oak\" is none of alder, birch, cedar"),
        (&["--weights", "alder=0", SAMPLE], "a weight is above 0"),
        (
            &["--judge-url", "gopher://x", "--judge-model", "m", "--judge-key-env", "UNSET", SAMPLE],
            "providers[1].api_key: ",
        ),
    ];
    for (arguments, told) in wrong {
        let output = run(arguments).await;
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && error.contains(told), "{told}: {error}");
    }
}

/// Runs the command to its end.
async fn run(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_consort"));
    command.arg("replay").args(arguments).current_dir(workspace());
    command.env("QUALITY_JUDGE_KEY", "sk-of-the-judge");
    tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap()
}

async fn table(arguments: &[&str]) -> String {
    let output = run(arguments).await;
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}");
    String::from_utf8(output.stdout).unwrap()
}

/// The number in a Markdown table's cell.
#[track_caller]
fn cell(table: &str, row: &str, column: usize) -> f64 {
    let cells = |line: &str| line.split('|').map(str::trim).map(str::to_owned).collect::<Vec<_>>();
    let found = table.lines().map(cells).find(|cells| cells.get(1).is_some_and(|title| title == row));
    let cells = found.unwrap_or_else(|| panic!("no row {row:?} in\n{table}"));
    cells[column + 1].trim_end_matches(" %").parse().unwrap()
}

fn recorded() -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(RECORDED);
    if !path.exists() {
        consort_testkit::skipped(&format!("there is no {}", path.display()));
        return None;
    }
    Some(path)
}
