//! Where a ticket leads: the route to Consort's plain door, and the cluster behind it.

use serde_json::Value;

use super::Severity::Error;
use super::attachment::Attached;
use super::dump::Dump;
use super::routes::Chat;
use super::{Finding, Part, at, cluster, list};

pub(super) const TICKET: &str = "x-consort-ticket";

pub(super) fn check(
    findings: &mut Vec<Finding>,
    attached: &Attached<'_>,
    chats: &[Chat<'_>],
    dump: &Dump<'_>,
) {
    let place = format!("listener {}, route to Consort's door", attached.listener());
    let mut doors: Vec<&str> = Vec::new();
    for host in list(at(attached.manager.routes, "virtual_hosts")) {
        let is_chat = |route: &Value| chats.iter().any(|chat| std::ptr::eq(chat.route, route));
        let Some(first) = list(at(host, "routes")).position(is_chat) else { continue };
        let leads = |route: &Value| list(at(route, "match.headers")).any(|header| header["name"] == TICKET);
        let found = list(at(host, "routes")).enumerate().find(|(_, route)| leads(route));
        let value = found.map_or(&Value::Null, |(_, route)| route);
        let mut part = Part { place: place.clone(), value, findings: &mut *findings };
        let Some((position, door)) = found else {
            tell_missing(&mut part, "no route matches x-consort-ticket");
            continue;
        };
        if position > first {
            tell_missing(&mut part, "behind a chat route, which takes what has a ticket");
        }
        check_route(&mut part, host);
        doors.extend(at(door, "route.cluster").as_str());
    }
    doors.sort_unstable();
    doors.dedup();
    for name in doors {
        let Some(value) = dump.cluster(name) else {
            let mut part = Part { place: place.clone(), value: &Value::Null, findings: &mut *findings };
            let should_be = "the cluster of Consort's listen.http";
            part.tell(Error, "route.cluster", name.to_owned(), should_be, "every alias is answered with 503");
            continue;
        };
        let mut part = Part { place: format!("cluster {name}"), value, findings: &mut *findings };
        cluster::check_door(&mut part, attached.expected);
    }
}

fn tell_missing(part: &mut Part<'_>, is: &str) {
    let should_be = "one before the others, to the cluster of Consort's listen.http";
    part.tell(Error, "", is.to_owned(), should_be, "aliases reach the upstream, with a ticket");
}

fn check_route(part: &mut Part<'_>, host: &Value) {
    let is_unbound = part.seconds("route.timeout", 15.0) == 0.0;
    part.want(
        is_unbound,
        Error,
        "route.timeout",
        "0s",
        "answers that take longer than this are cut off with 504",
    );
    let own = part.at("route.retry_policy");
    let policy = if own.is_null() { at(host, "retry_policy") } else { own };
    let causes = at(policy, "retry_on").as_str().unwrap_or_default();
    let mut others = causes.split(',').map(str::trim).filter(|cause| !cause.is_empty());
    if others.any(|cause| !matches!(cause, "connect-failure" | "refused-stream")) {
        let should_be = "connect-failure,refused-stream";
        let symptom =
            "a ticket is taken once: what is sent again is refused, and hides why the first try failed";
        part.tell(Error, "route.retry_policy.retry_on", causes.to_owned(), should_be, symptom);
    }
}
