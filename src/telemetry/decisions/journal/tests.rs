//! The journal, from a run's first call to what the next process makes of it.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::sync::mpsc;

use tempfile::TempDir;

use super::super::{DecisionFile, Decisions, Sinks, Wanted, Writer};
use super::*;
use crate::chat::Usage;
use crate::telemetry::{About, Account, Door, Ended, Part, Seat};

/// A directory, and the path of a journal in it.
fn place() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal");
    (dir, path)
}

fn open(path: &Path) -> Decisions {
    let max_content_bytes = Some(100);
    let sinks = Sinks { journal: Some(path.to_owned()), ring: 9, max_content_bytes, ..Sinks::default() };
    Decisions::open(&sinks).unwrap()
}

async fn close(decisions: &Decisions) {
    decisions.close(Duration::from_secs(30)).await;
}

fn account(decisions: &Decisions, request_id: &str) -> Account {
    let about = About { request_id, alias: "team", strategy: "judge", quorum: 1, door: Door::default() };
    let mut account = Account::open(decisions, about, [("a", 1.0), ("b", 1.0)].into_iter());
    account.asked("a secret");
    account
}

/// Waits until the file is like this.
fn wait(path: &Path, is_like: impl Fn(&str) -> bool) -> String {
    for _ in 0..3000 {
        let text = fs::read_to_string(path).unwrap_or_default();
        if is_like(&text) {
            return text;
        }
        thread::sleep(Duration::from_millis(10));
    }
    panic!("{}", fs::read_to_string(path).unwrap_or_default());
}

/// What a journal has that is copied as it is at this moment, as a SIGKILL would leave it.
fn left_by_a_kill(path: &Path) -> PathBuf {
    let copy = path.with_extension("copy");
    fs::copy(path, &copy).unwrap();
    copy
}

fn running(run: u64, alias: &str) -> Arc<Decision> {
    let outcome = Outcome::Running.into();
    Arc::new(Decision { run, alias: alias.to_owned(), outcome, ..Decision::default() })
}

fn news(told: impl IntoIterator<Item = (u64, Option<Arc<Decision>>)>) -> HashMap<u64, Option<Arc<Decision>>> {
    told.into_iter().collect()
}

fn aliases(left: &[Decision]) -> Vec<&str> {
    left.iter().map(|decision| &*decision.alias).collect()
}

#[tokio::test]
async fn what_a_killed_process_had_asked_is_recorded_by_the_next_one() {
    let (dir, path) = place();
    let decisions = open(&path);
    let mut over = account(&decisions, "over");
    let late = over.member_began(0, None);
    late.begin();
    wait(&path, |text| text.contains("over"));
    let mut killed = account(&decisions, "killed");
    let [a, b] = [0, 1].map(|index| killed.member_began(index, None));
    a.begin();
    b.begin();
    let usage: Usage = serde_json::from_value(serde_json::json!({"total_tokens": 7})).unwrap();
    a.ended("answered", None);
    killed.said(Seat::Member(0), "a secret");
    killed.ended(Seat::Member(0), &Ended { result: "usable", usage: Some(usage), estimate: None });
    let (_, judge) = killed.judge_began("judge", Part::Judge, None);
    judge.begin();
    judge.ended("server_error", Some(503));
    wait(&path, |text| text.contains("server_error"));
    judge.begin();
    drop(over);
    // Whatever is noted after a run's end, it is over.
    late.begin();
    let is_all_there = |text: &str| text.contains("{\"run\":1}") && text.contains("server_error");
    let text = wait(&path, is_all_there);
    assert!(!text.contains("secret"), "{text}");
    let copy = left_by_a_kill(&path);
    drop(killed);
    close(&decisions).await;
    assert_eq!(fs::read_to_string(&path).unwrap(), "", "a clean end leaves nothing");

    let file = dir.path().join("decisions.jsonl");
    let sinks = Sinks {
        file: Some(DecisionFile { path: file.clone(), max_bytes: None }),
        journal: Some(copy.clone()),
        ring: 9,
        ..Sinks::default()
    };
    let next = Decisions::open(&sinks).unwrap();
    let recent = next.recent(&Wanted::default(), 0, 9);
    let [d] = &recent[..] else { panic!("{recent:#?}") };
    assert_eq!((&*d.request_id, d.outcome(), &*d.error_code), ("killed", Outcome::Failed, KILLED));
    assert!(d.sequence > 0 && d.total_ms > 0.0 && d.usage.unwrap().total_tokens == 7);
    let calls = d.members.iter().chain(&d.judges);
    let told: Vec<String> = calls
        .map(|c| {
            let tries: Vec<&str> = c.tries.iter().map(|attempt| &*attempt.result).collect();
            format!("{} {} {}", c.model, c.result, tries.join("+"))
        })
        .collect();
    assert_eq!(told, ["a usable answered", "b killed killed", "judge killed server_error+killed"]);
    assert_eq!(next.next_run(), 2, "the numbers of runs go on behind those that were taken over");
    close(&next).await;
    assert_eq!(fs::read_to_string(file).unwrap().lines().count(), 1);
    assert_eq!(fs::read_to_string(copy).unwrap(), "");
}

