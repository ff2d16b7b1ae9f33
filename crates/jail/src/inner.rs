// SPDX-License-Identifier: Apache-2.0
//! The part that happens inside: read it aloud from [`contain`].

use std::convert::Infallible;
use std::ffi::CStr;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};

use jail::plan::Plan;
use jail::report::Report;
use nix::fcntl::AtFlags;
use nix::unistd::execveat;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, mkdirat, open, openat2};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount, open_tree, unmount,
};
use rustix::process::{Resource, Rlimit, pivot_root, setrlimit};
use rustix::thread::{
    CapabilitySet, CapabilitySets, remove_capability_from_bounding_set, set_capabilities, set_no_new_privs,
    set_thread_groups, set_thread_res_gid, set_thread_res_uid,
};
use sys::mount::{MountAttributes, NO_DEV, NO_EXEC, NO_SUID, READ_ONLY, set_attributes};
use sys::seccomp::Instruction;

use crate::confine::{Open, confine};
use crate::error::{Act, JailError};
use crate::handoff::Receiver;
use crate::outer::Inherited;
use crate::probe::NO_CORE_BYTES;

/// Connections that may wait until the agent takes them.
const LISTEN_BACKLOG: i32 = 128;
/// A directory that every host has; the new root is attached there for the moment before it becomes `/`.
const FIRST_MOUNT_POINT: &str = "/tmp";

/// Builds the inside and becomes the agent; comes back only with the step that failed.
pub(crate) fn contain(
    plan: &Plan,
    inherited: Inherited,
    receiver: Receiver,
) -> Result<Infallible, JailError> {
    let mounts =
        receiver.wait_for_mounts().act(|| "receive the mounts".to_owned())?.ok_or(JailError::Abandoned)?;
    enter_cgroups(&inherited.cgroup_tasks)?;
    become_root_inside(plan.rights.set_groups())?;
    rustix::system::sethostname(plan.hostname.as_bytes()).act(|| "set the host name".to_owned())?;
    sys::network::bring_loopback_up().act(|| "bring the loopback interface up".to_owned())?;
    build_root(plan, mounts, &inherited)?;
    rustix::net::listen(&inherited.socket, LISTEN_BACKLOG).act(|| "listen for the server".to_owned())?;
    set_limits(plan)?;
    drop_capabilities(&plan.capabilities)?;
    let config = config_pipe(&plan.agent_config)?;
    set_no_new_privs(true).act(|| "set no_new_privs".to_owned())?;
    become_agent(plan, inherited, config)
}

/// Writes itself into each cgroup. The first process of a sandbox does this while it has one thread and no child: with
/// cgroup v1, any other way waits for a grace period of the whole machine.
fn enter_cgroups(tasks: &[OwnedFd]) -> Result<(), JailError> {
    for file in tasks {
        rustix::io::write(file, b"0").act(|| "enter the cgroup".to_owned())?;
    }
    sys::namespace::unshare_cgroup().act(|| "make a cgroup namespace".to_owned())
}

fn become_root_inside(set_groups: bool) -> Result<(), JailError> {
    let (user, group) = (rustix::process::Uid::ROOT, rustix::process::Gid::ROOT);
    if set_groups {
        set_thread_groups(&[]).act(|| "drop the groups".to_owned())?;
    }
    set_thread_res_gid(group, group, group).act(|| "become group 0 inside".to_owned())?;
    set_thread_res_uid(user, user, user).act(|| "become user 0 inside".to_owned())
}

