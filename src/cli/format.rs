//! How `consume` writes a record: the directives of `--format`, or one JSON object a line.

use std::io::{self, Write};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::ser::{Serialize, SerializeMap as _, Serializer};

use crate::client::{ConsumedRecord, Header};

/// A parsed format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Format(Vec<Piece>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Literal(Vec<u8>),
    Topic,
    Partition,
    Offset,
    Key,
    Value,
    Timestamp,
    Headers,
}

impl Format {
    /// The value alone, and a newline.
    pub(super) fn values() -> Self {
        Self(vec![Piece::Value, Piece::Literal(b"\n".to_vec())])
    }

    /// Parses directives (`%v`) and escapes (`\n`).
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut literal = Vec::new();
        let mut rest = text.chars();
        while let Some(char) = rest.next() {
            let piece = match char {
                '\\' => {
                    literal.push(escaped(rest.next())?);
                    continue;
                }
                '%' => match rest.next() {
                    Some('%') => {
                        literal.push(b'%');
                        continue;
                    }
                    Some('t') => Piece::Topic,
                    Some('p') => Piece::Partition,
                    Some('o') => Piece::Offset,
                    Some('k') => Piece::Key,
                    Some('v') => Piece::Value,
                    Some('T') => Piece::Timestamp,
                    Some('h') => Piece::Headers,
                    Some(other) => {
                        return Err(format!("unknown directive %{other}; use %t %p %o %k %v %T %h or %%"));
                    }
                    None => return Err("a % at the end; write %% for a percent sign".to_owned()),
                },
                other => {
                    literal.extend_from_slice(other.encode_utf8(&mut [0; 4]).as_bytes());
                    continue;
                }
            };
            if !literal.is_empty() {
                pieces.push(Piece::Literal(std::mem::take(&mut literal)));
            }
            pieces.push(piece);
        }
        if !literal.is_empty() {
            pieces.push(Piece::Literal(literal));
        }
        Ok(Self(pieces))
    }

    /// Writes a record; an absent key or value leaves nothing.
    pub(super) fn write(&self, record: &ConsumedRecord, out: &mut impl Write) -> io::Result<()> {
        for piece in &self.0 {
            match piece {
                Piece::Literal(bytes) => out.write_all(bytes)?,
                Piece::Topic => out.write_all(record.topic.as_str().as_bytes())?,
                Piece::Partition => write!(out, "{}", record.partition)?,
                Piece::Offset => write!(out, "{}", record.offset)?,
                Piece::Key => out.write_all(record.key.as_deref().unwrap_or_default())?,
                Piece::Value => out.write_all(record.value.as_deref().unwrap_or_default())?,
                Piece::Timestamp => write!(out, "{}", record.timestamp_ms)?,
                Piece::Headers => write_headers(&record.headers, out)?,
            }
        }
        Ok(())
    }
}

/// `key=value`, with commas between.
fn write_headers(headers: &[Header], out: &mut impl Write) -> io::Result<()> {
    for (at, header) in headers.iter().enumerate() {
        let comma = if at > 0 { "," } else { "" };
        write!(out, "{comma}{}=", header.key)?;
        out.write_all(header.value.as_deref().unwrap_or_default())?;
    }
    Ok(())
}

