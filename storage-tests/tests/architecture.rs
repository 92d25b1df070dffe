//! The architecture, as a test: layers import downward only, `unsafe` stays in one file, files stay short, and the top of
//! the repository stays tidy.
//!
//! It reads source text, with comments and the contents of strings taken out, for paths that begin at the crate's root:
//! `crate::…`, or `super::…` far enough up. Tests inside of files are held to the same rules and count as lines.
#![allow(clippy::expect_used, reason = "a step that fails ends the test")]

#[path = "architecture/checks.rs"]
mod checks;
#[path = "architecture/imports.rs"]
mod imports;
#[path = "architecture/lexer.rs"]
mod lexer;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use imports::import_faults;
use lexer::{code, tokens};

/// The one file with `unsafe`.
const UNSAFE_FILE: &str = "storage/mmap.rs";
/// Lines of code of one file: neither blank nor comment.
const MAX_CODE_LINES: usize = 600;
/// What the top of the repository holds besides hidden entries.
const TOP_LEVEL: [&str; 9] = [
    "Cargo.toml",
    "Cargo.lock",
    "proto",
    "src",
    "storage-tests",
    "benches",
    "deploy",
    "README.md",
    "LICENSE",
];

/// A source file: its path below `src/`, and its text.
struct Source {
    path: String,
    text: String,
}

impl Source {
    /// The top-level module it belongs to; none for the crate's roots.
    fn module(&self) -> Option<&str> {
        let module = self.path.split('/').next()?.trim_end_matches(".rs");
        (!matches!(module, "lib" | "main")).then_some(module)
    }

    /// How many modules deep it is: `types.rs` 1, `storage/mod.rs` 1, `storage/log.rs` 2.
    fn depth(&self) -> usize {
        self.path.trim_end_matches(".rs").trim_end_matches("/mod").split('/').count()
    }
}

fn unsafe_faults(source: &Source) -> Vec<String> {
    let code = code(&source.text);
    let found = source.path != UNSAFE_FILE && tokens(&code).contains(&"unsafe");
    found.then(|| format!("{}: unsafe belongs in {UNSAFE_FILE}", source.path)).into_iter().collect()
}

fn length_faults(source: &Source) -> Vec<String> {
    let lines = code(&source.text).lines().filter(|line| !line.trim().is_empty()).count();
    let long = lines > MAX_CODE_LINES;
    long.then(|| format!("{}: {lines} lines of code, at most {MAX_CODE_LINES}", source.path))
        .into_iter()
        .collect()
}

fn top_level_faults<'p>(paths: impl Iterator<Item = &'p str>) -> Vec<String> {
    let entries: BTreeSet<&str> = paths.filter_map(|path| path.split('/').next()).collect();
    entries
        .into_iter()
        .filter(|entry| !entry.starts_with('.') && !TOP_LEVEL.contains(entry))
        .map(|entry| format!("{entry} must not stand at the top of the repository"))
        .collect()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().expect("the repository")
}

fn sources() -> Vec<Source> {
    fn visit(directory: &Path, src: &Path, into: &mut Vec<Source>) {
        for entry in fs::read_dir(directory).expect("a directory") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                visit(&path, src, into);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).expect("a source file");
                let path = path.strip_prefix(src).expect("below src").to_string_lossy().replace('\\', "/");
                into.push(Source { path, text });
            }
        }
    }
    let src = root().join("src");
    let mut sources = Vec::new();
    visit(&src, &src, &mut sources);
    assert!(sources.len() > 20, "src/ has hardly any files");
    sources
}

#[track_caller]
fn assert_none(faults: &[String]) {
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn imports_point_down() {
    assert_none(&sources().iter().flat_map(import_faults).collect::<Vec<_>>());
}

#[test]
fn unsafe_stays_in_one_file() {
    assert_none(&sources().iter().flat_map(unsafe_faults).collect::<Vec<_>>());
}

#[test]
fn files_stay_short() {
    assert_none(&sources().iter().flat_map(length_faults).collect::<Vec<_>>());
}

#[test]
fn the_top_of_the_repository_stays_tidy() {
    let listed = Command::new("git").arg("-C").arg(root()).arg("ls-files").output().expect("git runs");
    assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
    let listed = String::from_utf8(listed.stdout).expect("UTF-8");
    assert!(listed.lines().count() > 20, "git lists hardly any files");
    assert_none(&top_level_faults(listed.lines()));
}
