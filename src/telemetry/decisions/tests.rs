//! Decisions and those who take them.

use std::fs;
use std::sync::mpsc;

use super::*;

fn decisions(sinks: Sinks) -> Decisions {
    Decisions::open(&sinks).unwrap()
}

fn ring(size: usize) -> Decisions {
    decisions(Sinks { ring: size, ..Sinks::default() })
}

fn of(alias: &str, outcome: Outcome) -> Decision {
    Decision { alias: alias.to_owned(), outcome: outcome.into(), ..Decision::default() }
}

fn aliases(decisions: &[Arc<Decision>]) -> Vec<&str> {
    decisions.iter().map(|decision| &*decision.alias).collect()
}

/// What a watcher is told until there is nothing to be told at the moment.
async fn told(watch: &mut Watch) -> Vec<String> {
    let mut told = Vec::new();
    while let Ok(next) = tokio::time::timeout(Duration::from_millis(1), watch.next()).await {
        told.push(match next {
            Some(Told::Decision(d)) => format!("{} {} {}", d.alias, d.outcome().label(), d.total_ms),
            Some(Told::Missed(count)) => format!("missed {count}"),
            None => {
                told.push("over".to_owned());
                break;
            }
        });
    }
    told
}

#[test]
fn the_newest_are_kept_in_the_order_in_which_they_ended() {
    let decisions = ring(3);
    for alias in ["a", "b", "c", "d"] {
        decisions.take(of(alias, if alias == "c" { Outcome::Failed } else { Outcome::Full }));
    }
    let all = decisions.recent(&Wanted::default(), 0, 9);
    assert_eq!(aliases(&all), ["b", "c", "d"]);
    assert_eq!(all.windows(2).map(|pair| pair[1].sequence - pair[0].sequence).collect::<Vec<_>>(), [1, 1]);
    assert_eq!(aliases(&decisions.recent(&Wanted::default(), all[0].sequence, 9)), ["c", "d"]);
    assert_eq!(aliases(&decisions.recent(&Wanted::default(), 0, 1)), ["d"]);
    let failed = Wanted { outcome: Some(Outcome::Failed), ..Wanted::default() };
    assert_eq!(aliases(&decisions.recent(&failed, 0, 9)), ["c"]);
    let of_b = Wanted { alias: Some("b".to_owned()), ..Wanted::default() };
    assert_eq!(aliases(&decisions.recent(&of_b, 0, 9)), ["b"]);
    let none = ring(0);
    none.take(of("a", Outcome::Full));
    assert!(none.recent(&Wanted::default(), 0, 9).is_empty());
    let later = ring(1);
    later.take(of("a", Outcome::Full));
    assert!(
        later.recent(&Wanted::default(), 0, 9)[0].sequence > all[2].sequence,
        "whoever follows counts on"
    );
}

#[test]
fn the_newest_are_kept_as_far_as_their_bytes_find_room() {
    let size = prost::Message::encoded_len(&Decision { sequence: u64::MAX, ..of("a", Outcome::Full) });
    let kept = |ring_bytes, aliases: &[&str]| {
        let decisions = decisions(Sinks { ring: 9, ring_bytes, ..Sinks::default() });
        aliases.iter().for_each(|alias| decisions.take(of(alias, Outcome::Full)));
        decisions.recent(&Wanted::default(), 0, 9).iter().map(|d| d.alias.clone()).collect::<Vec<_>>()
    };
    // A sequence is shorter than the longest one there is.
    let size = size - 2;
    assert_eq!(kept(3 * size, &["a", "b", "c"]), ["a", "b", "c"], "up to the bound");
    assert_eq!(kept(3 * size - 1, &["a", "b", "c"]), ["b", "c"], "one past it");
    assert_eq!(
        kept(3 * size, &["a", "b", &"c".repeat(3 * size)]),
        [""; 0],
        "one that has no room leaves none"
    );
}

#[tokio::test(start_paused = true)]
async fn a_watcher_is_told_of_what_is_kept_and_then_of_what_happens_and_of_nothing_twice() {
    let decisions = ring(2);
    let mut from_now = decisions.watch(Wanted::default(), None);
    for alias in ["a", "b", "c"] {
        decisions.take(of(alias, Outcome::Full));
    }
    let first = decisions.recent(&Wanted::default(), 0, 9)[0].sequence - 1;
    let mut since = decisions.watch(Wanted::default(), Some(first - 1));
    let mut of_another_process = decisions.watch(Wanted::default(), Some(7));
    let mut seen = decisions.watch(Wanted::default(), Some(first + 1));
    decisions.take(of("d", Outcome::Full));
    assert_eq!(told(&mut from_now).await, ["a full 0", "b full 0", "c full 0", "d full 0"]);
    assert_eq!(told(&mut since).await, ["missed 1", "b full 0", "c full 0", "d full 0"]);
    assert_eq!(told(&mut of_another_process).await, ["missed 1", "b full 0", "c full 0", "d full 0"]);
    assert_eq!(told(&mut seen).await, ["c full 0", "d full 0"]);
    decisions.close(Duration::ZERO).await;
    assert_eq!(told(&mut seen).await, ["over"]);
    assert_eq!(told(&mut decisions.watch(Wanted::default(), None)).await, ["over"]);
    assert_eq!(told(&mut Decisions::default().watch(Wanted::default(), None)).await, ["over"]);
}