/// Text in which `\n`, `\t`, `\r`, `\0` and `\\` stand for a byte.
pub(super) fn unescape(text: &str) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.chars();
    while let Some(char) = rest.next() {
        match char {
            '\\' => bytes.push(escaped(rest.next())?),
            other => bytes.extend_from_slice(other.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    Ok(bytes)
}

fn escaped(char: Option<char>) -> Result<u8, String> {
    match char {
        Some('n') => Ok(b'\n'),
        Some('t') => Ok(b'\t'),
        Some('r') => Ok(b'\r'),
        Some('0') => Ok(0),
        Some('\\') => Ok(b'\\'),
        Some(other) => Err(format!("unknown escape \\{other}; use \\n \\t \\r \\0 or \\\\")),
        None => Err("a \\ at the end; write \\\\ for a backslash".to_owned()),
    }
}

/// Writes a record as one line of JSON.
pub(super) fn write_json(record: &ConsumedRecord, out: &mut impl Write) -> io::Result<()> {
    serde_json::to_writer(&mut *out, &Json(record))?;
    out.write_all(b"\n")
}

struct Json<'a>(&'a ConsumedRecord);

impl Serialize for Json<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(record) = self;
        let mut map = serializer.serialize_map(Some(7))?;
        map.serialize_entry("topic", record.topic.as_str())?;
        map.serialize_entry("partition", &record.partition.get())?;
        map.serialize_entry("offset", &record.offset.get())?;
        map.serialize_entry("timestamp_ms", &record.timestamp_ms)?;
        map.serialize_entry("key", &record.key.as_deref().map(Blob))?;
        map.serialize_entry("value", &record.value.as_deref().map(Blob))?;
        let headers: Vec<_> = record.headers.iter().map(JsonHeader).collect();
        map.serialize_entry("headers", &headers)?;
        map.end()
    }
}

struct JsonHeader<'a>(&'a Header);

impl Serialize for JsonHeader<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(header) = self;
        let mut map = serializer.serialize_map(Some(2))?;
        map.serialize_entry("key", &header.key)?;
        map.serialize_entry("value", &header.value.as_deref().map(Blob))?;
        map.end()
    }
}

/// Bytes: a string where they are UTF-8, otherwise an object with their base64, so that one is never taken for the other.
pub(super) struct Blob<'a>(pub(super) &'a [u8]);

impl Serialize for Blob<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if let Ok(text) = std::str::from_utf8(self.0) {
            return serializer.serialize_str(text);
        }
        let mut map = serializer.serialize_map(Some(1))?;
        map.serialize_entry("base64", &STANDARD.encode(self.0))?;
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::{Offset, PartitionId, TopicName};
    use bytes::Bytes;

    fn record() -> ConsumedRecord {
        ConsumedRecord {
            topic: TopicName::parse("orders").expect("a valid name"),
            partition: PartitionId::new(3).expect("a valid partition"),
            offset: Offset::clamped(42),
            timestamp_ms: 1_769_860_800_000,
            key: Some(Bytes::from_static(b"k")),
            value: Some(Bytes::from_static(b"v\xff")),
            headers: vec![
                Header { key: "a".to_owned(), value: Some(Bytes::from_static(b"1")) },
                Header { key: "a".to_owned(), value: None },
            ],
        }
    }

    fn formatted(format: &str) -> Vec<u8> {
        let mut out = Vec::new();
        Format::parse(format).expect(format).write(&record(), &mut out).expect("memory");
        out
    }

    #[test]
    fn every_directive_and_escape_has_its_meaning() {
        assert_eq!(
            formatted(r"%t-%p@%o %T %h 100%% é\t\\\n"),
            "orders-3@42 1769860800000 a=1,a= 100% é\t\\\n".as_bytes()
        );
        assert_eq!(formatted("%k=%v"), b"k=v\xff");
    }

    #[test]
    fn a_format_that_makes_no_sense_is_refused() {
        for bad in ["%x", "%", "\\", "\\q"] {
            assert!(Format::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn json_tells_text_from_bytes_and_absent_from_empty() {
        let mut out = Vec::new();
        write_json(&record(), &mut out).expect("memory");
        let json: serde_json::Value = serde_json::from_slice(&out).expect("JSON");
        assert_eq!(json["key"], "k");
        assert_eq!(json["value"], serde_json::json!({"base64": "dv8="}));
        assert_eq!(
            json["headers"],
            serde_json::json!([{"key": "a", "value": "1"}, {"key": "a", "value": null}])
        );
        assert_eq!(json["offset"], 42);
        assert_eq!(out.last(), Some(&b'\n'));
    }

    #[test]
    fn a_separator_may_be_written_with_escapes() {
        assert_eq!(unescape(r"a\tb").as_deref(), Ok(&b"a\tb"[..]));
        assert!(unescape(r"\x").is_err());
    }
}
