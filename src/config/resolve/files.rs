//! The files that a configuration names.

use std::fs;
use std::path::PathBuf;

use crate::config::interpolate::Written;
use crate::config::problem::{Path, Report};

/// Reads files, and tells the report which.
pub(super) struct Files<'a> {
    written: &'a Written,
}

impl<'a> Files<'a> {
    pub(super) fn new(written: &'a Written) -> Self {
        Self { written }
    }

    /// What stands in the file that is named at `path`.
    pub(super) fn read(&mut self, path: &Path, file: &str, report: &mut Report) -> Option<Vec<u8>> {
        let text = fs::read(file).map_err(|error| {
            let shown = self.written.show(path, file);
            report.add(path.clone(), format!("cannot read \"{shown}\": {error}"));
        });
        report.names(PathBuf::from(file));
        text.ok()
    }
}
