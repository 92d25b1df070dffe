//! The code in README.md, as its readers see it.

use std::path::PathBuf;

/// The top of the repository.
pub fn repository() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// README.md.
///
/// # Panics
/// If it cannot be read.
pub fn text() -> String {
    let path = repository().join("README.md");
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()))
}

/// The contents of the fenced blocks of one language (`sh`, `python`, `rust`, `text`), in order.
///
/// # Panics
/// If a block has no language or no end: rustdoc would take it for Rust.
pub fn blocks(markdown: &str, language: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut lines = markdown.lines();
    while let Some(line) = lines.next() {
        let Some(info) = line.strip_prefix("```") else { continue };
        let name = info.split(',').next().unwrap_or_default();
        assert!(!name.is_empty(), "README.md has a code block without a language");
        let mut block = String::new();
        loop {
            let Some(line) = lines.next() else { panic!("README.md has a {name} block without an end") };
            if line == "```" {
                break;
            }
            block.push_str(line);
            block.push('\n');
        }
        if name == language {
            blocks.push(block);
        }
    }
    blocks
}

/// The lines of a shell block as commands: comments left out, lines that end in a backslash joined.
pub fn shell_commands(block: &str) -> Vec<String> {
    let joined = block.replace("\\\n", " ");
    let lines = joined.lines().map(str::trim);
    lines.filter(|line| !line.is_empty() && !line.starts_with('#')).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str =
        "# Page\n```sh\na \\\n  b\n# c\n\nd\n```\ntext\n```rust,no_run\nfn main() {}\n```\n```sh\ne\n```\n";

    #[test]
    fn blocks_are_found_by_language() {
        assert_eq!(blocks(PAGE, "rust"), ["fn main() {}\n"]);
        assert_eq!(blocks(PAGE, "sh").len(), 2);
        assert!(blocks(PAGE, "python").is_empty());
    }

    #[test]
    fn shell_commands_are_joined_and_comments_left_out() {
        assert_eq!(shell_commands(&blocks(PAGE, "sh")[0]), ["a    b", "d"]);
    }

    #[test]
    #[should_panic(expected = "without a language")]
    fn a_block_without_a_language_is_refused() {
        blocks("```\nx\n```\n", "sh");
    }
}
