//! Gemini's `generateContent` (version v1beta), spoken natively.

mod answer;
mod contents;
mod finish;
mod logprobs;
mod refusal;
mod request;
mod thinking;
mod usage;

#[cfg(test)]
mod tests;

use super::super::{Call, Failure};
use super::Spoken;
use super::asked::Asked;
use super::wire::{endpoint, segment};
use crate::chat::Body;

pub(super) use answer::Listener;
pub(super) use refusal::refusal;

/// The request in Gemini's words.
pub(super) fn speak(call: &Call) -> Result<Spoken, Failure> {
    let model = &call.model;
    let asked = Asked::read(&call.body.to_bytes())?;
    let (style, stream) = (asked.style, asked.stream);
    let request = request::translate(asked, model.rules.unsupported)?;
    let (method, query) =
        if stream { ("streamGenerateContent", Some("alt=sse")) } else { ("generateContent", None) };
    let path = format!("/models/{}:{method}", segment(&model.model_name));
    Ok(Spoken {
        uri: endpoint(&model.provider.base_url, &path, query)?,
        headers: Vec::new(),
        body: Body::from_chunks([request.to_string().into()]),
        listener: super::Listener::Gemini(Listener::new(style)),
    })
}
