//! What stands between Envoy and Consort: certificates of both, or a socket with permissions.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use consort_testkit::envoy::{Envoy, EnvoyOptions, replace_once};
use consort_testkit::http;
use consort_testkit::link::Link;
use consort_testkit::provider::{Provider, Reply};
use consort_testkit::service::Service;
use consort_testkit::upstream::Upstream;
use consort_testkit::{eventually, lacking};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::json;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::stack::{CHAT, Stack, config, ms, provider, question};
use crate::tls::{Authority, Pair, quoted};

const CONSORT: &str = env!("CARGO_BIN_EXE_consort");
/// What Consort's certificate calls it.
const NAME: &str = "consort.llm.internal";

/// Consort with these sections, a provider, and what plain models are answered by.
struct Consort {
    service: Service,
    provider: Provider,
    upstream: Upstream,
}

impl Consort {
    async fn start(sections: &str, adjust: impl FnOnce(&mut Command)) -> Self {
        let provider = provider().await;
        let service = Service::start_with(CONSORT, &config(&provider, "", "", sections), adjust).await;
        Self { service, provider, upstream: Upstream::start().await }
    }

    /// An Envoy by what `consort envoy-config` prints for this configuration.
    fn envoy(&self, arguments: &[&str]) -> EnvoyOptions {
        let (consort, upstream) = (self.service.addr().to_string(), self.upstream.addr().to_string());
        let mut all = vec!["--listen", "127.0.0.1:0", "--upstream", &upstream];
        if !arguments.contains(&"--consort") {
            all.extend(["--consort", &consort]);
        }
        all.extend(arguments);
        let mut print = Command::new(CONSORT);
        print.args(["envoy-config", "-c"]).arg(self.service.config_path()).args(all);
        let printed = print.output().unwrap();
        assert!(printed.status.success(), "{}", String::from_utf8_lossy(&printed.stderr));
        let text = String::from_utf8(printed.stdout).unwrap();
        let text = replace_once(text, "port_value: 9901}", "port_value: 0}");
        EnvoyOptions::shipped("envoy.yaml").edit(|_| text)
    }

    async fn joined(self, envoy: EnvoyOptions) -> Stack {
        let envoy = Envoy::start(envoy).await;
        envoy.wait_healthy().await;
        let Self { service, provider, upstream } = self;
        Stack { envoy, service, provider, upstream }
    }
}

/// The alias answers, whole and streamed, and plain models pass.
async fn assert_answers(stack: &Stack) {
    let answer = stack.ask(json!({})).send().await;
    assert_eq!(answer.header("x-ensemble-outcome"), "full", "{}", answer.text());
    stack.provider.model("model-judge").reply(Reply::stream(&["It", " is"], ms(10)));
    let streamed = stack.ask_stream().send().await;
    assert!(streamed.events().last().is_some_and(|event| event.is_done()), "{}", streamed.text());
    let plain = http::post(stack.envoy.addr(), CHAT).json(&json!({"model": "gpt-4o"})).send().await;
    assert_eq!(plain.header("x-upstream"), "echo", "{}", plain.text());
}

/// A `tls` section: Consort's certificate, and whose certificates it lets in.
fn section(ours: &Pair, peers: &Authority) -> String {
    let [cert, key, ca] = [&ours.certificate, &ours.key, &peers.ca_file()].map(|path| quoted(path));
    format!("tls: {{cert: {cert}, key: {key}, client_ca: {ca}}}")
}

/// The arguments by which Envoy finds these files.
fn known_by<'a>(ca: &'a Path, own: &'a Pair) -> Vec<&'a str> {
    let path = |path: &'a Path| path.to_str().unwrap();
    let names = ["--consort-ca", path(ca), "--consort-name", NAME];
    [&names[..], &["--client-cert", path(&own.certificate), "--client-key", path(&own.key)]].concat()
}

