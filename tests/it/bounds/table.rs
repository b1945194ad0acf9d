//! The table of bounds in `docs/limits.md`, and where each row is tried at its bound and past it.

use std::fs;

use consort_testkit::http;
use consort_testkit::provider::Reply;
use consort_testkit::workspace;
use serde_json::json;

use crate::stack::{ALIAS, CHAT, Options, question};

const AMPLIFIED: &str = "tests/it/bounds/amplified.rs";
const REQUESTS: &str = "tests/it/bounds/requests.rs";
const PROVIDERS: &str = "tests/it/bounds/providers.rs";
const SLOW: &str = "tests/it/bounds/slow.rs";
const TABLE: &str = "tests/it/bounds/table.rs";

/// The tests of a row: a file and a function in it.
type Tests = &'static [(&'static str, &'static str)];
/// The rows, in their order.
const ROWS: &[(&str, Tests)] = &[
    (
        "body of an alias's request",
        &[(REQUESTS, "a_body_may_be_as_large_as_the_bound_and_not_a_byte_larger")],
    ),
    (
        "bodies held at once, arriving and in runs",
        &[
            (REQUESTS, "bodies_that_still_arrive_are_bounded_together"),
            ("src/limits/room.rs", "what_is_given_back_is_free_under_every_bound"),
        ],
    ),
    (
        "bytes of a body before its `model` is known",
        &[("src/ext_proc/exchange/tests.rs", "a_body_of_the_bound_is_taken_and_one_past_it_is_refused")],
    ),
    (
        "body of a plain model's request",
        &[("tests/it/envoy.rs", "a_lower_bound_for_aliases_leaves_plain_requests_alone")],
    ),
    (
        "keys of a request",
        &[("src/chat/object/tests.rs", "as_many_members_as_the_bound_are_read_and_one_more_is_refused")],
    ),
    (
        "depth of a request's JSON",
        &[
            ("tests/it/smuggling.rs", "every_parser_behind_consort_reads_what_consort_has_read"),
            ("src/ensemble/when/tests.rs", "what_lies_deeper_than_the_bound_is_not_read"),
        ],
    ),
    (
        "JSON values of a request that is put in Anthropic's or Gemini's words, arguments of its calls included",
        &[
            (AMPLIFIED, "what_a_caller_sends_to_anthropic_takes_a_small_multiple_of_its_bytes"),
            (AMPLIFIED, "what_a_caller_sends_to_gemini_takes_a_small_multiple_of_its_bytes"),
            (
                "src/upstream/adapter/asked/tests.rs",
                "a_request_has_as_many_values_as_are_read_and_one_past_that_is_refused_by_name",
            ),
        ],
    ),
    (
        "a schema that answers are held to",
        &[
            (AMPLIFIED, "what_a_caller_sends_takes_a_small_multiple_of_its_bytes"),
            (
                "src/ensemble/format.rs",
                "a_schema_of_the_bound_is_evaluated_and_one_past_it_asks_for_an_object",
            ),
            ("src/ensemble/format.rs", "a_schema_that_would_take_hours_asks_for_an_object_only"),
            ("src/ensemble/format.rs", "patterns_are_as_many_and_as_large_as_the_bound_and_not_more"),
            (AMPLIFIED, "the_patterns_of_a_schema_take_no_more_than_they_may"),
        ],
    ),
    (
        "tools whose defaults are filled in to compare calls",
        &[
            (AMPLIFIED, "what_a_caller_sends_takes_a_small_multiple_of_its_bytes"),
            ("src/ensemble/answer/calls.rs", "defaults_are_filled_in_as_far_as_there_is_room_for_them"),
        ],
    ),
    ("name of a model", &[("src/chat/scan.rs", "a_name_longer_than_any_alias_is_none")]),
    ("choices asked for (`n`)", &[("src/chat/request.rs", "a_wrong_field_is_named")]),
    (
        "a request's head, at the HTTP door",
        &[
            (REQUESTS, "a_head_is_bounded_at_both_doors"),
            (REQUESTS, "a_head_over_http2_is_bounded"),
            (REQUESTS, "the_bounds_of_a_head_are_an_operators"),
            (REQUESTS, "a_head_that_envoy_takes_is_taken_where_it_is_handed_over"),
            (REQUESTS, "the_fields_of_a_head_are_counted_at_both_doors"),
        ],
    ),
    (
        "a request's head, behind Envoy",
        &[
            (REQUESTS, "a_head_is_bounded_at_both_doors"),
            (REQUESTS, "the_fields_of_a_head_are_counted_at_both_doors"),
        ],
    ),
    (
        "time for a head, a body, a piece of an answer, at the HTTP door",
        &[
            ("tests/it/door.rs", "slow_senders_are_hung_up_on"),
            ("src/http/door/patience.rs", "a_write_waits_for_its_reader_within_the_bound"),
            ("src/http/door/untaken.rs", "an_answer_that_nobody_asks_for_is_given_up"),
            (SLOW, "a_caller_that_never_opens_its_window_holds_no_run"),
        ],
    ),
    ("connections of the HTTP door", &[(REQUESTS, "connections_beyond_the_bound_wait")]),
    ("panel", &[("src/config/tests/refusal.rs", "a_panel_is_bounded")]),
    (
        "runs in flight",
        &[("src/limits/concurrent.rs", "no_more_runs_are_in_flight_than_the_cap_and_every_place_comes_back")],
    ),
    (
        "runs in flight of one alias",
        &[
            (
                "tests/it/bounds/runs.rs",
                "an_alias_has_as_many_runs_in_flight_as_its_own_cap_says_whoever_asks",
            ),
            (
                "src/limits/admission.rs",
                "an_alias_has_as_many_runs_as_its_own_cap_says_and_takes_no_place_beyond",
            ),
        ],
    ),
    (
        "how late work may be for a second before no run is admitted",
        &[("src/limits/lateness.rs", "a_crowd_that_passes_is_no_overload_and_a_load_that_lasts_is")],
    ),
    (
        "runs in flight of one alias, by caller",
        &[("src/limits/concurrent.rs", "no_more_calls_are_in_flight_than_a_limit_says_and_no_place_is_lost")],
    ),
    (
        "verdicts of one run asked for at once",
        &[(
            "src/ensemble/run/tests/strategies.rs",
            "sixteen_verdicts_are_asked_for_at_once_and_further_ones_wait",
        )],
    ),
    (
        "a candidate, as a judge is shown it",
        &[(
            "src/ensemble/prompt/tests.rs",
            "a_long_candidate_is_cut_on_a_character_boundary_and_the_cut_is_told",
        )],
    ),
    (
        "a judge's text that is read for its verdict",
        &[(
            "src/ensemble/strategy/form.rs",
            "a_verdict_is_read_as_far_from_the_end_as_the_bound_and_no_further",
        )],
    ),
    (
        "a provider's response",
        &[(PROVIDERS, "a_response_may_be_as_large_as_the_bound_and_not_a_byte_larger")],
    ),
    (
        "a server-sent event or line of a provider",
        &[
            (PROVIDERS, "a_server_sent_event_may_be_as_large_as_the_bound_and_not_a_byte_larger"),
            ("src/chat/sse.rs", "an_event_of_the_bound_passes_and_one_past_it_does_not"),
        ],
    ),
    (
        "the head of a provider's response",
        &[(PROVIDERS, "the_head_of_a_response_is_bounded_in_fields_and_in_bytes")],
    ),
    (
        "depth of a provider's JSON",
        &[(PROVIDERS, "deep_json_is_followed_without_a_stack_and_read_to_a_depth")],
    ),
    (
        "a provider's error",
        &[
            (PROVIDERS, "an_error_is_read_to_its_bound_and_no_further"),
            ("src/ensemble/error.rs", "a_providers_words_are_passed_on_up_to_their_bounds"),
        ],
    ),
    (
        "choices of a provider's response",
        &[
            (PROVIDERS, "the_first_choice_is_held_and_no_other"),
            ("src/chat/completion.rs", "the_first_choice_is_read_and_no_other"),
            ("src/upstream/adapter/gemini/tests/answers.rs", "the_first_candidate_is_read_and_no_other"),
            (AMPLIFIED, "what_a_provider_answers_takes_a_small_multiple_of_its_bytes"),
        ],
    ),
    (
        "tool calls of a message",
        &[
            (PROVIDERS, "a_message_has_as_many_tool_calls_as_are_held_and_one_past_that_is_none"),
            ("src/chat/completion.rs", "a_message_has_as_many_calls_as_are_held_and_one_past_that_is_none"),
            ("src/chat/collected.rs", "numbered_items_are_as_many_as_are_held_and_one_past_that_is_an_error"),
        ],
    ),
    (
        "parts or blocks of a message",
        &[
            (AMPLIFIED, "what_a_provider_answers_takes_a_small_multiple_of_its_bytes"),
            ("src/chat/completion.rs", "a_message_has_as_many_parts_as_are_held_and_one_past_that_is_none"),
            (
                "src/upstream/adapter/anthropic/tests.rs",
                "an_answer_has_as_many_blocks_as_are_held_and_one_past_that_is_none",
            ),
            (
                "src/upstream/adapter/gemini/tests/answers.rs",
                "an_answer_has_as_many_parts_as_are_held_and_one_past_that_is_none",
            ),
        ],
    ),
    (
        "JSON values of an answer that is held to a schema",
        &[
            (AMPLIFIED, "what_a_provider_answers_takes_a_small_multiple_of_its_bytes"),
            (
                "src/ensemble/format.rs",
                "an_answer_of_as_many_values_as_are_read_may_be_valid_and_one_past_that_is_not",
            ),
        ],
    ),
    (
        "JSON values of a message that is collected from a stream",
        &[
            (AMPLIFIED, "what_a_provider_streams_takes_a_small_multiple_of_its_bytes"),
            ("src/chat/collected.rs", "values_are_as_many_as_are_held_and_one_past_that_is_an_error"),
        ],
    ),
    (
        "log probabilities in Gemini's words",
        &[
            (AMPLIFIED, "what_a_provider_answers_takes_a_small_multiple_of_its_bytes"),
            (
                "src/upstream/adapter/gemini/logprobs.rs",
                "tokens_are_told_as_many_as_there_may_be_and_no_more",
            ),
        ],
    ),
    (
        "fields of a `usage`, and of its details",
        &[("src/chat/usage.rs", "a_report_is_read_as_far_as_its_bounds")],
    ),
    (
        "an answer to a caller",
        &[("src/ensemble/outcome.rs", "an_answer_within_the_bound_passes_and_one_past_it_does_not")],
    ),
    (
        "what a slow caller has not taken yet",
        &[
            (SLOW, "a_slow_reader_of_the_plain_door_slows_the_judges_socket"),
            (SLOW, "a_slow_reader_behind_envoy_slows_the_judges_socket_by_the_hand_off"),
            (
                SLOW,
                "for_a_slow_reader_of_a_streamed_immediate_response_envoy_holds_an_answer_and_consort_none",
            ),
        ],
    ),
    (
        "compared texts, JSON",
        &[
            ("src/ensemble/answer/text.rs", "a_text_is_compared_as_far_as_the_bound_and_no_further"),
            ("src/ensemble/answer/json.rs", "what_is_no_json_or_too_much_of_it_is_not_read"),
        ],
    ),
    (
        "numbers that are read",
        &[
            ("src/ensemble/answer/separators.rs", "thousands_and_decimals_are_told_apart_or_it_is_no_number"),
            ("src/ensemble/answer/numeral/tests.rs", "what_is_only_part_of_a_number_is_not_read"),
        ],
    ),
    (
        "a request's id, as it is kept",
        &[("src/ext_proc/headers.rs", "an_id_of_the_bound_is_kept_and_a_longer_one_is_none")],
    ),
    (
        "names of aliases and direct models in the file",
        &[("src/config/tests/refusal.rs", "a_name_that_no_header_can_hold_is_a_problem")],
    ),
    (
        "a provider's words in a trace (its model, its reason for ending)",
        &[("src/telemetry/trace/attempt.rs", "what_a_provider_calls_itself_and_its_end_is_cut_at_a_bound")],
    ),
    (
        "a line of the log",
        &[
            (TABLE, "nothing_that_is_sent_makes_a_long_line_or_a_label"),
            ("src/telemetry/account/tests.rs", "a_line_tells_of_the_first_calls_and_counts_the_others"),
        ],
    ),
    (
        "decisions in memory",
        &[
            ("src/telemetry/decisions/tests.rs", "the_newest_are_kept_in_the_order_in_which_they_ended"),
            ("src/telemetry/decisions/tests.rs", "the_newest_are_kept_as_far_as_their_bytes_find_room"),
        ],
    ),
    (
        "decisions that wait for the file, or for a watcher",
        &[
            ("src/telemetry/decisions/tests.rs", "a_slow_watcher_loses_the_oldest_and_is_told_how_many"),
            ("src/telemetry/decisions/tests.rs", "what_cannot_be_written_is_lost_without_anybody_waiting"),
        ],
    ),
    (
        "the journal",
        &[(
            "src/telemetry/decisions/journal/tests.rs",
            "a_journal_past_its_bound_is_written_anew_and_a_large_one_is_emptied_when_nothing_runs",
        )],
    ),
    (
        "texts in decisions",
        &[("src/telemetry/account/tests.rs", "a_text_is_kept_up_to_the_bound_and_cut_past_it")],
    ),
    (
        "callers that are told apart, in memory",
        &[("src/limits/tests.rs", "made_up_keys_do_not_fill_the_memory")],
    ),
    (
        "tickets and markers that are remembered",
        &[("src/signing/spent.rs", "what_cannot_be_kept_in_mind_is_not_taken")],
    ),
    ("values of metrics' labels", &[(TABLE, "nothing_that_is_sent_makes_a_long_line_or_a_label")]),
    (
        "the configuration's file, and each that it names",
        &[("src/config/text.rs", "a_file_may_be_as_large_as_the_bound_and_not_a_byte_larger")],
    ),
];

