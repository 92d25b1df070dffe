//! Messages at their limit, lengths that are only declared, and what is no message at all.

use bytes::Bytes;
use prost::Message;
use sagwan::proto::{ProduceRequest, Record};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::Code;

use crate::raw::{self, RawClient};
use crate::{GoodClient, soon, start, start_with};

/// The least there can be.
const LIMIT: usize = 64 << 10;

/// A produce whose message is just so large.
fn sized(bytes: usize) -> ProduceRequest {
    let with = |value: usize| ProduceRequest {
        topic: "sized".to_owned(),
        partition: Some(0),
        records: vec![Record { value: Some(Bytes::from(vec![1; value])), ..Default::default() }],
        ..Default::default()
    };
    let envelope = with(bytes).encoded_len() - bytes;
    let request = with(bytes - envelope);
    assert_eq!(request.encoded_len(), bytes);
    request
}

#[tokio::test]
async fn a_message_may_be_as_large_as_the_limit_and_not_a_byte_larger() {
    let (server, _dir) = start_with(&format!(
        "[grpc]\nmax_message_bytes = {LIMIT}\n[broker]\nmax_message_bytes_limit = {}\n",
        LIMIT - (16 << 10)
    ));
    let mut good = GoodClient::connect(&server).await;
    good.create("sized", &[("max_message_bytes", "49152")]).await;
    // Within the limit it is the topic that refuses it.
    for (bytes, read) in [(LIMIT - 1, true), (LIMIT, true), (LIMIT + 1, false)] {
        let status =
            soon("an answer", good.log.produce(sized(bytes))).await.expect_err("too large for the topic");
        assert_eq!(status.code(), Code::InvalidArgument);
        assert_eq!(raw::reason(&status), "MESSAGE_TOO_LARGE");
        let refused_unread = status.message().contains("grpc.max_message_bytes");
        assert_eq!(read, !refused_unread, "{bytes}: {}", status.message());
    }
    good.round_trip("sized").await;
}

#[tokio::test]
async fn a_length_that_is_only_declared_takes_no_memory() {
    let (server, _dir) = start("");
    let mut good = GoodClient::connect(&server).await;
    good.create("other", &[]).await;
    good.round_trip("other").await;
    let before = server.memory_bytes("VmHWM");
    let client = RawClient::connect(server.address(), 65_535).await;
    let mut waiting = Vec::new();
    for method in ["Produce", "ProduceStream", "Fetch", "FetchStream", "ListOffsets"] {
        let (answer, mut body) = client.open(method).await;
        body.send_data(raw::prefix(u32::MAX), false).expect("sent");
        let status = soon("a refusal", raw::status(answer)).await.expect("a status");
        assert_eq!(raw::reason(&status), "MESSAGE_TOO_LARGE", "{method}");
        // What is within the limit is waited for.
        for _ in 0..100 {
            let (answer, mut body) = client.open(method).await;
            body.send_data(raw::prefix(32 << 20), false).expect("sent");
            waiting.push((answer, body));
        }
    }
    good.round_trip("other").await;
    let grown = server.memory_bytes("VmHWM") - before;
    assert!(
        grown < 32 << 20,
        "{} messages of 32 MiB, of which nothing came, took {} KiB",
        waiting.len(),
        grown >> 10
    );
}

#[tokio::test]
async fn many_records_of_no_size_are_refused_before_they_are_decoded() {
    let (server, _dir) = start("");
    let mut good = GoodClient::connect(&server).await;
    good.create("other", &[]).await;
    // Two bytes each, of which a hundred are made.
    let request = ProduceRequest {
        topic: "other".to_owned(),
        records: vec![Record::default(); 1 << 20],
        ..Default::default()
    };
    let status = soon("a refusal", good.log.produce(request)).await.expect_err("it takes too much");
    assert_eq!(raw::reason(&status), "MESSAGE_TOO_LARGE");
    let peak = server.memory_bytes("VmHWM");
    assert!(peak < 128 << 20, "{} MiB", peak >> 20);
    good.round_trip("other").await;
}

#[tokio::test]
async fn a_connection_that_breaks_the_protocol_is_ended_alone() {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
    let (server, _dir) = start("");
    let mut good = GoodClient::connect(&server).await;
    good.create("other", &[]).await;
    let broken: [&[u8]; 5] = [
        b"GET / HTTP/1.1\r\nhost: x\r\n\r\n                ",
        // Data on no stream; a frame larger than allowed; a window that overflows; headers that cannot be unpacked.
        &[PREFACE, SETTINGS, &[0, 0, 1, 0, 0, 0, 0, 0, 0, 7]].concat(),
        &[PREFACE, SETTINGS, &[0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1]].concat(),
        &[PREFACE, SETTINGS, &[0, 0, 4, 8, 0, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff]].concat(),
        &[PREFACE, SETTINGS, &[0, 0, 4, 1, 5, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff]].concat(),
    ];
    for bytes in broken {
        let mut stream = TcpStream::connect(server.address()).await.expect("connected");
        stream.write_all(bytes).await.expect("sent");
        let mut seen = Vec::new();
        // Closed or reset: either way it is over.
        let _ = soon("the end of a broken connection", stream.read_to_end(&mut seen)).await;
        good.round_trip("other").await;
    }
}
