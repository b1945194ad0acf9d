//! Counting in a Redis that several processes share.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use redis::aio::{ConnectionLike, ConnectionManager, ConnectionManagerConfig};
use redis::cluster::ClusterClient;
use redis::cluster_async::ClusterConnection;
use redis::{Client, IntoConnectionInfo, RedisError, RedisResult, Script};
use tokio::sync::OnceCell;
use tokio::sync::mpsc::UnboundedSender;
use tracing::warn;

use super::keeper::Order;
use super::{Correction, Counted, Request, Seen, Verdict};
use crate::limits::key::Subject;
use crate::telemetry::Seldom;

/// How long a connection waits for what no request waits for any more.
const LONGEST: Duration = Duration::from_secs(10);

/// Where a shared store is, and what happens without it.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisSettings {
    url: Box<str>,
    /// Whether the address is of a cluster's node.
    pub is_cluster: bool,
    /// What becomes of requests that it cannot decide.
    pub on_error: OnError,
    /// How long a request waits for it.
    pub timeout: Duration,
    /// What its keys begin with.
    pub prefix: String,
    /// How long a place in flight outlives a process that has crashed.
    pub lease: Duration,
}

/// What becomes of requests while the store does not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnError {
    /// They go on as if there were no limits.
    Open,
    /// They are refused.
    Closed,
}

/// Not the address of a Redis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is no address of a Redis; expected `redis://host:6379/0`, or `rediss://` with TLS")]
pub struct RedisUrlError;

impl RedisSettings {
    /// The Redis at `url`, with the defaults of everything else.
    ///
    /// # Errors
    /// When `url` is none of a Redis. It does not show the URL, which may hold a password.
    pub fn new(url: &str) -> Result<Self, RedisUrlError> {
        url.into_connection_info().map_err(|_| RedisUrlError)?;
        Ok(Self {
            url: url.into(),
            is_cluster: false,
            on_error: OnError::Open,
            timeout: Duration::from_millis(50),
            prefix: "consort".to_owned(),
            lease: Duration::from_secs(15),
        })
    }
}

/// Counts in Redis. What happens after a request is an order to the keeper.
pub(in crate::limits) struct Redis {
    connection: ArcSwap<Connection>,
    admit: Script,
    correct: Script,
    renew: Script,
    pub(in crate::limits) settings: RedisSettings,
    /// Whether it did not answer, and the keeper has not heard of it since.
    is_lost: AtomicBool,
    /// Requests that it did not decide.
    undecided: AtomicU64,
    undecided_told: Seldom,
    orders: UnboundedSender<Order>,
    /// Tells this process' leases from others', and one from another.
    process: u64,
    leases: AtomicU64,
}

/// Redis did not decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::limits) struct Lost;

/// What was asked when a request was no longer waited for.
pub(super) type Pending = BoxFuture<'static, RedisResult<Verdict>>;

enum Connection {
    Single(ConnectionManager),
    Cluster(Box<Cluster>),
}

/// Connected to with the first question.
struct Cluster {
    client: ClusterClient,
    known: OnceCell<ClusterConnection>,
}

impl Cluster {
    async fn connected(&self) -> RedisResult<impl ConnectionLike + use<>> {
        self.known.get_or_try_init(|| self.client.get_async_connection()).await.cloned()
    }
}

impl Connection {
    fn open(settings: &RedisSettings) -> RedisResult<Self> {
        let connect = Duration::from_secs(1).min(settings.timeout.saturating_mul(20));
        if settings.is_cluster {
            let builder = ClusterClient::builder([&*settings.url]);
            let client = builder.retries(0).connection_timeout(connect).response_timeout(LONGEST).build()?;
            return Ok(Self::Cluster(Box::new(Cluster { client, known: OnceCell::new() })));
        }
        let config = ConnectionManagerConfig::new()
            .set_number_of_retries(1)
            .set_max_delay(Duration::from_millis(100))
            .set_connection_timeout(Some(connect))
            .set_response_timeout(Some(LONGEST));
        let client = Client::open(&*settings.url)?;
        Ok(Self::Single(ConnectionManager::new_lazy_with_config(client, config)?))
    }
}

impl Redis {
    pub(super) fn open(settings: RedisSettings, orders: UnboundedSender<Order>) -> RedisResult<Self> {
        Ok(Self {
            connection: ArcSwap::from_pointee(Connection::open(&settings)?),
            admit: Script::new(include_str!("admit.lua")),
            correct: Script::new(include_str!("correct.lua")),
            renew: Script::new(include_str!("renew.lua")),
            settings,
            is_lost: AtomicBool::new(false),
            undecided: AtomicU64::new(0),
            undecided_told: Seldom::new(),
            orders,
            process: rand::random(),
            leases: AtomicU64::new(0),
        })
    }

