//! Where an alias's request goes: to its ensemble, or on to the model that takes the others.

use std::time::Duration;

use bytes::Bytes;
use tracing::debug;

use super::Settings;
use super::exchange::{Asked, Detour};
use super::headers::RequestHead;
use crate::chat::{Request, quoted};
use crate::dispatch::{self, Delivery, Taken};
use crate::ensemble::Context;
use crate::signing::{self, Grant, Ticket};
use crate::telemetry::{Door, metrics};
use crate::upstream::DirectModel;

/// Where an alias's request goes.
pub(super) enum Route {
    /// To the ensemble.
    Run(Box<Taken>),
    /// To the plain door, by this ticket.
    HandOff(String),
    /// On to its upstream.
    Otherwise(Detour),
}

/// Decides by the caller's headers and the ensemble's condition. The body is read when one of them asks.
pub(super) fn route(asked: Asked, settings: &Settings) -> Route {
    let Asked { ensemble, body, head, can_stream } = asked;
    let delivery =
        if can_stream { Delivery::Live } else { Delivery::Whole { within: settings.buffered_timeout } };
    let body = Bytes::from(body);
    let ticket_ttl = settings.ticket_ttl.filter(|_| !can_stream);
    let kept = ticket_ttl.map(|_| body.clone());
    match dispatch::route(dispatch::Asked {
        ensemble,
        head: &head,
        caller_key: &settings.caller_key,
        body,
        door: Door::ExtProc,
        delivery,
        settled: None,
    }) {
        dispatch::Route::Run(taken) => {
            let handed = ticket_ttl.zip(kept).and_then(|(ttl, body)| ticket(&taken, &body, ttl, settings));
            handed.map_or_else(|| Route::Run(taken), Route::HandOff)
        }
        dispatch::Route::Otherwise(redirected) => {
            Route::Otherwise(detour(&redirected.request, &redirected.model, &head, settings))
        }
    }
}

/// A ticket for what the ensemble has taken. What its caller wants of it travels on in headers, to be read again.
fn ticket(taken: &Taken, body: &Bytes, ttl: Duration, settings: &Settings) -> Option<String> {
    let Context { caller_key, condition_failed, .. } = &taken.context;
    let grant = Grant {
        alias: taken.ensemble.name.to_string(),
        caller: caller_key.as_ref().map(|key| key.as_str().to_owned()),
        in_doubt: *condition_failed,
    };
    let body = signing::digest([&body[..]]);
    let ticket = Ticket::issue(grant, body, ttl, &settings.secrets, signing::now())?;
    debug!(request_id = %taken.context.request_id, alias = %taken.ensemble.name, "request handed to the plain door");
    metrics::handed_off(&taken.ensemble.name);
    Some(ticket)
}

