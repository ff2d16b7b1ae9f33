// SPDX-License-Identifier: Apache-2.0
//! What a line of the attack list is.

use serde::Serialize;
use sys::attempt::Call;

use crate::answer::Answer;

/// One attack.
#[derive(Clone, Debug)]
pub struct Line {
    /// A name of letters, digits and dashes, the same from version to version.
    pub id: String,
    /// The part of the list.
    pub group: Group,
    /// What it tries, in a few words.
    pub tries: String,
    /// How it tries it.
    pub probe: Probe,
    /// What the wall must answer.
    pub wall: Wanted,
    /// How it is shown that the wall makes the difference.
    pub control: Control,
    /// A path of the kernel that there must be for the control, such as a device's in `/sys`.
    pub needs: Option<&'static str>,
}

/// The parts of the list, in the order in which they run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Group {
    /// Mounting, unmounting, uncovering.
    Mounts,
    /// New kernel namespaces, and other ones.
    Namespaces,
    /// The agent and its memory.
    Agent,
    /// Parts of the kernel that sandboxes have no use for.
    Kernel,
    /// The same calls the way 32-bit programs make them, by numbers of x32, and with bits where none belong.
    OtherEntries,
    /// Kinds of sockets.
    Sockets,
    /// Device nodes.
    Devices,
    /// Files of `/proc` and `/sys`.
    ProcAndSys,
    /// Images and settings that lead elsewhere.
    Images,
    /// Files that change while the server works on them.
    Files,
    /// Another sandbox, and the one before.
    Neighbours,
    /// Taking more than one's share.
    Resources,
    /// Addresses, names and ports.
    Network,
}

impl Group {
    /// All groups, in order.
    pub const ALL: [Group; 13] = [
        Group::Mounts,
        Group::Namespaces,
        Group::Agent,
        Group::Kernel,
        Group::OtherEntries,
        Group::Sockets,
        Group::Devices,
        Group::ProcAndSys,
        Group::Images,
        Group::Files,
        Group::Neighbours,
        Group::Resources,
        Group::Network,
    ];

    /// Its name on command lines and in reports.
    pub fn name(self) -> &'static str {
        match self {
            Group::Mounts => "mounts",
            Group::Namespaces => "namespaces",
            Group::Agent => "agent",
            Group::Kernel => "kernel",
            Group::OtherEntries => "other-entries",
            Group::Sockets => "sockets",
            Group::Devices => "devices",
            Group::ProcAndSys => "proc-and-sys",
            Group::Images => "images",
            Group::Files => "files",
            Group::Neighbours => "neighbours",
            Group::Resources => "resources",
            Group::Network => "network",
        }
    }

    /// Its name for people.
    pub fn title(self) -> &'static str {
        match self {
            Group::Mounts => "mounts",
            Group::Namespaces => "kernel namespaces",
            Group::Agent => "the agent",
            Group::Kernel => "parts of the kernel",
            Group::OtherEntries => "other ways into the kernel",
            Group::Sockets => "sockets",
            Group::Devices => "devices",
            Group::ProcAndSys => "/proc and /sys",
            Group::Images => "images and settings",
            Group::Files => "files",
            Group::Neighbours => "neighbours",
            Group::Resources => "resources",
            Group::Network => "network",
        }
    }
}

/// How a line is tried.
#[derive(Clone, Debug)]
pub enum Probe {
    /// By kernel calls, one after the other until one fails: that one's error, or what the last one returned.
    Calls(Vec<Call>),
    /// By code of `msb-probe`.
    Act(Act),
    /// By whoever runs the list: it takes more than one command in one sandbox.
    Scene(Scene),
}

/// What `msb-probe` has code for; see its `acts`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Act {
    /// `setns` on a namespace's descriptor that came through a socket.
    SetnsPassed,
    /// Types into a terminal for whoever reads there; with what is added to the number of the request.
    TypeAhead(u64),
    /// Makes processes, at most this many, until the kernel makes no more; how many there were.
    Multiply(Kind, u32),
    /// Takes memory, at most this many MiB; how many it got.
    Take(Memory, u32),
    /// Opens descriptors, at most this many; how many it got.
    Descriptors(u32),
}

