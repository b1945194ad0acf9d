//! `consort watch`: the decisions of a running Consort, as they are made.

use std::error::Error;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::Args;
use clap::builder::PossibleValuesParser;
use tonic::{Code, Status};

use super::Result;
use super::account::{seconds, summary, tone_of_call};
use super::operators::Operators;
use super::paint::{Paint, Screen, Tone, plain};
use crate::telemetry::decision::decision_log_client::DecisionLogClient;
use crate::telemetry::decision::watch_response::Told;
use crate::telemetry::decision::{Call, Decision, Outcome, WatchRequest};

/// Show the decisions of a running Consort, as they are made: one line for each run.
#[derive(Debug, Args)]
pub(super) struct Watch {
    #[command(flatten)]
    operators: Operators,
    /// Runs of this alias only.
    #[arg(long)]
    alias: Option<String>,
    /// Runs that ended like this only.
    #[arg(long, value_parser = PossibleValuesParser::new(Outcome::ENDS.map(Outcome::label)))]
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
        let mut client = DecisionLogClient::new(self.operators.connect().await?);
        let told = client.watch(self.request()).await;
        let mut told = told.map_err(|status| self.broken_off(&status))?.into_inner();
        let paint = Paint::on(&io::stdout());
        loop {
            let response = told.message().await.map_err(|status| self.broken_off(&status))?;
            let response = response.ok_or_else(|| Ended { admin: self.operators.admin.clone() })?;
            match response.told {
                Some(Told::Decision(decision)) if self.json => {
                    let json = serde_json::to_string(&decision)?;
                    writeln!(io::stdout(), "{}", Screen::on(&io::stdout()).fit(&json))?;
                }
                Some(Told::Decision(decision)) => writeln!(io::stdout(), "{}", line(&decision, paint))?,
                Some(Told::Missed(count)) => {
                    writeln!(io::stderr(), "consort: {count} decisions were missed")?
                }
                None => {}
            }
        }
    }

    /// Why there is nothing more to be told, where that was not for the orderly end of the other Consort.
    fn broken_off(&self, status: &Status) -> Box<dyn Error + Send + Sync> {
        let (admin, why) = (self.operators.admin.clone(), status.message().to_owned());
        // An answer that is not gRPC's has its HTTP status in tonic's words alone.
        let is_answered = why.contains("with status: ");
        match status.code() {
            Code::PermissionDenied => Foreign { admin }.into(),
            Code::Internal if why.contains("with status: 403") => Foreign { admin }.into(),
            // What becomes of a broken connection.
            Code::Unavailable | Code::Unknown | Code::Internal | Code::Cancelled if !is_answered => {
                Ended { admin }.into()
            }
            _ => Refused { admin, why }.into(),
        }
    }

    fn request(&self) -> WatchRequest {
        let outcome =
            Outcome::ENDS.into_iter().find(|outcome| self.outcome.as_deref() == Some(outcome.label()));
        WatchRequest {
            alias: self.alias.clone().unwrap_or_default(),
            outcome: outcome.unwrap_or_default().into(),
            since: self.past.then_some(0),
            include_running: false,
        }
    }
}

/// What was watched is not there any more.
#[derive(Debug, thiserror::Error)]
#[error("the Consort at {admin} has ended")]
struct Ended {
    admin: String,
}

/// It does not answer to that name.
#[derive(Debug, thiserror::Error)]
#[error(
    "the Consort at {admin} refuses to be called by that name (403 foreign_host): its `admin.hosts` has to list it"
)]
struct Foreign {
    admin: String,
}

/// It does not tell.
#[derive(Debug, thiserror::Error)]
#[error("the Consort at {admin} refuses to be watched: {why}")]
struct Refused {
    admin: String,
    why: String,
}

/// When it ended, whose it was, what came of it, by whom.
fn line(decision: &Decision, paint: Paint) -> String {
    let time = paint.toned(&time(decision), Tone::Quiet);
    let calls = decision.members.iter().chain(&decision.judges).map(|call| shown(call, paint));
    let calls: Vec<_> = calls.collect();
    let [alias, strategy] = [&decision.alias, &decision.strategy].map(|name| plain(name));
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
    format!("{}={result}@{}", plain(&call.model), seconds(call.started_ms + call.elapsed_ms).replace(' ', ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_have_named_does_not_steer_a_terminal() {
        let evil = |name: &str| format!("{name}\u{1b}]52;c;aGk=\u{7}\n\u{9b}2J");
        let call = Call { model: evil("m"), result: evil("r"), ..Call::default() };
        let decision = Decision {
            alias: evil("a"),
            strategy: evil("s"),
            degraded: vec![evil("d")],
            outcome: Outcome::Degraded.into(),
            members: vec![call],
            ..Decision::default()
        };
        let paint = Paint::on(&std::fs::File::open("/dev/null").unwrap());
        let (line, table) = (line(&decision, paint), super::super::account::told(&decision, paint));
        assert!(line.contains("  a]52;c;aGk=2J  s]52") && line.contains("m]52;c;aGk=2J=r]52"), "{line:?}");
        assert!(table.contains("m]52;c;aGk=2J"), "{table:?}");
        assert!(!line.contains(char::is_control), "{line:?}");
        assert!(
            !table.contains(|c: char| c.is_control() && c != '\n') && table.lines().count() == 4,
            "{table:?}"
        );
    }
}
