//! The TLS of a listener.

use std::path::PathBuf;
use std::sync::Arc;

use crate::config::interpolate::Written;
use crate::config::problem::{Path, Report};
use crate::config::schema::Tls;
use crate::http::{ServerTls, TlsError, TlsFile, TlsFiles};

/// The TLS that is written at `path`, for these protocols: none where none is written, and nothing where what is
/// written is wrong. The files are the listener's to follow.
pub(super) fn resolve(
    tls: Option<&Tls>,
    path: &Path,
    protocols: &'static [&'static str],
    written: &Written,
    report: &mut Report,
) -> Option<Option<Arc<ServerTls>>> {
    let Some(tls) = tls else {
        return Some(None);
    };
    if tls.cert.is_empty() || tls.key.is_empty() {
        // Where one is missing, the structure has been reported.
        return None;
    }
    let client_ca = tls.client_ca.as_ref().map(PathBuf::from);
    let files = TlsFiles { cert: tls.cert.clone().into(), key: tls.key.clone().into(), client_ca };
    let error = match ServerTls::load(files, protocols) {
        Ok(tls) => return Some(Some(Arc::new(tls))),
        Err(error) => error,
    };
    let (TlsError::Pem { file, .. } | TlsError::Empty { file, .. } | TlsError::Refused { file, .. }) = &error;
    let (path, named) = match file {
        TlsFile::Cert => (path.key("cert"), &*tls.cert),
        TlsFile::Key => (path.key("key"), &*tls.key),
        TlsFile::ClientCa => (path.key("client_ca"), tls.client_ca.as_deref().unwrap_or_default()),
    };
    let shown = written.show(&path, named).to_string();
    let what = match &error {
        TlsError::Pem { source, .. } => format!("cannot read \"{shown}\": {source}"),
        TlsError::Empty { .. } => format!("\"{shown}\" holds no certificate (expected PEM)"),
        TlsError::Refused { source, .. } => format!("TLS refuses \"{shown}\": {source}"),
    };
    report.add(path, what);
    None
}
