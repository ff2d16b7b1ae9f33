// SPDX-License-Identifier: Apache-2.0
//! Starts a program below a supervisor of its own, so that no descendant can leave its tree.
//!
//! ```text
//! caller ── fork ──▶ supervisor (child subreaper) ── fork ──▶ main ── exec ──▶ the program
//!    ▲                    │  reaps everything below it
//!    └── report pipe ◀────┘  Started | Failed, then Ended; end of file when the supervisor itself is gone
//! ```
//!
//! A daemon that forks twice and makes a session of its own is adopted by the supervisor, not by PID 1: whoever walks
//! down from the supervisor finds all of the program's descendants. The supervisor ends when nothing is left below it,
//! so its end is the proof that the tree is empty. It never executes anything and keeps the caller's dumpability: a
//! caller that closed its memory to others has a closed supervisor.
//!
//! Everything that needs memory is prepared before the fork; after it only async-signal-safe calls are made, so that a
//! caller with locks held (an allocator's, say) leaves no deadlock behind in its copies.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// Bytes of one [`Report`] in the report pipe; less than `PIPE_BUF`, so that one is read as a whole or not at all.
pub const REPORT_BYTES: usize = 12;

/// The kernel's out-of-memory killer shall take the program before the one that started it.
const OOM_SCORE_ADJ: &[u8] = b"500";
/// Descriptors that are closed one by one where the kernel has no `close_range`.
const CLOSE_ONE_BY_ONE_MAX: RawFd = 65_536;
/// Bytes of one failure in the pipe between main and supervisor: stage and error number.
const FAILURE_BYTES: usize = 8;

const STARTED: i32 = 1;
const FAILED: i32 = 2;
const ENDED: i32 = 3;

/// A program with all that its start needs.
#[derive(Clone, Debug)]
pub struct Program {
    /// The files to try in this order, as `execvp` does: the first one that can be executed is.
    pub paths: Vec<CString>,
    /// The arguments, the program's own name first.
    pub argv: Vec<CString>,
    /// The whole environment, `NAME=value` each.
    pub envp: Vec<CString>,
    /// The directory to start in; relative paths above are meant from there. It is gone to before the ids change.
    pub workdir: CString,
    /// Who the program is; the one who starts it when nobody is named.
    pub ids: Option<Ids>,
}

/// The ids of a program, as the kernel has them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ids {
    /// The user: real, effective and saved.
    pub user: u32,
    /// The group: real, effective and saved.
    pub group: u32,
    /// The supplementary groups, and no other.
    pub groups: Vec<u32>,
}

/// A supervisor that was forked; what becomes of the program comes through its pipe.
#[derive(Debug)]
pub struct Spawned {
    /// Process id of the supervisor, a child of the caller.
    pub supervisor: i32,
    /// Read end of the report pipe: frames of [`REPORT_BYTES`], see [`Report::decode`].
    pub report: OwnedFd,
}

/// What a supervisor reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Report {
    /// The program runs.
    Started {
        /// Its process id.
        main: i32,
    },
    /// The program could not be started; nothing of it is left.
    Failed {
        /// What was tried.
        stage: Stage,
        /// The error number.
        errno: i32,
    },
    /// The program ended.
    Ended(End),
}

/// What a start was doing when it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Making the process.
    Fork,
    /// Going to the working directory.
    Workdir,
    /// Putting the descriptors in their places.
    Descriptors,
    /// Becoming the user and the groups.
    Ids,
    /// Executing the program.
    Exec,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// By itself, with this exit code.
    Exited(i32),
    /// By this signal.
    Signaled(i32),
}

impl Report {
    /// Reads a report; `None` when the bytes are none.
    pub fn decode(bytes: [u8; REPORT_BYTES]) -> Option<Report> {
        let word = |at: usize| {
            let four = bytes.get(at..at + 4)?;
            Some(i32::from_ne_bytes(four.try_into().ok()?))
        };
        let (kind, first, second) = (word(0)?, word(4)?, word(8)?);
        match kind {
            STARTED => Some(Report::Started { main: first }),
            FAILED => Some(Report::Failed { stage: Stage::from_code(first)?, errno: second }),
            ENDED if libc::WIFEXITED(first) => Some(Report::Ended(End::Exited(libc::WEXITSTATUS(first)))),
            ENDED if libc::WIFSIGNALED(first) => Some(Report::Ended(End::Signaled(libc::WTERMSIG(first)))),
            _ => None,
        }
    }
}