#[test]
fn every_row_is_tried_at_its_bound_and_past_it() {
    let page = fs::read_to_string(workspace().join("docs/limits.md")).expect("the page");
    let (_, section) = page.split_once("\n## Bounds\n").expect("its section");
    let cells = |line: &str| line.strip_prefix("| ").and_then(|row| Some(row.split_once(" |")?.0.to_owned()));
    let rows: Vec<String> = section.lines().filter_map(cells).skip(1).collect();
    let known: Vec<&str> = ROWS.iter().map(|(row, _)| *row).collect();
    assert_eq!(rows, known, "a row without tests, or tests of no row");
    for (row, tests) in ROWS {
        assert!(!tests.is_empty(), "{row}");
        for (file, test) in *tests {
            let text = fs::read_to_string(workspace().join(file)).unwrap_or_else(|e| panic!("{file}: {e}"));
            assert!(text.contains(&format!("fn {test}(")), "{row}: {file} has no test {test}");
        }
    }
}

/// Longer than any line of a run of three members has to be.
const LONGEST_LINE: usize = 8192;

#[tokio::test]
async fn nothing_that_is_sent_makes_a_long_line_or_a_label() {
    const MARK: &str = "zzz-of-somebody";
    let stack = Options::new().config("log: {level: trace}").start().await;
    stack.provider.forgive();
    let long = |bytes: usize| format!("{MARK}{}", "x".repeat(bytes));
    for status in [400, 401, 429, 500] {
        let error = Reply::error(status, &long(60_000), &long(9_000), Some(&long(9_000)));
        for model in ["model-a", "model-b", "model-c", "model-judge"] {
            stack.provider.model(model).reply(error.clone());
        }
        for door in [stack.envoy.addr(), stack.service.http()] {
            let fields =
                json!({"user": long(50_000), "metadata": {long(100): long(100)}, "temperature": long(9_000)});
            let call = http::post(door, CHAT).json(&question(fields));
            let call = call.header("x-request-id", &"r".repeat(128)).header("user-agent", &long(9_000));
            let call =
                call.header("x-ensemble-models", &long(9_000)).header("x-ensemble-strategy", &long(9_000));
            call.header("traceparent", &long(9_000)).send().await;
        }
    }
    let reply = Reply::text("one").finish(&long(60_000)).header("x-request-id", &long(9_000));
    stack.provider.model("model-a").reply(reply);
    for model in [ALIAS.to_owned(), long(4_000)] {
        let body = question(json!({"model": model, "x": long(9_000)}));
        http::post(stack.service.http(), CHAT).json(&body).send().await;
    }
    let metrics = http::get(stack.service.admin(), "/metrics").header("host", "localhost").send().await;
    assert!(metrics.status == 200 && !metrics.text().contains(MARK), "a label is somebody's words");
    let runs = stack.runs_logged(9).await;
    assert!(runs.iter().all(|run| run.to_string().len() < LONGEST_LINE));
    for line in stack.service.logs() {
        let line = line.to_string();
        assert!(line.len() < LONGEST_LINE, "{} bytes: {:.300}…", line.len(), line);
    }
}
