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

/// Does with each input of a target what the target does.
fn replay(target: &str, mut run: impl FnMut(&[u8])) {
    let inputs = corpus(target).unwrap();
    assert!(inputs.len() >= 20, "{} inputs", inputs.len());
    for (name, input) in inputs {
        println!("{name}");
        run(&input);
    }
}

#[test]
fn the_batch_parser_stands_its_corpus() {
    replay("batch_parser", fuzzing::batch_parser);
}

#[test]
fn the_small_files_stand_their_corpus() {
    replay("checkpoint", fuzzing::checkpoint);
}

#[test]
fn the_grpc_produce_stands_its_corpus() {
    let mut broker = fuzzing::GrpcProduce::new();
    replay("grpc_produce", |input| broker.run(input));
}

#[test]
fn indexes_stand_their_corpus() {
    replay("index", fuzzing::index);
}

#[test]
fn recovery_stands_its_corpus() {
    replay("recovery", fuzzing::recovery);
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
