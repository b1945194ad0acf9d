//! Envoy's side of the attachment: the configuration that Consort needs there, and what a running Envoy lacks of it.
//!
//! [`Attachment::render`] fills templates in that stand in `templates/`, one file for each part that the formats have in
//! common. They are text with comments, not a data structure: why a setting is there is half of what they say.

mod address;
mod aliases;
pub mod doctor;
mod name;
mod template;
mod tls;

use clap::ValueEnum;
use serde::Serialize;

pub use self::address::{Address, AddressError};
pub use self::aliases::{Aliases, NoAliases};
pub use self::name::{DnsLabel, DnsLabelError};
pub use self::template::TemplateError;
pub use self::tls::{ClientFiles, Tls};

/// How the request's body comes to Consort, and the answer to the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Consort asks for the bodies that it wants (Envoy 1.40 and later).
    Standalone,
    /// Envoy streams all bodies through Consort (Envoy 1.37 and later).
    Duplex,
    /// Envoy holds the whole body and gets the whole answer (Envoy 1.36 or later; older ones: take out status_on_error;
    /// before 1.31 route_cache_action).
    Buffered,
    /// Envoy holds the whole body and sends ensembles' requests on to Consort's plain door (Envoy 1.36 or later; older
    /// ones: take out status_on_error; before 1.31 route_cache_action).
    Handoff,
}

/// What becomes of an ensemble's request that Consort cannot be asked about. Those for other models pass, unless the mode
/// is [`Mode::Duplex`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum OnFailure {
    /// Envoy refuses it with a 503.
    Closed,
    /// It passes to the upstream, prompt included.
    Open,
}

/// What the configuration is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// A whole configuration of an Envoy.
    Bootstrap,
    /// The parts to put into one that is there.
    Filter,
    /// Resources of Envoy Gateway.
    EnvoyGateway,
    /// A resource of Istio.
    Istio,
}

/// Consort's attachment to an Envoy.
#[derive(Debug, Serialize)]
pub struct Attachment {
    /// How bodies and answers travel.
    pub mode: Mode,
    /// The names that Envoy is to know; none where there are no ensembles.
    pub aliases: Option<Aliases>,
    /// Whether Envoy is to decide by itself whom it need not ask Consort about; needs `aliases`.
    pub gate: bool,
    /// What becomes of ensembles' requests while Consort is not there.
    pub on_failure: OnFailure,
    /// Where Envoy listens.
    pub listen: Address,
    /// Where Consort's `listen.ext_proc` is.
    pub consort: Address,
    /// Where Consort's `listen.http` is, for [`Mode::Handoff`].
    pub consort_http: Address,
    /// Where requests for plain models go.
    pub upstream: Address,
    /// What it is to be found by in Kubernetes.
    pub place: Place,
    /// The command that made this.
    pub command: String,
    /// The way to [`Self::consort`], where Consort speaks TLS there.
    pub consort_tls: Option<Tls>,
    /// The way to [`Self::consort_http`], where Consort speaks TLS there.
    pub consort_http_tls: Option<Tls>,
    /// Whether lists of models are to come through Consort.
    pub lists_models: bool,
}

/// Names of what is there already in Kubernetes.
#[derive(Clone, Debug, Serialize)]
pub struct Place {
    /// The namespace of the gateway, and of its route.
    pub namespace: DnsLabel,
    /// Envoy Gateway: the Gateway. Istio: the value of the gateway pods' `istio` label.
    pub gateway: DnsLabel,
    /// Envoy Gateway: the Gateway's listener.
    pub listener: DnsLabel,
    /// Envoy Gateway: the HTTPRoute. Istio: the name of the VirtualService's route.
    pub route: DnsLabel,
}

impl Attachment {
    /// The configuration, as YAML with comments.
    ///
    /// # Errors
    /// When a template is wrong, which tests rule out.
    pub fn render(&self, format: Format) -> Result<String, TemplateError> {
        template::render(format, self)
    }

    /// The name under which Consort ships such a bootstrap.
    pub fn file_name(&self) -> String {
        let mode = match self.mode {
            Mode::Standalone => "",
            Mode::Duplex => "-duplex",
            Mode::Buffered => "-buffered",
            Mode::Handoff => "-handoff",
        };
        format!("envoy{mode}{}.yaml", if self.gate { "-gate" } else { "" })
    }
}
