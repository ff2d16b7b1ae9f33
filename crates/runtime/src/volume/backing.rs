// SPDX-License-Identifier: Apache-2.0
//! The file behind the volume, and the loop device before it.
//!
//! The file is sparse: it takes what sandboxes wrote, and shrinks when they are removed. The device lets go of the file by
//! itself when nobody has it mounted or open any more, so a server that is killed leaves none behind; one that follows
//! finds a device that is still held, by sandboxes that are just dying, through the file behind it. Two devices for one
//! file would be two disks for the kernel, and the end of what is on them.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use protocol::limits::{DISK_STORE_FREE_SHARE, DISK_STORE_MIB_MIN, MAKE_DISK_STORE_WAIT};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags, open};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use sys::loopback;

use super::Gap;

/// The file in the home.
const NAME: &str = "volume.btrfs";
/// How it is called while it is made.
const NEW_NAME: &str = "volume.btrfs.new";
/// Where the program may be, beside the places that `PATH` names: it is seldom in an ordinary user's.
const SYSTEM_PLACES: [&str; 3] = ["/usr/sbin", "/sbin", "/usr/local/sbin"];
/// How often another device is taken when somebody else was quicker.
const DEVICE_TRIES: u32 = 16;

const INSTALL: &str =
    "install btrfs-progs: apt-get install btrfs-progs (Debian, Ubuntu), dnf install btrfs-progs (Fedora)";
const MAKE_ROOM: &str = "make room on the disk of the home, or choose another with --home";
const LOOP: &str = "modprobe loop; in a container, give it /dev/loop-control and the loop devices";

/// The file and its device, open until it is mounted.
#[derive(Debug)]
pub(super) struct Backing {
    /// The path of the device.
    pub(super) device: PathBuf,
    /// The size of the file.
    pub(super) bytes: u64,
    /// Keeps the device from letting go of its file.
    _held: OwnedFd,
}

impl Backing {
    /// Takes the file that is there if its size is right, else a new one, and puts it behind a device.
    pub(super) fn open(home: &Path, size_mib: Option<u64>) -> Result<Backing, Gap> {
        let path = home.join(NAME);
        let present = fs_err::metadata(&path).ok();
        let taken = present.as_ref().map_or(0, |metadata| metadata.blocks() * 512);
        let free = free_bytes(home).map_err(gap("read what is free on the disk of the home", MAKE_ROOM))?;
        let wanted = Wanted { size_mib, room: free.saturating_add(taken) };
        match present {
            Some(metadata) if wanted.is_right(metadata.len()) => {}
            Some(_) | None => make(home, wanted.bytes()?)?,
        }
        attach(&path)
    }

    /// Puts a new file in the place of one that cannot be mounted.
    pub(super) fn replace(home: &Path, bytes: u64) -> Result<Backing, Gap> {
        make(home, bytes)?;
        attach(&home.join(NAME))
    }
}

/// What size the file shall have.
#[derive(Clone, Copy, Debug)]
struct Wanted {
    size_mib: Option<u64>,
    /// What is free, and what the present file has taken.
    room: u64,
}

impl Wanted {
    fn bytes(self) -> Result<u64, Gap> {
        let mib = self.size_mib.unwrap_or((self.room - self.room / DISK_STORE_FREE_SHARE) >> 20);
        if mib < DISK_STORE_MIB_MIN {
            let why = format!("a volume needs {DISK_STORE_MIB_MIN} MiB, and it would have {mib}");
            return Err(Gap { why, mend: MAKE_ROOM });
        }
        Ok(mib << 20)
    }

    /// Whether a file of this size will do. A share of what is free changes all the time: half of it and what still
    /// fits are near enough.
    fn is_right(self, bytes: u64) -> bool {
        match self.size_mib {
            Some(mib) => bytes == mib << 20,
            None => self.bytes().is_ok_and(|wanted| bytes >= wanted / 2) && bytes <= self.room,
        }
    }
}

fn free_bytes(home: &Path) -> io::Result<u64> {
    let status = rustix::fs::statvfs(home)?;
    Ok(status.f_bavail.saturating_mul(status.f_frsize))
}

fn gap(act: &'static str, mend: &'static str) -> impl Fn(io::Error) -> Gap {
    move |error| Gap { why: format!("cannot {act}: {error}"), mend }
}

/// Makes the file; whoever finds it under its name finds it whole.
fn make(home: &Path, bytes: u64) -> Result<(), Gap> {
    let program =
        find_program().ok_or_else(|| Gap { why: "mkfs.btrfs is not installed".to_owned(), mend: INSTALL })?;
    let failed = gap("make the file of the volume", MAKE_ROOM);
    let new = home.join(NEW_NAME);
    let mut options = File::options();
    options.write(true).create(true).truncate(true).mode(0o600);
    options.open(&new).and_then(|file| file.set_len(bytes)).map_err(&failed)?;
    let made = run_mkfs(&program, &new).map_err(|why| Gap { why, mend: INSTALL });
    let made = made.and_then(|()| fs_err::rename(&new, home.join(NAME)).map_err(&failed));
    if made.is_err() {
        // The first failure is the one to tell.
        let _ = fs_err::remove_file(&new);
    }
    made
}

