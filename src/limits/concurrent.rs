//! What is shared by all requests, beside plain models of it, and under many threads.
//!
//! Each operation of a store, a cooldown and the cap is one critical section (or one atomic step), so that what threads
//! do to them is some order of operations. The models check any order, the threads that there is one.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

use proptest::prelude::*;

use super::*;

const THREADS: usize = 8;
const ROUNDS: usize = 2000;
const MS: Duration = Duration::from_millis(1);

/// Runs this on all threads, which begin at once; the numbers are the thread's and the round's.
fn hammer(work: impl Fn(usize, usize) + Sync) {
    let begin = Barrier::new(THREADS);
    thread::scope(|scope| {
        for at in 0..THREADS {
            let (work, begin) = (&work, &begin);
            scope.spawn(move || {
                begin.wait();
                (0..ROUNDS).for_each(|round| work(at, round));
            });
        }
    });
}

fn paused<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.unwrap().block_on(test)
}

#[test]
fn no_more_runs_are_in_flight_than_the_cap_and_every_place_comes_back() {
    let (admission, inflight, admitted) = (Admission::new(3), AtomicUsize::new(0), AtomicUsize::new(0));
    let lower = admission.with_max(1);
    hammer(|at, round| {
        let cap = if at == 0 { &lower } else { &admission };
        let Some(permit) = cap.admit() else { return };
        assert!(inflight.fetch_add(1, Ordering::SeqCst) < 3, "over the cap");
        admitted.fetch_add(1, Ordering::Relaxed);
        if round % 7 == 0 {
            thread::yield_now();
        }
        inflight.fetch_sub(1, Ordering::SeqCst);
        drop(permit);
    });
    assert!(admitted.into_inner() > 0, "how many is the scheduler's");
    let places = [admission.admit(), admission.admit(), admission.admit()];
    assert!(places.iter().all(Option::is_some) && admission.admit().is_none(), "none is lost, none too many");
}

#[tokio::test]
async fn whoever_waits_for_the_last_run_hears_of_its_end() {
    for round in 0..300u64 {
        let admission = Admission::new(9);
        let permits: Vec<_> = (0..3).map_while(|_| admission.admit()).collect();
        let ends: Vec<_> = permits.into_iter().map(|permit| thread::spawn(move || drop(permit))).collect();
        if round % 2 == 0 {
            thread::yield_now();
        }
        tokio::time::timeout(Duration::from_secs(30), admission.idle()).await.unwrap();
        ends.into_iter().for_each(|end| end.join().unwrap());
    }
}

#[test]
fn a_model_that_cools_has_one_probe_at_a_time_and_never_loses_its_turn() {
    let rules = Cooldown {
        failures: NonZeroU32::MIN,
        first: Duration::ZERO,
        longest: Duration::ZERO,
        statuses: [500].into(),
    };
    let (cooldowns, name, probes) = (Cooldowns::default(), Arc::from("m"), AtomicUsize::new(0));
    let admit = || cooldowns.admit(&name, &rules, Role::Caller);
    admit().unwrap().failed("x", None);
    let probed = AtomicUsize::new(0);
    hammer(|at, round| {
        let Ok(mut probe) = admit() else { return };
        assert_eq!(probes.fetch_add(1, Ordering::SeqCst), 0, "two probes at once");
        probed.fetch_add(1, Ordering::Relaxed);
        if round % 5 == 0 {
            thread::yield_now();
        }
        probes.fetch_sub(1, Ordering::SeqCst);
        if (at + round) % 2 == 0 {
            assert!(probe.failed("x", None));
        }
        drop(probe);
    });
    assert!(probed.into_inner() > 0, "how many is the scheduler's");
    let mut probe = admit().unwrap();
    assert!(admit().is_err());
    probe.succeeded();
    assert!(admit().is_ok() && admit().is_ok());
}

#[test]
fn no_more_calls_are_in_flight_than_a_limit_says_and_no_place_is_lost() {
    let (limiter, inflight) = (Limiter::default(), AtomicUsize::new(0));
    let rate = RateLimit { concurrency: 3.try_into().ok(), ..RateLimit::default() };
    let (name, callers) = ("m".into(), [CallerKey::of(b"ann"), CallerKey::of(b"bob")]);
    let admit = |caller| {
        let demand = Demand { name: &name, caller: Some(caller), rate: Some(&rate), budget: None, tokens: 0 };
        futures_util::FutureExt::now_or_never(limiter.admit(demand)).unwrap()
    };
    let [ann, bob] = &callers;
    hammer(|at, round| {
        if at % 4 == 3 {
            // Another caller's are others.
            drop(admit(bob));
            return;
        }
        let Ok(grant) = admit(ann) else { return };
        assert!(inflight.fetch_add(1, Ordering::SeqCst) < 3, "over the limit");
        if round % 7 == 0 {
            thread::yield_now();
        }
        inflight.fetch_sub(1, Ordering::SeqCst);
        drop(grant);
    });
    for caller in &callers {
        let grants = [admit(caller), admit(caller), admit(caller)];
        assert!(grants.iter().all(Result::is_ok) && admit(caller).is_err());
    }
}

