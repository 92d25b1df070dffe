//! Accepted connections: how many there may be, how long they may keep silent at first, and how they end: orderly, so that
//! the last answers reach the client, or cut.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::stream::{self, Stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Sleep;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::transport::server::Connected;

/// How long to wait after a connection could not be accepted: mostly for want of a file descriptor.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);
/// HTTP/2's connection preface: until it is there, the protocol's own keepalive does not watch the connection.
const PREFACE_BYTES: usize = 24;
/// How long a closed connection is still listened to, for the client to take what is under way and close its side.
const LINGER: Duration = Duration::from_secs(1);
/// What is discarded at a time.
const DISCARD_BYTES: usize = 16 << 10;

/// What connections are held to.
#[derive(Debug, Clone)]
pub(super) struct ConnectionLimits {
    /// Open connections; further ones wait in the listen queue.
    pub(super) max_connections: usize,
    /// The time a new connection has to send its preface.
    pub(super) preface_timeout: Duration,
    /// Cancelled, it breaks all connections.
    pub(super) cut: CancellationToken,
}

/// The connections that `listener` gets. Never ends, and never yields an error: what cannot be accepted now is waited
/// for.
pub(super) fn connections(
    listener: TcpListener,
    limits: ConnectionLimits,
) -> impl Stream<Item = io::Result<Connection>> {
    let permits = Arc::new(Semaphore::new(limits.max_connections));
    stream::unfold((listener, permits, limits), |(listener, permits, limits)| async move {
        let permit = permit(&permits, limits.max_connections).await?;
        let connection = accept(&listener, permit, &limits).await;
        Some((Ok(connection), (listener, permits, limits)))
    })
}

async fn permit(permits: &Arc<Semaphore>, max_connections: usize) -> Option<OwnedSemaphorePermit> {
    if let Ok(permit) = Arc::clone(permits).try_acquire_owned() {
        return Some(permit);
    }
    tracing::warn!(max_connections, "all connections are taken; new ones wait until one is closed");
    Arc::clone(permits).acquire_owned().await.ok()
}

async fn accept(
    listener: &TcpListener,
    permit: OwnedSemaphorePermit,
    limits: &ConnectionLimits,
) -> Connection {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%error, "cannot set TCP_NODELAY");
                }
                // A child each: a token's waiters share a lock.
                let cut = limits.cut.child_token();
                return Connection {
                    stream,
                    cut: Box::pin(cut.clone().cancelled_owned()),
                    cutter: Cut(cut),
                    preface: Some((Box::pin(tokio::time::sleep(limits.preface_timeout)), PREFACE_BYTES)),
                    linger: None,
                    _permit: permit,
                    _place: None,
                };
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_RETRY).await;
            }
        }
    }
}

/// One accepted connection.
#[derive(Debug)]
pub(super) struct Connection {
    stream: TcpStream,
    /// While the preface is awaited: until when, and what is missing of it.
    preface: Option<(Pin<Box<Sleep>>, usize)>,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
    cutter: Cut,
    /// Once the write side is shut down: until when the client has time to close its own.
    linger: Option<Pin<Box<Sleep>>>,
    _permit: OwnedSemaphorePermit,
    /// Where there are only so many like it.
    _place: Option<OwnedSemaphorePermit>,
}

impl Connection {
    /// The same connection, which keeps `place` for as long as it lasts.
    pub(super) fn in_place(self, place: Option<OwnedSemaphorePermit>) -> Self {
        Self { _place: place, ..self }
    }

    /// Reads to the end of what the client sends, and discards it. Until [`LINGER`] is over, a cut comes, or reading
    /// fails, whichever is first: all of it means that nothing is left to wait for.
    fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.cut.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        if let Some(linger) = &mut self.linger
            && linger.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(());
        }
        let mut space = [MaybeUninit::uninit(); DISCARD_BYTES];
        loop {
            let mut buf = ReadBuf::uninit(&mut space);
            let read = ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buf));
            if read.is_err() || buf.filled().is_empty() {
                return Poll::Ready(());
            }
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.cut.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        if let Some((deadline, missing)) = &mut self.preface {
            *missing = missing.saturating_sub(buf.filled().len() - before);
            if *missing == 0 {
                self.preface = None;
            } else if polled.is_pending() && deadline.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
        }
        polled
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    /// Ready once the socket may be closed. One that is closed with bytes unread is reset, which discards the answers
    /// that the client has not received, and breaks its next write before it reads those that it has.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.linger.is_none() {
            ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
            self.linger = Some(Box::pin(tokio::time::sleep(LINGER)));
        }
        self.poll_discard(cx).map(Ok)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

