//! A Unix domain socket and its file: made with its permissions, and removed with it.

use std::fs::{self, Metadata, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream as Probe;
use std::path::{Path, PathBuf};

use axum::serve::Listener;
use futures_util::{Stream, stream};
use tokio::net::unix::SocketAddr;
use tokio::net::{UnixListener, UnixSocket, UnixStream};
use tracing::warn;

/// How many connections may wait to be accepted; as many as the standard library has for sockets of the network.
const BACKLOG: u32 = 1024;

/// A bound socket. Dropping it removes its file.
#[derive(Debug)]
pub struct Socket {
    // Before the listener: while that is open, whoever starts next finds the place taken, and this file can be no
    // other's.
    file: File,
    listener: UnixListener,
}

/// The file of a socket.
#[derive(Debug)]
struct File {
    path: PathBuf,
    /// The device, and the number there.
    identity: (u64, u64),
}

impl Socket {
    /// Binds `path` with these permissions. What is there is replaced when it is a socket that nobody listens on any
    /// more.
    ///
    /// # Errors
    /// When something else is there, or the file cannot be made.
    pub(super) fn bind(path: &Path, mode: u32) -> io::Result<Self> {
        remove_stale(path)?;
        let socket = UnixSocket::new_stream()?;
        socket.bind(path)?;
        let file = File { path: path.to_owned(), identity: identity(&fs::symlink_metadata(path)?) };
        // Before anybody can connect: what the process's mask leaves open is not ours to give.
        fs::set_permissions(path, Permissions::from_mode(mode))?;
        Ok(Self { file, listener: socket.listen(BACKLOG)? })
    }

    /// As it stands in the configuration.
    pub(super) fn address(&self) -> String {
        format!("unix:{}", self.file.path.display())
    }

    /// The connections that come in. The file is there for as long as they are asked for.
    pub(super) fn into_incoming(self) -> impl Stream<Item = io::Result<UnixStream>> {
        stream::poll_fn(move |context| {
            // As a whole: of its listener alone, the closure would not keep the file.
            let socket = &self;
            socket.listener.poll_accept(context).map(|accepted| Some(accepted.map(|(io, _)| io)))
        })
    }
}

impl Listener for Socket {
    type Io = UnixStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (UnixStream, SocketAddr) {
        Listener::accept(&mut self.listener).await
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let is_ours = |there: &Metadata| identity(there) == self.identity;
        if fs::symlink_metadata(&self.path).as_ref().is_ok_and(is_ours)
            && let Err(error) = fs::remove_file(&self.path)
        {
            warn!(path = %self.path.display(), %error, "the socket's file stays behind");
        }
    }
}

fn identity(file: &Metadata) -> (u64, u64) {
    (file.dev(), file.ino())
}

/// Removes a socket that an earlier process has left: one, and nothing else, that refuses connections.
fn remove_stale(path: &Path) -> io::Result<()> {
    let taken = |what: &str| io::Error::new(io::ErrorKind::AddrInUse, what);
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(file) if !file.file_type().is_socket() => {
            Err(taken("something is there that is no socket; it is left as it is"))
        }
        Ok(_) => match Probe::connect(path) {
            Ok(_) => Err(taken("another process listens on it")),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
            Err(error) => Err(error),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;
    use std::time::Duration;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[tokio::test]
    async fn a_socket_has_its_permissions_and_takes_its_file_along() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        for wanted in [0o660, 0o600, 0o666] {
            let socket = Socket::bind(&path, wanted).unwrap();
            assert_eq!(mode(&path), wanted);
            assert!(Probe::connect(&path).is_ok());
            drop(socket);
            assert!(!path.exists());
        }
    }

    #[tokio::test]
    async fn a_file_that_has_come_into_its_place_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let first = Socket::bind(&path, 0o600).unwrap();
        fs::remove_file(&path).unwrap();
        let _second = Socket::bind(&path, 0o600).unwrap();
        drop(first);
        assert!(path.exists());
    }

    #[tokio::test]
    async fn only_a_socket_that_nobody_listens_on_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let [file, live, stale, nowhere] =
            ["file", "live", "stale", "none/socket"].map(|name| dir.path().join(name));
        fs::write(&file, "precious").unwrap();
        let _listening = UnixListener::bind(&live).unwrap();
        let refused = |path: &Path| Socket::bind(path, 0o600).unwrap_err().to_string();
        assert!(refused(&file).contains("no socket") && file.exists());
        assert_eq!(refused(&live), "another process listens on it");
        assert!(refused(&nowhere).contains("No such file"));
        drop(UnixListener::bind(&stale).unwrap());
        // A process that another test is starting may hold the socket until it has begun.
        let mut bound = Socket::bind(&stale, 0o600);
        for _ in 0..200 {
            if bound.is_ok() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
            bound = Socket::bind(&stale, 0o600);
        }
        bound.unwrap();
    }
}