    /// The decision, and the lease that an admission with a bound on concurrency holds.
    ///
    /// # Errors
    /// When Redis has not answered within its timeout; at once where it has not before and nobody has heard of it
    /// since.
    pub(in crate::limits) async fn admit(
        self: &Arc<Self>,
        request: Request,
    ) -> Result<(Verdict, Option<u64>), Lost> {
        if self.is_lost.load(Ordering::Relaxed) {
            return Err(Lost);
        }
        let lease = request.rate.concurrency.map(|_| self.leases.fetch_add(1, Ordering::Relaxed));
        let this = Arc::clone(self);
        let asked = request.clone();
        let pending = async move { this.ask(&asked, lease, true).await }.boxed();
        let mut asking = Asking { pending: Some(pending), request, lease, orders: &self.orders };
        match tokio::time::timeout(self.settings.timeout, &mut asking).await {
            Ok(Ok(verdict)) => Ok((verdict, lease)),
            Ok(Err(error)) => Err(self.lost(&error.to_string())),
            Err(_elapsed) => Err(self.lost("no answer in time")),
        }
    }

    /// What is counted now.
    ///
    /// # Errors
    /// As [`Self::admit`].
    pub(in crate::limits) async fn look(&self, request: &Request) -> Result<Seen, Lost> {
        let asked = tokio::time::timeout(self.settings.timeout, self.ask(request, None, false)).await;
        asked.ok().and_then(Result::ok).map(|verdict| verdict.seen).ok_or(Lost)
    }

    pub(in crate::limits) fn order(&self, order: Order) {
        // Without a keeper, the process is at its end.
        let _ = self.orders.send(order);
    }

    /// A request goes on, or not, without a decision.
    pub(in crate::limits) fn undecided(&self) {
        let requests = self.undecided.fetch_add(1, Ordering::Relaxed) + 1;
        if !self.undecided_told.is_due() {
            return;
        }
        let becomes = match self.settings.on_error {
            OnError::Open => "requests go on without limits",
            OnError::Closed => "requests are refused",
        };
        warn!(requests, becomes, "the limits' Redis does not answer");
    }

    #[cfg(test)]
    pub(super) fn is_lost(&self) -> bool {
        self.is_lost.load(Ordering::Relaxed)
    }

    pub(super) fn lost(&self, why: &str) -> Lost {
        if !self.is_lost.swap(true, Ordering::Relaxed) {
            tracing::debug!(why, "lost the limits' Redis");
            self.order(Order::Recover);
        }
        Lost
    }

    /// Goes on with a connection of its own: one whose peer has gone without a word would never break.
    pub(super) fn reconnect(&self) {
        match Connection::open(&self.settings) {
            Ok(connection) => self.connection.store(Arc::new(connection)),
            Err(error) => warn!(%error, "no further connection to the limits' Redis"),
        }
    }

    /// Whether it answers.
    pub(in crate::limits) async fn answers(&self) -> bool {
        let ping = async { self.run(&redis::cmd("PING")).await };
        matches!(tokio::time::timeout(self.settings.timeout, ping).await, Ok(Ok(())))
    }

    /// Whether it answers again.
    pub(super) async fn is_back(&self) -> bool {
        let is_back = self.answers().await;
        if is_back {
            self.is_lost.store(false, Ordering::Relaxed);
        }
        is_back
    }

    async fn ask(&self, request: &Request, lease: Option<u64>, counts: bool) -> RedisResult<Verdict> {
        let mut call = self.admit.key(self.key(&request.subject, "rate"));
        call.key(self.key(&request.subject, "inflight")).key(self.budget_key(&request.subject));
        call.arg(u8::from(counts)).arg(self.lease_id(lease.unwrap_or_default())).arg(self.lease_ms());
        call.arg(bound(request.rate.concurrency.map(std::num::NonZeroU64::get))).arg(bound(request.budget));
        for window in &request.rate.windows {
            call.arg(window.rate.key()).arg(window.rate.period_ms());
            call.arg(window.limit.get()).arg(if counts { window.amount(request.tokens) } else { 0 });
        }
        read(&self.invoke::<Vec<u64>>(&call).await?)
    }

    pub(super) async fn correct(
        &self,
        subject: &Subject,
        corrections: &[Correction],
        spent: u64,
    ) -> RedisResult<()> {
        let mut call = self.correct.key(self.key(subject, "rate"));
        call.key(self.budget_key(subject)).arg(spent);
        for Correction { rate, begun, by } in corrections {
            call.arg(rate.key()).arg(begun).arg(by);
        }
        self.invoke(&call).await
    }

