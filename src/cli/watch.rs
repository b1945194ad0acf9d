//! `consort watch`: the decisions of a running Consort, as they are made.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Args;
use clap::builder::PossibleValuesParser;

use super::Result;
use super::account::{seconds, summary, tone_of_call};
use super::paint::{Paint, Tone};
use crate::telemetry::decision::decision_log_client::DecisionLogClient;
use crate::telemetry::decision::watch_response::Told;
use crate::telemetry::decision::{Call, Decision, Outcome, WatchRequest};

/// How runs end, by their words.
const OUTCOMES: [Outcome; 7] = [
    Outcome::Full,
    Outcome::Quorum,
    Outcome::Degraded,
    Outcome::Single,
    Outcome::Cascade,
    Outcome::Failed,
    Outcome::Cancelled,
];

/// Show the decisions of a running Consort, as they are made: one line for each run.
#[derive(Debug, Args)]
pub(super) struct Watch {
    /// The admin listener of that Consort: `host:port`, or `unix:/path`.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9902")]
    admin: String,
    /// Runs of this alias only.
    #[arg(long)]
    alias: Option<String>,
    /// Runs that ended like this only.
    #[arg(long, value_parser = PossibleValuesParser::new(OUTCOMES.map(Outcome::label)))]
    outcome: Option<String>,
    /// First those that are still kept of the past, too.
    #[arg(long)]
    past: bool,
    /// Print each decision as JSON, one a line.
    #[arg(long)]
    json: bool,
}

impl Watch {
    /// Prints until it is interrupted. That the other Consort ends is an error: nobody has asked for an end.
    pub(super) async fn run(self) -> Result<ExitCode> {
        let at = if self.admin.starts_with("unix:") {
            self.admin.clone()
        } else {
            format!("http://{}", self.admin)
        };
        let client = DecisionLogClient::connect(at).await;
        let mut client = client.map_err(|error| Unreachable { admin: self.admin.clone(), error })?;
        let mut told = client.watch(self.request()).await?.into_inner();
        let paint = Paint::on(&io::stdout());
        loop {
            let response = told.message().await.ok().flatten();
            let response = response.ok_or_else(|| Ended { admin: self.admin.clone() })?;
            match response.told {
                Some(Told::Decision(decision)) if self.json => {
                    writeln!(io::stdout(), "{}", serde_json::to_string(&decision)?)?;
                }
                Some(Told::Decision(decision)) => writeln!(io::stdout(), "{}", line(&decision, paint))?,
                Some(Told::Missed(count)) => {
                    writeln!(io::stderr(), "consort: {count} decisions were missed")?
                }
                None => {}
            }
        }
    }

    fn request(&self) -> WatchRequest {
        let outcome = OUTCOMES.into_iter().find(|outcome| self.outcome.as_deref() == Some(outcome.label()));
        WatchRequest {
            alias: self.alias.clone().unwrap_or_default(),
            outcome: outcome.unwrap_or_default().into(),
            since: self.past.then_some(0),
            include_running: false,
        }
    }
}

/// Nobody answers there.
#[derive(Debug, thiserror::Error)]
#[error("no Consort can be asked at {admin} (--admin)")]
struct Unreachable {
    admin: String,
    #[source]
    error: tonic::transport::Error,
}

/// What was watched is not there any more.
#[derive(Debug, thiserror::Error)]
#[error("the Consort at {admin} has ended")]
struct Ended {
    admin: String,
}

/// When it ended, whose it was, what came of it, by whom.
fn line(decision: &Decision, paint: Paint) -> String {
    let time = paint.toned(&time(decision), Tone::Quiet);
    let calls = decision.members.iter().chain(&decision.judges).map(|call| shown(call, paint));
    let calls: Vec<_> = calls.collect();
    let Decision { alias, strategy, .. } = decision;
    format!("{time}  {alias}  {strategy}  {}  {}", summary(decision, paint), calls.join(" "))
}

/// The end of a run, in UTC.
fn time(decision: &Decision) -> String {
    let ended_s = (decision.started_at_ms as f64 + decision.total_ms) / 1000.0;
    let of_day = ended_s as u64 % 86_400;
    format!("{:02}:{:02}:{:02}Z", of_day / 3600, of_day / 60 % 60, of_day % 60)
}

fn shown(call: &Call, paint: Paint) -> String {
    let result = paint.toned(&call.result, tone_of_call(&call.result));
    format!("{}={result}@{}", call.model, seconds(call.started_ms + call.elapsed_ms).replace(' ', ""))
}
