//! A caller who reads slowly: what it does not take stays with the provider, and not in memory.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use consort_testkit::eventually;
use consort_testkit::provider::Reply;
use http_body_util::Full;
use hyper::client::conn::http2;
use hyper::header::CONTENT_TYPE;
use hyper::{Request, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinHandle;

use super::ask;
use crate::stack::{ALIAS, CHAT, KEY, ONE_ATTEMPT, Options, Stack, ms, question};

/// A judge that never ends, as fast as somebody listens; and how many bytes it could write so far.
struct Judge {
    addr: SocketAddr,
    written: Arc<AtomicUsize>,
    speaks: JoinHandle<()>,
}

impl Judge {
    async fn start() -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        // What the system holds for it is not what Consort holds.
        socket.set_send_buffer_size(64 << 10).expect("a buffer");
        socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a port");
        let listener = socket.listen(8).expect("it listens");
        let addr = listener.local_addr().expect("it is bound");
        let written = Arc::new(AtomicUsize::new(0));
        let speaks = tokio::spawn(speak(listener, Arc::clone(&written)));
        Self { addr, written, speaks }
    }

    fn written(&self) -> usize {
        self.written.load(Ordering::Relaxed)
    }

    /// How much it could write when it could write no more for a second.
    async fn stalled(&self) -> usize {
        let mut seen = self.written();
        for _ in 0..60 {
            tokio::time::sleep(ms(1000)).await;
            let now = self.written();
            if now == seen && now > 0 {
                return now;
            }
            seen = now;
        }
        panic!("it still speaks, after {seen} bytes");
    }
}

impl Drop for Judge {
    fn drop(&mut self) {
        self.speaks.abort();
    }
}

async fn speak(listener: TcpListener, written: Arc<AtomicUsize>) {
    let event = format!(r#"data: {{"choices":[{{"delta":{{"content":"{}"}}}}]}}"#, "x".repeat(4096));
    let event = format!("{event}\n\n");
    let (mut stream, _) = listener.accept().await.expect("a call");
    let mut request = Vec::new();
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        stream.read_buf(&mut request).await.expect("a request");
    }
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n";
    stream.write_all(head.as_bytes()).await.expect("written");
    while let Ok(more) = stream.write(event.as_bytes()).await {
        written.fetch_add(more, Ordering::Relaxed);
        // Events stay whole: the rest of one before the next.
        if stream.write_all(&event.as_bytes()[more..]).await.is_err() {
            return;
        }
        written.fetch_add(event.len() - more, Ordering::Relaxed);
    }
}

/// An installation with such a judge, and no bound on answers but this one.
async fn stack(options: Options, judge: SocketAddr, max_answer_bytes: usize) -> Stack {
    let options = options.whole(move |base_url| {
        format!(
            "listen: {{ext_proc: '127.0.0.1:0', http: '127.0.0.1:0'}}
limits: {{max_answer_bytes: {max_answer_bytes}, max_response_bytes: {}}}
providers:
- {{name: scripted, base_url: '{base_url}', api_key: {KEY}}}
- {{name: endless, base_url: 'http://{judge}/v1', api_key: x}}
models:
- {{display_name: a, provider: scripted, model_name: model-a, {ONE_ATTEMPT}}}
- {{display_name: judge, provider: endless, model_name: model-judge, {ONE_ATTEMPT}}}
- {{display_name: {ALIAS}, ensemble: {{panel: [{{model: a}}], judge: {{model: judge}}, single_candidate: judge}}}}
",
            1u64 << 40
        )
    });
    options.start().await
}

/// A caller who takes 1 KB a second, with as little buffered by the system as it allows.
struct Reader {
    stream: TcpStream,
    taken: usize,
}

impl Reader {
    async fn ask(door: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(4096).expect("a buffer");
        let mut stream = socket.connect(door).await.expect("the door is open");
        let body = question(json!({"stream": true})).to_string();
        let head = format!(
            "POST {CHAT} HTTP/1.1\r\nhost: h\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).await.expect("written");
        stream.write_all(body.as_bytes()).await.expect("written");
        Self { stream, taken: 0 }
    }

    /// Reads on at 1 KB a second while something else happens.
    async fn slowly<T>(&mut self, meanwhile: impl Future<Output = T>) -> T {
        let mut meanwhile = std::pin::pin!(meanwhile);
        let mut beat = tokio::time::interval(ms(1000));
        loop {
            tokio::select! {
                over = &mut meanwhile => return over,
                _ = beat.tick() => {
                    let mut kilobyte = [0; 1024];
                    self.taken += self.stream.read(&mut kilobyte).await.expect("the answer goes on");
                }
            }
        }
    }

    /// Reads as fast as it can until so much has come.
    async fn quickly(&mut self, bytes: usize) {
        let mut buffer = vec![0; 64 << 10];
        let until = self.taken + bytes;
        while self.taken < until {
            let read = tokio::time::timeout(Duration::from_secs(20), self.stream.read(&mut buffer)).await;
            self.taken += read.expect("it goes on").expect("the answer goes on");
        }
    }
}

/// What a process holds in memory, in bytes.
fn resident(id: u32) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its size");
    line.trim().trim_end_matches(" kB").parse::<usize>().expect("a number") << 10
}

