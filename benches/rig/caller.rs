//! Callers of the rig's own, for what a load generator cannot see: when each run's first byte came, and how long the
//! providers took for that very run.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use http::header::{CONTENT_TYPE, HOST};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::Result;
use crate::cores::now;
use crate::provider::{TIMED, Timing};

pub const CHAT: &str = "/v1/chat/completions";

/// One run, on the clock of all processes, in nanoseconds.
#[derive(Clone, Debug)]
pub struct Run {
    pub id: String,
    pub begun: u64,
    /// When the first byte of the body came.
    pub first: u64,
    pub ended: u64,
    pub status: StatusCode,
    pub is_answered: bool,
}

impl Run {
    pub fn seconds(&self) -> f64 {
        (self.ended - self.begun) as f64 / 1e9
    }
}

/// Over how long the callers' first requests are spread: else all would ask in step, and wait for each other.
const SPREAD: Duration = Duration::from_millis(100);

/// Lets so many callers ask again and again for so long, each on a connection of its own.
pub async fn run(to: SocketAddr, body: &str, callers: usize, seconds: u64) -> Result<Vec<Run>> {
    let until = now() + seconds * 1_000_000_000;
    let body = Bytes::from(body.to_owned());
    let all = (0..callers).map(async |caller| {
        tokio::time::sleep(SPREAD * caller as u32 / callers as u32).await;
        one(to, body.clone(), caller, until).await
    });
    let all = join_all(all).await;
    let mut runs = Vec::new();
    for of_one in all {
        runs.extend(of_one?);
    }
    Ok(runs)
}

/// Lets so many requests a second begin for so long, whether answers come or not.
pub async fn apart(to: SocketAddr, body: &str, per_second: f64, seconds: f64) -> Result<Vec<Run>> {
    let client = Client::builder(TokioExecutor::new()).build(HttpConnector::new());
    let (body, begun) = (Bytes::from(body.to_owned()), Instant::now());
    let asked = (0..(per_second * seconds) as u32).map(|n| {
        let (client, body) = (client.clone(), body.clone());
        tokio::spawn(async move {
            tokio::time::sleep_until(begun + Duration::from_secs_f64(f64::from(n) / per_second)).await;
            let id = format!("apart-{n}");
            let begun = now();
            let response = client.request(request(to, &id, body)?).await?;
            heard(id, begun, response).await
        })
    });
    let asked: Vec<_> = asked.collect();
    let mut runs = Vec::with_capacity(asked.len());
    for run in asked {
        runs.push(run.await??);
    }
    Ok(runs)
}

/// One run.
pub async fn once(to: SocketAddr, body: &str) -> Result<Run> {
    let runs = one(to, Bytes::from(body.to_owned()), 0, 0).await?;
    Ok(runs.into_iter().next().ok_or("a caller asks at least once")?)
}

async fn one(to: SocketAddr, body: Bytes, caller: usize, until: u64) -> Result<Vec<Run>> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(connect(to).await?)).await?;
    let driven = tokio::spawn(connection);
    let mut runs = Vec::new();
    while runs.is_empty() || now() < until {
        let id = format!("{TIMED}{caller}-{}-{}", runs.len(), now());
        sender.ready().await?;
        let begun = now();
        let response = sender.send_request(request(to, &id, body.clone())?).await?;
        runs.push(heard(id, begun, response).await?);
    }
    drop(sender);
    driven.await??;
    Ok(runs)
}

/// Lets so many runs begin at once, over connections that carry as many streams as Envoy allows them.
///
/// The answers come once the providers are released.
pub fn crowd(to: SocketAddr, body: &str, runs: usize) -> impl Future<Output = Result<Vec<Run>>> + use<> {
    /// Of the 256 that the shipped attachment allows.
    const STREAMS: usize = 250;
    let body = Bytes::from(body.to_owned());
    async move {
        let connections = (0..runs.div_ceil(STREAMS)).map(|i| {
            let (body, runs) = (body.clone(), STREAMS.min(runs - i * STREAMS));
            async move {
                let io = TokioIo::new(connect(to).await?);
                let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await?;
                let driven = tokio::spawn(connection);
                let asked = (0..runs).map(|n| {
                    let (mut sender, body) = (sender.clone(), body.clone());
                    async move {
                        let begun = now();
                        let id = format!("crowd-{i}-{n}");
                        sender.ready().await?;
                        let response = sender.send_request(request(to, &id, body)?).await?;
                        heard(id, begun, response).await
                    }
                });
                let answered = join_all(asked).await.into_iter().collect::<Result<Vec<Run>>>()?;
                drop(sender);
                driven.abort();
                Ok(answered)
            }
        });
        let all = join_all(connections).await;
        Ok(all.into_iter().collect::<Result<Vec<_>>>()?.into_iter().flatten().collect())
    }
}

async fn connect(to: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect(to).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn request(to: SocketAddr, id: &str, body: Bytes) -> Result<Request<Full<Bytes>>> {
    let request = Request::post(format!("http://{to}{CHAT}"));
    let request = request.header(CONTENT_TYPE, "application/json").header("x-request-id", id);
    Ok(request.header(HOST, to.to_string()).body(Full::new(body))?)
}

async fn heard(id: String, begun: u64, response: Response<Incoming>) -> Result<Run> {
    let (head, mut body) = response.into_parts();
    let (mut first, mut tail) = (0, Bytes::new());
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame?.into_data()
            && !data.is_empty()
        {
            first = if first == 0 { now() } else { first };
            tail = data;
        }
    }
    // An answer is a whole one: JSON to its brace, or a stream to its end.
    let is_whole = tail.ends_with(b"}") || tail.ends_with(b"data: [DONE]\n\n");
    let is_answered = head.status == StatusCode::OK && is_whole;
    Ok(Run { id, begun, first, ended: now(), status: head.status, is_answered })
}

/// What a run took beyond its providers, in seconds; none where the providers do not know it.
pub fn added(run: &Run, timings: &HashMap<String, Timing>) -> Option<f64> {
    let timing = timings.get(&run.id)?;
    Some(run.seconds() - (timing.members + timing.judge) as f64 / 1e9)
}

/// From the judge's first byte to the caller's, in seconds.
pub fn relayed(run: &Run, timings: &HashMap<String, Timing>) -> Option<f64> {
    let timing = timings.get(&run.id)?;
    Some((run.first as f64 - timing.judge_first as f64) / 1e9)
}