/// Arranges the mounts and makes them `/`. Every target is opened beneath the new root without following a link, so
/// that an image which ships `/proc` or `/dev` as a link is refused instead of followed.
fn build_root(plan: &Plan, mounts: Vec<OwnedFd>, inherited: &Inherited) -> Result<(), JailError> {
    let dev = &inherited.dev;
    let mut mounts = mounts.into_iter();
    let mut overlays = plan.overlays.iter().zip(mounts.by_ref());
    let (_, root) =
        overlays.next().ok_or_else(|| JailError::Plan("no mount for / was handed over".to_owned()))?;
    move_mount(root.as_fd(), "", CWD, FIRST_MOUNT_POINT, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        .act(|| "attach the new root".to_owned())?;
    rustix::process::fchdir(&root).act(|| "go to the new root".to_owned())?;
    for (overlay, mount) in overlays {
        attach(&root, &mount, &overlay.at)?;
    }
    // What is left are the volumes.
    for (volume, mount) in plan.volumes.iter().zip(mounts) {
        let target = make_directories(&root, &volume.at)?;
        attach_on(&mount, &target).act(|| format!("attach the volume {}", volume.at))?;
    }
    attach(&root, &proc_mount()?, "/proc")?;
    attach(&root, &sys_mount()?, "/sys")?;
    attach(&root, dev, "/dev")?;
    attach(&root, &devpts_mount(plan.terminal_group)?, "/dev/pts")?;
    attach(&root, &queues_mount()?, "/dev/mqueue")?;
    attach(&root, &tmpfs_mount(&plan.shm_bytes.to_string(), "1777")?, "/dev/shm")?;
    make_read_only(&root, plan)?;
    hide(&root, plan)?;
    // After that: what files are hidden behind is a file of the sandbox's own, and no device of the host.
    for (device, node) in plan.devices.iter().zip(&inherited.nodes) {
        attach_device(&root, node, &device.name)?;
    }
    seal_dev(dev)?;
    pivot_root(".", ".").act(|| "pivot into the new root".to_owned())?;
    unmount(".", UnmountFlags::DETACH).act(|| "leave the old root".to_owned())?;
    rustix::process::chdir("/").act(|| "go to /".to_owned())
}

/// Nothing can be added to `/dev` any more; its nodes still work.
fn seal_dev(dev: &OwnedFd) -> Result<(), JailError> {
    set_attributes(dev.as_fd(), MountAttributes { set: READ_ONLY, ..MountAttributes::default() })
        .act(|| "make /dev read-only".to_owned())
}

fn open_beneath(root: &OwnedFd, path: &str) -> rustix::io::Result<OwnedFd> {
    let relative = path.trim_start_matches('/');
    openat2(
        root,
        relative,
        OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS,
    )
}

fn attach(root: &OwnedFd, mount: &OwnedFd, path: &str) -> Result<(), JailError> {
    match mkdirat(root, path.trim_start_matches('/'), Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(rustix::io::Errno::EXIST | rustix::io::Errno::ROFS) => {}
        Err(cause) => return Err(cause).act(|| format!("make the directory {path}")),
    }
    let target = open_beneath(root, path).act(|| format!("open {path} (it must be a directory)"))?;
    attach_on(mount, &target).act(|| format!("attach {path}"))
}

/// Makes a directory with all above it, step by step; a link on the way is refused instead of followed.
fn make_directories(root: &OwnedFd, path: &str) -> Result<OwnedFd, JailError> {
    let at = || format!("make the directory {path} (no part of it may be a link or a file)");
    let mut directory = open_beneath(root, ".").act(at)?;
    for name in path.split('/').filter(|name| !name.is_empty()) {
        match mkdirat(&directory, name, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(rustix::io::Errno::EXIST | rustix::io::Errno::ROFS) => {}
            Err(cause) => return Err(cause).act(at),
        }
        directory = open_directory_beneath(&directory, name).act(at)?;
    }
    Ok(directory)
}

fn open_directory_beneath(directory: &OwnedFd, name: &str) -> rustix::io::Result<OwnedFd> {
    openat2(
        directory,
        name,
        OFlags::PATH | OFlags::NOFOLLOW | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS,
    )
}

fn attach_device(root: &OwnedFd, node: &OwnedFd, name: &str) -> Result<(), JailError> {
    let at = || format!("attach /dev/{name}");
    let place = open_beneath(root, &format!("/dev/{name}")).act(at)?;
    attach_on(node, &place).act(at)
}

fn attach_on(mount: &OwnedFd, target: &OwnedFd) -> rustix::io::Result<()> {
    let by_descriptor = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(mount.as_fd(), "", target.as_fd(), "", by_descriptor)
}

fn proc_mount() -> Result<OwnedFd, JailError> {
    let at = || "mount /proc".to_owned();
    let context = fsopen("proc", FsOpenFlags::FSOPEN_CLOEXEC).act(at)?;
    fsconfig_set_string(&context, "source", "proc").act(at)?;
    fsconfig_create(&context).act(at)?;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, no_tricks()).act(at)
}

fn sys_mount() -> Result<OwnedFd, JailError> {
    let at = || "mount /sys".to_owned();
    let context = fsopen("sysfs", FsOpenFlags::FSOPEN_CLOEXEC).act(at)?;
    fsconfig_set_string(&context, "source", "sysfs").act(at)?;
    fsconfig_create(&context).act(at)?;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, no_tricks() | MountAttrFlags::MOUNT_ATTR_RDONLY).act(at)
}

