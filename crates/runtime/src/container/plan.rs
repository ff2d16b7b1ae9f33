// SPDX-License-Identifier: Apache-2.0
//! From what a sandbox shall be to the plan of its walls: pure.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use jail::plan::{Device, DeviceSource, IdBlock, Overlay, Owners, Plan, Volume, WritableLayers};
use jail::rights::Rights;
use protocol::config::AgentConfig;

use super::bpf::{TooLarge, assemble};
use super::seccomp::table;
use crate::spec::{HostVolume, SandboxSpec};

/// The environment inside when nobody says otherwise.
const DEFAULT_ENVIRONMENT: [(&str, &str); 3] = [
    ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
    ("LANG", "C.UTF-8"),
    ("SHELL", "/bin/sh"),
];
/// What is added to it where the image names no user. Otherwise the name is not ours to say: as with Docker, only `HOME`
/// is set, by the agent, which finds it in the image.
const ROOT_ENVIRONMENT: [(&str, &str); 2] = [("USER", "root"), ("LOGNAME", "root")];

/// The devices of a sandbox: nothing that reaches hardware or another process (`null(4)`, `random(4)`, `tty(4)`).
pub(super) const DEVICES: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];
const DEVICE_LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

/// What tells about the host (its disks, boot parameters, locks, the timing of its interrupts) or other sandboxes, or would let root of the host do harm: memory, keys, firmware, timers.
pub(super) const MASKED: [&str; 30] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/cmdline",
    "/proc/diskstats",
    "/proc/interrupts",
    "/proc/kallsyms",
    "/proc/kcore",
    "/proc/key-users",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/locks",
    "/proc/mdstat",
    "/proc/modules",
    "/proc/partitions",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/swaps",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/block",
    "/sys/firmware",
    "/sys/fs",
    "/sys/hypervisor",
    "/sys/kernel",
    "/sys/module",
    "/sys/power",
    "/sys/devices/virtual/block",
    "/sys/devices/virtual/dmi",
    "/sys/devices/virtual/powercap",
    "/sys/devices/virtual/thermal",
];
/// Switches of the kernel.
pub(super) const READ_ONLY: [&str; 5] =
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// The capabilities that stay, by number (`capabilities(7)`): what package managers and servers need inside, none of
/// which reaches beyond the user namespace.
pub(super) const CAPABILITIES: [(u32, &str); 8] = [
    (0, "chown"),
    (1, "dac_override"),
    (3, "fowner"),
    (4, "fsetid"),
    (5, "kill"),
    (6, "setgid"),
    (7, "setuid"),
    (10, "net_bind_service"),
];

/// The group of terminals, as most images have it.
const TERMINAL_GROUP: u32 = 5;
/// The agent's nice value: about 80 times the weight of a program's 0 (`sched(7)`).
const AGENT_NICE: i32 = -20;
/// The nice value of programs where the agent cannot go above others and no cgroup keeps them from it.
const YIELDING_NICE: i32 = 19;

/// Options of overlay mounts. `redirect_dir`: a directory of a lower layer can be renamed. `volatile`: no sync to the disk
/// for files that die with the sandbox. `userxattr`: marks of the kernel that need no rights of root; it excludes the first.
const OVERLAY_OPTIONS: [&str; 2] = ["redirect_dir=on", "volatile"];
const USER_OVERLAY_OPTIONS: [&str; 2] = ["userxattr", "volatile"];

/// Where things of one sandbox are on the host.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    /// With whose rights the walls are built.
    pub(crate) rights: Rights,
    /// Where its first process is written down.
    pub(crate) process: PathBuf,
    /// Whether its processes are counted in its user namespace, for want of a cgroup.
    pub(crate) counts_processes: bool,
    /// Whether programs yield to the agent, which would not get to ending them otherwise.
    pub(crate) prefers_agent: bool,
    /// The agent program.
    pub(crate) agent: PathBuf,
    /// The agent's socket.
    pub(crate) socket: PathBuf,
    /// Its cgroups' entry files.
    pub(crate) cgroup_tasks: Vec<PathBuf>,
    /// The entry file of the cgroup for programs alone.
    pub(crate) program_tasks: PathBuf,
    /// How the jail gets at those, where not everybody can.
    pub(crate) hidden_layers: Option<WritableLayers>,
    /// For each mount of the rootfs, the directories that take the writes: upper and work.
    pub(crate) uppers: Vec<(PathBuf, PathBuf)>,
    /// An empty directory.
    pub(crate) scratch: PathBuf,
    /// Its ids, as root of those rights sees them.
    pub(crate) ids: IdBlock,
    /// Those after them inside.
    pub(crate) more_ids: Option<IdBlock>,
    /// Whether this host has landlock.
    pub(crate) landlock: bool,
}

