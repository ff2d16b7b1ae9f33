// SPDX-License-Identifier: Apache-2.0
//! Cgroups of version 1: one directory for each sandbox in each hierarchy.
//!
//! ```text
//! /sys/fs/cgroup/<hierarchy>/microsandbox/<server key>/<sandbox id>/
//! /sys/fs/cgroup/cpu/microsandbox/<server key>/<sandbox id>/programs/
//! ```
//!
//! The first process is in the upper group of every hierarchy, which so is the root that the sandbox sees; programs are
//! in the lower one, which alone has the limit on processor time.
//!
//! Kernel document: `Documentation/admin-guide/cgroup-v1/`.

use std::io;
use std::path::{Path, PathBuf};

use protocol::isolation::Protection;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::cgroup::{Cgroups, Limits};
use super::cgroup_limit::{
    Gap, Limit, Setting, apply, disk_gap, field, read_number, try_out, uncounted_swap,
};
use crate::backend::Usage;
use crate::spec::SandboxId;

/// Over how long processor time is rationed, in microseconds: the kernel's default.
const CPU_PERIOD_US: u64 = 100_000;
/// The weight of one processor among those who want more than there is: the kernel's default.
const CPU_SHARES: u64 = 1024;
/// How often a group is tried again that the kernel still counts as busy.
const REMOVE_TRIES: u32 = 50;
/// What is waited in between: the last processes of a group are dead, the kernel is about to notice.
const REMOVE_PAUSE: std::time::Duration = std::time::Duration::from_millis(2);
/// Limits that every host can hold, to find out what this one does.
const TRIAL: Limits = Limits { memory_bytes: 64 << 20, cpu_millis: 500, pids: 64, io_weight: 200 };
/// Counts memory and swap together; only where the kernel counts swap at all.
const WITH_SWAP: &str = "memory.memsw.limit_in_bytes";

/// The hierarchies, each as the directory of this server in it; those that this host has.
#[derive(Debug, Default)]
pub(crate) struct V1 {
    memory: Option<PathBuf>,
    cpu: Option<PathBuf>,
    cpuacct: Option<PathBuf>,
    pids: Option<PathBuf>,
    blkio: Option<PathBuf>,
    held: Vec<Protection>,
}

impl V1 {
    /// Says whether a controller with a limit is mounted as version 1.
    pub(super) fn is_mounted(mountinfo: &str) -> bool {
        ["memory", "cpu", "pids"].iter().any(|controller| mount_point(mountinfo, controller).is_some())
    }

    /// Finds the hierarchies in the text of `/proc/self/mountinfo`, makes this server's directory in each and finds out
    /// which limits hold there.
    pub(super) fn open(mountinfo: &str, server_key: &str) -> io::Result<V1> {
        let mut gaps = Vec::new();
        let mut own =
            |controller: &str, limits: &[Limit]| match own_directory(mountinfo, controller, server_key) {
                Ok(directory) => Some(directory),
                Err(gap) => {
                    gaps.extend(limits.iter().map(|limit| (*limit, gap.clone())));
                    None
                }
            };
        let mut groups = V1 {
            memory: own("memory", &[Limit::Memory, Limit::Swap]),
            cpu: own("cpu", &[Limit::Cpu]),
            cpuacct: own("cpuacct", &[]),
            pids: own("pids", &[Limit::Pids]),
            blkio: own("blkio", &[Limit::Io]),
            held: Vec::new(),
        };
        gaps.extend(disk_gap(Path::new("/sys/block"), Path::new("/nonexistent")));
        let id = SandboxId::random().map_err(io::Error::other)?;
        groups.make(&id)?;
        gaps.extend(groups.swap_gap(&id));
        groups.held = try_out(&groups.settings(&id, TRIAL), &gaps);
        groups.remove(&id)?;
        Ok(groups)
    }