    /// Within the bound of a request: the keeper has more to do.
    pub(super) async fn renew(&self, subject: &Subject, leases: &[u64]) -> Result<(), Lost> {
        let mut call = self.renew.key(self.key(subject, "inflight"));
        call.arg(self.lease_ms());
        for lease in leases {
            call.arg(self.lease_id(*lease));
        }
        match tokio::time::timeout(self.settings.timeout, self.invoke(&call)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(self.lost(&error.to_string())),
            Err(_elapsed) => Err(self.lost("no renewal in time")),
        }
    }

    pub(super) async fn release(&self, subject: &Subject, lease: u64) -> RedisResult<()> {
        let mut remove = redis::cmd("ZREM");
        remove.arg(self.key(subject, "inflight")).arg(self.lease_id(lease));
        self.run(&remove).await
    }

    /// The key under which `what` of a subject is kept. The braces keep all keys of one name in one slot.
    fn key(&self, subject: &Subject, what: &str) -> String {
        let (prefix, name) = (&self.settings.prefix, &subject.name);
        match &subject.caller {
            None => format!("{prefix}:{{{name}}}:{what}"),
            Some(caller) => format!("{prefix}:{{{name}}}:{what}:{}", caller.as_str()),
        }
    }

    fn budget_key(&self, subject: &Subject) -> String {
        self.key(&Subject { name: Arc::clone(&subject.name), caller: None }, "budget")
    }

    fn lease_id(&self, lease: u64) -> String {
        format!("{:016x}-{lease}", self.process)
    }

    fn lease_ms(&self) -> u64 {
        u64::try_from(self.settings.lease.as_millis()).unwrap_or(u64::MAX)
    }

    async fn invoke<T: redis::FromRedisValue>(&self, call: &redis::ScriptInvocation<'_>) -> RedisResult<T> {
        match &*self.connection.load_full() {
            Connection::Single(manager) => call.invoke_async(&mut manager.clone()).await,
            Connection::Cluster(cluster) => call.invoke_async(&mut cluster.connected().await?).await,
        }
    }

    async fn run(&self, command: &redis::Cmd) -> RedisResult<()> {
        match &*self.connection.load_full() {
            Connection::Single(manager) => command.query_async::<redis::Value>(&mut manager.clone()).await?,
            Connection::Cluster(cluster) => command.query_async(&mut cluster.connected().await?).await?,
        };
        Ok(())
    }
}

/// A bound as the scripts read it.
fn bound(bound: Option<u64>) -> i64 {
    bound.map_or(-1, |bound| i64::try_from(bound).unwrap_or(i64::MAX))
}

/// What the script has told.
fn read(told: &[u64]) -> RedisResult<Verdict> {
    let [admitted, now, running, spent, windows @ ..] = told else {
        return Err(RedisError::from((redis::ErrorKind::UnexpectedReturnType, "not what the script tells")));
    };
    let (pairs, _) = windows.as_chunks::<2>();
    let windows = pairs.iter().map(|[begun, used]| Counted { begun: *begun, used: *used }).collect();
    let seen = Seen { now: *now, windows, running: *running, spent: *spent };
    Ok(Verdict { is_admitted: *admitted == 1, seen })
}

/// A question that may already be counted when nobody waits for its answer any more: the keeper hears it then, and
/// takes it back.
struct Asking<'a> {
    pending: Option<Pending>,
    request: Request,
    lease: Option<u64>,
    orders: &'a UnboundedSender<Order>,
}

impl Future for Asking<'_> {
    type Output = RedisResult<Verdict>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(pending) = &mut self.pending else {
            return Poll::Pending;
        };
        let verdict = std::task::ready!(pending.poll_unpin(cx));
        self.pending = None;
        Poll::Ready(verdict)
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        if let Some(pending) = self.pending.take() {
            let (request, lease) = (self.request.clone(), self.lease);
            // Without a keeper, the process is at its end.
            let _ = self.orders.send(Order::TakeBack { pending, request, lease });
        }
    }
}

/// Without its address, which may hold a password.
impl std::fmt::Debug for RedisSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { url: _, is_cluster, on_error, timeout, prefix, lease } = self;
        let mut shown = f.debug_struct("RedisSettings");
        shown.field("is_cluster", is_cluster).field("on_error", on_error).field("timeout", timeout);
        shown.field("prefix", prefix).field("lease", lease).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Redis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Redis").field("prefix", &self.settings.prefix).finish_non_exhaustive()
    }
}
