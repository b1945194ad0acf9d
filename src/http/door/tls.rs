//! The door's certificate, read anew when its files change.

use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::{fs, io};

use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tracing::{info, warn};

use crate::telemetry::chain;

/// A certificate and its key, in files that may change while the door is open.
pub struct Certificate {
    cert: PathBuf,
    key: PathBuf,
    current: Mutex<Current>,
}

/// What was read last.
struct Current {
    /// What the files looked like then; none where they could not be looked at.
    stamp: Option<[Stamp; 2]>,
    key: Arc<CertifiedKey>,
}

/// What tells one content of a file from another: by a link that is swapped, or by a write.
type Stamp = (u64, u64, i64, i64);

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file of the two.
    #[error("cannot read {file}", file = file.display())]
    Pem {
        /// The file.
        file: PathBuf,
        /// Why.
        source: pem::Error,
    },
    /// The certificate's file is empty of certificates.
    #[error("{file} holds no certificate (expected PEM)", file = file.display())]
    Empty {
        /// The file.
        file: PathBuf,
    },
    /// They do not go together, or not with TLS.
    #[error("TLS refuses the certificate")]
    Refused(#[from] rustls::Error),
}

impl Certificate {
    /// The certificate chain and the private key of these PEM files.
    ///
    /// # Errors
    /// When a file cannot be read, or the two do not go together.
    pub fn load(cert: PathBuf, key: PathBuf) -> Result<Self, CertificateError> {
        let stamp = stamps([&cert, &key]).ok();
        let current = Mutex::new(Current { stamp, key: Arc::new(read(&cert, &key)?) });
        Ok(Self { cert, key, current })
    }

    /// The settings of connections that show it: TLS 1.2 and 1.3, HTTP/2 and HTTP/1.1.
    ///
    /// # Errors
    /// Never for the provider compiled in; rustls's signature has it.
    pub(super) fn server_config(self: &Arc<Self>) -> Result<ServerConfig, rustls::Error> {
        let resolver: Arc<dyn ResolvesServerCert> = Arc::<Self>::clone(self);
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(resolver);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(config)
    }

    /// The certificate as its files have it now. One that cannot be used changes nothing.
    fn now(&self) -> Arc<CertifiedKey> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        // Two looks at the file system for each handshake, which costs a hundred times that.
        let stamp = stamps([&self.cert, &self.key]).ok();
        if stamp.is_some() && stamp != current.stamp {
            current.stamp = stamp;
            match read(&self.cert, &self.key) {
                Ok(key) => {
                    info!(cert = %self.cert.display(), "certificate read anew");
                    current.key = Arc::new(key);
                }
                Err(error) => warn!(error = chain(&error), "certificate not read anew; the one before stays"),
            }
        }
        Arc::clone(&current.key)
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.now())
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate").field("cert", &self.cert).finish_non_exhaustive()
    }
}

fn stamps(files: [&Path; 2]) -> io::Result<[Stamp; 2]> {
    let stamp =
        |file| fs::metadata(file).map(|file| (file.ino(), file.size(), file.mtime(), file.mtime_nsec()));
    let [cert, key] = files.map(stamp);
    Ok([cert?, key?])
}

fn read(cert: &Path, key: &Path) -> Result<CertifiedKey, CertificateError> {
    let wrong = |file: &Path| {
        let file = file.to_owned();
        move |source| CertificateError::Pem { file, source }
    };
    let chain = CertificateDer::pem_file_iter(cert).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let chain = chain.map_err(wrong(cert))?;
    if chain.is_empty() {
        return Err(CertificateError::Empty { file: cert.to_owned() });
    }
    let key = PrivateKeyDer::from_pem_file(key).map_err(wrong(key))?;
    Ok(CertifiedKey::from_der(chain, key, &ring::default_provider())?)
}

#[cfg(test)]
mod tests {
    use rcgen::{CertifiedKey as Made, generate_simple_self_signed};

    use super::*;

    fn write(dir: &Path) -> Vec<u8> {
        let Made { cert, signing_key } = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        fs::write(dir.join("cert"), cert.pem()).unwrap();
        fs::write(dir.join("key"), signing_key.serialize_pem()).unwrap();
        cert.der().to_vec()
    }

    #[test]
    fn a_certificate_follows_its_files_and_outlives_bad_ones() {
        let dir = tempfile::tempdir().unwrap();
        let first = write(dir.path());
        let certificate = Certificate::load(dir.path().join("cert"), dir.path().join("key")).unwrap();
        let shown = || certificate.now().cert[0].to_vec();
        assert_eq!(shown(), first);
        let second = write(dir.path());
        assert!(shown() == second && second != first);
        fs::write(dir.path().join("cert"), "garbage").unwrap();
        assert_eq!(shown(), second, "no certificate");
        fs::remove_file(dir.path().join("key")).unwrap();
        assert_eq!(shown(), second, "no key");
        assert_eq!(write(dir.path()), shown());
    }

    #[test]
    fn files_that_do_not_go_together_are_refused() {
        let [one, other] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        write(one.path());
        write(other.path());
        let load = |cert: &Path, key: &Path| Certificate::load(cert.to_owned(), key.to_owned());
        let (cert, key) = (one.path().join("cert"), other.path().join("key"));
        assert!(matches!(load(&cert, &key), Err(CertificateError::Refused(_))));
        assert!(matches!(load(&key, &key), Err(CertificateError::Empty { .. })));
        assert!(matches!(load(&cert, &cert), Err(CertificateError::Pem { .. })));
        assert!(matches!(load(&cert.join("none"), &key), Err(CertificateError::Pem { .. })));
    }
}
