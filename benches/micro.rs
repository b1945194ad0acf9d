//! Nanoseconds of what every request pays. `cargo bench --bench micro`

#![expect(clippy::expect_used, reason = "a benchmark that cannot run has nothing to say")]

mod cases;

use std::hint::black_box;

use consort::chat::{Answer, Request};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

fn micro(c: &mut Criterion) {
    let mut detect = c.benchmark_group("alias_detection");
    for size in cases::SIZES {
        let body = cases::body(size);
        detect.throughput(Throughput::Bytes(body.len() as u64));
        detect.bench_with_input(BenchmarkId::from_parameter(size), &body, |b, body| {
            b.iter(|| cases::detect(black_box(body)));
        });
    }
    detect.finish();

    let ensemble = cases::ensemble();
    let request = Request::parse(cases::body(100 << 10)).expect("a request");
    c.bench_function("five_member_bodies", |b| {
        b.iter(|| cases::member_bodies(black_box(&request), &ensemble))
    });

    let stream = cases::provider_stream();
    let (mut answer, piece) = (Answer::new("team", false), cases::piece());
    c.bench_function("sse_decode_100", |b| b.iter(|| cases::decode(black_box(&stream))));
    c.bench_function("sse_encode_100", |b| b.iter(|| cases::encode(&mut answer, black_box(&piece))));

    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    let (runner, trio) = cases::runner();
    let body = cases::body(1 << 10);
    c.bench_function("run_three_and_a_judge", |b| {
        b.to_async(&runtime).iter(|| cases::run(&runner, &trio, black_box(&body)));
    });

    // What a dead member costs once it is left alone: the difference.
    let mut pairs = c.benchmark_group("run_and_a_judge");
    for (name, pair) in cases::pairs() {
        // The first runs find out.
        runtime.block_on(cases::warm(&runner, &pair, &body));
        pairs.bench_function(name, |b| {
            b.to_async(&runtime).iter(|| cases::run(&runner, &pair, black_box(&body)));
        });
    }
    pairs.finish();
}

criterion_group!(benches, micro);
criterion_main!(benches);
