//! Zigzag variable-length integers, as in Kafka's records and protobuf's `sint32` and `sint64`.
//!
//! Seven bits a byte, the lowest first; the top bit says that another byte follows.

use bytes::{BufMut, BytesMut};

use super::error::RecordFault;

/// The longest encoding of 32 bits.
pub(super) const MAX_VARINT_BYTES: usize = 5;
/// The longest encoding of 64 bits.
pub(super) const MAX_VARLONG_BYTES: usize = 10;

/// Reads a record's fields one after the other.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// What has not been read.
    pub(super) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// The next `len` bytes.
    #[inline]
    pub(super) fn take(&mut self, len: usize) -> Result<&'a [u8], RecordFault> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(RecordFault::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    /// The next byte.
    #[inline]
    pub(super) fn byte(&mut self) -> Result<u8, RecordFault> {
        let (&byte, rest) = self.rest.split_first().ok_or(RecordFault::Truncated)?;
        self.rest = rest;
        Ok(byte)
    }

    /// A 32-bit integer.
    #[inline]
    pub(super) fn varint(&mut self) -> Result<i32, RecordFault> {
        let zigzag = self.unsigned::<32>()? as u32;
        Ok((zigzag >> 1) as i32 ^ -((zigzag & 1) as i32))
    }

    /// A 64-bit integer.
    #[inline]
    pub(super) fn varlong(&mut self) -> Result<i64, RecordFault> {
        let zigzag = self.unsigned::<64>()?;
        Ok((zigzag >> 1) as i64 ^ -((zigzag & 1) as i64))
    }

    /// A length or count: 0 or more.
    #[inline]
    pub(super) fn length(&mut self) -> Result<usize, RecordFault> {
        let value = self.varint()?;
        usize::try_from(value).map_err(|_| RecordFault::NegativeLength { value })
    }

    /// Bytes behind their length; -1 says that there are none.
    #[inline]
    pub(super) fn nullable(&mut self) -> Result<Option<&'a [u8]>, RecordFault> {
        match self.varint()? {
            -1 => Ok(None),
            len => {
                let len = usize::try_from(len).map_err(|_| RecordFault::NegativeLength { value: len })?;
                self.take(len).map(Some)
            }
        }
    }

    /// Nearly all varints of real records have one byte or two, as the lengths from 64 on: those are decoded inline.
    #[inline]
    fn unsigned<const BITS: u32>(&mut self) -> Result<u64, RecordFault> {
        match self.rest {
            [byte, rest @ ..] if *byte < 0x80 => {
                self.rest = rest;
                Ok(u64::from(*byte))
            }
            [low, high, rest @ ..] if *high < 0x80 => {
                self.rest = rest;
                Ok(u64::from(*high) << 7 | u64::from(*low & 0x7f))
            }
            _ => self.unsigned_of_many_bytes::<BITS>(),
        }
    }

    fn unsigned_of_many_bytes<const BITS: u32>(&mut self) -> Result<u64, RecordFault> {
        let mut value = 0;
        let mut shift = 0;
        while shift < BITS {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            let room = BITS - shift;
            if room < 7 && bits >> room != 0 {
                return Err(RecordFault::IntegerRange);
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Ok(value);
            }
            shift += 7;
        }
        Err(RecordFault::IntegerRange)
    }
}

fn zigzag32(value: i32) -> u64 {
    u64::from(((value << 1) ^ (value >> 31)) as u32)
}

