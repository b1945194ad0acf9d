//! Traces: whose spans there are, below whose, how long they take, and what they say.

use std::time::Duration;

use consort_testkit::provider::Reply;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::collector::{Collector, Span};
use crate::stack::{ALIAS, KEY, ONE_ATTEMPT, Options, Stack, ms};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CALLER: &str = "b7ad6b7169203331";
/// `SPAN_KIND_INTERNAL` and `SPAN_KIND_CLIENT` of OTLP.
const INTERNAL: i32 = 1;
const CLIENT: i32 = 3;

/// A panel of `a`, `b` with a second attempt, and `c`, of whom two are enough.
fn options() -> Options {
    let options = Options::new().whole(|base_url| {
        format!(
            "listen: {{ext_proc: '127.0.0.1:0'}}
providers: [{{name: scripted, base_url: '{base_url}', api_key: {KEY}}}]
models:
- {{display_name: a, provider: scripted, model_name: model-a, {ONE_ATTEMPT}}}
- {{display_name: b, provider: scripted, model_name: model-b, retries: 1}}
- {{display_name: c, provider: scripted, model_name: model-c, {ONE_ATTEMPT}}}
- {{display_name: judge, provider: scripted, model_name: model-judge, {ONE_ATTEMPT}}}
- display_name: {ALIAS}
  ensemble:
    panel: [{{model: a}}, {{model: b}}, {{model: c}}]
    judge: {{model: judge}}
    min_responses: 2
    straggler_grace_ms: 50
- {{display_name: hasty, ensemble: {{panel: [{{model: c}}], strategy: vote, timeout_ms: 100}}}}
"
        )
    });
    // The tests do not wait for batches to be due.
    options.environment("OTEL_BSP_SCHEDULE_DELAY", 20)
}

fn exporting(collector: &Collector, protocol: &str) -> Options {
    options()
        .environment("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint())
        .environment("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
}

fn only(spans: &[Span], what: impl Fn(&Span) -> bool) -> &Span {
    let found: Vec<_> = spans.iter().filter(|span| what(span)).collect();
    assert_eq!(found.len(), 1, "{spans:#?}");
    found[0]
}

fn attempt<'a>(spans: &'a [Span], model: &str, number: u64) -> &'a Span {
    only(spans, |span| {
        span.name == format!("chat {model}") && span.attribute("consort.attempt") == json!(number)
    })
}

/// These attributes, by their names.
fn told(span: &Span, names: &[&str]) -> Value {
    names.iter().map(|name| span.attribute(name)).collect::<Vec<_>>().into()
}