#[tokio::test]
async fn envoy_and_consort_know_each_other_by_their_certificates() {
    let (ours, envoys) = (Authority::new(), Authority::new());
    let (consort, envoy) = (ours.pair(NAME), envoys.pair("envoy"));
    let tls = section(&consort, &envoys);
    for mode in ["standalone", "duplex", "buffered", "handoff"] {
        let handoff = if mode == "handoff" { ", handoff: {enabled: true}" } else { "" };
        let sections = format!("ext_proc: {{{tls}{handoff}}}\nhttp: {{{tls}}}");
        let consort = Consort::start(&sections, |_| {}).await;
        let door = consort.service.http().to_string();
        let arguments = ["--mode", mode, "--consort-http", &door];
        let options = consort.envoy(&[&arguments[..], &known_by(&ours.ca_file(), &envoy)].concat());
        let stack = consort.joined(options).await;
        assert_answers(&stack).await;
        let refused = |line: &serde_json::Value| line["fields"]["refused"].is_number();
        assert!(!stack.service.logs().iter().any(refused), "{mode}");
        assert!(http::get(stack.service.addr(), "/").h2c().try_open().await.is_err(), "TLS is not optional");
    }
}

/// An Envoy's file without what it would show of itself.
fn without_certificate(yaml: String) -> String {
    let is_its = |line: &&str| line.contains("tls_certificates:") || line.contains("certificate_chain:");
    let (its, others): (Vec<&str>, Vec<&str>) = yaml.lines().partition(is_its);
    assert_eq!(its.len(), 2);
    others.join("\n")
}

/// Asks the alias where Envoy has nobody to ask: it says so, and nobody is billed.
async fn assert_refused(envoy: &Envoy, provider: &Provider, what: &str) {
    let answer = http::post(envoy.addr(), CHAT).json(&question(json!({}))).send().await;
    assert_eq!(answer.status, 503, "{what}: {}", answer.text());
    assert_eq!(provider.requests().len(), 0, "{what}");
}

#[tokio::test]
async fn an_envoy_that_consort_does_not_know_is_not_let_in() {
    let (ours, envoys, others) = (Authority::new(), Authority::new(), Authority::new());
    let consort =
        Consort::start(&format!("ext_proc: {{{}}}", section(&ours.pair(NAME), &envoys)), |_| {}).await;
    let (good, stranger) = (envoys.pair("envoy"), others.pair("envoy"));
    let expired = envoys.expired("once");
    let authority = ours.ca_file();
    for (what, own) in [("no certificate", None), ("another's", Some(&stranger)), ("expired", Some(&expired))]
    {
        let arguments = known_by(&authority, own.unwrap_or(&good));
        let options = consort.envoy(&[&["--mode", "duplex"][..], &arguments].concat());
        let options = match own {
            Some(_) => options,
            None => options.edit(without_certificate),
        };
        let envoy = Envoy::start(options).await;
        let failed = async || (envoy.stats("cluster.consort.health_check.failure").await > 0).then_some(());
        eventually("a health check to fail", Duration::from_secs(10), failed).await;
        assert_refused(&envoy, &consort.provider, what).await;
    }
    // The first at once, and then what came in a minute.
    let told = consort.service.wait_for_log(|line| line["fields"]["refused"] == 1).await;
    assert_eq!(told["level"], "WARN", "{told}");
    assert!(told["fields"]["error"].as_str().is_some_and(|why| why.contains("certificate")), "{told}");
}

#[tokio::test]
async fn a_consort_that_envoy_does_not_know_is_sent_nothing() {
    let (ours, others, envoys) = (Authority::new(), Authority::new(), Authority::new());
    let shown = envoys.pair("envoy");
    let rows = [
        ("another authority's", others.pair(NAME), "fail_verify_error"),
        ("another name", ours.pair("somebody.else"), "fail_verify_san"),
        ("expired", ours.expired(NAME), "fail_verify_error"),
    ];
    for (what, own, counter) in rows {
        let consort = Consort::start(&format!("ext_proc: {{{}}}", section(&own, &envoys)), |_| {}).await;
        let authority = ours.ca_file();
        let arguments = [&["--mode", "duplex"][..], &known_by(&authority, &shown)].concat();
        let envoy = Envoy::start(consort.envoy(&arguments)).await;
        let name = format!("cluster.consort.ssl.{counter}");
        let failed = async || (envoy.stats(&name).await > 0).then_some(());
        eventually(&format!("{what}: {name}"), Duration::from_secs(10), failed).await;
        assert_refused(&envoy, &consort.provider, what).await;
    }
}

