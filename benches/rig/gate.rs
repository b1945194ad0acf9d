//! The gate, put into the shipped attachment: Envoy reads `model` of small bodies by itself, and opens no stream to
//! Consort where it names no alias.

use consort_testkit::envoy::replace_once;

use crate::stand::ALIAS;

/// Adds the gate.
pub fn add(yaml: String) -> String {
    let (before, rest) = yaml.split_once(FILTER).unwrap_or((&yaml, ""));
    let (filter, after) = rest.split_once(ROUTER).unwrap_or((rest, ""));
    let (_, extension) = filter.split_once("typed_config:\n").unwrap_or(("", filter));
    let extension: String = extension.lines().map(|line| format!("    {line}\n")).collect();
    let matcher = MATCHER.replace("ALIAS", ALIAS);
    let yaml = format!("{before}{READER}{WRAPPED}{extension}{matcher}{ROUTER}{after}");
    replace_once(yaml, PER_ROUTE, &format!("{PER_ROUTE}{READER_ON}"))
}

const FILTER: &str = "          - name: envoy.filters.http.ext_proc\n";
const ROUTER: &str = "          - name: envoy.filters.http.router\n";
const PER_ROUTE: &str = "                typed_per_filter_config:\n";

const READER_ON: &str = "                  envoy.filters.http.json_to_metadata:
                    \"@type\": type.googleapis.com/envoy.config.route.v3.FilterConfig
                    config: {}
";

/// Only bodies whose length has at most four digits are read here.
const READER: &str = r#"          - name: envoy.filters.http.json_to_metadata
            disabled: true
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.common.matching.v3.ExtensionWithMatcher
              extension_config:
                name: envoy.filters.http.json_to_metadata
                typed_config:
                  "@type": type.googleapis.com/envoy.extensions.filters.http.json_to_metadata.v3.JsonToMetadata
                  request_rules:
                    rules:
                    - selectors: [{key: model}]
                      on_present: {metadata_namespace: llm, key: model}
              xds_matcher:
                matcher_list:
                  matchers:
                  - predicate:
                      not_matcher:
                        single_predicate:
                          input:
                            name: content-length
                            typed_config: {"@type": type.googleapis.com/envoy.type.matcher.v3.HttpRequestHeaderMatchInput, header_name: content-length}
                          value_match: {safe_regex: {google_re2: {}, regex: "[0-9]{1,4}"}}
                    on_match:
                      action:
                        name: skip
                        typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.common.matcher.action.v3.SkipFilter}
"#;

const WRAPPED: &str = r#"          - name: envoy.filters.http.ext_proc
            disabled: true
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.common.matching.v3.ExtensionWithMatcher
              extension_config:
                name: envoy.filters.http.ext_proc
                typed_config:
"#;

/// Skipped when a model was read and is no alias.
const MATCHER: &str = r#"              xds_matcher:
                matcher_list:
                  matchers:
                  - predicate:
                      and_matcher:
                        predicate:
                        - single_predicate:
                            input: &model
                              name: envoy.matching.inputs.dynamic_metadata
                              typed_config: {"@type": type.googleapis.com/envoy.extensions.matching.common_inputs.network.v3.DynamicMetadataInput, filter: llm, path: [{key: model}]}
                            custom_match:
                              name: envoy.matching.matchers.metadata_matcher
                              typed_config: {"@type": type.googleapis.com/envoy.extensions.matching.input_matchers.metadata.v3.Metadata, value: {present_match: true}}
                        - not_matcher:
                            single_predicate:
                              input: *model
                              custom_match:
                                name: envoy.matching.matchers.metadata_matcher
                                typed_config: {"@type": type.googleapis.com/envoy.extensions.matching.input_matchers.metadata.v3.Metadata, value: {string_match: {exact: ALIAS}}}
                    on_match:
                      action:
                        name: skip
                        typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.common.matcher.action.v3.SkipFilter}
"#;
