//! A client that speaks HTTP/2 and no more: it can stop wherever it likes, which no gRPC client would.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use h2::client::{ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tonic::Status;
use tonic::codegen::http;
use tonic_types::StatusExt;

/// A connection of its own.
pub(crate) struct RawClient {
    authority: String,
    requests: SendRequest<Bytes>,
    /// Once told, nothing more is read from the socket, and nothing written.
    frozen: Arc<Notify>,
    driver: JoinHandle<()>,
}

impl RawClient {
    /// `window_bytes`: what the server may send before anything is read.
    pub(crate) async fn connect(address: &str, window_bytes: u32) -> Self {
        let stream = TcpStream::connect(address).await.expect("connected");
        let (requests, mut connection) = h2::client::Builder::new()
            .initial_window_size(window_bytes)
            .initial_connection_window_size(window_bytes)
            .handshake(stream)
            .await
            .expect("HTTP/2");
        let frozen = Arc::new(Notify::new());
        let freezes = Arc::clone(&frozen);
        let driver = tokio::spawn(async move {
            tokio::select! {
                _ = &mut connection => {}
                // The connection stays open until the client is dropped.
                () = freezes.notified() => std::future::pending().await,
            }
        });
        Self { authority: address.to_owned(), requests, frozen, driver }
    }

    /// Opens a call of LogService. What it sends is not ended.
    pub(crate) async fn open(&self, method: &str) -> (ResponseFuture, SendStream<Bytes>) {
        let mut requests = self.requests.clone().ready().await.expect("ready");
        let request = http::Request::post(format!("http://{}/sagwan.v1.LogService/{method}", self.authority))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())
            .expect("a request");
        requests.send_request(request, false).expect("sent")
    }

    /// Stops reading the socket.
    pub(crate) fn freeze(&self) {
        self.frozen.notify_one();
    }
}

impl Drop for RawClient {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// What begins a message of this length.
pub(crate) fn prefix(length: u32) -> Bytes {
    let mut prefix = BytesMut::new();
    prefix.put_u8(0);
    prefix.put_u32(length);
    prefix.freeze()
}

/// A whole message.
pub(crate) fn framed(message: &impl prost::Message) -> Bytes {
    let mut framed = BytesMut::from(prefix(message.encoded_len() as u32).as_ref());
    message.encode(&mut framed).expect("encoded");
    framed.freeze()
}

/// The status of an answer, whose data is thrown away; none if the connection or the stream was broken off.
pub(crate) async fn status(answer: ResponseFuture) -> Option<Status> {
    let (head, body) = answer.await.ok()?.into_parts();
    match Status::from_header_map(&head.headers) {
        Some(status) => Some(status),
        None => status_behind(body).await,
    }
}

/// The status at the end of a body, whose data is thrown away.
pub(crate) async fn status_behind(mut body: RecvStream) -> Option<Status> {
    while let Some(data) = body.data().await {
        body.flow_control().release_capacity(data.ok()?.len()).ok()?;
    }
    Status::from_header_map(&body.trailers().await.ok()??)
}

/// The reason of a status.
pub(crate) fn reason(status: &Status) -> String {
    status.get_details_error_info().map_or_else(|| format!("{status:?}"), |info| info.reason)
}