#[tokio::test]
async fn a_run_is_a_span_below_the_callers_with_one_below_it_for_each_attempt() {
    let collector = Collector::grpc().await;
    let stack = exporting(&collector, "grpc").start().await;
    let provider = &stack.provider;
    let down = Reply::error(503, "kaboom", "server_error", None);
    provider.model("model-b").reply(down).then(Reply::text("two"));
    provider.model("model-c").reply(Reply::stall());
    provider.model("model-judge").reply(Reply::stream(&["It", " is", " so"], ms(20)));
    let caller = format!("00-{TRACE}-{CALLER}-01");
    let answer =
        stack.ask_stream().header("traceparent", &caller).header("tracestate", "vendor=1").send().await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let spans = collector.wait_for(6).await;
    assert_eq!(spans.len(), 6, "{spans:#?}");
    let run = only(&spans, |span| span.kind == INTERNAL);
    assert_eq!(run.name, format!("invoke_workflow {ALIAS}"));
    assert_eq!((&*run.trace_id, &*run.parent, &*run.state), (TRACE, CALLER, "vendor=1"));
    let told_of_run = told(
        run,
        &[
            "gen_ai.operation.name",
            "gen_ai.workflow.name",
            "consort.alias",
            "consort.strategy",
            "consort.outcome",
        ],
    );
    assert_eq!(told_of_run, json!(["invoke_workflow", ALIAS, ALIAS, "judge", "quorum"]));
    assert_eq!((run.error.as_ref(), run.attribute("error.type")), (None, Value::Null));
    let usage = stack.run_logged().await;
    assert_eq!(run.attribute("consort.usage.input_tokens"), usage["usage.prompt_tokens"]);

    let addr = provider.addr();
    for span in spans.iter().filter(|span| span.kind == CLIENT) {
        assert_eq!((&*span.trace_id, &*span.parent), (TRACE, &*run.id), "{span:#?}");
        assert!(span.began >= run.began && span.ended <= run.ended, "{span:#?} in {run:#?}");
        let common = ["gen_ai.operation.name", "gen_ai.provider.name", "server.address", "server.port"];
        assert_eq!(told(span, &common), json!(["chat", "openai", "127.0.0.1", addr.port()]));
        // The provider was told of this very span.
        let model = span.attribute("gen_ai.request.model");
        let requests = provider.requests_for(model.as_str().expect("a name"));
        let request = requests.iter().find(|request| request.header("traceparent") == span.traceparent());
        assert_eq!(request.expect("it was sent").header("tracestate"), "vendor=1");
    }

    let outcome =
        ["consort.role", "consort.member", "consort.model", "gen_ai.response.finish_reasons", "error.type"];
    let a = attempt(&spans, "model-a", 1);
    assert_eq!(told(a, &outcome), json!(["member", 0, "a", ["stop"], null]));
    let billed = provider.billed("model-a");
    assert_eq!(a.attribute("gen_ai.usage.input_tokens"), json!(billed.prompt));
    assert_eq!(a.attribute("gen_ai.usage.output_tokens"), json!(billed.completion));
    assert_eq!(a.attribute("gen_ai.response.model"), json!("model-a"));
    let [first, second] = [1, 2].map(|number| attempt(&spans, "model-b", number));
    assert_eq!(told(first, &outcome), json!(["member", 1, "b", null, "server_error"]));
    assert_eq!(
        (first.error.as_deref(), first.attribute("http.response.status_code")),
        (Some("server_error"), json!(503))
    );
    assert_eq!(told(second, &outcome), json!(["member", 1, "b", ["stop"], null]));
    assert!(second.began >= first.ended, "one after the other");
    let c = attempt(&spans, "model-c", 1);
    assert_eq!(told(c, &outcome), json!(["member", 2, "c", null, "cancelled"]));
    let judge = attempt(&spans, "model-judge", 1);
    assert_eq!(told(judge, &outcome), json!(["judge", null, "judge", ["stop"], null]));
    assert_eq!(judge.attribute("gen_ai.response.model"), json!("model-judge"));
    assert!(c.ended - second.ended >= ms(40), "the grace");
    assert!(c.ended <= judge.began + ms(5), "the straggler had ended before the judge was asked");
    assert!(judge.ended - judge.began >= ms(40), "as long as it spoke");

    let all = format!("{spans:?}");
    for content in ["why?", "\"two\"", "It is so", KEY] {
        assert!(!all.contains(content), "{content}: {all}");
    }
    assert_eq!(collector.resources()[0]["service.name"], "consort");
}

#[tokio::test]
async fn the_last_spans_are_exported_before_the_end() {
    let collector = Collector::http().await;
    let options = exporting(&collector, "http/protobuf")
        .environment("OTEL_BSP_SCHEDULE_DELAY", 60_000)
        .environment("OTEL_EXPORTER_OTLP_HEADERS", "x-key=k%20v")
        .environment("OTEL_SERVICE_NAME", "panels")
        .environment("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test");
    let stack = options.start().await;
    assert_eq!(stack.ask(json!({})).send().await.status, 200);
    stack.run_logged().await;
    assert!(collector.spans().is_empty(), "they are not due yet");
    stack.service.signal("TERM");
    assert!(stack.service.wait_exit(Duration::from_secs(20)).await.success());
    let spans = collector.spans();
    assert_eq!(spans.len(), 5, "{spans:#?}");
    let run = only(&spans, |span| span.kind == INTERNAL);
    assert_eq!(run.parent, "", "nobody is above it");
    assert!(spans.iter().all(|span| span.trace_id == run.trace_id));
    assert_eq!(collector.keys(), ["k v"]);
    let resource = &collector.resources()[0];
    assert_eq!(
        (&resource["service.name"], &resource["deployment.environment.name"]),
        (&json!("panels"), &json!("test"))
    );
}

