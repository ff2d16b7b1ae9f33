// SPDX-License-Identifier: Apache-2.0
//! Cgroups of version 1: one directory for each sandbox in each hierarchy.
//!
//! ```text
//! /sys/fs/cgroup/<hierarchy>/microsandbox/<server key>/<sandbox id>/
//! ```
//!
//! Kernel document: `Documentation/admin-guide/cgroup-v1/`.

use std::io;
use std::path::{Path, PathBuf};

use protocol::isolation::{Protection, ProtectionName};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::cgroup::{Cgroups, Limits};
use crate::backend::Usage;
use crate::spec::SandboxId;

/// Over how long processor time is rationed, in microseconds: the kernel's default.
const CPU_PERIOD_US: u64 = 100_000;
/// How often a group is tried again that the kernel still counts as busy.
const REMOVE_TRIES: u32 = 50;
/// What is waited in between: the last processes of a group are dead, the kernel is about to notice.
const REMOVE_PAUSE: std::time::Duration = std::time::Duration::from_millis(2);

/// From here on a limit on memory is none.
const UNLIMITED_BYTES: u64 = 1 << 60;

/// The four hierarchies, each as the directory of this server in it.
#[derive(Debug)]
pub(crate) struct V1 {
    memory: PathBuf,
    cpu: PathBuf,
    cpuacct: PathBuf,
    pids: PathBuf,
}

impl V1 {
    /// Finds the hierarchies in the text of `/proc/self/mountinfo` and makes this server's directory in each.
    pub(crate) fn open(mountinfo: &str, server_key: &str) -> io::Result<V1> {
        let own = |controller: &str| -> io::Result<PathBuf> {
            let mount = mount_point(mountinfo, controller).ok_or_else(|| {
                io::Error::other(format!(
                    "the cgroup controller {controller} is not mounted as version 1 (hosts with version 2 alone are not supported yet)"
                ))
            })?;
            let directory = mount.join("microsandbox").join(server_key);
            fs_err::create_dir_all(&directory)?;
            Ok(directory)
        };
        Ok(V1 { memory: own("memory")?, cpu: own("cpu")?, cpuacct: own("cpuacct")?, pids: own("pids")? })
    }

    /// The server's directories, each once: `cpu` and `cpuacct` are often mounted together.
    fn directories(&self) -> Vec<&Path> {
        let mut all = vec![self.memory.as_path(), &self.cpu, &self.cpuacct, &self.pids];
        all.dedup();
        all
    }
}

impl Cgroups for V1 {
    fn create(&self, id: &SandboxId, limits: Limits) -> io::Result<()> {
        for directory in self.directories() {
            fs_err::create_dir(directory.join(id.as_str()))?;
        }
        let memory = self.memory.join(id.as_str());
        fs_err::write(memory.join("memory.limit_in_bytes"), limits.memory_bytes.to_string())?;
        let with_swap = memory.join("memory.memsw.limit_in_bytes");
        if with_swap.exists() {
            // Memory and swap together: no swap.
            fs_err::write(with_swap, limits.memory_bytes.to_string())?;
        }
        let quota_us = CPU_PERIOD_US * u64::from(limits.cpu_millis) / 1000;
        let cpu = self.cpu.join(id.as_str());
        fs_err::write(cpu.join("cpu.cfs_period_us"), CPU_PERIOD_US.to_string())?;
        fs_err::write(cpu.join("cpu.cfs_quota_us"), quota_us.to_string())?;
        fs_err::write(self.pids.join(id.as_str()).join("pids.max"), limits.pids.to_string())
    }

    fn entry_files(&self, id: &SandboxId) -> Vec<PathBuf> {
        let all = self.directories().into_iter().filter(|directory| *directory != self.cpu);
        all.map(|directory| directory.join(id.as_str()).join("tasks")).collect()
    }

    fn program_entry_file(&self, id: &SandboxId) -> PathBuf {
        self.cpu.join(id.as_str()).join("tasks")
    }

