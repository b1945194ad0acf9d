//! Envoy's door: the external processing protocol.

mod settings;

pub use settings::{ModeOverride, Settings};