#[test]
fn a_torn_last_line_and_what_is_no_line_cost_no_other_run() {
    let (_dir, path) = place();
    let (mut pages, left) = Pages::open(&path).unwrap();
    assert!(left.is_empty());
    pages.write(news([(7, Some(running(7, "a"))), (8, Some(running(8, "b")))])).unwrap();
    pages.write(news([(9, Some(running(9, "c"))), (8, None), (10, Some(running(10, "d")))])).unwrap();
    drop(pages);
    let mut file = OpenOptions::new().append(true).open(&path).unwrap();
    file.write_all(b"garbage\n{\"run\":9}\n{\"run\":7").unwrap();
    drop(file);
    let (pages, left) = Pages::open(&path).unwrap();
    assert_eq!(aliases(&left), ["a", "d"]);
    assert_eq!(left.iter().map(|decision| decision.run).collect::<Vec<_>>(), [1, 2]);
    drop(pages);
    let (_, again) = Pages::open(&path).unwrap();
    assert_eq!(again, left, "until they are over, they are left to the next process, too");
}

#[test]
fn a_journal_past_its_bound_is_written_anew_and_a_large_one_is_emptied_when_nothing_runs() {
    let (_dir, path) = place();
    let size = || fs::metadata(&path).unwrap().len();
    let (mut pages, _) = Pages::open(&path).unwrap();
    let mebibyte = "x".repeat(1 << 20);
    let mut write = |run, state| pages.write(news([(run, state)])).unwrap();
    write(1, Some(running(1, "small")));
    for _ in 0..7 {
        write(2, Some(running(2, &mebibyte)));
    }
    assert!(size() > 7 << 20 && size() < 8 << 20, "up to the bound: {}", size());
    write(2, Some(running(2, &mebibyte)));
    assert!(size() > 1 << 20 && size() < 2 << 20, "past it: {}", size());
    for run in 3..12 {
        write(run, Some(running(run, &mebibyte)));
    }
    assert!(size() > 10 << 20, "what goes on stays: {}", size());
    for run in 2..12 {
        write(run, None);
    }
    assert!(size() > 10 << 20, "twice what went on is the bound, where that is more");
    write(1, None);
    assert_eq!(size(), 0);
    for _ in 0..9 {
        write(1, Some(running(1, &mebibyte)));
    }
    assert!(size() < 8 << 20, "the bound is what it was: {}", size());
    write(1, None);
    assert_eq!(size(), 0);
    write(1, Some(running(1, "small")));
    write(1, None);
    assert!(size() > 0, "a small one is left alone");
    pages.close().unwrap();
    assert_eq!(size(), 0);
}

#[test]
fn a_journal_belongs_to_one_process_also_when_it_was_written_anew() {
    let (_dir, path) = place();
    let (mut pages, _) = Pages::open(&path).unwrap();
    let is_taken = || matches!(Pages::open(&path), Err(SinkError::JournalTaken { .. }));
    assert!(is_taken());
    let state = || Some(running(1, &"x".repeat(1 << 20)));
    for _ in 0..20 {
        pages.write(news([(1, state())])).unwrap();
        assert!(is_taken());
    }
    drop(pages);
    assert!(!is_taken());
    let told = Decisions::open(&Sinks { journal: Some("/dev/full".into()), ..Sinks::default() });
    let told = crate::telemetry::chain(&told.unwrap_err());
    assert_eq!(told, "decisions.journal: cannot keep a journal in /dev/full: it is no regular file");
}

