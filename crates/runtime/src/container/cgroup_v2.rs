// SPDX-License-Identifier: Apache-2.0
//! Cgroups of version 2: two directories for each sandbox in the one tree.
//!
//! ```text
//! <place>/microsandbox/<server key>/<sandbox id>/            every limit but one; the agent is here
//! <place>/microsandbox/<server key>/<sandbox id>/programs/   the limit on processor time; programs are here
//! ```
//!
//! The agent stays out of the processor limit: one that is as throttled as a fork bomb could not end it. The lower group
//! is *threaded*, which makes the upper one the root of a threaded tree: that one may have processes of its own beside
//! groups with the controller cpu, memory is counted for both together, and a process gets from one to the other through
//! `cgroup.threads`, which does not stop the forks of the whole machine as `cgroup.procs` does.
//!
//! Kernel document: `Documentation/admin-guide/cgroup-v2.rst`.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;

use protocol::limits::CGROUP_EMPTY_WAIT;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags, open};

use protocol::isolation::Protection;

use super::cgroup::{Cgroups, Limits};
use super::cgroup_limit::{Limit, Setting, apply, disk_gap, field, read_number, try_out, uncounted_swap};
use super::cgroup_place::Prepared;
use super::cgroup_v1::kill_members;
use crate::backend::Usage;
use crate::spec::SandboxId;

/// Over how long processor time is rationed, in microseconds: the kernel's default.
const CPU_PERIOD_US: u64 = 100_000;
/// The group of programs in that of a sandbox.
const PROGRAMS: &str = "programs";
/// Limits that every host can hold, to find out what this one does.
const TRIAL: Limits = Limits { memory_bytes: 64 << 20, cpu_millis: 500, pids: 64, io_weight: 200 };

/// The tree, as the directory of this server in it.
#[derive(Debug)]
pub(crate) struct V2 {
    own: PathBuf,
    /// The file that sets a share of the disk, by its name: two schedulers have one each.
    weight_file: Option<&'static str>,
    held: Vec<Protection>,
}

impl V2 {
    /// Takes a place and finds out which limits hold there.
    pub(super) fn open(prepared: Prepared) -> io::Result<V2> {
        let Prepared { own, mut gaps } = prepared;
        let mut groups = V2 { own, weight_file: None, held: Vec::new() };
        let id = SandboxId::random().map_err(io::Error::other)?;
        groups.make(&id)?;
        let group = groups.group(&id);
        groups.weight_file =
            ["io.bfq.weight", "io.weight"].into_iter().find(|name| group.join(name).exists());
        if group.join("memory.max").exists() && !group.join("memory.swap.max").exists() {
            gaps.push((Limit::Swap, uncounted_swap("")));
        }
        gaps.extend(disk_gap(Path::new("/sys/block"), Path::new("/sys/fs/cgroup/io.cost.qos")));
        groups.held = try_out(&groups.settings(&id, TRIAL), &gaps);
        groups.remove(&id)?;
        Ok(groups)
    }

    fn group(&self, id: &SandboxId) -> PathBuf {
        self.own.join(id.as_str())
    }

    /// Makes both groups of a sandbox.
    fn make(&self, id: &SandboxId) -> io::Result<()> {
        let group = self.group(id);
        let programs = group.join(PROGRAMS);
        fs_err::create_dir(&group)?;
        fs_err::create_dir(&programs)?;
        fs_err::write(programs.join("cgroup.type"), "threaded")?;
        // Without the controller in this group there is none to hand down; then it is known that the limit is off.
        let has_cpu = super::cgroup_place::controllers(&group).iter().any(|name| name == "cpu");
        if has_cpu { fs_err::write(group.join("cgroup.subtree_control"), "+cpu") } else { Ok(()) }
    }

    /// Every limit, with the file that holds it.
    fn settings(&self, id: &SandboxId, limits: Limits) -> Vec<Setting> {
        let group = self.group(id);
        let quota_us = CPU_PERIOD_US * u64::from(limits.cpu_millis) / 1000;
        let quota = format!("{quota_us} {CPU_PERIOD_US}");
        let set = |limit, file: &str, value: String| Setting::new(limit, group.join(file), value);
        let mut all = vec![
            set(Limit::Memory, "memory.max", limits.memory_bytes.to_string()),
            // One process dies at the limit, and not the agent with it.
            set(Limit::Memory, "memory.oom.group", "0".to_owned()),
            set(Limit::Swap, "memory.swap.max", "0".to_owned()),
            set(Limit::Cpu, "programs/cpu.max", quota),
            // Between sandboxes that want more than there is: by what they are allowed. 1 processor is the default of 100.
            set(Limit::Cpu, "cpu.weight", (limits.cpu_millis / 10).clamp(1, 10_000).to_string()),
            set(Limit::Pids, "pids.max", limits.pids.to_string()),
        ];
        all.extend(self.weight_file.map(|file| set(Limit::Io, file, limits.io_weight.to_string())));
        all
    }

