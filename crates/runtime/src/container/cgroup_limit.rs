// SPDX-License-Identifier: Apache-2.0
//! Single limits: the files that hold them, and whether a host really does.
//!
//! A limit counts as held once its value was written into a group and read back. For the share of a disk that is not
//! enough: the kernel keeps the number even where no disk is shared by it, so the disks are looked at as well.

use std::io;
use std::path::{Path, PathBuf};

use protocol::isolation::{Protection, ProtectionName};

/// What a cgroup can limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Limit {
    Memory,
    Swap,
    Cpu,
    Pids,
    Io,
}

impl Limit {
    /// All of them, in the order in which they are told.
    pub(super) const ALL: [Limit; 5] = [Limit::Memory, Limit::Swap, Limit::Cpu, Limit::Pids, Limit::Io];

    /// How it is called in reports.
    pub(super) fn name(self) -> ProtectionName {
        match self {
            Limit::Memory => ProtectionName::MemoryLimit,
            Limit::Swap => ProtectionName::SwapLimit,
            Limit::Cpu => ProtectionName::CpuLimit,
            Limit::Pids => ProtectionName::PidsLimit,
            Limit::Io => ProtectionName::IoWeight,
        }
    }

    /// The controller that has it, as the kernel calls it in version 2.
    pub(super) fn controller(self) -> &'static str {
        match self {
            Limit::Memory | Limit::Swap => "memory",
            Limit::Cpu => "cpu",
            Limit::Pids => "pids",
            Limit::Io => "io",
        }
    }
}

/// Why a limit cannot be had, and what would help.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Gap {
    pub(super) why: String,
    pub(super) mend: Option<String>,
}

impl Gap {
    pub(super) fn new(why: impl Into<String>, mend: &str) -> Gap {
        Gap { why: why.into(), mend: Some(mend.to_owned()) }
    }

    fn off(&self, limit: Limit) -> Protection {
        let Gap { why, mend } = self.clone();
        Protection { name: limit.name(), on: false, why: Some(why), mend }
    }
}

/// One file of a group, and what is written into it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Setting {
    pub(super) limit: Limit,
    pub(super) file: PathBuf,
    pub(super) value: String,
}

impl Setting {
    pub(super) fn new(limit: Limit, file: PathBuf, value: impl ToString) -> Setting {
        Setting { limit, file, value: value.to_string() }
    }

    /// Writes it; on cgroup file systems a file that is not there cannot be made by this.
    pub(super) fn write(&self) -> io::Result<()> {
        fs_err::write(&self.file, &self.value)
    }

    /// Writes it and reads it back; else says what is wrong.
    fn holds(&self) -> Result<(), Gap> {
        let name = self.file.file_name().unwrap_or_default().to_string_lossy();
        let gap = |why: String| Gap { why, mend: None };
        if !self.file.exists() {
            return Err(gap(format!("this kernel has no {name}")));
        }
        self.write().map_err(|error| gap(format!("{name} takes no {:?}: {error}", self.value)))?;
        let text = fs_err::read_to_string(&self.file).map_err(|error| gap(error.to_string()))?;
        let first = text.lines().next().unwrap_or_default();
        if first.strip_prefix("default ").unwrap_or(first) == self.value {
            return Ok(());
        }
        Err(gap(format!("{name} was set to {:?} and says {first:?}", self.value)))
    }
}

/// Writes the settings of limits that this host holds.
pub(super) fn apply(settings: &[Setting], held: &[Protection]) -> io::Result<()> {
    let is_held = |limit: Limit| held.iter().any(|held| held.name == limit.name() && held.on);
    settings.iter().filter(|setting| is_held(setting.limit)).try_for_each(Setting::write)
}

/// Tries each limit on a group that was made for it; `known` has the limits of which it is clear that they cannot be had.
pub(super) fn try_out(settings: &[Setting], known: &[(Limit, Gap)]) -> Vec<Protection> {
    let tried = |limit: Limit| {
        if let Some((_, gap)) = known.iter().find(|(of, _)| *of == limit) {
            return gap.off(limit);
        }
        let mut own = settings.iter().filter(|setting| setting.limit == limit).peekable();
        if own.peek().is_none() {
            let controller = limit.controller();
            return Gap {
                why: format!("this kernel has no such limit in the controller {controller}"),
                mend: None,
            }
            .off(limit);
        }
        match own.try_for_each(Setting::holds) {
            Ok(()) => Protection::on(limit.name()),
            Err(gap) => gap.off(limit),
        }
    };
    Limit::ALL.map(tried).to_vec()
}

/// What is told where no limit can be had, for one reason.
pub(super) fn all_off(gap: &Gap) -> Vec<Protection> {
    Limit::ALL.map(|limit| gap.off(limit)).to_vec()
}

