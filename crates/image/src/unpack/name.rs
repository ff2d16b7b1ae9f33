// SPDX-License-Identifier: Apache-2.0
//! The names of entries, and what those that begin with `.wh.` mean.
//!
//! The OCI image specification (layer.md, "Whiteouts") has a layer say that something of the layers below is gone by an
//! empty file `.wh.<name>`, and that everything in a directory is gone by one called `.wh..wh..opq`. Other names that
//! begin with `.wh..wh.` are what aufs kept for itself; layers that were made with it carry them along.

use protocol::limits::{LAYER_DEPTH_MAX, LAYER_NAME_BYTES_MAX, LAYER_PATH_BYTES_MAX};

use super::error::Refusal;

/// A path beneath the root of a layer: names with one slash between, none of them empty, `.` or `..`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct EntryName<'a> {
    path: &'a [u8],
    /// Written with a slash at the end.
    pub(super) slash: bool,
}

/// What a name asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role<'a> {
    /// To be made.
    Real,
    /// To hide this name of the layers below, in the entry's directory.
    Whiteout(&'a [u8]),
    /// To hide all that the layers below have in the entry's directory.
    Opaque,
    /// Nothing: it was for aufs.
    Leftover,
}

impl<'a> EntryName<'a> {
    pub(super) fn parse(raw: &'a [u8]) -> Result<EntryName<'a>, Refusal> {
        let refused = |why| Err(Refusal::Name(why));
        if raw.is_empty() {
            return refused("is empty");
        }
        if raw.contains(&0) {
            return refused("has NUL in it");
        }
        if raw[0] == b'/' {
            return refused("is absolute");
        }
        let slash = raw.ends_with(b"/");
        let mut path = if slash { &raw[..raw.len() - 1] } else { raw };
        while let Some(rest) = path.strip_prefix(b"./") {
            path = rest;
        }
        if path == b"." {
            return Ok(EntryName { path: b"", slash });
        }
        if path.len() > LAYER_PATH_BYTES_MAX {
            return refused("is longer than a path may be");
        }
        for (depth, part) in path.split(|byte| *byte == b'/').enumerate() {
            match part {
                b"" => return refused("has an empty part"),
                b"." => return refused("has `.` in it"),
                b".." => return refused("has `..` in it"),
                _ if part.len() > LAYER_NAME_BYTES_MAX => return refused("has a part that is too long"),
                _ if depth >= LAYER_DEPTH_MAX => return refused("is too deep"),
                _ => {}
            }
        }
        Ok(EntryName { path, slash })
    }

    pub(super) fn is_root(self) -> bool {
        self.path.is_empty()
    }

    /// The path; empty for the root.
    pub(super) fn path(self) -> &'a [u8] {
        self.path
    }

    /// The directory's path, and the name in it.
    pub(super) fn split(self) -> (&'a [u8], &'a [u8]) {
        match self.path.iter().rposition(|byte| *byte == b'/') {
            Some(at) => (&self.path[..at], &self.path[at + 1..]),
            None => (b"", self.path),
        }
    }

    pub(super) fn role(self) -> Result<Role<'a>, Refusal> {
        let refused = |what| Err(Refusal::Whiteout(what));
        let (directory, last) = self.split();
        for part in directory.split(|byte| *byte == b'/') {
            if part.starts_with(b".wh..wh.") {
                return Ok(Role::Leftover);
            }
            if part.starts_with(b".wh.") {
                return refused("that is a directory");
            }
        }
        if last == b".wh..wh..opq" {
            return if directory.is_empty() { refused("of the root") } else { Ok(Role::Opaque) };
        }
        if last.starts_with(b".wh..wh.") {
            return Ok(Role::Leftover);
        }
        match last.strip_prefix(b".wh.") {
            None => Ok(Role::Real),
            Some(b"") => refused("of nothing"),
            Some(b".") if directory.is_empty() => refused("of the root"),
            Some(b".") => refused("of its own directory"),
            Some(b"..") => refused("of `..`"),
            Some(name) => Ok(Role::Whiteout(name)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_kept_as_they_are_but_for_what_means_nothing() {
        let path = |raw: &'static [u8]| EntryName::parse(raw).map(EntryName::path);
        assert_eq!(path(b"a/b"), Ok(&b"a/b"[..]));
        assert_eq!(path(b"./a/b/"), Ok(&b"a/b"[..]));
        assert_eq!(path(b"././a"), Ok(&b"a"[..]));
        assert_eq!(path(b"./"), Ok(&b""[..]));
        assert_eq!(path(b"."), Ok(&b""[..]));
        assert_eq!(path(b"\xff\x80"), Ok(&b"\xff\x80"[..]));
        assert_eq!(path(b"..."), Ok(&b"..."[..]));
        for bad in [
            &b""[..],
            b"/",
            b"/a",
            b"//",
            b"a//b",
            b".//a",
            b"a/./b",
            b"a/.",
            b"..",
            b"a/..",
            b"../a",
            b"a\0",
        ] {
            assert!(matches!(EntryName::parse(bad), Err(Refusal::Name(_))), "{bad:?}");
        }
    }
}
