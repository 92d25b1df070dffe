//! Small batches that unpack to much: refused at the cap, with no more memory than the cap.

use std::io::Write;

use super::{MIB, Owned, build, lenient, one_record, with_payload};
use crate::record::{BatchError, BatchView, Codec, CorruptBatch, InvalidBatch, ValidationRules, validate};

const CAP: u64 = MIB;
const BOMB: usize = 1 << 30;

/// The records of a batch of `zeros` as `codec` packs them.
fn packed_zeros(codec: Codec, zeros: usize) -> Vec<u8> {
    let mut out = bytes::BytesMut::new();
    codec.compress(&vec![0; zeros], &mut out).unwrap();
    out.to_vec()
}

/// A gzip member of 1 MiB, again and again: members in a row are one stream.
fn gzip_bomb() -> Vec<u8> {
    packed_zeros(Codec::Gzip, 1 << 20).repeat(BOMB >> 20)
}

/// A block of 32 KiB, again and again, behind one header.
fn snappy_bomb() -> Vec<u8> {
    let stream = packed_zeros(Codec::Snappy, 32 << 10);
    let (header, block) = stream.split_at(16);
    [header, &block.repeat(BOMB >> 15)].concat()
}

/// A block of 64 KiB, again and again, between the frame's 7 bytes of header and its end mark of 4.
fn lz4_bomb() -> Vec<u8> {
    let frame = packed_zeros(Codec::Lz4, 64 << 10);
    let (header, blocks) = frame.split_at(7);
    let (block, end) = blocks.split_at(blocks.len() - 4);
    [header, &block.repeat(BOMB >> 16), end].concat()
}

/// One frame of blocks that each repeat one byte 128 Ki times (RFC 8878, 3.1.1.2.2: RLE), its content size declared.
fn zstd_bomb() -> Vec<u8> {
    const WINDOW_OF_1_MIB: u8 = 10 << 3;
    const CONTENT_SIZE_OF_4_BYTES: u8 = 2 << 6;
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, CONTENT_SIZE_OF_4_BYTES, WINDOW_OF_1_MIB];
    frame.extend((BOMB as u32).to_le_bytes());
    let blocks = BOMB >> 17;
    for block in 1..=blocks {
        let rle = 1 << 1;
        let head = (1_u32 << 17 << 3) | rle | u32::from(block == blocks);
        frame.write_all(&head.to_le_bytes()[..3]).unwrap();
        frame.push(0);
    }
    frame
}

#[test]
fn a_bomb_is_refused_within_the_cap_under_each_codec() {
    let bombs = [
        (Codec::Gzip, gzip_bomb()),
        (Codec::Snappy, snappy_bomb()),
        (Codec::Lz4, lz4_bomb()),
        (Codec::Zstd, zstd_bomb()),
    ];
    let too_large = BatchError::Invalid(InvalidBatch::DecompressedTooLarge { max_decompressed_bytes: CAP });
    for (codec, payload) in bombs {
        assert!(payload.len() < BOMB / 20, "{codec}: {} bytes", payload.len());
        let batch = with_payload(&build(Codec::None, &one_record()), codec, &payload);
        let mut scratch = Vec::new();
        let refused = BatchView::parse(&batch).unwrap().records(&mut scratch, CAP).expect_err("a bomb");
        assert_eq!(refused, too_large, "{codec}");
        assert!(scratch.capacity() as u64 <= CAP, "{codec}: {} bytes", scratch.capacity());

        let rules = ValidationRules { max_decompressed_bytes: CAP, ..lenient() };
        assert_eq!(validate(&batch, &rules), Err(too_large.clone()), "{codec}");
    }
}

#[test]
fn the_cap_holds_to_the_byte() {
    for codec in [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
        let record = [Owned::new(1, None, Some(&"x".repeat(100_000)))];
        let unpacked = build(Codec::None, &record).len() as u64 - 61;
        let batch = build(codec, &record);
        let view = BatchView::parse(&batch).unwrap();
        for (cap, fits) in [(0, false), (unpacked - 1, false), (unpacked, true), (unpacked + 1, true)] {
            let mut scratch = Vec::new();
            assert_eq!(view.records(&mut scratch, cap).is_ok(), fits, "{codec} with a cap of {cap}");
            assert!(scratch.capacity() as u64 <= cap);
        }
    }
}

#[test]
fn a_declared_size_alone_allocates_nothing() {
    // Snappy: a raw block of three bytes that declares 4 GiB; Zstandard: an empty frame that declares 1 GiB.
    let snappy = [0xff, 0xff, 0xff, 0xff, 0x0f, 0, 0, 0];
    let mut zstd = vec![0x28, 0xb5, 0x2f, 0xfd, 2 << 6, 10 << 3];
    zstd.extend((BOMB as u32).to_le_bytes());
    for (codec, payload) in [(Codec::Snappy, &snappy[..]), (Codec::Zstd, &zstd)] {
        let batch = with_payload(&build(Codec::None, &one_record()), codec, payload);
        let mut scratch = Vec::new();
        let refused = BatchView::parse(&batch).unwrap().records(&mut scratch, u64::MAX);
        assert!(matches!(refused, Err(BatchError::Corrupt(CorruptBatch::Undecodable { .. }))), "{codec}");
        assert!(scratch.capacity() <= 8 << 10, "{codec}: {} bytes", scratch.capacity());
    }
}

#[test]
fn a_zstd_window_beyond_the_cap_is_refused() {
    // An empty frame, but for the window it wants: 64 MiB and 256 MiB.
    let wants = |log: u8| [0x28, 0xb5, 0x2f, 0xfd, 0, (log - 10) << 3, 1, 0, 0];
    let unpacks = |log, cap| {
        let like = build(Codec::None, &one_record());
        let batch = with_payload(&like, Codec::Zstd, &wants(log));
        BatchView::parse(&batch).unwrap().records(&mut Vec::new(), cap).is_ok()
    };
    assert!(unpacks(23, CAP));
    assert!(!unpacks(26, CAP));
    assert!(unpacks(26, 64 * MIB));
    assert!(!unpacks(28, 1 << 31));
}
