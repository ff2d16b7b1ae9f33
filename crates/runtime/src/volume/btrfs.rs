// SPDX-License-Identifier: Apache-2.0
//! A copy-on-write volume of our own, with a subvolume and a hard limit for each sandbox.
//!
//! It is mounted in a mount namespace that has nothing else and no process: two descriptors of the server keep it, so no
//! table of mounts shows it, and it is gone when the server is, however that ended, and the last sandbox's mounts are. The
//! jail looks into that namespace for the one subvolume it needs.
//!
//! What counts for a limit is all that a subvolume refers to, data and metadata: empty files, directories, names and
//! attributes too, so inodes are bounded with it. Space that a sandbox freed is given back when the file system next
//! commits; a write that meets its limit commits first.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use protocol::limits::{DISK_SAMPLE_KEEP, DISK_STORE_GROUPS_AT_ONCE_MAX};
use rustix::fs::{CWD, Dir, Mode, OFlags, open, openat};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags, UnmountFlags,
    fsconfig_create, fsconfig_set_string, fsmount, fsopen, mount_change, move_mount, unmount,
};
use rustix::process::{fchdir, pivot_root};
use sys::btrfs::{self, Accounting};

use super::Gap;
use super::backing::Backing;
use super::plain::open_directory;

/// Where the volume is attached for the moment before it is all that its mount namespace has.
const MOUNT_POINT: &str = "volume";
/// A subvolume with which the limit is tried before anybody relies on it.
const PROBE: &str = "probe";
/// The limit of the probe, and what is written at once to meet it.
const PROBE_BYTES_MAX: u64 = 4 << 20;
const PROBE_CHUNK_BYTES: usize = 1 << 20;
const LOAD: &str = "modprobe btrfs; the kernel needs btrfs with quotas";

/// The volume, mounted.
#[derive(Debug)]
pub(super) struct Btrfs {
    /// Its top directory.
    root: OwnedFd,
    /// The mount namespace that has it.
    namespace: OwnedFd,
    /// What the kernel tells of its quota groups.
    groups: PathBuf,
    bytes: u64,
    accounting: Accounting,
    /// When the counts were last made up to date.
    counted: Mutex<Option<Instant>>,
    /// Quota groups whose subvolumes are being removed; older kernels leave that to us.
    ending: Mutex<Vec<u64>>,
}

impl Btrfs {
    /// Mounts the volume of a home, making it if there is none that can be mounted, and tries its limits.
    pub(super) fn open(home: &Path, size_mib: Option<u64>) -> Result<Btrfs, Gap> {
        let failed = |error: io::Error| Gap { why: format!("cannot mount the volume: {error}"), mend: LOAD };
        let backing = Backing::open(home, size_mib)?;
        let mounted = mount(&backing.device, home).or_else(|error| {
            // What is on it belongs to sandboxes that are gone.
            tracing::warn!(%error, "the volume of writable layers cannot be mounted: a new one is made");
            let backing = Backing::replace(home, backing.bytes)?;
            mount(&backing.device, home).map_err(failed)
        });
        let (root, namespace) = mounted?;
        let no_quota =
            |error: io::Error| Gap { why: format!("the volume has no quotas: {error}"), mend: LOAD };
        let (groups, accounting) = switch_quota_on(&root).map_err(no_quota)?;
        let volume = Btrfs {
            root,
            namespace,
            groups,
            bytes: backing.bytes,
            accounting,
            counted: Mutex::default(),
            ending: Mutex::default(),
        };
        volume.try_limit().map_err(no_quota)?;
        volume.find_ending().map_err(no_quota)?;
        Ok(volume)
    }

    /// Its size.
    pub(super) fn size_mib(&self) -> u64 {
        self.bytes >> 20
    }

