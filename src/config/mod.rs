//! The operator's file: as written, loaded, resolved.
