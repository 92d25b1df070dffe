//! The README's other commands are true: those of `sagwan` are executed, in order, against a real server, and what it shows of
//! `sagwan verify` is what that says; those of grpcurl name methods and fields that exist. (Its Rust is a doctest of the crate,
//! its Python has a test of its own.)

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::symlink;
use std::process::{Command, Stdio};

use prost::Message;
use prost_types::field_descriptor_proto::Type;
use prost_types::{DescriptorProto, EnumDescriptorProto, FileDescriptorSet};
use serde_json::Value;
use storage_tests::command::succeed;
use storage_tests::process::ServerProcess;
use storage_tests::readme;
use tempfile::TempDir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_sagwan-under-test");

/// Every command of the README's shell blocks.
fn commands() -> Vec<String> {
    let blocks = readme::blocks(&readme::text(), "sh");
    blocks.iter().flat_map(|block| readme::shell_commands(block)).collect()
}

/// A directory as its readers have it, with `sagwan` on their PATH and a server on `data`.
struct Desk {
    directory: TempDir,
    server: ServerProcess,
    path: OsString,
}

impl Desk {
    fn new() -> Self {
        let directory = TempDir::new().expect("a temporary directory");
        let server = ServerProcess::start(PROGRAM, directory.path().join("data"));
        symlink(PROGRAM, directory.path().join("sagwan")).expect("a link to the program");
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path = std::iter::once(directory.path().to_owned()).chain(std::env::split_paths(&path));
        let path = std::env::join_paths(path).expect("a PATH that can be joined");
        Self { directory, server, path }
    }

    /// Runs a command, which has to succeed; its standard output.
    fn run(&self, command: &str) -> String {
        let mut shell = Command::new("sh");
        shell.args(["-e", "-c", command]).current_dir(self.directory.path()).stdin(Stdio::null());
        let output = succeed(shell.env("PATH", &self.path).env("SAGWAN_SERVER", self.server.url()));
        String::from_utf8_lossy(&output).into_owned()
    }
}

#[test]
fn the_commands_of_the_readme_succeed_in_order() {
    let desk = Desk::new();
    let mut executed = 0;
    for command in commands() {
        let command = command.replace("cargo run --release -- ", "sagwan ");
        let ours = command.starts_with("sagwan ") || command.contains("| sagwan ");
        // The server that runs is the one that `serve` would start.
        if !ours || command.starts_with("sagwan serve") {
            continue;
        }
        desk.run(&command);
        executed += 1;
    }
    assert!(executed >= 3, "the README has a first topic in three commands");
}

/// A report of `sagwan verify` but for its numbers, and for how fast it was.
fn shape(report: &str) -> String {
    let told = |line: &str| match line.split_once("; ") {
        Some((speed, rest)) if speed.starts_with("checked in") => rest.to_owned(),
        _ => line
            .split(|c: char| c.is_ascii_digit())
            .filter(|words| !words.is_empty())
            .collect::<Vec<_>>()
            .join("#"),
    };
    report.trim().lines().map(told).collect::<Vec<_>>().join("\n")
}

#[test]
fn what_the_readme_shows_of_a_torn_tail_is_what_verify_says() {
    let blocks = readme::blocks(&readme::text(), "text");
    let command = "$ sagwan verify data\n";
    let shown = blocks.iter().find_map(|block| block.strip_prefix(command)).expect("a report in the README");
    let mut desk = Desk::new();
    for command in commands().iter().filter(|command| command.contains(" diary")).take(2) {
        desk.run(command);
    }
    desk.server.kill9();
    let log = desk.server.data_dir().join("diary-0/00000000000000000000.log");
    let good = fs::read(&log).expect("a segment");
    let next_offset = 3_i64.to_be_bytes();
    let torn = [&next_offset, &good[next_offset.len()..good.len() / 2]].concat();
    fs::write(&log, [good, torn].concat()).expect("written");
    assert_eq!(shape(&desk.run("sagwan verify data")), shape(shown));
}

