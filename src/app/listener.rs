//! Listeners, bound before anything is served.

use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::{fs, io};

use tokio::net::{TcpListener, UnixListener};

use super::Error;
use crate::config::{Address, Config};

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
        let ext_proc = Listener::bind("listen.ext_proc", &config.listen.ext_proc).await?;
        let http = Listener::bind_where("listen.http", config.listen.http.as_ref()).await?;
        let admin = Listener::bind_where("listen.admin", config.listen.admin.as_ref()).await?;
        Ok(Self { ext_proc, http, admin })
    }
}

/// A bound listener.
#[derive(Debug)]
pub enum Listener {
    /// A TCP socket.
    Tcp(TcpListener),
    /// A Unix domain socket.
    Unix(UnixListener),
}

impl Listener {
    /// Binds the address that stands at `key` of the configuration. A Unix socket that nobody listens on any more
    /// is replaced.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub async fn bind(key: &'static str, address: &Address) -> Result<Self, Error> {
        let bound = match address {
            Address::Tcp(host_port) => TcpListener::bind(host_port).await.map(Self::Tcp),
            Address::Unix(path) => remove_stale(path).and_then(|()| UnixListener::bind(path)).map(Self::Unix),
        };
        bound.map_err(|source| Error::Bind { key, address: address.to_string(), source })
    }

    async fn bind_where(key: &'static str, address: Option<&Address>) -> Result<Option<Self>, Error> {
        match address {
            Some(address) => Self::bind(key, address).await.map(Some),
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
            Self::Unix(unix) => match unix.local_addr() {
                Ok(address) => format!("unix:{}", address.as_pathname().unwrap_or("".as_ref()).display()),
                Err(e) => e.to_string(),
            },
        }
    }
}

/// Removes a socket that an earlier process has left: one, and nothing else, that refuses connections.
fn remove_stale(path: &Path) -> io::Result<()> {
    let is_socket = fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket());
    match UnixStream::connect(path) {
        Err(e) if is_socket && e.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;
    use std::time::Duration;

    use super::*;

    #[test]
    fn only_a_socket_that_nobody_listens_on_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let (file, live, stale) =
            (dir.path().join("file"), dir.path().join("live"), dir.path().join("stale"));
        fs::write(&file, "precious").unwrap();
        let _listening = UnixListener::bind(&live).unwrap();
        drop(UnixListener::bind(&stale).unwrap());
        for path in [&file, &live, &dir.path().join("none")] {
            remove_stale(path).unwrap();
        }
        // A process that another test is starting may hold the socket until it has begun.
        for _ in 0..200 {
            remove_stale(&stale).unwrap();
            if !stale.exists() {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        assert_eq!((file.exists(), live.exists(), stale.exists()), (true, true, false));
    }
}
