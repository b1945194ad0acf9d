//! Allocations of what every request pays. `cargo bench --bench allocations`

#![expect(clippy::expect_used, clippy::print_stdout, reason = "a table is what this prints")]

mod cases;

use allocation_counter::measure;
use consort::chat::{Answer, Request};
use consort::telemetry::metrics;

fn main() {
    // Before anything counts, as in the program.
    metrics::install();
    println!("{:<44} {:>12} {:>14}", "", "allocations", "bytes at peak");
    for size in cases::SIZES {
        let body = cases::body(size);
        row(&format!("alias_detection/{size}"), || drop(cases::detect(&body)));
    }
    let ensemble = cases::ensemble();
    let request = Request::parse(cases::body(100 << 10)).expect("a request");
    row("five_member_bodies", || {
        cases::member_bodies(&request, &ensemble);
    });
    let stream = cases::provider_stream();
    row("sse_decode_100", || {
        cases::decode(&stream);
    });
    let piece = cases::piece();
    row("sse_encode_100", || {
        cases::encode(&mut Answer::new("team", false), &piece);
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    let (runner, trio) = cases::runner();
    let body = cases::body(1 << 10);
    row("run_three_and_a_judge", || {
        runtime.block_on(cases::run(&runner, &trio, &body));
    });
    for (name, pair) in cases::pairs() {
        runtime.block_on(cases::warm(&runner, &pair, &body));
        row(&format!("run_and_a_judge/{name}"), || {
            runtime.block_on(cases::run(&runner, &pair, &body));
        });
    }
}

fn row(name: &str, run: impl Fn()) {
    run();
    let counted = measure(run);
    println!("{name:<44} {:>12} {:>14}", counted.count_total, counted.bytes_max);
}
