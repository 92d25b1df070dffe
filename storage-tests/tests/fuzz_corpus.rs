//! Replays the fuzz corpora: what was once found, or is worth starting from, stays tested without a fuzzer.

use std::fs;
use std::io;
use std::path::Path;

use sagwan::record::{Codec, ValidationRules, validate};
use storage_tests::fuzzing;

/// The inputs of a fuzz target, by file name.
fn corpus(target: &str) -> io::Result<Vec<(String, Vec<u8>)>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let files = fs::read_dir(dir)?.map(|file| {
        let file = file?;
        Ok((file.file_name().to_string_lossy().into_owned(), fs::read(file.path())?))
    });
    files.collect()
}

#[test]
fn the_batch_parser_stands_its_corpus() {
    for (name, input) in corpus("batch_parser").unwrap() {
        println!("{name}");
        fuzzing::batch_parser(&input);
    }
}

#[test]
fn the_batch_corpus_has_good_batches_of_each_codec_and_bad_ones() {
    let rules = ValidationRules {
        max_message_bytes: 1 << 20,
        now_ms: 0,
        timestamp_after_max_ms: i64::MAX,
        strict: true,
        max_decompressed_bytes: 1 << 20,
    };
    let corpus = corpus("batch_parser").unwrap();
    let accepted =
        |name: &str| validate(&corpus.iter().find(|file| file.0 == name).unwrap().1, &rules).is_ok();
    for codec in Codec::ALL {
        assert!(accepted(&format!("good-{codec}")), "{codec}");
    }
    let bad: Vec<_> = corpus.iter().filter(|(name, _)| name.starts_with("bad-")).collect();
    assert!(bad.len() >= 10);
    for (name, _) in bad {
        assert!(!accepted(name), "{name}");
    }
}
