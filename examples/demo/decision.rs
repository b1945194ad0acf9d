//! Who answered when: the one line that Consort logs about each run, read as it is logged.

use std::collections::HashMap;
use std::fmt;
use std::io;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Context, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

/// What became of one question.
#[derive(Debug)]
pub struct Decision {
    /// `full`, `quorum`, `degraded`, …
    pub outcome: String,
    /// The panel in its order, then the judge.
    pub calls: Vec<Call>,
    /// How many usable answers the panel gave, and how many were needed.
    pub quorum: (String, String),
    /// What all calls together cost.
    pub tokens: String,
}

/// One call of a model.
#[derive(Debug)]
pub struct Call {
    /// Its name in `consort.yaml`.
    pub model: String,
    /// `usable` of a member, `answered` of the judge, or why not.
    pub result: String,
    /// When it ended, in ms since the question came.
    pub ended_ms: String,
}

impl Call {
    /// From `name=result@ms`, or `name=result@msx2` of one that took two attempts.
    fn parse(text: &str) -> Option<Self> {
        let (model, rest) = text.split_once('=')?;
        let (result, ended_ms) = rest.split_once('@')?;
        let ended_ms = ended_ms.split('x').next()?.to_owned();
        Some(Self { model: model.to_owned(), result: result.to_owned(), ended_ms })
    }
}

/// The decisions, in the order in which they were made.
pub struct Decisions(UnboundedReceiver<Decision>);

impl Decisions {
    /// Waits for the next one.
    pub async fn next(&mut self) -> crate::Result<Decision> {
        self.0.recv().await.ok_or_else(|| "nobody records decisions any more".into())
    }
}

/// Begins to record. What Consort warns of goes to standard error as well.
pub fn record(colours: bool) -> Decisions {
    let (sender, decisions) = unbounded_channel();
    let consort = |level| Targets::new().with_target("consort", level);
    let warnings = tracing_subscriber::fmt::layer().with_writer(io::stderr).with_ansi(colours).without_time();
    tracing_subscriber::registry()
        .with(Recorder(sender).with_filter(consort(LevelFilter::INFO)))
        .with(warnings.with_filter(consort(LevelFilter::WARN)))
        .init();
    Decisions(decisions)
}

struct Recorder(UnboundedSender<Decision>);

impl<S: Subscriber> Layer<S> for Recorder {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        if let Some(decision) = fields.decision() {
            // Nobody listens to the last ones, when the demo is leaving.
            let _ = self.0.send(decision);
        }
    }
}

#[derive(Default)]
struct Fields(HashMap<&'static str, String>);

impl Fields {
    /// `None` for the other lines.
    fn decision(mut self) -> Option<Decision> {
        let mut field = |name: &str| self.0.remove(name);
        let (members, judges) = (field("members")?, field("judges")?);
        Some(Decision {
            outcome: field("outcome")?,
            calls: members.split(' ').chain(judges.split(' ')).filter_map(Call::parse).collect(),
            quorum: (field("quorum.got")?, field("quorum.needed")?),
            tokens: field("usage.total_tokens")?,
        })
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name(), value.to_owned());
    }
}