/// Why swap cannot be limited on a kernel that does not count it, and what is done `instead`.
pub(super) fn uncounted_swap(instead: &str) -> Gap {
    let why = format!("the kernel does not count swap (swapaccount=0){instead}");
    Gap::new(why, "boot with swapaccount=1, or switch swap off with swapoff -a")
}

/// Says why no disk of this host is shared by weight, if that is so: with most schedulers the weight is a number that
/// nobody reads.
pub(super) fn disk_gap(blocks: &Path, cost_file: &Path) -> Option<(Limit, Gap)> {
    let has_cost = fs_err::read_to_string(cost_file).is_ok_and(|text| text.contains("enable=1"));
    let disks = fs_err::read_dir(blocks).into_iter().flatten().flatten();
    let fair = |disk: &fs_err::DirEntry| {
        let scheduler = fs_err::read_to_string(disk.path().join("queue/scheduler")).unwrap_or_default();
        scheduler.contains("[bfq]")
    };
    if has_cost || disks.into_iter().any(|disk| fair(&disk)) {
        return None;
    }
    let gap = Gap::new(
        "no disk of this host is shared by weight: none has the scheduler bfq, and io.cost is off",
        "echo bfq > /sys/block/DISK/queue/scheduler, for the disk that holds the server's home",
    );
    Some((Limit::Io, gap))
}

/// Reads a file with one number.
pub(super) fn read_number(path: &Path) -> io::Result<u64> {
    let text = fs_err::read_to_string(path)?;
    text.trim().parse().map_err(|_| io::Error::other(format!("{} holds no number: {text:?}", path.display())))
}

/// Finds a number by the name that stands before it on its line.
pub(super) fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room(name: &str) -> PathBuf {
        let room = std::env::temp_dir().join(format!("cgroup-limit-{name}-{}", std::process::id()));
        fs_err::create_dir_all(&room).unwrap();
        room
    }

    #[test]
    fn a_field_is_read_by_its_whole_name() {
        let text = "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n";
        assert_eq!(field(text, "oom_kill"), Some(3));
        assert_eq!(field(text, "oom"), None);
    }

    #[test]
    fn a_limit_without_its_file_or_with_a_deaf_one_is_off_and_says_why() {
        let room = room("truth");
        fs_err::write(room.join("memory.max"), "max\n").unwrap();
        let settings = [
            Setting::new(Limit::Memory, room.join("memory.max"), 4096),
            Setting::new(Limit::Pids, room.join("pids.max"), 7),
            // Takes every value and keeps none.
            Setting::new(Limit::Cpu, PathBuf::from("/dev/null"), "1000 100000"),
        ];
        let known = [(Limit::Io, Gap::new("no disk", "buy one"))];
        let found = try_out(&settings, &known);
        let why = |name: &str| found.iter().find(|p| p.name.text() == name).unwrap().why.clone();
        assert_eq!(found.iter().map(|p| p.on).collect::<Vec<_>>(), [true, false, false, false, false]);
        assert_eq!(why("memory_limit"), None);
        assert_eq!(why("pids_limit").unwrap(), "this kernel has no pids.max");
        assert!(why("cpu_limit").unwrap().contains("was set to \"1000 100000\" and says \"\""));
        assert_eq!(why("io_weight").unwrap(), "no disk");

        fs_err::write(room.join("memory.max"), "max\n").unwrap();
        apply(&settings, &found).unwrap();
        assert_eq!(read_number(&room.join("memory.max")).unwrap(), 4096);
        assert!(!room.join("pids.max").exists());
        crate::volume::remove_tree(&room).unwrap();
    }

    #[test]
    fn a_weight_counts_where_a_disk_is_shared_by_it() {
        let room = room("disks");
        for (disk, scheduler) in [("vda", "[none] mq-deadline bfq"), ("sda", "none [mq-deadline]")] {
            fs_err::create_dir_all(room.join(disk).join("queue")).unwrap();
            fs_err::write(room.join(disk).join("queue/scheduler"), scheduler).unwrap();
        }
        let cost = room.join("io.cost.qos");
        assert_eq!(disk_gap(&room, &cost).unwrap().0, Limit::Io);
        fs_err::write(&cost, "8:0 enable=1 ctrl=auto\n").unwrap();
        assert!(disk_gap(&room, &cost).is_none());
        fs_err::write(&cost, "").unwrap();
        fs_err::write(room.join("sda/queue/scheduler"), "none mq-deadline [bfq]").unwrap();
        assert!(disk_gap(&room, &cost).is_none());
        crate::volume::remove_tree(&room).unwrap();
    }
}
