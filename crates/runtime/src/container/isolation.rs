// SPDX-License-Identifier: Apache-2.0
//! What protects a sandbox, read from outside.
//!
//! Nothing here believes the plan: the kernel is asked what the first process of the sandbox has (`proc(5)`), through
//! files that only the kernel writes. Other parts of the backend say the same of what is theirs, such as
//! [`super::cgroup::Cgroups::protections`]; [`Isolation::gather`] puts it together, and what nobody speaks of is off.
//!
//! [`Isolation::gather`]: protocol::isolation::Isolation::gather

use std::io;
use std::path::Path;

use jail::facts::{Facts, What};
use jail::rights::Rights;
use protocol::isolation::{Protection, ProtectionName};
use protocol::limits::{OPEN_FILES_MAX, PIDS_MAX};

use super::plan::{CAPABILITIES, DEVICES, MASKED, READ_ONLY};
use super::rights::Standing;
use crate::network::INTERFACE;

/// The kind of this wall.
pub(super) const KIND: &str = "container";

/// The kernel namespaces, as `/proc/PID/ns` calls them.
const NAMESPACES: [(&str, ProtectionName); 6] = [
    ("mnt", ProtectionName::MountNamespace),
    ("pid", ProtectionName::PidNamespace),
    ("net", ProtectionName::NetworkNamespace),
    ("ipc", ProtectionName::IpcNamespace),
    ("uts", ProtectionName::UtsNamespace),
    ("cgroup", ProtectionName::CgroupNamespace),
];
/// Fewer ids than this are no range: some programs want to be somebody else than root.
const IDS_MIN: u64 = 65_536;
/// Least bytes of a core file: below it the kernel writes none (`core(5)`).
const CORE_FILE_BYTES_MIN: u64 = 4096;

/// What the kernel says of the first process of a sandbox.
#[derive(Debug)]
pub(super) struct Seen {
    namespaces: Vec<(&'static str, bool)>,
    user_namespace: bool,
    id_map: String,
    status: String,
    limits: String,
    mounts: String,
    interfaces: String,
    descriptors: Vec<String>,
    core_pattern: String,
}

impl Seen {
    /// Reads it all. The caller holds the process, and looks afterwards whether it is still there.
    pub(super) fn read(pid: i32) -> io::Result<Seen> {
        let of = |name: &str| fs_err::read_to_string(format!("/proc/{pid}/{name}"));
        let own = |name: &str| -> io::Result<bool> {
            let link = |pid: &str| fs_err::read_link(format!("/proc/{pid}/ns/{name}"));
            Ok(link(&pid.to_string())? != link("self")?)
        };
        let mut descriptors = Vec::new();
        for entry in fs_err::read_dir(format!("/proc/{pid}/fd"))? {
            // One that was closed since it was listed is none.
            if let Ok(target) = fs_err::read_link(entry?.path()) {
                descriptors.push(target.to_string_lossy().into_owned());
            }
        }
        Ok(Seen {
            namespaces: NAMESPACES
                .iter()
                .map(|(name, _)| Ok((*name, own(name)?)))
                .collect::<io::Result<_>>()?,
            user_namespace: own("user")?,
            id_map: format!("{}{}", of("uid_map")?, of("gid_map")?),
            status: of("status")?,
            limits: of("limits")?,
            mounts: of("mountinfo")?,
            interfaces: of("net/dev")?,
            descriptors,
            core_pattern: fs_err::read_to_string("/proc/sys/kernel/core_pattern").unwrap_or_default(),
        })
    }

    /// Says of each protection whether it is there.
    ///
    /// `network` is what the server says of its policies, and `connected` whether the sandbox has one.
    pub(super) fn protections(
        &self,
        standing: &Standing,
        network: &Protection,
        connected: bool,
    ) -> Vec<Protection> {
        let mut all = vec![self.user_namespace(&standing.rights), self.id_range(standing)];
        for ((name, own), (_, protection)) in self.namespaces.iter().zip(NAMESPACES) {
            let shared = || format!("the {name} namespace is the server's own");
            all.push(if *own { Protection::on(protection) } else { Protection::off(protection, shared()) });
        }
        all.extend([self.masked_paths(), self.devices_closed(), self.set_id_powerless()]);
        all.extend([self.capabilities(), self.no_new_privs(), self.seccomp()]);
        all.extend([self.descriptors_closed(), self.core_dumps_off(), self.open_files_limit()]);
        all.push(self.network_policy(network, connected));
        all
    }