/// Connects with this certificate and says what HTTP/2 begins with; how much comes back.
async fn let_in(addr: SocketAddr, ca: &Path, own: &Pair) -> usize {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca).unwrap()).unwrap();
    let chain = vec![CertificateDer::from_pem_file(&own.certificate).unwrap()];
    let key = PrivateKeyDer::from_pem_file(&own.key).unwrap();
    let ring = Arc::new(rustls::crypto::ring::default_provider());
    let client = ClientConfig::builder_with_provider(ring).with_safe_default_protocol_versions().unwrap();
    let client = client.with_root_certificates(roots).with_client_auth_cert(chain, key).unwrap();
    let name = ServerName::try_from(NAME).unwrap();
    let tcp = TcpStream::connect(addr).await.unwrap();
    let Ok(mut tls) = TlsConnector::from(Arc::new(client)).connect(name, tcp).await else { return 0 };
    let _ = tls.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await;
    tls.read(&mut [0; 64]).await.unwrap_or(0)
}

#[tokio::test]
async fn certificates_and_authorities_are_the_ones_that_their_files_have_now() {
    let (ours, next, envoys) = (Authority::new(), Authority::new(), Authority::new());
    let (consort, envoy, stranger) = (ours.pair(NAME), envoys.pair("envoy"), next.pair("envoy"));
    let running = Consort::start(&format!("ext_proc: {{{}}}", section(&consort, &envoys)), |_| {}).await;
    let addr = running.service.addr();
    assert_ne!(let_in(addr, &ours.ca_file(), &envoy).await, 0);
    assert_eq!(let_in(addr, &ours.ca_file(), &stranger).await, 0);
    let renewed = next.pair(NAME);
    fs::copy(&renewed.key, &consort.key).unwrap();
    fs::copy(&renewed.certificate, &consort.certificate).unwrap();
    fs::copy(next.ca_file(), envoys.ca_file()).unwrap();
    assert_ne!(let_in(addr, &next.ca_file(), &stranger).await, 0);
    assert_eq!(let_in(addr, &next.ca_file(), &envoy).await, 0, "whose authority is trusted no more");
}

/// Whether this process may become others.
fn is_root() -> bool {
    let is_root = fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0);
    if !is_root {
        lacking("only root can run an Envoy as another user");
    }
    is_root
}

/// A directory that everybody may enter.
fn open_directory() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    dir
}

#[tokio::test]
async fn a_socket_is_for_those_whom_its_permissions_let_in() {
    const NOBODY: u32 = 65534;
    const GROUP: u32 = 4242;
    if !is_root() {
        return;
    }
    let dir = open_directory();
    let socket = dir.path().join("ext_proc.sock");
    let at = format!("unix:{}", socket.display());
    let listening = |access: &str| {
        let variables = [
            ("CONSORT__LISTEN__EXT_PROC", at.clone()),
            ("CONSORT__LISTEN__SOCKET_ACCESS", access.to_owned()),
        ];
        move |command: &mut Command| {
            command.envs(variables).gid(GROUP);
        }
    };
    let arguments = ["--mode", "duplex", "--consort", &at];
    for (access, mode, group, gets_in) in [
        ("owner", 0o600, GROUP, false),
        ("group", 0o660, NOBODY, false),
        ("group", 0o660, GROUP, true),
        ("everyone", 0o666, NOBODY, true),
    ] {
        let consort = Consort::start("", listening(access)).await;
        assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o777, mode);
        let options = consort.envoy(&arguments).user(NOBODY, group);
        if gets_in {
            assert_answers(&consort.joined(options).await).await;
        } else {
            let envoy = Envoy::start(options).await;
            let failed =
                async || (envoy.stats("cluster.consort.health_check.failure").await > 0).then_some(());
            eventually("a health check to fail", Duration::from_secs(10), failed).await;
            assert_refused(&envoy, &consort.provider, access).await;
        }
    }
}

