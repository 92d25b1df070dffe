//! The README's Python: its commands make the stubs, its program runs against a real server and prints what the README
//! says it prints. Between the two runs the server is killed, so what the second one finds was really kept.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use storage_tests::command::succeed;
use storage_tests::process::ServerProcess;
use storage_tests::python::Python;
use storage_tests::readme;
use tempfile::TempDir;

/// The address in the README.
const DEFAULT_ADDRESS: &str = "127.0.0.1:50051";
/// What the reader calls the program.
const PROGRAM_FILE: &str = "annals.py";

/// A shell command in `directory`, with the environment's `python` first in the PATH.
fn shell(command: &str, directory: &Path, python: &Python) -> Vec<u8> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::iter::once(python.bin()).chain(std::env::split_paths(&path));
    let path = std::env::join_paths(path).expect("a PATH that can be joined");
    let mut shell = Command::new("sh");
    shell.args(["-e", "-c", command]).current_dir(directory).env("PATH", path).env("PYTHONUTF8", "1");
    succeed(shell.stdin(Stdio::null()))
}

/// The one block of a language in which `sign` occurs.
fn block_with(language: &str, sign: &str) -> String {
    let mut blocks = readme::blocks(&readme::text(), language);
    blocks.retain(|block| block.contains(sign));
    assert_eq!(blocks.len(), 1, "README.md has one {language} block with {sign:?}");
    blocks.remove(0)
}

/// The commands of a README transcript, each with what it prints.
fn transcript(block: &str) -> Vec<(String, String)> {
    let mut runs: Vec<(String, String)> = Vec::new();
    for line in block.lines() {
        if let Some(command) = line.strip_prefix("$ ") {
            runs.push((command.to_owned(), String::new()));
        } else {
            let (_, output) = runs.last_mut().expect("a transcript begins with a command");
            output.push_str(line);
            output.push('\n');
        }
    }
    runs
}

#[test]
fn the_python_snippet_prints_what_the_readme_says() {
    let python = Python::with_grpc(env!("CARGO_TARGET_TMPDIR"));
    let directory = TempDir::new().expect("a temporary directory");
    let workplace = directory.path().join("workplace");
    fs::create_dir(&workplace).expect("a directory");
    let proto = readme::repository().join("proto").canonicalize().expect("proto/");
    std::os::unix::fs::symlink(proto, workplace.join("proto")).expect("a link to proto/");

    // The environment is made, with pinned versions, so the README's two lines about it are not run.
    let mut commands = readme::shell_commands(&block_with("sh", "grpc_tools.protoc"));
    commands.retain(|command| !command.contains("venv") && !command.starts_with("pip "));
    assert_eq!(commands.len(), 2, "make a directory, make the stubs: {commands:?}");
    for command in &commands {
        shell(command, &workplace, &python);
    }

    let program = block_with("python", "import grpc");
    assert!(program.contains(DEFAULT_ADDRESS));
    let runs = transcript(&block_with("text", PROGRAM_FILE));
    assert_eq!(runs.len(), 2, "the README shows two runs");

    let mut server =
        ServerProcess::start(env!("CARGO_BIN_EXE_sagwan-under-test"), directory.path().join("data"));
    for (command, expected) in runs {
        let program = program.replace(DEFAULT_ADDRESS, server.address());
        fs::write(workplace.join(PROGRAM_FILE), program).expect("the program is written");
        let printed = shell(&command, &workplace, &python);
        assert_eq!(String::from_utf8_lossy(&printed), expected, "{command}");
        server.kill9();
        server.restart();
    }
}
