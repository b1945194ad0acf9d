//! A listener's TLS: its certificate, and whose certificates it lets in. All of it is read anew when its files change.

use std::error::Error;
use std::fmt;
use std::future::ready;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use std::{fs, io};

use futures_util::{Stream, StreamExt};
use rustls::crypto::ring;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tracing::{debug, info, warn};

use crate::telemetry::{Seldom, chain};

/// How many connections may be agreeing on TLS at once; further ones wait to be accepted.
const MAX_HANDSHAKES: usize = 1024;

/// A listener's TLS, 1.2 and 1.3, in files that may change while it listens.
pub struct ServerTls {
    files: TlsFiles,
    protocols: &'static [&'static str],
    current: Mutex<Current>,
    refused: Refused,
}

/// The PEM files of a listener's TLS.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// The certificate, and those that vouch for it.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// The authorities one of which must have signed a peer's certificate. Without them peers need none.
    pub client_ca: Option<PathBuf>,
}

/// What was read last.
struct Current {
    /// What the files looked like then; none where they could not be looked at.
    stamps: Option<Vec<Stamp>>,
    server: Arc<ServerConfig>,
}

/// What tells one content of a file from another: by a link that is swapped, or by a write.
type Stamp = (u64, u64, i64, i64);

/// One of the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsFile {
    /// [`TlsFiles::cert`].
    Cert,
    /// [`TlsFiles::key`].
    Key,
    /// [`TlsFiles::client_ca`].
    ClientCa,
}

/// Why files do not do for TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// One cannot be read.
    #[error("cannot read {path}", path = path.display())]
    Pem {
        /// Which.
        file: TlsFile,
        /// Where it is.
        path: PathBuf,
        /// Why.
        source: pem::Error,
    },
    /// One is empty of certificates.
    #[error("{path} holds no certificate (expected PEM)", path = path.display())]
    Empty {
        /// Which.
        file: TlsFile,
        /// Where it is.
        path: PathBuf,
    },
    /// A certificate is none, or does not go with the key.
    #[error("TLS refuses the certificate")]
    Refused {
        /// Where it stands.
        file: TlsFile,
        /// Why.
        source: Box<dyn Error + Send + Sync>,
    },
}

impl ServerTls {
    /// The TLS of a listener that speaks these protocols (ALPN).
    ///
    /// # Errors
    /// When a file cannot be read, or they do not go together.
    pub fn load(files: TlsFiles, protocols: &'static [&'static str]) -> Result<Self, TlsError> {
        let stamps = files.stamps().ok();
        let server = Arc::new(files.read(protocols)?);
        let current = Mutex::new(Current { stamps, server });
        Ok(Self { files, protocols, current, refused: Refused::default() })
    }

    /// Whether peers must show a certificate.
    pub fn knows_peers(&self) -> bool {
        self.files.client_ca.is_some()
    }

    /// Agrees on TLS with who has connected; nothing when that fails, or takes longer than `within`.
    pub(super) async fn accept<I>(&self, io: I, within: Duration) -> Option<TlsStream<I>>
    where
        I: AsyncRead + AsyncWrite + Unpin,
    {
        let acceptor = TlsAcceptor::from(self.now());
        match tokio::time::timeout(within, acceptor.accept(io)).await {
            Ok(Ok(io)) => return Some(io),
            Ok(Err(error)) if self.knows_peers() => self.refused.tell(&error),
            Ok(Err(error)) => debug!(%error, "no TLS"),
            Err(_elapsed) => debug!("TLS took too long"),
        }
        None
    }

    /// The settings by the files as they are now. What cannot be used changes nothing.
    fn now(&self) -> Arc<ServerConfig> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        // A few looks at the file system for each handshake, which costs a hundred times that.
        let stamps = self.files.stamps().ok();
        if stamps.is_some() && stamps != current.stamps {
            current.stamps = stamps;
            let cert = self.files.cert.display();
            match self.files.read(self.protocols) {
                // Whole, with the memory of sessions: who is let in no more resumes none.
                Ok(server) => {
                    info!(%cert, "certificate read anew");
                    current.server = Arc::new(server);
                }
                Err(error) => {
                    warn!(%cert, error = chain(&error), "certificate not read anew; the one before stays");
                }
            }
        }
        Arc::clone(&current.server)
    }
}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerTls").field("files", &self.files).finish_non_exhaustive()
    }
}

/// Takes TLS off connections that come in, each of which may take `within` to agree on it: who is slow holds up nobody
/// else. Those that do not agree are left out.
pub fn secured<I>(
    incoming: impl Stream<Item = io::Result<I>>,
    tls: Arc<ServerTls>,
    within: Duration,
) -> impl Stream<Item = io::Result<Secured<I>>>
where
    I: AsyncRead + AsyncWrite + Unpin,
{
    let agreed = incoming.map(move |accepted| {
        let tls = Arc::clone(&tls);
        async move {
            match accepted {
                Ok(io) => tls.accept(io, within).await.map(Secured).map(Ok),
                Err(error) => Some(Err(error)),
            }
        }
    });
    agreed.buffer_unordered(MAX_HANDSHAKES).filter_map(ready)
}

/// A connection in TLS.
#[derive(Debug)]
pub struct Secured<I>(TlsStream<I>);

