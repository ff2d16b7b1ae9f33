// SPDX-License-Identifier: Apache-2.0
//! Makes the working directory that an image or a client names, where the image has none, as Docker does.
//!
//! It happens once, before anything of the image runs. Links are followed by hand, so that none of the kernel's own
//! (those of `/proc`) is; the agent's root is the sandbox's, so whatever a link says it stays inside.

use std::collections::VecDeque;
use std::ffi::{CString, OsStr};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;

use protocol::limits::{DIRECTORY_LINKS_MAX, DIRECTORY_PATH_BYTES_MAX};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, chmodat, fstat, mkdirat, openat, readlinkat};
use rustix::io::Errno;

/// Why there is no such directory.
#[derive(Debug, thiserror::Error)]
#[error("cannot make the working directory {path:?}: {what} ({at:?})")]
pub(crate) struct WorkdirError {
    path: String,
    what: String,
    /// How far it went.
    at: String,
}

/// Sees to it that there is such a directory; what is missing is made, owned by root, open to all to read.
pub(crate) fn make(path: &str) -> Result<(), WorkdirError> {
    let shown = |text: &str| text.chars().take(256).collect::<String>();
    let failed = |what: String, at: &str| WorkdirError { path: shown(path), what, at: shown(at) };
    if path.len() > DIRECTORY_PATH_BYTES_MAX || path.contains('\0') {
        return Err(failed(format!("it has a zero byte or more than {DIRECTORY_PATH_BYTES_MAX} bytes"), ""));
    }
    let start = open_name(CWD, OsStr::new("/")).map_err(|error| failed(error.to_string(), "/"))?;
    let mut walk = Walk { here: start, left: names(path.as_bytes()), links: 0 };
    while let Some(name) = walk.left.pop_front() {
        let at = name.to_string_lossy().into_owned();
        walk.step(&name).map_err(|error| failed(error.to_string(), &at))?;
    }
    Ok(())
}

struct Walk {
    here: OwnedFd,
    left: VecDeque<CString>,
    links: usize,
}

impl Walk {
    fn step(&mut self, name: &CString) -> io::Result<()> {
        let name = OsStr::from_bytes(name.as_bytes());
        let next = match open_name(&self.here, name) {
            Err(Errno::NOENT) => {
                let mode = Mode::from_raw_mode(0o755);
                mkdirat(&self.here, name, mode)?;
                // Not left to the umask.
                chmodat(&self.here, name, mode, AtFlags::empty())?;
                open_name(&self.here, name)?
            }
            other => other?,
        };
        match FileType::from_raw_mode(fstat(&next)?.st_mode) {
            FileType::Directory => self.here = next,
            FileType::Symlink => self.follow(&next)?,
            _ => return Err(io::Error::other("a file is in the way")),
        }
        Ok(())
    }

    fn follow(&mut self, link: &OwnedFd) -> io::Result<()> {
        self.links += 1;
        if self.links > DIRECTORY_LINKS_MAX {
            return Err(Errno::LOOP.into());
        }
        let target = readlinkat(link, "", Vec::new())?;
        if target.as_bytes().starts_with(b"/") {
            self.here = open_name(CWD, OsStr::new("/"))?;
        }
        let mut names = names(target.as_bytes());
        names.append(&mut self.left);
        self.left = names;
        Ok(())
    }
}

/// Opens what has this name, and not what it leads to.
fn open_name(directory: impl std::os::fd::AsFd, name: &OsStr) -> Result<OwnedFd, Errno> {
    openat(directory, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

fn names(path: &[u8]) -> VecDeque<CString> {
    let parts = path.split(|byte| *byte == b'/').filter(|part| !part.is_empty() && *part != b".");
    parts.filter_map(|part| CString::new(part).ok()).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    use std::path::PathBuf;

    use super::*;

    fn room(name: &str) -> PathBuf {
        let room = std::env::temp_dir().join(format!("workdir-{name}-{}", std::process::id()));
        fs_err::create_dir_all(&room).unwrap();
        room
    }

    #[expect(clippy::disallowed_methods, reason = "a directory of the test alone")]
    fn clear(room: PathBuf) {
        std::fs::remove_dir_all(room).unwrap();
    }

    #[test]
    fn what_is_missing_is_made_and_what_is_there_is_left() {
        let room = room("made");
        let path = room.join("a/./b//c/../d/");
        make(path.to_str().unwrap()).unwrap();
        let status = fs_err::metadata(room.join("a/b/d")).unwrap();
        assert_eq!((status.mode() & 0o7777, status.uid()), (0o755, rustix::process::geteuid().as_raw()));
        fs_err::set_permissions(room.join("a"), PermissionsExt::from_mode(0o711)).unwrap();
        make(room.join("a").to_str().unwrap()).unwrap();
        assert_eq!(fs_err::metadata(room.join("a")).unwrap().mode() & 0o7777, 0o711);
        make("/").unwrap();
        clear(room);
    }

    #[test]
    fn links_are_followed_also_where_their_target_is_missing() {
        let room = room("links");
        fs_err::os::unix::fs::symlink("real/deep", room.join("link")).unwrap();
        make(room.join("link/below").to_str().unwrap()).unwrap();
        assert!(room.join("real/deep/below").is_dir());
        fs_err::os::unix::fs::symlink(room.join("absolute"), room.join("other")).unwrap();
        make(room.join("other").to_str().unwrap()).unwrap();
        assert!(room.join("absolute").is_dir());
        clear(room);
    }

    #[test]
    fn a_file_in_the_way_a_circle_and_a_monster_are_refused() {
        let room = room("refused");
        fs_err::write(room.join("file"), "").unwrap();
        fs_err::os::unix::fs::symlink("circle", room.join("circle")).unwrap();
        let refused = |path: &str, needle: &str| {
            let error = make(path).unwrap_err().to_string();
            assert!(error.contains(needle) && error.len() < 1000, "{error}");
        };
        refused(room.join("file/below").to_str().unwrap(), "a file is in the way (\"file\")");
        refused(room.join("circle").to_str().unwrap(), "symbolic links");
        refused(&"/x".repeat(1 << 20), "more than");
        refused("/a\0b", "zero byte");
        clear(room);
    }
}
