//! A connection that is closed without losing its last words.
//!
//! SUBTLE: closing a socket while bytes of the client are unread makes the kernel reset the connection, upon which the client throws
//! away what it has not read yet: a stream that is told why it ends while its client still sends would end without a word. So our side
//! is closed first, and what still comes is thrown away, until the client closes its side or [`LINGER_MAX`] has passed.

use std::io::Result;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// How long a client may take to close its side.
const LINGER_MAX: Duration = Duration::from_millis(500);

/// The two halves of a connection. See the module.
pub(super) struct Lingering<R, W> {
    reader: R,
    writer: W,
    /// Set when our side is closed.
    until: Option<Pin<Box<Sleep>>>,
}

impl<R: AsyncRead + Unpin, W: AsyncWrite + Unpin> Lingering<R, W> {
    pub(super) fn new(reader: R, writer: W) -> Self {
        Self { reader, writer, until: None }
    }
}

impl<R: AsyncRead + Unpin, W: Unpin> AsyncRead for Lingering<R, W> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.reader).poll_read(context, buffer)
    }
}

impl<R: AsyncRead + Unpin, W: AsyncWrite + Unpin> AsyncWrite for Lingering<R, W> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize>> {
        Pin::new(&mut self.writer).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[std::io::IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        Pin::new(&mut self.writer).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.writer.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.writer).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        let this = &mut *self;
        if this.until.is_none() {
            ready!(Pin::new(&mut this.writer).poll_shutdown(context))?;
        }
        let until = this.until.get_or_insert_with(|| Box::pin(sleep(LINGER_MAX)));
        let mut thrown_away = [0; 4096];
        while until.as_mut().poll(context).is_pending() {
            let mut buffer = ReadBuf::new(&mut thrown_away);
            let read = ready!(Pin::new(&mut this.reader).poll_read(context, &mut buffer));
            if read.is_err() || buffer.filled().is_empty() {
                break;
            }
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    #[tokio::test]
    async fn last_words_reach_a_client_that_still_sends() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (accepted, _) = listener.accept().await.unwrap();
        client.write_all(&[7; 100_000]).await.unwrap();
        let (reader, writer) = accepted.into_split();
        let closing = tokio::spawn(async move {
            let mut connection = Lingering::new(reader, writer);
            connection.write_all(b"last words").await.unwrap();
            connection.shutdown().await.unwrap();
        });
        let mut heard = Vec::new();
        client.write_all(&[7; 100_000]).await.unwrap();
        client.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard, b"last words");
        client.write_all(&[7; 100_000]).await.unwrap();
        drop(client);
        closing.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_never_closes_is_not_waited_for_for_long() {
        let (_client, ours) = tokio::io::duplex(64);
        let (reader, writer) = tokio::io::split(ours);
        Lingering::new(reader, writer).shutdown().await.unwrap();
    }
}
