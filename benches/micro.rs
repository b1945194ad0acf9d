//! Nanoseconds of what every request pays. `cargo bench --bench micro`

mod cases;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};

fn micro(c: &mut Criterion) {
    for case in cases::all() {
        // The first runs find out who is dead, and fill what is kept.
        case.prepare();
        let mut group = c.benchmark_group("consort");
        if let Some(bytes) = case.bytes {
            group.throughput(Throughput::Bytes(bytes));
        }
        group.bench_function(&case.name, |b| b.iter(|| case.run()));
        group.finish();
    }
}

criterion_group!(benches, micro);
criterion_main!(benches);