impl Stage {
    fn code(self) -> i32 {
        match self {
            Stage::Fork => 1,
            Stage::Workdir => 2,
            Stage::Descriptors => 3,
            Stage::Exec => 4,
            Stage::Ids => 5,
        }
    }

    fn from_code(code: i32) -> Option<Stage> {
        let all = [Stage::Fork, Stage::Workdir, Stage::Descriptors, Stage::Ids, Stage::Exec];
        all.into_iter().find(|stage| stage.code() == code)
    }
}

/// Forks a supervisor and, below it, the program, with each of `descriptors` at its number and nothing else inherited.
///
/// Returns as soon as the supervisor exists. The program is in a session of its own, with no signal blocked or ignored.
/// The caller must be single-threaded or at least not change its descriptors meanwhile, and must reap the supervisor.
///
/// # Errors
/// When the kernel gives no pipe or process.
pub fn spawn(program: &Program, descriptors: &[(BorrowedFd<'_>, RawFd)]) -> io::Result<Spawned> {
    let (report, writer) = pipe()?;
    let argv = pointers(&program.argv);
    let envp = pointers(&program.envp);
    let mut places: Vec<Place> = descriptors
        .iter()
        .map(|(source, target)| Place { source: source.as_raw_fd(), target: *target })
        .collect();
    let mut start = Start {
        paths: &program.paths,
        argv: &argv,
        envp: &envp,
        workdir: &program.workdir,
        ids: program.ids.as_ref(),
        first_free: places.iter().map(|place| place.target).max().unwrap_or(2).max(2) + 1,
        places: &mut places,
    };
    let before = block_signals()?;
    // SAFETY: the child runs `supervise` alone, which makes only async-signal-safe calls and never returns.
    let supervisor = unsafe { libc::fork() };
    if supervisor == 0 {
        supervise(&mut start, writer.as_raw_fd());
    }
    let failure = io::Error::last_os_error();
    restore_signals(&before);
    if supervisor < 0 {
        return Err(failure);
    }
    Ok(Spawned { supervisor, report })
}

/// One descriptor and the number it shall have in the program.
struct Place {
    source: RawFd,
    target: RawFd,
}

/// All that main needs, prepared before the fork.
struct Start<'a> {
    paths: &'a [CString],
    argv: &'a [*const libc::c_char],
    envp: &'a [*const libc::c_char],
    workdir: &'a CStr,
    ids: Option<&'a Ids>,
    places: &'a mut [Place],
    /// A number above all targets.
    first_free: RawFd,
}

fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut ends = [0; 2];
    // SAFETY: `ends` is an array of two, which is what pipe2 fills.
    if unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: both descriptors were just made by the kernel and have no other owner.
    let (reader, writer) = unsafe { (OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1])) };
    if ends[0] < 3 || ends[1] < 3 {
        // The supervisor moves its own ends to 0 and 1.
        return Err(io::Error::other("standard descriptors are not open"));
    }
    Ok((reader, writer))
}

fn pointers(texts: &[CString]) -> Vec<*const libc::c_char> {
    texts.iter().map(|text| text.as_ptr()).chain([std::ptr::null()]).collect()
}

fn block_signals() -> io::Result<libc::sigset_t> {
    // SAFETY: both sets live on this stack and are filled by the calls before they are read.
    unsafe {
        let mut all = std::mem::zeroed();
        let mut before = std::mem::zeroed();
        libc::sigfillset(&mut all);
        match libc::pthread_sigmask(libc::SIG_SETMASK, &all, &mut before) {
            0 => Ok(before),
            code => Err(io::Error::from_raw_os_error(code)),
        }
    }
}

fn restore_signals(before: &libc::sigset_t) {
    // SAFETY: `before` was filled by `block_signals`.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, before, std::ptr::null_mut()) };
}

/// The supervisor's whole life. All signals are blocked in it, so that a program that signals everybody leaves it alone.
fn supervise(start: &mut Start<'_>, report: RawFd) -> ! {
    let mut ends = [0; 2];
    // SAFETY: constant arguments; `ends` is an array of two; the name is a C string of less than 16 bytes.
    let ready = unsafe {
        default_dispositions();
        libc::prctl(libc::PR_SET_NAME, c"msb-supervisor".as_ptr());
        libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0
            && libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) == 0
    };
    if !ready {
        fail(report, Stage::Fork.code(), errno());
    }
    // SAFETY: the child runs `become_program` alone, which never returns.
    let main = unsafe { libc::fork() };
    if main == 0 {
        become_program(start, ends[1]);
    }
    if main < 0 {
        fail(report, Stage::Fork.code(), errno());
    }
    keep_only(report, ends[0]);
    if let Some([stage, errno]) = read_failure(1) {
        fail(0, stage, errno);
    }
    write_words(0, &[STARTED, main, 0]);
    reap_all(main)
}