    fn holds(&self, limit: Limit) -> bool {
        self.held.iter().any(|held| held.name == limit.name() && held.on)
    }
}

impl Cgroups for V2 {
    fn create(&self, id: &SandboxId, limits: Limits) -> io::Result<()> {
        self.make(id)?;
        apply(&self.settings(id, limits), &self.held)
    }

    fn entry_files(&self, id: &SandboxId) -> Vec<PathBuf> {
        vec![self.group(id).join("cgroup.procs")]
    }

    fn program_entry_file(&self, id: &SandboxId) -> PathBuf {
        self.group(id).join(PROGRAMS).join("cgroup.threads")
    }

    fn usage(&self, id: &SandboxId) -> io::Result<Usage> {
        let group = self.group(id);
        let processor = fs_err::read_to_string(group.join("cpu.stat"))?;
        let used = read_number(&group.join("memory.current"))?;
        let cache = field(&fs_err::read_to_string(group.join("memory.stat"))?, "inactive_file");
        Ok(Usage {
            cpu_ns: field(&processor, "usage_usec").unwrap_or(0).saturating_mul(1000),
            memory_bytes: used.saturating_sub(cache.unwrap_or(0)),
        })
    }

    fn oom_kills(&self, id: &SandboxId) -> io::Result<u64> {
        if !self.holds(Limit::Memory) {
            return Ok(0);
        }
        let events = fs_err::read_to_string(self.group(id).join("memory.events"))?;
        Ok(field(&events, "oom_kill").unwrap_or(0))
    }

