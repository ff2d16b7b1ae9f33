// SPDX-License-Identifier: Apache-2.0
//! Where in the tree of cgroups version 2 this server may put groups, and how that place gets its controllers.
//!
//! Version 2 has two rules that decide it. A group with processes of its own hands no controller to groups below it (the
//! root of the whole tree is the exception). And a tree has one owner: below a systemd the server keeps to what was
//! delegated to it, its own cgroup.
//!
//! | the server is | its sandboxes are below |
//! |---|---|
//! | in a cgroup that was delegated (`Delegate=yes`) | that cgroup; its processes move to a leaf [`LEAF`] of it |
//! | root in a container | the root of the container's cgroup namespace; its processes move alike |
//! | root otherwise | the root of the tree |
//! | another user, alone in a cgroup that it may write | that cgroup, as if delegated |
//!
//! Kernel document: `Documentation/admin-guide/cgroup-v2.rst`.

use std::io;
use std::path::{Component, Path, PathBuf};

use protocol::limits::CGROUP_MOVE_ROUNDS_MAX;
use rustix::fs::{Access, access, getxattr};

use super::cgroup_limit::{Gap, Limit};

/// The group that takes the processes of a delegated cgroup, the server's own among them.
pub(super) const LEAF: &str = "microsandbox-server";
/// The directory of all servers' groups.
const SHARED: &str = "microsandbox";
/// How a server gets a cgroup of its own from systemd.
const AS_SERVICE: &str = "systemd-run --property=Delegate=yes msb server start";
const AS_USER: &str = "systemd-run --user --scope --property=Delegate=yes msb server start";

/// A mount of the tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unified {
    /// Where it is mounted.
    pub(super) at: PathBuf,
    /// Which part of the tree is shown there; `/` is the root of our cgroup namespace.
    root: PathBuf,
}

/// The place for this server's groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// The group below which everything is made.
    base: PathBuf,
    /// Whether its processes are to be moved to a leaf of it.
    empties: bool,
}

/// A place with its controllers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Prepared {
    /// The directory of this server's sandboxes.
    pub(super) own: PathBuf,
    /// Why some limits cannot be had.
    pub(super) gaps: Vec<(Limit, Gap)>,
}

/// Finds the tree in the text of `/proc/self/mountinfo` (`proc_pid_mountinfo(5)`).
pub(super) fn unified_mount(mountinfo: &str) -> Option<Unified> {
    mountinfo.lines().find_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        let mut left = left.split(' ').skip(3);
        let (root, at) = (left.next()?, left.next()?);
        let is_v2 = right.split(' ').next()? == "cgroup2";
        is_v2.then(|| Unified { at: PathBuf::from(at), root: PathBuf::from(root) })
    })
}

/// Lists what controllers a group has; nothing where that cannot be read.
pub(super) fn controllers(group: &Path) -> Vec<String> {
    let text = fs_err::read_to_string(group.join("cgroup.controllers")).unwrap_or_default();
    text.split_whitespace().map(str::to_owned).collect()
}

/// Says whether this process has the rights of root.
pub(super) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Finds the place from the text of `/proc/self/cgroup`.
pub(super) fn find(unified: &Unified, own: &str, is_root: bool) -> Result<Place, Gap> {
    let own = own_group(unified, own);
    if let Some(own) = own.filter(|own| !is_tree_root(own)) {
        if is_delegated(&own) {
            return Ok(Place { base: own, empties: true });
        }
        if !is_root && is_writable(&own) {
            return alone_in(own);
        }
    }
    if is_root {
        let base = unified.at.clone();
        let empties = !is_tree_root(&base);
        return Ok(Place { base, empties });
    }
    Err(Gap::new("no cgroup was delegated to this user", AS_USER))
}

/// A user's own cgroup often has a whole terminal in it, which is not ours to move.
fn alone_in(own: PathBuf) -> Result<Place, Gap> {
    let others = members(&own)
        .map_err(|error| Gap::new(format!("the server's own cgroup cannot be read: {error}"), AS_USER))?
        .into_iter()
        .filter(|pid| *pid != std::process::id().to_string())
        .count();
    if others > 0 {
        let why = format!("the server shares its cgroup {} with other processes", own.display());
        return Err(Gap::new(why, AS_USER));
    }
    Ok(Place { base: own, empties: true })
}

/// The cgroup of this process; the one above if it is the leaf that a server made.
fn own_group(unified: &Unified, own: &str) -> Option<PathBuf> {
    let path = own.lines().find_map(|line| line.strip_prefix("0::"))?;
    let below = Path::new(path).strip_prefix(&unified.root).ok()?;
    if below.components().any(|part| part == Component::ParentDir) {
        return None;
    }
    let group = unified.at.join(below);
    Some(if group.ends_with(LEAF) { group.parent()?.to_owned() } else { group })
}

