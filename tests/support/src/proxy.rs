//! An HTTP proxy that knows some hosts, may ask who one is, and remembers what it was asked for.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use http::header::{HOST, PROXY_AUTHORIZATION};
use http::{Method, Request, Response, StatusCode, Uri};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client;
use hyper::server;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

type Body = UnsyncBoxBody<Bytes, hyper::Error>;

/// The proxy; dropping it ends all that goes through it.
#[derive(Debug)]
pub struct Proxy {
    addr: SocketAddr,
    state: Arc<Mutex<State>>,
    accepting: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct State {
    hosts: HashMap<String, SocketAddr>,
    authorization: Option<String>,
    asked: Vec<String>,
}

impl Proxy {
    /// Listens on a port of the loopback interface.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let addr = listener.local_addr().expect("it is bound");
        let state = Arc::<Mutex<State>>::default();
        let shared = Arc::clone(&state);
        let accepting = tokio::spawn(async move {
            let mut open = JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                open.spawn(connection(socket, Arc::clone(&shared)));
            }
        });
        Self { addr, state, accepting }
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Makes `host:port` known, which is at `addr`; it finds nobody else.
    pub fn host(&self, host: &str, addr: SocketAddr) {
        lock(&self.state).hosts.insert(host.to_owned(), addr);
    }

    /// From now on, `proxy-authorization` has to be this.
    pub fn require(&self, authorization: &str) {
        lock(&self.state).authorization = Some(authorization.to_owned());
    }

    /// What it was asked for, and let through: `CONNECT host:port`, or a method and a whole URL.
    pub fn asked(&self) -> Vec<String> {
        lock(&self.state).asked.clone()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn connection(socket: TcpStream, state: Arc<Mutex<State>>) {
    let service = service_fn(|request| {
        let state = Arc::clone(&state);
        async move { Ok::<_, io::Error>(respond(request, &state).await) }
    });
    // Who leaves has heard enough.
    let _ = server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(socket), service)
        .with_upgrades()
        .await;
}

async fn respond(request: Request<Incoming>, state: &Mutex<State>) -> Response<Body> {
    let Some(authority) = request.uri().authority().cloned() else {
        return answer(StatusCode::BAD_REQUEST);
    };
    let host = match authority.port_u16() {
        Some(_) => authority.to_string(),
        None => format!("{authority}:80"),
    };
    let found = {
        let mut state = lock(state);
        let told = request.headers().get(PROXY_AUTHORIZATION).map(|value| value.to_str().unwrap_or_default());
        if state.authorization.is_some() && state.authorization.as_deref() != told {
            return answer(StatusCode::PROXY_AUTHENTICATION_REQUIRED);
        }
        state.asked.push(format!("{} {}", request.method(), request.uri()));
        state.hosts.get(&host).copied()
    };
    let connected = match found {
        Some(addr) => TcpStream::connect(addr).await.ok(),
        None => None,
    };
    match connected {
        None => answer(StatusCode::BAD_GATEWAY),
        Some(socket) if request.method() == Method::CONNECT => tunnel(request, socket),
        Some(socket) => forward(request, socket).await.unwrap_or_else(|_| answer(StatusCode::BAD_GATEWAY)),
    }
}

/// Joins both ends; what goes between them is not looked at.
fn tunnel(request: Request<Incoming>, mut socket: TcpStream) -> Response<Body> {
    tokio::spawn(async move {
        if let Ok(caller) = hyper::upgrade::on(request).await {
            let _ = tokio::io::copy_bidirectional(&mut TokioIo::new(caller), &mut socket).await;
        }
    });
    answer(StatusCode::OK)
}

/// Sends a request on, without what was for the proxy.
async fn forward(mut request: Request<Incoming>, socket: TcpStream) -> Result<Response<Body>, hyper::Error> {
    let (mut sender, joined) = client::conn::http1::handshake(TokioIo::new(socket)).await?;
    tokio::spawn(joined);
    request.headers_mut().remove(PROXY_AUTHORIZATION);
    assert!(request.headers().contains_key(HOST), "a request on HTTP/1.1 names its host");
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    *request.uri_mut() = path.parse::<Uri>().expect("a part of a URI");
    Ok(sender.send_request(request).await?.map(BodyExt::boxed_unsync))
}

fn answer(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Empty::new().map_err(|never| match never {}).boxed_unsync());
    *response.status_mut() = status;
    response
}