    fn remove(&self, id: &SandboxId) -> io::Result<()> {
        let group = self.group(id);
        if let Err(error) = wait_until_empty(&group)
            && error.kind() != io::ErrorKind::NotFound
        {
            return Err(error);
        }
        for directory in [group.join(PROGRAMS), group] {
            match fs_err::remove_dir(directory) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    fn list(&self) -> io::Result<Vec<SandboxId>> {
        let names = fs_err::read_dir(&self.own)?.map(|entry| Ok(entry?.file_name()));
        let names = names.collect::<io::Result<Vec<_>>>()?;
        Ok(names.iter().filter_map(|name| SandboxId::parse(name.to_str()?)).collect())
    }

    fn kill(&self, id: &SandboxId) -> io::Result<()> {
        let group = self.group(id);
        // Since Linux 5.14; it cannot be outrun by forks.
        match fs_err::OpenOptions::new().write(true).open(group.join("cgroup.kill")) {
            Ok(mut file) => io::Write::write_all(&mut file, b"1"),
            Err(error) if error.kind() == io::ErrorKind::NotFound => kill_members(&group),
            Err(error) => Err(error),
        }
    }

    fn remove_own(&self) -> io::Result<()> {
        fs_err::remove_dir(&self.own)?;
        if let Some(shared) = self.own.parent() {
            // Other servers may still have theirs in it.
            let _ = fs_err::remove_dir(shared);
        }
        Ok(())
    }

    fn protections(&self) -> &[Protection] {
        &self.held
    }
}

/// Waits until the kernel has taken the last process out of a group; what was killed is on its way. The file wakes its
/// readers when it changes.
fn wait_until_empty(group: &Path) -> io::Result<()> {
    let file = group.join("cgroup.events");
    let events = match open(&file, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) {
        Ok(events) => events,
        Err(rustix::io::Errno::NOENT) => return Err(io::ErrorKind::NotFound.into()),
        Err(error) => return Err(error.into()),
    };
    let deadline = Instant::now() + CGROUP_EMPTY_WAIT;
    loop {
        let mut text = [0; 256];
        let length = rustix::io::pread(&events, &mut text, 0)?;
        if field(&String::from_utf8_lossy(&text[..length]), "populated") != Some(1) {
            return Ok(());
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            let what = format!("{} still has processes", group.display());
            return Err(io::Error::new(io::ErrorKind::ResourceBusy, what));
        }
        let left = Timespec::try_from(left).map_err(io::Error::other)?;
        poll(&mut [PollFd::new(&events, PollFlags::PRI)], Some(&left))?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Groups on a plain directory, in which every limit holds.
    fn groups(name: &str) -> V2 {
        let own = std::env::temp_dir().join(format!("cgroup-v2-{name}-{}", std::process::id()));
        fs_err::create_dir_all(&own).unwrap();
        let held = Limit::ALL
            .map(|limit| Protection { name: limit.name(), on: true, why: None, mend: None })
            .to_vec();
        V2 { own, weight_file: Some("io.weight"), held }
    }

    fn end(groups: &V2) {
        crate::volume::remove_tree(&groups.own).unwrap();
    }

    fn id() -> SandboxId {
        SandboxId::parse("0123456789abcdef").unwrap()
    }

    #[test]
    fn limits_are_written_where_the_kernel_reads_them() {
        let groups = groups("limits");
        let limits = Limits { memory_bytes: 1 << 20, cpu_millis: 250, pids: 7, io_weight: 33 };
        groups.create(&id(), limits).unwrap();
        let read = |file: &str| fs_err::read_to_string(groups.group(&id()).join(file)).unwrap();
        let expected = [
            ("memory.max", "1048576"),
            ("memory.swap.max", "0"),
            ("memory.oom.group", "0"),
            ("cpu.weight", "25"),
            ("pids.max", "7"),
            ("io.weight", "33"),
            ("programs/cgroup.type", "threaded"),
            ("programs/cpu.max", "25000 100000"),
        ];
        for (file, value) in expected {
            assert_eq!(read(file), value, "{file}");
        }
        assert!(!groups.group(&id()).join("cpu.max").exists(), "the agent is not limited");
        assert_eq!(groups.list().unwrap(), [id()]);
        end(&groups);
    }

    #[test]
    fn the_least_processor_is_what_the_kernel_takes_and_a_large_one_is_not_too_heavy() {
        let groups = groups("least");
        let of = |cpu_millis| {
            let limits = Limits { cpu_millis, ..TRIAL };
            let settings = groups.settings(&id(), limits).into_iter();
            settings.filter(|s| s.limit == Limit::Cpu).map(|s| s.value).collect::<Vec<_>>()
        };
        assert_eq!(of(10), ["1000 100000", "1"]);
        assert_eq!(of(255_000), ["25500000 100000", "10000"]);
        end(&groups);
    }

    #[test]
    fn use_and_kills_are_read_with_their_units() {
        let groups = groups("usage");
        groups.create(&id(), TRIAL).unwrap();
        let put = |file: &str, text: &str| fs_err::write(groups.group(&id()).join(file), text).unwrap();
        put("cpu.stat", "usage_usec 1500\nuser_usec 1000\nsystem_usec 500\n");
        put("memory.current", "9000\n");
        put("memory.stat", "anon 100\ninactive_file 4000\nactive_file 1\n");
        put("memory.events", "low 0\nhigh 0\nmax 9\noom 2\noom_kill 3\noom_group_kill 0\n");
        assert_eq!(groups.usage(&id()).unwrap(), Usage { cpu_ns: 1_500_000, memory_bytes: 5000 });
        assert_eq!(groups.oom_kills(&id()).unwrap(), 3);
        end(&groups);
    }

    #[test]
    fn the_kernel_is_asked_to_kill_all_at_once_where_it_can() {
        let groups = groups("kill");
        groups.create(&id(), TRIAL).unwrap();
        let file = groups.group(&id()).join("cgroup.kill");
        fs_err::write(&file, "").unwrap();
        groups.kill(&id()).unwrap();
        assert_eq!(fs_err::read_to_string(&file).unwrap(), "1");
        end(&groups);
        assert!(groups.kill(&id()).is_ok(), "no group is no error");
    }

    #[test]
    fn a_group_with_processes_is_waited_for_and_then_reported_and_no_group_is_no_error() {
        let groups = groups("remove");
        assert!(groups.remove(&id()).is_ok());
        groups.make(&id()).unwrap();
        let events = groups.group(&id()).join("cgroup.events");
        fs_err::write(&events, "populated 1\nfrozen 0\n").unwrap();
        // A plain file is always ready, so this spins for the time of the wait.
        let error = groups.remove(&id()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ResourceBusy);
        end(&groups);
    }

    #[test]
    fn the_agent_and_programs_enter_at_different_levels() {
        let groups = groups("entry");
        assert_eq!(groups.entry_files(&id()), [groups.own.join("0123456789abcdef/cgroup.procs")]);
        let programs = groups.own.join("0123456789abcdef/programs/cgroup.threads");
        assert_eq!(groups.program_entry_file(&id()), programs);
        end(&groups);
    }
}
