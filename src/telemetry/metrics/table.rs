//! Every metric that there is, with what it means.

use ::metrics::Unit;

/// A metric: its name on `/metrics`, what its labels are, what it says.
#[derive(Debug)]
pub struct Metric {
    /// As scrapers see it.
    pub name: &'static str,
    /// How it is counted.
    pub kind: Kind,
    /// The unit of its values.
    pub unit: Unit,
    /// The names of its labels. A label whose value is not known is left out.
    pub labels: &'static [&'static str],
    /// What it says, in one sentence.
    pub help: &'static str,
}

/// How a metric is counted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// Whole things, ever more of them.
    Counter,
    /// An amount that only grows, and not by whole numbers.
    Sum,
    /// What is so now.
    Gauge,
    /// How values are distributed: the upper bounds of the buckets.
    Histogram(&'static [f64]),
}

impl Kind {
    /// Prometheus' word for it.
    pub fn label(self) -> &'static str {
        match self {
            Self::Counter | Self::Sum => "counter",
            Self::Gauge => "gauge",
            Self::Histogram(_) => "histogram",
        }
    }
}

/// What OpenTelemetry's conventions for generative AI advise for durations, in seconds.
const DURATIONS: &[f64] =
    &[0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92];
/// What they advise for tokens.
const TOKENS: &[f64] = &[
    1.0,
    4.0,
    16.0,
    64.0,
    256.0,
    1024.0,
    4096.0,
    16_384.0,
    65_536.0,
    262_144.0,
    1_048_576.0,
    4_194_304.0,
    16_777_216.0,
    67_108_864.0,
];
/// What they advise for the time to a first token, in seconds.
const FIRST_TOKENS: &[f64] =
    &[0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];
/// For our own work, in seconds: below a millisecond, as long as nothing is wrong.
const OVERHEADS: &[f64] =
    &[0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0];
const SHARES: &[f64] = &[0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0];

const fn counter(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Metric {
    Metric { name, kind: Kind::Counter, unit: Unit::Count, labels, help }
}

const fn gauge(
    name: &'static str,
    unit: Unit,
    labels: &'static [&'static str],
    help: &'static str,
) -> Metric {
    Metric { name, kind: Kind::Gauge, unit, labels, help }
}

const fn seconds(
    name: &'static str,
    buckets: &'static [f64],
    labels: &'static [&'static str],
    help: &'static str,
) -> Metric {
    Metric { name, kind: Kind::Histogram(buckets), unit: Unit::Seconds, labels, help }
}

/// Runs that have ended.
pub const REQUESTS: Metric = counter(
    "consort_requests_total",
    &["alias", "strategy", "outcome"],
    "Requests to aliases, and to direct models by the HTTP door (strategy direct), that have ended, by how the answer came about.",
);
/// How long they took.
pub const REQUEST_DURATION: Metric = seconds(
    "consort_request_duration_seconds",
    DURATIONS,
    &["alias", "outcome"],
    "How long requests to aliases took, from admission to the last byte.",
);
/// Those whose caller got an error.
pub const ERRORS: Metric = counter(
    "consort_errors_total",
    &["alias", "code"],
    "Requests to aliases that were answered with an error, by its cause.",
);
/// Those for which something stood in.
pub const DEGRADED: Metric = counter(
    "consort_degraded_total",
    &["alias", "cause"],
    "Requests for which something stood in for what the ensemble was made for, by why.",
);
/// Runs that are being answered.
pub const INFLIGHT: Metric =
    gauge("consort_inflight", Unit::Count, &[], "Requests to aliases that are being answered now.");