/// The same request for another model. Upstreams know that by its provider's name for it.
fn detour(request: &Request, model: &DirectModel, head: &RequestHead, settings: &Settings) -> Detour {
    let body = request.edit().set("model", quoted(&model.model_name)).body();
    Detour {
        body,
        tells_length: head.tells_length(),
        field: settings.model_header.clone().map(|header| (header, model.model_name.clone())),
        clear_route_cache: settings.clear_route_cache,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::chat::ApiError;
    use crate::dispatch::Given;
    use crate::ensemble::{Ensemble, Overrides, When, fixture};
    use crate::ext_proc::headers::told;
    use crate::ext_proc::{ListModels, ModeOverride};
    use crate::limits::KeySource;
    use crate::signing::Secrets;

    const BODY: &str = r#"{ "model":"team", "x" : 0.70,"messages":[{"role":"user","content":"hi"}] }"#;
    const REWRITTEN: &str =
        r#"{ "model":"provider/plain", "x" : 0.70,"messages":[{"role":"user","content":"hi"}] }"#;

    fn routed(when: Option<&str>, headers: &[(&str, &str)], body: &str, settings: &Settings) -> Route {
        let ensemble = Ensemble {
            when: when.map(|expression| When::parse(expression).unwrap()),
            otherwise: Some(fixture::model("plain")),
            overrides: Overrides { enable: true, min_responses: true, ..Overrides::default() },
            ..fixture::ensemble("team")
        };
        let fields = [&[(":path", "/v1/chat/completions?x=1"), ("x-request-id", "id")], headers].concat();
        let head = told(&fields).into();
        let body = body.as_bytes().to_vec();
        route(Asked { ensemble: Arc::new(ensemble), body, head, can_stream: true }, settings)
    }

    fn settings() -> Settings {
        Settings {
            mode_override: ModeOverride::Never,
            max_request_bytes: 1 << 20,
            commit_after: Duration::ZERO,
            heartbeat: None,
            buffered_timeout: Duration::ZERO,
            model_header: None,
            caller_key: KeySource::Global,
            clear_route_cache: false,
            list_models: ListModels::Off,
            ticket_ttl: None,
            secrets: Secrets::of_process(),
        }
    }

    fn told_briefly(route: &Route) -> String {
        match route {
            Route::Otherwise(detour) => {
                format!("otherwise {}", String::from_utf8_lossy(&detour.body.to_bytes()))
            }
            Route::HandOff(_) => "handed off".to_owned(),
            Route::Run(taken) => {
                let given = match &taken.request {
                    Given::Unread(_) => "unread".to_owned(),
                    Given::Read(_) => "read".to_owned(),
                    Given::Refused(error) => ApiError::from(error).label.to_owned(),
                };
                let Context { ignored, applied, condition_failed, .. } = &taken.context;
                let failed = if *condition_failed { " in doubt" } else { "" };
                format!("run {given}{failed} of {} {applied:?} {ignored:?}", taken.ensemble.quorum)
            }
        }
    }

    #[test]
    fn a_request_goes_where_its_caller_and_its_condition_say() {
        let otherwise = &*format!("otherwise {REWRITTEN}");
        let many = &*BODY.replace("0.70", "0.70,\"n\":2");
        let (tier, off) = (Some("request.headers['x-tier'] == 'gold'"), ("x-ensemble-enable", "false"));
        let on_path = Some("request.path == '/v1/chat/completions'");
        for (when, headers, body, expected) in [
            (None, &[][..], BODY, "run unread of 2 [] []"),
            (None, &[off], BODY, otherwise),
            (None, &[("x-ensemble-enable", "TRUE")], "{", r#"run unread of 2 ["x-ensemble-enable"] []"#),
            (
                None,
                &[("x-ensemble-min-responses", "3"), ("x-ensemble-judge", "x")],
                BODY,
                r#"run unread of 3 ["x-ensemble-min-responses"] ["x-ensemble-judge"]"#,
            ),
            (None, &[("x-ensemble-min-responses", "9")], BODY, "run invalid_header of 2 [] []"),
            (tier, &[("x-tier", "gold")], BODY, "run read of 2 [] []"),
            (tier, &[("x-tier", "iron")], BODY, otherwise),
            (tier, &[], BODY, "run read in doubt of 2 [] []"),
            (tier, &[("x-tier", "gold"), off], BODY, otherwise),
            (tier, &[("x-tier", "iron"), ("x-ensemble-enable", "true")], BODY, otherwise),
            (on_path, &[], BODY, "run read of 2 [] []"),
            // What only a single model can honour is no fault while that one is to answer.
            (tier, &[("x-tier", "gold")], many, "run unsupported_parameter of 2 [] []"),
            (tier, &[("x-tier", "iron")], many, &*otherwise.replace("0.70", "0.70,\"n\":2")),
            // Without a request there is nothing to decide by.
            (tier, &[("x-tier", "iron")], "{", "run invalid_json of 2 [] []"),
            (None, &[off], "{\"model\":\"team\"}", r#"run invalid_value of 2 ["x-ensemble-enable"] []"#),
        ] {
            assert_eq!(
                told_briefly(&routed(when, headers, body, &settings())),
                expected,
                "{when:?} {headers:?} {body}"
            );
        }
    }

    #[test]
    fn a_detour_takes_along_what_routing_needs() {
        let detoured = |headers: &[(&str, &str)], settings: &Settings| {
            let Route::Otherwise(detour) = routed(Some("false"), headers, BODY, settings) else {
                panic!("false holds");
            };
            (detour.tells_length, detour.field, detour.clear_route_cache)
        };
        assert_eq!(detoured(&[], &settings()), (false, None, false));
        assert_eq!(detoured(&[("content-length", "78")], &settings()), (true, None, false));
        let name = http::HeaderName::from_static("x-model");
        let settings = Settings { model_header: Some(name.clone()), clear_route_cache: true, ..settings() };
        let field = Some((name, "provider/plain".to_owned()));
        assert_eq!(detoured(&[], &settings), (false, field, true));
    }
}
