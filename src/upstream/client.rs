//! The HTTP client of one provider.

use std::time::Duration;

use rustls::pki_types::CertificateDer;

/// How a provider is spoken to.
#[derive(Clone, Debug)]
pub struct ClientSettings {
    /// The bound on TCP connect and TLS handshake together.
    pub connect_timeout: Duration,
    /// The bound on the wait for response headers; none leaves it to the call's own bound.
    pub first_byte_timeout: Option<Duration>,
    /// The bound on the wait for each further piece of a body.
    pub idle_timeout: Option<Duration>,
    /// A larger response is a failed attempt.
    pub max_response_bytes: usize,
    /// Roots trusted beside the public ones.
    pub extra_roots: Vec<CertificateDer<'static>>,
}

/// A connection pool to one provider.
#[derive(Clone, Debug)]
pub struct Client {
    settings: ClientSettings,
}

impl Client {
    /// A pool with these settings.
    ///
    /// # Errors
    /// When an extra root is no certificate that rustls accepts.
    pub fn new(settings: ClientSettings) -> Result<Self, rustls::Error> {
        Ok(Self { settings })
    }
}