fn find_program() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = std::env::split_paths(&path).chain(SYSTEM_PLACES.iter().map(PathBuf::from));
    places.map(|place| place.join("mkfs.btrfs")).find(|program| program.is_absolute() && program.is_file())
}

fn run_mkfs(program: &Path, file: &Path) -> Result<(), String> {
    // One copy of everything: it is one disk. The file is empty, so there is nothing to discard.
    let mut command = Command::new(program);
    command.args(["--quiet", "--nodiscard", "--data", "single", "--metadata", "single"]).arg(file);
    command.env_clear().stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let cannot = |error: io::Error| format!("cannot run {}: {error}", program.display());
    let mut child = command.spawn().map_err(cannot)?;
    if !ends_in_time(&child).map_err(cannot)? {
        let _ = child.kill();
        let _ = child.wait();
        return Err(format!("{} did not end within {MAKE_DISK_STORE_WAIT:?}", program.display()));
    }
    let output = child.wait_with_output().map_err(cannot)?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("mkfs.btrfs failed: {}", said.lines().last().unwrap_or("it did not say why").escape_debug()))
}

fn ends_in_time(child: &Child) -> io::Result<bool> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let process = pidfd_open(pid.ok_or(io::ErrorKind::NotFound)?, PidfdFlags::empty())?;
    let wait = Timespec::try_from(MAKE_DISK_STORE_WAIT).map_err(io::Error::other)?;
    let mut ends = [PollFd::new(&process, PollFlags::IN)];
    loop {
        match poll(&mut ends, Some(&wait)) {
            Ok(ready) => return Ok(ready > 0),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Puts the file behind a device, unless it is behind one already.
fn attach(path: &Path) -> Result<Backing, Gap> {
    let opened = File::options().read(true).write(true).open(path);
    let file = opened.map_err(gap("open the file of the volume", MAKE_ROOM))?;
    let metadata = file.metadata().map_err(gap("open the file of the volume", MAKE_ROOM))?;
    let failed = gap("get a loop device", LOOP);
    let whose = (metadata.dev(), metadata.ino());
    let (device, held) = match find_device(whose).map_err(&failed)? {
        Some(found) => found,
        None => new_device(&file).map_err(&failed)?,
    };
    Ok(Backing { device, bytes: metadata.len(), _held: held })
}

fn open_device(device: &Path) -> io::Result<OwnedFd> {
    Ok(open(device, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?)
}

/// Looks through the devices that have a file.
fn find_device(whose: (u64, u64)) -> io::Result<Option<(PathBuf, OwnedFd)>> {
    for entry in fs_err::read_dir("/sys/block")? {
        let entry = entry?;
        if !entry.path().join("loop/backing_file").exists() {
            continue;
        }
        let device = Path::new("/dev").join(entry.file_name());
        // One that cannot be opened is somebody else's: ours was opened before.
        let Ok(held) = open_device(&device) else { continue };
        if loopback::file_behind(held.as_fd())? == Some(whose) {
            return Ok(Some((device, held)));
        }
    }
    Ok(None)
}

fn new_device(file: &File) -> io::Result<(PathBuf, OwnedFd)> {
    let control = open_device(Path::new("/dev/loop-control"))
        .map_err(|error| io::Error::new(error.kind(), format!("/dev/loop-control: {error}")))?;
    let mut tries_left = DEVICE_TRIES;
    loop {
        let device = PathBuf::from(format!("/dev/loop{}", loopback::free_number(control.as_fd())?));
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", device.display()));
        let held = open_device(&device).map_err(named)?;
        match loopback::attach(held.as_fd(), file.as_fd()) {
            Ok(()) => return Ok((device, held)),
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy && tries_left > 0 => tries_left -= 1,
            Err(error) => return Err(named(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_that_is_named_is_kept_to_and_a_share_of_what_is_free_only_roughly() {
        let room = 100 << 30;
        let named = Wanted { size_mib: Some(2048), room };
        assert_eq!(named.bytes().unwrap(), 2 << 30);
        assert!(named.is_right(2 << 30) && !named.is_right(3 << 30));
        let share = Wanted { size_mib: None, room };
        assert_eq!(share.bytes().unwrap(), 75 << 30);
        for (gib, right) in [(75, true), (60, true), (90, true), (30, false), (101, false)] {
            assert_eq!(share.is_right(gib << 30), right, "{gib}");
        }
        let error = Wanted { size_mib: None, room: 1 << 20 }.bytes().unwrap_err();
        assert!(error.why.contains("512 MiB") && error.mend == MAKE_ROOM, "{error:?}");
    }
}
