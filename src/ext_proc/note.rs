//! What Envoy's access log is told of an answer, as `%DYNAMIC_METADATA(consort)%`.

use super::pb;
use crate::chat::Usage;
use crate::ensemble::Head;

/// Our namespace in Envoy's dynamic metadata; the filter must let us write it.
const NAMESPACE: &str = "consort";

/// What Envoy's access log is told of an answer.
pub(super) struct Note<'a> {
    pub(super) head: &'a Head,
    pub(super) usage: Option<&'a Usage>,
    /// The cause of an error in one word.
    pub(super) code: Option<&'static str>,
}

impl Note<'_> {
    /// It, as the metadata of all namespaces.
    pub(super) fn into_metadata(self) -> pb::Struct {
        let text = |text: &str| pb::Kind::StringValue(text.to_owned());
        let count = |field| {
            let tokens = u32::try_from(self.usage?.count(field)).unwrap_or(u32::MAX);
            Some(pb::Kind::NumberValue(tokens.into()))
        };
        let outcome = self.head.outcome.filter(|_| self.code.is_none());
        let fields = [
            ("alias", Some(text(&self.head.alias))),
            ("strategy", Some(text(self.head.strategy))),
            ("outcome", outcome.map(|outcome| text(outcome.label()))),
            ("code", self.code.map(text)),
            ("prompt_tokens", count("prompt_tokens")),
            ("completion_tokens", count("completion_tokens")),
            ("total_tokens", count("total_tokens")),
            ("cost_usd", self.head.bill.usd().map(pb::Kind::NumberValue)),
        ];
        let note = structure(fields.into_iter().filter_map(|(name, kind)| Some((name, kind?))));
        structure([(NAMESPACE, pb::Kind::StructValue(note))])
    }
}

fn structure<'a>(fields: impl IntoIterator<Item = (&'a str, pb::Kind)>) -> pb::Struct {
    let value = |kind| pb::Value { kind: Some(kind) };
    pb::Struct { fields: fields.into_iter().map(|(name, kind)| (name.to_owned(), value(kind))).collect() }
}