/// Makes the plan.
pub(crate) fn plan(spec: &SandboxSpec, places: Places, secret: &str) -> Result<Plan, TooLarge> {
    let overlays = spec.rootfs.mounts.iter().zip(places.uppers).map(|(mount, (upper, work))| Overlay {
        at: mount.at.clone(),
        lowers: mount.lowers.clone(),
        upper,
        work,
    });
    let user = spec.user.clone().filter(|user| !user.is_empty());
    let config = AgentConfig {
        secret: secret.to_owned(),
        envs: environment(&spec.envs, user.is_some()),
        workdir: spec.workdir.clone(),
        user,
        prestart: spec.prestart,
        program_group: true,
        program_nice: if places.prefers_agent { YIELDING_NICE } else { 0 },
    };
    let last_id = places.ids.count + places.more_ids.map_or(0, |more| more.count) - 1;
    let real = places.rights == Rights::Root;
    let options = if real { OVERLAY_OPTIONS } else { USER_OVERLAY_OPTIONS };
    Ok(Plan {
        process: places.process,
        processes_max: places.counts_processes.then(|| u64::from(spec.pids_max)),
        // Only root can go above others.
        agent_nice: if real { AGENT_NICE } else { 0 },
        owners: if real { Owners::Mapped } else { Owners::Plain },
        overlay_options: options.map(str::to_owned).into(),
        device_source: if real { DeviceSource::Nodes } else { DeviceSource::Mounts },
        terminal_group: (last_id >= TERMINAL_GROUP).then_some(TERMINAL_GROUP),
        rights: places.rights,
        agent: places.agent,
        agent_config: serde_json::to_string(&config).expect("a struct of texts is always JSON"),
        socket: places.socket,
        hostname: spec.hostname.clone(),
        ids: places.ids,
        more_ids: places.more_ids,
        cgroup_tasks: places.cgroup_tasks,
        program_tasks: places.program_tasks,
        writable: places.hidden_layers,
        overlays: overlays.collect(),
        volumes: spec.volumes.iter().map(volume).collect(),
        scratch: places.scratch,
        devices: DEVICES
            .iter()
            .map(|&(name, major, minor)| Device { name: name.to_owned(), major, minor })
            .collect(),
        device_links: DEVICE_LINKS.iter().map(|&(name, to)| (name.to_owned(), to.to_owned())).collect(),
        shm_bytes: u64::from(spec.shm_mib) << 20,
        masked: MASKED.iter().map(|&path| path.to_owned()).collect(),
        read_only: READ_ONLY.iter().map(|&path| path.to_owned()).collect(),
        capabilities: CAPABILITIES.iter().map(|&(number, _)| number).collect(),
        open_files_max: u64::from(spec.open_files_max),
        landlock: places.landlock,
        seccomp: assemble(&table())?,
    })
}

fn volume(wanted: &HostVolume) -> Volume {
    let HostVolume { root, beneath, at, writable } = wanted.clone();
    Volume { root, beneath, at, writable }
}

/// The default environment with the spec's own over it.
fn environment(own: &[(String, String)], has_user: bool) -> Vec<(String, String)> {
    let root = ROOT_ENVIRONMENT.iter().filter(|_| !has_user);
    let defaults = DEFAULT_ENVIRONMENT.iter().chain(root);
    let mut all: Vec<(String, String)> =
        defaults.map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
    for (name, value) in own {
        all.retain(|(present, _)| present != name);
        all.push((name.clone(), value.clone()));
    }
    all
}