const MIB: usize = 1 << 20;

/// What the system's buffers hold at most between so many processes in a row, and HTTP's.
fn on_the_way(hops: usize) -> usize {
    let most = |name: &str| {
        let sizes = std::fs::read_to_string(format!("/proc/sys/net/ipv4/{name}")).expect("the system's");
        sizes.split_whitespace().last().expect("a size").parse::<usize>().expect("a number")
    };
    hops * (most("tcp_rmem") + most("tcp_wmem") + 4 * MIB)
}

/// More than a process grows by when it does anything for the first time, and far less than what is said.
const GROWTH: usize = 24 * MIB;

/// What Envoy may hold of an answer by the hand-off: by the shipped `per_connection_buffer_limit_bytes` of 33 MiB, which is
/// made for requests, on either side and while it moves from one to the other.
const ENVOYS: usize = 3 * 33 * MIB + GROWTH;

#[tokio::test]
async fn a_slow_reader_of_the_plain_door_slows_the_judges_socket() {
    let judge = Judge::start().await;
    let stack = stack(Options::new(), judge.addr, 1 << 40).await;
    assert_slows(&stack, stack.service.http(), &judge, 1).await;
}

#[tokio::test]
async fn a_slow_reader_behind_envoy_slows_the_judges_socket_by_the_hand_off() {
    let judge = Judge::start().await;
    let stack = stack(Options::handoff(), judge.addr, 1 << 40).await;
    assert_slows(&stack, stack.envoy.addr(), &judge, 2).await;
}

async fn assert_slows(stack: &Stack, door: SocketAddr, judge: &Judge, hops: usize) {
    let before = sizes(stack);
    let mut reader = Reader::ask(door).await;
    let stalled = reader.slowly(judge.stalled()).await;
    let taken = reader.taken;
    assert!(stalled < on_the_way(hops), "the judge could write {stalled} bytes to one who took {taken}");
    assert!(taken >= 1024, "it is read all the while");
    reader.quickly(stalled + 4 * MIB).await;
    assert!(judge.written() > stalled + MIB, "it speaks again once somebody listens");
    let after = sizes(stack);
    let [consort, envoy] = [0, 1].map(|i| after[i].saturating_sub(before[i]));
    assert!(consort < GROWTH, "Consort has grown by {consort} bytes while {stalled} were on the way");
    assert!(envoy < ENVOYS, "Envoy has grown by {envoy} bytes while {stalled} were on the way");
}

/// What Consort and Envoy hold in memory, in bytes.
fn sizes(stack: &Stack) -> [usize; 2] {
    [stack.service.id(), stack.envoy.id()].map(resident)
}

#[tokio::test]
async fn for_a_slow_reader_of_a_streamed_immediate_response_envoy_holds_an_answer_and_consort_none() {
    let judge = Judge::start().await;
    let stack = stack(Options::new(), judge.addr, 4 * MIB).await;
    let before = sizes(&stack);
    let mut reader = Reader::ask(stack.envoy.addr()).await;
    let stalled = reader.slowly(judge.stalled()).await;
    let after = sizes(&stack);
    let [consort, envoy] = [0, 1].map(|i| after[i].saturating_sub(before[i]));
    assert!(stalled < 4 * MIB + on_the_way(1), "the judge could write {stalled} bytes");
    assert!(consort < GROWTH, "Consort has grown by {consort} bytes");
    assert!(envoy < 32 * MIB, "Envoy has grown by {envoy} bytes");
}

#[tokio::test]
async fn a_caller_that_never_opens_its_window_holds_no_run() {
    let options = Options::new().config("limits: {max_inflight: 1}\nhttp: {idle_timeout_ms: 1000}");
    let stack = options.start().await;
    stack.provider.model("model-judge").reply(Reply::stream(&["because"; 8], ms(10)));
    let door = stack.service.http();
    let io = TokioIo::new(TcpStream::connect(door).await.expect("the door is open"));
    let mut shut = http2::Builder::new(TokioExecutor::new());
    let (mut caller, connection) =
        shut.initial_stream_window_size(0).handshake::<_, Full<Bytes>>(io).await.expect("HTTP/2");
    let connection = tokio::spawn(connection);
    let body = Full::from(question(json!({"stream": true})).to_string());
    let request =
        Request::post(format!("http://{door}{CHAT}")).header(CONTENT_TYPE, "application/json").body(body);
    let answer = caller.send_request(request.expect("a request")).await.expect("an answer's head");
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(ask(door, 1000).await.status, StatusCode::SERVICE_UNAVAILABLE, "its run has the only place");
    let free = async || Some(()).filter(|()| connection.is_finished());
    eventually("its connection is over", ms(20_000), free).await;
    assert_eq!(ask(door, 1000).await.status, StatusCode::OK);
    drop(answer);
}
