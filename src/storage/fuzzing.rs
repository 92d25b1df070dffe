//! A way in for fuzz targets to what nobody outside this layer calls: the decoders of the small files.

use super::checkpoint::{self, Checkpoint};
use super::data_dir::Meta;
use super::durable::{self, SLOT_BYTES};
use super::epochs::{self, LeaderEpochs};
use super::segment::parse_name;
use super::small_file::{self, FileKind, HEADER_BYTES};
use super::{identity, producer_snapshot, seals};

/// A small file of the data directory or of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is named as its file")]
pub enum SmallFile {
    Checkpoint,
    Durable,
    LeaderEpochs,
    Meta,
    Seals,
    Snapshot,
    TopicId,
}

impl SmallFile {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Checkpoint,
        Self::Durable,
        Self::LeaderEpochs,
        Self::Meta,
        Self::Seals,
        Self::Snapshot,
        Self::TopicId,
    ];

    /// The one that is called so.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            checkpoint::FILE | "checkpoint.old" => Some(Self::Checkpoint),
            durable::FILE => Some(Self::Durable),
            epochs::FILE => Some(Self::LeaderEpochs),
            "meta.toml" => Some(Self::Meta),
            seals::FILE => Some(Self::Seals),
            identity::FILE => Some(Self::TopicId),
            name if parse_name(name, producer_snapshot::EXTENSION).is_some() => Some(Self::Snapshot),
            _ => None,
        }
    }

    fn frame(self) -> Option<(FileKind, u8)> {
        match self {
            Self::Checkpoint => Some((FileKind::Checkpoint, checkpoint::VERSION)),
            Self::LeaderEpochs => Some((FileKind::LeaderEpochs, epochs::VERSION)),
            Self::Seals => Some((FileKind::Seals, seals::VERSION)),
            Self::Snapshot => Some((FileKind::Producers, producer_snapshot::VERSION)),
            Self::TopicId => Some((FileKind::TopicId, identity::VERSION)),
            Self::Durable | Self::Meta => None,
        }
    }

    /// What follows the file's header, if it has one.
    pub fn content(self, bytes: &[u8]) -> &[u8] {
        let header_bytes = if self.frame().is_some() { HEADER_BYTES } else { 0 };
        bytes.get(header_bytes..).unwrap_or_default()
    }

    /// The file with this content, its header and checksums made right.
    pub fn forge(self, content: &[u8]) -> Vec<u8> {
        if let Some((kind, version)) = self.frame() {
            return small_file::encode(kind, version, content);
        }
        let mut bytes = content.to_vec();
        if self == Self::Durable {
            for slot in bytes.as_chunks_mut::<SLOT_BYTES>().0 {
                let (covered, crc) = slot.split_at_mut(SLOT_BYTES - 4);
                crc.copy_from_slice(&crc32fast::hash(covered).to_be_bytes());
            }
        }
        bytes
    }

    /// The bytes that what these bytes say is written as; `None` if they say nothing.
    pub fn rewrite(self, bytes: &[u8]) -> Option<Vec<u8>> {
        let (version, body) = match self.frame() {
            Some((kind, known)) => small_file::decode_any(kind, known, bytes).ok()?,
            None => (0, bytes),
        };
        match self {
            Self::Checkpoint => Some(Checkpoint::decode(version, body)?.encode()),
            Self::Durable => {
                let slots = body.as_chunks::<SLOT_BYTES>().0.iter().filter_map(durable::decode);
                Some(slots.flat_map(|(key, offset)| durable::encode(key, offset)).collect())
            }
            Self::LeaderEpochs => Some(LeaderEpochs::decode(body)?.encode()),
            Self::Meta => Meta::decode(body).ok()?.encode().ok().map(String::into_bytes),
            Self::Seals => {
                let manifest = seals::decode(body)?;
                Some(seals::encode(manifest.first, &manifest.seals.iter().collect::<Vec<_>>()))
            }
            Self::Snapshot => {
                let (offset, states) = producer_snapshot::decode(body)?;
                Some(producer_snapshot::encode(offset, &states))
            }
            Self::TopicId => Some(identity::encode(identity::decode(body)?)),
        }
    }
}