/// Breaks the connection that a request has come on: found among the request's extensions.
#[derive(Debug, Clone, Default)]
pub(super) struct Cut(pub(super) CancellationToken);

impl Connected for Connection {
    type ConnectInfo = Cut;

    fn connect_info(&self) -> Cut {
        self.cutter.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};

    use futures_util::StreamExt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    async fn listening(
        max_connections: usize,
        preface_timeout: Duration,
    ) -> (SocketAddr, CancellationToken, Pin<Box<impl Stream<Item = io::Result<Connection>>>>) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let addr = listener.local_addr().expect("an address");
        let cut = CancellationToken::new();
        let limits = ConnectionLimits { max_connections, preface_timeout, cut: cut.clone() };
        (addr, cut, Box::pin(connections(listener, limits)))
    }

    #[tokio::test]
    async fn one_connection_more_waits_until_another_is_closed() {
        let (addr, _cut, mut accepted) = listening(1, Duration::from_mins(1)).await;
        let _first = TcpStream::connect(addr).await.expect("connected");
        let _second = TcpStream::connect(addr).await.expect("in the listen queue");
        let first = accepted.next().await.expect("accepted");
        {
            let mut next = accepted.next();
            assert!(futures_util::poll!(&mut next).is_pending());
            drop(first);
            next.await.expect("accepted").expect("a connection");
        }
    }

    #[tokio::test]
    async fn a_connection_that_says_nothing_is_given_up() {
        let (addr, _cut, mut accepted) = listening(1, Duration::from_millis(1)).await;
        let mut client = TcpStream::connect(addr).await.expect("connected");
        let mut server = accepted.next().await.expect("accepted").expect("a connection");
        client.write_all(b"PRI").await.expect("sent");
        let mut seen = Vec::new();
        let error = server.read_to_end(&mut seen).await.expect_err("no preface");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn a_cut_ends_a_waiting_connection() {
        let (addr, cut, mut accepted) = listening(1, Duration::from_mins(1)).await;
        let _client = TcpStream::connect(addr).await.expect("connected");
        let mut server = accepted.next().await.expect("accepted").expect("a connection");
        let reading = tokio::spawn(async move { server.read_u8().await });
        cut.cancel();
        let error = reading.await.expect("joined").expect_err("cut");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted);
    }

    /// What the socket takes of an answer that the client does not read yet.
    async fn fill(server: &mut Connection) -> usize {
        let mut sent = 0;
        while let Poll::Ready(written) = futures_util::poll!(Box::pin(server.write(&[7; DISCARD_BYTES]))) {
            sent += written.expect("sent");
        }
        sent
    }

    #[tokio::test]
    async fn answers_under_way_outlive_requests_that_are_not_read() {
        let (addr, _cut, mut accepted) = listening(1, Duration::from_mins(1)).await;
        let mut client = TcpStream::connect(addr).await.expect("connected");
        let mut server = accepted.next().await.expect("accepted").expect("a connection");
        client.write_all(b"a request that comes too late").await.expect("sent");
        server.stream.readable().await.expect("it is there");
        let sent = fill(&mut server).await;
        let mut closing = Box::pin(async move { server.shutdown().await });
        let closed = futures_util::poll!(&mut closing).is_ready();
        if closed {
            drop(closing);
            let mut seen = Vec::new();
            let received = client.read_to_end(&mut seen).await;
            panic!("closed at once; of {sent} bytes, {} were received: {received:?}", seen.len());
        }
        let client = tokio::spawn(async move {
            let mut seen = Vec::new();
            client.read_to_end(&mut seen).await.expect("all of the answer");
            seen.len()
        });
        closing.await.expect("closed");
        assert_eq!(client.await.expect("joined"), sent);
    }

    #[tokio::test]
    async fn a_client_that_does_not_close_its_side_is_not_waited_for_forever() {
        let (addr, cut, mut accepted) = listening(2, Duration::from_mins(1)).await;
        let _clients = [TcpStream::connect(addr).await, TcpStream::connect(addr).await];
        let begun = tokio::time::Instant::now();
        let mut server = accepted.next().await.expect("accepted").expect("a connection");
        server.shutdown().await.expect("closed");
        assert!(begun.elapsed() >= LINGER, "it has had its time");

        let mut server = accepted.next().await.expect("accepted").expect("a connection");
        let begun = tokio::time::Instant::now();
        cut.cancel();
        server.shutdown().await.expect("closed");
        assert!(begun.elapsed() < LINGER, "a cut ends it at once");
    }
}
