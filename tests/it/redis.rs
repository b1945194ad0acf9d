//! Limits that several processes share in a real Redis, and what becomes of them when it is gone.

use std::sync::Arc;
use std::time::{Duration, Instant};

use consort::limits::{
    Budget, CallerKey, Demand, Denied, Grant, Limiter, OnError, Rate, RateLimit, RedisSettings,
    StoreSettings, Window,
};
use consort_testkit::http::Answer;
use consort_testkit::provider::{Reply, Usage};
use consort_testkit::redis::Redis;
use serde_json::json;
use tokio::task::JoinHandle;

use crate::stack::{ALIAS, Options, Stack, ms};

fn limit(windows: &[(Rate, u64)], concurrency: u64) -> RateLimit {
    let window = |(rate, limit): &(Rate, u64)| Window { rate: *rate, limit: (*limit).try_into().unwrap() };
    RateLimit {
        windows: windows.iter().map(window).collect(),
        concurrency: concurrency.try_into().ok(),
        wait: Duration::ZERO,
    }
}

/// One process' limiter. Its keeper ends with it.
struct Process {
    limiter: Limiter,
    keeper: JoinHandle<()>,
}

impl Process {
    fn start(url: &str, adjust: impl FnOnce(&mut RedisSettings)) -> Self {
        let mut settings = RedisSettings::new(url).expect("a Redis's address");
        settings.timeout = ms(1000);
        adjust(&mut settings);
        let opened = Limiter::open(&StoreSettings::Redis(Box::new(settings)));
        let (limiter, keeper) = opened.expect("a store");
        Self { limiter, keeper: tokio::spawn(keeper.keep()) }
    }

    async fn admit(&self, rate: &RateLimit, tokens: u64) -> Result<Grant, Denied> {
        let demand = Demand { name: &"m}odd{".into(), caller: None, rate: Some(rate), budget: None, tokens };
        self.limiter.admit(demand).await
    }

