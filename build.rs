//! Compiles the decision record, and Envoy's service. protox stands in for protoc, so nothing has to be installed.

use std::error::Error;

use tonic_prost_build::manual::{self, Method, Service};

/// The messages that are shown as JSON too, and read again from the journal.
const SHOWN: [&str; 4] = ["Decision", "Call", "Attempt", "Usage"];

fn main() -> Result<(), Box<dyn Error>> {
    let files = protox::compile(["consort/decision/v1/decision.proto"], ["proto"])?;
    let mut config = tonic_prost_build::configure();
    for message in SHOWN {
        let path = format!(".consort.decision.v1.{message}");
        config = config
            .message_attribute(&path, "#[derive(serde::Serialize, serde::Deserialize)]")
            // A journal may be of another version.
            .message_attribute(&path, "#[serde(default)]");
    }
    config
        .field_attribute(
            "Decision.outcome",
            "#[serde(serialize_with = \"super::record::word\", skip_deserializing)]",
        )
        .compile_fds(files)?;
    external_processor();
    println!("cargo:rerun-if-changed=proto");
    Ok(())
}

/// Envoy's service over the messages of `envoy-types`, whose own one brings a codec that cannot be set.
fn external_processor() {
    const PACKAGE: &str = "envoy.service.ext_proc.v3";
    let message = |name: &str| format!("envoy_types::pb::envoy::service::ext_proc::v3::{name}");
    let process = Method::builder()
        .name("process")
        .route_name("Process")
        .comment("One stream for each HTTP request.")
        .input_type(message("ProcessingRequest"))
        .output_type(message("ProcessingResponse"))
        .codec_path("crate::ext_proc::codec::Codec")
        .client_streaming()
        .server_streaming()
        .build();
    let service =
        Service::builder().name("ExternalProcessor").package(PACKAGE).comment("Envoy's external processor.");
    manual::Builder::new().build_client(false).compile(&[service.method(process).build()]);
}
