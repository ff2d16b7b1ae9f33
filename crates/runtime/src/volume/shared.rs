// SPDX-License-Identifier: Apache-2.0
//! Directories of the host that a client may have in a sandbox: only below those that the operator allows.
//!
//! A client writes `host:guest`, which can be read, or `host:guest:rw`, which can be written to as well. The host's part
//! is looked up beneath the allowed directory by descriptor, so that no link in it leads out; the jail does the same again
//! when it mounts it, and does not rely on what was found here.

use std::io;
use std::path::{Component, Path, PathBuf};

use protocol::limits::{DIRECTORY_PATH_BYTES_MAX, VOLUMES_MAX};
use rustix::fs::{Mode, OFlags, ResolveFlags, fstat, open, openat2};
use rustix::io::Errno;

use crate::spec::HostVolume;

/// What a sandbox has anyway; a volume in its place would be no sandbox any more.
const OWN_PLACES: [&str; 3] = ["/proc", "/sys", "/dev"];

/// A directory of the host whose contents clients may have in sandboxes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllowedVolume {
    /// As the operator calls it.
    named: PathBuf,
    /// Without links.
    real: PathBuf,
    writable: bool,
}

/// Why a volume is refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum VolumeError {
    /// It is none of the forms that there are.
    #[error(
        "'{0}' is not of the form host:guest, host:guest:ro or host:guest:rw, both absolute paths without '..'"
    )]
    Form(String),
    /// The operator allowed no such directory.
    #[error("'{0}' is not below a directory that the server's operator allows (--allow-volume)")]
    NotAllowed(String),
    /// The operator allowed it for reading alone.
    #[error("'{0}' can only be read: the server's operator allows no writing there; leave ':rw' out")]
    ReadOnly(String),
    /// Whoever writes there could leave set-id programs of the host's root.
    #[error(
        "'{0}' belongs to root or to root's group on the server's machine, so no sandbox can write to it; give it to \
             another user and group, or leave ':rw' out"
    )]
    OfRoot(String),
    /// It is not there.
    #[error("there is no directory '{0}' on the server's machine")]
    Missing(String),
    /// The place inside is taken.
    #[error("'{0}' is a place inside that a volume cannot have")]
    Place(String),
    /// Two volumes have the same place, or one a place in the other.
    #[error("'{0}' and '{1}' are in each other's way inside")]
    Overlap(String, String),
    /// There are too many.
    #[error("at most {VOLUMES_MAX} volumes are possible")]
    TooMany,
}

impl AllowedVolume {
    /// Reads `DIR` or `DIR:ro`, and finds the directory.
    ///
    /// # Errors
    /// When it is no directory that is there.
    pub fn open(text: &str) -> io::Result<AllowedVolume> {
        let (path, writable) = match text.strip_suffix(":ro") {
            Some(path) => (path, false),
            None => (text.strip_suffix(":rw").unwrap_or(text), true),
        };
        let named = std::path::absolute(path)?;
        let real = fs_err::canonicalize(&named)?;
        if !fs_err::metadata(&real)?.is_dir() {
            return Err(io::Error::new(io::ErrorKind::NotADirectory, format!("{path} is no directory")));
        }
        Ok(AllowedVolume { named, real, writable })
    }

    /// The path beneath this directory that a path of the host has, if it is in it.
    fn beneath(&self, host: &Path) -> Option<PathBuf> {
        let beneath = host.strip_prefix(&self.named).or_else(|_| host.strip_prefix(&self.real)).ok()?;
        Some(if beneath.as_os_str().is_empty() { PathBuf::from(".") } else { beneath.to_owned() })
    }
}

/// Finds what a client asks for among what is allowed.
///
/// # Errors
/// [`VolumeError`], about the first one that cannot be.
pub fn find_volumes(allowed: &[AllowedVolume], texts: &[String]) -> Result<Vec<HostVolume>, VolumeError> {
    if texts.len() > VOLUMES_MAX {
        return Err(VolumeError::TooMany);
    }
    let mut found = Vec::new();
    let mut places: Vec<&str> = Vec::new();
    for text in texts {
        let wish = Wish::parse(text)?;
        let in_the_way = places.iter().find(|place| overlap(place, wish.guest));
        if let Some(place) = in_the_way {
            return Err(VolumeError::Overlap(shown(place), shown(wish.guest)));
        }
        found.push(wish.find(allowed)?);
        places.push(wish.guest);
    }
    Ok(found)
}

