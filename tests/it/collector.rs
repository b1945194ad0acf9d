//! An OpenTelemetry collector, over gRPC or HTTP, that keeps what it is sent.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::routing::post;
use http::HeaderMap;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::Span as Wire;
use prost::Message;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tonic::transport::server::TcpIncoming;

/// The collector; dropping it ends it.
pub struct Collector {
    addr: SocketAddr,
    kept: Arc<Mutex<Kept>>,
    serving: JoinHandle<()>,
}

#[derive(Default)]
struct Kept {
    spans: Vec<Span>,
    resources: Vec<BTreeMap<String, Value>>,
    keys: Vec<String>,
}

/// A span as it came.
#[derive(Clone, Debug)]
pub struct Span {
    pub name: String,
    pub kind: i32,
    pub trace_id: String,
    pub id: String,
    pub parent: String,
    pub state: String,
    /// Since the epoch.
    pub began: Duration,
    /// Since the epoch.
    pub ended: Duration,
    pub attributes: BTreeMap<String, Value>,
    /// The message of an error's status; none when the status is not an error.
    pub error: Option<String>,
}

impl Span {
    /// An attribute; null when it is not there.
    pub fn attribute(&self, name: &str) -> Value {
        self.attributes.get(name).cloned().unwrap_or_default()
    }

    /// What makes this the parent of who is sent it.
    pub fn traceparent(&self) -> String {
        format!("00-{}-{}-01", self.trace_id, self.id)
    }
}

impl Collector {
    /// One that speaks gRPC.
    pub async fn grpc() -> Self {
        let (listener, addr) = listener().await;
        let kept = Arc::<Mutex<Kept>>::default();
        let service = TraceServiceServer::new(Keeper(Arc::clone(&kept)));
        let server = tonic::transport::Server::builder().add_service(service);
        let serving = tokio::spawn(async move {
            server.serve_with_incoming(TcpIncoming::from(listener)).await.expect("it serves");
        });
        Self { addr, kept, serving }
    }

    /// One that speaks HTTP.
    pub async fn http() -> Self {
        let (listener, addr) = listener().await;
        let kept = Arc::<Mutex<Kept>>::default();
        let router = Router::new().route("/v1/traces", post(keep)).with_state(Arc::clone(&kept));
        let serving = tokio::spawn(async move { axum::serve(listener, router).await.expect("it serves") });
        Self { addr, kept, serving }
    }

    /// Where it is.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// All spans so far.
    pub fn spans(&self) -> Vec<Span> {
        self.kept.lock().expect("whole").spans.clone()
    }

    /// Waits, at most 10 s, until there are `n` spans; returns all.
    pub async fn wait_for(&self, n: usize) -> Vec<Span> {
        consort_testkit::eventually(&format!("{n} spans"), Duration::from_secs(10), async || {
            Some(self.spans()).filter(|spans| spans.len() >= n)
        })
        .await
    }

    /// What the spans are of, export by export.
    pub fn resources(&self) -> Vec<BTreeMap<String, Value>> {
        self.kept.lock().expect("whole").resources.clone()
    }

    /// The header `x-key` of each export.
    pub fn keys(&self) -> Vec<String> {
        self.kept.lock().expect("whole").keys.clone()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let addr = listener.local_addr().expect("it is bound");
    (listener, addr)
}

struct Keeper(Arc<Mutex<Kept>>);

#[tonic::async_trait]
impl TraceService for Keeper {
    async fn export(
        &self,
        request: tonic::Request<ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<ExportTraceServiceResponse>, tonic::Status> {
        let key = request.metadata().get("x-key").map(|key| key.to_str().expect("text").to_owned());
        self.0.lock().expect("whole").keep(request.into_inner(), key);
        Ok(tonic::Response::new(ExportTraceServiceResponse::default()))
    }
}

async fn keep(State(kept): State<Arc<Mutex<Kept>>>, headers: HeaderMap, body: Bytes) -> Vec<u8> {
    assert_eq!(headers["content-type"], "application/x-protobuf");
    let key = headers.get("x-key").map(|key| key.to_str().expect("text").to_owned());
    let request = ExportTraceServiceRequest::decode(body).expect("OTLP");
    kept.lock().expect("whole").keep(request, key);
    ExportTraceServiceResponse::default().encode_to_vec()
}

impl Kept {
    fn keep(&mut self, request: ExportTraceServiceRequest, key: Option<String>) {
        self.keys.extend(key);
        for of_resource in request.resource_spans {
            self.resources.push(attributes(of_resource.resource.unwrap_or_default().attributes));
            let spans = of_resource.scope_spans.into_iter().flat_map(|scope| scope.spans);
            self.spans.extend(spans.map(read));
        }
    }
}

fn read(span: Wire) -> Span {
    let hex = |id: &[u8]| id.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    Span {
        name: span.name,
        kind: span.kind,
        trace_id: hex(&span.trace_id),
        id: hex(&span.span_id),
        parent: hex(&span.parent_span_id),
        state: span.trace_state,
        began: Duration::from_nanos(span.start_time_unix_nano),
        ended: Duration::from_nanos(span.end_time_unix_nano),
        attributes: attributes(span.attributes),
        error: span.status.filter(|status| status.code == 2).map(|status| status.message),
    }
}

fn attributes(list: Vec<KeyValue>) -> BTreeMap<String, Value> {
    list.into_iter().map(|pair| (pair.key, plain(pair.value))).collect()
}

fn plain(value: Option<AnyValue>) -> Value {
    match value.and_then(|value| value.value) {
        Some(Any::StringValue(text)) => json!(text),
        Some(Any::BoolValue(is)) => json!(is),
        Some(Any::IntValue(number)) => json!(number),
        Some(Any::DoubleValue(number)) => json!(number),
        Some(Any::ArrayValue(list)) => {
            list.values.into_iter().map(|value| plain(Some(value))).collect::<Vec<_>>().into()
        }
        _ => Value::Null,
    }
}
