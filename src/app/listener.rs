//! Listeners, bound before anything is served.

use tokio::net::TcpListener;

use super::Error;
use super::socket::Socket;
use crate::config::{Address, Config};

/// The permissions of an operators' socket: it asks nobody who they are.
const ADMIN_MODE: u32 = 0o600;

/// Where a service listens.
#[derive(Debug)]
pub struct Listeners {
    /// Envoy's external processing.
    pub ext_proc: Listener,
    /// The plain HTTP door, where it is open.
    pub http: Option<Listener>,
    /// Operators' listener; none when it is turned off.
    pub admin: Option<Listener>,
}

impl Listeners {
    /// Binds what the configuration says.
    ///
    /// # Errors
    /// When one of them cannot be bound.
    pub async fn bind(config: &Config) -> Result<Self, Error> {
        let listen = &config.listen;
        let ext_proc = Listener::bind("listen.ext_proc", &listen.ext_proc, listen.socket_mode).await?;
        let http = Listener::bind_where("listen.http", listen.http.as_ref(), listen.socket_mode).await?;
        let admin = Listener::bind_where("listen.admin", listen.admin.as_ref(), ADMIN_MODE).await?;
        Ok(Self { ext_proc, http, admin })
    }
}

/// A bound listener.
#[derive(Debug)]
pub enum Listener {
    /// A TCP socket.
    Tcp(TcpListener),
    /// A Unix domain socket.
    Unix(Socket),
}

impl Listener {
    /// Binds the address that stands at `key` of the configuration; a Unix socket's file has these permissions.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub async fn bind(key: &'static str, address: &Address, socket_mode: u32) -> Result<Self, Error> {
        let bound = match address {
            Address::Tcp(host_port) => TcpListener::bind(host_port).await.map(Self::Tcp),
            Address::Unix(path) => Socket::bind(path, socket_mode).map(Self::Unix),
        };
        bound.map_err(|source| Error::Bind { key, address: address.to_string(), source })
    }

    async fn bind_where(
        key: &'static str,
        address: Option<&Address>,
        socket_mode: u32,
    ) -> Result<Option<Self>, Error> {
        match address {
            Some(address) => Self::bind(key, address, socket_mode).await.map(Some),
            None => Ok(None),
        }
    }

    /// Whether others than this machine may reach it.
    pub(super) fn is_exposed(&self) -> bool {
        match self {
            Self::Tcp(tcp) => {
                tcp.local_addr().is_ok_and(|address| !address.ip().to_canonical().is_loopback())
            }
            Self::Unix(_) => false,
        }
    }

    /// Where it listens, where others than this machine may reach it.
    pub(super) fn exposed(&self) -> Option<String> {
        self.is_exposed().then(|| self.address())
    }

    /// Where it listens.
    pub fn address(&self) -> String {
        match self {
            Self::Tcp(tcp) => tcp.local_addr().map_or_else(|e| e.to_string(), |a| a.to_string()),
            Self::Unix(socket) => socket.address(),
        }
    }
}
