//! The wire formats that providers speak.

pub(super) mod openai;