/// The timers of the connections that are open at this port, as Linux tells them: 2 is keepalive's.
fn timers(port: u16) -> Vec<String> {
    const ESTABLISHED: &str = "01";
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    let mut timers = Vec::new();
    for line in table.lines().skip(1) {
        let fields: Vec<&str> = line.split_whitespace().collect();
        if fields[1].ends_with(&format!(":{port:04X}")) && fields[3] == ESTABLISHED {
            timers.push(fields[5].split_once(':').unwrap().0.to_owned());
        }
    }
    timers
}

/// A machine that loses its power says no word, nor does a network that drops what it should carry.
#[tokio::test]
async fn an_envoy_that_has_vanished_leaves_neither_a_run_nor_a_connection() {
    const TOLD: Duration = Duration::from_secs(15 + 15);
    const MARGIN: Duration = Duration::from_secs(10);
    let consort = Consort::start("", |_| {}).await;
    let port = consort.service.addr().port();
    let link = Link::to(consort.service.addr()).await;
    let options = consort.envoy(&["--consort", &link.addr().to_string()]);
    let Stack { envoy, service, provider, .. } = consort.joined(options).await;
    provider.model("model-c").reply(Reply::stall());
    let ask = http::post(envoy.addr(), CHAT).header("x-request-id", "left").json(&question(json!({})));
    let caller = tokio::spawn(ask.try_open());
    provider.wait_for("model-c", 1).await;
    let are_kept = async || timers(port).iter().all(|timer| timer == "02").then_some(());
    eventually("the system to watch every connection", Duration::from_secs(10), are_kept).await;
    assert!(!timers(port).is_empty());
    link.silence();
    drop(envoy);
    assert!(caller.await.unwrap().is_err());
    assert!(!timers(port).is_empty(), "nobody has told Consort");
    eventually("the connections to end", TOLD + MARGIN, async || timers(port).is_empty().then_some(())).await;
    let left = service.wait_for_log(|line| line["fields"]["request_id"] == "left").await;
    assert_eq!(left["fields"]["outcome"], "cancelled", "{left}");
    provider.wait_for_closed("model-c", 1).await;
}

#[tokio::test]
async fn a_socket_is_replaced_when_it_is_dead_refused_when_it_is_alive_and_gone_with_its_process() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("ext_proc.sock");
    let at = format!("unix:{}", socket.display());
    let start = || Consort::start("", |command| _ = command.env("CONSORT__LISTEN__EXT_PROC", &at));
    let killed = start().await;
    killed.service.kill();
    killed.service.wait_exit(Duration::from_secs(5)).await;
    assert!(socket.exists(), "what a crash leaves");
    let alive = start().await;
    let mut second = Command::new(CONSORT);
    second.args(["serve", "-c"]).arg(alive.service.config_path()).stdin(Stdio::null());
    second.env("CONSORT__LISTEN__EXT_PROC", &at).env("CONSORT__LISTEN__ADMIN", "none");
    let output = tokio::task::spawn_blocking(move || second.output().unwrap()).await.unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert_eq!(
        said.trim(),
        format!("consort: cannot listen on {at} (`listen.ext_proc`): another process listens on it")
    );
    let options = alive.envoy(&["--consort", &at]);
    let stack = alive.joined(options).await;
    assert_answers(&stack).await;
    stack.service.signal("TERM");
    assert!(stack.service.wait_exit(Duration::from_secs(15)).await.success());
    assert!(!socket.exists());
}
