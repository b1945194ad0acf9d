//! The limiter in this process: windows, reservations, callers, budgets.

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::*;

const S: Duration = Duration::from_secs(1);

fn limit(windows: &[(Rate, u64)], concurrency: u64) -> RateLimit {
    let window = |(rate, limit): &(Rate, u64)| Window { rate: *rate, limit: (*limit).try_into().unwrap() };
    RateLimit {
        windows: windows.iter().map(window).collect(),
        concurrency: concurrency.try_into().ok(),
        wait: Duration::ZERO,
    }
}

async fn admit(limiter: &Limiter, rate: &RateLimit, tokens: u64) -> Result<Grant, Denied> {
    let demand = Demand { name: &"m".into(), caller: None, rate: Some(rate), budget: None, tokens };
    limiter.admit(demand).await
}

/// How much is used, by limit.
async fn used(limiter: &Limiter, rate: &RateLimit) -> Vec<u64> {
    let levels = limiter.view(&"m".into(), None, rate).await.unwrap();
    levels.into_iter().map(|level| level.used).collect()
}

fn retry_after(denied: Result<Grant, Denied>) -> (Option<Duration>, &'static str) {
    match denied.unwrap_err() {
        Denied::Over { what, retry_after, .. } => (retry_after, what),
        denied => panic!("{denied:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_window_begins_with_its_first_request_and_lasts_its_period() {
    let (limiter, rate) = (Limiter::default(), limit(&[(Rate::Rpm, 2)], 0));
    tokio::time::advance(37 * S).await;
    assert!(admit(&limiter, &rate, 0).await.is_ok());
    tokio::time::advance(59 * S).await;
    assert!(admit(&limiter, &rate, 0).await.is_ok());
    assert_eq!(retry_after(admit(&limiter, &rate, 0).await), (Some(S), "requests per minute"));
    tokio::time::advance(S).await;
    assert!(admit(&limiter, &rate, 0).await.is_ok() && admit(&limiter, &rate, 0).await.is_ok());
    assert_eq!(retry_after(admit(&limiter, &rate, 0).await), (Some(60 * S), "requests per minute"));
}

#[tokio::test(start_paused = true)]
async fn what_one_limit_refuses_no_other_counts() {
    let (limiter, rate) = (Limiter::default(), limit(&[(Rate::Rps, 1), (Rate::Rpd, 9), (Rate::Tpm, 100)], 5));
    let first = admit(&limiter, &rate, 30).await.unwrap();
    assert_eq!(retry_after(admit(&limiter, &rate, 30).await).1, "requests per second");
    tokio::time::advance(S).await;
    assert_eq!(retry_after(admit(&limiter, &rate, 71).await), (Some(59 * S), "tokens per minute"));
    assert_eq!(used(&limiter, &rate).await, [0, 1, 30, 1], "and no window has begun by it");
    drop(first);
    assert_eq!(used(&limiter, &rate).await, [0, 1, 0, 0]);
}

#[tokio::test(start_paused = true)]
async fn tokens_are_settled_once_in_the_window_in_which_they_were_reserved() {
    let (limiter, rate) = (Limiter::default(), limit(&[(Rate::Tpm, 100), (Rate::Tpd, 1000)], 0));
    let early = admit(&limiter, &rate, 40).await.unwrap();
    let settled = early.reservation.clone();
    settled.settle(70, 0.0);
    settled.settle(1, 0.0);
    drop(early);
    assert_eq!(used(&limiter, &rate).await, [70, 70]);
    let late = admit(&limiter, &rate, 30).await.unwrap();
    tokio::time::advance(60 * S).await;
    let next = admit(&limiter, &rate, 300).await.unwrap();
    assert_eq!(used(&limiter, &rate).await, [100, 400], "more than all is all, in an empty window");
    late.reservation.settle(10, 0.0);
    next.reservation.settle(250, 0.0);
    assert_eq!(used(&limiter, &rate).await, [250, 330], "more than the limit is still what it was");
    assert!(admit(&limiter, &rate, 1).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_call_that_was_not_made_counts_nowhere() {
    let (limiter, rate) = (Limiter::default(), limit(&[(Rate::Rpm, 1), (Rate::Tpm, 10)], 1));
    admit(&limiter, &rate, 5).await.unwrap().reservation.give_back();
    assert_eq!(used(&limiter, &rate).await, [0, 0, 0]);
    assert!(admit(&limiter, &rate, 10).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn places_in_flight_are_free_again_when_they_are_dropped() {
    let (limiter, rate) = (Limiter::default(), limit(&[], 2));
    let (one, _two) = (admit(&limiter, &rate, 0).await.unwrap(), admit(&limiter, &rate, 0).await.unwrap());
    assert_eq!(retry_after(admit(&limiter, &rate, 0).await), (None, "requests at a time"));
    drop(one);
    assert!(admit(&limiter, &rate, 0).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn callers_are_apart_and_a_budget_is_of_all_of_them() {
    let (limiter, rate) = (Limiter::default(), limit(&[(Rate::Rpm, 1)], 0));
    let (name, ann, bob) = ("team".into(), CallerKey::of(b"ann"), CallerKey::of(b"bob"));
    let admit = async |caller: Option<&CallerKey>, usd: f64| {
        let budget = Some(Budget::usd_per_day(usd));
        limiter.admit(Demand { name: &name, caller, rate: Some(&rate), budget, tokens: 0 }).await
    };
    let first = admit(Some(&ann), 1.0).await.unwrap();
    assert!(admit(Some(&ann), 1.0).await.is_err());
    assert!(admit(Some(&bob), 1.0).await.is_ok() && admit(None, 1.0).await.is_ok());
    first.reservation.settle(0, 0.75);
    assert!(admit(Some(&CallerKey::anonymous()), 1.0).await.is_ok(), "a quarter is left");
    let Denied::Spent { retry_after } = admit(Some(&CallerKey::of(b"cem")), 0.75).await.unwrap_err() else {
        panic!("it is spent");
    };
    assert!(retry_after <= 86_400 * S && !retry_after.is_zero(), "{retry_after:?}");
    tokio::time::advance(retry_after).await;
    assert!(admit(Some(&CallerKey::of(b"cem")), 0.75).await.is_ok(), "it is another day");
}

#[tokio::test(start_paused = true)]
async fn made_up_keys_do_not_fill_the_memory() {
    let (limiter, rate) = (Limiter::default(), limit(&[(Rate::Rpd, 2)], 0));
    let name = "team".into();
    let mut refused = 0;
    for i in 0..70_000u32 {
        let caller = CallerKey::of(&i.to_be_bytes());
        let demand =
            Demand { name: &name, caller: Some(&caller), rate: Some(&rate), budget: None, tokens: 0 };
        refused += u32::from(limiter.admit(demand).await.is_err());
    }
    assert_eq!(refused, 70_000 - 65_536 - 2, "the rest share one limit");
    tokio::time::advance(86_400 * S).await;
    let caller = CallerKey::of(b"new");
    let demand = Demand { name: &name, caller: Some(&caller), rate: Some(&rate), budget: None, tokens: 0 };
    assert!(limiter.admit(demand).await.is_ok(), "what is over is forgotten");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_limit_is_overrun_and_nothing_is_lost_however_many_ask_at_once() {
    let limiter = Limiter::default();
    let rate = Arc::new(limit(&[(Rate::Rpd, 3000), (Rate::Tpd, 40_000)], 7));
    let asking = (0..64u64).map(|worker| {
        let (limiter, rate) = (limiter.clone(), Arc::clone(&rate));
        tokio::spawn(async move {
            let (mut admitted, mut tokens) = (0, 0);
            for round in 0..200 {
                let Ok(grant) = admit(&limiter, &rate, 1 + (worker + round) % 20).await else { continue };
                tokio::task::yield_now().await;
                admitted += 1;
                match (worker + round) % 3 {
                    0 => drop(grant),
                    1 => {
                        grant.reservation.settle(3, 0.0);
                        tokens += 3;
                    }
                    _ => {
                        grant.reservation.settle(12, 0.0);
                        tokens += 12;
                    }
                }
            }
            (admitted, tokens)
        })
    });
    let (mut admitted, mut tokens) = (0, 0);
    for asked in asking.collect::<Vec<_>>() {
        let (a, t) = asked.await.unwrap();
        admitted += a;
        tokens += t;
    }
    assert!(admitted <= 3000);
    assert_eq!(used(&limiter, &rate).await, [admitted, tokens, 0]);
}

/// What happens to a limiter, in turn.
#[derive(Clone, Debug)]
enum Step {
    Passes(u64),
    Asks(u64),
    /// The oldest that is open ends, having cost this much.
    Ends(u64),
}

/// The windows as they are described: of each, when it began and what it holds, by the reservations in it.
#[derive(Default)]
struct Described {
    now: u64,
    windows: [Option<(u64, Vec<usize>)>; 2],
    /// What each reservation holds of each window.
    held: Vec<[u64; 2]>,
    open: std::collections::VecDeque<usize>,
}

const MOST: [u64; 2] = [4, 60];
const PERIOD: [u64; 2] = [1000, 60_000];

impl Described {
    fn asks(&mut self, tokens: u64) -> bool {
        let amount = [1, tokens.min(MOST[1])];
        for (window, period) in self.windows.iter_mut().zip(PERIOD) {
            if window.as_ref().is_some_and(|(begun, _)| begun + period <= self.now) {
                *window = None;
            }
        }
        let fits = (0..2).all(|w| self.used(w) + amount[w] <= MOST[w]);
        if fits {
            self.open.push_back(self.held.len());
            for window in &mut self.windows {
                window.get_or_insert_with(|| (self.now, Vec::new())).1.push(self.held.len());
            }
            self.held.push(amount);
        }
        fits
    }

    fn used(&self, w: usize) -> u64 {
        self.windows[w].iter().flat_map(|(_, held)| held).map(|held| self.held[*held][w]).sum()
    }
}

proptest! {
    #[test]
    fn any_order_of_events_counts_as_described(steps in prop::collection::vec(prop_oneof![
        (0u64..40_000).prop_map(Step::Passes), (0u64..400).prop_map(Step::Passes),
        (0u64..80).prop_map(Step::Asks), (0u64..80).prop_map(Step::Asks), (0u64..90).prop_map(Step::Ends),
    ], 0..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let (limiter, rate) = (Limiter::default(), limit(&[(Rate::Rps, MOST[0]), (Rate::Tpm, MOST[1])], 0));
            let mut described = Described::default();
            let mut open = std::collections::VecDeque::new();
            for step in steps {
                match step {
                    Step::Passes(ms) => {
                        described.now += ms;
                        tokio::time::advance(Duration::from_millis(ms)).await;
                    }
                    Step::Asks(tokens) => {
                        let grant = admit(&limiter, &rate, tokens).await;
                        assert_eq!(grant.is_ok(), described.asks(tokens));
                        open.extend(grant.ok());
                    }
                    Step::Ends(tokens) => {
                        if let (Some(grant), Some(held)) = (open.pop_front(), described.open.pop_front()) {
                            grant.reservation.settle(tokens, 0.0);
                            described.held[held][1] = tokens;
                        }
                    }
                }
            }
        });
    }
}
