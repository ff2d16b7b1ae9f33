// SPDX-License-Identifier: Apache-2.0
//! The header of an entry: one block. The `tar` crate knows where the fields are; what is in them is read here, because
//! it takes numbers for valid that are negative or larger than it can hold.

use protocol::limits::{LAYER_FILE_BYTES_MAX, LAYER_ID_MAX};
use tar::{EntryType, Header};

use super::error::Refusal;
use super::stream::BLOCK;

/// A header whose sum is right.
pub(super) struct Fields {
    header: Header,
}

impl Fields {
    pub(super) fn read(block: [u8; BLOCK]) -> Result<Fields, Refusal> {
        let mut header = Header::new_old();
        *header.as_mut_bytes() = block;
        let rest = block[..148].iter().chain(&block[156..]);
        let sum = rest.fold(8 * u32::from(b' '), |sum, byte| sum + u32::from(*byte));
        if number(&block[148..156]) != Some(i128::from(sum)) {
            return Err(Refusal::Header("has a wrong checksum"));
        }
        Ok(Fields { header })
    }

    pub(super) fn kind(&self) -> EntryType {
        self.header.entry_type()
    }

    pub(super) fn path(&self) -> Vec<u8> {
        self.header.path_bytes().into_owned()
    }

    pub(super) fn target(&self) -> Vec<u8> {
        self.header.link_name_bytes().map(|target| target.into_owned()).unwrap_or_default()
    }

    /// The bytes that follow this header.
    pub(super) fn size(&self) -> Result<u64, Refusal> {
        size(number(&self.header.as_old().size))
    }

    pub(super) fn mode(&self) -> Result<u32, Refusal> {
        let mode = number(&self.header.as_old().mode).and_then(|mode| u32::try_from(mode).ok());
        mode.ok_or(Refusal::Header("has a mode that is none"))
    }

    pub(super) fn user(&self) -> Result<u64, Refusal> {
        let user = number(&self.header.as_old().uid).ok_or(Refusal::Header("has a user that is none"))?;
        u64::try_from(user).map_err(|_| Refusal::Owner)
    }

    pub(super) fn group(&self) -> Result<u64, Refusal> {
        let group = number(&self.header.as_old().gid).ok_or(Refusal::Header("has a group that is none"))?;
        u64::try_from(group).map_err(|_| Refusal::Owner)
    }

    pub(super) fn modified(&self) -> Result<i64, Refusal> {
        let modified = number(&self.header.as_old().mtime).and_then(|time| i64::try_from(time).ok());
        modified.ok_or(Refusal::Header("has a time that is none"))
    }

    pub(super) fn as_gnu(&self) -> Option<&tar::GnuHeader> {
        self.header.as_gnu()
    }
}

/// The name in a block that is perhaps no header, for an error.
pub(super) fn written_name(block: &[u8; BLOCK]) -> &[u8] {
    block[..100].split(|byte| *byte == 0).next().unwrap_or_default()
}

/// Checks an id of a user or group.
pub(super) fn id(number: u64) -> Result<u32, Refusal> {
    match u32::try_from(number) {
        Ok(id) if number <= LAYER_ID_MAX => Ok(id),
        Ok(_) | Err(_) => Err(Refusal::Owner),
    }
}

/// Checks the size of a file.
pub(super) fn size(number: Option<i128>) -> Result<u64, Refusal> {
    let number = number.ok_or(Refusal::Size("is no number"))?;
    let size = u64::try_from(number).map_err(|_| Refusal::Size("is negative or huge"))?;
    if size > LAYER_FILE_BYTES_MAX {
        return Err(Refusal::Size("is more than a file of a layer may have"));
    }
    Ok(size)
}

/// Reads a number of a header: octal digits with blanks around, or, with the highest bit set, a binary number with a
/// sign. An empty field is zero, as in the archives of old tools.
pub(super) fn number(field: &[u8]) -> Option<i128> {
    if field.first().is_some_and(|first| first & 0x80 != 0) {
        // The second highest bit is the sign; 96 bits fit.
        let first = i128::from(field[0] & 0x7f);
        let first = if first & 0x40 != 0 { first - 0x80 } else { first };
        return Some(field[1..].iter().fold(first, |sum, byte| (sum << 8) | i128::from(*byte)));
    }
    let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
    let text = field[..end].trim_ascii();
    text.iter().try_fold(0, |sum, byte| match byte {
        b'0'..=b'7' => Some(sum * 8 + i128::from(byte - b'0')),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_octal_or_binary_with_a_sign() {
        assert_eq!(number(b"0000644\0"), Some(0o644));
        assert_eq!(number(b" 644 \0\0\0"), Some(0o644));
        assert_eq!(number(b"77777777"), Some(0o7777_7777));
        assert_eq!(number(b"\0\0\0\0\0\0\0\0"), Some(0));
        assert_eq!(number(b"\x80\0\0\0\0\0\x01\0"), Some(256));
        assert_eq!(number(b"\xff\xff\xff\xff\xff\xff\xff\xfe"), Some(-2));
        assert_eq!(number(b"\x80\0\0\x01\0\0\0\0\0\0\0\0"), Some(1 << 64));
        for bad in [&b"-1"[..], b"+1", b"0x1", b"8", b"1 1"] {
            assert_eq!(number(bad), None, "{bad:?}");
        }
    }
}
