//! How candidates become one answer.

pub(super) mod judge;
