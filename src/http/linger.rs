//! Connections that end so that the last words arrive.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// How long a peer may take to close its side.
const LINGER: Duration = Duration::from_secs(1);

/// A socket that is closed in good order.
///
/// One that is closed while something lies in it unread, or is still on its way, answers with a reset; the peer then
/// loses what it has not read yet, which is the end of an answer. So this one closes its writing half first, and
/// reads what still comes until the peer has closed, too, or a second has passed.
#[derive(Debug)]
pub struct Lingering<I> {
    io: I,
    /// Set once the writing half is closed.
    until: Option<Pin<Box<Sleep>>>,
}

impl<I> Lingering<I> {
    /// The same socket.
    pub fn new(io: I) -> Self {
        Self { io, until: None }
    }

    /// The socket itself.
    pub fn inner(&self) -> &I {
        &self.io
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Lingering<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buffer)
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Lingering<I> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { io, until } = &mut *self;
        let until = match until {
            Some(until) => until,
            None => {
                ready!(Pin::new(&mut *io).poll_shutdown(cx))?;
                until.insert(Box::pin(sleep(LINGER)))
            }
        };
        let mut unheard = [0; 1024];
        loop {
            let mut buffer = ReadBuf::new(&mut unheard);
            match Pin::new(&mut *io).poll_read(cx, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {}
                // The peer has closed, or is no longer there.
                Poll::Ready(_) => return Poll::Ready(Ok(())),
                Poll::Pending => return until.as_mut().poll(cx).map(Ok),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::time::Instant;

    use super::*;

    /// A connection whose one side has said something that the other has not read.
    async fn connection() -> (TcpStream, Lingering<TcpStream>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut peer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (ours, _) = listener.accept().await.unwrap();
        peer.write_all(b"unread").await.unwrap();
        ours.readable().await.unwrap();
        (peer, Lingering::new(ours))
    }

    #[tokio::test]
    async fn what_was_said_last_arrives_although_something_was_unread() {
        let (mut peer, mut ours) = connection().await;
        // As much as the sockets hold: part of it has not left when ours is closed.
        let mut said = 0;
        while let Ok(Ok(written)) =
            tokio::time::timeout(Duration::from_millis(50), ours.write(&[7; 65536])).await
        {
            said += written;
        }
        let closing = tokio::spawn(async move { ours.shutdown().await });
        let mut heard = Vec::new();
        peer.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard.len(), said);
        drop(peer);
        closing.await.unwrap().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_does_not_close_is_not_waited_for() {
        let (_peer, mut ours) = connection().await;
        let began = Instant::now();
        ours.shutdown().await.unwrap();
        assert!(began.elapsed() >= LINGER && began.elapsed() < 2 * LINGER, "{:?}", began.elapsed());
    }
}
