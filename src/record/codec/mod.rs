//! The codecs of a batch's records, each as Kafka's clients write and read it.
//!
//! Unpacking writes into a [`Capped`] buffer: the cap is enforced while decoding, so that a small batch cannot
//! become a large allocation.

mod capped;
mod gzip;
mod lz4;
mod snappy;
mod zstd;

use std::{fmt, io};

use bytes::{BufMut, BytesMut};

use self::capped::Capped;
use super::error::{BatchError, CorruptBatch, InvalidBatch};

/// How the records of a batch are packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Codec {
    /// Not at all.
    #[default]
    None,
    /// RFC 1952.
    Gzip,
    /// Snappy blocks in the framing of the xerial library.
    Snappy,
    /// An LZ4 frame.
    Lz4,
    /// RFC 8878.
    Zstd,
}

impl Codec {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 5] = [Self::None, Self::Gzip, Self::Snappy, Self::Lz4, Self::Zstd];

    /// Its number in the attributes of a batch.
    pub const fn id(self) -> u8 {
        self as u8
    }

    /// The codec of a number; `None` for one without a meaning.
    pub fn from_id(id: u8) -> Option<Self> {
        Self::ALL.get(usize::from(id)).copied()
    }

    /// Its name, as Kafka's settings spell it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }

    /// The codec of a name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|codec| codec.name() == name)
    }

    /// Appends `records`, packed, to `out`.
    pub(super) fn compress(self, records: &[u8], out: &mut BytesMut) -> Result<(), InvalidBatch> {
        let packed = match self {
            Self::None => {
                out.put_slice(records);
                Ok(())
            }
            Self::Gzip => gzip::compress(records, out),
            Self::Snappy => snappy::compress(records, out),
            Self::Lz4 => lz4::compress(records, out),
            Self::Zstd => zstd::compress(records, out),
        };
        packed.map_err(|_| InvalidBatch::Unpackable { codec: self })
    }

    /// The records that `packed` holds: itself, if they are not packed, else what it unpacks to in `scratch`.
    pub(super) fn decompress<'s>(
        self,
        packed: &'s [u8],
        scratch: &'s mut Vec<u8>,
        max_decompressed_bytes: u64,
    ) -> Result<&'s [u8], BatchError> {
        let mut out = Capped::new(scratch, max_decompressed_bytes);
        let unpacked = match self {
            Self::None => return Ok(packed),
            Self::Gzip => gzip::decompress(packed, &mut out),
            Self::Snappy => snappy::decompress(packed, &mut out),
            Self::Lz4 => lz4::decompress(packed, &mut out),
            Self::Zstd => zstd::decompress(packed, &mut out),
        };
        match unpacked {
            Ok(()) => Ok(out.into_filled()),
            Err(UnpackError::TooLarge) => {
                Err(InvalidBatch::DecompressedTooLarge { max_decompressed_bytes }.into())
            }
            Err(UnpackError::Broken(reason)) => Err(CorruptBatch::Undecodable { codec: self, reason }.into()),
        }
    }
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why bytes do not unpack.
#[derive(Debug, PartialEq, Eq)]
enum UnpackError {
    /// To more than the cap.
    TooLarge,
    /// Not at all, for this reason.
    Broken(Box<str>),
}

impl From<io::Error> for UnpackError {
    fn from(error: io::Error) -> Self {
        Self::Broken(error.to_string().into())
    }
}

impl From<&str> for UnpackError {
    fn from(reason: &str) -> Self {
        Self::Broken(reason.into())
    }
}
