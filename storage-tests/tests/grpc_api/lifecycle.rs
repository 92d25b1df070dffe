//! Start, health, reflection, orderly end and the next start.

use std::collections::BTreeSet;
use std::fs;
use std::net::TcpListener;
use std::time::Duration;

use sagwan::proto::{FetchFormat, FetchRequest, ListTopicsRequest};
use sagwan::server::{Server, StartError};
use tonic::Code;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tonic_reflection::pb::v1alpha::server_reflection_response::MessageResponse as Alpha;
use tonic_reflection::pb::{v1, v1alpha};

use crate::harness::{
    TestBroker, assert_failed, assert_waits, config, fetch, from_offset, records, soon, values,
};

const SERVICES: [&str; 3] = ["sagwan.v1.LogService", "sagwan.v1.AdminService", "sagwan.v1.GroupService"];

#[tokio::test]
async fn a_waiting_fetch_does_not_delay_the_shutdown() {
    let broker = TestBroker::start().await;
    broker.create("orders", 1).await;
    let request = FetchRequest {
        max_wait_ms: 300_000,
        ..fetch(vec![from_offset("orders", 0, 0)], FetchFormat::Records)
    };
    let mut client = broker.log();
    let mut waiting = Box::pin(client.fetch(request));
    assert_waits(&mut waiting).await;
    let (ended, fetched) = soon(async { tokio::join!(broker.server.shutdown(), &mut waiting) }).await;
    ended.expect("a clean end");
    assert_failed(fetched, Code::Unavailable, "SHUTTING_DOWN", &[]);
}

#[tokio::test]
async fn a_client_that_does_not_let_go_is_cut_off_after_the_grace() {
    let broker = TestBroker::start_with(|config| config.grpc.shutdown_grace_ms = 100).await;
    // Speaks enough HTTP/2 to have a call under way, and then nothing more.
    let stream = tokio::net::TcpStream::connect(broker.server.grpc_addr()).await.expect("connected");
    let (client, connection) = h2::client::handshake(stream).await.expect("HTTP/2");
    let driver = tokio::spawn(connection);
    let uri = format!("http://{}/sagwan.v1.LogService/Produce", broker.server.grpc_addr());
    let request = tonic::codegen::http::Request::post(uri)
        .header("content-type", "application/grpc")
        .body(())
        .expect("a request");
    let mut client = client.ready().await.expect("ready");
    let (answer, _body) = client.send_request(request, false).expect("sent");
    broker.produce(records("orders", 0, &["a"])).await.expect("produced");
    soon(broker.server.shutdown()).await.expect("a clean end");
    soon(answer).await.expect_err("cut off");
    driver.abort();
}

#[tokio::test]
async fn what_was_produced_is_there_after_a_restart() {
    let broker = TestBroker::start().await;
    broker.create("orders", 2).await;
    broker.produce(records("orders", 1, &["a", "b"])).await.expect("produced");
    let broker = broker.restart().await;
    assert_eq!(broker.server.status().storage.recovered_logs, 0, "the end was clean");
    assert_eq!(values(&broker.read("orders", 1, 0).await.expect("read")), ["a", "b"]);
    let answer = broker.produce(records("orders", 1, &["c"])).await.expect("produced");
    assert_eq!(answer.results[0].base_offset, 2);
}

#[tokio::test]
async fn a_signal_ends_the_server_and_frees_its_port_and_directory() {
    let broker = TestBroker::start().await;
    let (signal, signalled) = tokio::sync::oneshot::channel::<()>();
    let addr = broker.server.grpc_addr();
    let running = tokio::spawn(broker.server.run_until(async {
        let _ = signalled.await;
    }));
    signal.send(()).expect("running");
    soon(running).await.expect("joined").expect("a clean end");
    let mut again = config(&broker.dir);
    again.grpc.addr = addr;
    let server = Server::start(again).await.expect("both are free");
    assert_eq!(server.grpc_addr(), addr);
    server.shutdown().await.expect("a clean end");
}

#[tokio::test]
async fn a_port_in_use_is_named_before_anything_is_touched() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let dir = tempfile::tempdir().expect("a directory");
    let mut config = config(&dir);
    config.grpc.addr = taken.local_addr().expect("an address");
    let data_dir = config.data_dir.clone();
    let error = Server::start(config).await.expect_err("in use");
    assert!(matches!(error, StartError::AddressInUse { .. }), "{error:?}");
    let said = error.to_string();
    assert!(said.contains(&taken.local_addr().expect("an address").to_string()), "{said}");
    assert!(said.contains("--grpc-addr"), "{said}");
    assert!(!data_dir.exists());
}

#[tokio::test]
async fn a_data_directory_in_use_is_named() {
    let broker = TestBroker::start().await;
    let second = config(&broker.dir);
    let data_dir = second.data_dir.display().to_string();
    let error = Server::start(second).await.expect_err("in use");
    assert!(matches!(error, StartError::Store(_)), "{error:?}");
    let said = error.to_string();
    assert!(said.contains(&data_dir) && said.contains(&std::process::id().to_string()), "{said}");
    broker.produce(records("orders", 0, &["a"])).await.expect("the first one is unharmed");
}

#[tokio::test]
async fn a_data_directory_that_cannot_be_made_is_named() {
    let dir = tempfile::tempdir().expect("a directory");
    // A file in its way: as root, no permission would be missing.
    fs::write(dir.path().join("data"), "").expect("written");
    let config = config(&dir);
    let data_dir = config.data_dir.display().to_string();
    let error = Server::start(config).await.expect_err("not a directory");
    assert!(matches!(error, StartError::Store(_)), "{error:?}");
    assert!(error.to_string().contains(&data_dir), "{error}");
}