/// Keeps `report` as 0 and `failures` as 1, and closes everything else.
fn keep_only(report: RawFd, failures: RawFd) {
    // SAFETY: this process uses no descriptor but these two; no Rust object in it is ever dropped or used again.
    unsafe {
        libc::dup2(report, 0);
        libc::dup2(failures, 1);
        if libc::syscall(libc::SYS_close_range, 2, libc::c_uint::MAX, 0) != 0 {
            for descriptor in 2..CLOSE_ONE_BY_ONE_MAX {
                libc::close(descriptor);
            }
        }
    }
}

/// Waits until main has executed the program (`None`) or says why it could not.
fn read_failure(from: RawFd) -> Option<[i32; 2]> {
    let mut words = [0_i32; 2];
    loop {
        // SAFETY: `words` has room for the eight bytes.
        let count = unsafe { libc::read(from, words.as_mut_ptr().cast(), FAILURE_BYTES) };
        if count < 0 && errno() == libc::EINTR {
            continue;
        }
        return (count == FAILURE_BYTES as isize).then_some(words);
    }
}

/// Reaps until no child is left, reporting main's end when it comes.
fn reap_all(main: libc::pid_t) -> ! {
    loop {
        let mut status = 0;
        // SAFETY: `status` is a valid place for the status word. __WALL: also children that were cloned without SIGCHLD.
        let pid = unsafe { libc::waitpid(-1, &mut status, libc::__WALL) };
        if pid == main {
            write_words(0, &[ENDED, status, 0]);
        } else if pid < 0 && errno() != libc::EINTR {
            // SAFETY: ends this process without running the caller's exit handlers.
            unsafe { libc::_exit(0) }
        }
    }
}

fn fail(report: RawFd, stage: i32, errno: i32) -> ! {
    write_words(report, &[FAILED, stage, errno]);
    // SAFETY: ends this process without running the caller's exit handlers; a main that failed ends likewise.
    unsafe { libc::_exit(127) }
}

/// Writes a few words at once: less than `PIPE_BUF`, so never in part.
fn write_words(to: RawFd, words: &[i32]) {
    // SAFETY: the slice is valid for its whole length in bytes. If nobody reads any more, nobody wants to know.
    unsafe { libc::write(to, words.as_ptr().cast(), size_of_val(words)) };
}

/// The entry file of the cgroup that programs run in, or -1.
static PROGRAM_GROUP: std::sync::atomic::AtomicI32 = std::sync::atomic::AtomicI32::new(-1);

/// Lets every program that is started from now on enter a cgroup before it begins; the file is kept open for ever.
pub fn enter_before_programs(entry: std::os::fd::OwnedFd) {
    use std::os::fd::IntoRawFd;
    PROGRAM_GROUP.store(entry.into_raw_fd(), std::sync::atomic::Ordering::Relaxed);
}

/// The nice value of programs.
static PROGRAM_NICE: std::sync::atomic::AtomicI32 = std::sync::atomic::AtomicI32::new(0);

/// Gives every program that is started from now on a nice value; this process keeps its own.
pub fn be_nice_to_agent(nice: i32) {
    PROGRAM_NICE.store(nice, std::sync::atomic::Ordering::Relaxed);
}

/// Turns this process into the program; says why on `failures` when it cannot.
fn become_program(start: &mut Start<'_>, failures: RawFd) -> ! {
    // SAFETY: plain calls on this process alone. The mask is emptied last, when no caller's handler is left to run.
    unsafe {
        libc::setsid();
        // The agent may run before others; what it starts may not. Going down needs no right.
        libc::setpriority(libc::PRIO_PROCESS, 0, PROGRAM_NICE.load(std::sync::atomic::Ordering::Relaxed));
        let group = PROGRAM_GROUP.load(std::sync::atomic::Ordering::Relaxed);
        // A single-threaded process that enters by itself: with cgroup version 1 nothing else is quick. A program that
        // cannot enter would run without its limit, so it does not run.
        if group >= 0 && libc::write(group, c"0".as_ptr().cast(), 1) != 1 {
            give_up(failures, Stage::Fork, errno());
        }
        let mut none = std::mem::zeroed();
        libc::sigemptyset(&mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &none, std::ptr::null_mut());
    }
    prefer_for_oom();
    // SAFETY: the path is a C string.
    if unsafe { libc::chdir(start.workdir.as_ptr()) } < 0 {
        give_up(failures, Stage::Workdir, errno());
    }
    let Some(failures) = install(start, failures) else { give_up(failures, Stage::Descriptors, errno()) };
    if start.ids.is_some_and(|ids| !become_user(ids)) {
        give_up(failures, Stage::Ids, errno());
    }
    let errno = execute(start);
    give_up(failures, Stage::Exec, errno)
}

