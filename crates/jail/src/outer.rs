// SPDX-License-Identifier: Apache-2.0
//! The part that root does, outside: real root, or a user in a namespace of his own.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use jail::plan::{Device, DeviceSource, IdBlock, Overlay, Owners, Plan};
use jail::process::ProcessRecord;
use jail::report::Report;
use rustix::fs::{CWD, Mode, OFlags, open};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags,
    fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, mount_change, move_mount,
    open_tree,
};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, socket_with};
use rustix::process::{Resource, Rlimit, Uid, setrlimit};
use rustix::thread::set_thread_res_uid;
use sys::mount::{MountAttributes, READ_ONLY, set_attributes};
use sys::namespace::{Fork, Namespaces, fork_sibling_into};

use crate::error::{Act, JailError};
use crate::handoff::{self, Sender};
use crate::layers::fetch_layers;
use crate::probe::NO_CORE_BYTES;
use crate::{inner, own_root, report, volume};

/// What the inner process inherits: opened outside, of use only to the program it becomes.
pub(crate) struct Inherited {
    /// The descriptor numbers at which the agent looks for its socket and its configuration.
    pub(crate) slots: Slots,
    /// The bound, not yet listening socket of the agent.
    pub(crate) socket: OwnedFd,
    /// The agent program.
    pub(crate) agent: OwnedFd,
    /// The `tasks` files of its cgroups.
    pub(crate) cgroup_tasks: Vec<OwnedFd>,
    /// The `tasks` file of the cgroup that the programs enter.
    pub(crate) program_tasks: OwnedFd,
    /// `/dev`, with its nodes or places for them, not yet attached anywhere.
    pub(crate) dev: OwnedFd,
    /// Mounts of the host's nodes, for those places: one for each device, or none.
    pub(crate) nodes: Vec<OwnedFd>,
}

/// The descriptors 3, 4 and 5, kept free for the agent from the beginning.
pub(crate) struct Slots {
    /// Becomes the listening socket.
    pub(crate) socket: OwnedFd,
    /// Becomes the configuration.
    pub(crate) config: OwnedFd,
    /// Becomes the entry to the programs' cgroup.
    pub(crate) program_tasks: OwnedFd,
}

impl Slots {
    /// Occupies both numbers; fails when the jail was started with more than its three standard descriptors.
    pub(crate) fn reserve() -> Result<Slots, JailError> {
        let null = |number: i32| {
            let fd = open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
                .act(|| "open /dev/null".to_owned())?;
            if fd.as_raw_fd() == number {
                return Ok(fd);
            }
            Err(JailError::Plan(format!("descriptor {number} is not free: only 0, 1 and 2 may be inherited")))
        };
        Ok(Slots { socket: null(3)?, config: null(4)?, program_tasks: null(5)? })
    }
}