fn devpts_mount(group: Option<u32>) -> Result<OwnedFd, JailError> {
    let at = || "mount /dev/pts".to_owned();
    let context = fsopen("devpts", FsOpenFlags::FSOPEN_CLOEXEC).act(at)?;
    fsconfig_set_string(&context, "source", "devpts").act(at)?;
    fsconfig_set_flag(&context, "newinstance").act(at)?;
    fsconfig_set_string(&context, "ptmxmode", "0666").act(at)?;
    fsconfig_set_string(&context, "mode", "0620").act(at)?;
    if let Some(group) = group {
        fsconfig_set_string(&context, "gid", group.to_string()).act(at)?;
    }
    fsconfig_create(&context).act(at)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes).act(at)
}

/// Returns the message queues of the sandbox's own IPC namespace (`mq_overview(7)`).
fn queues_mount() -> Result<OwnedFd, JailError> {
    let at = || "mount /dev/mqueue".to_owned();
    let context = fsopen("mqueue", FsOpenFlags::FSOPEN_CLOEXEC).act(at)?;
    fsconfig_set_string(&context, "source", "mqueue").act(at)?;
    fsconfig_create(&context).act(at)?;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, no_tricks()).act(at)
}

fn tmpfs_mount(size: &str, mode: &str) -> Result<OwnedFd, JailError> {
    let at = || format!("make a tmpfs of {size} bytes");
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).act(at)?;
    fsconfig_set_string(&context, "source", "tmpfs").act(at)?;
    fsconfig_set_string(&context, "size", size).act(at)?;
    fsconfig_set_string(&context, "mode", mode).act(at)?;
    fsconfig_create(&context).act(at)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes).act(at)
}

fn no_tricks() -> MountAttrFlags {
    MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_NOEXEC
}

/// Copies a path over itself, read-only. A path that this kernel does not have needs no wall.
fn make_read_only(root: &OwnedFd, plan: &Plan) -> Result<(), JailError> {
    for path in &plan.read_only {
        let at = || format!("make {path} read-only");
        let Some(target) = existing(root, path)? else { continue };
        let copy = clone_mount(&target).act(at)?;
        let attributes =
            MountAttributes { set: READ_ONLY | NO_SUID | NO_DEV | NO_EXEC, idmap: None, recursive: true };
        set_attributes(copy.as_fd(), attributes).act(at)?;
        attach_on(&copy, &target).act(at)?;
    }
    Ok(())
}

/// Puts an empty read-only directory over directories and `/dev/null`, or the empty place for it, over files.
fn hide(root: &OwnedFd, plan: &Plan) -> Result<(), JailError> {
    let null = open_beneath(root, "/dev/null").act(|| "open /dev/null".to_owned())?;
    let empty = tmpfs_mount("4096", "0555")?;
    set_attributes(empty.as_fd(), MountAttributes { set: READ_ONLY | NO_EXEC, ..MountAttributes::default() })
        .act(|| "make the empty directory read-only".to_owned())?;
    // Kernels before 6.15 copy only mounts that are attached somewhere: the first directory gets the original.
    let mut is_attached = false;
    for path in &plan.masked {
        let at = || format!("hide {path}");
        let Some(target) = existing(root, path)? else { continue };
        let status = rustix::fs::fstat(&target).act(at)?;
        let is_directory = rustix::fs::FileType::from_raw_mode(status.st_mode).is_dir();
        if is_directory && !is_attached {
            attach_on(&empty, &target).act(at)?;
            is_attached = true;
            continue;
        }
        let cover = clone_mount(if is_directory { &empty } else { &null }).act(at)?;
        // Writing to a device is no change of it.
        set_attributes(cover.as_fd(), MountAttributes { set: READ_ONLY, ..MountAttributes::default() })
            .act(at)?;
        attach_on(&cover, &target).act(at)?;
    }
    Ok(())
}

fn existing(root: &OwnedFd, path: &str) -> Result<Option<OwnedFd>, JailError> {
    match open_beneath(root, path) {
        Ok(target) => Ok(Some(target)),
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => Ok(None),
        Err(cause) => Err(cause).act(|| format!("open {path}")),
    }
}

fn clone_mount(of: &OwnedFd) -> rustix::io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH
        | OpenTreeFlags::AT_RECURSIVE;
    open_tree(of.as_fd(), "", flags)
}

