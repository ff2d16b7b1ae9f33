// SPDX-License-Identifier: Apache-2.0
//! Processes of sandboxes: each belongs to a sandbox's first process, and has its kernel namespaces and no other.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const NAMESPACES: [&str; 7] = ["user", "pid", "mnt", "net", "ipc", "uts", "cgroup"];

/// One process, as the host sees it.
struct Process {
    pid: u32,
    parent: u32,
    uid: u32,
    namespaces: [PathBuf; NAMESPACES.len()],
    name: String,
}

/// The first process of a sandbox, and its ranges of ids.
type First<'a> = (&'a Process, Vec<(u32, u32)>);

/// Lists processes that are not where they belong, for the sandboxes of the server with this pid.
pub(super) fn strays(server: u32) -> Vec<String> {
    let all = all();
    let Some(server) = all.iter().find(|process| process.pid == server) else {
        return vec!["the server is gone".to_owned()];
    };
    let own = &server.namespaces;
    // By user namespace.
    let firsts: BTreeMap<&Path, First<'_>> = all
        .iter()
        .filter(|process| process.parent == server.pid && process.namespaces[0] != own[0])
        .map(|process| (process.namespaces[0].as_path(), (process, ranges(process.pid))))
        .collect();
    let parents: BTreeMap<u32, u32> = all.iter().map(|process| (process.pid, process.parent)).collect();
    let mut found = Vec::new();
    for process in &all {
        let by_namespace = firsts.get(process.namespaces[0].as_path());
        // Sandboxes of another server that was killed may have had the same ids: they are in namespaces of their own,
        // and not below ours.
        let by_id = firsts.values().find(|(first, ranges)| {
            let escaped = process.namespaces[0] == own[0] || process.namespaces[1] == own[1];
            // An ordinary user's sandboxes have his own id, too.
            process.uid != server.uid
                && ranges.iter().any(|(start, count)| (*start..start + count).contains(&process.uid))
                && (escaped || is_below(&parents, process.pid, first.pid))
        });
        let Some((first, _)) = by_namespace.or(by_id) else { continue };
        let stray = NAMESPACES.iter().zip(process.namespaces.iter().zip(&first.namespaces));
        let stray: Vec<&str> =
            stray.filter(|(_, (its, first))| its != first).map(|(name, _)| *name).collect();
        if !stray.is_empty() {
            found.push(format!(
                "process {} ({}) of a sandbox has another {} namespace",
                process.pid,
                process.name,
                stray.join(" and ")
            ));
        }
    }
    found
}

fn is_below(parents: &BTreeMap<u32, u32>, pid: u32, of: u32) -> bool {
    std::iter::successors(Some(pid), |pid| parents.get(pid).copied()).take(parents.len()).any(|pid| pid == of)
}

fn all() -> Vec<Process> {
    let Ok(entries) = fs_err::read_dir("/proc") else { return vec![] };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_string_lossy().parse().ok());
    pids.filter_map(look).collect()
}

/// Looks at a process; `None` when it is gone, or ending: then it has no namespaces any more.
fn look(pid: u32) -> Option<Process> {
    let folder = PathBuf::from(format!("/proc/{pid}"));
    let mut namespaces: [PathBuf; NAMESPACES.len()] = Default::default();
    for (slot, name) in namespaces.iter_mut().zip(NAMESPACES) {
        *slot = fs_err::read_link(folder.join("ns").join(name)).ok()?;
    }
    let status = fs_err::read_to_string(folder.join("status")).ok()?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next().map(str::to_owned)
    };
    Some(Process {
        pid,
        parent: field("PPid:")?.parse().ok()?,
        uid: field("Uid:")?.parse().ok()?,
        namespaces,
        name: field("Name:")?,
    })
}

/// The ids of the host that a process's user namespace has: of each range the first one, and how many.
fn ranges(pid: u32) -> Vec<(u32, u32)> {
    let map = fs_err::read_to_string(format!("/proc/{pid}/uid_map")).unwrap_or_default();
    let range = |line: &str| {
        let mut words = line.split_whitespace().skip(1);
        Some((words.next()?.parse().ok()?, words.next()?.parse().ok()?))
    };
    map.lines().filter_map(range).collect()
}
