//! The architecture, as a test: layers import downward only, `unsafe` stays in one file, files stay short, and the top of
//! the repository stays tidy.
//!
//! It reads source text, with comments and the contents of strings taken out, for paths that begin at the crate's root:
//! `crate::…`, or `super::…` far enough up. Tests inside of files are held to the same rules and count as lines.
#![allow(clippy::expect_used, reason = "a step that fails ends the test")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The layers, lowest first. A module may use those below it; of its own layer only itself, but for the ground floor,
/// whose modules may use each other, and [`SIDEWAYS`].
const LAYERS: [&[&str]; 7] = [
    &["types", "clock", "config"],
    &["record"],
    &["storage"],
    &["broker"],
    &["group"],
    &["api"],
    &["server", "cli"],
];
/// From whom to whom, within a layer: `serve` runs the server.
const SIDEWAYS: [(&str, &str); 1] = [("cli", "server")];
/// An island: all that the client may use.
const CLIENT_USES: [&str; 3] = ["types", "record", "proto"];
/// Who may use the client.
const USES_CLIENT: [&str; 1] = ["cli"];
/// Who may see the wire's types, and the crates they are made of.
const SEES_PROTO: [&str; 4] = ["api/grpc/", "client/", "cli/", "server.rs"];
const WIRE_CRATES: [&str; 4] = ["tonic", "prost", "tonic_types", "tonic_prost"];
/// Below the broker nothing is asynchronous.
const NO_TOKIO: [&str; 3] = ["types", "record", "storage"];
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

/// The text without comments and without the contents of strings and characters; the lines stay where they are.
fn code(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut code = Vec::with_capacity(bytes.len());
    let mut at = 0;
    let blank = |code: &mut Vec<u8>, part: &[u8]| {
        code.extend(part.iter().map(|byte| if *byte == b'\n' { b'\n' } else { b' ' }));
    };
    while at < bytes.len() {
        let rest = &bytes[at..];
        let after_word = at > 0 && (bytes[at - 1].is_ascii_alphanumeric() || bytes[at - 1] == b'_');
        let length = if rest.starts_with(b"//") {
            rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len())
        } else if rest.starts_with(b"/*") {
            block_comment(rest)
        } else if let Some(length) = (!after_word).then(|| raw_string(rest)).flatten() {
            // Kept as something that is not blank: its lines are code.
            code.extend(rest[..length].iter().map(|byte| if *byte == b'\n' { b'\n' } else { b'"' }));
            at += length;
            continue;
        } else if rest[0] == b'"' {
            let length = quoted(rest, b'"');
            code.extend(rest[..length].iter().map(|byte| if *byte == b'\n' { b'\n' } else { b'"' }));
            at += length;
            continue;
        } else if rest[0] == b'\'' {
            character(rest).unwrap_or(0)
        } else {
            0
        };
        if length > 0 {
            blank(&mut code, &rest[..length]);
            at += length;
        } else {
            code.push(rest[0]);
            at += 1;
        }
    }
    String::from_utf8(code).expect("only ASCII was replaced, and whole runs of it")
}

fn block_comment(rest: &[u8]) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < rest.len() {
        if rest[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                break;
            }
        } else {
            at += 1;
        }
    }
    at
}

fn raw_string(rest: &[u8]) -> Option<usize> {
    let start = [&b"br"[..], b"cr", b"r"].into_iter().find(|prefix| rest.starts_with(prefix))?.len();
    let hashes = rest[start..].iter().take_while(|byte| **byte == b'#').count();
    if rest.get(start + hashes) != Some(&b'"') {
        return None;
    }
    let end = [b"\"".to_vec(), vec![b'#'; hashes]].concat();
    let body = start + hashes + 1;
    let found = rest[body..].windows(end.len()).position(|window| window == end);
    Some(found.map_or(rest.len(), |found| body + found + end.len()))
}

