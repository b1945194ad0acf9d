//! Compiles the decision record. protox stands in for protoc, so nothing has to be installed.

use std::error::Error;

/// The messages that are shown as JSON too.
const SHOWN: [&str; 4] = ["Decision", "Call", "Attempt", "Usage"];

fn main() -> Result<(), Box<dyn Error>> {
    let files = protox::compile(["consort/decision/v1/decision.proto"], ["proto"])?;
    let mut config = tonic_prost_build::configure();
    for message in SHOWN {
        let path = format!(".consort.decision.v1.{message}");
        config = config.message_attribute(path, "#[derive(serde::Serialize)]");
    }
    config
        .field_attribute("Decision.outcome", "#[serde(serialize_with = \"super::record::word\")]")
        .compile_fds(files)?;
    println!("cargo:rerun-if-changed=proto");
    Ok(())
}
