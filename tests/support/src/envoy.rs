//! A real Envoy that runs a file of `deploy/envoy/`, with ports (and socket paths) of the test's own.

use std::fmt;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpSocket;

use crate::http;
use crate::process::{Kept, tail};

const START: Duration = Duration::from_secs(15);

/// What to run, and what to put into its place.
pub struct EnvoyOptions {
    file: PathBuf,
    consort: Door,
    http: Option<SocketAddr>,
    upstream: Option<SocketAddr>,
    user: Option<(u32, u32)>,
    edit: Box<dyn FnOnce(String) -> String + Send>,
}

enum Door {
    Nobody,
    Port(SocketAddr),
    Socket(PathBuf),
}

impl EnvoyOptions {
    /// A file of `deploy/envoy/` by its name: `envoy.yaml`, `envoy-buffered.yaml`, `envoy-handoff.yaml`.
    pub fn shipped(file: &str) -> Self {
        Self {
            file: crate::workspace().join("deploy/envoy").join(file),
            consort: Door::Nobody,
            http: None,
            upstream: None,
            user: None,
            edit: Box::new(|yaml| yaml),
        }
    }

    /// Where Consort listens; without it, at a port that refuses.
    pub fn consort(mut self, addr: SocketAddr) -> Self {
        self.consort = Door::Port(addr);
        self
    }

    /// The Unix socket on which Consort listens.
    pub fn consort_socket(mut self, path: impl Into<PathBuf>) -> Self {
        self.consort = Door::Socket(path.into());
        self
    }

    /// Where Consort's plain HTTP door listens, for a file that leads there; without it, at a port that refuses.
    pub fn consort_http(mut self, addr: SocketAddr) -> Self {
        self.http = Some(addr);
        self
    }

    /// Where plain models are answered; without it, at a port that refuses.
    pub fn upstream(mut self, addr: SocketAddr) -> Self {
        self.upstream = Some(addr);
        self
    }

    /// The user and the group that it runs as, by their numbers; only root can say so.
    pub fn user(mut self, user: u32, group: u32) -> Self {
        self.user = Some((user, group));
        self
    }

    /// A deviation from what is shipped, made with [`replace_once`]; several are applied in order.
    pub fn edit(mut self, edit: impl FnOnce(String) -> String + Send + 'static) -> Self {
        let earlier = self.edit;
        self.edit = Box::new(|yaml| edit(earlier(yaml)));
        self
    }
}

impl fmt::Debug for EnvoyOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EnvoyOptions").field("file", &self.file).finish_non_exhaustive()
    }
}

/// Replaces what must be there exactly once: a file that has changed fails the test that leans on it.
pub fn replace_once(text: String, pattern: &str, replacement: &str) -> String {
    let found = text.matches(pattern).count();
    assert_eq!(found, 1, "{pattern:?} was found {found} times, not once");
    text.replacen(pattern, replacement, 1)
}

/// A running Envoy; dropping it kills it.
#[derive(Debug)]
pub struct Envoy {
    child: Mutex<Kept>,
    addr: SocketAddr,
    admin: SocketAddr,
    dir: TempDir,
    _refusing: Vec<TcpSocket>,
}

impl Envoy {
    /// Fetches Envoy if need be, starts it, and waits until it is live; panics with its log when it is not.
    pub async fn start(options: EnvoyOptions) -> Self {
        let program = tokio::task::spawn_blocking(crate::fetch::envoy);
        let program = program.await.expect("fetching does not panic");
        let program = program.unwrap_or_else(|error| panic!("no Envoy: {error}"));
        let dir = tempfile::tempdir().expect("a temporary directory");
        let user = options.user;
        let (yaml, refusing) = substitute(options);
        let config = dir.path().join("envoy.yaml");
        fs::write(&config, yaml).expect("the configuration is written");
        let child = spawn(&program, &config, dir.path(), user);
        let unknown = SocketAddr::from(([0, 0, 0, 0], 0));
        let mut envoy =
            Self { child: Mutex::new(Kept(child)), addr: unknown, admin: unknown, dir, _refusing: refusing };
        envoy.admin = envoy.poll("its admin address", START, async || envoy.admin_address()).await;
        envoy.poll("it to be live", START, async || envoy.live().await.then_some(())).await;
        envoy.addr = envoy.poll("its listener", START, async || envoy.listener().await).await;
        envoy
    }