    /// A sandbox with nothing but a loopback interface reaches nobody, whatever is enforced; that others could have no
    /// network either is said all the same.
    fn network_policy(&self, network: &Protection, connected: bool) -> Protection {
        let name = ProtectionName::NetworkPolicy;
        let mut interfaces = self.interfaces.lines().filter_map(|line| Some(line.split_once(':')?.0.trim()));
        let wanted: &[&str] = if connected && network.on { &["lo", INTERFACE] } else { &["lo"] };
        match interfaces.find(|interface| !wanted.contains(interface)) {
            None => {
                let why = network.why.as_ref().map(|why| format!("no sandbox here has a network: {why}"));
                Protection { name, on: true, why, mend: network.mend.clone() }
            }
            Some(other) => Protection::off(name, format!("nothing decides what {other} reaches")),
        }
    }

    fn user_namespace(&self, rights: &Rights) -> Protection {
        let name = ProtectionName::UserNamespace;
        match (self.user_namespace, self.maps_root()) {
            (true, false) => match rights {
                Rights::Root => Protection::on(name),
                Rights::User(ids) => {
                    let why = format!("root inside is the server's own user outside, {}", ids.user);
                    Protection { why: Some(why), ..Protection::on(name) }
                }
            },
            (true, true) => Protection::off(name, "root inside is root of the host"),
            (false, _) => Protection::off(name, "the user namespace is the server's own"),
        }
    }

    /// Each line of a map: first id inside, first outside, how many.
    fn map(&self) -> impl Iterator<Item = Option<[u64; 3]>> {
        self.id_map.lines().map(|line| {
            let numbers: Vec<u64> = line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
            numbers.try_into().ok()
        })
    }

    fn maps_root(&self) -> bool {
        self.map().any(|line| line.is_none_or(|[_, outside, _]| outside == 0))
    }

    fn id_range(&self, standing: &Standing) -> Protection {
        let name = ProtectionName::IdRange;
        let whole = |line: Option<[u64; 3]>| {
            line.is_some_and(|[_, outside, count]| outside >= IDS_MIN && count >= IDS_MIN)
        };
        if self.map().count() >= 2 && self.map().all(whole) {
            return Protection::on(name);
        }
        no_range(standing)
    }

    /// The limit of the user namespace, which the first process has inherited.
    pub(super) fn processes_counted(&self) -> Protection {
        let name = ProtectionName::PidsLimit;
        match self.hard_limit("Max processes") {
            Some(limit) if limit <= u64::from(PIDS_MAX) => {
                let why = "they are counted in the user namespace, for want of a cgroup";
                Protection { why: Some(why.to_owned()), ..Protection::on(name) }
            }
            _ => Protection::off(name, "processes are not limited"),
        }
    }

    fn masked_paths(&self) -> Protection {
        let name = ProtectionName::MaskedPaths;
        let there = |path: &&&str| Path::new(path).exists();
        let masked = MASKED.iter().filter(there).find(|path| self.mount(path).is_none());
        let read_only = READ_ONLY
            .iter()
            .filter(there)
            .find(|path| !self.mount(path).is_some_and(|mount| mount.has("ro")));
        match masked.or(read_only) {
            None => Protection::on(name),
            Some(open) => Protection::off(name, format!("{open} is open")),
        }
    }

    fn devices_closed(&self) -> Protection {
        let name = ProtectionName::DevicesClosed;
        let of_dev = |mount: &Mount<'_>| {
            mount.source == "dev" || mount.kind == "devpts" || (mount.is_node() && mount.has("ro"))
        };
        let mut open = self.all_mounts().filter(|mount| !mount.has("nodev") && !of_dev(mount));
        match (open.next(), self.mount("/dev").is_some_and(|dev| dev.has("ro"))) {
            (None, true) => Protection::on(name),
            (Some(mount), _) => Protection::off(name, format!("devices work in {}", mount.at)),
            (None, false) => Protection::off(name, "/dev can be changed"),
        }
    }

    fn set_id_powerless(&self) -> Protection {
        let name = ProtectionName::SetIdPowerless;
        match self.all_mounts().find(|mount| !mount.has("nosuid")) {
            None if self.field("NoNewPrivs") == Some("1") => Protection::on(name),
            None => Protection::off(name, "no_new_privs is not set"),
            Some(mount) => Protection::off(name, format!("{} is mounted without nosuid", mount.at)),
        }
    }

