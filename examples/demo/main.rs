//! A whole installation on this machine, and two questions to it.
//!
//! ```text
//! cargo run --example demo                  a small language model that runs here
//! cargo run --example demo -- --scripted    answers from a script: nothing to download but Envoy
//! cargo run --example demo -- --openai      OpenAI, with your OPENAI_API_KEY
//! cargo run --example demo -- --once        any of these, without staying up afterwards
//! ```
//!
//! What you see happen:
//!
//! ```text
//! this caller ──▶ Envoy ──▶ Consort ──┬──▶ three panel members    (providers.rs)
//!      ▲                       │      └──▶ the judge
//!      └── the judge's answer ─┘
//!                              └──▶ the decision: who answered when    (decision.rs)
//! ```
//!
//! Whatever ends it, an error, Ctrl-C or `kill`, every process that it started ends with it.

mod decision;
mod providers;
mod screen;

use std::error::Error;
use std::fs;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use consort::app::{self, Listener, Listeners};
use consort::config::{Address, Format, Source};
use consort::telemetry::LogLevel;
use consort_testkit::envoy::{Envoy, EnvoyOptions};
use consort_testkit::http::{self, Live};
use consort_testkit::{fetch, workspace};
use serde_json::{Value, json};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::task::AbortOnDropHandle;

use decision::Decisions;
use providers::Providers;
use screen::Screen;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// The model that callers ask for; behind it are three others and a judge.
const ALIAS: &str = "research-ensemble";
const PLAIN_QUESTION: &str = "Why is the sky blue? Answer in two sentences.";
const STREAMING_QUESTION: &str = "Why do leaves turn yellow in autumn? Answer in two sentences.";
/// How long an answer may keep us waiting: a small machine runs four calls of a model one after another.
const PATIENCE: Duration = Duration::from_secs(180);

/// Consort beside a real Envoy, with a panel of three and a judge.
#[derive(Debug, Parser)]
#[command(name = "demo")]
struct Options {
    /// Let the models answer from a script.
    #[arg(long)]
    scripted: bool,
    /// Let OpenAI's models answer, with the key in OPENAI_API_KEY.
    #[arg(long, conflicts_with = "scripted")]
    openai: bool,
    /// Leave after the two questions.
    #[arg(long)]
    once: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let options = Options::parse();
    let screen = Screen::new();
    match run(&options, &screen).await {
        Ok(code) => code,
        Err(error) => {
            screen.error(&error.to_string());
            ExitCode::FAILURE
        }
    }
}

async fn run(options: &Options, screen: &Screen) -> Result<ExitCode> {
    let mut stop = Stop::listen()?;
    let mut decisions = decision::record(screen.colours);
    let shown = tokio::select! {
        shown = Box::pin(show(options, screen, &mut decisions)) => Some(shown?),
        () = stop.told() => None,
    };
    let Some(installation) = shown else {
        // Being dropped ended everything but a download, which has a thread of its own.
        fetch::interrupt();
        screen.note("Stopped.");
        return Ok(ExitCode::from(130));
    };
    if options.once {
        return Ok(ExitCode::SUCCESS);
    }
    invite(&installation, screen);
    loop {
        tokio::select! {
            decision = decisions.next() => screen.decision(&decision?),
            () = stop.told() => break,
        }
    }
    screen.note("Stopped: Envoy, Consort and the models are gone.");
    Ok(ExitCode::SUCCESS)
}

async fn show(options: &Options, screen: &Screen, decisions: &mut Decisions) -> Result<Installation> {
    screen.heading("Starting");
    let installation = Installation::start(options, screen).await?;
    screen.heading("A plain question");
    ask(&installation, screen, decisions).await?;
    screen.heading("A streaming question");
    ask_streaming(&installation, screen, decisions).await?;
    Ok(installation)
}

/// What runs; dropping it ends it all.
struct Installation {
    envoy: Envoy,
    _consort: AbortOnDropHandle<std::result::Result<(), app::Error>>,
    _providers: Providers,
}

