//! `consort ask`: one run of one ensemble, without a server.

use std::io::{self, Read, Write};
use std::pin::pin;
use std::process::ExitCode;
use std::sync::Arc;

use bytes::Bytes;
use clap::Args;
use futures_util::{FutureExt, StreamExt};
use serde::Deserialize;
use serde_json::json;
use tokio::signal::ctrl_c;

use super::account::told;
use super::paint::{Paint, Screen};
use super::progress::Progress;
use super::{ConfigFile, Result};
use crate::chat::{Event, Request};
use crate::config::Config;
use crate::ensemble::{Context, Ensemble, Failed, Outcome, Runner};
use crate::limits::{Admission, Cooldowns};
use crate::telemetry::decision::{Decision, Outcome as How};
use crate::telemetry::{Decisions, Sinks, Told, Wanted, Watch};
use crate::upstream::{HttpCaller, Retrying};

/// How a shell knows of a program that was interrupted: 128 and the number of SIGINT.
const EXIT_INTERRUPTED: u8 = 130;

/// Ask one ensemble of a configuration, without a server.
///
/// The answer goes to standard output as it is spoken. Who was asked and what came of it goes to standard error:
/// while it happens where that is a terminal, and as a table at the end. Limits and budgets are those of servers:
/// nothing is counted here. Ctrl-C ends the run, and shows what came of it until then.
#[derive(Debug, Args)]
pub(super) struct Ask {
    #[command(flatten)]
    pub(super) file: ConfigFile,
    /// The ensemble's `display_name`.
    alias: String,
    /// The question; `-` reads it from standard input.
    question: String,
    /// A system message to go before it.
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    /// Print the decision as JSON to standard output, and nothing else.
    #[arg(long)]
    json: bool,
}

/// What a piece of an answer says.
#[derive(Deserialize)]
struct Spoken {
    content: Option<String>,
}

impl Ask {
    /// Asks, and prints what comes of it. Fails where there is no answer, or not all of it.
    pub(super) async fn run(self, config: &Config) -> Result<ExitCode> {
        let ensemble = self.ensemble(config)?;
        let request = self.request()?;
        // One decision is all that there will be.
        let decisions = Decisions::open(&Sinks { ring: 1, ..Sinks::default() })?;
        let caller = Retrying::new(Arc::new(HttpCaller), Cooldowns::default());
        let runner = Runner::new(Arc::new(caller), Admission::new(1), config.max_answer_bytes);
        let paint = Paint::on(&io::stderr());
        let mut following = Following {
            watch: decisions.watch(Wanted { running: true, ..Wanted::default() }, None),
            progress: Progress::new(paint),
            last: None,
        };
        let runner = runner.recording(decisions);
        let mut interrupted = pin!(ctrl_c());
        let begun = tokio::select! {
            begun = following.until(Box::pin(begin(runner, ensemble, request))) => Some(begun),
            _ = &mut interrupted => None,
        };
        following.progress.end();
        let mut voice = Voice { is_heard: !self.json, has_begun: false };
        let answered = match begun {
            Some(Ok(outcome)) => tokio::select! {
                answered = voice.say(outcome) => Some(answered),
                _ = &mut interrupted => None,
            },
            Some(Err(failed)) => Some(Err(failed.error.message.into())),
            None => None,
        };
        voice.end()?;
        let decision = match answered {
            Some(_) => following.decision().await,
            // What was interrupted was dropped, and has been told of, if there was anything to tell.
            None => following.decision().now_or_never().flatten(),
        };
        if let (true, Some(decision)) = (self.json, &decision) {
            writeln!(io::stdout(), "{}", serde_json::to_string_pretty(&**decision)?)?;
        } else if let Some(decision) = &decision {
            write!(io::stderr(), "\n{}", told(decision, paint))?;
        }
        match answered {
            Some(answered) => answered.map(|()| ExitCode::SUCCESS),
            None => Ok(ExitCode::from(EXIT_INTERRUPTED)),
        }
    }

    fn ensemble(&self, config: &Config) -> Result<Arc<Ensemble>> {
        let known = config.snapshot.ensemble(&self.alias);
        known.cloned().ok_or_else(|| {
            let mut names: Vec<&str> = config.snapshot.ensembles().map(|ensemble| &*ensemble.name).collect();
            names.sort_unstable();
            format!("{:?} is no ensemble of this configuration; it has {}", self.alias, names.join(", "))
                .into()
        })
    }

    fn request(&self) -> Result<Request> {
        let question = match &*self.question {
            "-" => {
                let mut text = String::new();
                io::stdin().read_to_string(&mut text)?;
                text.trim_end().to_owned()
            }
            question => question.to_owned(),
        };
        let system = self.system.iter().map(|text| json!({"role": "system", "content": text}));
        let messages: Vec<_> = system.chain([json!({"role": "user", "content": question})]).collect();
        let body = json!({"model": self.alias, "messages": messages, "stream": !self.json});
        Ok(Request::parse(Bytes::from(body.to_string()))?)
    }
}

async fn begin(
    runner: Runner,
    ensemble: Arc<Ensemble>,
    request: Request,
) -> std::result::Result<Outcome, Failed> {
    runner.admit(ensemble, Context::default()).await?.run(request, None).await
}

/// Says an answer.
struct Voice {
    is_heard: bool,
    has_begun: bool,
}

impl Voice {
    /// Hears the answer to its end, and says it if it is to be said.
    async fn say(&mut self, outcome: Outcome) -> Result<()> {
        let mut events = outcome.events;
        let (mut out, screen) = (io::stdout(), Screen::on(&io::stdout()));
        while let Some(event) = events.next().await {
            let text = match event.map_err(|error| error.message)? {
                Event::Message(message) => message.content,
                Event::Delta(delta) => serde_json::from_slice::<Spoken>(&delta.json)?.content,
                Event::Finish(_) | Event::Usage(_) | Event::Decision(_) => None,
            };
            if let Some(text) = text.filter(|_| self.is_heard) {
                self.has_begun = true;
                out.write_all(screen.fit(&text).as_bytes())?;
                out.flush()?;
            }
        }
        Ok(())
    }

    /// Ends the line, however the answer has ended.
    fn end(&self) -> io::Result<()> {
        if self.has_begun {
            writeln!(io::stdout())?;
        }
        Ok(())
    }
}

/// A run that is being watched.
struct Following {
    watch: Watch,
    progress: Progress,
    /// How far it has come, as far as that was told.
    last: Option<Arc<Decision>>,
}

impl Following {
    /// Shows how far the run has come, until this is over.
    async fn until<T>(&mut self, mut over: impl Future<Output = T> + Unpin) -> T {
        let over = loop {
            tokio::select! {
                over = &mut over => break over,
                Some(told) = self.watch.next() => self.show(told),
            }
        };
        // Both may have come at once.
        while let Some(Some(told)) = self.watch.next().now_or_never() {
            self.show(told);
        }
        over
    }

    /// What came of the run, which is over.
    async fn decision(&mut self) -> Option<Arc<Decision>> {
        let is_over = |decision: &&Arc<Decision>| decision.outcome() != How::Running;
        while self.last.as_ref().filter(is_over).is_none() {
            match self.watch.next().await? {
                Told::Decision(decision) => self.last = Some(decision),
                Told::Missed(_) => {}
            }
        }
        self.last.take()
    }

    fn show(&mut self, told: Told) {
        if let Told::Decision(decision) = told {
            self.progress.show(&decision);
            self.last = Some(decision);
        }
    }
}