fn overlap(one: &str, other: &str) -> bool {
    Path::new(one).starts_with(other) || Path::new(other).starts_with(one)
}

/// One volume as a client writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Wish<'a> {
    host: &'a str,
    guest: &'a str,
    writable: bool,
}

impl<'a> Wish<'a> {
    fn parse(text: &'a str) -> Result<Wish<'a>, VolumeError> {
        let mut parts = text.split(':');
        let wish = match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(host), Some(guest), None | Some("ro"), None) => Wish { host, guest, writable: false },
            (Some(host), Some(guest), Some("rw"), None) => Wish { host, guest, writable: true },
            _ => return Err(VolumeError::Form(shown(text))),
        };
        if !is_plain(wish.host) || !is_plain(wish.guest) {
            return Err(VolumeError::Form(shown(text)));
        }
        let own = |place: &&str| Path::new(wish.guest).starts_with(place);
        if wish.guest == "/" || OWN_PLACES.iter().any(own) {
            return Err(VolumeError::Place(shown(wish.guest)));
        }
        Ok(wish)
    }

    fn find(self, allowed: &[AllowedVolume]) -> Result<HostVolume, VolumeError> {
        let host = || shown(self.host);
        let beneath = |allowed: &'_ AllowedVolume| allowed.beneath(Path::new(self.host));
        let candidates = allowed.iter().filter_map(|one| Some((one, beneath(one)?)));
        // What is said of a directory goes before what is said of one above it.
        let (allowed, beneath) = candidates
            .min_by_key(|(_, beneath)| beneath.components().filter(|part| *part != Component::CurDir).count())
            .ok_or_else(|| VolumeError::NotAllowed(host()))?;
        if self.writable && !allowed.writable {
            return Err(VolumeError::ReadOnly(host()));
        }
        let (user, group) = owner(&allowed.real, &beneath).map_err(|error| match error {
            // A link that leads out.
            Errno::XDEV => VolumeError::NotAllowed(host()),
            _ => VolumeError::Missing(host()),
        })?;
        if self.writable && (user == 0 || group == 0) {
            return Err(VolumeError::OfRoot(host()));
        }
        Ok(HostVolume {
            root: allowed.real.clone(),
            beneath,
            at: self.guest.to_owned(),
            writable: self.writable,
        })
    }
}

/// Whether a path is absolute and says plainly where it leads.
fn is_plain(path: &str) -> bool {
    let Some(rest) = path.strip_prefix('/') else { return false };
    let plain = |part: &str| !part.is_empty() && part != "." && part != ".." && part.len() <= 255;
    path.len() <= DIRECTORY_PATH_BYTES_MAX
        && !path.contains('\0')
        && (rest.is_empty() || rest.split('/').all(plain))
}

fn owner(root: &Path, beneath: &Path) -> rustix::io::Result<(u32, u32)> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = open(root, flags | OFlags::NOFOLLOW, Mode::empty())?;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let status = fstat(openat2(&root, beneath, flags, Mode::empty(), resolve)?)?;
    Ok((status.st_uid, status.st_gid))
}

fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixture(PathBuf);

    impl Fixture {
        /// `data/sub`, `data/out -> /etc`, `data/near -> sub`, `other`.
        fn new(name: &str) -> Fixture {
            let path = std::env::temp_dir().join(format!("shared-{name}-{}", std::process::id()));
            fs_err::create_dir_all(path.join("data/sub")).unwrap();
            fs_err::create_dir_all(path.join("other")).unwrap();
            fs_err::os::unix::fs::symlink("/etc", path.join("data/out")).unwrap();
            fs_err::os::unix::fs::symlink("sub", path.join("data/near")).unwrap();
            fs_err::write(path.join("data/file"), "x").unwrap();
            Fixture(path)
        }

        fn find(&self, allowed: &[&str], texts: &[&str]) -> Result<Vec<HostVolume>, VolumeError> {
            let path = |text: &&str| text.replace("@", self.0.to_str().unwrap());
            let allowed: Vec<AllowedVolume> =
                allowed.iter().map(|text| AllowedVolume::open(&path(text)).unwrap()).collect();
            find_volumes(&allowed, &texts.iter().map(path).collect::<Vec<String>>())
        }

        fn refused(&self, allowed: &[&str], texts: &[&str]) -> VolumeError {
            self.find(allowed, texts).unwrap_err()
        }
    }

    impl Drop for Fixture {
        fn drop(&mut self) {
            crate::volume::remove_tree(&self.0).unwrap();
        }
    }

    #[test]
    fn what_is_below_an_allowed_directory_is_found_and_is_only_read_by_default() {
        let fixture = Fixture::new("found");
        let found =
            fixture.find(&["@/data"], &["@/data:/a", "@/data/sub:/b/c:ro", "@/data/near:/d"]).unwrap();
        let beneath: Vec<&str> = found.iter().map(|volume| volume.beneath.to_str().unwrap()).collect();
        assert_eq!(beneath, [".", "sub", "near"]);
        assert!(found.iter().all(|volume| !volume.writable && volume.root == fixture.0.join("data")));
        assert_eq!(found[1].at, "/b/c");
    }

    #[test]
    fn what_leads_out_is_refused() {
        let fixture = Fixture::new("out");
        for host in ["/etc", "@/other", "@", "@/database", "@/data/out"] {
            let error = fixture.refused(&["@/data"], &[&format!("{host}:/x")]);
            assert!(matches!(error, VolumeError::NotAllowed(_)), "{host}: {error}");
        }
        for host in ["@/data/../other", "@/data/./sub", "@/data//sub", "data", "", "@/data/sub/"] {
            let error = fixture.refused(&["@/data"], &[&format!("{host}:/x")]);
            assert!(matches!(error, VolumeError::Form(_)), "{host}: {error}");
        }
        for host in ["@/data/none", "@/data/file", "@/data/file/x"] {
            let error = fixture.refused(&["@/data"], &[&format!("{host}:/x")]);
            assert!(matches!(error, VolumeError::Missing(_)), "{host}: {error}");
        }
        assert!(matches!(fixture.refused(&[], &["@/data:/x"]), VolumeError::NotAllowed(_)));
    }

    #[test]
    fn the_nearest_word_of_the_operator_decides_what_can_be_written() {
        let fixture = Fixture::new("nearest");
        for (path, id) in [("data", 1000), ("data/sub", 1000)] {
            if std::os::unix::fs::chown(fixture.0.join(path), Some(id), Some(id)).is_err() {
                return; // Only root can give files away.
            }
        }
        let both = ["@/data:ro", "@/data/sub"];
        assert!(matches!(fixture.refused(&both, &["@/data:/x:rw"]), VolumeError::ReadOnly(_)));
        assert!(fixture.find(&both, &["@/data/sub:/x:rw"]).unwrap()[0].writable);
        std::os::unix::fs::chown(fixture.0.join("data/sub"), Some(1000), Some(0)).unwrap();
        assert!(matches!(fixture.refused(&both, &["@/data/sub:/x:rw"]), VolumeError::OfRoot(_)));
    }

    #[test]
    fn places_inside_that_are_taken_are_refused() {
        let fixture = Fixture::new("places");
        for place in ["/", "/proc", "/proc/x", "/sys/fs", "/dev", "/dev/shm"] {
            let error = fixture.refused(&["@/data"], &[&format!("@/data:{place}")]);
            assert!(matches!(error, VolumeError::Place(_)), "{place}: {error}");
        }
        for place in ["relative", "/a/../proc", "/a//b", "", "/x:wo", "/x:rw:ro"] {
            let error = fixture.refused(&["@/data"], &[&format!("@/data:{place}")]);
            assert!(matches!(error, VolumeError::Form(_)), "{place}: {error}");
        }
        assert!(fixture.find(&["@/data"], &["@/data:/procession"]).is_ok());
        for (one, other) in [("/a", "/a"), ("/a", "/a/b"), ("/a/b", "/a")] {
            let texts = [format!("@/data:{one}"), format!("@/data:{other}")];
            let error = fixture.refused(&["@/data"], &[&texts[0], &texts[1]]);
            assert!(matches!(error, VolumeError::Overlap(..)), "{one} {other}: {error}");
        }
        let many: Vec<String> = (0..=VOLUMES_MAX).map(|n| format!("@/data:/v{n}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert_eq!(fixture.refused(&["@/data"], &many), VolumeError::TooMany);
        assert_eq!(fixture.find(&["@/data"], &many[1..]).unwrap().len(), VOLUMES_MAX);
    }
}
