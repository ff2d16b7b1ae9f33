// SPDX-License-Identifier: Apache-2.0
//! The host, before and after: nothing of an attack may be found on it.
//!
//! Other things happen on a host meanwhile. So what is compared is either nobody else's (the mounts of this process's
//! own mount namespace, cgroups and processes of the sandboxes, canary files) or bears the mark of the probes.

mod processes;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use attack::MARK;

use super::error::{Act, SelftestError};
use super::ground::Ground;

/// Directories that a host and a sandbox both have.
const SHARED_PLACES: [&str; 8] = ["/tmp", "/root", "/var/tmp", "/etc", "/dev/shm", "/dev", "/run", "/"];
/// Where canaries are put: places that last and that a sandbox has too.
const CANARY_PLACES: [&str; 3] = ["/tmp", "/root", "/var/tmp"];
/// Switches of the kernel that no sandbox may change.
const SWITCHES: [&str; 14] = [
    "/proc/sys/kernel/hostname",
    "/proc/sys/kernel/domainname",
    "/proc/sys/kernel/core_pattern",
    "/proc/sys/kernel/modprobe",
    "/proc/sys/kernel/hotplug",
    "/proc/sys/kernel/poweroff_cmd",
    "/proc/sys/kernel/panic",
    "/proc/sys/kernel/kptr_restrict",
    "/proc/sys/kernel/randomize_va_space",
    "/proc/sys/kernel/sysrq",
    "/proc/sys/vm/overcommit_memory",
    "/proc/sys/net/ipv4/ip_forward",
    "/proc/sys/user/max_user_namespaces",
    "/sys/kernel/uevent_helper",
];
/// Lists of the kernel in which the mark must not be.
const LISTS: [(&str, &str); 5] = [
    ("/proc/keys", MARK),
    ("/proc/modules", "msb_attack"),
    // The probes' key of System V things, as a number.
    ("/proc/sysvipc/shm", "1836278369"),
    ("/proc/sysvipc/sem", "1836278369"),
    ("/proc/sysvipc/msg", "1836278369"),
];
/// How far the clock may be moved meanwhile, by whoever keeps it right, in seconds.
const CLOCK_SECONDS_MAX: i64 = 2;
const CGROUPS: &str = "/sys/fs/cgroup";
/// How deep groups of sandboxes are looked for.
const CGROUP_DEPTH_MAX: usize = 8;

/// What the host was like.
pub(crate) struct Watch {
    folder: PathBuf,
    server: u32,
    /// The part of a cgroup's path that is the server's own.
    key: String,
    files: BTreeMap<PathBuf, String>,
    switches: BTreeMap<&'static str, String>,
    mounts: BTreeSet<String>,
    groups: BTreeSet<String>,
    clock: i64,
}

impl Watch {
    /// Looks at the host, and puts canaries where a sandbox may not reach; some sandbox must be running.
    pub(crate) fn begin(ground: &Ground, programs: &[PathBuf]) -> Result<Watch, SelftestError> {
        let home = fs_err::metadata(ground.home()).act("look at the server's home")?;
        let mut canaries = vec![ground.folder().join("canary")];
        canaries.extend(self::canaries());
        // A user has fewer places for them.
        canaries.retain(|canary| canary.parent().is_some_and(is_writable));
        for canary in &canaries {
            fs_err::write(canary, "canary").act("write a canary")?;
        }
        let watched = programs.iter().chain(&canaries);
        let files = watched.map(|path| Ok((path.clone(), state(path)?))).collect::<io::Result<_>>();
        let mut watch = Watch {
            folder: ground.folder().to_owned(),
            server: ground.server_pid(),
            key: format!("{:x}-{:x}", home.dev(), home.ino()),
            files: files.act("look at canaries")?,
            switches: SWITCHES.iter().filter_map(|path| Some((*path, read(path)?))).collect(),
            mounts: BTreeSet::new(),
            groups: BTreeSet::new(),
            clock: clock(),
        };
        watch.mounts = watch.mounts_now();
        watch.groups = watch.groups_now().1;
        Ok(watch)
    }

