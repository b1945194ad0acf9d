//! What fuzz targets need of the wire formats: answers are heard as over HTTP, without the network.

use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;

use super::told::Style;
use super::{Listener, Stage, anthropic, gemini, openai};
use crate::chat::{Event, sse};
use crate::upstream::{Failure, ProviderError};

/// A wire format.
#[derive(Clone, Copy, Debug)]
pub enum Wire {
    /// Chat completions.
    OpenAi,
    /// Anthropic's Messages.
    Anthropic,
    /// Gemini's `generateContent`.
    Gemini,
}

impl Wire {
    /// Who reads an answer; with `functions`, for a caller who offers functions instead of tools.
    fn listener(self, functions: bool) -> Listener {
        let style = if functions { Style::Functions } else { Style::Tools };
        match self {
            Self::OpenAi => Listener::OpenAi(openai::Listener::default()),
            Self::Anthropic => Listener::Anthropic(anthropic::Listener::new(style)),
            Self::Gemini => Listener::Gemini(gemini::Listener::new(style)),
        }
    }

    /// What a whole answer says.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn whole(self, functions: bool, body: &[u8]) -> Result<Vec<Event>, Failure> {
        self.listener(functions).whole(&Bytes::copy_from_slice(body))
    }

    /// What a streamed answer says, and why it broke off.
    pub fn streamed<'a>(
        self,
        functions: bool,
        pieces: impl IntoIterator<Item = &'a [u8]>,
        max_event_bytes: usize,
    ) -> (Vec<Event>, Option<Failure>) {
        let mut listener = self.listener(functions);
        let mut said = Vec::new();
        let broke = hear(&mut listener, &mut said, pieces, sse::Decoder::new(max_event_bytes)).err();
        if broke.is_some() {
            said.extend(listener.cost_so_far());
        }
        (said, broke)
    }

    /// The status, error and time to come back that a refusal says.
    pub fn refused(
        self,
        status: StatusCode,
        body: &[u8],
    ) -> (StatusCode, Option<ProviderError>, Option<Duration>) {
        let refusal = self.listener(false).refusal(status, body);
        (refusal.status, refusal.error, refusal.retry_after)
    }
}

fn hear<'a>(
    listener: &mut Listener,
    said: &mut Vec<Event>,
    pieces: impl IntoIterator<Item = &'a [u8]>,
    mut decoder: sse::Decoder,
) -> Result<(), Failure> {
    for piece in pieces {
        decoder.feed(piece).map_err(|e| Failure::Unreadable(e.into()))?;
        while let Some(data) = decoder.next_event() {
            if data.trim_ascii().is_empty() {
                continue;
            }
            match listener.hear(&data) {
                Ok(events) => said.extend(events),
                Err(_) if listener.stage() != Stage::Speaking => {}
                Err(failure) => return Err(failure),
            }
            if listener.stage() == Stage::Done {
                said.extend(listener.end()?);
                return Ok(());
            }
        }
    }
    if let Some(data) = decoder.finish().map_err(|e| Failure::Unreadable(e.into()))? {
        said.extend(listener.hear(&data).unwrap_or_default());
    }
    said.extend(listener.end()?);
    Ok(())
}
