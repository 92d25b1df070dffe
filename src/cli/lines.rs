//! Reads an input as blocks of whole lines, off the asynchronous workers. Lines are bytes, not text.

use std::io::{self, Read};

use bytes::{Bytes, BytesMut};
use tokio::sync::mpsc;

/// How much is asked of the input at a time.
const BLOCK_BYTES: usize = 512 << 10;
/// Blocks read ahead.
const BLOCKS_AHEAD: usize = 4;
/// The longest line: no topic takes larger messages.
pub(super) const MAX_LINE_BYTES: usize = 256 << 20;

/// Starts reading on a thread of its own; the end of the channel is the end of the input.
pub(super) fn read(mut input: impl Read + Send + 'static) -> mpsc::Receiver<io::Result<Bytes>> {
    let (sender, receiver) = mpsc::channel(BLOCKS_AHEAD);
    tokio::task::spawn_blocking(move || {
        let mut rest = BytesMut::new();
        while let Some(block) = next_block(&mut input, &mut rest).transpose() {
            let failed = block.is_err();
            if sender.blocking_send(block).is_err() || failed {
                return;
            }
        }
    });
    receiver
}

/// The lines of a block, without their newlines; a carriage return stays.
pub(super) fn lines(block: &Bytes) -> impl Iterator<Item = Bytes> {
    let without_end = block.strip_suffix(b"\n").unwrap_or(block);
    without_end.split(|byte| *byte == b'\n').map(|line| block.slice_ref(line))
}

/// At least one line, as soon as the input has one; only the last of all may lack its newline. What follows the last
/// newline stays in `rest`.
fn next_block(input: &mut impl Read, rest: &mut BytesMut) -> io::Result<Option<Bytes>> {
    loop {
        let start = rest.len();
        if start > MAX_LINE_BYTES {
            let message = format!("a line is longer than {MAX_LINE_BYTES} bytes");
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        rest.resize(start + BLOCK_BYTES, 0);
        let (_, free) = rest.split_at_mut(start);
        let read = loop {
            match input.read(free) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => break read?,
            }
        };
        let newline = free.iter().take(read).rposition(|byte| *byte == b'\n');
        rest.truncate(start + read);
        match newline {
            Some(newline) => return Ok(Some(rest.split_to(start + newline + 1).freeze())),
            None if read == 0 => return Ok((!rest.is_empty()).then(|| rest.split().freeze())),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Hands out its parts one read at a time, and fails once in between as a signal would make it.
    struct Parts(Vec<io::Result<&'static [u8]>>);

    impl Read for Parts {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            if self.0.is_empty() {
                return Ok(0);
            }
            let part = self.0.remove(0)?;
            buffer[..part.len()].copy_from_slice(part);
            Ok(part.len())
        }
    }

    fn all_lines(parts: Vec<io::Result<&'static [u8]>>) -> Vec<Vec<u8>> {
        let (mut input, mut rest, mut all) = (Parts(parts), BytesMut::new(), Vec::new());
        while let Some(block) = next_block(&mut input, &mut rest).expect("readable") {
            all.extend(lines(&block).map(|line| line.to_vec()));
        }
        all
    }

    #[test]
    fn lines_are_whole_whatever_the_reads_and_keep_all_their_bytes() {
        let interrupted = || Err(io::Error::from(io::ErrorKind::Interrupted));
        let lines = all_lines(vec![Ok(b"a\r\n\nb"), Ok(b"\xff"), interrupted(), Ok(b"c\n\n"), Ok(b"end")]);
        assert_eq!(lines, [b"a\r".to_vec(), vec![], b"b\xffc".to_vec(), vec![], b"end".to_vec()]);
    }

    #[test]
    fn an_empty_input_has_no_line_and_a_newline_is_one_empty_line() {
        assert!(all_lines(vec![]).is_empty());
        assert_eq!(all_lines(vec![Ok(b"\n")]), [Vec::<u8>::new()]);
    }

    #[test]
    fn a_line_is_handed_out_before_the_next_one_is_there() {
        let (mut input, mut rest) = (Parts(vec![Ok(b"first\nsec")]), BytesMut::new());
        let block = next_block(&mut input, &mut rest).expect("readable").expect("a block");
        assert_eq!(&block[..], b"first\n");
        assert_eq!(&rest[..], b"sec");
    }
}