    /// Lists what is not as it was, while this many sandboxes run.
    pub(crate) fn changes(&self, sandboxes: usize) -> Vec<String> {
        let mut found = Vec::new();
        for (path, before) in &self.files {
            let now = state(path).unwrap_or_else(|error| error.to_string());
            if now != *before {
                found.push(format!("{} was {before} and is {now}", path.display()));
            }
        }
        for (path, before) in &self.switches {
            let now = read(path).unwrap_or_default();
            if now != *before {
                found.push(format!("{path} was {before:?} and is {now:?}"));
            }
        }
        found.extend(self.mounts_now().difference(&self.mounts).map(|mount| format!("a new mount: {mount}")));
        found.extend(self.new_groups(sandboxes));
        found.extend(marks());
        found.extend(processes::strays(self.server));
        if (clock() - self.clock).abs() > CLOCK_SECONDS_MAX {
            found.push("the clock was set".to_owned());
        }
        found
    }

    /// Mounts that this process sees, but for those that the server makes below its home.
    fn mounts_now(&self) -> BTreeSet<String> {
        let table = read("/proc/self/mountinfo").unwrap_or_default();
        let own = self.folder.to_string_lossy().into_owned();
        // The mount's number, its parent's, its device, its root, where it is.
        let foreign =
            table.lines().filter(|line| line.split(' ').nth(4).is_none_or(|place| !place.starts_with(&own)));
        foreign.map(str::to_owned).collect()
    }

    /// Returns how many sandboxes have cgroups, and the names of the groups below those.
    fn groups_now(&self) -> (usize, BTreeSet<String>) {
        let mut sandboxes = BTreeSet::new();
        let mut names = BTreeSet::new();
        let mut folders = vec![(PathBuf::from(CGROUPS), 0)];
        while let Some((folder, depth)) = folders.pop() {
            let Ok(entries) = fs_err::read_dir(&folder) else { continue };
            for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
                let path = entry.path();
                let text = path.to_string_lossy().into_owned();
                if let Some((_, below)) = text.split_once(&format!("/{}/", self.key)) {
                    let (id, name) = below.split_once('/').unwrap_or((below, ""));
                    sandboxes.insert(id.to_owned());
                    names.insert(name.to_owned());
                }
                if depth < CGROUP_DEPTH_MAX {
                    folders.push((path, depth + 1));
                }
            }
        }
        (sandboxes.len(), names)
    }

    fn new_groups(&self, sandboxes: usize) -> Vec<String> {
        let (count, names) = self.groups_now();
        let mut found: Vec<String> =
            names.difference(&self.groups).map(|name| format!("a new cgroup: {name}")).collect();
        if count > sandboxes {
            found.push(format!("{count} sandboxes have cgroups, and {sandboxes} run"));
        }
        found
    }
}

/// Where canaries are outside of the test's own folder.
fn canaries() -> impl Iterator<Item = PathBuf> {
    let name = format!("msb-canary-{}", std::process::id());
    CANARY_PLACES.iter().map(move |place| Path::new(place).join(&name))
}

/// Removes the canaries, also those of a watch that was given up.
pub(crate) fn remove_canaries() {
    for canary in canaries() {
        let _ = fs_err::remove_file(canary);
    }
}

fn is_writable(directory: &Path) -> bool {
    use rustix::fs::{Access, access};
    directory.is_dir() && access(directory, Access::WRITE_OK | Access::EXEC_OK).is_ok()
}

/// What a file is: length, times, owner, mode; and its text if it is short.
fn state(path: &Path) -> io::Result<String> {
    let status = fs_err::symlink_metadata(path)?;
    let mut text = format!(
        "{} bytes, changed at {}.{}, {}:{} {:o}",
        status.len(),
        status.mtime(),
        status.mtime_nsec(),
        status.uid(),
        status.gid(),
        status.mode()
    );
    if status.is_file() && status.len() < 100 {
        let _ = write!(text, " {:?}", fs_err::read_to_string(path)?);
    }
    Ok(text)
}

fn read(path: &str) -> Option<String> {
    fs_err::read_to_string(path).ok()
}

/// How far the clock is from the one that nobody can set, in seconds.
fn clock() -> i64 {
    use rustix::time::{ClockId, clock_gettime};
    clock_gettime(ClockId::Realtime).tv_sec - clock_gettime(ClockId::Boottime).tv_sec
}

/// Things with the mark of the probes on the host.
fn marks() -> Vec<String> {
    let mut found = Vec::new();
    for place in SHARED_PLACES.iter().chain(&["/sys/class/net", CGROUPS]) {
        let Ok(entries) = fs_err::read_dir(place) else { continue };
        let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
        found.extend(
            names.filter(|name| name.starts_with(MARK)).map(|name| format!("there is {place}/{name}")),
        );
    }
    for (list, needle) in LISTS {
        if read(list).is_some_and(|text| text.contains(needle)) {
            found.push(format!("{needle} is in {list}"));
        }
    }
    found
}