    async fn used(&self, rate: &RateLimit) -> Vec<u64> {
        self.limiter.flush().await;
        let levels = self.limiter.view(&"m}odd{".into(), None, rate).await.expect("Redis answers");
        levels.into_iter().map(|level| level.used).collect()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

fn told(refused: &Result<Grant, Denied>) -> &'static str {
    match refused {
        Ok(_) => "admitted",
        Err(Denied::Over { what, .. }) => what,
        Err(Denied::Spent { .. }) => "spent",
        Err(Denied::Undecided) => "undecided",
    }
}

#[tokio::test]
async fn a_redis_decides_as_a_process_does() {
    for (redis, is_cluster) in [(Redis::start().await, false), (Redis::cluster().await, true)] {
        let rate = limit(&[(Rate::Rpd, 6), (Rate::Tpd, 100)], 3);
        let shared = Process::start(&redis.url(), |settings| settings.is_cluster = is_cluster);
        let alone = Limiter::default();
        let name = "m}odd{".into();
        let demand = Demand { name: &name, caller: None, rate: Some(&rate), budget: None, tokens: 0 };
        let mut open = Vec::new();
        // Asks for so many tokens, or ends the oldest with so many.
        for (asks, tokens) in [
            (true, 50),
            (true, 60),
            (true, 30),
            (false, 10),
            (true, 1),
            (true, 40),
            (true, 1),
            (false, 45),
            (true, 14),
            (true, 1),
            (false, 0),
            (false, 2),
            (true, 500),
            (true, 3),
            (true, 3),
            (true, 3),
        ] {
            if asks {
                let both =
                    (shared.admit(&rate, tokens).await, alone.admit(Demand { tokens, ..demand }).await);
                assert_eq!(told(&both.0), told(&both.1), "{tokens}");
                open.extend(both.0.ok().zip(both.1.ok()));
            } else {
                let (shared, alone) = open.remove(0);
                shared.reservation.settle(tokens, 0.0);
                alone.reservation.settle(tokens, 0.0);
            }
            let levels = alone.view(&name, None, &rate).await.expect("it answers");
            let expected: Vec<u64> = levels.into_iter().map(|level| level.used).collect();
            assert_eq!(shared.used(&rate).await, expected, "{asks} {tokens}");
        }
        open.pop().expect("one is open").0.reservation.give_back();
    }
}

#[tokio::test]
async fn a_cluster_takes_every_question_in_one_slot() {
    let redis = Redis::cluster().await;
    let process = Process::start(&redis.url(), |settings| settings.is_cluster = true);
    let rate = limit(&[(Rate::Rpm, 2), (Rate::Tpd, 100)], 2);
    let (name, caller) = ("team".into(), CallerKey::of(b"ann"));
    for _ in 0..2 {
        let budget = Some(Budget::usd_per_day(5.0));
        let demand = Demand { name: &name, caller: Some(&caller), rate: Some(&rate), budget, tokens: 10 };
        process.limiter.admit(demand).await.expect("room").reservation.settle(7, 2.5);
    }
    process.limiter.flush().await;
    let demand =
        Demand { name: &name, caller: None, rate: None, budget: Some(Budget::usd_per_day(5.0)), tokens: 0 };
    assert_eq!(told(&process.limiter.admit(demand).await), "spent");
    let levels = process.limiter.view(&name, Some(&caller), &rate).await.expect("it answers");
    assert_eq!(levels.iter().map(|level| level.used).collect::<Vec<_>>(), [2, 14, 0]);
}

#[tokio::test]
async fn places_of_a_process_that_has_crashed_are_free_again_and_those_of_a_living_one_are_not() {
    let redis = Redis::start().await;
    let short = |settings: &mut RedisSettings| settings.lease = ms(600);
    let (living, crashing) = (Process::start(&redis.url(), short), Process::start(&redis.url(), short));
    let rate = limit(&[], 2);
    let _kept = living.admit(&rate, 0).await.expect("room");
    let lost = crashing.admit(&rate, 0).await.expect("room");
    crashing.keeper.abort();
    let began = Instant::now();
    assert_eq!(told(&living.admit(&rate, 0).await), "requests at a time");
    let freed =
        consort_testkit::eventually("a place", ms(5000), async || living.admit(&rate, 0).await.ok()).await;
    assert!(began.elapsed() >= ms(300), "{:?}", began.elapsed());
    tokio::time::sleep(ms(1500)).await;
    assert_eq!(told(&living.admit(&rate, 0).await), "requests at a time", "two live on");
    drop((freed, lost));
    assert_eq!(living.used(&rate).await, [1]);
}

#[tokio::test]
async fn what_was_counted_when_nobody_waited_any_more_is_taken_back() {
    let mut redis = Redis::start().await;
    let process = Process::start(&redis.url(), |settings| settings.timeout = ms(50));
    let rate = limit(&[(Rate::Rpd, 100), (Rate::Tpd, 1000)], 10);
    drop(process.admit(&rate, 10).await.expect("room"));
    assert_eq!(process.used(&rate).await, [1, 0, 0]);
    redis.pause();
    let began = Instant::now();
    for _ in 0..20 {
        assert!(process.admit(&rate, 10).await.is_ok(), "open");
    }
    assert!(began.elapsed() < ms(500), "one waits, the others do not: {:?}", began.elapsed());
    redis.resume();
    assert_eq!(process.used(&rate).await, [1, 0, 0]);
    let counted = async || process.admit(&rate, 10).await.ok().filter(|grant| grant.quota.is_some());
    consort_testkit::eventually("limits again", ms(5000), counted).await;
}

fn store(redis: &Redis, more: &str) -> String {
    format!("limits: {{store: {{redis: {{url: '{}'{more}}}}}}}", redis.url())
}

async fn statuses(stack: &Stack, n: usize) -> Vec<u16> {
    let calls = (0..n).map(|_| stack.ask(json!({})).send());
    let answers: Vec<Answer> = futures_util::future::join_all(calls).await;
    answers.into_iter().map(|answer| answer.status.as_u16()).collect()
}

#[tokio::test]
async fn two_processes_on_one_redis_hold_one_limit_together_exactly() {
    let redis = Redis::start().await;
    let start = || {
        let options = Options::new().ensemble("rate_limit: {rpm: 37}");
        options.config(&store(&redis, ", timeout_ms: 5000")).start()
    };
    let (one, two) = tokio::join!(start(), start());
    // One by each, so that both have a part in it however unevenly the rest is dealt.
    assert_eq!((statuses(&one, 1).await, statuses(&two, 1).await), (vec![200], vec![200]));
    let (a, b) = tokio::join!(statuses(&one, 39), statuses(&two, 39));
    let answered = |statuses: &[u16]| statuses.iter().filter(|status| **status == 200).count();
    assert_eq!(answered(&a) + answered(&b), 35, "{a:?} {b:?}");
    assert!(a.iter().chain(&b).all(|status| matches!(status, 200 | 429)));
}

/// Redis is stopped, or killed, in mid-run, and comes back.
async fn without_redis(on_error: &str, kills: bool) {
    let mut redis = Redis::start().await;
    let options = Options::new().ensemble("rate_limit: {rpm: 3, concurrency: 50}");
    // Long enough for a Redis that is there and for a machine that has much to do.
    let more = format!(", on_error: {on_error}, timeout_ms: 300");
    let stack = options.config(&store(&redis, &more)).start().await;
    stack.provider.model("model-a").reply(Reply::text("one").delay(ms(300)));
    let under_way = tokio::spawn(stack.ask(json!({})).send());
    stack.provider.wait_for("model-a", 1).await;
    if kills {
        redis.kill()
    } else {
        redis.pause()
    }
    let is_open = on_error == "open";
    for i in 0..10 {
        let answer = stack.ask(json!({})).send().await;
        if is_open {
            assert_eq!(answer.status, 200, "{i} {}", answer.text());
        } else {
            assert_eq!((answer.status.as_u16(), answer.header("retry-after")), (503, "1"), "{i}");
            assert_eq!(answer.json()["error"]["code"], "limits_unavailable");
            assert!(answer.took < ms(1000), "{:?}", answer.took);
        }
    }
    assert_eq!(under_way.await.expect("no panic").status, 200, "what has begun comes to its end");
    if !is_open {
        assert_eq!(stack.provider.requests_for("model-a").len(), 1);
    }
    let told = |line: &serde_json::Value| line["fields"]["message"] == "the limits' Redis does not answer";
    assert_eq!(stack.service.logs().iter().filter(|line| told(line)).count(), 1, "once a minute");
    if kills {
        redis.restart().await
    } else {
        redis.resume()
    }
    stack.service.wait_for_log(|line| line["fields"]["message"] == "the limits' Redis answers again").await;
    let mut after = Vec::new();
    for _ in 0..5 {
        after.push(stack.ask(json!({})).send().await.status.as_u16());
    }
    // The one that was under way counts where Redis has not forgotten it.
    let expected = if kills { [200, 200, 200, 429, 429] } else { [200, 200, 429, 429, 429] };
    assert_eq!(after, expected);
    stack.service.signal("TERM");
    assert_eq!(stack.service.wait_exit(ms(8000)).await.code(), Some(0));
}

#[tokio::test]
async fn a_stopped_redis_leaves_all_requests_through_where_it_is_open() {
    without_redis("open", false).await;
}

#[tokio::test]
async fn a_killed_redis_leaves_all_requests_through_where_it_is_open() {
    without_redis("open", true).await;
}

#[tokio::test]
async fn a_stopped_redis_refuses_all_requests_where_it_is_closed() {
    without_redis("closed", false).await;
}

#[tokio::test]
async fn a_killed_redis_refuses_all_requests_where_it_is_closed() {
    without_redis("closed", true).await;
}

/// Passes connections on until it is silenced: those that are open then stay open, and say nothing any more.
async fn silenceable(to: std::net::SocketAddr) -> (std::net::SocketAddr, tokio::sync::watch::Sender<bool>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let (silence, is_silent) = tokio::sync::watch::channel(false);
    tokio::spawn(async move {
        while let Ok((mut caller, _)) = listener.accept().await {
            let mut is_silent = is_silent.clone();
            let was_open_before = !*is_silent.borrow();
            tokio::spawn(async move {
                let mut server = tokio::net::TcpStream::connect(to).await.unwrap();
                let silenced = async {
                    if was_open_before && is_silent.wait_for(|silent| *silent).await.is_ok() {
                        return;
                    }
                    std::future::pending().await
                };
                tokio::select! {
                    _ = tokio::io::copy_bidirectional(&mut caller, &mut server) => {}
                    () = silenced => std::future::pending().await,
                }
            });
        }
    });
    (addr, silence)
}

#[tokio::test]
async fn a_connection_that_has_fallen_silent_is_replaced() {
    let redis = Redis::start().await;
    let url = redis.url();
    let to = url.trim_start_matches("redis://").split('/').next().unwrap().parse().unwrap();
    let (addr, silence) = silenceable(to).await;
    let process = Process::start(&format!("redis://{addr}/"), |settings| {
        (settings.on_error, settings.timeout) = (OnError::Closed, ms(100));
    });
    let rate = limit(&[(Rate::Rpd, 100)], 10);
    assert_eq!(told(&process.admit(&rate, 1).await), "admitted");
    silence.send(true).unwrap();
    assert_eq!(told(&process.admit(&rate, 1).await), "undecided");
    consort_testkit::eventually("another connection", ms(10_000), async || {
        (told(&process.admit(&rate, 1).await) == "admitted").then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_member_whose_limit_cannot_be_checked_is_not_asked_where_that_is_closed() {
    let mut redis = Redis::start().await;
    redis.kill();
    let models = "- {display_name: few, provider: scripted, model_name: model-a, rate_limit: {rpm: 5}}
- {display_name: alone, ensemble: {panel: [{model: few}], strategy: vote}}
- {display_name: pair, ensemble: {panel: [{model: few}, {model: b}], strategy: vote, min_responses: 1}}";
    let stack = Options::new().models(models).config(&store(&redis, ", on_error: closed")).start().await;
    let alone = stack.ask(json!({"model": "alone"})).send().await;
    assert_eq!(
        (alone.status.as_u16(), alone.json()["error"]["code"].clone()),
        (503, json!("limits_unavailable"))
    );
    assert_eq!(stack.ask(json!({"model": "pair"})).send().await.status, 200);
    assert!(stack.provider.requests_for("model-a").is_empty());
}

/// Some are left by their callers while a member stalls, some fail, are made again, stream, or are cut by the grace.
#[tokio::test]
async fn a_thousand_mixed_requests_are_settled_to_the_token_that_providers_reported() {
    const LIMIT: &str = "rate_limit: {rpd: 1000000, tpd: 1000000000, concurrency: 5000}";
    let redis = Redis::start().await;
    let url = redis.url();
    let options = Options::new().whole(move |base_url| {
        let key = crate::stack::KEY;
        let model = |name: &str| {
            format!("- {{display_name: {name}, provider: scripted, model_name: model-{name}, retries: 2, cooldown: {{enabled: false}}, {LIMIT}}}\n")
        };
        format!(
            "listen: {{ext_proc: '127.0.0.1:0'}}
limits: {{store: {{redis: {{url: '{url}', timeout_ms: 5000}}}}}}
providers: [{{name: scripted, base_url: '{base_url}', api_key: {key}}}]
models:
{}{}{}{}{}- {{display_name: {ALIAS}, ensemble: {{panel: [{{model: a}}, {{model: b}}, {{model: c}}], judge: {{model: judge}}, min_responses: 2, straggler_grace_ms: 2000, {LIMIT}}}}}
- {{display_name: leaving, ensemble: {{panel: [{{model: a}}, {{model: hang}}], strategy: vote, execution: sequential, min_responses: 2, {LIMIT}}}}}
",
            model("a"), model("b"), model("c"), model("judge"), model("hang"),
        )
    });
    let stack = options.start().await;
    stack.provider.forget_contents();
    let usage = |n: usize| Usage::new(11 + (n as u64 % 7), 3 + (n as u64 % 5));
    let counter = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    for name in ["model-a", "model-b", "model-judge"] {
        let counter = Arc::clone(&counter);
        stack.provider.model(name).answer(move |_| {
            let n = counter.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            Reply::text(format!("answer {n}")).usage(usage(n))
        });
    }
    let odd = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    stack.provider.model("model-c").answer(move |_| {
        match odd.fetch_add(1, std::sync::atomic::Ordering::Relaxed) % 5 {
            0 => Reply::stall(),
            1 => Reply::rate_limited("0"),
            2 => Reply::error(400, "no", "invalid_request_error", None),
            n => Reply::text("three").usage(usage(n)),
        }
    });
    stack.provider.model("model-hang").reply(Reply::stall());
    for round in 1..=10 {
        // By then the first member has been heard to its end, and only the second one is at work.
        let leaving: Vec<_> =
            (0..30).map(|_| tokio::spawn(stack.ask(json!({"model": "leaving"})).try_open())).collect();
        let calls = (0..70).map(|i| stack.ask(json!({"stream": i % 2 == 0, "max_tokens": 50})).send());
        let answers: Vec<Answer> = futures_util::future::join_all(calls).await;
        assert!(answers.iter().all(|answer| answer.status == 200));
        stack.provider.wait_for("model-hang", 30 * round).await;
        leaving.iter().for_each(JoinHandle::abort);
    }
    let rate = limit(&[(Rate::Rpd, 1), (Rate::Tpd, 1)], 1);
    let watch = Process::start(&redis.url(), |_| {});
    let mut sum = 0;
    for name in ["a", "b", "c", "judge", "hang"] {
        let billed = stack.provider.billed(&format!("model-{name}")).total();
        let settled = async || {
            let levels = watch.limiter.view(&name.into(), None, &rate).await?;
            (levels[2].used == 0 && levels[1].used == billed).then_some(())
        };
        consort_testkit::eventually(&format!("{name} to be settled at {billed}"), ms(10_000), settled).await;
        sum += billed;
    }
    let mut of_aliases = 0;
    for (name, runs) in [(ALIAS, 700), ("leaving", 300)] {
        let levels = watch.limiter.view(&name.into(), None, &rate).await.expect("Redis answers");
        assert_eq!((levels[0].used, levels[2].used), (runs, 0));
        of_aliases += levels[1].used;
    }
    assert_eq!(of_aliases, sum, "aliases and models agree");
}
