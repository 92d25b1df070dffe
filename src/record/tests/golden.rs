//! Batches as a Kafka client encodes them: kafka-python 3.0.12, `DefaultRecordBatchBuilder`, one per codec.

use super::{Owned, lenient, read_all};
use crate::record::{BatchBuilder, BatchOptions, Codec, validate};

const NONE: &str = "\
    0000000000000000000001bd0000000002fb4c47d60000000000050000018bcfe568000000018bcfe67970ffffffffffffff\
    ffffffffffffff0000000614000000046b31047631001c00e0c50802010c6e6f206b6579001e00090412746f6d6273746f6e\
    6501002000020600000400000c616273656e7401560004080e686561646572730268080261023102620400ff026102320ac3\
    bce4b896127574662d38206b6579c60400060a086c6f6e67b00473616777616e2073616777616e2073616777616e20736167\
    77616e2073616777616e2073616777616e2073616777616e2073616777616e2073616777616e2073616777616e2073616777\
    616e2073616777616e2073616777616e2073616777616e2073616777616e2073616777616e2073616777616e207361677761\
    6e2073616777616e2073616777616e2073616777616e2073616777616e2073616777616e2073616777616e2073616777616e\
    2073616777616e2073616777616e2073616777616e2073616777616e2073616777616e2073616777616e2073616777616e20\
    73616777616e2073616777616e2073616777616e2073616777616e2073616777616e2073616777616e2073616777616e2073\
    616777616e2000\
    ";
const GZIP: &str = "\
    0000000000000000000000c00000000002312cf70e0001000000050000018bcfe568000000018bcfe67970ffffffffffffff\
    ffffffffffffff000000061f8b0800e678006b02ff1361606060c936642933649061787094838991272f5f213bb592418e81\
    9345a8243f37a9b8243f2f9591418181890da89681812731a93835af84318c8185832f23353125b5a8982983832991c99029\
    8985e13f9061c47578cf931dd3844a4bd2742d40a61d636160e3e2c8c9cf4bdfc0529c985e9e98a7304aa1510c004dd2c341\
    8c010000\
    ";
const SNAPPY: &str = "\
    0000000000000000000000e300000000027080753b0002000000050000018bcfe568000000018bcfe67970ffffffffffffff\
    ffffffffffffff0000000682534e415050590000000001000000010000009e8c03f08b14000000046b31047631001c00e0c5\
    0802010c6e6f206b6579001e00090412746f6d6273746f6e6501002000020600000400000c616273656e7401560004080e68\
    6561646572730268080261023102620400ff026102320ac3bce4b896127574662d38206b6579c60400060a086c6f6e67b004\
    73616777616e2073616777616e2073616777616e2073616777fe0e00fe0e00fe0e00fa0e000000\
    ";
const LZ4: &str = "\
    0000000000000000000000d40000000002c6fe56e00003000000050000018bcfe568000000018bcfe67970ffffffffffffff\
    ffffffffffffff0000000604224d1868408c01000000000000b98c000000ff7214000000046b31047631001c00e0c5080201\
    0c6e6f206b6579001e00090412746f6d6273746f6e6501002000020600000400000c616273656e7401560004080e68656164\
    6572730268080261023102620400ff026102320ac3bce4b896127574662d38206b6579c60400060a086c6f6e67b004736167\
    77616e2073616777616e200e00f35077616e200000000000\
    ";
const ZSTD: &str = "\
    0000000000000000000000ba00000000020679e6440004000000050000018bcfe568000000018bcfe67970ffffffffffffff\
    ffffffffffffff0000000628b52ffd608c00fd030072c71c26a0291dffa0fe071b650c7001f8ecffbbe495961d8969807cd5\
    1cba146ff7cd3f19b989f472a76fbd9069a14ea67e0bf63857cca1a0888e4842d1542c8f21373757295d6e322a618313cb54\
    80e9112b364369a15f7f27dfbeb85f8412e3c54801273cc2557b0dad6497cc07770f7595fe170402001d541ac6680d51\
    ";

const START_MS: i64 = 1_700_000_000_000;

/// What each of the batches holds.
fn expected() -> Vec<Owned> {
    let long = "sagwan ".repeat(40);
    vec![
        Owned::new(START_MS, Some("k1"), Some("v1")),
        Owned::new(START_MS + 70_000, None, Some("no key")),
        Owned::new(START_MS - 5, Some("tombstone"), None),
        Owned::new(START_MS + 1, Some(""), Some("")).header("", Some(b"")).header("absent", None),
        Owned::new(START_MS + 2, Some("headers"), Some("h"))
            .header("a", Some(b"1"))
            .header("b", Some(b"\x00\xff"))
            .header("a", Some(b"2"))
            .header("ü世", Some(b"utf-8 key")),
        Owned::new(START_MS + 3, Some("long"), Some(&long)),
    ]
}

fn unhex(hex: &str) -> Vec<u8> {
    let digits = hex.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
    digits.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
}

#[test]
fn a_kafka_clients_batch_reads_as_it_was_written_under_each_codec() {
    for (codec, hex) in [
        (Codec::None, NONE),
        (Codec::Gzip, GZIP),
        (Codec::Snappy, SNAPPY),
        (Codec::Lz4, LZ4),
        (Codec::Zstd, ZSTD),
    ] {
        let bytes = unhex(hex);
        let batch = validate(&bytes, &lenient()).unwrap_or_else(|error| panic!("{codec}: {error}"));
        assert_eq!(batch.attributes().codec(), Some(codec));
        assert_eq!(batch.size_bytes(), bytes.len());
        assert_eq!(batch.record_count(), 6);
        assert_eq!(batch.last_offset().get(), 5);
        assert_eq!(batch.next_offset().get(), 6);
        assert_eq!(batch.base_timestamp(), START_MS);
        assert_eq!(batch.max_timestamp(), START_MS + 70_000);
        assert_eq!((batch.producer_id(), batch.producer_epoch(), batch.base_sequence()), (-1, -1, -1));
        assert_eq!(read_all(&bytes), expected(), "{codec}");
    }
}

#[test]
fn the_builder_writes_the_bytes_a_kafka_client_writes() {
    let mut builder = BatchBuilder::new(BatchOptions { codec: Codec::None });
    for record in expected() {
        record.push_to(&mut builder);
    }
    let built = builder.build().unwrap();
    assert_eq!(built[..], unhex(NONE));
}
