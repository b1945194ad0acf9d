//! What passes through: the floor below Consort, and what Consort adds to it.

use std::net::SocketAddr;

use consort_testkit::envoy::Envoy;

use super::{Meter, request};
use crate::cores::{Layout, allowed, pin_self};
use crate::load::Ask;
use crate::report::{Bound, Cell, Findings, Table, Target};
use crate::stand::{Attachment, Consort, Part, config, envoy};
use crate::stats::{Rounds, Stat, Window};
use crate::{Result, Rig};

const CHAT: &str = "/v1/chat/completions";
/// A model that is no alias.
const PLAIN: &str = "gpt-4o";

const BARE: &str = "no filter";
const NOTHING: &str = "do-nothing";
const OURS: &str = "Consort";
const GATED: &str = "Consort, gate";

/// A way through Envoy.
struct Way {
    name: &'static str,
    envoy: Envoy,
    /// The process of its external processor.
    processor: u32,
}

struct Installation {
    layout: Layout,
    provider: Part,
    _consort: Consort,
    _nothing: Part,
    ways: Vec<Way>,
}

pub async fn find(rig: &Rig) -> Result<Findings> {
    let stand = Installation::start(rig).await?;
    pin_self(&stand.layout.generator);
    let mut found = Findings::default();
    stand.floor(rig, &mut found).await?;
    stand.cells(rig, &mut found).await?;
    stand.gate(rig, &mut found).await?;
    stand.elsewhere(rig, &mut found).await?;
    pin_self(&allowed());
    Ok(found)
}

impl Installation {
    async fn start(rig: &Rig) -> Result<Self> {
        rig.say("passing: starting");
        let layout = Layout::for_passing();
        let provider = Part::provider(&layout.provider).await?;
        let nothing = Part::processor(&layout.processor).await?;
        let config = config(provider.addr, &["0", "0", "0"], "0", "min_responses: 2", "");
        let consort = Consort::start(&rig.consort, &config, &layout.processor).await?;
        let mut ways = Vec::new();
        for (name, attachment, addr, processor) in [
            (BARE, Attachment::None, nothing.addr, nothing.id()?),
            (NOTHING, Attachment::Shipped, nothing.addr, nothing.id()?),
            (OURS, Attachment::Shipped, consort.addr, consort.id()?),
            (GATED, Attachment::Gated, consort.addr, consort.id()?),
        ] {
            let envoy = envoy(attachment, addr, provider.addr, &layout.envoy).await?;
            ways.push(Way { name, envoy, processor });
        }
        Ok(Self { layout, provider, _consort: consort, _nothing: nothing, ways })
    }