    /// The server's directories, each once: `cpu` and `cpuacct` are often mounted together.
    fn directories(&self) -> Vec<&Path> {
        let mut all = vec![&self.memory, &self.cpu, &self.cpuacct, &self.pids, &self.blkio];
        all.dedup();
        all.into_iter().filter_map(Option::as_deref).collect()
    }

    fn make(&self, id: &SandboxId) -> io::Result<()> {
        let upper = self.directories().into_iter().map(|directory| directory.join(id.as_str()));
        upper.chain(self.programs(id)).try_for_each(fs_err::create_dir)
    }

    /// Every limit, with the file that holds it.
    fn settings(&self, id: &SandboxId, limits: Limits) -> Vec<Setting> {
        let mut all = Vec::new();
        let mut set = |limit, directory: &Option<PathBuf>, file: &str, value: u64| {
            let group = directory.as_ref().map(|directory| directory.join(id.as_str()));
            all.extend(group.map(|group| Setting::new(limit, group.join(file), value)));
        };
        set(Limit::Memory, &self.memory, "memory.limit_in_bytes", limits.memory_bytes);
        // Memory and swap together: no swap.
        set(Limit::Swap, &self.memory, WITH_SWAP, limits.memory_bytes);
        let millis = u64::from(limits.cpu_millis);
        set(Limit::Cpu, &self.cpu, "programs/cpu.cfs_period_us", CPU_PERIOD_US);
        set(Limit::Cpu, &self.cpu, "programs/cpu.cfs_quota_us", CPU_PERIOD_US * millis / 1000);
        set(Limit::Cpu, &self.cpu, "cpu.shares", (CPU_SHARES * millis / 1000).max(2));
        set(Limit::Pids, &self.pids, "pids.max", u64::from(limits.pids));
        let weights = self.blkio.iter().flat_map(|directory| {
            let group = directory.join(id.as_str());
            ["blkio.bfq.weight", "blkio.weight"].map(|name| group.join(name))
        });
        let weight = weights.into_iter().find(|file| file.exists());
        all.extend(weight.map(|file| Setting::new(Limit::Io, file, limits.io_weight)));
        all
    }

    /// Says why swap cannot be limited: then at least nothing is swapped out while the group is at its limit.
    fn swap_gap(&self, id: &SandboxId) -> Option<(Limit, Gap)> {
        let memory = self.memory.as_ref()?.join(id.as_str());
        if memory.join(WITH_SWAP).exists() {
            return None;
        }
        Some((Limit::Swap, uncounted_swap("; memory.swappiness is 0 instead")))
    }

    fn holds(&self, limit: Limit) -> bool {
        self.held.iter().any(|held| held.name == limit.name() && held.on)
    }

    fn in_memory(&self, id: &SandboxId, file: &str) -> io::Result<PathBuf> {
        let missing = || io::Error::new(io::ErrorKind::Unsupported, "this host does not count memory");
        Ok(self.memory.as_ref().ok_or_else(missing)?.join(id.as_str()).join(file))
    }

    /// The group of a sandbox's programs, where processor time can be limited.
    fn programs(&self, id: &SandboxId) -> Option<PathBuf> {
        self.cpu.as_ref().map(|cpu| cpu.join(id.as_str()).join("programs"))
    }
}

impl Cgroups for V1 {
    fn create(&self, id: &SandboxId, limits: Limits) -> io::Result<()> {
        self.make(id)?;
        if self.holds(Limit::Memory) && !self.holds(Limit::Swap) {
            fs_err::write(self.in_memory(id, "memory.swappiness")?, "0")?;
        }
        apply(&self.settings(id, limits), &self.held)
    }

    fn entry_files(&self, id: &SandboxId) -> Vec<PathBuf> {
        self.directories().into_iter().map(|directory| directory.join(id.as_str()).join("tasks")).collect()
    }

    fn program_entry_file(&self, id: &SandboxId) -> PathBuf {
        // Without processor limits programs enter, for a second time, a group that they are in.
        let first = || Some(self.directories().first()?.join(id.as_str()));
        let group = self.programs(id).or_else(first);
        group.map_or_else(|| PathBuf::from("/dev/null"), |group| group.join("tasks"))
    }

