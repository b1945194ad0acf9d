//! What is spoken between Envoy and Consort.

use serde_json::Value;

use super::Part;
use super::Severity::{Error, Warning};

/// What is spoken at one of Consort's doors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// Plain text.
    Plain,
    /// TLS.
    Tls,
    /// TLS in which Envoy shows a certificate.
    MutualTls,
}

/// Where a certificate may come from.
const CERTIFICATES: [&str; 4] = [
    "tls_certificates",
    "tls_certificate_sds_secret_configs",
    "tls_certificate_provider_instance",
    "custom_tls_certificate_selector",
];

/// Where authorities may come from.
const VALIDATIONS: [&str; 3] =
    ["validation_context", "validation_context_sds_secret_config", "combined_validation_context"];

/// A cluster that leads to a door, whose settings stand at `key` of the file. Where the two do not speak alike, the
/// symptom is this.
pub(super) fn check(part: &mut Part<'_>, expected: Transport, key: &str, symptom: &str) {
    let socket = part.at("transport_socket");
    let matches = part.at("transport_socket_matches");
    let context = part.at("transport_socket.typed_config.common_tls_context");
    let speaks_tls = !context.is_null();
    match expected {
        Transport::Plain if speaks_tls => {
            let is = socket["name"].as_str().unwrap_or("TLS").to_owned();
            let should_be = format!("unset: the file has no {key}");
            // A proxy of a mesh may stand between them.
            let symptom = format!("unless something on the way takes TLS off, {symptom}");
            part.tell(Warning, "transport_socket", is, &should_be, &symptom);
        }
        Transport::Tls | Transport::MutualTls if socket.is_null() && matches.is_null() => {
            let should_be = format!("envoy.transport_sockets.tls: the file has {key}");
            part.tell(Error, "transport_socket", "unset".to_owned(), &should_be, symptom);
        }
        Transport::Tls | Transport::MutualTls if speaks_tls => {
            let has = |one: &[&str]| one.iter().any(|field| has(context, field));
            if expected == Transport::MutualTls && !has(&CERTIFICATES) {
                let setting = "transport_socket.common_tls_context.tls_certificates";
                let should_be = format!("a certificate that {key}.client_ca has signed");
                part.tell(Error, setting, "unset".to_owned(), &should_be, symptom);
            }
            if !has(&VALIDATIONS) {
                let setting = "transport_socket.common_tls_context.validation_context";
                let should_be = format!("trusted_ca and a name that stands in {key}.cert");
                let symptom = "whoever answers at that address is taken for Consort, and gets every prompt";
                part.tell(Warning, setting, "unset".to_owned(), &should_be, symptom);
            }
        }
        _ => {}
    }
}

fn has(context: &Value, field: &str) -> bool {
    match &context[field] {
        Value::Null => false,
        Value::Array(list) => !list.is_empty(),
        _ => true,
    }
}
