//! Foreign bytes as a record batch.

use sagwan::record::{
    BatchView, Codec, HEADER_BYTES, LENGTH_PREFIX_BYTES, RecordView, ValidationRules, batches, frame_size,
    recompress, set_log_append_time, set_position, validate,
};
use sagwan::types::{LeaderEpoch, Offset};

/// Small, so that what is unpacked beyond it shows.
const MAX_DECOMPRESSED_BYTES: u64 = 64 << 10;

const STRICT: ValidationRules = ValidationRules {
    max_message_bytes: 1 << 20,
    now_ms: 0,
    timestamp_after_max_ms: i64::MAX,
    strict: true,
    max_decompressed_bytes: MAX_DECOMPRESSED_BYTES,
};

/// Drives all that the record layer does with foreign bytes: with `input` as it is, and with the frame, magic and
/// checksum made right, as little else would get past those.
///
/// # Panics
/// If the layer breaks a promise.
pub fn batch_parser(input: &[u8]) {
    check_batches(input);
    check_batch(input);
    if let Some(framed) = framed(input) {
        check_batch(&framed);
    }
}

/// `input` with a batch length, magic and checksum that fit it.
pub(super) fn framed(input: &[u8]) -> Option<Vec<u8>> {
    let batch_length = i32::try_from(input.len().checked_sub(LENGTH_PREFIX_BYTES)?).ok()?;
    let mut batch = input.to_vec();
    let (header, _) = batch.split_first_chunk_mut::<HEADER_BYTES>()?;
    header[8..12].copy_from_slice(&batch_length.to_be_bytes());
    header[16] = 2;
    let crc = crc32c::crc32c(&batch[21..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
    Some(batch)
}

/// Batches back to back cover the bytes up to the first that is none.
fn check_batches(bytes: &[u8]) {
    let mut rest = bytes;
    for batch in batches(bytes) {
        let Ok(batch) = batch else { return };
        assert_eq!(frame_size(rest), Some(batch.size_bytes()));
        assert!(batch.base_offset() <= batch.last_offset() && batch.last_offset() < batch.next_offset());
        rest = &rest[batch.size_bytes()..];
    }
    assert!(rest.is_empty());
}

fn check_batch(bytes: &[u8]) {
    let relaxed = validate(bytes, &ValidationRules { strict: false, ..STRICT });
    let strict = validate(bytes, &STRICT);
    assert!(strict.is_err() || relaxed.is_ok());

    if let Ok(batch) = BatchView::parse(bytes) {
        // Whatever the bytes, reading ends, in bounded memory.
        let mut scratch = Vec::new();
        if let Ok(records) = batch.records(&mut scratch, MAX_DECOMPRESSED_BYTES) {
            for record in records.flatten() {
                assert_eq!(record.headers().count(), record.header_count());
            }
        }
        assert!(scratch.capacity() as u64 <= MAX_DECOMPRESSED_BYTES);
        for codec in Codec::ALL {
            let packed = recompress(&batch, codec, MAX_DECOMPRESSED_BYTES);
            if let (Ok(packed), Ok(batch)) = (packed, &strict) {
                check_same_records(batch, &packed);
            }
        }
    }
    if let Ok(batch) = strict {
        check_patches(&batch);
    }
}

/// Packing anew makes a valid batch of the same records.
fn check_same_records(batch: &BatchView<'_>, packed: &[u8]) {
    // Records that were not packed are bounded by their batch.
    let max_decompressed_bytes = MAX_DECOMPRESSED_BYTES.max(batch.size_bytes() as u64);
    let packed =
        validate(packed, &ValidationRules { max_message_bytes: u64::MAX, max_decompressed_bytes, ..STRICT });
    assert!(packed.is_ok(), "{packed:?}");
    let mut scratches = (Vec::new(), Vec::new());
    let before = batch.records(&mut scratches.0, max_decompressed_bytes);
    let after = packed.and_then(|packed| packed.records(&mut scratches.1, max_decompressed_bytes));
    let (Ok(before), Ok(after)) = (before, after) else { panic!("a valid batch has readable records") };
    let before: Vec<_> = before.flatten().collect();
    let after: Vec<_> = after.flatten().collect();
    assert_eq!(before.len(), batch.record_count().unsigned_abs() as usize);
    assert_eq!(before.len(), after.len());
    assert!(before.iter().zip(&after).all(|(before, after)| is_same(before, after)));
}

fn is_same(one: &RecordView<'_>, other: &RecordView<'_>) -> bool {
    (one.offset, one.timestamp_ms, one.key, one.value)
        == (other.offset, other.timestamp_ms, other.key, other.value)
        && one.headers().eq(other.headers())
}

/// What the broker changes in an accepted batch leaves it whole.
fn check_patches(batch: &BatchView<'_>) {
    let mut patched = batch.as_bytes().to_vec();
    set_position(&mut patched, Offset::clamped(1 << 40), LeaderEpoch(7));
    set_log_append_time(&mut patched, 1);
    let view = BatchView::parse(&patched);
    assert!(view.as_ref().is_ok_and(BatchView::crc_is_valid));
    let mut scratch = Vec::new();
    let records = view.and_then(|view| view.records(&mut scratch, MAX_DECOMPRESSED_BYTES));
    let Ok(records) = records else { panic!("a patched batch has readable records") };
    for (offset, record) in (1_i64 << 40..).zip(records) {
        assert!(record.is_ok_and(|record| record.offset.get() == offset && record.timestamp_ms == 1));
    }
}