    fn usage(&self, id: &SandboxId) -> io::Result<Usage> {
        let memory = self.memory.join(id.as_str());
        let used = read_number(&memory.join("memory.usage_in_bytes"))?;
        let cache = field(&fs_err::read_to_string(memory.join("memory.stat"))?, "total_inactive_file");
        Ok(Usage {
            cpu_ns: read_number(&self.cpuacct.join(id.as_str()).join("cpuacct.usage"))?,
            memory_bytes: used.saturating_sub(cache.unwrap_or(0)),
        })
    }

    fn oom_kills(&self, id: &SandboxId) -> io::Result<u64> {
        let control = self.memory.join(id.as_str()).join("memory.oom_control");
        Ok(field(&fs_err::read_to_string(control)?, "oom_kill").unwrap_or(0))
    }

    fn protections(&self, id: &SandboxId) -> Vec<Protection> {
        let memory = self.memory.join(id.as_str());
        let limit = is_limited(&memory.join("memory.limit_in_bytes"));
        let swap = is_limited(&memory.join("memory.memsw.limit_in_bytes"));
        vec![
            limit.protection(ProtectionName::MemoryLimit),
            match swap {
                Limit::Missing => {
                    Protection::off(ProtectionName::SwapLimit, "the kernel does not count swap")
                        .mend("boot with the kernel parameter swapaccount=1")
                }
                other => other.protection(ProtectionName::SwapLimit),
            },
            is_limited(&self.cpu.join(id.as_str()).join("cpu.cfs_quota_us"))
                .protection(ProtectionName::CpuLimit),
            is_limited(&self.pids.join(id.as_str()).join("pids.max")).protection(ProtectionName::PidsLimit),
        ]
    }

    fn remove(&self, id: &SandboxId) -> io::Result<()> {
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
        for directory in self.directories() {
            let processes = directory.join(id.as_str()).join("cgroup.procs");
            match fs_err::read_to_string(&processes) {
                Ok(text) => text.lines().for_each(|line| kill_member(line, &processes)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
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
}

/// What a file of the kernel says of a limit.
enum Limit {
    Set,
    Unlimited,
    Missing,
}

impl Limit {
    fn protection(self, name: ProtectionName) -> Protection {
        match self {
            Limit::Set => Protection::on(name),
            Limit::Unlimited => Protection::off(name, "the kernel says that there is no limit"),
            Limit::Missing => Protection::off(name, "its cgroup controller is not there"),
        }
    }
}

/// Reads a limit back: without one, the kernel says -1, `max`, or a number near the largest there is.
fn is_limited(file: &Path) -> Limit {
    match fs_err::read_to_string(file).map(|text| text.trim().parse::<u64>()) {
        Ok(Ok(number)) if number < UNLIMITED_BYTES => Limit::Set,
        Ok(_) => Limit::Unlimited,
        Err(_) => Limit::Missing,
    }
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

fn read_number(path: &Path) -> io::Result<u64> {
    let text = fs_err::read_to_string(path)?;
    text.trim().parse().map_err(|_| io::Error::other(format!("{} holds no number: {text:?}", path.display())))
}

fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
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
    fn a_field_is_read_by_its_whole_name() {
        let text = "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n";
        assert_eq!(field(text, "oom_kill"), Some(3));
        assert_eq!(field(text, "oom"), None);
    }

    #[test]
    fn limits_are_written_where_the_kernel_reads_them() {
        let root = std::env::temp_dir().join(format!("cgroup-test-{}", std::process::id()));
        let key = |name: &str| root.join(name);
        let groups =
            V1 { memory: key("memory"), cpu: key("cpu"), cpuacct: key("cpuacct"), pids: key("pids") };
        for directory in groups.directories() {
            fs_err::create_dir_all(directory).unwrap();
        }
        let id = SandboxId::random().unwrap();
        groups.create(&id, Limits { memory_bytes: 1 << 20, cpu_millis: 1500, pids: 7 }).unwrap();
        let read = |path: &str| fs_err::read_to_string(root.join(path.replace("ID", id.as_str()))).unwrap();
        assert_eq!(read("memory/ID/memory.limit_in_bytes"), "1048576");
        assert_eq!(read("cpu/ID/cpu.cfs_quota_us"), "150000");
        assert_eq!(read("pids/ID/pids.max"), "7");
        assert_eq!(groups.list().unwrap(), [id]);
        crate::volume::remove_tree(&root).unwrap();
    }
}