impl<I> Secured<I> {
    /// What TLS goes through.
    pub fn inner(&self) -> &I {
        self.0.get_ref().0
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin> AsyncRead for Secured<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Secured<I> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

impl TlsFiles {
    fn stamps(&self) -> io::Result<Vec<Stamp>> {
        let stamp =
            |file| fs::metadata(file).map(|file| (file.ino(), file.size(), file.mtime(), file.mtime_nsec()));
        [&self.cert, &self.key].into_iter().chain(&self.client_ca).map(stamp).collect()
    }

    fn read(&self, protocols: &[&str]) -> Result<ServerConfig, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider));
        let builder = builder.with_safe_default_protocol_versions().map_err(refused(TlsFile::Cert))?;
        let builder = match &self.client_ca {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let mut roots = RootCertStore::empty();
                for authority in certificates(TlsFile::ClientCa, path)? {
                    roots.add(authority).map_err(refused(TlsFile::ClientCa))?;
                }
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
                builder.with_client_cert_verifier(verifier.map_err(refused(TlsFile::ClientCa))?)
            }
        };
        let chain = certificates(TlsFile::Cert, &self.cert)?;
        let key = PrivateKeyDer::from_pem_file(&self.key).map_err(unreadable(TlsFile::Key, &self.key))?;
        let mut server = builder.with_single_cert(chain, key).map_err(refused(TlsFile::Cert))?;
        server.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        Ok(server)
    }
}

fn certificates(file: TlsFile, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let certificates = read.map_err(unreadable(file, path))?;
    if certificates.is_empty() {
        return Err(TlsError::Empty { file, path: path.to_owned() });
    }
    Ok(certificates)
}

fn unreadable(file: TlsFile, path: &Path) -> impl Fn(pem::Error) -> TlsError {
    move |source| TlsError::Pem { file, path: path.to_owned(), source }
}

fn refused<E: Into<Box<dyn Error + Send + Sync>>>(file: TlsFile) -> impl Fn(E) -> TlsError {
    move |source| TlsError::Refused { file, source: source.into() }
}

/// Who was not let in.
#[derive(Default)]
struct Refused {
    count: AtomicU64,
    told: Seldom,
}

impl Refused {
    fn tell(&self, error: &io::Error) {
        let refused = self.count.fetch_add(1, Ordering::Relaxed) + 1;
        if self.told.is_due() {
            warn!(refused, %error, "a peer was not let in: it has no certificate of `client_ca`, or does not trust ours");
        }
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertifiedKey as Made, generate_simple_self_signed};

    use super::*;

    fn write(dir: &Path) {
        let Made { cert, signing_key } = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        fs::write(dir.join("cert"), cert.pem()).unwrap();
        fs::write(dir.join("key"), signing_key.serialize_pem()).unwrap();
    }

    fn files(dir: &Path, client_ca: Option<&str>) -> TlsFiles {
        let [cert, key] = ["cert", "key"].map(|name| dir.join(name));
        TlsFiles { cert, key, client_ca: client_ca.map(|name| dir.join(name)) }
    }

    #[test]
    fn tls_follows_its_files_and_outlives_bad_ones() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path());
        fs::copy(dir.path().join("cert"), dir.path().join("ca")).unwrap();
        let tls = ServerTls::load(files(dir.path(), Some("ca")), &["h2"]).unwrap();
        let first = tls.now();
        assert!(Arc::ptr_eq(&first, &tls.now()), "nothing has changed");
        write(dir.path());
        let second = tls.now();
        assert!(!Arc::ptr_eq(&first, &second));
        assert_eq!(second.alpn_protocols, [b"h2"]);
        for (file, text) in [("cert", Some("garbage")), ("ca", Some("garbage")), ("key", None)] {
            match text {
                Some(text) => fs::write(dir.path().join(file), text).unwrap(),
                None => fs::remove_file(dir.path().join(file)).unwrap(),
            }
            assert!(Arc::ptr_eq(&second, &tls.now()), "{file}");
        }
        write(dir.path());
        assert!(Arc::ptr_eq(&second, &tls.now()), "there is no authority yet");
        fs::copy(dir.path().join("cert"), dir.path().join("ca")).unwrap();
        assert!(!Arc::ptr_eq(&second, &tls.now()));
    }

    #[test]
    fn files_that_do_not_go_together_are_refused() {
        let [one, other] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        write(one.path());
        write(other.path());
        let [cert, key] = ["cert", "key"].map(|name| one.path().join(name));
        let load = |cert: &Path, key: &Path, client_ca: Option<&Path>| {
            let (cert, key) = (cert.to_owned(), key.to_owned());
            let files = TlsFiles { cert, key, client_ca: client_ca.map(Path::to_owned) };
            ServerTls::load(files, &[]).map(|_| ()).unwrap_err()
        };
        let other_key = other.path().join("key");
        let refused = load(&cert, &other_key, None);
        assert!(matches!(refused, TlsError::Refused { file: TlsFile::Cert, .. }), "{refused:?}");
        assert!(matches!(load(&key, &key, None), TlsError::Empty { file: TlsFile::Cert, .. }));
        assert!(matches!(load(&cert, &cert, None), TlsError::Pem { file: TlsFile::Key, .. }));
        assert!(matches!(load(&cert.join("none"), &key, None), TlsError::Pem { file: TlsFile::Cert, .. }));
        let [none, empty] = [cert.join("none"), key.clone()];
        let file = TlsFile::ClientCa;
        assert!(matches!(load(&cert, &key, Some(&none)), TlsError::Pem { file: of, .. } if of == file));
        assert!(matches!(load(&cert, &key, Some(&empty)), TlsError::Empty { file: of, .. } if of == file));
    }
}
