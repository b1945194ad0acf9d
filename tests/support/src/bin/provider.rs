//! The scripted panel as a program: `provider [ADDR]` serves until it is told to end, `provider health [ADDR]` says
//! whether that one listens, for containers without a shell.

use std::error::Error;
use std::net::SocketAddr;
use std::time::Duration;

use consort_testkit::panel;
use tokio::net::TcpStream;
use tokio::signal::ctrl_c;
use tokio::signal::unix::{SignalKind, signal};

/// Where it listens unless told otherwise: the upstream of the shipped Envoy files.
const ADDRESS: &str = "127.0.0.1:9000";
const PATIENCE: Duration = Duration::from_secs(2);

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let is_health = arguments.first().is_some_and(|first| first == "health");
    if is_health {
        arguments.remove(0);
    }
    let address: SocketAddr = match &*arguments {
        [] => ADDRESS.parse()?,
        [address] => {
            address.parse().map_err(|error| format!("{address:?}: {error}; an IP:PORT is wanted"))?
        }
        _ => return Err("usage: provider [health] [IP:PORT]".into()),
    };
    if is_health {
        tokio::time::timeout(PATIENCE, TcpStream::connect(address)).await??;
        return Ok(());
    }
    // The first process of a container ends by no signal that it does not listen for.
    let mut terminate = signal(SignalKind::terminate())?;
    let _panel = panel::start(address).await;
    tokio::select! {
        interrupted = ctrl_c() => interrupted?,
        _ = terminate.recv() => {}
    }
    Ok(())
}