/// What the runtime has to do.
pub const TASKS: Metric = gauge(
    "consort_tasks",
    Unit::Count,
    &[],
    "Tasks of the runtime that are alive: connections, background work, and what serves a stream. At rest always the same.",
);
/// Our own work in a run.
pub const OVERHEAD: Metric = seconds(
    "consort_overhead_seconds",
    OVERHEADS,
    &[],
    "Per request to an alias, the time in which no call to a model was under way: Consort's own work.",
);
/// Requests that are none of ours.
pub const PASSTHROUGH: Metric = counter(
    "consort_passthrough_total",
    &[],
    "Requests that went on to their upstream: those that name no alias, and those for an `otherwise` model.",
);
/// Requests of aliases that went on to a direct model.
pub const OTHERWISE: Metric = counter(
    "consort_otherwise_total",
    &["alias"],
    "Requests to aliases that went on to the ensemble's `otherwise` model.",
);
/// Requests that were handed to the plain door.
pub const HANDOFFS: Metric = counter(
    "consort_handoffs_total",
    &["alias"],
    "Requests to aliases that Envoy's door handed to the HTTP door by a ticket.",
);
/// Tickets that opened nothing.
pub const TICKETS_REFUSED: Metric = counter(
    "consort_tickets_refused_total",
    &["reason"],
    "Tickets that the HTTP door refused: forged, expired, good for longer than they are made (`ahead`), for another body or alias, replayed, or one more than can be remembered (`full`).",
);
/// Calls of our own that came back.
pub const LOOPS_REFUSED: Metric = counter(
    "consort_loops_refused_total",
    &["reason"],
    "Calls of Consort's own that came back and were refused: their marker was expired, replayed, one more than can be remembered (`full`) or for another body, or they came to the HTTP door.",
);
/// Markers of nobody's.
pub const MARKERS_IGNORED: Metric = counter(
    "consort_markers_ignored_total",
    &[],
    "Markers that nobody with the same `signing` has made: a caller's invention, or a replica's that signs otherwise. The request is taken for a caller's.",
);
/// Wishes that were not granted.
pub const IGNORED_HEADERS: Metric = counter(
    "consort_ignored_headers_total",
    &["alias", "header"],
    "Request headers that the ensemble's `overrides` do not allow and that were ignored.",
);
/// Conditions that told nothing.
pub const CONDITION_FAILURES: Metric = counter(
    "consort_condition_failures_total",
    &["alias"],
    "Requests for which `when` could not be evaluated, so that the ensemble took them.",
);

/// Calls of panel members.
pub const MEMBER_CALLS: Metric = counter(
    "consort_member_calls_total",
    &["model", "result"],
    "Calls of panel members that have ended, by result: usable, cancelled, or why there was no candidate.",
);
/// The wait for enough candidates.
pub const QUORUM_WAIT: Metric = seconds(
    "consort_quorum_wait_seconds",
    DURATIONS,
    &["alias"],
    "From the beginning of a request until its quorum was met.",
);
/// Members that were no longer waited for.
pub const STRAGGLERS: Metric = counter(
    "consort_stragglers_cancelled_total",
    &["alias"],
    "Calls of panel members that were cancelled since the quorum was met without them.",
);
/// Calls that could not matter.
pub const CALLS_SAVED: Metric = counter(
    "consort_calls_saved_total",
    &["alias"],
    "Panel calls that were never made, or cancelled, since they could not matter any more.",
);
/// How far members agreed.
pub const AGREEMENT: Metric = Metric {
    name: "consort_agreement_ratio",
    kind: Kind::Histogram(SHARES),
    unit: Unit::Percent,
    labels: &["alias"],
    help: "The share that the leading class of equal answers had, 0 to 1, where answers are compared.",
};
/// Judges that gave nothing.
pub const JUDGE_FAILURES: Metric = counter(
    "consort_judge_failures_total",
    &["reason"],
    "Calls of judges that gave no answer or no readable verdict, by why.",
);

/// Attempts after the first.
pub const RETRIES: Metric =
    counter("consort_retries_total", &["model"], "Attempts that followed a failed one of the same call.");