fn set_limits(plan: &Plan) -> Result<(), JailError> {
    let lower = |resource, wanted: u64| {
        // Without CAP_SYS_RESOURCE a limit can only go down.
        let current = rustix::process::getrlimit(resource);
        let hard = current.maximum.map_or(wanted, |maximum| maximum.min(wanted));
        let soft = current.current.map_or(hard, |soft| soft.min(hard));
        setrlimit(resource, Rlimit { current: Some(soft), maximum: Some(hard) })
    };
    lower(Resource::Nofile, plan.open_files_max).act(|| "limit open files".to_owned())?;
    lower(Resource::Core, NO_CORE_BYTES).act(|| "switch core dumps off".to_owned())?;
    lower(Resource::Memlock, 64 * 1024).act(|| "limit locked memory".to_owned())
}

/// Leaves the listed capabilities, in every set that an exec by root inside draws from, and no other.
fn drop_capabilities(kept: &[u32]) -> Result<(), JailError> {
    let kept = kept.iter().fold(CapabilitySet::empty(), |set, number| {
        set | 1_u64.checked_shl(*number).map_or(CapabilitySet::empty(), CapabilitySet::from_bits_retain)
    });
    for number in 0..u64::BITS {
        let one = CapabilitySet::from_bits_retain(1 << number);
        if kept.contains(one) {
            continue;
        }
        match remove_capability_from_bounding_set(one) {
            Ok(()) => {}
            // Numbers above the last capability of this kernel.
            Err(rustix::io::Errno::INVAL) if number > 0 => break,
            Err(cause) => return Err(cause).act(|| format!("drop capability {number}")),
        }
    }
    let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
    set_capabilities(None, sets).act(|| "drop capabilities".to_owned())
}

/// Returns a memory file with the agent's configuration, at its beginning.
fn config_pipe(config: &str) -> Result<OwnedFd, JailError> {
    let at = || "write the agent's configuration".to_owned();
    let file = rustix::fs::memfd_create("config", rustix::fs::MemfdFlags::CLOEXEC).act(at)?;
    let mut file = std::fs::File::from(file);
    file.write_all(config.as_bytes()).act(at)?;
    rustix::fs::seek(&file, rustix::fs::SeekFrom::Start(0)).act(at)?;
    Ok(OwnedFd::from(file))
}

/// Leaves nothing open but what is below the new root, and the agent's program, which is outside.
fn shut_outside(agent: &OwnedFd) -> Result<(), JailError> {
    let held = |path: &str| {
        open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .act(|| format!("open {path}"))
    };
    let (root, dev, queues) = (held("/")?, held("/dev")?, held("/dev/mqueue")?);
    confine(&Open { root: &root, dev: Some(&dev), queues: Some(&queues), program: Some(agent) })
        .map_err(std::io::Error::other)
        .act(|| "shut what is outside with landlock".to_owned())
}

/// Puts the agent's two descriptors where it looks for them, lets no other through, and executes it.
fn become_agent(plan: &Plan, inherited: Inherited, config: OwnedFd) -> Result<Infallible, JailError> {
    let null = open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .act(|| "open /dev/null".to_owned())?;
    let Inherited { mut slots, socket, agent, program_tasks, .. } = inherited;
    let report_end =
        rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdout(), 6).act(|| "keep the report".to_owned())?;
    let filter: Vec<Instruction> = plan
        .seccomp
        .iter()
        .map(|&(code, jump_true, jump_false, operand)| Instruction { code, jump_true, jump_false, operand })
        .collect();

    nix::unistd::dup2(&socket, &mut slots.socket).act(|| "place the socket".to_owned())?;
    nix::unistd::dup2(&program_tasks, &mut slots.program_tasks)
        .act(|| "place the programs' cgroup".to_owned())?;
    nix::unistd::dup2(&config, &mut slots.config).act(|| "place the configuration".to_owned())?;
    rustix::stdio::dup2_stdin(&null).act(|| "close standard input".to_owned())?;
    rustix::stdio::dup2_stdout(&null).act(|| "close standard output".to_owned())?;
    let failed = |error: JailError| {
        let line = serde_json::to_vec(&Report::Failed { step: error.to_string() }).unwrap_or_default();
        let _ = rustix::io::write(&report_end, &line);
        error
    };
    sys::descriptors::cloexec_from(6).act(|| "close all other descriptors".to_owned()).map_err(failed)?;
    if plan.landlock {
        shut_outside(&agent).map_err(failed)?;
    }
    sys::seccomp::install(&filter).act(|| "install the seccomp filter".to_owned()).map_err(failed)?;
    let name = c"msb-agent";
    let environment: [&CStr; 0] = [];
    execveat(&agent, c"", &[name], &environment, AtFlags::AT_EMPTY_PATH)
        .act(|| format!("execute the agent {}", plan.agent.display()))
        .map_err(failed)
}