/// Carries out the plan; returns when the inner process is on its own.
pub(crate) fn run(plan: &Plan) -> Result<(), JailError> {
    let slots = Slots::reserve()?;
    let writable = plan.writable.as_ref().map(fetch_layers).transpose()?;
    raise_core_limit();
    own_root::take(&plan.rights)?;
    sys::namespace::unshare_mounts().act(|| "make a mount namespace".to_owned())?;
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .act(|| "make the mounts private".to_owned())?;
    if let Some(layers) = writable {
        layers.attach()?;
    }
    let inherited = Inherited {
        slots,
        socket: agent_socket(&plan.socket)?,
        agent: open(&plan.agent, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
            .act(|| format!("open the agent {}", plan.agent.display()))?,
        cgroup_tasks: plan.cgroup_tasks.iter().map(|path| open_tasks(path)).collect::<Result<_, _>>()?,
        program_tasks: open_tasks(&plan.program_tasks)?,
        dev: device_tree(plan)?,
        nodes: host_nodes(plan)?,
    };
    if let Some(most) = plan.processes_max {
        limit_processes(most)?;
    }
    let (sender, receiver) = handoff::channel().act(|| "make a socket pair".to_owned())?;
    match fork_for(plan.ids).act(|| "make the kernel namespaces".to_owned())? {
        Fork::Child => {
            drop(sender);
            match inner::contain(plan, inherited, receiver)? {}
        }
        Fork::Parent(pid) => {
            report(&Report::Started { pid });
            drop(receiver);
            complete(plan, pid, sender)
        }
    }
}

/// Forks into the sandbox's kernel namespaces as the host's user who is root inside.
///
/// What the kernel counts for each user (inotify instances, timers, message queues) it charges to who made the user
/// namespace as well (`user_namespaces(7)`): made by root, all sandboxes would share what root may have, and one could
/// take it all.
fn fork_for(ids: IdBlock) -> std::io::Result<Fork> {
    let (owner, root) = (Uid::from_raw(ids.first), Uid::ROOT);
    set_thread_res_uid(owner, owner, root)?;
    let forked = fork_sibling_into(Namespaces::SANDBOX)?;
    if let Fork::Parent(_) = forked {
        set_thread_res_uid(root, root, root)?;
    }
    Ok(forked)
}

/// Maps the ids of the inner process and hands it its overlay mounts.
fn complete(plan: &Plan, pid: i32, sender: Sender) -> Result<(), JailError> {
    ProcessRecord::of(pid)
        .and_then(|record| record.write(&plan.process))
        .act(|| format!("write {}", plan.process.display()))?;
    write_id_maps(pid, plan)?;
    prefer(pid, plan.agent_nice)?;
    let user_namespace =
        open(format!("/proc/{pid}/ns/user"), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .act(|| "open the user namespace".to_owned())?;
    let mounts: Vec<OwnedFd> = plan
        .overlays
        .iter()
        .map(|overlay| mount_overlay(plan, overlay, user_namespace.as_fd()))
        .collect::<Result<_, _>>()?;
    let volumes = volume::mount_all(plan)?;
    let mounts: Vec<OwnedFd> = mounts.into_iter().chain(volumes).collect();
    sender.go(&mounts).act(|| "hand over the mounts".to_owned())
}

/// Makes room for the one limit that means "no core dump": with 0, a program that takes dumps (`core(5)`) is started all
/// the same. Inside, a limit can only go down; whether this worked is read from the sandbox.
fn raise_core_limit() {
    let limit = Rlimit { current: Some(NO_CORE_BYTES), maximum: Some(NO_CORE_BYTES) };
    let _ = setrlimit(Resource::Core, limit);
}

/// Bounds the processes of the sandbox. The kernel counts those of a user namespace for the user who made it, whoever
/// they are inside, and holds them to the limit that he had then (`user_namespaces(7)`, since Linux 5.14).
fn limit_processes(most: u64) -> Result<(), JailError> {
    let hard = rustix::process::getrlimit(Resource::Nproc).maximum.map_or(most, |hard| hard.min(most));
    setrlimit(Resource::Nproc, Rlimit { current: Some(hard), maximum: Some(hard) })
        .act(|| "limit the number of processes".to_owned())
}

/// Lets the agent run before whatever else is in its cgroup: it shares one processor limit with a fork bomb that it is
/// to kill. Programs that it starts go back to 0 (`sys::spawn`).
fn prefer(pid: i32, nice: i32) -> Result<(), JailError> {
    if nice == 0 {
        return Ok(());
    }
    let process = rustix::process::Pid::from_raw(pid);
    rustix::process::setpriority_process(process, nice).act(|| "prefer the agent".to_owned())
}

fn agent_socket(path: &Path) -> Result<OwnedFd, JailError> {
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
        .act(|| "make the agent's socket".to_owned())?;
    // The address of a unix socket has 107 bytes; a path beneath a descriptor of its directory always fits.
    let parent = path.parent().unwrap_or(Path::new("/"));
    let directory = open(parent, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .act(|| format!("open {}", parent.display()))?;
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let address = SocketAddrUnix::new(format!("/proc/self/fd/{}/{name}", directory.as_raw_fd()))
        .act(|| format!("name the socket {}", path.display()))?;
    bind(&socket, &address).act(|| format!("bind the socket {}", path.display()))?;
    Ok(socket)
}

fn open_tasks(path: &Path) -> Result<OwnedFd, JailError> {
    open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()).act(|| format!("open {}", path.display()))
}

fn write_id_maps(pid: i32, plan: &Plan) -> Result<(), JailError> {
    let mut map = format!("0 {} {}\n", plan.ids.first, plan.ids.count);
    if let Some(IdBlock { first, count }) = plan.more_ids {
        map.push_str(&format!("{} {first} {count}\n", plan.ids.count));
    }
    for file in ["uid_map", "gid_map"] {
        std::fs::File::options()
            .write(true)
            .open(format!("/proc/{pid}/{file}"))
            .and_then(|mut opened| std::io::Write::write_all(&mut opened, map.as_bytes()))
            .act(|| format!("write {file} of the sandbox ({})", map.trim()))?;
    }
    Ok(())
}

/// Returns one overlay mount that is attached nowhere; its layers are named by descriptor, so that the mount table
/// inside shows no path of the host.
fn mount_overlay(
    plan: &Plan,
    overlay: &Overlay,
    user_namespace: BorrowedFd<'_>,
) -> Result<OwnedFd, JailError> {
    let directory = |path: &Path| {
        open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
            .act(|| format!("open {}", path.display()))
    };
    let layer = |path: &std::path::PathBuf| match plan.owners {
        Owners::Mapped => idmapped_layer(path, &plan.scratch, user_namespace),
        Owners::Plain => directory(path),
    };
    let lowers: Vec<OwnedFd> = overlay.lowers.iter().map(layer).collect::<Result<_, _>>()?;
    let (upper, work) = (directory(&overlay.upper)?, directory(&overlay.work)?);
    let by_number = |fd: &OwnedFd| format!("/proc/self/fd/{}", fd.as_raw_fd());
    let lowerdir = lowers.iter().map(by_number).collect::<Vec<_>>().join(":");

    let at = || format!("mount the overlay {}", overlay.at);
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).act(at)?;
    fsconfig_set_string(&context, "source", "root").act(at)?;
    fsconfig_set_string(&context, "lowerdir", lowerdir).act(at)?;
    fsconfig_set_string(&context, "upperdir", by_number(&upper)).act(at)?;
    fsconfig_set_string(&context, "workdir", by_number(&work)).act(at)?;
    for option in &plan.overlay_options {
        match option.split_once('=') {
            Some((name, value)) => fsconfig_set_string(&context, name, value),
            None => fsconfig_set_flag(&context, option.as_str()),
        }
        .act(|| format!("mount the overlay {} with {option}", overlay.at))?;
    }
    fsconfig_create(&context).act(at)?;
    // No device nodes and no set-id programs from an image, whoever made it.
    let attributes = MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_NOSUID;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes).act(at)
}