#[tokio::test(start_paused = true)]
async fn a_slow_watcher_loses_the_oldest_and_is_told_how_many() {
    let decisions = ring(0);
    let mut slow = decisions.watch(Wanted::default(), None);
    for number in 0..1030 {
        decisions.take(of(&number.to_string(), Outcome::Full));
    }
    let told = told(&mut slow).await;
    assert_eq!((told.len(), &*told[0], &*told[1]), (1025, "missed 6", "6 full 0"));
}

#[tokio::test(start_paused = true)]
async fn only_who_wants_is_told_of_runs_that_go_on_and_then_of_their_newest_state() {
    let decisions = ring(9);
    let running = |run, total_ms| Decision { run, total_ms, ..of("a", Outcome::Running) };
    let mut ended = decisions.watch(Wanted::default(), None);
    assert!(!decisions.are_followed());
    let mut all = decisions.watch(Wanted { running: true, ..Wanted::default() }, None);
    assert!(decisions.are_followed());
    decisions.tell(running(1, 1.0));
    decisions.tell(running(2, 2.0));
    decisions.tell(running(1, 3.0));
    assert_eq!(told(&mut all).await, ["a running 2", "a running 3"]);
    decisions.tell(running(2, 4.0));
    decisions.tell(running(1, 5.0));
    decisions.take(Decision { run: 1, total_ms: 6.0, ..of("a", Outcome::Full) });
    assert_eq!(told(&mut all).await, ["a running 4", "a full 6"], "who has ended goes on no more");
    assert_eq!(told(&mut ended).await, ["a full 6"]);
    drop(all);
    assert!(!decisions.are_followed());
    assert_eq!(decisions.0.as_ref().unwrap().kept().watchers.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn who_asks_for_an_outcome_is_told_of_no_run_before_it_has_one() {
    let decisions = ring(9);
    let wanted = Wanted { running: true, outcome: Some(Outcome::Failed), ..Wanted::default() };
    let mut failed = decisions.watch(wanted, None);
    assert!(!decisions.are_followed());
    for (run, end) in [(1, Outcome::Full), (2, Outcome::Failed)] {
        decisions.tell(Decision { run, ..of("a", Outcome::Running) });
        decisions.take(Decision { run, ..of("a", end) });
    }
    assert_eq!(told(&mut failed).await, ["a failed 0"]);
}

#[tokio::test]
async fn who_comes_after_the_end_is_no_follower_and_leaves_as_none() {
    let decisions = ring(0);
    let following = Wanted { running: true, ..Wanted::default() };
    let before = decisions.watch(following.clone(), None);
    decisions.close(Duration::ZERO).await;
    drop(decisions.watch(following, None));
    drop(before);
    assert!(!decisions.are_followed());
}

fn lines(path: &std::path::Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap();
    let of = |line: &str| serde_json::from_str::<serde_json::Value>(line).map(|d| d["alias"].to_string());
    text.lines().map(|line| of(line).unwrap_or_else(|_| format!("torn {line}"))).collect()
}

#[tokio::test]
async fn every_decision_is_a_line_of_the_file_and_all_are_there_at_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("decisions.jsonl");
    let file = Some(DecisionFile { path: path.clone(), max_bytes: None });
    let decisions = decisions(Sinks { file, ..Sinks::default() });
    for number in 0..500 {
        decisions.take(of(&number.to_string(), Outcome::Full));
    }
    decisions.close(Duration::from_secs(30)).await;
    decisions.take(of("late", Outcome::Full));
    assert_eq!(lines(&path), (0..500).map(|number| format!("\"{number}\"")).collect::<Vec<_>>());
    let nowhere = Some(DecisionFile { path: dir.path().join("no/where"), max_bytes: None });
    assert!(Decisions::open(&Sinks { file: nowhere, ..Sinks::default() }).is_err());
}

#[test]
fn a_file_that_was_renamed_is_followed_by_a_new_one_and_a_full_one_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("d");
    let read = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap_or_default();
    let mut file = Rotated::open(&DecisionFile { path: path.clone(), max_bytes: Some(8) }).unwrap();
    file.write(b"one\n").unwrap();
    fs::rename(&path, dir.path().join("away")).unwrap();
    file.write(b"two\n").unwrap();
    fs::remove_file(&path).unwrap();
    file.write(b"six\n").unwrap();
    file.write(b"ten\n").unwrap();
    assert_eq!((&*read("away"), &*read("d"), &*read("d.1")), ("one\n", "six\nten\n", ""));
    file.write(b"eleven and more\n").unwrap();
    assert_eq!((&*read("d"), &*read("d.1")), ("eleven and more\n", "six\nten\n"));
    file.write(b"x\n").unwrap();
    assert_eq!((&*read("d"), &*read("d.1")), ("x\n", "eleven and more\n"));
    let mut full = Rotated::open(&DecisionFile { path: "/dev/full".into(), max_bytes: None }).unwrap();
    assert!(full.write(b"x\n").is_err() && full.write(b"x\n").is_err());
}

#[test]
fn what_cannot_be_written_is_lost_without_anybody_waiting() {
    let (go_on, held) = mpsc::channel::<()>();
    let mut written = 0;
    let (count, counted) = mpsc::channel();
    let writer = Writer::begin("test", move |lines| {
        let _ = held.recv();
        written += lines.split(|byte| *byte == b'\n').count() - 1;
        count.send(written).unwrap();
        Ok(())
    })
    .unwrap();
    let ended = Ended { decision: Arc::new(of("a", Outcome::Full)), over: None };
    for _ in 0..5000 {
        writer.take(&ended);
    }
    let lost = writer.lost();
    drop(go_on);
    writer.end().join().unwrap();
    let written = counted.iter().last().unwrap();
    assert!(lost > 0 && written < 5000, "{lost} lost, {written} written");
}
