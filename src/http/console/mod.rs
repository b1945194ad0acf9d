//! The console: one page that shows decisions and models and asks aliases, from the admin's own origin.
//!
//! The files are served as they stand in the source. There is nothing to build and nothing to fetch from elsewhere.

use axum::Router;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_NONE_MATCH, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use sha2::{Digest, Sha256};

/// Nothing but the page's own files and the admin's own routes; no markup made of strings by scripts, no forms,
/// no frames around it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                      img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
                      require-trusted-types-for 'script'; trusted-types 'none'";
const OPENER_POLICY: HeaderName = HeaderName::from_static("cross-origin-opener-policy");
const RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

/// One of the page's files.
struct Asset {
    path: &'static str,
    content_type: &'static str,
    text: &'static str,
}

macro_rules! asset {
    ($content_type:ident, $file:literal) => {
        asset!($content_type, $file, concat!("/console/", $file))
    };
    ($content_type:ident, $file:literal, $path:expr) => {
        Asset { path: $path, content_type: $content_type, text: include_str!($file) }
    };
}

const ASSETS: [Asset; 16] = [
    asset!(HTML, "index.html", "/"),
    asset!(CSS, "console.css"),
    asset!(SVG, "icon.svg"),
    asset!(SCRIPT, "calls.js"),
    asset!(SCRIPT, "candidates.js"),
    asset!(SCRIPT, "compare.js"),
    asset!(SCRIPT, "decision.js"),
    asset!(SCRIPT, "decisions.js"),
    asset!(SCRIPT, "dom.js"),
    asset!(SCRIPT, "feed.js"),
    asset!(SCRIPT, "format.js"),
    asset!(SCRIPT, "main.js"),
    asset!(SCRIPT, "models.js"),
    asset!(SCRIPT, "playground.js"),
    asset!(SCRIPT, "timeline.js"),
    asset!(SCRIPT, "words.js"),
];

/// The page at `/` and its files below `/console/`.
pub fn routes() -> Router {
    ASSETS.iter().fold(Router::new(), |router, asset| {
        let tag = tag(asset.text);
        router.route(asset.path, get(move |headers: HeaderMap| async move { answer(asset, &tag, &headers) }))
    })
}

fn answer(asset: &Asset, tag: &HeaderValue, asked: &HeaderMap) -> Response {
    // Asked for anew each time, as another version of Consort may stand here by then; sent only when it has changed.
    let kept = [(CACHE_CONTROL, HeaderValue::from_static("no-cache")), (ETAG, tag.clone())];
    let is_known = asked.get_all(IF_NONE_MATCH).iter().any(|known| names(known, tag));
    if is_known {
        return (StatusCode::NOT_MODIFIED, kept).into_response();
    }
    let guarded = [
        (CONTENT_TYPE, asset.content_type),
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "same-origin"),
        (OPENER_POLICY, "same-origin"),
        (RESOURCE_POLICY, "same-origin"),
    ];
    (kept, guarded, asset.text).into_response()
}

/// Whether an `if-none-match` holds this tag; weak ones are compared as strong ones (RFC 9110, 13.1.2).
fn names(known: &HeaderValue, tag: &HeaderValue) -> bool {
    let (Ok(known), Ok(tag)) = (known.to_str(), tag.to_str()) else {
        return false;
    };
    known.split(',').map(|one| one.trim().trim_start_matches("W/")).any(|one| one == tag || one == "*")
}

/// A strong entity tag: the digest of the text.
fn tag(text: &str) -> HeaderValue {
    let hex: String = Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect();
    // Hexadecimal digits are what a header may hold.
    HeaderValue::try_from(format!("\"{hex}\"")).unwrap_or(HeaderValue::from_static("\"\""))
}

#[cfg(test)]
mod tests;