/// Returns a read-only mount of a host directory on which the host's root is the sandbox's root.
///
/// It is attached on `scratch`, in this process's own mount namespace: kernels before 6.15 take only attached mounts as
/// layers of an overlay.
fn idmapped_layer(path: &Path, scratch: &Path, user_namespace: BorrowedFd<'_>) -> Result<OwnedFd, JailError> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let layer = open_tree(CWD, path, flags).act(|| format!("open the layer {}", path.display()))?;
    set_attributes(
        layer.as_fd(),
        MountAttributes {
            set: READ_ONLY | sys::mount::NO_DEV,
            idmap: Some(user_namespace),
            recursive: false,
        },
    )
    .act(|| {
        format!("map the ids of the layer {} (its file system must support idmapped mounts)", path.display())
    })?;
    move_mount(layer.as_fd(), "", CWD, scratch, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        .act(|| format!("attach the layer {}", path.display()))?;
    Ok(layer)
}

/// Returns `/dev` as a mount that is attached nowhere.
fn device_tree(plan: &Plan) -> Result<OwnedFd, JailError> {
    let at = || "make /dev".to_owned();
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).act(at)?;
    fsconfig_set_string(&context, "source", "dev").act(at)?;
    fsconfig_set_string(&context, "mode", "0755").act(at)?;
    fsconfig_set_string(&context, "size", "64k").act(at)?;
    fsconfig_set_string(&context, "nr_inodes", "64").act(at)?;
    fsconfig_set_string(&context, "uid", plan.ids.first.to_string()).act(at)?;
    fsconfig_set_string(&context, "gid", plan.ids.first.to_string()).act(at)?;
    fsconfig_create(&context).act(at)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let dev = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes).act(at)?;
    let own = |name: &str| {
        let (user, group) =
            (rustix::fs::Uid::from_raw(plan.ids.first), rustix::fs::Gid::from_raw(plan.ids.first));
        rustix::fs::chownat(&dev, name, Some(user), Some(group), rustix::fs::AtFlags::SYMLINK_NOFOLLOW)
    };
    for device in &plan.devices {
        let (number, kind) = match plan.device_source {
            DeviceSource::Nodes => (number(device), rustix::fs::FileType::CharacterDevice),
            DeviceSource::Mounts => (0, rustix::fs::FileType::RegularFile),
        };
        rustix::fs::mknodat(&dev, device.name.as_str(), kind, Mode::from_raw_mode(0o666), number)
            .and_then(|()| {
                // Not left to the umask.
                rustix::fs::chmodat(
                    &dev,
                    device.name.as_str(),
                    Mode::from_raw_mode(0o666),
                    rustix::fs::AtFlags::empty(),
                )
            })
            .and_then(|()| own(&device.name))
            .act(|| format!("make /dev/{}", device.name))?;
    }
    for (name, target) in &plan.device_links {
        rustix::fs::symlinkat(target.as_str(), &dev, name.as_str())
            .and_then(|()| own(name))
            .act(|| format!("link /dev/{name}"))?;
    }
    for directory in ["pts", "shm", "mqueue"] {
        rustix::fs::mkdirat(&dev, directory, Mode::from_raw_mode(0o755))
            .and_then(|()| own(directory))
            .act(|| format!("make /dev/{directory}"))?;
    }
    Ok(dev)
}

