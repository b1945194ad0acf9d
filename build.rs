//! Compiles the decision record. protox stands in for protoc, so nothing has to be installed.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    let files = protox::compile(["consort/decision/v1/decision.proto"], ["proto"])?;
    prost_build::Config::new()
        .message_attribute(".", "#[derive(serde::Serialize)]")
        .field_attribute("Decision.outcome", "#[serde(serialize_with = \"super::account::word\")]")
        .compile_fds(files)?;
    println!("cargo:rerun-if-changed=proto");
    Ok(())
}