fn zigzag64(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

fn unsigned_len(value: u64) -> usize {
    let bits = (u64::BITS - value.leading_zeros()).max(1);
    bits.div_ceil(7) as usize
}

#[inline]
fn put_unsigned(out: &mut BytesMut, mut value: u64) {
    let mut bytes = [0; MAX_VARLONG_BYTES];
    let mut length = 1;
    for byte in &mut bytes {
        *byte = value as u8;
        value >>= 7;
        if value == 0 {
            break;
        }
        *byte |= 0x80;
        length += 1;
    }
    out.put_slice(bytes.get(..length).unwrap_or_default());
}

/// How many bytes [`put_varint`] writes.
pub(super) fn varint_len(value: i32) -> usize {
    unsigned_len(zigzag32(value))
}

/// How many bytes [`put_varlong`] writes.
pub(super) fn varlong_len(value: i64) -> usize {
    unsigned_len(zigzag64(value))
}

/// Appends a 32-bit integer.
pub(super) fn put_varint(out: &mut BytesMut, value: i32) {
    put_unsigned(out, zigzag32(value));
}

/// Appends a 64-bit integer.
pub(super) fn put_varlong(out: &mut BytesMut, value: i64) {
    put_unsigned(out, zigzag64(value));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_numbers_of_either_sign_take_one_byte() {
        for (value, byte) in [(0, 0), (-1, 1), (1, 2), (-2, 3), (63, 126), (-64, 127)] {
            let mut out = BytesMut::new();
            put_varint(&mut out, value);
            assert_eq!(out[..], [byte]);
        }
    }

    #[test]
    fn integers_at_every_length_boundary_survive_a_round_trip() {
        let edges = (0..64).flat_map(|bit| {
            let power = 1_i64.wrapping_shl(bit);
            [power.wrapping_sub(1), power, power.wrapping_add(1), power.wrapping_neg()]
        });
        for value in edges.chain([i64::MIN, i64::MAX]) {
            let mut out = BytesMut::new();
            put_varlong(&mut out, value);
            assert_eq!(out.len(), varlong_len(value), "{value}");
            assert!(out.len() <= MAX_VARLONG_BYTES);
            let mut cursor = Cursor::new(&out);
            assert_eq!(cursor.varlong(), Ok(value));
            assert_eq!(cursor.rest(), b"");

            let value = value as i32;
            let mut out = BytesMut::new();
            put_varint(&mut out, value);
            assert_eq!(out.len(), varint_len(value), "{value}");
            assert!(out.len() <= MAX_VARINT_BYTES);
            assert_eq!(Cursor::new(&out).varint(), Ok(value));
        }
    }

    #[test]
    fn an_integer_beyond_its_bits_is_refused() {
        let varint = |bytes: &[u8]| Cursor::new(bytes).varint();
        assert_eq!(varint(&[0xff, 0xff, 0xff, 0xff, 0x0f]), Ok(i32::MIN));
        assert_eq!(varint(&[0xff, 0xff, 0xff, 0xff, 0x1f]), Err(RecordFault::IntegerRange));
        assert_eq!(varint(&[0x80, 0x80, 0x80, 0x80, 0x80, 0x00]), Err(RecordFault::IntegerRange));
        let mut long = [0xff; 10];
        long[9] = 0x01;
        assert_eq!(Cursor::new(&long).varlong(), Ok(i64::MIN));
        long[9] = 0x02;
        assert_eq!(Cursor::new(&long).varlong(), Err(RecordFault::IntegerRange));
        assert_eq!(Cursor::new(&[0x80; 11]).varlong(), Err(RecordFault::IntegerRange));
    }

    #[test]
    fn an_integer_that_breaks_off_is_truncated() {
        assert_eq!(Cursor::new(&[]).varint(), Err(RecordFault::Truncated));
        assert_eq!(Cursor::new(&[0x80, 0x80]).varint(), Err(RecordFault::Truncated));
    }

    #[test]
    fn absent_differs_from_empty() {
        assert_eq!(Cursor::new(&[0x01]).nullable(), Ok(None));
        assert_eq!(Cursor::new(&[0x00]).nullable(), Ok(Some(&b""[..])));
        assert_eq!(Cursor::new(&[0x03]).nullable(), Err(RecordFault::NegativeLength { value: -2 }));
        assert_eq!(Cursor::new(&[0x04, 1]).nullable(), Err(RecordFault::Truncated));
    }
}
