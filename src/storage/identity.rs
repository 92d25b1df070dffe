//! Which topic and partition a log's directory belongs to, in its file `topic-id`: a name can be used again for another
//! topic, an id cannot.
//!
//! ```text
//! topic id 16 bytes | partition i32
//! ```
//! Big-endian, in the frame of [`super::small_file`].

use std::io;
use std::path::Path;

use super::checkpoint::LogKey;
use super::fs::Fs;
use super::small_file::{self, FileKind, FrameError, ReadFileError};
use crate::types::{PartitionId, TopicId};

/// The file's name.
pub(super) const FILE: &str = "topic-id";
pub(super) const VERSION: u8 = 1;

/// The bytes of the file.
pub(super) fn encode((topic_id, partition): LogKey) -> Vec<u8> {
    let mut body = topic_id.as_bytes().to_vec();
    body.extend_from_slice(&partition.get().to_be_bytes());
    small_file::encode(FileKind::TopicId, VERSION, &body)
}

/// Decodes the body; `None` if it is not one.
pub(super) fn decode(body: &[u8]) -> Option<LogKey> {
    let (id, partition) = body.split_first_chunk::<16>()?;
    let partition = PartitionId::new(i32::from_be_bytes(partition.try_into().ok()?))?;
    Some((TopicId::from_bytes(*id), partition))
}

/// Reads it; `None` if there is none.
pub(super) fn read(fs: &dyn Fs, dir: &Path) -> Result<Option<LogKey>, ReadFileError> {
    read_file(fs, &dir.join(FILE))
}

/// The same from any file.
pub(super) fn read_file(fs: &dyn Fs, path: &Path) -> Result<Option<LogKey>, ReadFileError> {
    let Some(body) = small_file::read(fs, path, FileKind::TopicId, VERSION)? else { return Ok(None) };
    match decode(&body) {
        Some(key) => Ok(Some(key)),
        None => Err(ReadFileError::Frame { path: path.to_owned(), source: FrameError::Damaged }),
    }
}

/// Whether a damaged file can only have been that of `key`: the body, or the checksum over it, is still there.
pub(super) fn is_left_of(bytes: &[u8], key: LogKey) -> bool {
    let whole = encode(key);
    let (body, crc) = (small_file::HEADER_BYTES.., 12..small_file::HEADER_BYTES);
    bytes.get(body.clone()) == whole.get(body) || bytes.get(crc.clone()) == whole.get(crc)
}

/// Replaces it, durably.
///
/// # Errors
/// Whatever the file system says; the one before is then still there.
pub(super) fn replace(fs: &dyn Fs, dir: &Path, key: LogKey) -> io::Result<()> {
    small_file::replace(fs, dir, FILE, &encode(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_is_pinned() {
        let key = (TopicId::from_bytes([5; 16]), PartitionId::new(258).unwrap());
        let bytes = encode(key);
        let body = small_file::decode(FileKind::TopicId, VERSION, &bytes).unwrap();
        assert_eq!(body[..16], [5; 16]);
        assert_eq!(body[16..], [0, 0, 1, 2]);
        assert_eq!(decode(body), Some(key));
    }

    #[test]
    fn what_a_single_damage_leaves_tells_whose_it_was_and_nothing_else_does() {
        let partition = |number| PartitionId::new(number).unwrap();
        let key = (TopicId::from_bytes([5; 16]), partition(2));
        for at in 0..encode(key).len() {
            let mut bytes = encode(key);
            bytes[at] ^= 0x10;
            assert!(is_left_of(&bytes, key), "byte {at}");
            assert!(!is_left_of(&bytes, (TopicId::from_bytes([6; 16]), partition(2))), "byte {at}");
            assert!(!is_left_of(&bytes, (key.0, partition(3))), "byte {at}");
        }
        for lost in [&[][..], &[0; 36], &encode(key)[..12]] {
            assert!(!is_left_of(lost, key));
        }
    }
}