/// What a sandbox leaves where another one may find it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Trace {
    /// A file in `/tmp`.
    File,
    /// A file in `/dev/shm`.
    SharedFile,
    /// A System V shared memory segment.
    Segment,
    /// System V semaphores.
    Semaphores,
    /// A System V message queue.
    Messages,
    /// A POSIX message queue.
    Queue,
    /// An abstract unix socket.
    Abstract,
    /// A TCP port on loopback.
    Port,
    /// A process with a known command line.
    Process,
}

impl Trace {
    /// All of them.
    pub const ALL: [Trace; 9] = [
        Trace::File,
        Trace::SharedFile,
        Trace::Segment,
        Trace::Semaphores,
        Trace::Messages,
        Trace::Queue,
        Trace::Abstract,
        Trace::Port,
        Trace::Process,
    ];
}

/// Ways to make many processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Children that wait.
    Forks,
    /// Threads that wait.
    Threads,
    /// Forked twice, each in a session of its own.
    Daemons,
}

/// Kinds of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Memory {
    /// Of the process itself.
    Own,
    /// Files in `/dev/shm`.
    SharedFiles,
    /// Memory files without a name.
    MemoryFiles,
    /// Pipes that nobody reads.
    Pipes,
    /// Sockets that nobody reads.
    Sockets,
}

/// Things of which a kernel has only so many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Thing {
    /// Open files.
    Files,
    /// Watchers of files.
    Watchers,
    /// Timers.
    Timers,
    /// POSIX message queues.
    Queues,
}

/// What takes more than one command in one sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scene {
    /// An image in which this path is a link to that one.
    LinkedImage(&'static str, &'static str),
    /// A working directory that leads elsewhere.
    Workdir(&'static str),
    /// A command that is the program of whoever starts commands.
    OwnProgram,
    /// Directories and links that change places while the server measures and removes them.
    Swap,
    /// FIFOs, links to nowhere and to everywhere in what the server measures and removes.
    OddFiles,
    /// A tree deeper than any path is long.
    DeepTree,
    /// A directory with very many files.
    HugeDirectory,
    /// Looks for a trace that a running neighbour has.
    OfNeighbour(Trace),
    /// Looks for a trace that a sandbox of the same name had.
    OfPredecessor(Trace),
    /// Holds all of these things that it can get; a neighbour must still get some.
    Exhaust(Thing),
    /// A bomb of processes, until its time is up; the sandbox must answer afterwards.
    Bomb(Kind),
    /// Endless loops in all processes there may be.
    BusyLoops,
    /// Everybody's writes to the disk, again and again.
    SyncStorm,
    /// Writing and dropping more file cache than there is memory.
    PageCache,
    /// Processes that ignore every signal that can be ignored.
    Stubborn,
    /// Daemons that outlive the time of a command.
    Outlive,
    /// Bytes until the disk is full.
    FillDisk,
    /// Files until there are no more.
    FillInodes,
}

/// What an answer must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// This one.
    Is(Answer),
    /// One of these.
    OneOf(Vec<Answer>),
    /// A number returned, and no larger one; or the kernel ended the attempt.
    AtMost(i64),
    /// Not there, or a number returned and no larger one.
    Hidden(i64),
    /// A number returned, and a larger one.
    MoreThan(i64),
    /// Done, whatever number came back.
    Done,
    /// Done, or refused for a reason other than missing rights and unknown calls.
    Reached,
}

/// How it is shown that the wall makes the difference.
#[derive(Clone, Debug)]
pub enum Control {
    /// The same outside gives this.
    Same(Wanted),
    /// Other calls outside give this; they reach the same place of the kernel, but do no harm there.
    Calls(Vec<Call>, Wanted),
    /// The scene contains its own: what it says is only said when the attack was real.
    Within,
    /// There is nothing to tell apart; the reason.
    Needless(&'static str),
}
