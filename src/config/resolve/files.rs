//! The files that a configuration names.

use std::path::PathBuf;

use zeroize::Zeroizing;

use crate::config::interpolate::Written;
use crate::config::problem::{Path, Report};
use crate::config::text;

/// Reads files, and tells the report which.
pub(super) struct Files<'a> {
    written: &'a Written,
}

impl<'a> Files<'a> {
    pub(super) fn new(written: &'a Written) -> Self {
        Self { written }
    }

    /// What stands in the file that is named at `path`.
    pub(super) fn read(
        &mut self,
        path: &Path,
        file: &str,
        report: &mut Report,
    ) -> Option<Zeroizing<Vec<u8>>> {
        let text = text::read(file).map_err(|error| {
            let shown = self.written.show(path, file);
            report.add(path.clone(), format!("cannot read \"{shown}\": {error}"));
        });
        report.names(PathBuf::from(file));
        text.ok()
    }
}