fn quoted(rest: &[u8], quote: u8) -> usize {
    let mut at = 1;
    while at < rest.len() {
        match rest[at] {
            b'\\' => at += 2,
            byte if byte == quote => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

/// The length of a character literal; `None` for a lifetime.
fn character(rest: &[u8]) -> Option<usize> {
    if rest.get(1) == Some(&b'\\') {
        return Some(quoted(rest, b'\''));
    }
    let text = std::str::from_utf8(&rest[1..rest.len().min(6)])
        .or_else(|error| std::str::from_utf8(&rest[1..=error.valid_up_to()]));
    let first = text.ok()?.chars().next()?.len_utf8();
    (rest.get(1 + first) == Some(&b'\'')).then_some(first + 2)
}

/// Identifiers and punctuation; `::` is one token.
fn tokens(code: &str) -> Vec<&str> {
    let mut tokens = Vec::new();
    let mut rest = code;
    while let Some(first) = rest.chars().next() {
        let word = rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(rest.len());
        let length = match word {
            0 if rest.starts_with("::") => 2,
            0 => first.len_utf8(),
            word => word,
        };
        let (token, after) = rest.split_at(length);
        if !first.is_whitespace() {
            tokens.push(token);
        }
        rest = after;
    }
    tokens
}

/// A path that begins at `crate` or with `super`s.
struct Rooted<'t> {
    /// How many modules below the crate's root the path goes on from.
    depth: usize,
    /// What follows, after the `::`.
    rest: &'t [&'t str],
}

/// All such paths of a file, whether in an import or in code.
fn rooted_paths<'t>(source: &Source, tokens: &'t [&'t str]) -> Vec<Rooted<'t>> {
    let mut paths = Vec::new();
    // Whether each open brace is an inline module's.
    let mut braces = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        match *token {
            "{" => braces.push(at >= 2 && tokens[at - 2] == "mod"),
            "}" => {
                braces.pop();
            }
            _ => {}
        }
        let begins_path = at == 0 || tokens[at - 1] != "::";
        let (depth, after) = match *token {
            "crate" => (0, at + 1),
            "super" if begins_path => {
                let mut supers = 1;
                let mut next = at + 1;
                while tokens.get(next..next + 2) == Some(&["::", "super"]) {
                    supers += 1;
                    next += 2;
                }
                let here = source.depth() + braces.iter().filter(|inline| **inline).count();
                (here.saturating_sub(supers), next)
            }
            _ => continue,
        };
        if let Some(rest) = tokens[after..].strip_prefix(&["::"]) {
            paths.push(Rooted { depth, rest });
        }
    }
    paths
}

/// The modules and items at the crate's root that a file names: `x` of `crate::x::…`, of `use crate::{x::…, …}`, and of
/// `super::…::x` where the `super`s reach the root.
fn used_modules(source: &Source, tokens: &[&str]) -> BTreeSet<String> {
    let paths = rooted_paths(source, tokens);
    let at_root = paths.iter().filter(|path| path.depth == 0);
    at_root.flat_map(|path| heads(path.rest)).map(str::to_owned).collect()
}

/// The first names of a path, or of each path of a group.
fn heads<'t>(tokens: &[&'t str]) -> Vec<&'t str> {
    match tokens.first() {
        Some(&"{") => {
            let mut heads = Vec::new();
            let mut depth = 0;
            for (at, token) in tokens.iter().enumerate() {
                match *token {
                    "{" => depth += 1,
                    "}" => depth -= 1,
                    name if depth == 1 && matches!(tokens[at - 1], "{" | ",") => heads.push(name),
                    _ => {}
                }
                if depth == 0 {
                    break;
                }
            }
            heads
        }
        Some(name) => vec![name],
        None => Vec::new(),
    }
}

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|modules| modules.contains(&module))
}

fn sees_proto(path: &str) -> bool {
    SEES_PROTO.iter().any(|allowed| path.starts_with(allowed))
}