    fn capabilities(&self) -> Protection {
        let name = ProtectionName::Capabilities;
        let kept = CAPABILITIES.iter().fold(0_u64, |set, (number, _)| set | 1 << number);
        for set in ["CapBnd", "CapPrm", "CapEff", "CapInh", "CapAmb"] {
            let held = self.field(set).and_then(|hex| u64::from_str_radix(hex, 16).ok());
            if held.is_none_or(|held| held & !kept != 0) {
                return Protection::off(name, format!("{set} has more than the few that are kept"));
            }
        }
        Protection::on(name)
    }

    fn no_new_privs(&self) -> Protection {
        let name = ProtectionName::NoNewPrivs;
        match self.field("NoNewPrivs") {
            Some("1") => Protection::on(name),
            _ => Protection::off(name, "it is not set"),
        }
    }

    fn seccomp(&self) -> Protection {
        let name = ProtectionName::Seccomp;
        match self.field("Seccomp") {
            Some("2") => Protection::on(name),
            _ => Protection::off(name, "no filter is installed")
                .mend("boot a kernel that is built with CONFIG_SECCOMP_FILTER"),
        }
    }

    /// The agent has sockets, pipes and files in memory, and the one file by which programs enter their cgroup.
    fn descriptors_closed(&self) -> Protection {
        let name = ProtectionName::DescriptorsClosed;
        let entry = |target: &str| {
            let name = target.rsplit('/').next().unwrap_or_default();
            target.contains("/microsandbox/") && ["tasks", "cgroup.procs", "cgroup.threads"].contains(&name)
        };
        let known = |target: &&String| {
            !target.starts_with('/')
                || target.starts_with("/memfd:")
                || *target == "/dev/null"
                || entry(target)
        };
        match self.descriptors.iter().find(|target| !known(target)) {
            None => Protection::on(name),
            Some(_) => Protection::off(name, "a file of the host is open in the agent"),
        }
    }

    fn core_dumps_off(&self) -> Protection {
        let name = ProtectionName::CoreDumpsOff;
        let limit = self.hard_limit("Max core file size");
        match (self.core_pattern.trim().bytes().next(), limit) {
            // The kernel starts the program unless the limit is exactly 1.
            (Some(b'|'), Some(1)) => Protection::on(name),
            (Some(b'|'), _) => Protection::off(
                name,
                "a program of the host takes core dumps, and the limit does not stop it",
            )
            .mend("start the server with a limit of at least 1 byte on core files: ulimit -c 1"),
            (Some(b'@'), _) => {
                Protection::off(name, "core dumps go to a socket of the host, which no limit stops")
                    .mend("sysctl kernel.core_pattern=core")
            }
            (_, Some(limit)) if limit < CORE_FILE_BYTES_MIN => Protection::on(name),
            (_, _) => Protection::off(name, "core files are not limited"),
        }
    }

    fn open_files_limit(&self) -> Protection {
        let name = ProtectionName::OpenFilesLimit;
        match self.hard_limit("Max open files") {
            Some(limit) if limit <= u64::from(OPEN_FILES_MAX) => Protection::on(name),
            _ => Protection::off(name, "open files are not limited"),
        }
    }

    fn field(&self, name: &str) -> Option<&str> {
        self.status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
    }

    fn hard_limit(&self, name: &str) -> Option<u64> {
        let line = self.limits.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().nth(1)?.parse().ok()
    }

    fn all_mounts(&self) -> impl Iterator<Item = Mount<'_>> {
        self.mounts.lines().filter_map(Mount::read)
    }

    fn mount(&self, at: &str) -> Option<Mount<'_>> {
        self.all_mounts().filter(|mount| mount.at == at).last()
    }
}

/// A line of `/proc/PID/mountinfo` (`proc_pid_mountinfo(5)`).
#[derive(Debug)]
struct Mount<'a> {
    root: &'a str,
    at: &'a str,
    options: &'a str,
    kind: &'a str,
    source: &'a str,
}

