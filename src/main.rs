//! The `consort` command.

use std::process::ExitCode;

use clap::Parser;

#[tokio::main]
async fn main() -> ExitCode {
    consort::cli::Cli::parse().run().await
}