    fn usage(&self, id: &SandboxId) -> io::Result<Usage> {
        let used = read_number(&self.in_memory(id, "memory.usage_in_bytes")?)?;
        let cache =
            field(&fs_err::read_to_string(self.in_memory(id, "memory.stat")?)?, "total_inactive_file");
        let cpu_ns = match &self.cpuacct {
            Some(cpuacct) => read_number(&cpuacct.join(id.as_str()).join("cpuacct.usage"))?,
            None => 0,
        };
        Ok(Usage { cpu_ns, memory_bytes: used.saturating_sub(cache.unwrap_or(0)) })
    }

    fn oom_kills(&self, id: &SandboxId) -> io::Result<u64> {
        if !self.holds(Limit::Memory) {
            return Ok(0);
        }
        let control = fs_err::read_to_string(self.in_memory(id, "memory.oom_control")?)?;
        Ok(field(&control, "oom_kill").unwrap_or(0))
    }

    fn remove(&self, id: &SandboxId) -> io::Result<()> {
        if let Some(programs) = self.programs(id) {
            remove_group(&programs)?;
        }
        for directory in self.directories() {
            remove_group(&directory.join(id.as_str()))?;
        }
        Ok(())
    }

    fn list(&self) -> io::Result<Vec<SandboxId>> {
        let mut found = Vec::new();
        for directory in self.directories() {
            for entry in fs_err::read_dir(directory)? {
                let name = entry?.file_name();
                found.extend(name.to_str().and_then(SandboxId::parse));
            }
        }
        found.sort();
        found.dedup();
        Ok(found)
    }

    fn kill(&self, id: &SandboxId) -> io::Result<()> {
        let upper = self.directories().into_iter().map(|directory| directory.join(id.as_str()));
        upper.chain(self.programs(id)).try_for_each(|group| kill_members(&group))
    }

    fn remove_own(&self) -> io::Result<()> {
        for directory in self.directories() {
            fs_err::remove_dir(directory)?;
            if let Some(shared) = directory.parent() {
                // Other servers may still have theirs in it.
                let _ = fs_err::remove_dir(shared);
            }
        }
        Ok(())
    }

    fn protections(&self) -> &[Protection] {
        &self.held
    }
}

fn own_directory(mountinfo: &str, controller: &str, server_key: &str) -> Result<PathBuf, Gap> {
    let mount = mount_point(mountinfo, controller).ok_or_else(|| {
        let why = format!("the controller {controller} is not mounted on this host");
        Gap::new(why, "boot with systemd.unified_cgroup_hierarchy=1")
    })?;
    let directory = mount.join("microsandbox").join(server_key);
    fs_err::create_dir_all(&directory).map_err(|error| {
        Gap::new(
            format!("no cgroup can be made: {error}"),
            "run the server as root, with cgroups mounted writable",
        )
    })?;
    Ok(directory)
}