fn give_up(failures: RawFd, stage: Stage, errno: i32) -> ! {
    write_words(failures, &[stage.code(), errno]);
    // SAFETY: ends this process without running the caller's exit handlers.
    unsafe { libc::_exit(127) }
}

/// Raises the score; not being able to is no reason to stop.
fn prefer_for_oom() {
    // SAFETY: a C string and a slice with its length; the descriptor is ours.
    unsafe {
        let file = libc::open(c"/proc/self/oom_score_adj".as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
        if file >= 0 {
            libc::write(file, OOM_SCORE_ADJ.as_ptr().cast(), OOM_SCORE_ADJ.len());
            libc::close(file);
        }
    }
}

/// Becomes another user, for good: by setting all three ids a user other than root loses every capability.
///
/// The kernel's own calls, because those of the C library speak with threads that a forked child does not have. From
/// here to the exec this copy of the caller belongs to that user, who still cannot read or trace it: a change of ids
/// makes a process undumpable (`prctl(2)`, PR_SET_DUMPABLE), and where a host has switched that off, we do.
fn become_user(ids: &Ids) -> bool {
    // SAFETY: the slice of groups is alive and as long as said; the other calls take integers only.
    unsafe {
        libc::syscall(libc::SYS_setgroups, ids.groups.len(), ids.groups.as_ptr()) == 0
            && libc::syscall(libc::SYS_setresgid, ids.group, ids.group, ids.group) == 0
            && libc::syscall(libc::SYS_setresuid, ids.user, ids.user, ids.user) == 0
            && libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0) == 0
    }
}

/// Puts every descriptor at its number; returns where the failure pipe is now.
///
/// All are moved above the targets first, so that no target overwrites a source that is still needed.
fn install(start: &mut Start<'_>, failures: RawFd) -> Option<RawFd> {
    let first_free = start.first_free;
    let lift = |descriptor| {
        // SAFETY: duplicates a number; a bad one is refused by the kernel.
        let lifted = unsafe { libc::fcntl(descriptor, libc::F_DUPFD_CLOEXEC, first_free) };
        (lifted >= 0).then_some(lifted)
    };
    let failures = lift(failures)?;
    for place in start.places.iter_mut() {
        place.source = lift(place.source)?;
    }
    // SAFETY: only marks descriptors; those for the program lose the mark again by dup2. If the kernel has no
    // close_range the caller's own marks must do.
    unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    for place in start.places.iter() {
        // SAFETY: `source` is open and differs from `target`, which nothing in this process uses any more.
        if unsafe { libc::dup2(place.source, place.target) } < 0 {
            return None;
        }
    }
    Some(failures)
}

/// Tries the paths in order; returns the error number that tells most.
fn execute(start: &Start<'_>) -> i32 {
    let mut telling = libc::ENOENT;
    for path in start.paths {
        // SAFETY: both arrays end with a null pointer and point to C strings that outlive the call.
        unsafe { libc::execve(path.as_ptr(), start.argv.as_ptr(), start.envp.as_ptr()) };
        match errno() {
            libc::ENOENT | libc::ENOTDIR => {}
            libc::EACCES => telling = libc::EACCES,
            other => return other,
        }
    }
    telling
}

/// Forgets the caller's handlers and what it ignores.
///
/// # Safety
/// Only for a freshly forked child: the handlers belong to the whole process.
unsafe fn default_dispositions() {
    // All zero is the default action without flags; the kernel's own call, because the C library keeps two signals back.
    let default = [0_usize; 8];
    for signal in 1..=64 {
        // SAFETY: the array is larger than the kernel's structure; signals that cannot be changed are refused.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                default.as_ptr(),
                std::ptr::null::<usize>(),
                8_usize,
            )
        };
    }
}

