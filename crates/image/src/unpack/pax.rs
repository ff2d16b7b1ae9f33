// SPDX-License-Identifier: Apache-2.0
//! PAX records: `length key=value\n`, one after the other, which say what a header of a tar archive has no room for.
//!
//! Parsers are known to disagree on records that are damaged, repeated or empty, so that one archive has two contents.
//! Here such records are refused. The parser of the `tar` crate is not used because it cuts at line ends, which a value
//! may contain, and takes the first of two records where POSIX takes the last.

use super::error::Refusal;

const USER_ATTRIBUTE: &[u8] = b"SCHILY.xattr.";

/// What the PAX records of one entry say.
#[derive(Debug, Default)]
pub(super) struct Pax {
    pub(super) path: Option<Vec<u8>>,
    pub(super) target: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) user: Option<u64>,
    pub(super) group: Option<u64>,
    pub(super) modified: Option<(i64, u32)>,
    /// Extended attributes, by their full names.
    pub(super) attributes: Vec<(Vec<u8>, Vec<u8>)>,
    /// What GNU tar says of a sparse file.
    pub(super) sparse: GnuSparse,
}

/// What GNU tar says of a sparse file in PAX records.
#[derive(Debug, Default)]
pub(super) struct GnuSparse {
    pub(super) major: Option<u64>,
    pub(super) minor: Option<u64>,
    pub(super) name: Option<Vec<u8>>,
    pub(super) real_size: Option<u64>,
    /// There are records of the older formats, which are not known here.
    pub(super) old: bool,
}

impl Pax {
    /// Reads the records of one entry.
    pub(super) fn read(bytes: &[u8]) -> Result<Pax, Refusal> {
        let mut pax = Pax::default();
        for_each(bytes, |key, value| pax.take(key, value))?;
        Ok(pax)
    }

    fn take(&mut self, key: &[u8], value: &[u8]) -> Result<(), Refusal> {
        match key {
            b"path" => set(&mut self.path, name(value)?),
            b"linkpath" => set(&mut self.target, name(value)?),
            b"size" => set(&mut self.size, number(value)?),
            b"uid" => set(&mut self.user, number(value)?),
            b"gid" => set(&mut self.group, number(value)?),
            b"mtime" => set(&mut self.modified, time(value)?),
            b"GNU.sparse.major" => set(&mut self.sparse.major, number(value)?),
            b"GNU.sparse.minor" => set(&mut self.sparse.minor, number(value)?),
            b"GNU.sparse.name" => set(&mut self.sparse.name, name(value)?),
            b"GNU.sparse.realsize" => set(&mut self.sparse.real_size, number(value)?),
            _ if key.starts_with(b"GNU.sparse.") => {
                self.sparse.old = true;
                Ok(())
            }
            _ => {
                if let Some(attribute) = key.strip_prefix(USER_ATTRIBUTE) {
                    if self.attributes.iter().any(|(known, _)| known == attribute) {
                        return Err(Refusal::Pax("has a record twice"));
                    }
                    self.attributes.push((attribute.to_owned(), value.to_owned()));
                }
                Ok(())
            }
        }
    }
}

/// Checks records that are for all entries to come. Nothing but a comment is understood the same way by all parsers.
pub(super) fn check_global(bytes: &[u8]) -> Result<(), Refusal> {
    for_each(bytes, |key, _| match key {
        b"comment" => Ok(()),
        _ => Err(Refusal::Pax("is for all entries, and more than a comment")),
    })
}

fn for_each(bytes: &[u8], mut act: impl FnMut(&[u8], &[u8]) -> Result<(), Refusal>) -> Result<(), Refusal> {
    let malformed = Refusal::Pax("is malformed");
    let mut rest = bytes;
    while !rest.is_empty() {
        let digits = rest.iter().position(|byte| *byte == b' ').ok_or(malformed)?;
        let length = decimal(&rest[..digits]).ok_or(malformed)?;
        let length = usize::try_from(length).map_err(|_| malformed)?;
        let record = rest.get(..length).ok_or(malformed)?;
        let text = record.get(digits + 1..).and_then(|text| text.strip_suffix(b"\n")).ok_or(malformed)?;
        let equals = text.iter().position(|byte| *byte == b'=').ok_or(malformed)?;
        if equals == 0 || text[..equals].contains(&0) {
            return Err(malformed);
        }
        act(&text[..equals], &text[equals + 1..])?;
        rest = &rest[length..];
    }
    Ok(())
}

fn set<T>(place: &mut Option<T>, value: T) -> Result<(), Refusal> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(Refusal::Pax("has a record twice")),
    }
}

fn name(value: &[u8]) -> Result<Vec<u8>, Refusal> {
    // POSIX lets an empty value take back a record for all entries, of which there are none here.
    if value.is_empty() { Err(Refusal::Pax("has an empty record")) } else { Ok(value.to_owned()) }
}

fn number(value: &[u8]) -> Result<u64, Refusal> {
    decimal(value).ok_or(Refusal::Pax("has a number that is none, is negative or too large"))
}

/// Reads digits and nothing else.
pub(super) fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Reads seconds since 1970 with a fraction, as a time of the kernel: whole seconds, rounded down, and nanoseconds.
fn time(value: &[u8]) -> Result<(i64, u32), Refusal> {
    let malformed = Refusal::Pax("has a time that is none");
    let (negative, digits) = match value.strip_prefix(b"-") {
        Some(digits) => (true, digits),
        None => (false, value),
    };
    let mut parts = digits.splitn(2, |byte| *byte == b'.');
    let whole =
        parts.next().and_then(decimal).and_then(|whole| i64::try_from(whole).ok()).ok_or(malformed)?;
    let fraction = parts.next().unwrap_or(b"0");
    if !fraction.iter().all(u8::is_ascii_digit) {
        return Err(malformed);
    }
    let digit = |place: usize| fraction.get(place).map_or(0, |digit| u32::from(digit - b'0'));
    let nanoseconds = (0..9).fold(0, |sum, place| sum * 10 + digit(place));
    Ok(match (negative, nanoseconds) {
        (false, _) => (whole, nanoseconds),
        (true, 0) => (-whole, 0),
        (true, _) => (-whole - 1, 1_000_000_000 - nanoseconds),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_1970_are_rounded_down() {
        assert_eq!(time(b"12.5"), Ok((12, 500_000_000)));
        assert_eq!(time(b"12"), Ok((12, 0)));
        assert_eq!(time(b"12."), Ok((12, 0)));
        assert_eq!(time(b"-1.25"), Ok((-2, 750_000_000)));
        assert_eq!(time(b"0.1234567899"), Ok((0, 123_456_789)));
        assert_eq!(time(b"-9223372036854775807.9"), Ok((i64::MIN, 100_000_000)));
        for bad in [&b""[..], b"-", b"+1", b"1.x", b"9223372036854775808", b"1e3", b" 1"] {
            assert_eq!(time(bad), Err(Refusal::Pax("has a time that is none")), "{bad:?}");
        }
    }

    #[test]
    fn a_value_may_have_line_ends_and_equals_signs() {
        let pax = Pax::read(b"28 SCHILY.xattr.user.a=x\n=y\n9 path=a\n").unwrap();
        assert_eq!(pax.attributes, [(b"user.a".to_vec(), b"x\n=y".to_vec())]);
        assert_eq!(pax.path.as_deref(), Some(&b"a"[..]));
    }
}