/// What happens to a model, in turn.
#[derive(Clone, Debug)]
enum Event {
    Passes(u16),
    Asks(Role),
    /// One of those that are under way, by its number.
    Answers(usize),
    Speaks(usize),
    Fails(usize, Option<u16>),
    Leaves(usize),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let role = prop_oneof![Just(Role::Caller), Just(Role::Caller), Just(Role::CallerOnly), Just(Role::Check)];
    let event = prop_oneof![
        (0u16..2000).prop_map(Event::Passes),
        role.clone().prop_map(Event::Asks),
        role.prop_map(Event::Asks),
        (0usize..4).prop_map(Event::Answers),
        (0usize..4).prop_map(Event::Speaks),
        (0usize..4, proptest::option::of(0u16..5000)).prop_map(|(at, after)| Event::Fails(at, after)),
        (0usize..4, Just(None)).prop_map(|(at, after)| Event::Fails(at, after)),
        (0usize..4).prop_map(Event::Leaves),
    ];
    prop::collection::vec(event, 0..60)
}

/// A model as it is described: two failures in a row, one second and then twice as long up to three.
#[derive(Debug, Default)]
struct Described {
    now: u64,
    failures: u32,
    /// Until when it cools, and for how long it did.
    cools: Option<(u64, u64)>,
    /// Whether somebody finds out.
    is_probed: bool,
}

impl Described {
    fn admits(&self, role: Role) -> bool {
        match self.cools {
            None => role != Role::Check,
            Some((until, _)) => !self.is_probed && until <= self.now && role != Role::CallerOnly,
        }
    }

    fn fails(&mut self, is_probe: bool, after: Option<u16>) {
        let lasts = match self.cools {
            None if self.failures == 0 => {
                self.failures = 1;
                return;
            }
            None => 1000,
            Some((_, lasted)) if is_probe => (2 * lasted).min(3000),
            Some(_) => return,
        };
        let wait = after.map_or(lasts, |after| lasts.max(after.into()).min(3000));
        *self = Self { now: self.now, failures: 0, cools: Some((self.now + wait, lasts)), is_probed: false };
    }

    fn answers(&mut self, is_probe: bool) {
        if is_probe || self.cools.is_none() {
            *self = Self { now: self.now, ..Self::default() };
        }
    }

    fn state(&self) -> ModelState {
        match self.cools {
            None => ModelState::Called,
            Some(_) if self.is_probed => ModelState::Probing,
            Some((until, _)) => ModelState::Cooling(Duration::from_millis(until.saturating_sub(self.now))),
        }
    }
}

proptest! {
    #[test]
    fn in_any_order_of_events_a_model_cools_as_described(events in events()) {
        let rules = Cooldown {
            failures: NonZeroU32::new(2).unwrap(),
            first: 1000 * MS,
            longest: 3000 * MS,
            statuses: [500].into(),
        };
        paused(async {
            let (cooldowns, name, mut described) = (Cooldowns::default(), Arc::from("m"), Described::default());
            // Those under way, whether each is a probe of which nothing is known, and whether it was one.
            let mut open: Vec<(Pass, bool, bool)> = Vec::new();
            for event in events {
                match event {
                    Event::Passes(ms) => {
                        described.now += u64::from(ms);
                        tokio::time::advance(u32::from(ms) * MS).await;
                    }
                    Event::Asks(role) => {
                        let looked = cooldowns.look(&name, role);
                        let pass = cooldowns.admit(&name, &rules, role);
                        assert_eq!((pass.is_ok(), looked.is_ok()), (described.admits(role), described.admits(role)));
                        if let Ok(pass) = pass {
                            described.is_probed = described.cools.is_some();
                            open.push((pass, described.is_probed, false));
                        }
                    }
                    Event::Answers(at) if at < open.len() => {
                        let (mut pass, is_probe, has_told) = open.remove(at);
                        pass.succeeded();
                        // The first words of a probe were its answer.
                        if !has_told {
                            described.answers(is_probe);
                        }
                    }
                    Event::Speaks(at) if at < open.len() => {
                        let (pass, is_probe, has_told) = &mut open[at];
                        pass.spoke();
                        if std::mem::take(is_probe) {
                            *has_told = true;
                            described.answers(true);
                        }
                    }
                    Event::Fails(at, after) if at < open.len() => {
                        let (mut pass, is_probe, _) = open.remove(at);
                        pass.failed("x", after.map(|after| u32::from(after) * MS));
                        described.fails(is_probe, after);
                    }
                    Event::Leaves(at) if at < open.len() => {
                        let (pass, is_probe, _) = open.remove(at);
                        drop(pass);
                        if is_probe && let Some((until, _)) = &mut described.cools {
                            (*until, described.is_probed) = (described.now, false);
                        }
                    }
                    _ => {}
                }
                assert_eq!(cooldowns.view(&name).state, described.state(), "{described:?}");
            }
        });
    }
}
