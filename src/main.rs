//! The `consort` command.

use std::process::ExitCode;

use clap::Parser;
use mimalloc::MiMalloc;

/// By measurement: docs/performance.md.
#[global_allocator]
static HEAP: MiMalloc = MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    consort::cli::Cli::parse().run().await
}
