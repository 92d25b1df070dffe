//! What lies in `deploy/` does what it says: the sample settings are the defaults, the unit verifies, and the container
//! file builds from what is there and starts what exists.
#![allow(clippy::expect_used, reason = "a step that fails ends the test")]

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::{Args, FromArgMatches};
use sagwan::cli::serve::ServeArgs;
use sagwan::config::Config;
use storage_tests::process::ServerProcess;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().expect("the repository")
}

fn read(name: &str) -> String {
    let path = root().join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The names of all settings, with their tables, as the configuration structs have them.
fn settings() -> BTreeSet<String> {
    // A file with an unknown name is refused with the list of the known ones.
    let known = |table: &str| -> Vec<String> {
        let text = if table.is_empty() { "?".to_owned() } else { format!("[{table}]\n?") };
        let text = text.replace('?', "no-such-setting = 1");
        let error = toml::from_str::<Config>(&text).expect_err("an unknown name").to_string();
        let list = error.rsplit("expected one of").next().expect("the list").to_owned();
        list.split('`').skip(1).step_by(2).map(str::to_owned).collect()
    };
    let mut names = BTreeSet::new();
    for name in known("") {
        let within = if name == "data_dir" { Vec::new() } else { known(&name) };
        if within.is_empty() {
            names.insert(name);
        } else {
            names.extend(within.iter().map(|setting| format!("{name}.{setting}")));
        }
    }
    names
}

#[test]
fn the_sample_settings_are_the_defaults() {
    let config = Config::load(&root().join("deploy/sagwan.toml")).expect("loads");
    assert_eq!(config, Config::default());
}

#[test]
fn the_sample_settings_are_complete() {
    let table: toml::Table = read("deploy/sagwan.toml").parse().expect("TOML");
    let mut given = BTreeSet::new();
    for (name, value) in &table {
        match value {
            toml::Value::Table(within) => {
                given.extend(within.keys().map(|setting| format!("{name}.{setting}")));
            }
            _ => {
                given.insert(name.clone());
            }
        }
    }
    assert!(given.len() > 25, "{given:?}");
    assert_eq!(given, settings());
}

#[test]
fn every_sample_setting_is_explained() {
    let text = read("deploy/sagwan.toml");
    let mut commented = false;
    for line in text.lines() {
        if line.starts_with('#') {
            commented = true;
        } else {
            assert!(commented || line.is_empty() || !line.contains('='), "no comment above {line:?}");
            commented = false;
        }
    }
}

#[test]
fn the_unit_verifies() {
    if Command::new("systemd-analyze").arg("--version").output().is_err() {
        assert!(std::env::var_os("CI").is_none(), "systemd-analyze is missing");
        return;
    }
    // The program need not be installed here; any that exists will do.
    let unit = read("deploy/sagwan.service");
    assert!(unit.contains("ExecStart=/usr/local/bin/sagwan serve"), "{unit}");
    let unit = unit.replace("ExecStart=/usr/local/bin/sagwan", "ExecStart=/bin/true");
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("sagwan.service");
    fs::write(&path, unit).expect("written");
    let verified = Command::new("systemd-analyze").arg("verify").arg(&path).output().expect("runs");
    let said = String::from_utf8_lossy(&verified.stderr).into_owned();
    // Other units of the machine may have faults of their own.
    let ours: Vec<&str> = said.lines().filter(|line| line.contains("sagwan.service")).collect();
    assert!(ours.is_empty(), "{ours:#?}");
    assert!(verified.status.success(), "{said}");
}

#[test]
fn the_unit_gives_the_shutdown_its_time() {
    let unit = read("deploy/sagwan.service");
    let setting = |name: &str| {
        let mut lines = unit.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        lines.next_back().unwrap_or_else(|| panic!("{name} is missing")).to_owned()
    };
    let stop: u64 = setting("TimeoutStopSec").parse().expect("seconds");
    assert!(stop * 1_000 > 2 * Config::default().grpc.shutdown_grace_ms);
    assert_eq!(setting("DynamicUser"), "yes");
    assert_eq!(setting("ProtectSystem"), "strict");
    assert_eq!(setting("KillSignal"), "SIGTERM");
    assert_eq!(setting("Restart"), "on-failure");
    let command = setting("ExecStart");
    let arguments = command.split_whitespace().skip(1).map(str::to_owned).collect();
    let args = parse(arguments);
    assert_eq!(args.config.as_deref(), Some(Path::new("/etc/sagwan/sagwan.toml")));
}

/// `arguments`, which begin with `serve`, as the program itself understands them.
fn parse(arguments: Vec<String>) -> ServeArgs {
    let command =
        clap::Command::new("sagwan").subcommand(ServeArgs::augment_args(clap::Command::new("serve")));
    let matches = command
        .try_get_matches_from([vec!["sagwan".to_owned()], arguments].concat())
        .unwrap_or_else(|error| panic!("{error}"));
    let (name, matches) = matches.subcommand().expect("a subcommand");
    assert_eq!(name, "serve");
    ServeArgs::from_arg_matches(matches).expect("its arguments")
}

/// Instructions of a container file: each one's name and what follows.
type Instructions = Vec<(String, String)>;

fn instructions(text: &str) -> Instructions {
    let joined = text.replace("\\\n", " ");
    let lines = joined.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| {
            let (name, rest) = line.split_once(' ').unwrap_or_else(|| panic!("{line}"));
            (name.to_owned(), rest.trim().to_owned())
        })
        .collect()
}

