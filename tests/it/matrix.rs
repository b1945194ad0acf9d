//! Every client gets the same from every door: {plain, stream, tools, error, disconnect}, compared with one expectation.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use consort_testkit::fetch;
use consort_testkit::provider::{Provider, Received, Reply};
use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::process::Command;
use tokio::time::Instant;

use crate::clients::{NODE_SDK, PYTHON_SDK, node_packages};
use crate::stack::{Options, Stack, ms};

const LANGCHAIN: &str = "langchain-openai==1.7.3";
/// What the judge says, piece by piece.
const WORDS: [&str; 4] = ["It", " is", " só", " 🙂."];
/// The contract's 100 ms, and what a busy machine may add to them.
const LEFT: std::time::Duration = ms(1000);

/// A program that asks, and what stands before the address on its command line.
struct Client {
    name: &'static str,
    program: PathBuf,
    arguments: Vec<PathBuf>,
    /// What it calls a 400 and a 429, where it has classes.
    kinds: Option<[&'static str; 2]>,
}

/// A way in.
struct Door {
    name: &'static str,
    addr: SocketAddr,
    /// Whether pieces go out as they are spoken, so that a caller can leave in the middle.
    streams: bool,
}

async fn clients() -> Vec<Client> {
    let venv = |name: &'static str, packages: &'static [&'static str]| async move {
        let python = tokio::task::spawn_blocking(move || fetch::python_venv(name, packages)).await;
        python.expect("fetching does not panic").unwrap_or_else(|error| panic!("{error}"))
    };
    let script =
        |name: &str| Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/clients/matrix").join(name);
    let kinds = Some(["BadRequestError", "RateLimitError"]);
    let python = venv("openai", &[PYTHON_SDK]).await;
    let mut clients = vec![
        Client { name: "curl", program: python.clone(), arguments: vec![script("curl.py")], kinds: None },
        Client { name: "openai (Python)", program: python, arguments: vec![script("openai_sdk.py")], kinds },
        Client {
            name: "LangChain",
            program: venv("langchain", &[LANGCHAIN, PYTHON_SDK]).await,
            arguments: vec![script("chat_openai.py")],
            kinds,
        },
    ];
    if let Some(packages) = node_packages().await {
        let arguments = vec![script("openai_sdk.mjs"), packages];
        clients.push(Client { name: NODE_SDK, program: "node".into(), arguments, kinds });
    }
    clients
}

impl Client {
    fn command(&self, door: &Door) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).arg(format!("http://{}/v1", door.addr));
        // A proxy of the machine is not on the way to loopback, and a key of its user's none of our business.
        command.env_clear().envs(std::env::vars_os().filter(|(name, _)| name == "PATH"));
        command.stdin(Stdio::null()).kill_on_drop(true);
        command
    }

    /// What it got at a door, as it reports it.
    async fn ask(&self, door: &Door) -> Value {
        let output = self.command(door).args(door.streams.then_some("leave")).output().await;
        let output = output.expect("it runs");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{} at {}: {errors}", self.name, door.name);
        serde_json::from_slice(&output.stdout).expect("a report")
    }

    /// Ends it while it waits for an answer that comes in one piece.
    async fn leave(&self, door: &Door, provider: &Provider) {
        let leaving =
            || provider.requests_for("model-judge").iter().filter(|asked| asks(asked, "leave early")).count();
        let before = leaving();
        let mut command = self.command(door);
        // With what it has started itself: curl is a program of its own.
        let child = command.arg("leave").stdout(Stdio::null()).process_group(0).spawn().expect("it runs");
        consort_testkit::eventually("the judge asked", ms(30_000), async || {
            (leaving() > before).then_some(())
        })
        .await;
        let group = format!("-{}", child.id().expect("it still runs"));
        let killed = Command::new("kill").args(["-KILL", "--", &group]).status().await;
        assert!(killed.expect("there is a kill").success());
    }

    /// What it is to get.
    fn expected(&self, door: &Door) -> Value {
        let failed = |place: usize, status: u16, code: &str| {
            let mut failed = json!({"status": status, "code": code});
            if let Some(kinds) = self.kinds {
                failed["kind"] = json!(kinds[place]);
            }
            failed
        };
        let mut expected = json!({
            "plain": WORDS.concat(),
            "stream": WORDS,
            "tools": {"calls": [["weather", {"city": "Köln"}]], "content": "sunny"},
            "wrong": failed(0, 400, "unsupported_parameter"),
            "limited": failed(1, 429, "rate_limit_exceeded"),
        });
        if door.streams {
            expected["left"] = json!("first");
        }
        expected
    }
}

