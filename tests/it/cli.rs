//! The commands that people type, by the real program.

use std::io::{BufRead, BufReader, Lines, Read, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Output, Stdio};

use consort_testkit::provider::{Provider, Reply};
use consort_testkit::service::Service;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::stack::{ALIAS, KEY, Options, config, ms, provider};

const CONSORT: &str = env!("CARGO_BIN_EXE_consort");

/// A configuration in a file, before a scripted provider.
struct Bench {
    provider: Provider,
    dir: TempDir,
}

impl Bench {
    async fn new() -> Self {
        let (provider, dir) = (provider().await, tempfile::tempdir().unwrap());
        std::fs::write(dir.path().join("consort.yaml"), config(&provider, "", "", "")).unwrap();
        Self { provider, dir }
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("consort.yaml")
    }

    /// `consort ask -c FILE` and these arguments.
    fn ask(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(CONSORT);
        command.arg("ask").arg("-c").arg(self.file()).args(arguments).stdin(Stdio::null());
        command
    }
}

async fn output(mut command: Command) -> Output {
    tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[tokio::test]
async fn an_answer_goes_to_standard_output_and_how_it_came_about_to_standard_error() {
    let bench = Bench::new().await;
    bench.provider.model("model-judge").reply(Reply::stream(&["the ", "judge's ", "word"], ms(0)));
    let asked = output(bench.ask(&["--system", "be brief", ALIAS, "why?"])).await;
    assert_eq!((asked.status.code(), text(&asked.stdout)), (Some(0), "the judge's word\n"));
    let told = text(&asked.stderr);
    for word in ["full, 3 usable of 2 needed", "judge: judge", "usable", "answered", " tokens"] {
        assert!(told.contains(word), "{word}: {told}");
    }
    assert!(!told.contains('\u{1b}'), "no colours where nobody sees them: {told}");
    let messages = &bench.provider.requests_for("model-a")[0].json["messages"];
    assert_eq!(messages[0]["content"], "be brief");
    assert_eq!(messages[1]["content"], "why?");
}

#[tokio::test]
async fn the_decision_is_printed_as_json_and_the_question_read_from_standard_input() {
    let bench = Bench::new().await;
    let mut command = bench.ask(&["--json", ALIAS, "-"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all("wherefore?\n".as_bytes()).unwrap();
    let asked = tokio::task::spawn_blocking(move || child.wait_with_output()).await.unwrap().unwrap();
    assert_eq!((asked.status.code(), text(&asked.stderr)), (Some(0), ""));
    let decision: Value = serde_json::from_slice(&asked.stdout).unwrap();
    assert_eq!((&decision["outcome"], &decision["alias"]), (&"full".into(), &ALIAS.into()));
    assert_eq!(decision["members"].as_array().unwrap().len(), 3);
    assert_eq!(bench.provider.requests_for("model-b")[0].json["messages"][0]["content"], "wherefore?");
}

#[tokio::test]
async fn a_run_without_an_answer_fails_and_says_why() {
    let bench = Bench::new().await;
    for model in ["model-a", "model-b", "model-c"] {
        bench.provider.model(model).reply(Reply::error(500, "broken", "server_error", None));
    }
    let asked = output(bench.ask(&[ALIAS, "why?"])).await;
    let told = text(&asked.stderr);
    assert_eq!((asked.status.code(), text(&asked.stdout)), (Some(1), ""));
    assert!(told.contains("failed: quorum_not_met") && told.contains("server error"), "{told}");
    assert!(
        told.trim_end().ends_with("consort: 0 of the 2 answers needed came from this ensemble's models"),
        "{told}"
    );
    let asked = output(bench.ask(&["research", "why?"])).await;
    let expected = format!("consort: \"research\" is no ensemble of this configuration; it has {ALIAS}\n");
    assert_eq!((asked.status.code(), text(&asked.stderr)), (Some(1), &*expected));
    std::fs::write(bench.file(), "model: []").unwrap();
    let asked = output(bench.ask(&[ALIAS, "why?"])).await;
    assert_eq!(asked.status.code(), Some(64));
    assert!(text(&asked.stderr).contains("model: unknown key"), "{}", text(&asked.stderr));
}

#[tokio::test]
async fn who_interrupts_an_answer_is_told_what_came_of_it_until_then() {
    let bench = Bench::new().await;
    bench.provider.model("model-judge").reply(Reply::stream(&["It", " is", " so"], ms(1500)));
    let mut command = bench.ask(&[ALIAS, "why?"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let asked = tokio::task::spawn_blocking(move || {
        let (mut out, mut first) = (child.stdout.take().unwrap(), [0; 2]);
        out.read_exact(&mut first).unwrap();
        let interrupted = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
        assert!(interrupted.success());
        let mut rest = String::new();
        out.read_to_string(&mut rest).unwrap();
        (first, rest, child.wait_with_output().unwrap())
    });
    let (first, rest, ended) = asked.await.unwrap();
    assert_eq!((&first, &*rest, ended.status.code()), (b"It", "\n", Some(130)));
    let told = text(&ended.stderr);
    assert!(told.contains("cancelled, 3 usable of 2 needed") && told.contains("judge: judge"), "{told}");
}

#[tokio::test]
async fn an_answer_that_breaks_off_ends_its_line() {
    let bench = Bench::new().await;
    bench.provider.model("model-judge").reply(Reply::stream(&["It", " is"], ms(5)).cut_after(1));
    let asked = output(bench.ask(&[ALIAS, "why?"])).await;
    assert_eq!((asked.status.code(), text(&asked.stdout)), (Some(1), "It\n"));
}

#[tokio::test]
async fn what_models_say_does_not_steer_a_terminal() {
    let bench = Bench::new().await;
    let evil = "\u{1b}]52;c;aGk=\u{7}one\ttwo\u{9b}2J";
    bench.provider.model("model-judge").reply(Reply::stream(&[evil], ms(0)));
    assert_eq!(
        text(&output(bench.ask(&[ALIAS, "why"])).await.stdout),
        format!("{evil}\n"),
        "a pipe takes all"
    );
    let typed = format!("{CONSORT} ask -c {} {ALIAS} why", bench.file().display());
    let mut terminal = Command::new("script");
    terminal.args(["-qec", &typed, "/dev/null"]).stdin(Stdio::null()).env("TERM", "xterm-256color");
    let shown = output(terminal).await;
    let shown = text(&shown.stdout);
    assert!(shown.contains("]52;c;aGk=one\ttwo2J"), "{shown:?}");
}

#[tokio::test]
async fn a_terminal_shows_members_as_they_answer_and_colours_only_where_they_are_wanted() {
    let bench = Bench::new().await;
    bench.provider.model("model-b").reply(Reply::text("two").delay(ms(400)));
    let typed = format!("{CONSORT} ask -c {} {ALIAS} why", bench.file().display());
    for (no_color, is_coloured) in [("", true), ("1", false)] {
        let mut terminal = Command::new("script");
        terminal.args(["-qec", &typed, "/dev/null"]).stdin(Stdio::null());
        terminal.env("TERM", "xterm-256color").env("NO_COLOR", no_color);
        let shown = output(terminal).await;
        let shown = text(&shown.stdout);
        assert!(shown.contains("asked") && shown.contains("the judge's answer"), "{shown:?}");
        assert_eq!(shown.contains("\u{1b}[32musable"), is_coloured, "{shown:?}");
    }
}

/// A `consort watch` of this service, and what it prints.
struct Watching {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Watching {
    fn begin(service: &Service, arguments: &[&str]) -> Self {
        Self::at(&service.admin().to_string(), arguments)
    }

    fn at(admin: &str, arguments: &[&str]) -> Self {
        let mut command = Command::new(CONSORT);
        command.args(["watch", "--past", "--admin", admin]).args(arguments);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    fn next(&mut self) -> String {
        tokio::task::block_in_place(|| self.lines.next().unwrap().unwrap())
    }

    /// How it ends, with what it has printed until then, and why.
    fn ends(mut self) -> (Option<i32>, Vec<String>, String) {
        tokio::task::block_in_place(|| {
            let rest = self.lines.map(Result::unwrap).collect();
            let mut why = String::new();
            self.child.stderr.take().unwrap().read_to_string(&mut why).unwrap();
            (self.child.wait().unwrap().code(), rest, why)
        })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn decisions_of_a_running_consort_are_shown_as_they_are_made() {
    let stack = Options::new().config("drain: {timeout_ms: 1000}").start().await;
    assert_eq!(stack.ask(json!({})).send().await.status, 200);
    let mut all = Watching::begin(&stack.service, &[]);
    let mut quorums = Watching::begin(&stack.service, &["--json", "--outcome", "quorum", "--alias", ALIAS]);
    let strangers = Watching::begin(&stack.service, &["--alias", "nobody"]);
    let line = all.next();
    let told = format!("Z  {ALIAS}  judge  full, 3 usable of 2 needed, ");
    assert!(
        line.contains(&told) && line.contains(" b=usable@") && line.contains(" judge=answered@"),
        "{line}"
    );
    assert!(!line.contains('\u{1b}'), "no colours in a pipe: {line}");
    stack.provider.model("model-c").reply(Reply::error(500, "broken", "server_error", None));
    assert_eq!(stack.ask(json!({})).send().await.status, 200);
    let line = all.next();
    assert!(line.contains("  quorum, 2 usable of 2 needed, ") && line.contains(" c=server_error@"), "{line}");
    let decision: Value = serde_json::from_str(&quorums.next()).unwrap();
    assert_eq!((&decision["alias"], &decision["outcome"]), (&ALIAS.into(), &"quorum".into()));
    stack.service.signal("TERM");
    for watching in [all, quorums, strangers] {
        assert_eq!(
            watching.ends(),
            (Some(1), vec![], format!("consort: the Consort at {} has ended\n", stack.service.admin()))
        );
    }
    let mut command = Command::new(CONSORT);
    let admin = stack.service.admin().to_string();
    stack.service.wait_exit(ms(10_000)).await;
    command.args(["watch", "--admin", &admin]);
    let alone = output(command).await;
    assert_eq!(alone.status.code(), Some(1));
    assert!(
        text(&alone.stderr).contains(&format!("no Consort can be asked at {admin}")),
        "{}",
        text(&alone.stderr)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consort_behind_a_socket_is_watched() {
    let dir = tempfile::tempdir().unwrap();
    let admin = format!("unix:{}", dir.path().join("admin.sock").display());
    let at = admin.clone();
    let whole = move |base_url: &str| {
        format!(
            "listen: {{ext_proc: '127.0.0.1:0', admin: '{at}'}}
providers: [{{name: p, base_url: '{base_url}', api_key: {KEY}}}]
models:
- {{display_name: a, provider: p, model_name: model-a}}
- {{display_name: {ALIAS}, ensemble: {{panel: [{{model: a}}], judge: {{model: a}}}}}}
"
        )
    };
    let stack = Options::new().whole(whole).start().await;
    assert_eq!(stack.ask(json!({})).send().await.status, 200);
    let mut watching = Watching::at(&admin, &[]);
    let line = watching.next();
    assert!(line.contains(&format!("Z  {ALIAS}  judge  ")), "{line}");
    stack.service.signal("TERM");
    assert_eq!(watching.ends(), (Some(1), vec![], format!("consort: the Consort at {admin} has ended\n")));
}

#[tokio::test]
async fn who_calls_a_consort_by_a_foreign_name_is_told_of_the_remedy() {
    let provider = provider().await;
    let service = Service::start(CONSORT, &config(&provider, "", "", "")).await;
    let admin = format!("0.0.0.0:{}", service.admin().port());
    let mut command = Command::new(CONSORT);
    command.args(["watch", "--admin", &admin]);
    let watched = output(command).await;
    let why = text(&watched.stderr);
    assert_eq!(watched.status.code(), Some(1));
    assert!(why.contains("403 foreign_host") && why.contains("`admin.hosts`"), "{why}");
}

#[tokio::test]
async fn every_command_says_what_it_is_for() {
    let commands = ["serve", "check", "schema", "ask", "watch", "replay", "completions"];
    let mut help = Command::new(CONSORT);
    help.arg("--help");
    let help = output(help).await;
    for command in commands {
        let line = text(&help.stdout).lines().find(|line| line.trim_start().starts_with(command));
        assert!(line.is_some_and(|line| line.split_whitespace().count() > 3), "{command}");
    }
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let mut completions = Command::new(CONSORT);
        completions.args(["completions", shell]);
        let script = output(completions).await;
        assert!(script.status.success());
        assert!(commands.iter().all(|command| text(&script.stdout).contains(command)), "{shell}");
    }
}
