//! The way to a provider: TLS, proxies, and the bounds of connections.

use std::num::NonZeroUsize;
use std::time::Duration;

use http::Uri;
use http::uri::Scheme;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};

use super::bound;
use super::files::Files;
use crate::config::load::Environment;
use crate::config::problem::{Path, Report};
use crate::config::schema;
use crate::config::secret::Secret;
use crate::upstream::{Client, ClientCertificate, ClientSettings, Http2, Pools, Proxy, Tls, TlsError};

/// The `proxy` that stands for none.
const NONE: &str = "none";

/// What providers are resolved with, beside what is written of them.
pub(super) struct Around<'a, 'f> {
    pub(super) environment: &'a Environment,
    pub(super) files: &'a mut Files<'f>,
    /// The connections of the configuration before; a provider whose network is as it was goes on with them.
    pub(super) earlier: &'a Pools,
    pub(super) pools: &'a mut Pools,
}

/// The network's part of a provider as written.
pub(super) struct Network<'a> {
    pub(super) path: &'a Path,
    pub(super) provider: &'a schema::Provider,
    /// None when it is wrong.
    pub(super) base_url: Option<&'a Uri>,
}

impl Network<'_> {
    pub(super) fn client(
        &self,
        limits: &schema::Limits,
        around: &mut Around<'_, '_>,
        report: &mut Report,
    ) -> Option<Client> {
        let tls = self.tls(around.files, report);
        let proxy = self.proxy(around.environment, report);
        let settings = ClientSettings {
            connect_timeout: Duration::from_millis(self.provider.connect_timeout_ms),
            first_byte_timeout: bound(self.provider.first_byte_timeout_ms),
            idle_timeout: bound(self.provider.idle_timeout_ms),
            max_response_bytes: limits.max_response_bytes,
            max_event_bytes: limits.max_event_bytes,
            tls: tls?,
            http2: match self.provider.http2 {
                schema::Http2::Auto => Http2::Negotiated,
                schema::Http2::PriorKnowledge => Http2::PriorKnowledge,
            },
            proxy: proxy?,
            max_connections: usize::try_from(self.provider.max_connections).ok().and_then(NonZeroUsize::new),
            max_connection_age: bound(self.provider.max_connection_age_ms),
        };
        let client = around.pools.open(&self.provider.name, settings, around.earlier);
        client.map_err(|error| self.refused(&error, report)).ok()
    }

    /// The proxy on the way: as written, or as the environment says. None when what says so is wrong.
    fn proxy(&self, environment: &Environment, report: &mut Report) -> Option<Option<Proxy>> {
        let path = self.path.key("proxy");
        match self.provider.proxy.as_ref().map(Secret::expose) {
            Some(NONE) => Some(None),
            Some(url) => {
                let proxy = Proxy::parse(url);
                if proxy.is_none() {
                    report
                        .add(path, "expected a URL like http://user:password@proxy.internal:3128, or `none`");
                }
                proxy.map(Some)
            }
            None => {
                let variable = |name: &str| environment.get(name).map(String::as_str);
                Proxy::of_environment(self.base_url?, variable)
                    .map_err(|name| {
                        let what = format!(
                            "the environment variable {name} is no URL like http://user:password@proxy.internal:3128 (`none` would go without a proxy)"
                        );
                        report.add(path, what);
                    })
                    .ok()
            }
        }
    }

    fn tls(&self, files: &mut Files<'_>, report: &mut Report) -> Option<Tls> {
        let Some(written) = &self.provider.tls else {
            return Some(Tls::default());
        };
        let path = self.path.key("tls");
        if self.base_url.is_some_and(|url| url.scheme() == Some(&Scheme::HTTP)) {
            report.add(path, "is for a `base_url` that begins with https://");
            return None;
        }
        let extra_roots = match &written.ca_file {
            Some(file) => certificates(&path.key("ca_file"), file, files, report),
            None => Some(Vec::new()),
        };
        let server_name = match &written.server_name {
            Some(name) => server_name(&path.key("server_name"), name, report).map(Some),
            None => Some(None),
        };
        let client_certificate = client_certificate(&path, written, files, report);
        Some(Tls {
            extra_roots: extra_roots?,
            server_name: server_name?,
            client_certificate: client_certificate?,
        })
    }

    fn refused(&self, error: &TlsError, report: &mut Report) {
        let tls = self.path.key("tls");
        let path = match error {
            TlsError::Root(_) => tls.key("ca_file"),
            TlsError::ClientCertificate(_) => tls.key("certificate_file"),
            TlsError::Versions(_) => tls,
        };
        report.add(path, format!("TLS refuses it: {error}"));
    }
}

/// Consort's own certificate; none where none is written, and nothing where what is written is wrong.
fn client_certificate(
    tls: &Path,
    written: &schema::ProviderTls,
    files: &mut Files<'_>,
    report: &mut Report,
) -> Option<Option<ClientCertificate>> {
    let missing = match (&written.certificate_file, &written.key_file) {
        (None, None) => return Some(None),
        (Some(certificate), Some(key)) => {
            let chain = certificates(&tls.key("certificate_file"), certificate, files, report);
            let key = private_key(&tls.key("key_file"), key, files, report);
            return Some(Some(ClientCertificate { chain: chain?, key: key? }));
        }
        (Some(_), None) => ("key_file", "is required beside `certificate_file`"),
        (None, Some(_)) => ("certificate_file", "is required beside `key_file`"),
    };
    let (field, what) = missing;
    report.add(tls.key(field), what);
    None
}

fn certificates(
    path: &Path,
    file: &str,
    files: &mut Files<'_>,
    report: &mut Report,
) -> Option<Vec<CertificateDer<'static>>> {
    let text = files.read(path, file, report)?;
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match read {
        Ok(certificates) if !certificates.is_empty() => return Some(certificates),
        Ok(_) => report.add(path.clone(), "holds no certificate (expected PEM)"),
        Err(_) => report.add(path.clone(), "is no valid PEM"),
    }
    None
}

fn private_key(
    path: &Path,
    file: &str,
    files: &mut Files<'_>,
    report: &mut Report,
) -> Option<PrivateKeyDer<'static>> {
    let text = files.read(path, file, report)?;
    match PrivateKeyDer::from_pem_slice(&text) {
        Ok(key) => return Some(key),
        Err(pem::Error::NoItemsFound) => {
            report.add(path.clone(), "holds no private key (expected PEM, not encrypted)");
        }
        Err(_) => report.add(path.clone(), "is no valid PEM"),
    }
    None
}

fn server_name(path: &Path, name: &str, report: &mut Report) -> Option<ServerName<'static>> {
    ServerName::try_from(name.to_owned()).map_err(|_| report.add(path.clone(), "is no name of a host")).ok()
}