/// Only the root of the whole tree has no type; the root of a cgroup namespace has one.
fn is_tree_root(group: &Path) -> bool {
    !group.join("cgroup.type").exists()
}

/// systemd marks what it delegates, for root and for users.
fn is_delegated(group: &Path) -> bool {
    ["trusted.delegate", "user.delegate"].iter().any(|name| {
        let mut value = [0_u8; 8];
        getxattr(group, *name, &mut value[..]).is_ok_and(|length| value[..length] == *b"1")
    })
}

fn is_writable(group: &Path) -> bool {
    let files = ["", "cgroup.procs", "cgroup.subtree_control"];
    files.iter().all(|file| access(group.join(file), Access::WRITE_OK).is_ok())
}

fn members(group: &Path) -> io::Result<Vec<String>> {
    Ok(fs_err::read_to_string(group.join("cgroup.procs"))?.lines().map(str::to_owned).collect())
}

impl Place {
    /// Makes the directories of this server and hands the controllers down to them.
    pub(super) fn prepare(self, server_key: &str) -> Result<Prepared, Gap> {
        let shared = self.base.join(SHARED);
        let own = shared.join(server_key);
        fs_err::create_dir_all(&own)
            .map_err(|error| Gap::new(format!("no cgroup can be made: {error}"), AS_SERVICE))?;
        if self.empties {
            // What cannot be moved shows when the controllers are handed down.
            if let Err(error) = empty(&self.base) {
                tracing::warn!(%error, "cannot move all processes out of the server's cgroup");
            }
        }
        let mut gaps = Vec::new();
        for limit in Limit::ALL {
            let handed =
                [&self.base, &shared, &own].into_iter().try_for_each(|group| hand_down(group, limit));
            gaps.extend(handed.err().map(|gap| (limit, gap)));
        }
        Ok(Prepared { own, gaps })
    }
}

/// Moves every process of a group to the leaf below it. New ones may appear meanwhile: what is moved may just fork.
fn empty(base: &Path) -> io::Result<()> {
    let leaf = base.join(LEAF);
    for _ in 0..CGROUP_MOVE_ROUNDS_MAX {
        let members = members(base)?;
        if members.is_empty() {
            return Ok(());
        }
        fs_err::create_dir_all(&leaf)?;
        for pid in members {
            match fs_err::write(leaf.join("cgroup.procs"), &pid) {
                Err(error) if error.raw_os_error() != Some(rustix::io::Errno::SRCH.raw_os_error()) => {
                    return Err(error);
                }
                _ => {}
            }
        }
    }
    Err(io::Error::other(format!("{} does not get empty", base.display())))
}

/// Gives the groups below `group` the controller of a limit.
fn hand_down(group: &Path, limit: Limit) -> Result<(), Gap> {
    let controller = limit.controller();
    if !controllers(group).iter().any(|offered| offered == controller) {
        return Err(not_offered(group, controller));
    }
    fs_err::write(group.join("cgroup.subtree_control"), format!("+{controller}")).map_err(|error| {
        let name = group.display();
        if error.kind() == io::ErrorKind::ResourceBusy {
            let why = format!("processes in {name} keep it from handing the controller {controller} down");
            return Gap::new(why, AS_SERVICE);
        }
        Gap::new(format!("{name} does not hand the controller {controller} down: {error}"), AS_SERVICE)
    })
}

