use std::time::{Duration, Instant};

/// Asks `probe` again, every 5 ms, until it has something; panics after `within`, naming `what` was awaited.
pub async fn eventually<T>(what: &str, within: Duration, mut probe: impl AsyncFnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(found) = probe().await {
            return found;
        }
        assert!(begin.elapsed() < within, "waited {within:?} in vain for {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
