// SPDX-License-Identifier: Apache-2.0
//! A client's socket that does not wait for ever to be read from.
//!
//! A client that asks and then does not take its answer would keep it in memory. The time starts with the first byte that
//! cannot be written at once, and ends when the client sends something: then it has what it asked for.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use protocol::limits::{HTTP_ANSWER_WAIT, HTTP_STALL_WAIT};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// A socket whose writes fail when its reader is too slow.
#[derive(Debug)]
pub(crate) struct ImpatientStream<S> {
    inner: S,
    /// When the whole answer must be taken, once some of it had to wait.
    whole: Option<Instant>,
    /// The end of the wait that goes on.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl<S> ImpatientStream<S> {
    pub(crate) fn new(inner: S) -> ImpatientStream<S> {
        ImpatientStream { inner, whole: None, stalled: None }
    }

    fn watch(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let now = Instant::now();
        let whole = *self.whole.get_or_insert(now + HTTP_ANSWER_WAIT);
        let until = whole.min(now + HTTP_STALL_WAIT);
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(until)));
        ready!(stalled.as_mut().poll(context));
        let text = "the client does not take its answer";
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, text)))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for ImpatientStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.inner).poll_read(context, buffer))?;
        self.whole = None;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for ImpatientStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(context, bytes);
        self.watch(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write_vectored(context, slices);
        self.watch(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_stops_is_given_up_on() {
        let (ours, _theirs) = duplex(1024);
        let mut stream = ImpatientStream::new(ours);
        let began = Instant::now();
        let error = stream.write_all(&[0; 4096]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(began.elapsed().as_secs(), HTTP_STALL_WAIT.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_trickles_has_a_bound_too() {
        let (ours, mut theirs) = duplex(16);
        let mut stream = ImpatientStream::new(ours);
        let began = Instant::now();
        let reading = tokio::spawn(async move {
            let mut byte = [0; 1];
            while theirs.read(&mut byte).await.is_ok_and(|count| count > 0) {
                tokio::time::sleep(HTTP_STALL_WAIT - Duration::from_secs(1)).await;
            }
        });
        let error = stream.write_all(&[0; 4096]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(began.elapsed() <= HTTP_ANSWER_WAIT + Duration::from_secs(1));
        reading.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_asks_again_starts_anew() {
        let (ours, mut theirs) = duplex(16);
        let mut stream = ImpatientStream::new(ours);
        for _ in 0..10 {
            let exchange = async {
                stream.write_all(&[0; 64]).await.unwrap();
                stream.read_exact(&mut [0; 1]).await.unwrap();
            };
            let client = async {
                tokio::time::sleep(HTTP_STALL_WAIT - Duration::from_secs(1)).await;
                theirs.read_exact(&mut [0; 64]).await.unwrap();
                tokio::time::sleep(HTTP_ANSWER_WAIT).await;
                theirs.write_all(&[1]).await.unwrap();
            };
            tokio::join!(exchange, client);
        }
    }
}