fn not_offered(group: &Path, controller: &str) -> Gap {
    if is_tree_root(group) {
        let why = format!(
            "the kernel offers no controller {controller} to cgroup version 2: it is switched off, or mounted as version 1"
        );
        let mend = match controller {
            "memory" => "boot with cgroup_enable=memory systemd.unified_cgroup_hierarchy=1",
            _ => "boot with systemd.unified_cgroup_hierarchy=1",
        };
        return Gap::new(why, mend);
    }
    Gap::new(
        format!("the controller {controller} was not handed down to {}", group.display()),
        "in systemctl edit user@.service: [Service], Delegate=cpu io memory pids; then log in anew",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
23 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw
32 23 0:28 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory
33 23 0:29 / TREE rw,relatime - cgroup2 cgroup2 rw,nsdelegate
";

    /// A tree on a plain directory: groups with their types and controllers, the root without a type.
    fn tree(name: &str, groups: &[&str]) -> Unified {
        let root = std::env::temp_dir().join(format!("cgroup-place-{name}-{}", std::process::id()));
        let _ = crate::volume::remove_tree(&root);
        add(&root);
        for group in groups {
            add(&root.join(group));
            fs_err::write(root.join(group).join("cgroup.type"), "domain\n").unwrap();
        }
        unified_mount(&MOUNTS.replace("TREE", root.to_str().unwrap())).unwrap()
    }

    fn add(group: &Path) {
        fs_err::create_dir_all(group).unwrap();
        fs_err::write(group.join("cgroup.controllers"), "cpu io memory pids\n").unwrap();
        fs_err::write(group.join("cgroup.procs"), "").unwrap();
        fs_err::write(group.join("cgroup.subtree_control"), "").unwrap();
    }

    fn delegate(group: &Path) {
        let flags = rustix::fs::XattrFlags::empty();
        rustix::fs::setxattr(group, "user.delegate", b"1", flags).unwrap();
    }

    fn end(tree: &Unified) {
        crate::volume::remove_tree(&tree.at).unwrap();
    }

    #[test]
    fn the_tree_is_found_by_its_kind_and_its_controllers_are_listed() {
        let tree = tree("found", &[]);
        assert_eq!(tree.root, Path::new("/"));
        assert_eq!(controllers(&tree.at), ["cpu", "io", "memory", "pids"]);
        assert_eq!(controllers(Path::new("/nonexistent")), [""; 0]);
        assert_eq!(unified_mount(MOUNTS.lines().next().unwrap()), None);
        end(&tree);
    }

    #[test]
    fn root_goes_to_the_root_of_the_tree_and_moves_nobody() {
        let tree = tree("root", &["user.slice/session-1.scope"]);
        let place = find(&tree, "1:memory:/x\n0::/user.slice/session-1.scope\n", true).unwrap();
        assert_eq!(place, Place { base: tree.at.clone(), empties: false });
        end(&tree);
    }

    #[test]
    fn a_delegated_cgroup_is_taken_and_emptied_and_found_again_from_its_leaf() {
        let tree = tree("delegated", &["system.slice/msb.service"]);
        let service = tree.at.join("system.slice/msb.service");
        delegate(&service);
        for own in ["0::/system.slice/msb.service\n", "0::/system.slice/msb.service/microsandbox-server\n"] {
            let place = find(&tree, own, true).unwrap();
            assert_eq!(place, Place { base: service.clone(), empties: true });
        }
        end(&tree);
    }

    #[test]
    fn the_root_of_a_container_is_emptied_before_it_hands_anything_down() {
        let tree = tree("container", &[]);
        fs_err::write(tree.at.join("cgroup.type"), "domain\n").unwrap();
        let place = find(&tree, "0::/\n", true).unwrap();
        assert_eq!(place, Place { base: tree.at.clone(), empties: true });
        end(&tree);
    }

    #[test]
    fn a_user_keeps_to_a_cgroup_that_nobody_else_is_in() {
        let tree = tree("user", &["app.scope"]);
        let group = tree.at.join("app.scope");
        let find = || find(&tree, "0::/app.scope\n", false);
        fs_err::write(group.join("cgroup.procs"), format!("{}\n", std::process::id())).unwrap();
        assert_eq!(find().unwrap(), Place { base: group.clone(), empties: true });
        fs_err::write(group.join("cgroup.procs"), format!("1\n{}\n", std::process::id())).unwrap();
        let gap = find().unwrap_err();
        assert!(gap.why.contains("shares its cgroup"), "{gap:?}");
        assert!(gap.mend.unwrap().contains("--user --scope"));
        assert!(super::find(&tree, "0::/\n", false).unwrap_err().why.contains("no cgroup was delegated"));
        end(&tree);
    }

    #[test]
    fn every_level_hands_the_controllers_down_and_a_missing_one_is_named() {
        let tree = tree("levels", &["microsandbox", "microsandbox/key"]);
        let own = tree.at.join("microsandbox/key");
        fs_err::write(own.join("cgroup.controllers"), "memory cpu\n").unwrap();
        let prepared = Place { base: tree.at.clone(), empties: false }.prepare("key").unwrap();
        assert_eq!(prepared.own, own);
        let limits: Vec<Limit> = prepared.gaps.iter().map(|(limit, _)| *limit).collect();
        assert_eq!(limits, [Limit::Pids, Limit::Io]);
        assert!(prepared.gaps[0].1.why.contains("the controller pids was not handed down to"));
        for group in ["", "microsandbox", "microsandbox/key"] {
            let text = fs_err::read_to_string(tree.at.join(group).join("cgroup.subtree_control")).unwrap();
            assert!(text.starts_with('+'), "{group}: {text}");
        }
        end(&tree);
    }

    #[test]
    fn a_group_that_does_not_get_empty_is_given_up_on() {
        let tree = tree("busy", &["microsandbox-server"]);
        fs_err::write(tree.at.join("cgroup.procs"), "12345\n").unwrap();
        assert!(empty(&tree.at).unwrap_err().to_string().contains("does not get empty"));
        assert_eq!(fs_err::read_to_string(tree.at.join(LEAF).join("cgroup.procs")).unwrap(), "12345");
        end(&tree);
    }
}