impl<'a> Mount<'a> {
    fn read(line: &'a str) -> Option<Mount<'a>> {
        let (left, right) = line.split_once(" - ")?;
        let (mut left, mut right) = (left.split(' ').skip(3), right.split(' '));
        Some(Mount {
            root: left.next()?,
            at: left.next()?,
            options: left.next()?,
            kind: right.next()?,
            source: right.next()?,
        })
    }

    /// Whether it is one harmless device of the host, at its place.
    fn is_node(&self) -> bool {
        let Some(name) = self.at.strip_prefix("/dev/") else { return false };
        DEVICES.iter().any(|(known, ..)| *known == name) && self.root.rsplit('/').next() == Some(name)
    }

    fn has(&self, option: &str) -> bool {
        self.options.split(',').any(|one| one == option)
    }
}

/// What the jail does with every sandbox or fails: what is on depends on the host alone, and was tried there.
pub(super) fn of_the_jail(facts: &Facts, standing: &Standing) -> Vec<Protection> {
    let layers = match facts.failure(What::IdmappedLayers) {
        None => Protection::on(ProtectionName::IdmappedLayers),
        Some(_) if standing.rights != Rights::Root => {
            Protection::off(ProtectionName::IdmappedLayers, "only root can map the owners of image files")
                .mend("run the server as root")
        }
        Some(why) => Protection::off(ProtectionName::IdmappedLayers, why)
            .mend("keep the home on a file system that has idmapped mounts, such as ext4, xfs or btrfs, on Linux 5.19 or newer"),
    };
    let landlock = match facts.failure(What::Landlock) {
        None => Protection::on(ProtectionName::Landlock),
        Some(why) => Protection::off(ProtectionName::Landlock, why).mend(
            "boot Linux 5.19 or newer with CONFIG_SECURITY_LANDLOCK and with landlock in the list of the kernel parameter lsm=",
        ),
    };
    let mut all = vec![layers, landlock];
    // What can be read of a sandbox says that they are; a crash that left one says more.
    all.extend(
        facts.failure(What::CoreDumpsOff).map(|why| Protection::off(ProtectionName::CoreDumpsOff, why)),
    );
    all
}

/// Why a sandbox has no range of ids that is its own.
fn no_range(standing: &Standing) -> Protection {
    let name = ProtectionName::IdRange;
    match (&standing.rights, &standing.one_id) {
        (Rights::Root, _) => Protection::off(name, "it has fewer than 65536 ids of its own"),
        (Rights::User(_), Some(gap)) => {
            let why = format!("there is one id inside, that of the server's user: {}", gap.why);
            Protection::off(name, why)
                .mend(format!("run the server as root; for more ids inside: {}", gap.mend))
        }
        (Rights::User(_), None) => {
            Protection::off(name, "all sandboxes of the server's user have the same ids, his own among them")
                .mend("run the server as root")
        }
    }
}

/// What can be said when no sandbox can be built: what was tried alone, and for all else why there is none.
pub(super) fn without_sandbox(facts: &Facts, standing: &Standing, failure: &str) -> Vec<Protection> {
    let tried = [
        (What::UserNamespace, ProtectionName::UserNamespace),
        (What::IdRange, ProtectionName::IdRange),
        (What::MountNamespace, ProtectionName::MountNamespace),
        (What::PidNamespace, ProtectionName::PidNamespace),
        (What::NetworkNamespace, ProtectionName::NetworkNamespace),
        (What::IpcNamespace, ProtectionName::IpcNamespace),
        (What::UtsNamespace, ProtectionName::UtsNamespace),
        (What::CgroupNamespace, ProtectionName::CgroupNamespace),
        (What::Seccomp, ProtectionName::Seccomp),
        (What::CoreDumpsOff, ProtectionName::CoreDumpsOff),
    ];
    let of = |name: &ProtectionName| {
        let alone = tried.iter().find(|(_, tried)| tried == name).and_then(|(what, _)| facts.failure(*what));
        let why = alone.map_or_else(|| format!("no sandbox can be built here: {failure}"), str::to_owned);
        let off = Protection::off(*name, why);
        match alone.and_then(|_| mend_namespaces(*name)) {
            Some(mend) => off.mend(mend),
            None => off,
        }
    };
    // The first reason counts.
    let mut all: Vec<Protection> =
        of_the_jail(facts, standing).into_iter().filter(|protection| !protection.on).collect();
    all.extend(ProtectionName::ALL.iter().map(of));
    all
}

/// What keeps a kernel from making namespaces: each a setting with a name of its own.
fn mend_namespaces(name: ProtectionName) -> Option<String> {
    if name != ProtectionName::UserNamespace {
        return None;
    }
    let setting = |path: &str| fs_err::read_to_string(path).ok().map(|text| text.trim().to_owned());
    let is = |path: &str, value: &str| setting(path).as_deref() == Some(value);
    if is("/proc/sys/user/max_user_namespaces", "0") {
        return Some("sysctl user.max_user_namespaces=15000".to_owned());
    }
    if is("/proc/sys/kernel/unprivileged_userns_clone", "0") {
        return Some("sysctl kernel.unprivileged_userns_clone=1".to_owned());
    }
    if is("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1") {
        return Some("sysctl kernel.apparmor_restrict_unprivileged_userns=0".to_owned());
    }
    Some("boot a kernel that is built with CONFIG_USER_NS".to_owned())
}

#[cfg(test)]
mod tests;
