//! OpenAI's chat completions, and everything compatible: the request goes out byte for byte.

use bytes::Bytes;
use serde::Deserialize;

use super::super::{Call, Endpoint, Failure, ProviderError};
use super::wire::{endpoint, segment};
use super::{Spoken, Stage};
use crate::chat::{Chunk, ChunkError, Completion, Event, sse};

/// Reads the chunks of a stream.
#[derive(Default)]
pub(super) struct Listener {
    finished: bool,
    done: bool,
}

/// The request as it is: its body goes out of the call.
pub(super) fn speak(call: &mut Call, at: &Endpoint) -> Result<Spoken, Failure> {
    let path = at.path.replace("{model}", &segment(&call.model.model_name));
    Ok(Spoken {
        uri: endpoint(&call.model.provider.base_url, &path, at.query.as_deref())?,
        headers: Vec::new(),
        body: std::mem::take(&mut call.body),
        listener: super::Listener::OpenAi(Listener::default()),
    })
}

/// What a completion says.
pub(super) fn whole(body: &[u8]) -> Result<Vec<Event>, Failure> {
    let mut completion = Completion::parse(body).map_err(|e| Failure::Unreadable(e.into()))?;
    let usage = completion.usage.take().map(Event::Usage);
    let finish = completion.finish_reason.clone().map(Event::Finish);
    Ok([Some(Event::Message(Box::new(completion))), finish, usage].into_iter().flatten().collect())
}

/// What a refusal says. Google's compatible endpoint puts it in a list.
pub(super) fn error(body: &[u8]) -> Option<ProviderError> {
    #[derive(Deserialize)]
    struct Envelope {
        error: ProviderError,
    }
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        // First: serde takes a list for a struct, field by field.
        Listed([Envelope; 1]),
        Plain(Envelope),
    }
    match serde_json::from_slice(body).ok()? {
        Written::Plain(envelope) | Written::Listed([envelope]) => Some(envelope.error),
    }
}

impl Listener {
    /// What one chunk says; the end without a reason is a `stop`.
    pub(super) fn hear(&mut self, data: &Bytes) -> Result<Vec<Event>, Failure> {
        if data.trim_ascii() == sse::DONE {
            self.done = true;
            let finish = (!self.finished).then(|| Event::Finish("stop".into()));
            return Ok(finish.into_iter().collect());
        }
        let chunk = Chunk::parse(data).map_err(|e| match e {
            ChunkError::Provider => Failure::ErrorEvent,
            e => Failure::Unreadable(e.into()),
        })?;
        let finish = chunk.finish_reason.filter(|_| !self.finished).map(Event::Finish);
        self.finished = self.finished || finish.is_some();
        let said = [chunk.delta.map(Event::Delta), finish, chunk.usage.map(Event::Usage)];
        Ok(said.into_iter().flatten().collect())
    }

    pub(super) fn end(&self) -> Result<Vec<Event>, Failure> {
        if self.stage() == Stage::Speaking { Err(Failure::Incomplete) } else { Ok(Vec::new()) }
    }

    pub(super) fn stage(&self) -> Stage {
        if self.done {
            Stage::Done
        } else if self.finished {
            Stage::Finished
        } else {
            Stage::Speaking
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_read_plain_or_listed() {
        let plain = r#"{"error":{"message":"too long","param":"messages","code":"context_length_exceeded"}}"#;
        for body in [plain.to_owned(), format!("[{plain}]")] {
            let error = error(body.as_bytes()).unwrap();
            assert_eq!((&*error.message, error.param.as_deref()), ("too long", Some("messages")), "{body}");
        }
        for body in ["", "[]", "<html>", r#"{"error":"x"}"#] {
            assert_eq!(error(body.as_bytes()), None, "{body}");
        }
    }
}