/// The files that every sandbox has in its own layer, whatever its image brings: path below `/`, and text.
pub(crate) fn preset_files(hostname: &str, name_server: Option<Ipv4Addr>) -> [(&'static str, String); 3] {
    let resolv_conf = match name_server {
        Some(address) => format!("nameserver {address}\n"),
        None => "# This sandbox has no network, and so no name server.\n".to_owned(),
    };
    [
        ("hostname", format!("{hostname}\n")),
        (
            "hosts",
            format!(
                "127.0.0.1\tlocalhost\n127.0.1.1\t{hostname}\n::1\tlocalhost ip6-localhost ip6-loopback\n"
            ),
        ),
        ("resolv.conf", resolv_conf),
    ]
}

#[cfg(test)]
mod tests {
    use jail::rights::UserIds;
    use protocol::network::Network;

    use super::*;
    use crate::spec::{Rootfs, RootfsMount, SandboxId};

    fn spec() -> SandboxSpec {
        SandboxSpec {
            id: SandboxId::parse("0123456789abcdef").unwrap(),
            hostname: "box".into(),
            rootfs: Rootfs { mounts: vec![RootfsMount { at: "/".into(), lowers: vec!["/image".into()] }] },
            memory_mib: 512,
            cpu_millis: 1000,
            disk_mib: 64,
            volumes: vec![],
            pids_max: 64,
            open_files_max: 1024,
            io_weight: 100,
            shm_mib: 64,
            envs: vec![("PATH".into(), "/mine".into()), ("A".into(), "b".into())],
            workdir: None,
            user: None,
            prestart: None,
            network: Network::None,
            ports: vec![],
        }
    }

    fn places() -> Places {
        Places {
            rights: Rights::Root,
            process: "/v/process".into(),
            counts_processes: false,
            prefers_agent: false,
            agent: "/agent".into(),
            socket: "/run/a.sock".into(),
            cgroup_tasks: vec!["/c/tasks".into()],
            program_tasks: "/cpu/tasks".into(),
            hidden_layers: None,
            uppers: vec![("/v/u".into(), "/v/w".into())],
            scratch: "/v/s".into(),
            ids: IdBlock { first: 1_000_000, count: 65_536 },
            more_ids: None,
            landlock: true,
        }
    }

    fn made() -> Plan {
        plan(&spec(), places(), "secret").unwrap()
    }

    #[test]
    fn no_capability_that_reaches_outside_is_kept() {
        // sys_admin, sys_ptrace, sys_module, net_admin, net_raw, mknod, sys_chroot, setpcap, bpf.
        for number in [21, 19, 16, 12, 13, 27, 18, 8, 39] {
            assert!(!made().capabilities.contains(&number), "capability {number}");
        }
        assert_eq!(made().capabilities.len(), 8);
    }

    #[test]
    fn the_environment_of_the_spec_wins_and_the_secret_is_not_in_it() {
        let config: AgentConfig = serde_json::from_str(&made().agent_config).unwrap();
        let get = |name: &str| -> Vec<&str> {
            config.envs.iter().filter(|(n, _)| n == name).map(|(_, v)| v.as_str()).collect()
        };
        assert_eq!(get("PATH"), ["/mine"]);
        assert_eq!((get("USER"), get("HOME")), (vec!["root"], vec![]));
        assert!(config.envs.iter().all(|(_, value)| value != "secret"));
    }

    #[test]
    fn the_kernels_switches_and_secrets_are_behind_walls() {
        let plan = made();
        assert!(plan.masked.iter().any(|path| path == "/proc/kcore"));
        assert!(plan.read_only.iter().any(|path| path == "/proc/sys"));
        assert!(plan.read_only.iter().any(|path| path == "/proc/sysrq-trigger"));
        assert!(plan.ids.first > 0, "root inside must not be root outside");
        assert!(plan.devices.iter().all(|d| matches!((d.major, d.minor), (1, 3 | 5 | 7 | 8 | 9) | (5, 0))));
    }

    #[test]
    fn an_ordinary_user_does_the_same_by_other_means() {
        let user = |more_ids| {
            let rights = Rights::User(UserIds { user: 1000, group: 1000, more: None });
            let places = Places {
                rights,
                counts_processes: true,
                ids: IdBlock { first: 0, count: 1 },
                more_ids,
                ..places()
            };
            plan(&spec(), places, "secret").unwrap()
        };
        let (real, own) = (made(), user(None));
        assert_eq!((own.owners, own.device_source), (Owners::Plain, DeviceSource::Mounts));
        assert_eq!((own.processes_max, own.agent_nice, own.terminal_group), (Some(64), 0, None));
        assert_eq!((real.processes_max, real.agent_nice, real.terminal_group), (None, -20, Some(5)));
        assert!(own.overlay_options.contains(&"userxattr".to_owned()));
        assert_eq!(user(Some(IdBlock { first: 1, count: 65_535 })).terminal_group, Some(5));
        // What is behind walls is so for both.
        assert_eq!(
            (&own.masked, &own.read_only, &own.seccomp),
            (&real.masked, &real.read_only, &real.seccomp)
        );
        assert_eq!((&own.capabilities, own.landlock), (&real.capabilities, real.landlock));
    }

    #[test]
    fn a_plan_survives_the_way_to_the_jail() {
        let text = serde_json::to_vec(&made()).unwrap();
        assert_eq!(serde_json::from_slice::<Plan>(&text).unwrap(), made());
        assert_eq!((made().shm_bytes, made().open_files_max), (64 << 20, 1024));
        assert!(text.len() < jail::plan::PLAN_BYTES_MAX / 10);
    }
}
