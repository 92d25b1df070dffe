//! Foreign bytes as one of the small files.

use sagwan::broker::fuzzing::rewrite_catalogue;
use sagwan::storage::fuzzing::SmallFile;

use super::Input;

/// The first byte says which file, and whether the rest is the whole file or its content, to be given a header and
/// checksums that fit: little else would get past those. What is understood must survive being written again.
///
/// # Panics
/// If a decoder breaks a promise.
pub fn checkpoint(input: &[u8]) {
    let mut input = Input(input);
    let selector = usize::from(input.byte());
    let content = input.rest();
    let (which, is_forged) = (selector / 2 % (SmallFile::ALL.len() + 1), selector % 2 == 1);
    match SmallFile::ALL.get(which) {
        Some(file) if is_forged => survives(|bytes| file.rewrite(bytes), &file.forge(content)),
        Some(file) => survives(|bytes| file.rewrite(bytes), content),
        None => survives(rewrite_catalogue, content),
    }
}

fn survives(rewrite: impl Fn(&[u8]) -> Option<Vec<u8>>, bytes: &[u8]) {
    if let Some(written) = rewrite(bytes) {
        assert_eq!(rewrite(&written).as_ref(), Some(&written), "what is written is read as it was meant");
    }
}
