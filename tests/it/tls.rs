//! An authority, certificates of it, and doors that speak TLS.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use consort_testkit::provider::Provider;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, date_time_ymd,
};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

/// An authority of its own.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    files: TempDir,
}

/// A certificate and its key, as files.
pub struct Pair {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl Authority {
    pub fn new() -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // Envoy takes a certificate whose subject is its issuer's for one that nobody has signed.
        params.distinguished_name = named("an authority");
        let own = params.self_signed(&key).expect("a certificate");
        let files = tempfile::tempdir().expect("a directory");
        std::fs::write(files.path().join("ca.pem"), own.pem()).expect("written");
        Self { issuer: Issuer::new(params, key), certificate: own.der().clone(), files }
    }

    /// Its own certificate.
    pub fn ca_file(&self) -> PathBuf {
        self.files.path().join("ca.pem")
    }

    /// A certificate for `name`, in files that are written over when there is one already.
    pub fn pair(&self, name: &str) -> Pair {
        self.written(name, self.sign(name))
    }

    /// One that was good for a day, years ago.
    pub fn expired(&self, name: &str) -> Pair {
        let mut params = params(name);
        (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2020, 1, 2));
        self.written(name, self.signed(params))
    }

    fn written(&self, name: &str, (certificate, key): (rcgen::Certificate, KeyPair)) -> Pair {
        let file = |extension: &str| self.files.path().join(format!("{name}.{extension}"));
        let pair = Pair { certificate: file("pem"), key: file("key") };
        std::fs::write(&pair.certificate, certificate.pem()).expect("written");
        std::fs::write(&pair.key, key.serialize_pem()).expect("written");
        pair
    }

    fn sign(&self, name: &str) -> (rcgen::Certificate, KeyPair) {
        self.signed(params(name))
    }

    fn signed(&self, params: CertificateParams) -> (rcgen::Certificate, KeyPair) {
        let key = KeyPair::generate().expect("a key");
        (params.signed_by(&key, &self.issuer).expect("a certificate"), key)
    }

    /// What serves as `name` and offers these protocols; callers must show a certificate of `callers`, if there is one.
    pub fn server(&self, name: &str, alpn: &[&str], callers: Option<&Self>) -> ServerConfig {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider));
        let builder = builder.with_safe_default_protocol_versions().expect("versions");
        let builder = match callers {
            None => builder.with_no_client_auth(),
            Some(callers) => {
                let mut roots = RootCertStore::empty();
                roots.add(callers.certificate.clone()).expect("a root");
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                builder.with_client_cert_verifier(verifier.build().expect("a verifier"))
            }
        };
        let (certificate, key) = self.sign(name);
        let key = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
        let mut server = builder.with_single_cert(vec![certificate.der().clone()], key).expect("they match");
        server.alpn_protocols = alpn.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        server
    }
}

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new([name.to_owned()]).expect("a name");
    params.distinguished_name = named(name);
    params
}

fn named(name: &str) -> DistinguishedName {
    let mut names = DistinguishedName::new();
    names.push(DnType::CommonName, name);
    names
}

/// Takes TLS off in front of something that listens, which then sees what was inside.
pub struct TlsFront {
    pub addr: SocketAddr,
    authority: Authority,
    asked_for: Arc<Mutex<Vec<String>>>,
    accepting: JoinHandle<()>,
}

impl TlsFront {
    /// In front of a provider, with a certificate for `name` of an authority of its own; offers these protocols.
    pub async fn start(provider: &Provider, name: &str, alpn: &[&str]) -> Self {
        let authority = Authority::new();
        let server = authority.server(name, alpn, None);
        Self::serve(provider.addr(), authority, server).await
    }

    /// In front of `behind`, as this server of the authority's.
    pub async fn serve(behind: SocketAddr, authority: Authority, server: ServerConfig) -> Self {
        let acceptor = TlsAcceptor::from(Arc::new(server));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let addr = listener.local_addr().expect("it is bound");
        let asked_for = Arc::<Mutex<Vec<String>>>::default();
        let names = Arc::clone(&asked_for);
        let accepting = tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (acceptor, names) = (acceptor.clone(), Arc::clone(&names));
                tokio::spawn(async move {
                    // A client that does not trust us ends the handshake: that is what some tests are about.
                    let Ok(mut tls) = acceptor.accept(socket).await else { return };
                    names.lock().expect("whole").extend(tls.get_ref().1.server_name().map(str::to_owned));
                    let mut inside = TcpStream::connect(behind).await.expect("the provider listens");
                    let _ = tokio::io::copy_bidirectional(&mut tls, &mut inside).await;
                });
            }
        });
        Self { addr, authority, asked_for, accepting }
    }

    /// The fields of a provider behind this door, known by its authority.
    pub fn fields(&self) -> String {
        let (addr, ca) = (self.addr, self.ca_file());
        format!("base_url: 'https://{addr}/v1', api_key: sk-inside, tls: {{ca_file: '{}'}}", ca.display())
    }

    /// The certificate of its authority.
    pub fn ca_file(&self) -> PathBuf {
        self.authority.ca_file()
    }

    /// The names that connections asked for (SNI).
    pub fn names_asked_for(&self) -> Vec<String> {
        self.asked_for.lock().expect("whole").clone()
    }
}

impl Drop for TlsFront {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// A path as it stands in a YAML flow mapping.
pub fn quoted(path: &Path) -> String {
    format!("'{}'", path.display())
}