    /// Lets these ways take turns.
    async fn rounds(&self, rig: &Rig, names: &[&'static str], rounds: usize, ask: &Ask) -> Result<Rounds> {
        let mut seen = Rounds::new(names);
        let warmup = Ask { seconds: 1, ..ask.clone() };
        for round in 0..=rounds {
            for (at, name) in names.iter().enumerate() {
                let way = self.ways.iter().find(|way| way.name == *name).ok_or("a way by its name")?;
                let what = (ask.path, ask.body.len() >> 10, ask.connections);
                rig.say(format!("passing: {} {} KiB c={}, {name}, round {round}", what.0, what.1, what.2));
                if round == 0 {
                    rig.generator.run(way.envoy.addr(), &warmup).await?;
                } else {
                    seen.windows[at].push(way.window(rig, ask).await?);
                }
            }
        }
        Ok(seen)
    }

    /// The generator straight at the providers.
    async fn floor(&self, rig: &Rig, found: &mut Findings) -> Result<()> {
        let mut rows = Vec::new();
        for connections in rig.choose(vec![1, 16, 64], vec![16]) {
            rig.say(format!("floor: c={connections}"));
            let ask = ask(1 << 10, connections, 1);
            let window = rig.generator.run(self.provider.addr, &ask).await?;
            rows.push(vec![
                Cell::from(connections.to_string()),
                Stat::exactly(window.per_second()).into(),
                Stat::exactly(window.p50_ms).into(),
                Stat::exactly(window.p99_ms).into(),
            ]);
        }
        found.tables.push(Table {
            title: "Floor: the generator straight at the provider, 1 KiB",
            note: "Without Envoy. What follows goes through one worker of Envoy.",
            columns: vec!["c", "requests/s", "p50 ms", "p99 ms"],
            rows,
        });
        Ok(())
    }

    async fn cells(&self, rig: &Rig, found: &mut Findings) -> Result<()> {
        let (mut rows, mut through, mut cpu) = (Vec::new(), Vec::new(), Vec::new());
        let sizes = rig.choose(
            vec![("1 KiB", 1 << 10), ("64 KiB", 64 << 10), ("1 MiB", 1 << 20)],
            vec![("1 KiB", 1 << 10)],
        );
        for (size, bytes) in sizes {
            for connections in rig.choose(vec![1, 16, 64], vec![16]) {
                let ask = ask(bytes, connections, rig.choose(2, 1));
                let names = [BARE, NOTHING, OURS];
                let seen = self.rounds(rig, &names, rig.choose(3, 2), &ask).await?;
                let row = Self::row(&[size, &connections.to_string()], &seen, &names);
                rows.push(row);
                through.push(seen.ratio(OURS, NOTHING, Window::per_second).median);
                cpu.push(seen.ratio(OURS, NOTHING, Window::processor_ms).median);
                found.invalid_windows += seen.invalid();
            }
        }
        found.tables.push(Table {
            title: "Pass-through: chat path, no alias",
            note: "CPU is of the external processor, and of Envoy, in ms per request (= s per 1,000). The ratio is of Consort's CPU to the do-nothing processor's.",
            columns: COLUMNS.to_vec(),
            rows,
        });
        found.targets.push(Target::new(
            "pass-through throughput, Consort / do-nothing, median of all cells",
            Bound::AtLeast(0.95),
            Stat::of(through.iter().copied()),
            "",
        ));
        let worst = through.iter().copied().fold(f64::INFINITY, f64::min);
        found.targets.push(Target::new(
            "… in the worst cell",
            Bound::AtLeast(0.95),
            Stat::exactly(worst),
            "",
        ));
        found.targets.push(Target::new(
            "CPU per passed request, Consort / do-nothing, median of all cells",
            Bound::AtMost(1.15),
            Stat::of(cpu.iter().copied()),
            "",
        ));
        let worst = cpu.iter().copied().fold(0.0, f64::max);
        found.targets.push(Target::new("… in the worst cell", Bound::AtMost(1.15), Stat::exactly(worst), ""));
        Ok(())
    }

    fn row(labels: &[&str], seen: &Rounds, names: &[&'static str]) -> Vec<Cell> {
        let each = |measure: fn(&Window) -> f64| {
            let stats = names.iter().map(|name| Cell::from(seen.stat(name, measure)).shown());
            Cell::Text(stats.collect::<Vec<_>>().join(" / "))
        };
        let mut row: Vec<Cell> = labels.iter().map(|label| Cell::from(*label)).collect();
        row.push(each(Window::per_second));
        row.push(seen.ratio(OURS, NOTHING, Window::per_second).into());
        row.extend([each(|w| w.p50_ms), each(|w| w.p99_ms), each(Window::processor_ms)]);
        row.push(seen.ratio(OURS, NOTHING, Window::processor_ms).into());
        row.push(each(Window::envoy_ms));
        row
    }

    async fn gate(&self, rig: &Rig, found: &mut Findings) -> Result<()> {
        let names = [BARE, NOTHING, OURS, GATED];
        let before = self.streams(GATED).await;
        let seen = self.rounds(rig, &names, rig.choose(5, 2), &ask(2000, 16, rig.choose(2, 1))).await?;
        let opened = self.streams(GATED).await - before;
        found.invalid_windows += seen.invalid();
        let row = Self::row(&["2 KB", "16"], &seen, &names);
        found.tables.push(Table {
            title: "Pass-through with the gate",
            note: "Each cell: no filter / do-nothing / Consort / Consort behind the gate.",
            columns: COLUMNS.to_vec(),
            rows: vec![row],
        });
        let what = "pass-through with the gate / no filter, 2 KB, c = 16";
        let share = seen.ratio(GATED, BARE, Window::per_second);
        found.targets.push(Target::new(what, Bound::AtLeast(0.6), share, ""));
        let what = "… and ext_proc streams opened";
        found.targets.push(Target::new(what, Bound::AtMost(0.0), Stat::exactly(opened), ""));
        Ok(())
    }

    /// A path that cannot be an ensemble.
    async fn elsewhere(&self, rig: &Rig, found: &mut Findings) -> Result<()> {
        let before = self.streams(OURS).await;
        let names = [BARE, NOTHING, OURS];
        let ask = Ask { path: "/v1/embeddings", ..ask(1 << 10, 16, rig.choose(2, 1)) };
        let seen = self.rounds(rig, &names, rig.choose(3, 1), &ask).await?;
        let opened = self.streams(OURS).await - before;
        found.invalid_windows += seen.invalid();
        found.tables.push(Table {
            title: "A path that cannot be an ensemble: /v1/embeddings",
            note: "",
            columns: COLUMNS.to_vec(),
            rows: vec![Self::row(&["1 KiB", "16"], &seen, &names)],
        });
        let what = "another path: ext_proc streams opened";
        found.targets.push(Target::new(what, Bound::AtMost(0.0), Stat::exactly(opened), ""));
        Ok(())
    }

    /// How many streams Envoy has opened to its external processor.
    async fn streams(&self, name: &str) -> f64 {
        match self.ways.iter().find(|way| way.name == name) {
            Some(way) => way.envoy.stats("http.llm.ext_proc.consort.streams_started").await as f64,
            None => f64::NAN,
        }
    }
}

const COLUMNS: [&str; 9] = [
    "body",
    "c",
    "requests/s: no filter / do-nothing / Consort",
    "Consort / do-nothing",
    "p50 ms",
    "p99 ms",
    "processor's CPU ms",
    "ratio",
    "Envoy's CPU ms",
];

impl Way {
    async fn window(&self, rig: &Rig, ask: &Ask) -> Result<Window> {
        let meter = Meter::start(self.processor, self.envoy.id())?;
        meter.stop(rig.generator.run(self.addr(), ask).await?)
    }

    fn addr(&self) -> SocketAddr {
        self.envoy.addr()
    }
}

fn ask(bytes: usize, connections: usize, seconds: u64) -> Ask {
    Ask { path: CHAT, body: request(PLAIN, bytes, false), connections, seconds }
}
