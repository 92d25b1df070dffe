//! The checks themselves, each shown something that it must find, and something like it that it must leave alone.

use super::*;

fn source(path: &str, text: &str) -> Source {
    Source { path: path.to_owned(), text: text.to_owned() }
}

#[track_caller]
fn refused(path: &str, text: &str) {
    assert!(!import_faults(&source(path, text)).is_empty(), "{path}: {text}");
}

#[track_caller]
fn allowed(path: &str, text: &str) {
    assert_none(&import_faults(&source(path, text)));
}

#[test]
fn an_upward_import_is_found_however_it_is_written() {
    refused("storage/log.rs", "use crate::broker::Broker;");
    refused("storage/log.rs", "use crate::{types::Offset, broker::{Broker, Caller}};");
    refused("storage/log.rs", "use super::super::broker::Broker;");
    refused("storage/mod.rs", "use super::{types, broker};");
    refused("types.rs", "use super::record;");
    refused("broker/topics.rs", "fn f() -> crate::group::Groups { todo() }");
    refused("group/mod.rs", "type S = Vec<crate::server::Server>;");
    refused("server.rs", "use crate::cli::serve;");
    allowed("storage/log.rs", "use crate::{types::Offset, record::{self, Codec}}; use super::types::Append;");
    allowed("broker/topics.rs", "use super::topics::broker; use crate::broker::Broker;");
    allowed("cli/serve.rs", "use crate::server::Server; use crate::client::Client;");
    allowed("storage/log.rs", "mod tests { use super::super::broker; }");
    refused("storage/log.rs", "mod tests { use super::super::super::broker; }");
    refused("storage/log.rs", "fn f() { use super::super::broker; }");
    allowed("lib.rs", "pub use crate::server::Server;");
}

#[test]
fn the_benchmark_measures_from_outside() {
    for module in ["storage", "broker", "group", "api", "server", "config"] {
        refused("cli/bench/round.rs", &format!("use crate::{module}::X;"));
    }
    allowed(
        "cli/bench/bare.rs",
        "use crate::{client, proto, record, types}; use crate::cli::failure::Failure;",
    );
}

#[test]
fn a_module_outside_of_the_layers_is_found() {
    refused("misc.rs", "fn f() {}");
}

#[test]
fn comments_and_strings_are_not_code() {
    allowed("storage/log.rs", "//! See [`crate::broker`].\n/* crate::broker /* unsafe */ */ fn f() {}");
    allowed("storage/log.rs", r##"const A: &str = "crate::broker::"; const B: &str = r#"crate::broker"#;"##);
    allowed("storage/log.rs", "const Q: char = '\"'; fn f<'a>(x: &'a str) {} // crate::broker");
    refused("storage/log.rs", "const Q: char = '\"'; use crate::broker; const R: char = '\"';");
    refused("storage/log.rs", r#"const Q: &str = "\""; use crate::broker; const R: char = 'é';"#);
}

#[test]
fn the_client_is_an_island() {
    refused("client/producer.rs", "use crate::broker::Broker;");
    refused("client/producer.rs", "use crate::config::Config;");
    refused("broker/mod.rs", "use crate::client::Client;");
    refused("api/grpc/mod.rs", "use crate::client::Client;");
    allowed(
        "client/producer.rs",
        "use crate::{types, record, proto}; use super::connection; use tokio::spawn;",
    );
}

#[test]
fn edges_do_not_meet() {
    refused("api/grpc/mod.rs", "use crate::api::kafka::Server;");
    refused("api/grpc/fetch.rs", "use super::super::kafka;");
    refused("api/http.rs", "use super::grpc::GrpcServer;");
    refused("api/http.rs", "use crate::api::{grpc, http};");
    allowed(
        "api/grpc/fetch.rs",
        "use super::convert; use crate::api::grpc::error; use super::super::grpc::error;",
    );
    allowed("api/mod.rs", "pub mod grpc; pub use self::grpc::GrpcServer;");
}

#[test]
fn wire_types_stay_at_the_edge() {
    refused("broker/mod.rs", "use crate::proto::ProduceRequest;");
    refused("api/http/mod.rs", "use crate::proto::ProduceRequest;");
    refused("group/mod.rs", "fn f() -> tonic::Status { g() }");
    allowed("api/grpc/error.rs", "use crate::proto; use tonic::Status;");
    allowed("cli/topic.rs", "use crate::proto; fn f() -> tonic::Status { g() }");
}

#[test]
fn storage_is_not_asynchronous() {
    refused("storage/writer.rs", "use tokio::sync::mpsc;");
    refused("storage/writer.rs", "fn f() { let x = tokio::spawn(g()); }");
    refused("record/mod.rs", "use tokio;");
    allowed("broker/mod.rs", "use tokio::sync::mpsc;");
    allowed("storage/writer.rs", "fn f(tokio_like: u8) {}");
}

#[test]
fn unsafe_is_found_where_it_does_not_belong() {
    assert!(!unsafe_faults(&source("broker/mod.rs", "fn f() { unsafe { g() } }")).is_empty());
    assert_none(&unsafe_faults(&source("storage/mmap.rs", "unsafe fn f() {}")));
    assert_none(&unsafe_faults(&source("broker/mod.rs", "// unsafe\n#![deny(unsafe_op_in_unsafe_fn)]")));
}

#[test]
fn a_long_file_is_found_by_its_code_alone() {
    let code = "let x = 1;\n".repeat(MAX_CODE_LINES);
    let padding = "\n// a comment\n/* and\n another */\n".repeat(500);
    assert_none(&length_faults(&source("a.rs", &format!("{code}{padding}"))));
    assert!(!length_faults(&source("a.rs", &format!("{code}{padding}let y = 2;\n"))).is_empty());
    let text = format!("let s = \"{}\";\n", "a line\n".repeat(MAX_CODE_LINES));
    assert!(!length_faults(&source("a.rs", &text)).is_empty(), "a long string is code");
}

#[test]
fn an_entry_too_many_at_the_top_is_found() {
    let faults = top_level_faults(["src/lib.rs", ".ci/run", "LICENSE", "notes.txt", "docs/a.md"].into_iter());
    assert_eq!(faults.len(), 2, "{faults:?}");
}
