//! Connections in two lanes, which differ in how much a client may send before it is read.
//!
//! A fast producer waits for the server whenever its window is used up, and a window wide enough that it never does costs
//! memory that a client can fill at will. So only so many connections at a time have a wide one: the first that come, for
//! as long as they last. The others do with a narrow one.

use std::io;
use std::pin::pin;
use std::sync::Arc;

use futures_util::stream::{Stream, StreamExt};
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

use super::listener::Connection;

/// The connections of one lane, as they come.
pub(super) type Lane = ReceiverStream<io::Result<Connection>>;

/// The wide lane, of at most `wide_connections` at a time, and the narrow one. They are filled while the returned future
/// runs, which ends when `shutdown` comes or nobody takes them any more; then they end.
pub(super) fn lanes(
    connections: impl Stream<Item = io::Result<Connection>>,
    wide_connections: usize,
    shutdown: CancellationToken,
) -> (Lane, Lane, impl Future<Output = ()>) {
    let (wide, wide_lane) = mpsc::channel(1);
    let (narrow, narrow_lane) = mpsc::channel(1);
    let places = Arc::new(Semaphore::new(wide_connections));
    let fill = async move {
        let mut connections = pin!(connections);
        while let Some(connection) = connections.next().await {
            let place = Arc::clone(&places).try_acquire_owned().ok();
            let lane = if place.is_some() { &wide } else { &narrow };
            let connection = connection.map(|connection| connection.in_place(place));
            if lane.send(connection).await.is_err() {
                return;
            }
        }
    };
    let fill = async move {
        shutdown.run_until_cancelled_owned(fill).await;
    };
    (ReceiverStream::new(wide_lane), ReceiverStream::new(narrow_lane), fill)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::time::Duration;

    use futures_util::FutureExt;
    use tokio::net::{TcpListener, TcpStream};

    use super::super::listener::{ConnectionLimits, connections};
    use super::*;

    #[tokio::test]
    async fn a_place_in_the_wide_lane_is_free_again_when_its_connection_ends() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let addr = listener.local_addr().expect("an address");
        let limits = ConnectionLimits {
            max_connections: 10,
            preface_timeout: Duration::from_mins(1),
            cut: CancellationToken::new(),
        };
        let shutdown = CancellationToken::new();
        let (mut wide, mut narrow, fill) = lanes(connections(listener, limits), 1, shutdown.clone());
        let filling = tokio::spawn(fill);
        let mut clients = Vec::new();
        clients.push(TcpStream::connect(addr).await.expect("connected"));
        let first = wide.next().await.expect("the wide lane is free").expect("a connection");
        clients.push(TcpStream::connect(addr).await.expect("connected"));
        let _second = narrow.next().await.expect("the wide lane is full").expect("a connection");
        drop(first);
        clients.push(TcpStream::connect(addr).await.expect("connected"));
        let _third = wide.next().await.expect("it is free again").expect("a connection");
        assert!(narrow.next().now_or_never().is_none());

        shutdown.cancel();
        filling.await.expect("it ends");
        assert!(wide.next().await.is_none() && narrow.next().await.is_none());
    }
}
