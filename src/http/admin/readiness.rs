//! Whether the process is ready, and whether what is in force is what the file says.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

/// Whether the process is ready for requests. One that could not take a new file goes on with the one before: it is
/// ready, and says what is wrong.
#[derive(Debug)]
pub struct Readiness(Mutex<State>);

#[derive(Debug)]
struct State {
    draining: bool,
    generation: u64,
    loaded_at_ms: u64,
    needs_restart: Vec<&'static str>,
    refused: Option<Refused>,
}

/// A file that was not taken.
#[derive(Debug)]
struct Refused {
    at_ms: u64,
    problems: Vec<String>,
}

impl Readiness {
    /// Ready, by a first configuration.
    pub fn of_first() -> Self {
        Self(Mutex::new(State {
            draining: false,
            generation: 1,
            loaded_at_ms: now_ms(),
            needs_restart: Vec::new(),
            refused: None,
        }))
    }

    /// A further configuration is in force, except for these keys; its number.
    pub fn reloaded(&self, needs_restart: Vec<&'static str>) -> u64 {
        let mut state = self.state();
        let generation = state.generation + 1;
        *state = State {
            draining: state.draining,
            generation,
            loaded_at_ms: now_ms(),
            needs_restart,
            refused: None,
        };
        generation
    }

    /// A further configuration was not taken, for these problems.
    pub fn refused(&self, problems: Vec<String>) {
        self.state().refused = Some(Refused { at_ms: now_ms(), problems });
    }

    /// The process is about to end.
    pub fn draining(&self) {
        self.state().draining = true;
    }

    /// Whether requests may be sent here.
    pub fn is_ready(&self) -> bool {
        !self.state().draining
    }

    /// What `/readyz` tells; moments in unix ms.
    pub(super) fn to_json(&self, dependencies: &Value) -> Value {
        let state = self.state();
        let refused = state.refused.as_ref();
        json!({
            "ready": !state.draining,
            "draining": state.draining,
            "dependencies": dependencies,
            "config": {
                "state": if refused.is_some() { "stale" } else { "ok" },
                "generation": state.generation,
                "loaded_at_ms": state.loaded_at_ms,
                "needs_restart": state.needs_restart,
                "last_error": refused.map(|Refused { at_ms, problems }| json!({
                    "at_ms": at_ms,
                    "problems": problems,
                })),
            },
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Now, in unix ms.
pub(super) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