/// Returns mounts of the host's nodes, attached nowhere, where a sandbox cannot have nodes of its own. A node that is not
/// the one it should be is refused.
fn host_nodes(plan: &Plan) -> Result<Vec<OwnedFd>, JailError> {
    if plan.device_source == DeviceSource::Nodes {
        return Ok(Vec::new());
    }
    let node = |device: &Device| {
        let path = format!("/dev/{}", device.name);
        let opened = open(&path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
            .act(|| format!("open {path}"))?;
        let status = rustix::fs::fstat(&opened).act(|| format!("look at {path}"))?;
        let is_device = rustix::fs::FileType::from_raw_mode(status.st_mode).is_char_device();
        if !is_device || status.st_rdev != number(device) {
            return Err(JailError::Plan(format!("{path} of the host is not the device of that name")));
        }
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let mount = open_tree(&opened, "", flags | OpenTreeFlags::AT_EMPTY_PATH)
            .act(|| format!("copy the mount of {path}"))?;
        let set = READ_ONLY | sys::mount::NO_SUID | sys::mount::NO_EXEC;
        set_attributes(mount.as_fd(), MountAttributes { set, ..MountAttributes::default() })
            .act(|| format!("close the mount of {path}"))?;
        Ok(mount)
    };
    plan.devices.iter().map(node).collect()
}

fn number(device: &Device) -> u64 {
    rustix::fs::makedev(device.major, device.minor)
}
