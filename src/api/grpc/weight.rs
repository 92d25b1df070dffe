//! What a request takes once it is decoded, told from its encoded form without decoding it.
//!
//! An empty record is two bytes on the wire and a hundred in memory, so the wire size bounds nothing by itself. What
//! multiplies is counted: records, their headers, and partitions. Bytes are not, as they stay slices of what was
//! received.

use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

use crate::proto::{
    FetchPartition, FetchRequest, FetchStreamRequest, Header, InitProducerRequest, ListOffsetsPartition,
    ListOffsetsRequest, ProduceRequest, ProduceStreamRequest, Record,
};

/// A vector has room for twice what is in it at worst, and its elements are turned into the broker's own.
const COPIES: u64 = 3;

/// A message that knows what it takes.
pub(super) trait Weigh {
    /// The memory that `wire` takes once it is decoded, besides its bytes. What is not valid protobuf weighs as far as
    /// it is valid.
    fn decoded_bytes(wire: &[u8]) -> u64;
}

impl Weigh for ProduceRequest {
    fn decoded_bytes(wire: &[u8]) -> u64 {
        fields(wire)
            .filter(|&(field, _)| field == 3)
            .map(|(_, record)| {
                let headers = fields(record).filter(|&(field, _)| field == 3);
                let headers: u64 = headers.map(|(_, header)| element::<Header>() + header.len() as u64).sum();
                element::<Record>() + headers
            })
            .sum()
    }
}

impl Weigh for ProduceStreamRequest {
    fn decoded_bytes(wire: &[u8]) -> u64 {
        fields(wire)
            .filter(|&(field, _)| field == 2)
            .map(|(_, request)| ProduceRequest::decoded_bytes(request))
            .sum()
    }
}

impl Weigh for FetchRequest {
    fn decoded_bytes(wire: &[u8]) -> u64 {
        partitions::<FetchPartition>(wire)
    }
}

impl Weigh for FetchStreamRequest {
    fn decoded_bytes(wire: &[u8]) -> u64 {
        partitions::<FetchPartition>(wire)
    }
}

impl Weigh for ListOffsetsRequest {
    fn decoded_bytes(wire: &[u8]) -> u64 {
        partitions::<ListOffsetsPartition>(wire)
    }
}

impl Weigh for InitProducerRequest {
    fn decoded_bytes(_: &[u8]) -> u64 {
        0
    }
}

/// What stands in field 1 of those that read.
fn partitions<P>(wire: &[u8]) -> u64 {
    fields(wire)
        .filter(|&(field, _)| field == 1)
        .map(|(_, partition)| element::<P>() + partition.len() as u64)
        .sum()
}

const fn element<T>() -> u64 {
    COPIES * size_of::<T>() as u64
}

/// The fields of a message that are given by their length, with their contents.
fn fields(mut wire: &[u8]) -> impl Iterator<Item = (u32, &[u8])> {
    std::iter::from_fn(move || {
        loop {
            if wire.is_empty() {
                return None;
            }
            let (field, kind) = decode_key(&mut wire).ok()?;
            if kind == WireType::LengthDelimited {
                let length = usize::try_from(decode_varint(&mut wire).ok()?).ok()?;
                let (content, rest) = wire.split_at_checked(length)?;
                wire = rest;
                return Some((field, content));
            }
            skip_field(kind, field, &mut wire, DecodeContext::default()).ok()?;
        }
    })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use prost::Message;

    use super::*;

    #[test]
    fn records_and_headers_are_counted_wherever_they_stand() {
        let header = Header { key: "name".to_owned(), value: None };
        let record = Record { headers: vec![header; 3], timestamp_ms: Some(1), ..Default::default() };
        let records = ProduceRequest {
            topic: "t".to_owned(),
            records: vec![Record::default(), record],
            partition: Some(0),
            ..Default::default()
        };
        let expected = 2 * element::<Record>() + 3 * element::<Header>();
        let weight = ProduceRequest::decoded_bytes(&records.encode_to_vec());
        assert!((expected..expected + 100).contains(&weight), "{weight}, not about {expected}");
        let streamed = ProduceStreamRequest { request_id: 1, request: Some(records) };
        assert_eq!(ProduceStreamRequest::decoded_bytes(&streamed.encode_to_vec()), weight);
        let batch =
            ProduceRequest { record_batch: Some(Bytes::from(vec![b'\x1a'; 10_000])), ..Default::default() };
        assert_eq!(ProduceRequest::decoded_bytes(&batch.encode_to_vec()), 0);
        let fetch = FetchRequest { partitions: vec![FetchPartition::default(); 5], ..Default::default() };
        assert_eq!(FetchRequest::decoded_bytes(&fetch.encode_to_vec()), 5 * element::<FetchPartition>());
    }

    #[test]
    fn what_is_no_protobuf_weighs_as_far_as_it_is() {
        let mut wire =
            ProduceRequest { records: vec![Record::default()], ..Default::default() }.encode_to_vec();
        for bad in [&[0xff; 11][..], &[0x1a, 0x7f], &[0x0b]] {
            let length = wire.len();
            wire.extend_from_slice(bad);
            assert_eq!(ProduceRequest::decoded_bytes(&wire), element::<Record>());
            wire.truncate(length);
        }
    }
}