/// Looks up the words of a gRPC contract.
struct Contract {
    /// By full name, such as `.sagwan.v1.Record`.
    messages: HashMap<String, DescriptorProto>,
    enums: HashMap<String, EnumDescriptorProto>,
    /// Request types by `package.Service/Method`.
    methods: HashMap<String, String>,
    services: Vec<String>,
}

impl Contract {
    fn of_the_server() -> Self {
        let files = FileDescriptorSet::decode(sagwan::proto::DESCRIPTORS).expect("valid descriptors");
        let mut contract = Self {
            messages: HashMap::new(),
            enums: HashMap::new(),
            methods: HashMap::new(),
            services: Vec::new(),
        };
        for file in files.file {
            let package = file.package().to_owned();
            for message in file.message_type {
                contract.messages.insert(format!(".{package}.{}", message.name()), message);
            }
            for names in file.enum_type {
                contract.enums.insert(format!(".{package}.{}", names.name()), names);
            }
            for service in file.service {
                let name = format!("{package}.{}", service.name());
                for method in &service.method {
                    let input = method.input_type().to_owned();
                    contract.methods.insert(format!("{name}/{}", method.name()), input);
                }
                contract.services.push(name);
            }
        }
        contract
    }

    /// What is wrong with a message in protobuf's JSON, as `path: what`.
    fn check(&self, message: &str, json: &Value, path: &str) -> Result<(), String> {
        let descriptor = self.messages.get(message).ok_or(format!("{path}: no message {message}"))?;
        let members = json.as_object().ok_or(format!("{path}: not an object"))?;
        for (name, value) in members {
            let path = format!("{path}.{name}");
            let mut fields = descriptor.field.iter();
            let field = fields
                .find(|field| field.json_name() == name || field.name() == name)
                .ok_or(format!("{path}: no such field"))?;
            let values = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
            for value in values {
                let fine = match field.r#type() {
                    Type::Message => {
                        self.check(field.type_name(), value, &path)?;
                        true
                    }
                    Type::Enum => self.enums.get(field.type_name()).is_some_and(|names| {
                        names.value.iter().any(|named| Some(named.name()) == value.as_str())
                    }),
                    Type::Bool => value.is_boolean(),
                    Type::String | Type::Bytes => value.is_string(),
                    _ => value.is_number(),
                };
                if !fine {
                    return Err(format!("{path}: {value} is not a {:?}", field.r#type()));
                }
            }
        }
        Ok(())
    }
}

#[test]
fn the_grpcurl_calls_of_the_readme_fit_the_contract() {
    let contract = Contract::of_the_server();
    let calls: Vec<String> =
        commands().into_iter().filter(|command| command.starts_with("grpcurl ")).collect();
    let mut methods = 0;
    for call in &calls {
        let Some(symbol) = call.split_whitespace().last() else { unreachable!("a call has words") };
        let Some(input) = contract.methods.get(symbol) else {
            let is_service = contract.services.iter().any(|service| service == symbol);
            assert!(is_service && call.contains(" describe "), "{call}: there is no {symbol}");
            continue;
        };
        let json = call.split('\'').nth(1).unwrap_or_else(|| panic!("{call}: no message in quotes"));
        let json = serde_json::from_str(json).unwrap_or_else(|error| panic!("{call}: {error}"));
        contract.check(input, &json, "request").unwrap_or_else(|error| panic!("{call}: {error}"));
        methods += 1;
    }
    assert!(methods >= 2, "the README shows how to produce and to fetch: {calls:?}");
}

#[test]
fn a_misspelt_field_value_or_message_does_not_fit_the_contract() {
    let contract = Contract::of_the_server();
    let check = |json: &str| {
        let json = serde_json::from_str(json).expect("JSON");
        contract.check(".sagwan.v1.FetchRequest", &json, "request")
    };
    assert_eq!(check(r#"{"partitions": [{"topic": "t"}], "minBytes": 1}"#), Ok(()));
    for wrong in [
        r#"{"partition": []}"#,
        r#"{"partitions": [{"topik": "t"}]}"#,
        r#"{"partitions": [{"topic": 1}]}"#,
        r#"{"format": "RECORDS"}"#,
        r#"{"minBytes": "one"}"#,
    ] {
        assert!(check(wrong).is_err(), "{wrong}");
    }
}