    /// How it counts, in words.
    pub(super) fn accounting(&self) -> &'static str {
        match self.accounting {
            Accounting::Simple => "simple quotas",
            Accounting::Full => "full quotas",
        }
    }

    /// The mount namespace that has the volume as `/`, as a file.
    pub(super) fn namespace(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), self.namespace.as_raw_fd()))
    }

    /// Makes a subvolume with a limit; returns its directory, as this process reaches it.
    pub(super) fn create(&self, name: &str, bytes_max: u64) -> io::Result<PathBuf> {
        btrfs::create_subvolume(self.root.as_fd(), &c_name(name)?)?;
        let directory = open_directory(&self.root, name)?;
        btrfs::limit_subvolume(directory.as_fd(), bytes_max)?;
        Ok(PathBuf::from(format!("/proc/self/fd/{}/{name}", self.root.as_raw_fd())))
    }

    /// Returns what a subvolume uses, in bytes.
    pub(super) fn usage(&self, name: &str) -> io::Result<u64> {
        let directory = open_directory(&self.root, name)?;
        let group = self.groups.join(format!("0_{}", btrfs::subvolume_of(directory.as_fd())?));
        self.bring_up_to_date()?;
        // What is still in memory alone counts too: it has its place on the disk already.
        Ok(number(&group.join("referenced"))?.saturating_add(number(&group.join("rsv_data"))?))
    }

    /// Counts change when the file system commits; asked for often, it does so only now and then.
    fn bring_up_to_date(&self) -> io::Result<()> {
        let mut counted = lock(&self.counted);
        if counted.is_none_or(|at| at.elapsed() >= DISK_SAMPLE_KEEP / 2) {
            btrfs::commit(self.root.as_fd())?;
            *counted = Some(Instant::now());
        }
        Ok(())
    }

    /// Removes a subvolume and its quota group; nothing there is no error.
    pub(super) fn destroy(&self, name: &str) -> io::Result<()> {
        let directory = match open_directory(&self.root, name) {
            Ok(directory) => directory,
            Err(rustix::io::Errno::NOENT) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let group = btrfs::subvolume_of(directory.as_fd())?;
        drop(directory);
        match btrfs::destroy_subvolume(self.root.as_fd(), &c_name(name)?) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let mut ending = lock(&self.ending);
        self.remove_ended(&mut ending);
        ending.push(group);
        Ok(())
    }

    /// Removes quota groups whose subvolumes are wholly gone by now: the oldest first, a few at a time.
    fn remove_ended(&self, ending: &mut Vec<u64>) {
        let mut looked_at = 0;
        ending.retain(|group| {
            looked_at += 1;
            if looked_at > DISK_STORE_GROUPS_AT_ONCE_MAX {
                return true;
            }
            match btrfs::remove_group(self.root.as_fd(), *group) {
                Ok(()) => false,
                Err(error) => error.kind() == io::ErrorKind::ResourceBusy,
            }
        });
    }

    /// Finds the quota groups whose removal an earlier server did not see the end of.
    fn find_ending(&self) -> io::Result<()> {
        let mut live = Vec::new();
        for name in self.names()? {
            live.push(btrfs::subvolume_of(open_directory(&self.root, name.as_str())?.as_fd())?);
        }
        let mut ending = lock(&self.ending);
        for entry in fs_err::read_dir(&self.groups)? {
            let name = entry?.file_name();
            let number = name.to_str().and_then(|name| name.strip_prefix("0_")?.parse::<u64>().ok());
            // Below 256 are the trees of the file system itself.
            ending.extend(number.filter(|number| *number >= 256 && !live.contains(number)));
        }
        self.remove_ended(&mut ending);
        Ok(())
    }

    /// Lists the subvolumes.
    pub(super) fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in Dir::read_from(&self.root)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name != "." && name != ".." {
                names.push(name);
            }
        }
        Ok(names)
    }

    /// Sees for itself that a limit holds.
    fn try_limit(&self) -> io::Result<()> {
        self.destroy(PROBE)?;
        let directory = self.create(PROBE, PROBE_BYTES_MAX)?;
        let met = meets_limit(&directory);
        self.destroy(PROBE)?;
        if met? { Ok(()) } else { Err(io::Error::other("a limit that was set does not hold")) }
    }
}

/// Writes twice as much as the limit is.
fn meets_limit(directory: &Path) -> io::Result<bool> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let file = open(directory.join("file"), flags, Mode::from_raw_mode(0o600))?;
    let chunk = vec![1; PROBE_CHUNK_BYTES];
    for _ in 0..2 * PROBE_BYTES_MAX / (PROBE_CHUNK_BYTES as u64) {
        match rustix::io::write(&file, &chunk) {
            Ok(written) if written == chunk.len() => {}
            Ok(_) | Err(rustix::io::Errno::DQUOT) => return Ok(true),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(false)
}

/// Switches the counting on where it is off; returns where the kernel tells the counts, and how it counts.
fn switch_quota_on(root: &OwnedFd) -> io::Result<(PathBuf, Accounting)> {
    let id = btrfs::file_system_id(root.as_fd())?;
    let groups = PathBuf::from(format!("/sys/fs/btrfs/{id}/qgroups"));
    if !groups.exists() {
        match btrfs::enable_quota(root.as_fd(), Accounting::Simple) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::INVAL.raw_os_error()) => {
                btrfs::enable_quota(root.as_fd(), Accounting::Full)?;
                btrfs::wait_for_count(root.as_fd())?;
            }
            Err(error) => return Err(error),
        }
    }
    let mode = fs_err::read_to_string(groups.join("mode")).unwrap_or_default();
    if mode.trim() == "squota" {
        return Ok((groups, Accounting::Simple));
    }
    // Otherwise the removal of one large subvolume ends the counting for all (8 is the deepest that a tree can be).
    let threshold = groups.join("drop_subtree_threshold");
    if threshold.exists() {
        fs_err::write(threshold, "8")?;
    }
    Ok((groups, Accounting::Full))
}

fn number(file: &Path) -> io::Result<u64> {
    fs_err::read_to_string(file)?.trim().parse().map_err(io::Error::other)
}

fn c_name(name: &str) -> io::Result<CString> {
    Ok(CString::new(name)?)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Mounts a device where nobody sees it: returns its top directory and the mount namespace that has it as `/`.
fn mount(device: &Path, home: &Path) -> io::Result<(OwnedFd, OwnedFd)> {
    let at = home.join(MOUNT_POINT);
    fs_err::create_dir_all(&at)?;
    // A thread of its own, because it leaves this process's mount namespace for good.
    std::thread::scope(|scope| scope.spawn(|| mount_alone(device, &at)).join())
        .map_err(|_| io::Error::other("the thread that mounts it panicked"))?
}

fn mount_alone(device: &Path, at: &Path) -> io::Result<(OwnedFd, OwnedFd)> {
    sys::namespace::unshare_mounts()?;
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    let namespace = open("/proc/thread-self/ns/mnt", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let context = fsopen("btrfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&context, "source", device)?;
    // What sandboxes free is given back to the disk of the home.
    fsconfig_set_string(&context, "discard", "async")?;
    fsconfig_create(&context)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NOATIME;
    let mount = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
    move_mount(mount.as_fd(), "", CWD, at, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
    // Everything else leaves: a mount namespace without processes must not keep the host's file systems busy.
    fchdir(&mount)?;
    pivot_root(".", ".")?;
    unmount(".", UnmountFlags::DETACH)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok((openat(&mount, ".", flags, Mode::empty())?, namespace))
}
