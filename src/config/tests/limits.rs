//! How much names may take, and where that is counted.

use std::time::Duration;

use super::*;
use crate::limits::{Budget, KeySource, OnError, Rate, StoreSettings};

#[test]
fn a_model_and_an_ensemble_are_bounded_as_written() {
    let config = with_ensemble("panel: [{model: a}]").unwrap();
    assert!(config.direct_models.iter().all(|model| model.rate_limit.is_none()));
    let bounded = ensemble("panel: [{model: a}], rate_limit: {rpm: 5, tpm: 100}, budget: {usd_per_day: 2.5}");
    let rate = bounded.rate_limit.as_ref().unwrap();
    let windows: Vec<_> = rate.windows.iter().map(|window| (window.rate, window.limit.get())).collect();
    assert_eq!((windows, rate.concurrency), (vec![(Rate::Rpm, 5), (Rate::Tpm, 100)], None));
    assert_eq!(bounded.budget, Some(Budget::usd_per_day(2.5)));
    let text = MODELS.replace(
        "display_name: b",
        "rate_limit: {rps: 1, rpd: 3, tpd: 4, concurrency: 5, wait_ms: 250}, display_name: b",
    );
    let config = yaml(&text).unwrap();
    let rate = config.direct_models[1].rate_limit.as_ref().unwrap();
    let windows: Vec<_> = rate.windows.iter().map(|window| (window.rate, window.limit.get())).collect();
    assert_eq!(windows, [(Rate::Rps, 1), (Rate::Rpd, 3), (Rate::Tpd, 4)]);
    assert_eq!((rate.concurrency.unwrap().get(), rate.wait), (5, Duration::from_millis(250)));
}

#[test]
fn what_bounds_nothing_or_stands_in_the_wrong_place_is_named() {
    insta::assert_snapshot!(ensemble_problems(
        "panel: [{model: a}], rate_limit: {rpm: 0, wait_ms: 5}, budget: {usd_per_day: 0}"
    ), @r"
    models[2].ensemble.budget.usd_per_day: must be greater than 0 and at most 1000000
    models[2].ensemble.rate_limit.rpm: must be from 1 to 1000000000000
    models[2].ensemble.rate_limit.wait_ms: is for direct models: a caller who is over a limit is told so, and comes back
    ");
    insta::assert_snapshot!(ensemble_problems("panel: [{model: a}], rate_limit: {wait_ms: 5}, budget: {}"), @r"
    models[2].ensemble.budget.usd_per_day: is required
    models[2].ensemble.rate_limit: bounds nothing: give one of rps, rpm, rpd, tpm, tpd, concurrency
    ");
    insta::assert_snapshot!(problems(&format!(
        "{MODELS}- {{display_name: e, rate_limit: {{rpm: 1}}, ensemble: {{panel: [{{model: a}}]}}}}"
    )), @"models[2].rate_limit: is a direct model's key here; an ensemble's stands in `ensemble`");
    insta::assert_snapshot!(problems(
        "limits: {caller_key: {header: 'a b'}, store: {redis: {url: 'http://:secret@h', prefix: '{x}'}}}"
    ), @r"
    limits.caller_key.header: is no name of a header
    limits.store.redis.prefix: must be without braces: they tell a cluster what belongs together
    limits.store.redis.url: is no address of a Redis; expected `redis://host:6379/0`, or `rediss://` with TLS
    ");
    insta::assert_snapshot!(problems("limits: {caller_key: {metadata: [jwt]}, store: {redis: {timeout_ms: 0}}}"), @r"
    limits.caller_key.metadata: needs a namespace and at least one key in it
    limits.store.redis.timeout_ms: must be from 1 to 10000
    limits.store.redis.url: is required
    ");
}

#[test]
fn callers_and_stores_are_told_apart_as_written() {
    let limits = |text: &str| yaml(&format!("limits: {{{text}}}")).unwrap();
    assert_eq!(limits("caller_key: global").ext_proc.caller_key, KeySource::Global);
    let header = limits("caller_key: {header: X-Api-Key}").ext_proc.caller_key;
    assert_eq!(header, KeySource::Header(::http::HeaderName::from_static("x-api-key")));
    let claim =
        limits("caller_key: {metadata: [envoy.filters.http.jwt_authn, payload, sub]}").ext_proc.caller_key;
    let path = vec!["payload".to_owned(), "sub".to_owned()];
    assert_eq!(claim, KeySource::Metadata { namespace: "envoy.filters.http.jwt_authn".to_owned(), path });
    assert!(matches!(limits("store: memory").store, StoreSettings::Memory));
    let config =
        limits("store: {redis: {url: 'rediss://ann:hidden@h:1/2', on_error: closed, cluster: true}}");
    let StoreSettings::Redis(redis) = &config.store else { panic!("a Redis is written") };
    assert_eq!(
        (redis.on_error, redis.is_cluster, redis.timeout),
        (OnError::Closed, true, Duration::from_millis(50))
    );
    assert_eq!(redis.prefix, "consort");
    assert!(!format!("{config:?}").contains("hidden"));
}

#[test]
fn an_alias_may_have_a_cap_of_its_own() {
    let of = |fields: &str| ensemble(&format!("panel: [{{model: a}}]{fields}")).max_inflight;
    assert_eq!((of(""), of(", max_inflight: 3")), (None, std::num::NonZeroUsize::new(3)));
    insta::assert_snapshot!(ensemble_problems("panel: [{model: a}], max_inflight: 0"), @"models[2].ensemble.max_inflight: must be at least 1");
    let text = "overrides: {ad_hoc: {alias: any, models: [a, b], max_inflight: 2}}";
    let config = yaml(&format!("{MODELS}\n{text}")).unwrap();
    assert_eq!(config.snapshot.ensemble("any").unwrap().max_inflight, std::num::NonZeroUsize::new(2));
}

#[test]
fn a_body_of_the_allowed_size_must_find_room() {
    insta::assert_snapshot!(problems("limits: {max_request_bytes: 100, max_held_bytes: 99}"), @"limits.max_held_bytes: must be at least `limits.max_request_bytes` (100), or no such request fits");
    assert_eq!(yaml("limits: {max_request_bytes: 100, max_held_bytes: 100}").unwrap().max_held_bytes, 100);
}
