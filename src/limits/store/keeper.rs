//! What is told to Redis after a request, when nobody waits for it any more.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, join_all};
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::sync::oneshot;
use tokio::time::{Interval, MissedTickBehavior};
use tracing::{info, warn};

use super::redis::{Pending, Redis, RedisSettings};
use super::{Correction, Request, Verdict};
use crate::limits::key::Subject;

/// How often it is looked whether a lost Redis is back.
const PROBE: Duration = Duration::from_millis(100);
/// How long it may take to tell Redis what calls have cost.
const TELLING: Duration = Duration::from_secs(1);
/// How many probes in vain are followed by another connection.
const PROBES: u32 = 10;
/// How many orders are carried out at once.
const BATCH: usize = 64;

/// What the keeper is to do.
pub(in crate::limits) enum Order {
    /// A lease is held until it is released; meanwhile it must not expire.
    Hold(Subject, u64),
    Release(Subject, u64),
    Correct {
        subject: Subject,
        corrections: Vec<Correction>,
        spent: u64,
    },
    /// A question whose asker has gone: what it counts is taken back.
    TakeBack {
        pending: Pending,
        request: Request,
        lease: Option<u64>,
    },
    /// Redis does not answer.
    Recover,
    /// Tell when all that came before is done.
    Flush(oneshot::Sender<()>),
}

/// The one task behind a store: it tells Redis what calls have cost, keeps leases alive and finds out when a lost
/// Redis is back. Its future is to be polled as long as there are requests, and ends with the process.
#[derive(Debug)]
pub struct Keeper(Option<Keeping>);

struct Keeping {
    redis: Arc<Redis>,
    orders: UnboundedReceiver<Order>,
    held: HashMap<Subject, BTreeSet<u64>>,
    due: Vec<Due>,
    abandoned: FuturesUnordered<BoxFuture<'static, Option<[Due; 2]>>>,
    flushed: Vec<oneshot::Sender<()>>,
    is_lost: bool,
    /// How many probes in a row were in vain.
    in_vain: u32,
}

/// What Redis is still to be told.
enum Due {
    Release(Subject, u64),
    Correct { subject: Subject, corrections: Vec<Correction>, spent: u64 },
    Nothing,
}

impl Keeper {
    /// For a store that needs none.
    pub(in crate::limits) fn idle() -> Self {
        Self(None)
    }

    /// A Redis, not yet connected to, and its keeper.
    pub(in crate::limits) fn of(settings: RedisSettings) -> Result<(Arc<Redis>, Self), redis::RedisError> {
        let (orders, received) = unbounded_channel();
        let redis = Arc::new(Redis::open(settings, orders)?);
        let keeping = Keeping {
            redis: Arc::clone(&redis),
            orders: received,
            held: HashMap::new(),
            due: Vec::new(),
            abandoned: FuturesUnordered::new(),
            flushed: Vec::new(),
            is_lost: false,
            in_vain: 0,
        };
        Ok((redis, Self(Some(keeping))))
    }

    /// Keeps the store, for ever.
    pub async fn keep(self) {
        match self.0 {
            Some(keeping) => keeping.keep().await,
            None => std::future::pending().await,
        }
    }
}