fn errno() -> i32 {
    // SAFETY: the location is this thread's own and always valid.
    unsafe { *libc::__errno_location() }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Read;
    use std::os::fd::AsFd;

    use super::*;

    fn program(paths: &[&str], argv: &[&str], workdir: &str) -> Program {
        let texts = |list: &[&str]| list.iter().map(|text| CString::new(*text).unwrap()).collect();
        Program {
            paths: texts(paths),
            argv: texts(argv),
            envp: texts(&["GREETING=hello"]),
            workdir: CString::new(workdir).unwrap(),
            ids: None,
        }
    }

    /// Starts it with a pipe as its standard output; returns all reports and all output.
    fn follow(program: &Program) -> (Vec<Report>, String) {
        let null = File::open("/dev/null").unwrap();
        let (reader, writer) = pipe().unwrap();
        let places = [(null.as_fd(), 0), (writer.as_fd(), 1), (writer.as_fd(), 2), (null.as_fd(), 200)];
        let spawned = spawn(program, &places).unwrap();
        drop(writer);
        let mut output = String::new();
        File::from(reader).read_to_string(&mut output).unwrap();
        let mut bytes = Vec::new();
        File::from(spawned.report).read_to_end(&mut bytes).unwrap();
        // SAFETY: waits for the child that this test made; no status is wanted.
        unsafe { libc::waitpid(spawned.supervisor, std::ptr::null_mut(), 0) };
        let reports = bytes.chunks(REPORT_BYTES).map(|b| Report::decode(b.try_into().unwrap()).unwrap());
        (reports.collect(), output)
    }

    #[test]
    fn a_program_gets_its_arguments_environment_directory_and_descriptors_and_nothing_else() {
        let script = "echo $0 $1 $GREETING $PWD; ls -l /proc/self/fd | grep -c -e '->'; exit 44";
        let (reports, output) =
            follow(&program(&["/nowhere", "/bin/sh"], &["sh", "-c", script, "x", "y"], "/usr"));
        // 0, 1, 2, 200 and the directory that ls reads
        assert_eq!(output, "x y hello /usr\n5\n");
        assert!(
            matches!(reports[..], [Report::Started { main }, Report::Ended(End::Exited(44))] if main > 0)
        );
    }

    #[test]
    fn a_signal_that_ends_the_program_is_reported_and_none_is_blocked() {
        let (reports, _) = follow(&program(&["/bin/sh"], &["sh", "-c", "kill -TERM $$"], "/"));
        assert!(matches!(reports[..], [Report::Started { .. }, Report::Ended(End::Signaled(libc::SIGTERM))]));
    }

    #[test]
    fn a_failed_start_says_at_what_and_why() {
        let failed = |program: &Program| match follow(program).0[..] {
            [Report::Failed { stage, errno }] => (stage, errno),
            ref other => panic!("{other:?}"),
        };
        assert_eq!(failed(&program(&["/nowhere"], &["x"], "/")), (Stage::Exec, libc::ENOENT));
        assert_eq!(failed(&program(&["/etc/passwd", "/nowhere"], &["x"], "/")), (Stage::Exec, libc::EACCES));
        assert_eq!(failed(&program(&["/bin/sh"], &["x"], "/nowhere")), (Stage::Workdir, libc::ENOENT));
    }

    #[test]
    fn a_program_with_ids_of_its_own_is_that_user_alone_or_does_not_start() {
        let script = "grep -E '^(Uid|Gid|Groups|CapEff|CapPrm)' /proc/self/status; pwd";
        let mut other = program(&["/bin/sh"], &["sh", "-c", script], "/usr");
        other.ids = Some(Ids { user: 1234, group: 2345, groups: vec![7, 8] });
        let (reports, output) = follow(&other);
        // SAFETY: takes nothing and cannot fail.
        if unsafe { libc::geteuid() } != 0 {
            assert!(matches!(reports[..], [Report::Failed { stage: Stage::Ids, errno: libc::EPERM }]));
            return;
        }
        let zero = "0".repeat(16);
        let lines = [
            "Uid:\t1234\t1234\t1234\t1234",
            "Gid:\t2345\t2345\t2345\t2345",
            "Groups:\t7 8 ",
            &format!("CapPrm:\t{zero}"),
            &format!("CapEff:\t{zero}"),
            "/usr",
        ];
        assert_eq!(output.lines().collect::<Vec<_>>(), lines);
    }

    #[test]
    fn the_reports_end_only_when_the_last_descendant_is_gone() {
        let began = std::time::Instant::now();
        let script = "(setsid sh -c 'exec >/dev/null 2>&1; sleep 0.4' &) ; exit 3";
        let (reports, _) = follow(&program(&["/bin/sh"], &["sh", "-c", script], "/"));
        assert!(matches!(reports[..], [Report::Started { .. }, Report::Ended(End::Exited(3))]));
        assert!(began.elapsed().as_millis() >= 390, "the daemon left the tree: {:?}", began.elapsed());
    }
}
