//! Models and callers for tests, without a network.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;

use super::{
    Adapter, Call, Caller, Client, ClientSettings, Credential, DirectModel, Endpoint, Events, Failure,
    Provider, ProviderError, ResponseFormat, Rules,
};
use crate::chat::{Completion, Delta, Event, Usage};

/// A direct model whose provider's name for it is `provider/{name}`.
pub(crate) fn model(name: &str) -> Arc<DirectModel> {
    let client = Client::new(ClientSettings::default()).unwrap();
    Arc::new(DirectModel {
        name: name.into(),
        provider: Arc::new(Provider {
            name: "somewhere".into(),
            adapter: Adapter::OpenAi(Endpoint::default()),
            convention: "openai",
            base_url: "http://models.internal/v1".parse().unwrap(),
            credential: Credential::None,
            client,
        }),
        model_name: format!("provider/{name}"),
        timeout: None,
        retries: 0,
        cooldown: None,
        rate_limit: None,
        background_check: None,
        response_format: ResponseFormat::None,
        rules: Rules::default(),
        max_tokens_default: 4096,
        cost: None,
        marker: None,
    })
}

/// What a scripted model does, step by step.
pub(crate) type Script = Vec<Step>;

/// Waits so long, and says this.
pub(crate) type Step = (Duration, Result<Event, fn() -> Failure>);

/// A caller with a script for each model, by alias. Its time is tokio's, so tests may pause it.
#[derive(Default)]
pub(crate) struct Scripted {
    scripts: HashMap<String, Script>,
    /// The calls made: model and body.
    pub(crate) calls: Mutex<Vec<(String, serde_json::Value)>>,
    /// How many calls are neither answered to their end nor dropped.
    pub(crate) open: Arc<AtomicUsize>,
}

impl Scripted {
    pub(crate) fn model(mut self, name: &str, script: Script) -> Self {
        self.scripts.insert(name.to_owned(), script);
        self
    }
}

impl Caller for Scripted {
    fn call(&self, call: Call) -> BoxFuture<'static, Result<Events, Failure>> {
        let name = call.model.name.to_string();
        let body = serde_json::from_slice(&call.body.to_bytes()).unwrap();
        let script = self.scripts.get(&name).unwrap_or_else(|| panic!("no script for {name}")).clone();
        self.calls.lock().unwrap().push((name, body));
        self.open.fetch_add(1, Ordering::Relaxed);
        let open = Open(Arc::clone(&self.open));
        Box::pin(async move {
            let mut script = script.into_iter();
            let Some((wait, first)) = script.next() else {
                drop(open);
                return std::future::pending().await;
            };
            tokio::time::sleep(wait).await;
            let first = first.map_err(|failure| failure())?;
            let events = async_stream::stream! {
                let _open = open;
                yield Ok(first);
                for (wait, event) in script {
                    tokio::time::sleep(wait).await;
                    yield event.map_err(|failure| failure());
                }
            };
            Ok(events.boxed())
        })
    }
}

struct Open(Arc<AtomicUsize>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// After `ms`, a whole message, its end, and a usage of 10 and 5.
pub(crate) fn says(ms: u64, text: &str) -> Script {
    let json = serde_json::json!({
        "choices": [{"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
    });
    let message = Completion::parse(json.to_string().as_bytes()).unwrap();
    let now = Duration::ZERO;
    vec![
        (Duration::from_millis(ms), Ok(Event::Message(Box::new(message)))),
        (now, Ok(Event::Finish("stop".into()))),
        (now, Ok(Event::Usage(tokens(10, 5)))),
    ]
}

/// After `ms`, a failure.
pub(crate) fn fails(ms: u64, failure: fn() -> Failure) -> Script {
    vec![(Duration::from_millis(ms), Err(failure))]
}

/// A piece each `ms`, then the end and a usage of 10 and 5.
pub(crate) fn streams(ms: u64, pieces: &[&str]) -> Script {
    let mut script: Script = pieces.iter().map(|p| (Duration::from_millis(ms), Ok(piece(p)))).collect();
    script.push((Duration::ZERO, Ok(Event::Finish("stop".into()))));
    script.push((Duration::ZERO, Ok(Event::Usage(tokens(10, 5)))));
    script
}

/// A piece of content.
pub(crate) fn piece(text: &str) -> Event {
    let json = serde_json::json!({"content": text}).to_string().into();
    Event::Delta(Delta { json, logprobs: None, speaks: true })
}

/// A reported usage.
pub(crate) fn tokens(prompt: u64, completion: u64) -> Usage {
    let usage = serde_json::json!({
        "prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion,
    });
    serde_json::from_value(usage).unwrap()
}

/// A failure with this status.
pub(crate) fn status(code: u16, message: &str, retry_after: Option<Duration>) -> Failure {
    let error = ProviderError { message: message.to_owned(), ..ProviderError::default() };
    Failure::Status { status: http::StatusCode::from_u16(code).unwrap(), error: Some(error), retry_after }
}
