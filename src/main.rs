//! The `consort` command.

use std::process::ExitCode;

use clap::Parser;
use tikv_jemallocator::Jemalloc;

/// By measurement: docs/performance.md.
#[global_allocator]
static HEAP: Jemalloc = Jemalloc;

#[tokio::main]
async fn main() -> ExitCode {
    consort::cli::Cli::parse().run().await
}
