//! One message of fetched data in gRPC's framing, encoded a piece at a time: what is large in it, batches and values,
//! is copied only as it goes out.
//!
//! `FetchResponse` and `FetchStreamResponse` are the same on the wire: any number of `PartitionData` in field 1. Fields
//! of a message may come in any order, so the large ones come last.

use std::collections::VecDeque;

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message as _;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};

use super::error::Failure;
use super::loan::Loan;
use crate::proto::{FetchedRecord, PartitionData};

/// The most that goes out at a time. The transport cuts it into the frames that the client takes: those that take large
/// ones are sent one with each write.
pub(super) const PIECE_BYTES: usize = 128 << 10;
/// A flag, and the message's length in 32 bits.
const PREFIX_BYTES: usize = 5;

/// `FetchResponse.partitions` and `FetchStreamResponse.data`.
const DATA: u32 = 1;
/// `PartitionData.records`.
const RECORDS: u32 = 6;
/// `PartitionData.record_batches`.
const RECORD_BATCHES: u32 = 7;
/// `FetchedRecord.value`.
const VALUE: u32 = 4;

/// What is left of a message.
pub(super) struct Message {
    parts: VecDeque<Part>,
    /// The size of it.
    encoded_bytes: u64,
    /// What its parts are slices of.
    loans: Vec<Loan>,
}

enum Part {
    /// As it goes out.
    Bytes(Bytes),
    Records(std::vec::IntoIter<FetchedRecord>),
}

/// A message whose length does not fit in the framing's 32 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TooLong;

impl Message {
    pub(super) fn new(partitions: Vec<PartitionData>, loans: Vec<Loan>) -> Result<Self, TooLong> {
        let lengths: Vec<usize> = partitions.iter().map(prost::Message::encoded_len).collect();
        let length: usize =
            lengths.iter().map(|&length| key_len(DATA) + encoded_len_varint(length as u64) + length).sum();
        let mut plain = BytesMut::new();
        plain.put_u8(0);
        plain.put_u32(u32::try_from(length).map_err(|_| TooLong)?);
        let mut parts = VecDeque::new();
        for (mut data, length) in partitions.into_iter().zip(lengths) {
            let records = std::mem::take(&mut data.records);
            let batches = std::mem::take(&mut data.record_batches);
            encode_key(DATA, WireType::LengthDelimited, &mut plain);
            encode_varint(length as u64, &mut plain);
            data.encode_raw(&mut plain);
            if !records.is_empty() {
                parts.push_back(Part::Bytes(plain.split().freeze()));
                parts.push_back(Part::Records(records.into_iter()));
            }
            for batch in batches {
                begin_bytes(RECORD_BATCHES, batch.len(), &mut plain);
                parts.push_back(Part::Bytes(plain.split().freeze()));
                parts.push_back(Part::Bytes(batch));
            }
        }
        parts.push_back(Part::Bytes(plain.freeze()));
        Ok(Self { parts, encoded_bytes: (PREFIX_BYTES + length) as u64, loans })
    }

    pub(super) fn is_done(&self) -> bool {
        self.encoded_bytes == 0
    }

    /// Why the pieces so far are not what they should be, if they are not.
    pub(super) fn failure(&self) -> Option<Failure> {
        self.loans.iter().find_map(Loan::failure)
    }

    /// What is still to go out.
    pub(super) fn left_bytes(&self) -> u64 {
        self.encoded_bytes
    }

    /// The next bytes, so many at most; less only at the end. They come to lie in `piece`, whatever was in it.
    pub(super) fn next_piece(&mut self, most_bytes: usize, mut piece: Vec<u8>) -> Vec<u8> {
        let size = most_bytes.min(usize::try_from(self.encoded_bytes).unwrap_or(most_bytes));
        piece.clear();
        piece.reserve_exact(size);
        while piece.len() < size {
            let room = size - piece.len();
            match self.parts.front_mut() {
                None => break,
                Some(Part::Bytes(bytes)) => {
                    piece.put(bytes.split_to(room.min(bytes.len())));
                    if bytes.is_empty() {
                        self.parts.pop_front();
                    }
                }
                Some(Part::Records(records)) => match records.next() {
                    None => {
                        self.parts.pop_front();
                    }
                    Some(record) => self.put_record(record, &mut piece, room),
                },
            }
        }
        self.encoded_bytes -= piece.len() as u64;
        piece
    }

    /// Into `piece` where there is room for it; else to the front of what is left, its value as it is.
    fn put_record(&mut self, mut record: FetchedRecord, piece: &mut Vec<u8>, room: usize) {
        let length = record.encoded_len();
        if key_len(RECORDS) + encoded_len_varint(length as u64) + length <= room {
            begin_bytes(RECORDS, length, piece);
            record.encode_raw(piece);
            return;
        }
        let mut plain = BytesMut::new();
        begin_bytes(RECORDS, length, &mut plain);
        let value = record.value.take();
        record.encode_raw(&mut plain);
        if let Some(value) = value {
            begin_bytes(VALUE, value.len(), &mut plain);
            self.parts.push_front(Part::Bytes(value));
        }
        self.parts.push_front(Part::Bytes(plain.freeze()));
    }
}

/// What comes before `length` bytes of a field.
fn begin_bytes(field: u32, length: usize, into: &mut impl BufMut) {
    encode_key(field, WireType::LengthDelimited, into);
    encode_varint(length as u64, into);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::{FetchResponse, Header};

    fn record(value: Option<Vec<u8>>) -> FetchedRecord {
        FetchedRecord {
            offset: 7,
            timestamp_ms: 9,
            key: Some(Bytes::from_static(b"key")),
            value: value.map(Bytes::from),
            headers: vec![Header { key: "h".to_owned(), value: None }],
        }
    }

    #[test]
    fn the_pieces_of_a_message_are_what_the_protocol_makes_of_it() {
        let marks = PartitionData { topic: "t".to_owned(), high_watermark: 3, ..Default::default() };
        let cases = [
            Vec::new(),
            vec![PartitionData::default(), marks.clone()],
            vec![
                PartitionData {
                    records: (0..5_000).map(|n| record(Some(vec![1; n % 100]))).collect(),
                    ..marks.clone()
                },
                PartitionData {
                    records: vec![
                        record(None),
                        record(Some(vec![2; 3 * PIECE_BYTES])),
                        record(Some(Vec::new())),
                    ],
                    ..marks.clone()
                },
            ],
            vec![
                PartitionData {
                    record_batches: vec![Bytes::from(vec![3; 2 * PIECE_BYTES]), Bytes::from_static(b"small")],
                    ..marks.clone()
                },
                marks,
            ],
        ];
        for partitions in cases {
            let response = FetchResponse { partitions };
            let mut message = Message::new(response.partitions.clone(), Vec::new()).expect("not too long");
            let encoded_bytes = message.encoded_bytes;
            let mut wire = Vec::new();
            while !message.is_done() {
                let piece = message.next_piece(PIECE_BYTES, vec![9; 10]);
                assert!(piece.len() == PIECE_BYTES || message.is_done());
                wire.extend(piece);
            }
            assert_eq!(wire.len() as u64, encoded_bytes);
            let (prefix, body) = wire.split_at(PREFIX_BYTES);
            assert_eq!(prefix, [&[0][..], &(body.len() as u32).to_be_bytes()].concat());
            assert_eq!(FetchResponse::decode(body).expect("decodes"), response);
        }
    }
}
