//! What a condition may ask of a request.

use std::collections::HashMap;
use std::fmt;
use std::sync::OnceLock;

use cel::common::types::{CelBool, CelDouble, CelInt, CelMap, CelMapKey, CelNull, CelString};
use cel::common::value::{CowVal, Val};
use cel::context::VariableResolver;
use rand::Rng as _;

use crate::chat::{Conversation, Request};
use crate::ensemble::seed;

/// The variable that is drawn for each request.
pub(super) const RANDOM: &str = "random";
/// What every other variable begins with.
pub(super) const REQUEST: &str = "request";
/// The fields of [`REQUEST`].
pub(super) const FIELDS: [&str; 10] = [
    "model",
    HEADERS,
    "path",
    "messages",
    "prompt_chars",
    "last_user",
    "tools",
    "stream",
    "max_tokens",
    "user",
];
/// The field that is a map.
pub(super) const HEADERS: &str = "headers";

/// What a condition may ask of a request. Nothing is read before an expression asks for it.
pub struct Facts<'a> {
    /// The alias that was asked for.
    pub model: &'a str,
    /// The request itself.
    pub request: &'a Request,
    /// What `random` hangs on.
    pub request_id: &'a str,
    /// The path without its query.
    pub path: &'a str,
    /// The headers: names in lower case, several values of one name joined by `, `.
    pub headers: &'a (dyn Fn() -> HashMap<String, String> + Send + Sync),
}

/// Without values: they are a caller's.
impl fmt::Debug for Facts<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Facts").field("request_id", &self.request_id).finish_non_exhaustive()
    }
}

impl Facts<'_> {
    /// A number in [0, 1) that the request id decides. It tells nothing of the order in which a judge is
    /// shown candidates, which hangs on the id as well.
    fn random(&self) -> f64 {
        seed::rng(&format!("when {}", self.request_id)).random()
    }

    fn max_tokens(&self) -> Option<i64> {
        self.request.read("max_completion_tokens").or_else(|| self.request.read("max_tokens"))
    }
}

/// Reads facts when they are asked for; what costs time, once.
pub(super) struct Asked<'a> {
    facts: &'a Facts<'a>,
    headers: OnceLock<CelMap<'static>>,
    conversation: OnceLock<Conversation>,
}

impl<'a> Asked<'a> {
    pub(super) fn of(facts: &'a Facts<'a>) -> Self {
        Self { facts, headers: OnceLock::new(), conversation: OnceLock::new() }
    }

    fn conversation(&self) -> &Conversation {
        self.conversation.get_or_init(|| self.facts.request.conversation())
    }

    fn headers(&self) -> &CelMap<'static> {
        self.headers.get_or_init(|| {
            let text = |value: String| -> Box<dyn Val> { Box::new(CelString::from(value)) };
            let headers = (self.facts.headers)().into_iter();
            headers
                .map(|(name, value)| (CelMapKey::from(name), text(value)))
                .collect::<HashMap<_, _>>()
                .into()
        })
    }
}

impl VariableResolver for Asked<'_> {
    fn resolve<'b>(&'b self, variable: &str) -> Option<CowVal<'b, 'b>> {
        let text = |text: &'b str| CowVal::owned(CelString::from(text));
        let count = |count: usize| CowVal::owned(CelInt::from(i64::try_from(count).unwrap_or(i64::MAX)));
        if variable == RANDOM {
            return Some(CowVal::owned(CelDouble::from(self.facts.random())));
        }
        Some(match variable.strip_prefix(REQUEST)?.strip_prefix('.')? {
            "model" => text(self.facts.model),
            "headers" => CowVal::Borrowed(self.headers()),
            "path" => text(self.facts.path),
            "messages" => count(self.conversation().messages),
            "prompt_chars" => count(self.conversation().chars),
            "last_user" => text(&self.conversation().last_user),
            "tools" => count(self.facts.request.tools()),
            "stream" => CowVal::owned(CelBool::from(self.facts.request.stream)),
            "max_tokens" => match self.facts.max_tokens() {
                Some(tokens) => CowVal::owned(CelInt::from(tokens)),
                None => CowVal::owned(CelNull),
            },
            "user" => {
                CowVal::owned(CelString::from(self.facts.request.read::<String>("user").unwrap_or_default()))
            }
            _ => return None,
        })
    }
}