/// Kills every process of a group; no group is no error.
pub(super) fn kill_members(group: &Path) -> io::Result<()> {
    let processes = group.join("cgroup.procs");
    match fs_err::read_to_string(&processes) {
        Ok(text) => text.lines().for_each(|line| kill_member(line, &processes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    Ok(())
}

/// Kills a process that is still a member once it is held by a descriptor: a pid alone may be another process by then.
fn kill_member(pid: &str, processes: &Path) {
    let Some(held) = pid.parse().ok().and_then(Pid::from_raw) else { return };
    let Ok(descriptor) = pidfd_open(held, PidfdFlags::empty()) else { return };
    let is_member = fs_err::read_to_string(processes).is_ok_and(|text| text.lines().any(|line| line == pid));
    if is_member {
        // It may have ended by itself in the meantime, which is as good.
        let _ = pidfd_send_signal(&descriptor, Signal::KILL);
    }
}

fn remove_group(directory: &Path) -> io::Result<()> {
    for _ in 1..REMOVE_TRIES {
        match fs_err::remove_dir(directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => std::thread::sleep(REMOVE_PAUSE),
            done => return done,
        }
    }
    fs_err::remove_dir(directory)
}

/// Returns where a controller of version 1 is mounted (`proc_pid_mountinfo(5)`).
fn mount_point(mountinfo: &str, controller: &str) -> Option<PathBuf> {
    mountinfo.lines().find_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        let mut right = right.split(' ');
        let is_v1 = right.next()? == "cgroup";
        let options = right.nth(1)?;
        (is_v1 && options.split(',').any(|option| option == controller))
            .then(|| left.split(' ').nth(4).map(PathBuf::from))?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
31 23 0:27 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
32 23 0:28 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory
33 23 0:29 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";

    #[test]
    fn a_controller_is_found_by_its_option_and_not_by_its_path() {
        assert_eq!(mount_point(MOUNTS, "cpuacct"), Some(PathBuf::from("/sys/fs/cgroup/cpu,cpuacct")));
        assert_eq!(mount_point(MOUNTS, "memory"), Some(PathBuf::from("/sys/fs/cgroup/memory")));
        assert_eq!(mount_point(MOUNTS, "pids"), None);
    }

    #[test]
    fn limits_are_written_where_the_kernel_reads_them() {
        let root = std::env::temp_dir().join(format!("cgroup-test-{}", std::process::id()));
        let key = |name: &str| Some(root.join(name));
        let held = Limit::ALL
            .map(|limit| Protection { name: limit.name(), on: true, why: None, mend: None })
            .to_vec();
        let groups = V1 {
            memory: key("memory"),
            cpu: key("cpu"),
            cpuacct: key("cpuacct"),
            pids: key("pids"),
            blkio: None,
            held,
        };
        for directory in groups.directories() {
            fs_err::create_dir_all(directory).unwrap();
        }
        let id = SandboxId::random().unwrap();
        groups
            .create(&id, Limits { memory_bytes: 1 << 20, cpu_millis: 1500, pids: 7, io_weight: 100 })
            .unwrap();
        let read = |path: &str| fs_err::read_to_string(root.join(path.replace("ID", id.as_str()))).unwrap();
        assert_eq!(read("memory/ID/memory.limit_in_bytes"), "1048576");
        assert_eq!(read("memory/ID/memory.memsw.limit_in_bytes"), "1048576");
        assert_eq!(read("cpu/ID/programs/cpu.cfs_quota_us"), "150000");
        assert_eq!(read("cpu/ID/cpu.shares"), "1536");
        assert_eq!(read("pids/ID/pids.max"), "7");
        assert_eq!(groups.list().unwrap(), [id]);
        crate::volume::remove_tree(&root).unwrap();
    }

    #[test]
    fn what_is_not_mounted_is_a_gap_and_the_agent_stays_out_of_the_processor_limit() {
        assert!(V1::is_mounted(MOUNTS));
        assert!(!V1::is_mounted(MOUNTS.lines().last().unwrap()));
        let gap = own_directory(MOUNTS, "pids", "key").unwrap_err();
        assert!(gap.why.contains("pids is not mounted"), "{gap:?}");

        let id = SandboxId::parse("0123456789abcdef").unwrap();
        let both = V1 { cpu: Some("/c".into()), pids: Some("/p".into()), ..V1::default() };
        assert_eq!(both.program_entry_file(&id), Path::new("/c/0123456789abcdef/programs/tasks"));
        let entries = ["/c/0123456789abcdef/tasks", "/p/0123456789abcdef/tasks"].map(PathBuf::from);
        assert_eq!(both.entry_files(&id), entries);
        let without = V1 { pids: Some("/p".into()), ..V1::default() };
        assert_eq!(without.program_entry_file(&id), Path::new("/p/0123456789abcdef/tasks"));
        assert_eq!(without.entry_files(&id), [Path::new("/p/0123456789abcdef/tasks")]);
    }
}
