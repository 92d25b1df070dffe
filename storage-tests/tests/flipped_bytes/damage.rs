//! What is done to a file.

use std::ops::Range;

use sagwan::record::{self, HEADER_BYTES};

/// What is done to a file. All but the removal change one place, unless said otherwise.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Damage {
    Flip,
    FlipSeveral,
    Zero,
    Overwrite,
    Cut,
    ExtendWithZeros,
    Remove,
}

impl Damage {
    pub(crate) fn pick(random: &mut fastrand::Rng) -> Self {
        match random.u8(..20) {
            0..9 => Self::Flip,
            9..12 => Self::FlipSeveral,
            12..14 => Self::Zero,
            14..16 => Self::Overwrite,
            16..18 => Self::Cut,
            18 => Self::ExtendWithZeros,
            _ => Self::Remove,
        }
    }

    /// The bytes afterwards; `None` if the file is to go.
    pub(crate) fn apply(
        self,
        bytes: &[u8],
        batches: &[Range<usize>],
        random: &mut fastrand::Rng,
    ) -> Option<Vec<u8>> {
        let mut bytes = bytes.to_vec();
        let len = bytes.len();
        if len == 0 {
            return match self {
                Self::Remove => None,
                _ => Some(vec![0; random.usize(1..10_000)]),
            };
        }
        // In a log, as often somewhere in a header as anywhere else.
        let place = |random: &mut fastrand::Rng| match random.choice(batches) {
            Some(batch) if random.bool() => batch.start + random.usize(..HEADER_BYTES),
            _ => random.usize(..len),
        };
        let at = place(random);
        let stretch = at..(at + random.usize(1..3_000)).min(len);
        match self {
            Self::Flip => bytes[at] ^= 1 << random.u8(..8),
            Self::FlipSeveral => (0..random.u8(2..5)).for_each(|_| bytes[place(random)] ^= random.u8(1..)),
            Self::Zero => bytes[stretch].fill(0),
            Self::Overwrite => bytes[stretch].fill_with(|| random.u8(..)),
            Self::Cut => bytes.truncate(at),
            Self::ExtendWithZeros => bytes.resize(len + random.usize(1..200_000), 0),
            Self::Remove => return None,
        }
        Some(bytes)
    }
}

/// The batches of an undamaged log file: where they lie, and their base offsets.
pub(crate) fn places(bytes: &[u8]) -> (Vec<Range<usize>>, Vec<i64>) {
    let mut position = 0;
    let batches = record::batches(bytes).map(|batch| batch.expect("a good log"));
    batches
        .map(|batch| {
            let start = position;
            position += batch.size_bytes();
            (start..position, batch.base_offset().get())
        })
        .unzip()
}