    /// Where callers connect.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The file that it runs; it goes with the Envoy.
    pub fn config(&self) -> PathBuf {
        self.dir.path().join("envoy.yaml")
    }

    /// Where its admin interface answers.
    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// Waits, at most 15 s, until every host of the clusters that lead to Consort has passed its health check.
    ///
    /// Until then Envoy does not ask Consort at all: with `healthy_panic_threshold: 0` it fails open.
    pub async fn wait_healthy(&self) {
        self.poll("consort to be healthy", START, async || self.healthy().await.then_some(())).await;
    }

    /// Waits, at most 15 s, until no host of the `consort` cluster is healthy.
    pub async fn wait_unhealthy(&self) {
        self.poll("consort to be unhealthy", START, async || (!self.healthy().await).then_some(())).await;
    }

    /// What the access log holds so far; a request is logged when it has ended.
    pub fn access_log(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.dir.path().join("stdout")).unwrap_or_default();
        // A last line without its end is still being written.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Waits, at most 10 s, for `n` lines of the access log.
    pub async fn wait_access_log(&self, n: usize) -> Vec<Value> {
        self.poll("lines of the access log", Duration::from_secs(10), async || {
            Some(self.access_log()).filter(|lines| lines.len() >= n)
        })
        .await
    }

    /// A counter or gauge by its full name; 0 while Envoy does not know it.
    pub async fn stats(&self, name: &str) -> u64 {
        let text = http::get(self.admin, "/stats").send().await;
        text.text()
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")?.trim().parse().ok())
            .unwrap_or(0)
    }

    /// Envoy's own log.
    pub fn log(&self) -> String {
        tail(&self.dir.path().join("stderr"), usize::MAX)
    }

    /// The process id, for reading its memory.
    pub fn id(&self) -> u32 {
        self.child.lock().unwrap_or_else(PoisonError::into_inner).0.id()
    }

    fn admin_address(&self) -> Option<SocketAddr> {
        fs::read_to_string(self.dir.path().join("admin")).ok()?.trim().parse().ok()
    }

    async fn live(&self) -> bool {
        let answer = http::get(self.admin, "/ready").try_open().await;
        match answer {
            Ok(live) => live.rest().await.text().trim() == "LIVE",
            Err(_) => false,
        }
    }

    async fn listener(&self) -> Option<SocketAddr> {
        let listeners = http::get(self.admin, "/listeners?format=json").send().await.json();
        let address = listeners.pointer("/listener_statuses/0/local_address/socket_address")?;
        let port = address.get("port_value")?.as_u64()?;
        let ip = address.get("address")?.as_str()?.parse().ok()?;
        Some(SocketAddr::new(ip, u16::try_from(port).ok()?))
    }

    async fn healthy(&self) -> bool {
        let clusters = http::get(self.admin, "/clusters?format=json").send().await.json();
        let clusters = clusters["cluster_statuses"].as_array().cloned().unwrap_or_default();
        let is_consort = |cluster: &&Value| cluster["name"] == "consort" || cluster["name"] == "consort_http";
        let mut hosts = clusters
            .iter()
            .filter(is_consort)
            .flat_map(|c| c["host_statuses"].as_array().cloned().unwrap_or_default());
        let is_well = |host: Value| host["health_status"]["failed_active_health_check"] != true;
        hosts.next().is_some_and(is_well) && hosts.all(is_well)
    }

