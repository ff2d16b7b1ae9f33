// SPDX-License-Identifier: Apache-2.0
//! Taking more than one's share: each attempt has an end of its own, so that a limit that does not hold costs the host
//! little.

use protocol::limits::{OPEN_FILES_MAX, PIDS_MAX};

use crate::line::{Act, Control, Group, Kind, Line, Memory, Probe, Scene, Thing, Wanted};

/// Memory of the sandbox that the list is tried in, in MiB.
pub const MEMORY_MIB: u32 = 256;
/// How much memory is tried to take, in MiB.
const TAKEN_MIB: u32 = MEMORY_MIB + 64;
/// How many processes are tried to make.
const PROCESSES: u32 = PIDS_MAX + 88;

pub(super) fn lines() -> Vec<Line> {
    let mut lines = counted();
    for (kind, name) in
        [(Kind::Forks, "forks"), (Kind::Threads, "processes that start others"), (Kind::Daemons, "daemons")]
    {
        let id = format!("bomb-{}", name.split(' ').next().unwrap_or(name));
        lines.push(scene(&id, &format!("a bomb of {name}"), Scene::Bomb(kind)));
    }
    for (thing, name) in [
        (Thing::Files, "files"),
        (Thing::Watchers, "watchers"),
        (Thing::Timers, "timers"),
        (Thing::Queues, "queues"),
    ] {
        let tries = format!("holds all {name} that it can get");
        lines.push(scene(&format!("exhaust-{name}"), &tries, Scene::Exhaust(thing)));
    }
    lines.extend([
        scene("busy-loops", "endless loops against a neighbour", Scene::BusyLoops),
        scene("sync-storm", "syncs the disks again and again", Scene::SyncStorm),
        scene("page-cache", "writes more file cache than there is memory", Scene::PageCache),
        scene("stubborn", "processes that ignore signals after their time is up", Scene::Stubborn),
        scene("outlive", "daemons that outlive the time of a command", Scene::Outlive),
        scene("fill-disk", "fills the disk", Scene::FillDisk),
        scene("fill-inodes", "makes files until there are no more", Scene::FillInodes),
    ]);
    lines
}

/// Countable things: the wall gives at most so many, and outside there are more.
fn counted() -> Vec<Line> {
    let processes = i64::from(PIDS_MAX);
    let memory = i64::from(MEMORY_MIB);
    let files = i64::from(OPEN_FILES_MAX);
    let more_files = OPEN_FILES_MAX + 1000;
    vec![
        act(
            "forks",
            "forks until the kernel makes no more",
            Act::Multiply(Kind::Forks, PROCESSES),
            processes,
        ),
        act(
            "threads",
            "makes threads until there are no more",
            Act::Multiply(Kind::Threads, PROCESSES),
            processes,
        ),
        act(
            "daemons",
            "forks daemons until there are no more",
            Act::Multiply(Kind::Daemons, PROCESSES),
            processes,
        ),
        act("memory-own", "takes memory", Act::Take(Memory::Own, TAKEN_MIB), memory),
        act(
            "memory-shm",
            "takes memory by files in /dev/shm",
            Act::Take(Memory::SharedFiles, TAKEN_MIB),
            memory,
        ),
        act(
            "memory-memfd",
            "takes memory by files without a name",
            Act::Take(Memory::MemoryFiles, TAKEN_MIB),
            memory,
        ),
        act("memory-pipes", "takes memory by pipes", Act::Take(Memory::Pipes, TAKEN_MIB), memory),
        act("memory-sockets", "takes memory by sockets", Act::Take(Memory::Sockets, TAKEN_MIB), memory),
        act("descriptors", "opens descriptors", Act::Descriptors(more_files), files),
    ]
}

fn act(id: &str, tries: &str, act: Act, most: i64) -> Line {
    Line {
        id: id.to_owned(),
        group: Group::Resources,
        tries: tries.to_owned(),
        probe: Probe::Act(act),
        wall: Wanted::AtMost(most),
        control: Control::Same(Wanted::MoreThan(most)),
        needs: None,
    }
}

fn scene(id: &str, tries: &str, scene: Scene) -> Line {
    Line {
        id: id.to_owned(),
        group: Group::Resources,
        tries: tries.to_owned(),
        probe: Probe::Scene(scene),
        wall: super::scenes::held(),
        control: Control::Within,
        needs: None,
    }
}
