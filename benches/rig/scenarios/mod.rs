//! What is measured.

pub mod big;
pub mod ensemble;
pub mod many;
pub mod overload;
pub mod passing;
pub mod straggler;

use std::collections::HashMap;

use crate::Result;
use crate::caller::Run;
use crate::cores::cpu_seconds;
use crate::provider::Timing;
use crate::stats::{Window, quantile};

/// A request of about `size` bytes to this model, which its body names behind the messages: as the official Python client
/// writes it, and where it takes the longest to find.
pub fn request(model: &str, size: usize, is_stream: bool) -> String {
    let stream = if is_stream { r#","stream":true"# } else { "" };
    let head = r#"{"messages":[{"role":"user","content":""#;
    let tail = format!(r#""}}],"model":"{model}","temperature":0.7{stream}}}"#);
    let words = "Why is the sky blue, and the evening red? ";
    let content: String = words.chars().cycle().take(size.saturating_sub(head.len() + tail.len())).collect();
    format!("{head}{content}{tail}")
}

/// The CPU time that two processes take between two moments.
pub struct Meter {
    processes: [u32; 2],
    before: [f64; 2],
}

impl Meter {
    pub fn start(processor: u32, envoy: u32) -> Result<Self> {
        let processes = [processor, envoy];
        Ok(Self { processes, before: [cpu_seconds(processor)?, cpu_seconds(envoy)?] })
    }

    pub fn stop(&self, window: Window) -> Result<Window> {
        let [processor_cpu, envoy_cpu] = [
            cpu_seconds(self.processes[0])? - self.before[0],
            cpu_seconds(self.processes[1])? - self.before[1],
        ];
        Ok(Window { processor_cpu, envoy_cpu, ..window })
    }
}

/// What callers of the rig's own have seen in a window; latencies by this measure of a run, in seconds.
pub fn window(
    runs: &[Run],
    timings: &HashMap<String, Timing>,
    measure: impl Fn(&Run, &HashMap<String, Timing>) -> Option<f64>,
) -> Window {
    let begun = runs.iter().map(|run| run.begun).min().unwrap_or_default();
    let ended = runs.iter().map(|run| run.ended).max().unwrap_or_default();
    let mut measured: Vec<f64> = runs.iter().filter_map(|run| measure(run, timings)).collect();
    let unmeasured = runs.len() - measured.len();
    let unanswered = runs.iter().filter(|run| !run.is_answered).count();
    Window {
        requests: runs.len() as u64,
        failed: unanswered.max(unmeasured) as u64,
        seconds: ended.saturating_sub(begun) as f64 / 1e9,
        p50_ms: quantile(&mut measured, 0.5) * 1e3,
        p99_ms: quantile(&mut measured, 0.99) * 1e3,
        ..Window::default()
    }
}
