//! Consort under an allocator that knows its peak. The rig starts it, and asks through its standard input: each line is
//! answered by one with the bytes that are in use and the most that were at once since the line before.

#![expect(clippy::print_stdout, reason = "the answers that the rig waits for")]

use std::io::BufRead;
use std::process::ExitCode;

use clap::Parser;
use peak_alloc::PeakAlloc;

#[global_allocator]
static HEAP: PeakAlloc = PeakAlloc;

#[tokio::main]
async fn main() -> ExitCode {
    std::thread::spawn(|| {
        for _ in std::io::stdin().lock().lines().map_while(Result::ok) {
            println!("{{\"heap\":{},\"peak\":{}}}", HEAP.current_usage(), HEAP.peak_usage());
            HEAP.reset_peak_usage();
        }
    });
    consort::cli::Cli::parse().run().await
}
