//! What Consort serves over plain HTTP.

pub mod console;
