// SPDX-License-Identifier: Apache-2.0
//! Texts that fuzz targets begin with, and random changes of them: what a parser meets is then nearly right, and so gets
//! past its first line. For tests alone: no crate may depend on this one otherwise.

use std::path::Path;

use bolero::TypeGenerator;

/// A text of a corpus, changed.
#[derive(Debug, TypeGenerator)]
pub struct Mutant {
    seed: u8,
    edits: Vec<Edit>,
}

#[derive(Debug, TypeGenerator)]
enum Edit {
    Set { at: u16, byte: u8 },
    Insert { at: u16, bytes: Vec<u8> },
    Remove { at: u16, length: u8 },
    Repeat { at: u16, length: u8, times: u8 },
    Splice { at: u16, seed: u8, from: u16, length: u16 },
}

impl Mutant {
    /// Returns it.
    pub fn of(&self, corpus: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = pick(corpus, self.seed).to_vec();
        for edit in &self.edits {
            edit.apply(&mut bytes, corpus);
        }
        bytes
    }
}

impl Edit {
    fn apply(&self, bytes: &mut Vec<u8>, corpus: &[Vec<u8>]) {
        let position = |at: &u16| usize::from(*at) % (bytes.len() + 1);
        let end = |start: usize, length: usize| (start + length).min(bytes.len());
        match self {
            Edit::Set { at, byte } => {
                let at = position(at);
                if let Some(place) = bytes.get_mut(at) {
                    *place = *byte;
                }
            }
            Edit::Insert { at, bytes: more } => {
                let at = position(at);
                bytes.splice(at..at, more.iter().copied());
            }
            Edit::Remove { at, length } => {
                let at = position(at);
                bytes.drain(at..end(at, usize::from(*length)));
            }
            Edit::Repeat { at, length, times } => {
                let at = position(at);
                let piece = bytes[at..end(at, usize::from(*length) % 8)].repeat(usize::from(*times));
                bytes.splice(at..at, piece);
            }
            Edit::Splice { at, seed, from, length } => {
                let (at, other) = (position(at), pick(corpus, *seed));
                let from = usize::from(*from) % (other.len() + 1);
                let to = (from + usize::from(*length) % 64).min(other.len());
                bytes.splice(at..at, other[from..to].iter().copied());
            }
        }
    }
}

fn pick(corpus: &[Vec<u8>], seed: u8) -> &[u8] {
    &corpus[usize::from(seed) % corpus.len()]
}

/// Reads the texts in a folder below `corpus/` of a crate, whose directory is its `CARGO_MANIFEST_DIR`.
///
/// # Panics
/// When there are none, or a single one: a test can do nothing with that.
pub fn read(of_crate: &str, folder: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(of_crate).join("corpus").join(folder);
    let entries = fs_err::read_dir(folder).expect("a corpus is checked in with its crate");
    let text = |entry: std::io::Result<fs_err::DirEntry>| {
        fs_err::read(entry.expect("a folder can be listed").path()).expect("a text can be read")
    };
    let mut texts: Vec<Vec<u8>> = entries.map(text).collect();
    // Folders are listed in any order, and what is found shall be found again.
    texts.sort();
    assert!(texts.len() > 1, "a corpus has several texts");
    texts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_change_is_what_it_is_called_and_none_leaves_the_text() {
        let corpus = [b"abcdef".to_vec(), b"XYZ".to_vec()];
        let of = |edit: Edit| Mutant { seed: 2, edits: vec![edit] }.of(&corpus);
        assert_eq!(of(Edit::Set { at: 1, byte: b'!' }), b"a!cdef");
        assert_eq!(of(Edit::Set { at: 6, byte: b'!' }), b"abcdef", "behind the end there is nothing to set");
        assert_eq!(of(Edit::Insert { at: 6, bytes: b"gh".to_vec() }), b"abcdefgh");
        assert_eq!(of(Edit::Remove { at: 4, length: 255 }), b"abcd");
        assert_eq!(of(Edit::Repeat { at: 0, length: 2, times: 2 }), b"abababcdef");
        assert_eq!(of(Edit::Splice { at: 7, seed: 1, from: 1, length: 9 }), b"YZabcdef");
        assert_eq!(Mutant { seed: 0, edits: Vec::new() }.of(&[Vec::new()]), b"");
    }
}
