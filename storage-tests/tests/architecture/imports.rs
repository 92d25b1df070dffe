//! Which module may use which.

use std::collections::BTreeSet;

use super::Source;
use super::lexer::{code, tokens};

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
/// Whoever measures the server from outside sees no more of it than any client.
const OUTSIDERS: &str = "cli/bench/";
const OUTSIDERS_USE: [&str; 4] = ["types", "record", "proto", "client"];
/// Who may use the client.
const USES_CLIENT: [&str; 1] = ["cli"];
/// Who may see the wire's types, and the crates they are made of.
const SEES_PROTO: [&str; 4] = ["api/grpc/", "client/", "cli/", "server.rs"];
const WIRE_CRATES: [&str; 4] = ["tonic", "prost", "tonic_types", "tonic_prost"];
/// Below the broker nothing is asynchronous.
const NO_TOKIO: [&str; 3] = ["types", "record", "storage"];

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

/// Whether a file of the module `from` may use the top-level module `to`, which is another one.
fn may_use(from: &str, path: &str, to: &str) -> bool {
    if path.starts_with(OUTSIDERS) {
        return OUTSIDERS_USE.contains(&to);
    }
    if to == "proto" {
        return sees_proto(path);
    }
    if from == "client" {
        return CLIENT_USES.contains(&to);
    }
    if to == "client" {
        return USES_CLIENT.contains(&from);
    }
    match (layer(from), layer(to)) {
        (Some(above), Some(below)) => {
            below < above || (above, below) == (0, 0) || SIDEWAYS.contains(&(from, to))
        }
        // Not a module of the crate: an item at its root, or a name that only looks like a path.
        (_, None) => true,
        (None, Some(_)) => false,
    }
}

pub(crate) fn import_faults(source: &Source) -> Vec<String> {
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