    async fn poll<T>(&self, what: &str, within: Duration, mut probe: impl AsyncFnMut() -> Option<T>) -> T {
        let begin = std::time::Instant::now();
        loop {
            if let Some(found) = probe().await {
                return found;
            }
            let exited = self.child.lock().unwrap_or_else(PoisonError::into_inner).exited();
            if exited.is_some() || begin.elapsed() > within {
                panic!(
                    "Envoy: waited for {what}; {}\n{}",
                    exited.map_or("still running".to_owned(), |status| status.to_string()),
                    tail(&self.dir.path().join("stderr"), 40)
                );
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

fn spawn(program: &Path, config: &Path, dir: &Path, user: Option<(u32, u32)>) -> std::process::Child {
    let file = |name: &str| File::create(dir.join(name)).expect("a file for Envoy's output");
    let mut command = Command::new(program);
    command.arg("-c").arg(config);
    command.args(["--concurrency", "1", "--disable-hot-restart", "--log-level", "info"]);
    // Lines of the access log are wanted now, not in 10 s.
    command.args(["--file-flush-interval-msec", "20"]);
    command.arg("--admin-address-path").arg(dir.join("admin"));
    command.stdin(Stdio::null()).stdout(file("stdout")).stderr(file("stderr"));
    if let Some((user, group)) = user {
        for path in [dir, &dir.join("stdout"), &dir.join("stderr")] {
            chown(path, Some(user), Some(group)).expect("root gives away what it has made");
        }
        command.uid(user).gid(group);
    }
    command.spawn().unwrap_or_else(|error| panic!("{}: {error}", program.display()))
}

/// The shipped text with this test's ports, and the sockets that keep refusing ports from being reused.
fn substitute(options: EnvoyOptions) -> (String, Vec<TcpSocket>) {
    let shipped = fs::read_to_string(&options.file);
    let mut yaml = shipped.unwrap_or_else(|error| panic!("{}: {error}", options.file.display()));
    let mut refusing = Vec::new();
    let mut port_of = |addr: Option<SocketAddr>| match addr {
        Some(addr) => {
            assert!(addr.ip().is_loopback(), "the shipped files name the loopback, not {addr}");
            addr.port()
        }
        None => {
            let (socket, port) = refusing_port();
            refusing.push(socket);
            port
        }
    };
    let port = |port: u16| format!("port_value: {port}}}");
    for ours in [10000, 9901] {
        yaml = replace_once(yaml, &port(ours), &port(0));
    }
    yaml = replace_once(yaml, &port(9000), &port(port_of(options.upstream)));
    if yaml.contains(&port(8080)) {
        yaml = replace_once(yaml, &port(8080), &port(port_of(options.http)));
    }
    yaml = match options.consort {
        Door::Nobody => replace_once(yaml, &port(50051), &port(port_of(None))),
        Door::Port(addr) => replace_once(yaml, &port(50051), &port(port_of(Some(addr)))),
        Door::Socket(path) => replace_once(
            yaml,
            "{socket_address: {address: 127.0.0.1, port_value: 50051}}",
            &format!("{{pipe: {{path: {:?}}}}}", path.display().to_string()),
        ),
    };
    ((options.edit)(yaml), refusing)
}

/// Bound but not listening: connecting is refused, and nobody else can take the port meanwhile.
fn refusing_port() -> (TcpSocket, u16) {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a free port");
    let port = socket.local_addr().expect("it is bound").port();
    (socket, port)
}

#[cfg(test)]
mod tests {
    use ::http::{HeaderMap, HeaderValue, Response};
    use bytes::Bytes;
    use http_body::Frame;
    use http_body_util::{BodyExt, StreamBody};

    use super::*;
    use crate::listen::Server;

    /// A gRPC server that says SERVING to whatever it is asked.
    async fn serving() -> Server {
        let respond = async |_, _| {
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", HeaderValue::from_static("0"));
            let message = Bytes::from_static(&[0, 0, 0, 0, 2, 0x08, 0x01]);
            let frames = [Ok(Frame::data(message)), Ok(Frame::trailers(trailers))];
            let body = StreamBody::new(futures_util::stream::iter(frames)).boxed_unsync();
            let mut response = Response::new(body);
            let grpc = HeaderValue::from_static("application/grpc");
            response.headers_mut().insert("content-type", grpc);
            Ok(response)
        };
        let anywhere = SocketAddr::from(([127, 0, 0, 1], 0));
        Server::start(anywhere, respond, |_| {}).await.expect("a free port")
    }

    #[tokio::test]
    async fn consort_is_healthy_while_its_health_service_says_so() {
        let server = serving().await;
        let options = EnvoyOptions::shipped("envoy.yaml").consort(server.addr).edit(|yaml| {
            let yaml = replace_once(yaml, "\n      interval: 3s", "\n      interval: 0.1s");
            replace_once(yaml, "no_traffic_interval: 3s", "no_traffic_interval: 0.1s")
        });
        let envoy = Envoy::start(options).await;
        envoy.wait_healthy().await;
        assert_eq!(envoy.stats("cluster.consort.membership_healthy").await, 1);
        drop(server);
        envoy.wait_unhealthy().await;
    }
}
