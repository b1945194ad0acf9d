//! Who is trusted, and who we are.

use std::sync::Arc;

use hyper_rustls::{FixedServerNameResolver, HttpsConnector, HttpsConnectorBuilder};
use rustls::client::WantsClientCert;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ConfigBuilder, RootCertStore};

use super::Http2;

/// What TLS needs to know beside the public authorities.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// Roots trusted beside the public ones.
    pub extra_roots: Vec<CertificateDer<'static>>,
    /// The name that is asked for and that the certificate must have; none means the URL's host.
    pub server_name: Option<ServerName<'static>>,
    /// How we prove who we are.
    pub client_certificate: Option<ClientCertificate>,
}

/// A certificate of our own. What is shown of it when it is debugged leaves the key out.
#[derive(Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    /// The certificate, then those that lead to its root.
    pub chain: Vec<CertificateDer<'static>>,
    /// Its private key.
    pub key: PrivateKeyDer<'static>,
}

impl Clone for ClientCertificate {
    fn clone(&self) -> Self {
        Self { chain: self.chain.clone(), key: self.key.clone_key() }
    }
}

/// Why TLS cannot be spoken in the way that is wished.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// An extra root is no certificate that can be trusted.
    #[error(transparent)]
    Root(rustls::Error),
    /// The client certificate cannot be used, or its key is another's.
    #[error(transparent)]
    ClientCertificate(rustls::Error),
    /// The library offers none of the versions.
    #[error(transparent)]
    Versions(rustls::Error),
}

/// TLS over connections that come about in one of two ways.
pub(super) struct Secured {
    /// With a provider.
    provider: ClientConfig,
    /// With the proxy before it, which is not told who we are.
    proxy: ClientConfig,
    server_name: Option<ServerName<'static>>,
    http2: Http2,
}

impl Secured {
    pub(super) fn new(tls: Tls, http2: Http2) -> Result<Self, TlsError> {
        let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        for root in tls.extra_roots {
            roots.add(root).map_err(TlsError::Root)?;
        }
        let roots = Arc::new(roots);
        let proxy = trusting(&roots)?.with_no_client_auth();
        let provider = match tls.client_certificate {
            None => proxy.clone(),
            Some(own) => trusting(&roots)?
                .with_client_auth_cert(own.chain, own.key)
                .map_err(TlsError::ClientCertificate)?,
        };
        Ok(Self { provider, proxy, server_name: tls.server_name, http2 })
    }

    /// The way to a provider: TLS for `https://`, the connection as it is for `http://`.
    pub(super) fn to_provider<T>(&self, connections: T) -> HttpsConnector<T> {
        let mut builder = HttpsConnectorBuilder::new().with_tls_config(self.provider.clone()).https_or_http();
        if let Some(name) = &self.server_name {
            builder = builder.with_server_name_resolver(FixedServerNameResolver::new(name.clone()));
        }
        match self.http2 {
            Http2::Negotiated => builder.enable_all_versions(),
            Http2::PriorKnowledge => builder.enable_http2(),
        }
        .wrap_connector(connections)
    }

    /// The way to a proxy, which speaks HTTP/1.1.
    pub(super) fn to_proxy<T>(&self, connections: T) -> HttpsConnector<T> {
        HttpsConnectorBuilder::new()
            .with_tls_config(self.proxy.clone())
            .https_or_http()
            .enable_http1()
            .wrap_connector(connections)
    }
}

fn trusting(roots: &Arc<RootCertStore>) -> Result<ConfigBuilder<ClientConfig, WantsClientCert>, TlsError> {
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Versions)?;
    Ok(builder.with_root_certificates(Arc::clone(roots)))
}