impl Keeping {
    async fn keep(mut self) {
        let mut renewal = interval(self.redis.settings.lease / 3);
        let mut probe = interval(PROBE);
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            tokio::select! {
                received = self.orders.recv_many(&mut batch, BATCH) => {
                    if received == 0 {
                        return;
                    }
                    batch.drain(..).for_each(|order| self.take(order));
                }
                Some(due) = self.abandoned.next(), if !self.abandoned.is_empty() => {
                    self.due.extend(due.into_iter().flatten());
                }
                _ = probe.tick(), if self.is_lost => self.probe().await,
                _ = renewal.tick(), if !self.is_lost => self.renew().await,
            }
            if !self.is_lost {
                self.tell().await;
            }
            if self.due.is_empty() && self.abandoned.is_empty() {
                for flushed in self.flushed.drain(..) {
                    // Who does not wait any more need not know.
                    let _ = flushed.send(());
                }
            }
        }
    }

    async fn probe(&mut self) {
        if self.redis.is_back().await {
            info!("the limits' Redis answers again");
            (self.is_lost, self.in_vain) = (false, 0);
            return self.renew().await;
        }
        self.in_vain += 1;
        if self.in_vain.is_multiple_of(PROBES) {
            self.redis.reconnect();
        }
    }

    fn take(&mut self, order: Order) {
        match order {
            Order::Hold(subject, lease) => {
                self.held.entry(subject).or_default().insert(lease);
            }
            Order::Release(subject, lease) => {
                if let Some(leases) = self.held.get_mut(&subject) {
                    leases.remove(&lease);
                    if leases.is_empty() {
                        self.held.remove(&subject);
                    }
                }
                self.due.push(Due::Release(subject, lease));
            }
            Order::Correct { subject, corrections, spent } => {
                self.due.push(Due::Correct { subject, corrections, spent });
            }
            Order::TakeBack { pending, request, lease } => {
                self.abandoned.push(pending.map(move |told| take_back(&told.ok()?, &request, lease)).boxed());
            }
            Order::Recover => self.is_lost = true,
            Order::Flush(flushed) => self.flushed.push(flushed),
        }
    }

    /// Tells what is due. What fails is not told again: it may have been heard, and must not count twice.
    async fn tell(&mut self) {
        if self.due.is_empty() {
            return;
        }
        let redis = &self.redis;
        let told = std::mem::take(&mut self.due).into_iter().map(|due| async move {
            match due {
                Due::Release(subject, lease) => redis.release(&subject, lease).await,
                Due::Correct { subject, corrections, spent } => {
                    redis.correct(&subject, &corrections, spent).await
                }
                Due::Nothing => Ok(()),
            }
        });
        let told = told.map(|told| tokio::time::timeout(TELLING, told));
        let failed = join_all(told).await.iter().filter(|told| !matches!(told, Ok(Ok(())))).count();
        if failed > 0 {
            warn!(failed, "what calls have cost could not be told to the limits' Redis");
            redis.lost("what calls have cost could not be told");
        }
    }

    async fn renew(&mut self) {
        for (subject, leases) in &self.held {
            let leases: Vec<u64> = leases.iter().copied().collect();
            if self.redis.renew(subject, &leases).await.is_err() {
                warn!("leases could not be renewed at the limits' Redis");
                self.is_lost = true;
                return;
            }
        }
    }
}

/// What takes back an admission that nobody has heard of.
fn take_back(verdict: &Verdict, request: &Request, lease: Option<u64>) -> Option<[Due; 2]> {
    if !verdict.is_admitted {
        return None;
    }
    let subject = request.subject.clone();
    let corrections = request.taken(verdict).map(|taken| taken.back()).collect();
    let release = lease.map_or(Due::Nothing, |lease| Due::Release(subject.clone(), lease));
    Some([release, Due::Correct { subject, corrections, spent: 0 }])
}

fn interval(period: Duration) -> Interval {
    let mut interval = tokio::time::interval(period.max(Duration::from_millis(1)));
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

impl std::fmt::Debug for Keeping {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keeping").field("redis", &self.redis).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_renewal_that_hangs_means_that_redis_is_lost() {
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let settings = RedisSettings::new(&format!("redis://{}", silent.local_addr().unwrap())).unwrap();
        let (redis, Keeper(keeping)) = Keeper::of(settings).unwrap();
        let mut keeping = keeping.unwrap();
        keeping.take(Order::Hold(Subject { name: "m".into(), caller: None }, 1));
        tokio::time::timeout(Duration::from_millis(500), keeping.renew()).await.unwrap();
        assert!(keeping.is_lost && redis.is_lost());
    }
}
