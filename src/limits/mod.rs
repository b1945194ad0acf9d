//! What bounds a run before it begins.