#[tokio::test]
async fn a_collector_that_is_not_there_costs_neither_answers_nor_the_end() {
    let gone = Collector::grpc().await.endpoint();
    // The kernel takes its connections; nobody ever answers.
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let silent = (format!("http://{}", silent.local_addr().expect("it is bound")), silent);
    for (endpoint, protocol) in
        [(&gone, "grpc"), (&gone, "http/protobuf"), (&silent.0, "grpc"), (&silent.0, "http/protobuf")]
    {
        let options = options()
            .environment("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
            .environment("OTEL_EXPORTER_OTLP_PROTOCOL", protocol);
        let stack = options.start().await;
        assert_eq!(stack.ask(json!({})).send().await.status, 200);
        stack.service.signal("TERM");
        let status = stack.service.wait_exit(Duration::from_secs(20)).await;
        assert!(status.success(), "{endpoint} {protocol}");
        let told = stack.service.logs().iter().any(|line| {
            line["target"].as_str().is_some_and(|target| target.starts_with("opentelemetry"))
                || line["fields"]["message"] == "the last spans may be lost"
        });
        assert!(told, "{:#?}", stack.service.logs());
    }
}

#[tokio::test]
async fn a_caller_that_leaves_and_a_call_that_takes_too_long_are_told_apart() {
    let collector = Collector::grpc().await;
    let stack = exporting(&collector, "grpc").start().await;
    for model in ["model-a", "model-b", "model-c"] {
        stack.provider.model(model).reply(Reply::stall());
    }
    let caller = tokio::spawn(stack.ask(json!({})).try_open());
    for model in ["model-a", "model-b", "model-c"] {
        stack.provider.wait_for(model, 1).await;
    }
    caller.abort();
    let spans = collector.wait_for(4).await;
    for span in &spans {
        assert_eq!(
            (span.attribute("error.type"), span.error.as_deref()),
            (json!("cancelled"), Some("cancelled"))
        );
    }
    assert_eq!(only(&spans, |span| span.kind == INTERNAL).attribute("consort.outcome"), "cancelled");
    assert_eq!(stack.ask(json!({"model": "hasty"})).send().await.status, 504);
    let spans = collector.wait_for(6).await.split_off(4);
    assert_eq!(only(&spans, |span| span.kind == INTERNAL).attribute("error.type"), "ensemble_timeout");
    let late = only(&spans, |span| span.kind == CLIENT);
    assert_eq!(late.attribute("error.type"), "timeout");
    assert!(late.ended - late.began >= ms(95), "{late:#?}");
}

#[tokio::test]
async fn a_trace_that_its_caller_does_not_sample_is_not_exported_and_goes_on_all_the_same() {
    let collector = Collector::grpc().await;
    let stack = exporting(&collector, "grpc").start().await;
    let ask = |flags: &str| {
        let caller = format!("00-{TRACE}-{CALLER}-{flags}");
        stack.ask(json!({})).header("traceparent", &caller).send()
    };
    assert_eq!(ask("00").await.status, 200);
    assert_eq!(ask("01").await.status, 200);
    let spans = collector.wait_for(5).await;
    assert_eq!(spans.len(), 5, "those of the second: {spans:#?}");
    let requests = stack.provider.requests();
    assert_eq!(requests.len(), 8);
    for request in &requests[..4] {
        let sent = request.header("traceparent");
        assert!(sent.starts_with(&format!("00-{TRACE}-")) && sent.ends_with("-00"), "{sent}");
    }
}

#[tokio::test]
async fn without_traces_the_callers_context_goes_on_as_it_came() {
    let collector = Collector::grpc().await;
    for (name, value) in
        [("OTEL_SDK_DISABLED", "true"), ("OTEL_TRACES_EXPORTER", "none"), ("OTEL_TRACES_EXPORTER", "console")]
    {
        let stack: Stack = exporting(&collector, "grpc").environment(name, value).start().await;
        let caller = format!("00-{TRACE}-{CALLER}-01");
        let answer = stack.ask(json!({})).header("traceparent", &caller).send().await;
        assert_eq!(answer.status, 200);
        let requests = stack.provider.requests();
        assert!(requests.iter().all(|request| request.header("traceparent") == caller), "{requests:#?}");
        stack.service.signal("TERM");
        assert!(stack.service.wait_exit(Duration::from_secs(20)).await.success());
    }
    assert!(collector.spans().is_empty());
}
