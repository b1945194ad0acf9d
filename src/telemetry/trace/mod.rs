//! Traces: a span for each run, and one for each attempt of its calls, in the words of OpenTelemetry's conventions for
//! generative AI. What was asked and answered is in none of them.

mod attempt;
mod context;
mod http;
mod run;

use std::env;
use std::time::Duration;

use opentelemetry::trace::TracerProvider;
use opentelemetry::{InstrumentationScope, Key};
use opentelemetry_otlp::{
    ExporterBuildError, OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_EXPORTER_OTLP_PROTOCOL, OTEL_EXPORTER_OTLP_TIMEOUT,
    OTEL_EXPORTER_OTLP_TRACES_ENDPOINT, OTEL_EXPORTER_OTLP_TRACES_PROTOCOL,
    OTEL_EXPORTER_OTLP_TRACES_TIMEOUT, Protocol, SpanExporter, WithExportConfig, WithHttpConfig,
};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};
use tracing::{info, warn};

use super::chain;

pub use attempt::{Asked, AttemptSpan, CallTrace};
pub use context::TraceHeaders;
pub use run::RunSpan;

/// `otlp`, `none`.
const OTEL_TRACES_EXPORTER: &str = "OTEL_TRACES_EXPORTER";
/// `true` turns everything off.
const OTEL_SDK_DISABLED: &str = "OTEL_SDK_DISABLED";
/// How long one export may take where the environment says nothing.
const EXPORT: Duration = Duration::from_secs(10);
/// What an attribute of a resource says when nobody has said anything.
const UNKNOWN: &str = "unknown_service";

/// Where spans go. The default is nowhere, and costs nothing.
#[derive(Clone, Debug, Default)]
pub struct Traces(Option<Sink>);

#[derive(Clone, Debug)]
struct Sink {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
}

/// Why spans cannot go where the environment says.
#[derive(Debug, thiserror::Error)]
enum Unusable {
    #[error("the settings cannot be used")]
    Settings(#[from] ExporterBuildError),
    #[error("TLS cannot be spoken")]
    Tls(#[from] rustls::Error),
}

impl Traces {
    /// Where the standard `OTEL_…` variables of this process say. Without an endpoint, and without
    /// `OTEL_TRACES_EXPORTER=otlp`, that is nowhere. What cannot be used is logged, and leaves traces off.
    ///
    /// It has to be called within a Tokio runtime with timers and I/O, which then carries the exports.
    pub fn from_environment() -> Self {
        if !wanted() {
            return Self::default();
        }
        let protocol = protocol();
        let exporter = match protocol {
            Protocol::Grpc => SpanExporter::builder().with_tonic().build().map_err(Unusable::from),
            _ => over_http(protocol),
        };
        match exporter {
            Ok(exporter) => {
                info!(?protocol, "traces are exported");
                let provider = SdkTracerProvider::builder().with_batch_exporter(exporter);
                Self::of(provider.with_resource(resource()).build())
            }
            Err(error) => {
                warn!(cause = %chain(&error), "traces cannot be exported");
                Self::default()
            }
        }
    }

    fn of(provider: SdkTracerProvider) -> Self {
        let scope = InstrumentationScope::builder("consort").with_version(env!("CARGO_PKG_VERSION")).build();
        let tracer = provider.tracer_with_scope(scope);
        Self(Some(Sink { provider, tracer }))
    }

    /// Exports what is left, for at most so long, and ends. Spans that end later go nowhere.
    pub async fn shutdown(self, within: Duration) {
        let Some(Sink { provider, .. }) = self.0 else {
            return;
        };
        // It waits for a thread of its own, which waits for this runtime.
        let ended = tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(within)).await;
        match ended {
            Ok(Ok(())) => {}
            Ok(Err(error)) => warn!(cause = %chain(&error), "the last spans may be lost"),
            Err(error) => warn!(cause = %chain(&error), "the last spans may be lost"),
        }
    }
}

fn wanted() -> bool {
    if variable(OTEL_SDK_DISABLED).is_some_and(|value| value.eq_ignore_ascii_case("true")) {
        return false;
    }
    match variable(OTEL_TRACES_EXPORTER).as_deref() {
        None => [OTEL_EXPORTER_OTLP_TRACES_ENDPOINT, OTEL_EXPORTER_OTLP_ENDPOINT]
            .into_iter()
            .any(|name| variable(name).is_some()),
        Some("otlp") => true,
        Some("none") => false,
        Some(other) => {
            warn!(exporter = other, "traces are off: {OTEL_TRACES_EXPORTER} must be `otlp` or `none`");
            false
        }
    }
}

fn protocol() -> Protocol {
    let written =
        [OTEL_EXPORTER_OTLP_TRACES_PROTOCOL, OTEL_EXPORTER_OTLP_PROTOCOL].into_iter().find_map(variable);
    match written.as_deref() {
        None | Some("http/protobuf") => Protocol::HttpBinary,
        Some("grpc") => Protocol::Grpc,
        Some(other) => {
            warn!(protocol = other, "this OTLP protocol is not spoken: traces are sent as http/protobuf");
            Protocol::HttpBinary
        }
    }
}

fn over_http(protocol: Protocol) -> Result<SpanExporter, Unusable> {
    let ms = [OTEL_EXPORTER_OTLP_TRACES_TIMEOUT, OTEL_EXPORTER_OTLP_TIMEOUT]
        .into_iter()
        .find_map(|name| variable(name)?.parse().ok());
    let client = http::Client::new(ms.map_or(EXPORT, Duration::from_millis))?;
    Ok(SpanExporter::builder().with_http().with_http_client(client).with_protocol(protocol).build()?)
}

/// Who we are: as `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` have it, or else `consort`.
fn resource() -> Resource {
    let told = Resource::builder().build();
    let name = told.get_ref(&Key::from_static_str("service.name")).map(|name| name.as_str().into_owned());
    let mut resource = Resource::builder();
    if name.is_none_or(|name| name.starts_with(UNKNOWN)) {
        resource = resource.with_service_name("consort");
    }
    if told.get_ref(&Key::from_static_str("service.version")).is_none() {
        let version = opentelemetry::KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
        resource = resource.with_attribute(version);
    }
    resource.build()
}

/// A variable that says something.
fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}
