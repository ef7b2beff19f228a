//! A Unix socket that tells of its readers only when somebody waits for them.
//!
//! epoll reports a Unix socket as writable each time that its peer has read, also when nobody
//! wanted to write. A socket that is registered for both directions, as tokio's is, so wakes a
//! thread of the sender for every message, for nothing. This one is registered for reading, and
//! for writing only while its buffer is full.

use std::io::{self, IoSlice, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};

/// A connected Unix socket.
pub struct Local {
    socket: AsyncFd<UnixStream>,
    /// Another descriptor of the socket, while its buffer is full: epoll keeps one registration
    /// for each.
    full: Option<AsyncFd<UnixStream>>,
}

#[expect(unsafe_code, reason = "tokio asks its caller to keep the descriptor")]
fn register(socket: UnixStream, interest: Interest) -> io::Result<AsyncFd<UnixStream>> {
    // SAFETY: the stream owns its descriptor and moves into what is returned, which in this
    // module is only ever looked into (`get_ref`, `get_inner`) and dropped as a whole: until then
    // the descriptor stays open and the same.
    let registered = unsafe { AsyncFd::register_with_interest(socket, interest) };
    registered.map_err(io::Error::from)
}

/// Reads once, into memory that was not filled with zeros for it: of a large body that would be
/// one more pass over every byte, and over room that nothing is read into.
#[expect(
    unsafe_code,
    reason = "tokio trusts its caller with memory that was never written"
)]
fn read(socket: &UnixStream, buf: &mut ReadBuf<'_>) -> io::Result<usize> {
    // SAFETY: nothing but the system call writes there, and it only writes bytes.
    let unfilled = unsafe { buf.unfilled_mut() };
    let (filled, _) = rustix::io::read(socket, unfilled)?;
    let read = filled.len();
    // SAFETY: these are the bytes that were just read, at the beginning of what was unfilled.
    unsafe { buf.assume_init(read) };
    buf.advance(read);
    Ok(read)
}

// === impl Local ===

impl Local {
    /// Takes over a connected socket.
    ///
    /// # Errors
    /// When the process has no room for it in its epoll instance.
    pub fn new(socket: tokio::net::UnixStream) -> io::Result<Local> {
        // Stays non-blocking.
        let socket = socket.into_std()?;
        let socket = register(socket, Interest::READABLE)?;
        Ok(Local { socket, full: None })
    }

    /// Writes at once, or when there is room again.
    fn poll_when_writable(
        &mut self,
        cx: &mut Context<'_>,
        write: impl Fn(&UnixStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            if let Some(full) = &self.full {
                ready!(full.poll_write_ready(cx))?.clear_ready();
            }
            match write(self.socket.get_ref()) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if self.full.is_none() {
                        let again = self.socket.get_ref().try_clone()?;
                        self.full = Some(register(again, Interest::WRITABLE)?);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                done => {
                    self.full = None;
                    return Poll::Ready(done);
                }
            }
        }
    }
}

impl AsyncRead for Local {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let mut ready = ready!(self.socket.poll_read_ready(cx))?;
            let room = buf.remaining();
            match read(ready.get_inner(), buf) {
                Ok(read) => {
                    if 0 < read && read < room {
                        // All that was there: what comes next is reported anew.
                        ready.clear_ready();
                    }
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready.clear_ready(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncWrite for Local {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let write = |mut socket: &UnixStream| socket.write(buf);
        self.get_mut().poll_when_writable(cx, write)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let write = |mut socket: &UnixStream| socket.write_vectored(bufs);
        self.get_mut().poll_when_writable(cx, write)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.socket.get_ref().shutdown(Shutdown::Write))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    fn pair() -> (Local, Local) {
        let (one, other) = tokio::net::UnixStream::pair().unwrap();
        (Local::new(one).unwrap(), Local::new(other).unwrap())
    }

    /// More than any socket's buffer, and every byte other than its neighbours.
    fn much() -> Vec<u8> {
        (0..4_000_000_u32).map(|n| (n % 251) as u8).collect()
    }

    #[tokio::test]
    async fn all_that_is_written_arrives_in_order_also_when_the_buffer_is_full_in_between() {
        let (mut one, mut other) = pair();
        let sent = much();
        let writing = async {
            one.write_all(&sent).await.unwrap();
            one.shutdown().await.unwrap();
            one
        };
        let mut read = Vec::new();
        let (one, length) = tokio::join!(writing, other.read_to_end(&mut read));
        assert_eq!(length.unwrap(), sent.len());
        assert!(read == sent, "what was read is not what was sent");
        assert!(one.full.is_none(), "there is room again");
    }

    #[tokio::test]
    async fn both_directions_are_full_and_flow_at_once() {
        let (one, other) = pair();
        let sent = much();
        let exchange = |io: Local| {
            let sent = sent.clone();
            async move {
                let (mut reader, mut writer) = tokio::io::split(io);
                let writing = async {
                    writer.write_all(&sent).await.unwrap();
                    writer.shutdown().await.unwrap();
                };
                let mut read = Vec::new();
                let ((), length) = tokio::join!(writing, reader.read_to_end(&mut read));
                length.unwrap();
                read
            }
        };
        let (at_one, at_other) = tokio::join!(exchange(one), exchange(other));
        assert!(at_one == sent && at_other == sent);
    }

    #[tokio::test]
    async fn who_waits_for_room_is_told_when_the_peer_goes() {
        let (mut one, other) = pair();
        let sent = much();
        let writing = tokio::spawn(async move { one.write_all(&sent).await });
        tokio::task::yield_now().await;
        drop(other);
        let error = writing.await.unwrap().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }

    #[tokio::test]
    async fn what_comes_after_a_wait_is_read() {
        let (mut one, mut other) = pair();
        let reading = tokio::spawn(async move {
            let mut read = [0; 3];
            other.read_exact(&mut read).await.unwrap();
            read
        });
        for byte in [1, 2, 3] {
            tokio::task::yield_now().await;
            one.write_all(&[byte]).await.unwrap();
        }
        assert_eq!(reading.await.unwrap(), [1, 2, 3]);
    }
}