#[test]
fn a_file_of_something_else_is_refused_and_left_as_it_is() {
    let (_dir, path) = place();
    let decision = serde_json::to_string(&*running(3, "a")).unwrap();
    assert!(decision.contains("\"run\":3"), "{decision}");
    for text in [format!("{decision}\n"), "a: 1\nb: 2\n".to_owned(), format!("{decision}\n{{\"run\"")] {
        fs::write(&path, &text).unwrap();
        let told = crate::telemetry::chain(&Pages::open(&path).unwrap_err());
        let why = "it is another file: none of its lines is a journal's";
        assert_eq!(told, format!("decisions.journal: cannot keep a journal in {}: {why}", path.display()));
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
    }
    fs::write(&path, "{\"run\":7,\"runn").unwrap();
    assert!(Pages::open(&path).unwrap().1.is_empty(), "its first line was being written");
}

#[test]
fn a_journal_that_was_removed_is_begun_anew_unless_another_process_has_its_place() {
    let (dir, path) = place();
    let (mut pages, _) = Pages::open(&path).unwrap();
    pages.write(news([(1, Some(running(1, "a")))])).unwrap();
    fs::remove_file(&path).unwrap();
    pages.write(news([(2, Some(running(2, "b")))])).unwrap();
    let lines = || fs::read_to_string(&path).unwrap().lines().count();
    assert_eq!(lines(), 2);
    fs::rename(&path, dir.path().join("away")).unwrap();
    let (mut other, _) = Pages::open(&path).unwrap();
    other.write(news([(1, Some(running(1, "other")))])).unwrap();
    assert!(pages.write(news([(3, Some(running(3, "c")))])).is_err());
    assert_eq!(lines(), 1, "what the other one has stays");
    drop(other);
    pages.write(HashMap::new()).unwrap();
    assert!(matches!(Pages::open(&path), Err(SinkError::JournalTaken { .. })));
    drop(pages);
    let (_, left) = Pages::open(&path).unwrap();
    assert_eq!(aliases(&left), ["a", "b", "c"]);
}

#[test]
fn what_could_not_be_written_is_written_with_what_follows() {
    let (dir, path) = place();
    let (mut pages, _) = Pages::open(&path).unwrap();
    pages.write(news([(1, Some(running(1, "a"))), (2, Some(running(2, "b")))])).unwrap();
    let moved = dir.path().with_extension("moved");
    fs::rename(dir.path(), &moved).unwrap();
    let large = "c".repeat(9 << 20);
    assert!(pages.write(news([(3, Some(running(3, &large))), (1, None)])).is_err());
    fs::rename(&moved, dir.path()).unwrap();
    pages.write(HashMap::new()).unwrap();
    drop(pages);
    let (_, left) = Pages::open(&path).unwrap();
    assert_eq!(aliases(&left), ["b", &large]);
}

#[test]
fn a_run_is_in_the_journal_until_its_decision_is_written() {
    let (_dir, path) = place();
    let Opened { journal, thread, killed } = Journal::open(&path).unwrap();
    assert!(killed.is_empty());
    journal.tell(running(1, "a"));
    wait(&path, |text| text.contains("\"a\""));
    let (go_on, held) = mpsc::channel();
    let writer = Writer::begin("test", move |_| held.recv().map_err(io::Error::other)).unwrap();
    writer.take(&super::super::Ended { decision: running(1, "a"), over: Some(journal.over(1)) });
    journal.tell(running(2, "b"));
    let text = wait(&path, |text| text.contains("\"b\""));
    assert!(!text.contains("{\"run\":1}"), "{text}");
    go_on.send(()).unwrap();
    wait(&path, |text| text.contains("{\"run\":1}"));
    writer.end().join().unwrap();
    drop(journal);
    thread.join().unwrap();
    let (_, left) = Pages::open(&path).unwrap();
    assert_eq!(aliases(&left), ["b"], "what still runs at the end is left");
}

#[tokio::test]
async fn a_run_that_the_file_has_is_over_however_long_standard_output_takes() {
    let (dir, path) = place();
    let file = Some(DecisionFile { path: dir.path().join("decisions.jsonl"), max_bytes: None });
    let sinks = Sinks { file, journal: Some(path.clone()), ..Sinks::default() };
    let decisions = Decisions::open(&sinks).unwrap();
    let (go_on, held) = mpsc::channel::<()>();
    let stuck = Writer::begin("test", move |_| held.recv().map_err(io::Error::other)).unwrap();
    decisions.0.as_ref().unwrap().kept().writers.push(stuck);
    let mut account = account(&decisions, "answered");
    account.member_began(0, None).begin();
    wait(&path, |text| text.contains("answered"));
    drop(account);
    wait(&path, |text| text.contains("{\"run\":1}"));
    drop(go_on);
    close(&decisions).await;
}