#[tokio::test]
async fn a_data_directory_of_a_newer_version_is_left_alone() {
    let broker = TestBroker::start().await;
    let TestBroker { server, dir, channel } = broker;
    drop(channel);
    server.shutdown().await.expect("a clean end");
    let meta = dir.path().join("data/meta.toml");
    let text = fs::read_to_string(&meta).expect("meta.toml");
    let version = text.lines().find(|line| line.contains("version")).expect("a version").to_owned();
    let (name, _) = version.split_once('=').expect("a value");
    let newer = text.replace(&version, &format!("{name}= 999"));
    fs::write(&meta, &newer).expect("written");
    let error = Server::start(config(&dir)).await.expect_err("too new");
    assert!(matches!(error, StartError::Store(_)), "{error:?}");
    assert!(error.to_string().contains("999"), "{error}");
    assert_eq!(fs::read_to_string(&meta).expect("meta.toml"), newer);
}

#[tokio::test]
async fn a_setting_out_of_range_is_named() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut config = config(&dir);
    config.grpc.max_connections = 0;
    let error = Server::start(config).await.expect_err("out of range");
    assert!(matches!(error, StartError::Config(_)), "{error:?}");
    assert!(error.to_string().contains("grpc.max_connections"), "{error}");
}

#[tokio::test]
async fn health_serves_until_the_shutdown_and_says_so_then() {
    let broker = TestBroker::start().await;
    let mut health = HealthClient::new(broker.channel.clone());
    let asked = |service: &str| HealthCheckRequest { service: service.to_owned() };
    for service in SERVICES.into_iter().chain([""]) {
        let answer = health.check(asked(service)).await.expect("known").into_inner();
        assert_eq!(answer.status(), ServingStatus::Serving, "{service}");
    }
    let unknown = health.check(asked("sagwan.v1.NoService")).await.expect_err("unknown");
    assert_eq!(unknown.code(), Code::NotFound);

    let mut watched = health.watch(asked("")).await.expect("watched").into_inner();
    let status = |answer: Option<HealthCheckResponse>| answer.expect("not the end").status();
    assert_eq!(status(soon(watched.message()).await.expect("a status")), ServingStatus::Serving);
    // A watcher does not hold the shutdown up, or it would take all of the grace.
    let grace = Duration::from_millis(sagwan::config::GrpcConfig::default().shutdown_grace_ms);
    tokio::time::timeout(grace / 2, broker.server.shutdown()).await.expect("in time").expect("a clean end");
    assert_eq!(status(soon(watched.message()).await.expect("a status")), ServingStatus::NotServing);
}

#[tokio::test]
async fn reflection_knows_every_service_in_both_versions() {
    let broker = TestBroker::start().await;
    let needed: BTreeSet<String> =
        SERVICES.into_iter().chain(["grpc.health.v1.Health"]).map(str::to_owned).collect();

    let mut client = v1::server_reflection_client::ServerReflectionClient::new(broker.channel.clone());
    // The last is what an error's details are shown by.
    let symbols = ["sagwan.v1.LogService.ProduceStream", "google.rpc.ErrorInfo"];
    let requests = [None].into_iter().chain(symbols.map(Some)).map(|symbol| v1::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(match symbol {
            None => v1::server_reflection_request::MessageRequest::ListServices(String::new()),
            Some(symbol) => {
                v1::server_reflection_request::MessageRequest::FileContainingSymbol(symbol.to_owned())
            }
        }),
    });
    let requests: Vec<_> = requests.collect();
    let stream = client.server_reflection_info(futures_util::stream::iter(requests)).await;
    let mut stream = stream.expect("answered").into_inner();
    let listed = soon(stream.message()).await.expect("an answer").expect("not the end").message_response;
    let Some(MessageResponse::ListServicesResponse(listed)) = listed else { panic!("{listed:?}") };
    let names: BTreeSet<String> = listed.service.into_iter().map(|service| service.name).collect();
    assert!(needed.is_subset(&names), "{names:?}");
    for symbol in symbols {
        let found = soon(stream.message()).await.expect("an answer").expect("not the end").message_response;
        let Some(MessageResponse::FileDescriptorResponse(found)) = found else {
            panic!("{symbol}: {found:?}")
        };
        assert!(!found.file_descriptor_proto.is_empty());
    }

    let mut client = v1alpha::server_reflection_client::ServerReflectionClient::new(broker.channel.clone());
    let request = v1alpha::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(
            v1alpha::server_reflection_request::MessageRequest::ListServices(String::new()),
        ),
    };
    let stream = client.server_reflection_info(futures_util::stream::iter([request])).await;
    let listed = soon(stream.expect("answered").into_inner().message()).await.expect("an answer");
    let listed = listed.expect("not the end").message_response;
    let Some(Alpha::ListServicesResponse(listed)) = listed else { panic!("{listed:?}") };
    assert!(listed.service.iter().any(|service| service.name == "sagwan.v1.LogService"));
}

#[tokio::test]
async fn a_call_after_the_shutdown_began_is_not_answered_as_if_nothing_were() {
    let broker = TestBroker::start().await;
    let mut admin = broker.admin();
    admin.list_topics(ListTopicsRequest::default()).await.expect("listed");
    soon(broker.server.shutdown()).await.expect("a clean end");
    let status = admin.list_topics(ListTopicsRequest::default()).await.expect_err("nobody there");
    assert_eq!(status.code(), Code::Unavailable);
}
