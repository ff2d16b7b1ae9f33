// SPDX-License-Identifier: Apache-2.0
//! Lines that take more than one command: whoever runs the list plays them.

use nix::libc;

use crate::answer::Answer;
use crate::line::{Control, Group, Line, Probe, Scene, Trace, Wanted};

/// What a scene says when the wall held.
pub const HELD: &str = "held";

/// The answer of a scene in which the wall held.
pub(super) fn held() -> Wanted {
    Wanted::Is(Answer::Said(HELD.to_owned()))
}

pub(super) fn lines() -> Vec<Line> {
    let mut lines = images();
    lines.extend(files());
    for trace in Trace::ALL {
        let (name, what, errno) = described(trace);
        lines.push(gone(
            &format!("neighbour-{name}"),
            &format!("finds {what} of a neighbour"),
            errno,
            trace,
            true,
        ));
    }
    for trace in Trace::ALL {
        let (name, what, errno) = described(trace);
        let tries = format!("finds {what} of the sandbox of its name before");
        lines.push(gone(&format!("predecessor-{name}"), &tries, errno, trace, false));
    }
    lines
}

fn images() -> Vec<Line> {
    let mut lines = Vec::new();
    for (path, to) in [
        ("proc", "etc"),
        ("proc", "/proc/1/root"),
        ("sys", "etc"),
        ("dev", "etc"),
        ("etc", "/proc/1/root/etc"),
        ("etc", "tmp"),
        ("dev/null", "/etc/passwd"),
        ("tmp", "/proc/1/root/tmp"),
        ("root", "/proc/1/root/root"),
    ] {
        let way = if to.starts_with('/') { "host" } else { "image" };
        let id = format!("image-{}-{way}", path.replace('/', "-"));
        let tries = format!("an image in which /{path} is a link to {to}");
        lines.push(scene(&id, Group::Images, &tries, Scene::LinkedImage(path, to)));
    }
    for (id, path) in [
        ("fd-3", "/proc/self/fd/3"),
        ("fd-4", "/proc/self/fd/4"),
        ("fd-7", "/proc/self/fd/7"),
        ("dev-fd", "/dev/fd/5"),
        ("agent-root", "/proc/1/root"),
        ("agent-cwd", "/proc/self/cwd"),
        ("up", "/../../../.."),
        ("fifo", "/msb-attack-fifo"),
        ("device", "/dev/null"),
    ] {
        let tries = format!("a working directory of {path}");
        lines.push(scene(&format!("workdir-{id}"), Group::Images, &tries, Scene::Workdir(path)));
    }
    lines.push(scene("own-program", Group::Images, "a command of /proc/self/exe", Scene::OwnProgram));
    lines
}

fn files() -> Vec<Line> {
    let line = |id: &str, tries: &str, what: Scene| scene(id, Group::Files, tries, what);
    vec![
        line("swap", "swaps directories for links while the server measures and removes", Scene::Swap),
        line(
            "odd-files",
            "FIFOs, sockets and links that lead everywhere, measured and removed",
            Scene::OddFiles,
        ),
        line("deep-tree", "a tree deeper than any path is long, removed", Scene::DeepTree),
        line("huge-directory", "a directory of 20000 files, removed", Scene::HugeDirectory),
    ]
}

fn described(trace: Trace) -> (&'static str, &'static str, i32) {
    match trace {
        Trace::File => ("file", "a file", libc::ENOENT),
        Trace::SharedFile => ("shared-file", "a file of /dev/shm", libc::ENOENT),
        Trace::Segment => ("segment", "a shared memory segment", libc::ENOENT),
        Trace::Semaphores => ("semaphores", "semaphores", libc::ENOENT),
        Trace::Messages => ("messages", "a message queue", libc::ENOENT),
        Trace::Queue => ("queue", "a POSIX message queue", libc::ENOENT),
        Trace::Abstract => ("abstract", "an abstract socket", libc::ECONNREFUSED),
        Trace::Port => ("port", "a port", libc::ECONNREFUSED),
        Trace::Process => ("process", "a process", libc::ESRCH),
    }
}

/// The wall answers that there is no such thing. The same sandbox that has it is the control.
fn gone(id: &str, tries: &str, errno: i32, trace: Trace, runs: bool) -> Line {
    let what = if runs { Scene::OfNeighbour(trace) } else { Scene::OfPredecessor(trace) };
    let mut wall = Wanted::Is(Answer::Error(errno));
    if trace == Trace::Queue {
        // Where message queues are closed to sandboxes, there is none to be found either.
        wall = Wanted::OneOf([errno, libc::EACCES].map(Answer::Error).to_vec());
    }
    Line { wall, control: Control::Same(Wanted::Done), ..scene(id, Group::Neighbours, tries, what) }
}

fn scene(id: &str, group: Group, tries: &str, scene: Scene) -> Line {
    Line {
        id: id.to_owned(),
        group,
        tries: tries.to_owned(),
        probe: Probe::Scene(scene),
        wall: held(),
        control: Control::Within,
        needs: None,
    }
}