/// What was asked, wherever it stands in a judge's prompt.
fn asks(received: &Received, what: &str) -> bool {
    String::from_utf8_lossy(&received.body).contains(what)
}

fn script(provider: &Provider) {
    for member in ["model-a", "model-b", "model-c"] {
        provider.model(member).answer(|asked| {
            if asks(asked, "be limited") { Reply::rate_limited("7") } else { Reply::text("one") }
        });
    }
    provider.model("model-judge").answer(|asked| {
        let is_told =
            asked.json["messages"].as_array().is_some_and(|all| all.iter().any(|m| m["role"] == "tool"));
        if asks(asked, "leave early") {
            Reply::stream(&[&["first"][..], &["more"; 400]].concat(), ms(50))
        } else if is_told {
            Reply::text("sunny")
        } else if asks(asked, "use the tool") {
            Reply::tool_calls(&[("weather", r#"{"city": "Köln"}"#)])
        } else {
            Reply::stream(&WORDS, ms(1))
        }
    });
}

/// Asks at all doors of an installation, by one client after the other; the messages of errors.
async fn ask_all(stack: &Stack, doors: &[Door], clients: &[Client]) -> Vec<[Value; 2]> {
    script(&stack.provider);
    let mut messages = Vec::new();
    let mut left = 0;
    for door in doors {
        for client in clients {
            let mut said = client.ask(door).await;
            if !door.streams {
                client.leave(door, &stack.provider).await;
            }
            left += 1;
            let gone = Instant::now();
            stack.provider.wait_for_closed("model-judge", left).await;
            assert!(gone.elapsed() < LEFT, "{} at {}: {:?}", client.name, door.name, gone.elapsed());
            let message = |failed: &mut Value| {
                failed.as_object_mut().and_then(|f| f.remove("message")).unwrap_or_default()
            };
            messages.push([message(&mut said["wrong"]), message(&mut said["limited"])]);
            assert_eq!(said, client.expected(door), "{} at {}", client.name, door.name);
        }
    }
    messages
}

#[tokio::test]
async fn every_client_gets_the_same_from_every_door() {
    let clients = clients().await;
    let (streaming, gated, duplex, buffered, handoff) = tokio::join!(
        Options::new().start(),
        Options::shipped("envoy-gate.yaml").start(),
        Options::shipped("envoy-duplex.yaml").start(),
        Options::buffered().start(),
        Options::handoff().start(),
    );
    let door = |name, addr, streams| Door { name, addr, streams };
    let doors = [
        vec![
            door("the HTTP door", streaming.service.http(), true),
            door("Envoy, streaming", streaming.envoy.addr(), true),
        ],
        vec![door("Envoy, behind the gate", gated.envoy.addr(), true)],
        vec![door("Envoy, full duplex", duplex.envoy.addr(), true)],
        vec![door("Envoy, buffered", buffered.envoy.addr(), false)],
        vec![door("Envoy, hand-off", handoff.envoy.addr(), true)],
    ];
    let stacks = [&streaming, &gated, &duplex, &buffered, &handoff];
    let asking = stacks.into_iter().zip(&doors).map(|(stack, doors)| ask_all(stack, doors, &clients));
    let messages: Vec<[Value; 2]> = join_all(asking).await.concat();
    assert_eq!(messages.len(), 6 * clients.len());
    let first = &messages[0];
    assert!(first.iter().all(|message| message.as_str().is_some_and(|text| text.len() > 10)), "{first:?}");
    assert!(messages.iter().all(|message| message == first), "{messages:#?}");
}
