//! Filling templates in.

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{AutoEscape, Environment, UndefinedBehavior};
use serde::Serialize;

use super::{Attachment, Format, Mode, OnFailure};

/// The templates: a name, and the text that stands under it.
const TEMPLATES: [(&str, &str); 27] = [
    ("bootstrap.yaml", include_str!("templates/bootstrap.yaml")),
    ("filter.yaml", include_str!("templates/filter.yaml")),
    ("envoy_gateway.yaml", include_str!("templates/envoy_gateway.yaml")),
    ("istio.yaml", include_str!("templates/istio.yaml")),
    ("about.yaml", include_str!("templates/about.yaml")),
    ("buffer_limit.yaml", include_str!("templates/buffer_limit.yaml")),
    ("connection_manager.yaml", include_str!("templates/connection_manager.yaml")),
    ("consort_cluster.yaml", include_str!("templates/consort_cluster.yaml")),
    ("ext_proc.yaml", include_str!("templates/ext_proc.yaml")),
    ("ext_proc_config.yaml", include_str!("templates/ext_proc_config.yaml")),
    ("gate.yaml", include_str!("templates/gate.yaml")),
    ("gate_aliases.yaml", include_str!("templates/gate_aliases.yaml")),
    ("fence.yaml", include_str!("templates/fence.yaml")),
    ("fence_hold.yaml", include_str!("templates/fence_hold.yaml")),
    ("fence_reader.yaml", include_str!("templates/fence_reader.yaml")),
    ("fence_refusal.yaml", include_str!("templates/fence_refusal.yaml")),
    ("fence_answered.yaml", include_str!("templates/fence_answered.yaml")),
    ("fence_unneeded.yaml", include_str!("templates/fence_unneeded.yaml")),
    ("local_reply.yaml", include_str!("templates/local_reply.yaml")),
    ("matching.yaml", include_str!("templates/matching.yaml")),
    ("per_route.yaml", include_str!("templates/per_route.yaml")),
    ("processor.yaml", include_str!("templates/processor.yaml")),
    ("tls.yaml", include_str!("templates/tls.yaml")),
    ("virtual_host.yaml", include_str!("templates/virtual_host.yaml")),
    ("models_route.yaml", include_str!("templates/models_route.yaml")),
    ("handoff_route.yaml", include_str!("templates/handoff_route.yaml")),
    ("consort_http_cluster.yaml", include_str!("templates/consort_http_cluster.yaml")),
];

/// A template that cannot be filled in.
#[derive(Debug, thiserror::Error)]
#[error("a template of Envoy's configuration is wrong")]
pub struct TemplateError(#[from] minijinja::Error);

#[derive(Serialize)]
struct Slots<'a> {
    #[serde(flatten)]
    attachment: &'a Attachment,
    format: Format,
    file: String,
    /// The filters of the fence, by the ends of their names; none where there is no fence.
    fence: &'static [&'static str],
    /// What Consort's filter is called.
    processor: String,
}

pub(super) fn render(format: Format, attachment: &Attachment) -> Result<String, TemplateError> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    // A line that holds a tag and nothing else leaves no line behind.
    let mut syntax = SyntaxConfig::builder();
    syntax.trim_blocks(true).lstrip_blocks(true).keep_trailing_newline(true);
    environment.set_syntax(syntax.build()?);
    // What is inserted is YAML already.
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.add_filter("at", at);
    environment.add_filter("item", item);
    environment.add_filter("pad", pad);
    for (name, text) in TEMPLATES {
        environment.add_template(name, text)?;
    }
    let slots = Slots {
        attachment,
        format,
        file: attachment.file_name(),
        fence: fence(attachment),
        processor: processor(format, attachment),
    };
    let name = match format {
        Format::Bootstrap => "bootstrap.yaml",
        Format::Filter => "filter.yaml",
        Format::EnvoyGateway => "envoy_gateway.yaml",
        Format::Istio => "istio.yaml",
    };
    Ok(environment.get_template(name)?.render(Serde(slots))?)
}

/// Full duplex needs none, since nobody has the body any more. Where the body was held for Consort, nobody needs to hold
/// it again.
fn fence(attachment: &Attachment) -> &'static [&'static str] {
    let is_wanted = attachment.on_failure == OnFailure::Closed && attachment.aliases.is_some();
    match attachment.mode {
        Mode::Standalone if is_wanted => &["hold", "reader", "refusal"],
        Mode::Buffered | Mode::Handoff if is_wanted => &["reader", "refusal"],
        _ => &[],
    }
}

/// Envoy Gateway makes a name of its policy's, the namespace included.
fn processor(format: Format, attachment: &Attachment) -> String {
    let name = "envoy.filters.http.ext_proc";
    match format {
        Format::EnvoyGateway => {
            format!("{name}/envoyextensionpolicy/{}/consort/extproc/0", attachment.place.namespace)
        }
        Format::Bootstrap | Format::Filter | Format::Istio => name.to_owned(),
    }
}

/// A part, moved to this column.
fn at(part: &str, column: usize) -> String {
    let mut moved = String::new();
    for line in part.lines() {
        if !line.is_empty() {
            moved.push_str(&" ".repeat(column));
            moved.push_str(line);
        }
        moved.push('\n');
    }
    moved
}

/// A part as an element of a sequence whose dash stands in this column.
fn item(part: &str, column: usize) -> String {
    let moved = at(part, column + 2);
    let (indent, dash) = (" ".repeat(column + 2), format!("{}- ", " ".repeat(column)));
    moved.replacen(&indent, &dash, 1)
}

/// A text with as many spaces behind it as make it this long.
fn pad(text: &str, length: usize) -> String {
    format!("{text:length$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_moved_as_a_whole() {
        assert_eq!(at("a:\n  b: 1\n\nc: 2\n", 2), "  a:\n    b: 1\n\n  c: 2\n");
        assert_eq!(item("a:\n  b: 1\nc: 2\n", 2), "  - a:\n      b: 1\n    c: 2\n");
        assert_eq!(pad("type: STATIC", 14), "type: STATIC  ");
    }
}
