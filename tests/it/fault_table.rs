//! What each fault of a provider comes to, in each seat: how often it is tried, whether the model is then left alone,
//! what the caller gets and what is billed.

use std::net::SocketAddr;

use consort_testkit::provider::Reply;
use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpSocket};

use crate::stack::{KEY, ONE_ATTEMPT, Options, Stack, ms};

/// How often each ensemble is asked. Models are tried twice a call and cool down after two failures.
const RUNS: usize = 3;
/// What the other calls of a run cost: two members and the judge, or three members.
const BESIDE: [u64; 3] = [35, 33, 33];
/// What a stream tells of its cost before it breaks.
const TOLD: u64 = 59;

/// Where a faulty model stands: as a member, as the judge of a plain answer, as that of a streamed one.
const SEATS: [&str; 3] = ["member", "judge", "streaming judge"];

/// What is wrong with a provider.
enum Fault {
    /// It answers so.
    Says(Reply),
    /// It is this address, and answers nothing.
    Is(&'static str),
}

/// What comes of three runs.
#[derive(Clone, Copy)]
enum Course {
    /// Two attempts at first, and none later.
    Tried(&'static str),
    /// One attempt in each of two runs, and none later.
    Once(&'static str),
    /// One attempt in each run: it says nothing of the model's health.
    Kept(&'static str),
    /// As `Once`, and callers see the answer break off.
    Seen(&'static str),
    /// As `Tried`, and both attempts are billed.
    Billed(&'static str),
}
use Course::{Billed, Kept, Once, Seen, Tried};

impl Course {
    /// Each run's result and attempts.
    fn runs(self) -> [(&'static str, usize); RUNS] {
        let cooling = ("cooling", 0);
        match self {
            Tried(result) | Billed(result) => [(result, 2), cooling, cooling],
            Once(result) | Seen(result) => [(result, 1), (result, 1), cooling],
            Kept(result) => [(result, 1); RUNS],
        }
    }
}

/// A fault, and what comes of it in each seat.
fn table() -> Vec<(&'static str, Fault, [Course; 3])> {
    let error = |status| Fault::Says(Reply::error(status, "kaboom", "server_error", None));
    let sse = |events: &[&str]| {
        Fault::Says(Reply::sse(events.iter().map(|e| format!("data: {e}\n\n")).collect::<String>()))
    };
    let delta = |delta: Value| json!({"choices": [{"index": 0, "delta": delta}]}).to_string();
    let (role, word) = (delta(json!({"role": "assistant", "content": ""})), delta(json!({"content": "It"})));
    let cost = json!({"prompt_tokens": 50, "completion_tokens": 9, "total_tokens": TOLD});
    let cost = json!({"choices": [], "usage": cost}).to_string();
    let failure = r#"{"error":{"message":"host db-7 is down","type":"server_error","code":null}}"#;
    // A stream to a call that asked for none cannot be read.
    let streamed = |course| [Kept("unreadable"), Kept("unreadable"), course];
    let says = Fault::Says;
    vec![
        ("connect refused", Fault::Is("refused"), [Tried("connect"); 3]),
        ("connect stall", Fault::Is("silent"), [Tried("connect"); 3]),
        ("TLS failure", Fault::Is("no-tls"), [Tried("connect"); 3]),
        ("401", error(401), [Once("auth"); 3]),
        ("408", error(408), [Tried("status"); 3]),
        ("429", error(429), [Tried("rate_limited"); 3]),
        ("429 with retry-after", says(Reply::rate_limited("30")), [Once("rate_limited"); 3]),
        ("400", error(400), [Kept("bad_request"); 3]),
        ("500", error(500), [Tried("server_error"); 3]),
        ("503", error(503), [Tried("server_error"); 3]),
        ("no headers", says(Reply::stall()), [Once("timeout"); 3]),
        ("headers then stall", says(Reply::text("two").stall_after(0)), [Once("timeout"); 3]),
        ("cut before headers", says(Reply::cut()), [Tried("broken"); 3]),
        ("body cut, stream cut after its role", says(Reply::text("two").cut_after(0)), [Tried("broken"); 3]),
        ("garbage", says(Reply::garbage()), [Kept("unreadable"); 3]),
        ("wrong content type", says(Reply::raw("text/html", "<html>hi</html>")), [Kept("unreadable"); 3]),
        (
            "too large a body",
            says(Reply::raw("application/json", " ".repeat(400_000))),
            [Kept("too_large"); 3],
        ),
        (
            "stream cut after content",
            says(Reply::stream(&["It", " is"], ms(0)).cut_after(1)),
            [Tried("broken"), Tried("broken"), Seen("broken")],
        ),
        ("stream without finish", sse(&[&role, &word]), streamed(Seen("incomplete"))),
        ("stream without a word", sse(&[&role]), streamed(Tried("incomplete"))),
        ("stream that told its cost", sse(&[&role, &cost]), streamed(Billed("incomplete"))),
        ("error event", sse(&[&role, failure]), streamed(Tried("error_event"))),
        ("error event after content", sse(&[&word, failure]), streamed(Seen("error_event"))),
    ]
}

/// Addresses at which nobody answers: one refuses, one is silent, one ends each handshake.
async fn nobodies() -> ([(&'static str, SocketAddr); 3], (TcpSocket, TcpListener)) {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let refused = TcpSocket::new_v4().expect("a socket");
    refused.bind(any).expect("a free port");
    // The kernel completes TCP's handshake; nobody begins that of TLS.
    let silent = TcpListener::bind(any).await.expect("a free port");
    let no_tls = TcpListener::bind(any).await.expect("a free port");
    let addr = |addr: std::io::Result<SocketAddr>| addr.expect("it is bound");
    let all = [
        ("refused", addr(refused.local_addr())),
        ("silent", addr(silent.local_addr())),
        ("no-tls", addr(no_tls.local_addr())),
    ];
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = no_tls.accept().await {
            // Who has gone already has got what it came for.
            let _ = socket.write_all(b"220 mail.test ESMTP\r\n").await;
        }
    });
    (all, (refused, silent))
}

/// A faulty model and an ensemble of its own for each row and seat.
fn config(base_url: &str, table: &[(&str, Fault, [Course; 3])], nobodies: &[(&str, SocketAddr)]) -> String {
    let providers: String = nobodies
        .iter()
        .map(|(name, addr)| {
            format!("- {{name: {name}, base_url: 'https://{addr}/v1', connect_timeout_ms: 300}}\n")
        })
        .collect();
    let mut models = String::new();
    for (row, (_, fault, _)) in table.iter().enumerate() {
        let (provider, timeout) = match fault {
            Fault::Is(name) => (*name, ""),
            Fault::Says(reply) if format!("{reply:?}").contains("Stall") => ("scripted", ", timeout: 400"),
            Fault::Says(reply) if format!("{reply:?}").contains("cut: false") => {
                ("scripted", ", timeout: 400")
            }
            Fault::Says(_) => ("scripted", ""),
        };
        for seat in 0..SEATS.len() {
            let (panel, judge) = if seat == 0 {
                (format!("[{{model: f{row}-{seat}}}, {{model: b}}, {{model: c}}]"), "judge".to_owned())
            } else {
                ("[{model: a}, {model: b}, {model: c}]".to_owned(), format!("f{row}-{seat}"))
            };
            models.push_str(&format!(
                "- {{display_name: f{row}-{seat}, provider: {provider}, model_name: m{row}-{seat}, retries: 1, \
                 cooldown: {{failures: 2}}{timeout}}}
- {{display_name: e{row}-{seat}, ensemble: {{panel: {panel}, judge: {{model: {judge}}}, min_responses: 2}}}}\n"
            ));
        }
    }
    format!(
        "listen: {{ext_proc: '127.0.0.1:0'}}
limits: {{max_response_bytes: 300000}}
providers:
- {{name: scripted, base_url: '{base_url}', api_key: {KEY}}}
{providers}models:
- {{display_name: a, provider: scripted, model_name: model-a, {ONE_ATTEMPT}}}
- {{display_name: b, provider: scripted, model_name: model-b, {ONE_ATTEMPT}}}
- {{display_name: c, provider: scripted, model_name: model-c, {ONE_ATTEMPT}}}
- {{display_name: judge, provider: scripted, model_name: model-judge, {ONE_ATTEMPT}}}
{models}"
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_fault_in_every_seat() {
    let (nobodies, _kept) = nobodies().await;
    let options = Options::new().whole(move |base_url| config(base_url, &table(), &nobodies));
    let stack = options.start().await;
    let mut cells = Vec::new();
    for (row, (name, fault, courses)) in table().into_iter().enumerate() {
        for (seat, course) in courses.into_iter().enumerate() {
            let is_scripted = matches!(fault, Fault::Says(_));
            if let Fault::Says(reply) = &fault {
                stack.provider.model(&format!("m{row}-{seat}")).reply(reply.clone());
            }
            cells.push(Cell { stack: &stack, row, seat, name, course, is_scripted });
        }
    }
    let wrong: Vec<String> = join_all(cells.iter().map(Cell::faults)).await.concat();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

struct Cell<'a> {
    stack: &'a Stack,
    row: usize,
    seat: usize,
    name: &'static str,
    course: Course,
    is_scripted: bool,
}

impl Cell<'_> {
    /// Everything that is not as the table says.
    async fn faults(&self) -> Vec<String> {
        let alias = format!("e{}-{}", self.row, self.seat);
        let mut wrong = Vec::new();
        let mut made = 0;
        for (run, (result, attempts)) in self.course.runs().into_iter().enumerate() {
            let answer = self.stack.ask(json!({"model": alias, "stream": self.seat == 2})).send().await;
            let is_seen = attempts > 0 && matches!(self.course, Seen(_));
            let outcome = match self.seat {
                0 => "quorum",
                _ if is_seen => "full",
                _ => "degraded",
            };
            made += attempts;
            let logged = self.logged(&alias, run).await;
            let lost = if matches!(self.course, Billed(_)) { TOLD * attempts as u64 } else { 0 };
            let total = logged["usage.total_tokens"].as_u64().unwrap_or_default();
            let is_billed =
                if is_seen { total > BESIDE[self.seat] } else { total == BESIDE[self.seat] + lost };
            let told = [
                (answer.status.as_u16() == 200, "the status"),
                (answer.header("x-ensemble-outcome") == outcome, "the outcome"),
                (answer.text().contains("\"judge_failed\"") == is_seen, "what the caller sees"),
                (self.call(&logged) == Some((result.to_owned(), attempts)), "the call"),
                (is_billed && logged["usage.estimated"] == is_seen, "the usage"),
                (!self.is_scripted || self.requests() == made, "the requests"),
            ];
            let cell = format!("{}, {}, run {run}", self.name, SEATS[self.seat]);
            wrong.extend(
                told.iter().filter(|(is_so, _)| !is_so).map(|(_, what)| format!("{cell}: {what}: {logged}")),
            );
        }
        wrong
    }

    fn requests(&self) -> usize {
        self.stack.provider.requests_for(&format!("m{}-{}", self.row, self.seat)).len()
    }

    /// The line of this run of the alias.
    async fn logged(&self, alias: &str, run: usize) -> Value {
        consort_testkit::eventually("a run in Consort's log", ms(10_000), async || {
            let lines = self.stack.service.logs();
            let is_of_alias = |line: &&Value| {
                line["fields"]["alias"] == alias
                    && line["fields"]["message"].as_str().is_some_and(|m| m.starts_with("ensemble "))
            };
            lines.iter().filter(is_of_alias).nth(run).map(|line| line["fields"].clone())
        })
        .await
    }

    /// How the faulty model's call ended, and after how many attempts.
    fn call(&self, logged: &Value) -> Option<(String, usize)> {
        let calls = logged[if self.seat == 0 { "members" } else { "judges" }].as_str()?;
        let prefix = format!("f{}-{}=", self.row, self.seat);
        let (result, rest) = calls.split(' ').find_map(|call| call.strip_prefix(&prefix))?.split_once('@')?;
        let more = rest.split_once('x').and_then(|(_, times)| times.parse().ok());
        Some((result.to_owned(), more.unwrap_or(usize::from(result != "cooling"))))
    }
}
