//! The listener as operators meet it, without a socket.

use axum::body::Body;
use axum::http::Method;
use http_body_util::BodyExt;
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use tracing::level_filters::LevelFilter;

use super::*;
use crate::ensemble::fixture;

fn admin() -> Admin {
    let in_force = InForce {
        config: Arc::new(json!({"listen": {"admin": "127.0.0.1:9902"}})),
        models: vec![fixture::model("a"), fixture::model("b")],
        snapshot: Arc::new(Snapshot::new([fixture::ensemble("team")])),
        hosts: vec!["consort.internal".to_owned(), "10.0.0.7".to_owned()],
    };
    Admin {
        current: Arc::new(ArcSwap::from_pointee(in_force)),
        readiness: Arc::new(Readiness::of_first()),
        cooldowns: Cooldowns::default(),
        limiter: Limiter::default(),
        log_level: LogLevel::of_nobody(LevelFilter::INFO),
        metrics: Metrics::default(),
    }
}

/// Status and body of an answer.
async fn asked(
    admin: &Admin,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> (u16, String) {
    let more = Router::new().route("/more", get(async || "more"));
    let mut request = Request::builder().method(method).uri(path);
    if !headers.iter().any(|(name, _)| *name == "host") {
        request = request.header("host", "localhost:9902");
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Body::from(body.to_owned())).unwrap();
    let answer = TowerToHyperService::new(router(admin.clone(), more)).call(request).await.unwrap();
    let status = answer.status().as_u16();
    assert_eq!(answer.headers()["cache-control"], "no-store");
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

async fn got(admin: &Admin, path: &str) -> (u16, Value) {
    let (status, body) = asked(admin, Method::GET, path, &[], "").await;
    (status, serde_json::from_str(&body).unwrap_or(Value::String(body)))
}

#[tokio::test]
async fn a_file_that_was_refused_leaves_the_process_ready_and_says_so() {
    let admin = admin();
    let (status, first) = got(&admin, "/readyz").await;
    assert_eq!((status, &first["ready"], &first["config"]["state"]), (200, &json!(true), &json!("ok")));
    assert_eq!((&first["config"]["generation"], &first["config"]["last_error"]), (&json!(1), &Value::Null));
    assert_eq!(first["dependencies"], json!({"limits_store": {"kind": "memory", "state": "ok"}}));
    admin.readiness.refused(vec!["models[0].provider: unknown".to_owned(), "log: what".to_owned()]);
    let (status, stale) = got(&admin, "/readyz").await;
    assert_eq!((status, &stale["config"]["state"]), (200, &json!("stale")));
    assert_eq!(stale["config"]["generation"], 1);
    let problems = &stale["config"]["last_error"]["problems"];
    assert_eq!(*problems, json!(["models[0].provider: unknown", "log: what"]));
    admin.readiness.reloaded(vec!["log.format"]);
    let (_, mended) = got(&admin, "/readyz").await;
    assert_eq!(
        (&mended["config"]["state"], &mended["config"]["generation"], &mended["config"]["last_error"]),
        (&json!("ok"), &json!(2), &Value::Null)
    );
    assert_eq!(mended["config"]["needs_restart"], json!(["log.format"]));
}

#[tokio::test]
async fn a_process_that_drains_is_alive_and_not_ready() {
    let admin = admin();
    admin.readiness.draining();
    let (status, body) = got(&admin, "/readyz").await;
    assert_eq!((status, &body["ready"], &body["draining"]), (503, &json!(false), &json!(true)));
    assert_eq!(got(&admin, "/livez").await.0, 200);
}

#[tokio::test(start_paused = true)]
async fn models_tell_how_they_fare() {
    let admin = admin();
    let rules = crate::limits::Cooldown {
        failures: std::num::NonZeroU32::MIN,
        first: Duration::from_secs(30),
        longest: Duration::from_secs(30),
        statuses: [].into(),
    };
    let pass = admin.cooldowns.admit(&"b".into(), &rules, crate::limits::Role::Caller);
    pass.unwrap().failed("timeout", None);
    let (_, models) = got(&admin, "/models").await;
    let of = |i: usize| &models["models"][i];
    assert_eq!(
        (&of(0)["name"], &of(0)["state"], &of(0)["until_ms"]),
        (&json!("a"), &json!("called"), &Value::Null)
    );
    assert_eq!((&of(1)["state"], &of(1)["left_s"]), (&json!("cooling"), &json!(30.0)));
    assert_eq!((&of(1)["last_error"], &of(1)["failures"]), (&json!("timeout"), &json!(1)));
    let left = of(1)["until_ms"].as_u64().unwrap() - readiness::now_ms();
    assert!((29_000..=30_000).contains(&left), "{left}");
    assert_eq!(models["ensembles"][0]["name"], "team");
}

#[tokio::test]
async fn a_redis_that_does_not_answer_takes_no_readiness_and_leaves_what_it_would_know_out() {
    use crate::limits::{Budget, Rate, RateLimit, RedisSettings, StoreSettings, Window};
    let redis = RedisSettings::new("redis://127.0.0.1:1").unwrap();
    let (limiter, _keeper) = Limiter::open(&StoreSettings::Redis(Box::new(redis))).unwrap();
    let mut limited = fixture::model("a");
    let windows = vec![Window { rate: Rate::Rpm, limit: 9.try_into().unwrap() }];
    Arc::get_mut(&mut limited).unwrap().rate_limit = Some(RateLimit { windows, ..RateLimit::default() });
    let mut team = fixture::ensemble("team");
    team.budget = Some(Budget::usd_per_day(2.5));
    let in_force = InForce {
        config: Arc::default(),
        models: vec![limited],
        snapshot: Arc::new(Snapshot::new([team])),
        hosts: Vec::new(),
    };
    let admin = Admin { limiter, current: Arc::new(ArcSwap::from_pointee(in_force)), ..admin() };
    let (status, ready) = got(&admin, "/readyz").await;
    assert_eq!((status, &ready["ready"]), (200, &json!(true)));
    assert_eq!(ready["dependencies"]["limits_store"], json!({"kind": "redis", "state": "unreachable"}));
    let (_, models) = got(&admin, "/models").await;
    let unknown = json!({"rpm": {"used": null, "limit": 9, "reset_s": null}});
    assert_eq!(models["models"][0]["limits"], unknown);
    assert_eq!(models["ensembles"][0]["budget"], json!({"usd_per_day": 2.5, "spent_usd": null}));
}

#[tokio::test]
async fn the_log_level_is_changed_by_a_word() {
    let admin = admin();
    let put = async |body: &str| asked(&admin, Method::PUT, "/log-level", &[], body).await;
    for (body, level) in [("debug\n", "debug"), ("\"warn\"", "warn"), ("{\"level\": \"trace\"}", "trace")] {
        assert_eq!(put(body).await, (200, format!("{{\"level\":\"{level}\"}}")), "{body}");
        assert_eq!(got(&admin, "/log-level").await.1["level"], level);
    }
    let large = "x".repeat(MAX_BODY + 1);
    for bad in ["", "loud", "off", "5", "{\"level\": 5}", "{}", "consort=debug", &large] {
        let (status, body) = put(bad).await;
        assert_eq!(status, 400, "{bad}: {body}");
        assert!(body.contains("one of error, warn, info, debug, trace"), "{body}");
    }
    assert_eq!(admin.log_level.level(), LevelFilter::TRACE);
}

#[tokio::test]
async fn names_and_origins_of_others_are_refused() {
    let admin = admin();
    let status =
        async |headers: &[(&str, &str)], path: &str| asked(&admin, Method::GET, path, headers, "").await.0;
    let ours = [
        "localhost",
        "LOCALHOST:1",
        "127.0.0.1:9902",
        "127.9.9.9",
        "[::1]:9902",
        "consort.internal:80",
        "10.0.0.7",
    ];
    for host in ours {
        assert_eq!(status(&[("host", host)], "/config").await, 200, "{host}");
    }
    for host in ["evil.example", "localhost.evil.example", "10.0.0.8:9902", "", "a b"] {
        for path in ["/config", "/models", "/version", "/log-level", "/more"] {
            assert_eq!(status(&[("host", host)], path).await, 403, "{host} {path}");
        }
        for path in ["/livez", "/readyz", "/metrics"] {
            assert_eq!(status(&[("host", host)], path).await, 200, "{host} {path}");
        }
    }
    let of = |origin| [("host", "localhost:9902"), ("origin", origin)];
    assert_eq!(status(&of("http://localhost:9902"), "/more").await, 200);
    for origin in ["http://localhost:3000", "http://evil.example", "null", "localhost:9902", ""] {
        assert_eq!(status(&of(origin), "/more").await, 403, "{origin}");
    }
}

#[tokio::test]
async fn what_is_not_there_is_told_in_json() {
    let admin = admin();
    let code = async |method, path| {
        let (status, body) = asked(&admin, method, path, &[], "").await;
        (status, serde_json::from_str::<Value>(&body).unwrap()["error"]["code"].clone())
    };
    assert_eq!(code(Method::GET, "/nothing").await, (404, json!("not_found")));
    assert_eq!(code(Method::DELETE, "/log-level").await, (405, json!("method_not_allowed")));
    assert_eq!(code(Method::POST, "/readyz").await, (405, json!("method_not_allowed")));
    assert_eq!(code(Method::PUT, "/more").await, (405, json!("method_not_allowed")));
    assert_eq!(asked(&admin, Method::HEAD, "/readyz", &[], "").await, (200, String::new()));
}

#[tokio::test]
async fn the_configuration_and_the_version_are_told() {
    let admin = admin();
    assert_eq!(got(&admin, "/config").await.1["listen"]["admin"], "127.0.0.1:9902");
    assert_eq!(got(&admin, "/version").await.1["version"], env!("CARGO_PKG_VERSION"));
    assert!(asked(&admin, Method::GET, "/metrics", &[], "").await.1.contains("\nconsort_inflight 0\n"));
}