impl Installation {
    async fn start(options: &Options, screen: &Screen) -> Result<Self> {
        // Downloads, where it is missing: into target/tools, once.
        tokio::task::spawn_blocking(fetch::envoy).await??;
        let providers = Providers::start(options, screen).await?;
        screen.row("models", providers.about(), "");

        let listener =
            Listener::bind("listen.ext_proc", &Address::Tcp("127.0.0.1:0".to_owned()), 0o600).await?;
        let address = listener.address();
        let text = format!("listen:\n  ext_proc: {address}\n  admin: none\n{}", providers.config());
        let file = workspace().join("target/demo/consort.yaml");
        fs::write(&file, &text)?;
        let environment = providers.environment();
        let source =
            Source { name: "consort.yaml", text: &text, format: Format::Yaml, environment: &environment };
        let config = source.load()?;
        let level = LogLevel::of_nobody(config.log.level);
        let listeners = Listeners { ext_proc: listener, http: None, admin: None };
        let serving = app::run(listeners, config, level, None, std::future::pending());
        let consort = AbortOnDropHandle::new(tokio::spawn(serving));
        screen.row("Consort", &address, &file.display().to_string());

        let envoy = Envoy::start(EnvoyOptions::shipped("envoy.yaml").consort(address.parse()?)).await;
        envoy.wait_healthy().await;
        screen.row("Envoy", &envoy.addr().to_string(), &envoy.config().display().to_string());
        Ok(Self { envoy, _consort: consort, _providers: providers })
    }

    /// Sends a question through Envoy and returns when the answer begins.
    async fn send(&self, question: &str, stream: bool) -> Result<Live> {
        let messages = json!([{"role": "user", "content": question}]);
        let body = json!({"model": ALIAS, "stream": stream, "messages": messages});
        let call = http::post(self.envoy.addr(), "/v1/chat/completions").json(&body);
        let live = call.patience(PATIENCE).try_open().await?;
        if live.status.is_success() {
            return Ok(live);
        }
        let status = live.status;
        Err(format!("the answer is {status}: {}", String::from_utf8_lossy(&live.rest().await.body)).into())
    }
}

async fn ask(installation: &Installation, screen: &Screen, decisions: &mut Decisions) -> Result<()> {
    screen.question(PLAIN_QUESTION);
    let waiting = screen.waiting("the panel, then the judge");
    let answer = installation.send(PLAIN_QUESTION, false).await?.rest().await;
    drop(waiting);
    let completion: Value = serde_json::from_slice(&answer.body)?;
    let content = completion.pointer("/choices/0/message/content").and_then(Value::as_str);
    let content = content.filter(|content| !content.is_empty()).ok_or("the answer has no content")?;
    screen.paragraph().push(content);
    screen.decision(&decisions.next().await?);
    Ok(())
}

async fn ask_streaming(
    installation: &Installation,
    screen: &Screen,
    decisions: &mut Decisions,
) -> Result<()> {
    screen.question(STREAMING_QUESTION);
    let began = Instant::now();
    let mut waiting = Some(screen.waiting("the panel, then the judge's first word"));
    let mut live = installation.send(STREAMING_QUESTION, true).await?;
    let mut first_word = None;
    let mut paragraph = screen.paragraph();
    let mut done = false;
    while let Some(event) = live.event().await {
        done |= event.is_done();
        let Some(chunk) = event.data.filter(|data| data != "[DONE]") else {
            continue;
        };
        let chunk: Value = serde_json::from_str(&chunk)?;
        if let Some(error) = chunk.get("error") {
            return Err(format!("the stream broke off: {error}").into());
        }
        let content = chunk.pointer("/choices/0/delta/content").and_then(Value::as_str);
        if let Some(content) = content.filter(|content| !content.is_empty()) {
            waiting = None;
            first_word.get_or_insert_with(|| began.elapsed());
            paragraph.push(content);
        }
    }
    drop(waiting);
    drop(paragraph);
    let first_word = first_word.ok_or("the stream has no content")?;
    if !done {
        return Err("the stream ended without [DONE]".into());
    }
    screen.decision(&decisions.next().await?);
    screen.note(&format!("The first word came after {} ms.", first_word.as_millis()));
    Ok(())
}

/// What to try while it stays up.
fn invite(installation: &Installation, screen: &Screen) {
    let base_url = format!("http://{}/v1", installation.envoy.addr());
    let body = json!({
        "model": ALIAS, "stream": true, "messages": [{"role": "user", "content": "What is an ensemble?"}],
    });
    screen.heading("Your turn");
    screen.command(&format!(
        "curl -N {base_url}/chat/completions -H 'content-type: application/json' -d '{body}'"
    ));
    screen.note("With OpenAI's SDK (pip install openai):");
    screen.command(&format!(
        "python3 -c \"from openai import OpenAI; print(OpenAI(base_url='{base_url}', api_key='any').chat.completions\
         .create(model='{ALIAS}', messages=[{{'role': 'user', 'content': 'What is an ensemble?'}}])\
         .choices[0].message.content)\""
    ));
    screen.note("Who answered when will be shown here. Ctrl-C ends it all.");
}

/// What tells us to leave. Without it, the default of each would leave Envoy behind.
struct Stop {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Stop {
    fn listen() -> Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn told(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }
}