/// The instructions of the stage that is run, and those of the one that builds.
fn stages() -> (Instructions, Instructions) {
    let mut build = instructions(&read("deploy/Containerfile"));
    let last = build.iter().rposition(|(name, _)| name == "FROM").expect("FROM");
    let run = build.split_off(last);
    assert!(build.iter().any(|(name, _)| name == "FROM"), "one stage only");
    (run, build)
}

fn only(stage: &[(String, String)], name: &str) -> String {
    let found: Vec<&String> = stage.iter().filter(|(given, _)| given == name).map(|(_, rest)| rest).collect();
    let [rest] = found.as_slice() else { panic!("{name}: {found:?}") };
    (*rest).clone()
}

fn exec_form(text: &str) -> Vec<String> {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

#[test]
fn the_container_does_not_run_as_root() {
    let (run, _) = stages();
    let user = only(&run, "USER");
    let uid: u32 =
        user.split(':').next().expect("a user").parse().expect("a number, which Kubernetes can check");
    assert_ne!(uid, 0);
}

#[test]
fn the_container_starts_what_the_program_understands_and_listens_for_others() {
    let (run, _) = stages();
    let mut command = exec_form(&only(&run, "ENTRYPOINT"));
    command.extend(exec_form(&only(&run, "CMD")));
    assert_eq!(command.remove(0), "sagwan");
    parse(command);

    let variables: Vec<(&str, &str)> = run
        .iter()
        .filter(|(name, _)| name == "ENV")
        .map(|(_, rest)| rest.split_once('=').unwrap_or_else(|| panic!("{rest}")))
        .collect();
    let known = ServeArgs::augment_args(clap::Command::new("serve"));
    let known: Vec<&str> =
        known.get_arguments().filter_map(|argument| argument.get_env()?.to_str()).collect();
    for (name, _) in &variables {
        assert!(known.contains(name), "{name} is none of {known:?}");
    }
    let value = |name: &str| variables.iter().find(|(given, _)| *given == name).expect(name).1;
    let addr: SocketAddr = value("SAGWAN_GRPC_ADDR").parse().expect("an address");
    assert!(addr.ip().is_unspecified(), "{addr}");
    assert_eq!(only(&run, "EXPOSE"), addr.port().to_string());
    assert_eq!(only(&run, "VOLUME"), value("SAGWAN_DATA_DIR"));
}

#[test]
fn the_container_is_asked_for_its_health_in_words_the_program_understands() {
    let (run, _) = stages();
    let check = only(&run, "HEALTHCHECK");
    let (_, command) = check.split_once("CMD ").expect("a command");
    let mut command = exec_form(command);
    assert_eq!(command.remove(0), "sagwan");
    // Parses all of it, and then prints what it is for.
    let program = env!("CARGO_BIN_EXE_sagwan-under-test");
    let parsed = Command::new(program).args(command).arg("--help").output().expect("runs");
    assert!(parsed.status.success(), "{}", String::from_utf8_lossy(&parsed.stderr));
}

#[test]
fn the_container_is_built_from_all_that_the_build_needs() {
    let (_, build) = stages();
    let copied: BTreeSet<&str> = build
        .iter()
        .filter(|(name, _)| name == "COPY")
        .flat_map(|(_, rest)| {
            let mut paths: Vec<&str> = rest.split_whitespace().collect();
            paths.pop();
            paths
        })
        .collect();
    for path in &copied {
        assert!(root().join(path).exists(), "{path} is not there");
    }
    let manifest: toml::Table = read("Cargo.toml").parse().expect("TOML");
    let members = manifest["workspace"]["members"].as_array().expect("members");
    let mut needed: BTreeSet<&str> =
        members.iter().filter_map(|member| member.as_str()).filter(|member| *member != ".").collect();
    // The targets of the package itself, and its build script.
    needed.extend(["Cargo.toml", "Cargo.lock", "src", "proto"]);
    if manifest.contains_key("bench") {
        needed.insert("benches");
    }
    assert!(needed.is_subset(&copied), "{needed:?} against {copied:?}");
    let compiles = build.iter().any(|(name, rest)| {
        name == "RUN"
            && rest.contains("cargo build")
            && rest.contains("--locked")
            && rest.contains("--release")
    });
    assert!(compiles);
}

#[test]
fn compose_builds_the_container_and_publishes_its_port() {
    let compose = read("deploy/compose.yaml");
    assert!(compose.contains("dockerfile: deploy/Containerfile"));
    let (run, _) = stages();
    let port = only(&run, "EXPOSE");
    assert!(compose.contains(&format!("127.0.0.1:{port}:{port}")));
    assert!(compose.contains(&format!(":{}\n", only(&run, "VOLUME"))));
}

#[test]
fn as_many_threads_serve_connections_as_the_settings_say() {
    let threads = |setting: usize| {
        let dir = tempfile::tempdir().expect("a directory");
        let config = dir.path().join("sagwan.toml");
        fs::write(&config, format!("[grpc]\nthreads = {setting}\n")).expect("written");
        let program = env!("CARGO_BIN_EXE_sagwan-under-test");
        ServerProcess::start_configured(program, dir.path().join("data"), config).threads()
    };
    // Those that may block come as they are needed; one more or less does not matter.
    let (one, nine) = (threads(1), threads(9));
    assert!((7..=9).contains(&nine.saturating_sub(one)), "{one} and {nine}");
}