/// What was refused for being too much.
pub const LIMITED: Metric = counter(
    "consort_limited_total",
    &["scope", "name"],
    "Requests to aliases and calls of models that Consort's own limits or budgets refused; `scope` says which.",
);
/// The wait for room.
pub const QUEUE: Metric = seconds(
    "consort_queue_wait_seconds",
    DURATIONS,
    &["model"],
    "How long calls waited for room within the limits of their model, where they waited.",
);
/// Models that are left alone.
pub const COOLING: Metric = gauge(
    "consort_model_cooling",
    Unit::Count,
    &["model"],
    "1 from when a model begins to cool down until it answers again, else 0.",
);
/// What calls cost.
pub const COST: Metric = Metric {
    name: "consort_cost_usd_total",
    kind: Kind::Sum,
    unit: Unit::Count,
    labels: &["model"],
    help: "What calls have cost in US dollars, by the `cost` of their model.",
};
/// Guessed usage.
pub const ESTIMATED: Metric = counter(
    "consort_estimated_usage_total",
    &["model"],
    "Calls whose tokens are partly estimated because the provider reported none.",
);
/// What calls used.
pub const TOKEN_USAGE: Metric = Metric {
    name: "gen_ai_client_token_usage",
    kind: Kind::Histogram(TOKENS),
    unit: Unit::Count,
    labels: &["gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model", "gen_ai_token_type"],
    help: "Tokens per call of a direct model, read (input) and written (output), over all billed attempts.",
};
/// How long calls took.
pub const OPERATION_DURATION: Metric = seconds(
    "gen_ai_client_operation_duration_seconds",
    DURATIONS,
    &["gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model", "error_type"],
    "How long calls of direct models took, retries included; error_type says why one gave no usable answer.",
);
/// How long they took to their first words.
pub const FIRST_TOKEN: Metric = seconds(
    "gen_ai_server_time_to_first_token_seconds",
    FIRST_TOKENS,
    &["gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model"],
    "From the beginning of a call of a direct model until its answer began to arrive.",
);

/// The configuration in force.
pub const CONFIG_GENERATION: Metric = gauge(
    "consort_config_generation",
    Unit::Count,
    &[],
    "How many configurations have been in force since the start, the present one included.",
);
/// How the last change of the configuration went.
pub const CONFIG_RELOADED: Metric = gauge(
    "consort_config_last_reload_successful",
    Unit::Count,
    &[],
    "1 when the configuration's last change is in force, 0 when it was refused and the one before still is.",
);
/// When the configuration came into force.
pub const CONFIG_RELOADED_AT: Metric = gauge(
    "consort_config_last_reload_success_timestamp_seconds",
    Unit::Seconds,
    &[],
    "When the configuration in force was loaded, as Unix time.",
);
/// Decisions that a sink did not get.
pub const DECISIONS_LOST: Metric = counter(
    "consort_decisions_lost_total",
    &[],
    "Decisions that were not written because the file or standard output could not keep up or take them.",
);
/// Which Consort this is.
pub const BUILD_INFO: Metric =
    gauge("consort_build_info", Unit::Count, &["version"], "Always 1; its label is the running version.");

/// Every metric, in the order in which the documentation has them.
pub const ALL: [&Metric; 35] = [
    &REQUESTS,
    &REQUEST_DURATION,
    &ERRORS,
    &DEGRADED,
    &INFLIGHT,
    &TASKS,
    &OVERHEAD,
    &PASSTHROUGH,
    &OTHERWISE,
    &HANDOFFS,
    &TICKETS_REFUSED,
    &LOOPS_REFUSED,
    &MARKERS_IGNORED,
    &IGNORED_HEADERS,
    &CONDITION_FAILURES,
    &MEMBER_CALLS,
    &QUORUM_WAIT,
    &STRAGGLERS,
    &CALLS_SAVED,
    &AGREEMENT,
    &JUDGE_FAILURES,
    &RETRIES,
    &LIMITED,
    &QUEUE,
    &COOLING,
    &COST,
    &ESTIMATED,
    &TOKEN_USAGE,
    &OPERATION_DURATION,
    &FIRST_TOKEN,
    &CONFIG_GENERATION,
    &CONFIG_RELOADED,
    &CONFIG_RELOADED_AT,
    &DECISIONS_LOST,
    &BUILD_INFO,
];