/// Whether a file of `user` may use the top-level module `used`, which is another one.
fn may_use(user: &str, path: &str, used: &str) -> bool {
    if used == "proto" {
        return sees_proto(path);
    }
    if user == "client" {
        return CLIENT_USES.contains(&used);
    }
    if used == "client" {
        return USES_CLIENT.contains(&user);
    }
    match (layer(user), layer(used)) {
        (Some(user_layer), Some(used_layer)) => {
            used_layer < user_layer || (user_layer, used_layer) == (0, 0) || SIDEWAYS.contains(&(user, used))
        }
        // Not a module of the crate: an item at its root, or a name that only looks like a path.
        (_, None) => true,
        (None, Some(_)) => false,
    }
}

fn import_faults(source: &Source) -> Vec<String> {
    let Some(module) = source.module() else { return Vec::new() };
    let code = code(&source.text);
    let tokens = tokens(&code);
    let path = &source.path;
    let mut faults = Vec::new();
    if layer(module).is_none() && !matches!(module, "client" | "proto") {
        faults.push(format!("{path}: {module} has no place in the layers"));
    }
    for used in used_modules(source, &tokens) {
        if used != module && !may_use(module, path, &used) {
            faults.push(format!("{path}: {module} must not use {used}"));
        }
    }
    for pair in tokens.windows(3) {
        let [before, name, after] = pair else { continue };
        let is_crate = *after == "::" && *before != "::" || *before == "use";
        if is_crate && *name == "tokio" && NO_TOKIO.contains(&module) {
            faults.push(format!("{path}: {module} must not use tokio"));
        }
        if is_crate && WIRE_CRATES.contains(name) && module != "proto" && !sees_proto(path) {
            faults.push(format!("{path}: {module} must not use {name}"));
        }
    }
    faults.extend(sibling_faults(source, &tokens));
    faults.dedup();
    faults
}

/// Edges do not know each other: within `api/`, `crate::api::x` and `super::x` may only name the edge itself.
fn sibling_faults(source: &Source, tokens: &[&str]) -> Vec<String> {
    let mut parts = source.path.split('/');
    let (Some("api"), Some(edge)) = (parts.next(), parts.next()) else { return Vec::new() };
    let edge = edge.trim_end_matches(".rs");
    if edge == "mod" {
        return Vec::new();
    }
    let mut faults = Vec::new();
    for path in rooted_paths(source, tokens) {
        let rest = match path.depth {
            0 => path.rest.strip_prefix(&["api", "::"]),
            1 => Some(path.rest),
            _ => None,
        };
        for sibling in rest.map(heads).unwrap_or_default() {
            let names_a_module = sibling.chars().all(|c| c.is_lowercase() || c == '_');
            if names_a_module && !["self", edge].contains(&sibling) {
                faults.push(format!("{}: the {edge} edge must not use {sibling}", source.path));
            }
        }
    }
    faults
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

/// The checks themselves, each shown something that it must find, and something like it that it must leave alone.
mod checks {
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
        allowed(
            "storage/log.rs",
            "use crate::{types::Offset, record::{self, Codec}}; use super::types::Append;",
        );
        allowed("broker/topics.rs", "use super::topics::broker; use crate::broker::Broker;");
        allowed("cli/serve.rs", "use crate::server::Server; use crate::client::Client;");
        allowed("storage/log.rs", "mod tests { use super::super::broker; }");
        refused("storage/log.rs", "mod tests { use super::super::super::broker; }");
        refused("storage/log.rs", "fn f() { use super::super::broker; }");
        allowed("lib.rs", "pub use crate::server::Server;");
    }

    #[test]
    fn a_module_outside_of_the_layers_is_found() {
        refused("misc.rs", "fn f() {}");
    }

    #[test]
    fn comments_and_strings_are_not_code() {
        allowed("storage/log.rs", "//! See [`crate::broker`].\n/* crate::broker /* unsafe */ */ fn f() {}");
        allowed(
            "storage/log.rs",
            r##"const A: &str = "crate::broker::"; const B: &str = r#"crate::broker"#;"##,
        );
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
        let faults =
            top_level_faults(["src/lib.rs", ".ci/run", "LICENSE", "notes.txt", "docs/a.md"].into_iter());
        assert_eq!(faults.len(), 2, "{faults:?}");
    }
}
