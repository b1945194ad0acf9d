//! What is served over plain HTTP.

pub mod door;
