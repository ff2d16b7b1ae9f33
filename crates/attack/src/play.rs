// SPDX-License-Identifier: Apache-2.0
//! The part of scenes that happens inside: each comes to an end of its own, or is ended from outside.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, symlink};
use std::os::unix::net::UnixListener;

use attack::abi::{call, flags, text, word};
use attack::line::Kind;
use attack::list::scenes::HELD;
use attack::{Answer, Finding, MARK};
use nix::libc;
use nix::sys::signal::SigSet;
use rustix::fs::{CWD, FileType, Mode, RenameFlags, mknodat, renameat_with, statfs};
use sys::attempt::{Outcome, attempt, fork};
use sys::namespace::Fork;

use crate::{acts, say};

/// How many processes of a kind that does something are enough.
const SEVERAL: u32 = 8;
/// What a neighbour must be able to have of anything, however much another one holds.
const NEEDED: u32 = 16;
/// One takes a tenth of what the kernel gives a user.
const QUEUES_NEEDED: u32 = 2;
/// How long a call may take, in seconds.
const CALL_SECONDS: u32 = 5;
const MIB: usize = 1024 * 1024;
/// `linux/magic.h`.
const PROC_MAGIC: i64 = 0x9fa0;
const SYSFS_MAGIC: i64 = 0x6265_6572;

/// Plays a scene's part.
pub(crate) fn play(scene: &str, rest: &[&str]) -> io::Result<()> {
    let number = || rest.last().and_then(|text| text.parse::<u32>().ok()).unwrap_or(SEVERAL);
    match (scene, rest.first().copied()) {
        ("bomb", Some("forks")) => acts::multiply_until_killed(Kind::Forks),
        ("bomb", Some("threads")) => acts::multiply_until_killed(Kind::Threads),
        ("bomb", Some("daemons")) => acts::multiply_until_killed(Kind::Daemons),
        ("count", _) => say(&processes()?.to_string()),
        ("busy", _) => {
            several(number())?;
            loop {
                std::hint::spin_loop();
            }
        }
        ("sync", _) => sync_for_ever(),
        ("page-cache", _) => page_cache(number()),
        ("stubborn", _) => {
            SigSet::all().thread_block()?;
            several(SEVERAL)?;
            wait_for_ever()
        }
        ("outlive", _) => outlive(),
        ("swap", _) => swap(number()),
        ("odd-files", _) => odd_files(),
        ("deep-tree", _) => deep_tree(number()),
        ("huge-directory", _) => huge_directory(number()),
        ("cwd", _) => say(&working_directory()?),
        ("layout", _) => say(&layout()?),
        ("hold", Some(thing)) => hold(thing),
        ("need", Some(thing)) => say(&need(thing)),
        ("fill-disk", _) => report(fill_disk(number())),
        ("fill-inodes", _) => report(fill_inodes(number())),
        _ => Err(io::Error::other(format!("there is no scene called {scene}"))),
    }
}

fn report(result: io::Result<i64>) -> io::Result<()> {
    let answer = Answer::of(&result, |value| *value);
    let finding = Finding { id: "play".to_owned(), answer };
    say(&serde_json::to_string(&finding).map_err(io::Error::from)?)
}

/// Makes copies of this process, which go on where it is.
fn several(count: u32) -> io::Result<()> {
    for _ in 1..count {
        if let Fork::Child = fork()? {
            return Ok(());
        }
    }
    Ok(())
}

fn wait_for_ever() -> ! {
    loop {
        nix::unistd::pause();
    }
}

fn processes() -> io::Result<usize> {
    let names = fs_err::read_dir("/proc")?.map(|entry| Ok(entry?.file_name()));
    let names: Vec<std::ffi::OsString> = names.collect::<io::Result<_>>()?;
    Ok(names.iter().filter(|name| name.to_string_lossy().parse::<u32>().is_ok()).count())
}

fn sync_for_ever() -> io::Result<()> {
    several(SEVERAL)?;
    let path = format!("/tmp/msb-attack-sync-{}", std::process::id());
    let mut file = File::create(path)?;
    let chunk = [0x5a; 4096];
    loop {
        rustix::fs::seek(&file, rustix::fs::SeekFrom::Start(0))?;
        file.write_all(&chunk)?;
        file.sync_all()?;
        rustix::fs::sync();
    }
}

/// Writes that much to files of a bounded size, one after the other.
fn page_cache(mib: u32) -> io::Result<()> {
    let chunk = vec![0x5a; MIB];
    let mut written = 0;
    while written < mib {
        let mut file = File::create("/tmp/msb-attack-cache")?;
        for _ in 0..64 {
            file.write_all(&chunk)?;
            written += 1;
        }
    }
    fs_err::remove_file("/tmp/msb-attack-cache")?;
    say(HELD)
}

fn outlive() -> io::Result<()> {
    for _ in 0..SEVERAL {
        if let Fork::Child = fork()? {
            let _ = rustix::process::setsid();
            match fork() {
                Ok(Fork::Child) => wait_for_ever(),
                Ok(Fork::Parent(_)) | Err(_) => sys::attempt::exit_copy(0),
            }
        }
    }
    wait_for_ever()
}

/// Lets a directory and a link to `/` change places again and again.
fn swap(times: u32) -> io::Result<()> {
    let below = "/root/msb-attack-swap";
    fs_err::create_dir_all(format!("{below}/a/inner"))?;
    fs_err::write(format!("{below}/a/inner/file"), "x")?;
    symlink("/", format!("{below}/b"))?;
    for _ in 0..times {
        let (a, b) = (format!("{below}/a"), format!("{below}/b"));
        renameat_with(CWD, a, CWD, b, RenameFlags::EXCHANGE)?;
    }
    say(HELD)
}

fn odd_files() -> io::Result<()> {
    let below = "/root/msb-attack-odd";
    fs_err::create_dir_all(below)?;
    let at = |name: &str| format!("{below}/{name}");
    mknodat(CWD, at("fifo"), FileType::Fifo, Mode::from_raw_mode(0o666), 0)?;
    // Its file stays when the socket is closed.
    drop(UnixListener::bind(at("socket"))?);
    for (name, to) in [
        ("root", "/"),
        ("up", "../../../../../../../../etc"),
        ("agent", "/proc/1/root"),
        ("descriptor", "/proc/self/fd/0"),
        ("zeros", "/dev/zero"),
        ("nowhere", "/msb-attack-nowhere"),
        ("itself", "itself"),
        ("line\nbreak", "/etc/passwd"),
        ("-rf", "--"),
    ] {
        symlink(to, at(name))?;
    }
    for name in ["closed", "..x", "a b", "\u{202e}txt", "%s%n"] {
        fs_err::create_dir(at(name))?;
        fs_err::write(at(&format!("{name}/file")), "x")?;
        rustix::fs::chmod(at(name), Mode::empty())?;
    }
    say(HELD)
}

fn deep_tree(depth: u32) -> io::Result<()> {
    rustix::process::chdir("/root")?;
    for _ in 0..depth {
        rustix::fs::mkdir("deep-directory", Mode::from_raw_mode(0o700))?;
        rustix::process::chdir("deep-directory")?;
    }
    say(HELD)
}

fn huge_directory(files: u32) -> io::Result<()> {
    fs_err::create_dir("/root/msb-attack-huge")?;
    for number in 0..files {
        File::create(format!("/root/msb-attack-huge/{number}"))?;
    }
    say(HELD)
}

/// Says whether the directory that this is in is one below this sandbox's root.
fn working_directory() -> io::Result<String> {
    let name = rustix::process::getcwd(Vec::new())?.to_string_lossy().into_owned();
    if !name.starts_with('/') {
        return Ok(format!("the working directory is {name}"));
    }
    let place = |path: &str| fs_err::metadata(path).map(|status| (status.dev(), status.ino()));
    let root = place("/")?;
    let mut path = ".".to_owned();
    for _ in 0..64 {
        if place(&path)? == root {
            let own = fs_err::metadata("/msb-probe").is_ok();
            return Ok(if own { HELD.to_owned() } else { "the root is another one".to_owned() });
        }
        path.push_str("/..");
    }
    Ok("the root is not above the working directory".to_owned())
}

/// Says whether `/proc`, `/sys` and `/dev` are the kernel's and the wall's, whatever the image brought.
fn layout() -> io::Result<String> {
    let magic = |path: &str| statfs(path).map(|status| status.f_type);
    if magic("/proc")? != PROC_MAGIC || magic("/sys")? != SYSFS_MAGIC {
        return Ok("/proc or /sys is not the kernel's".to_owned());
    }
    let null = fs_err::symlink_metadata("/dev/null")?;
    if null.rdev() != rustix::fs::makedev(1, 3) {
        return Ok("/dev/null is not the device".to_owned());
    }
    if processes()? > 8 {
        return Ok("there are processes of others".to_owned());
    }
    working_directory()
}

fn hold(thing: &str) -> io::Result<()> {
    let thing = thing.to_owned();
    acts::hold_many(move |most| std::mem::forget(get(&thing, most)))?;
    say(HELD)
}

fn need(thing: &str) -> String {
    let needed = if thing == "queues" { QUEUES_NEEDED } else { NEEDED };
    let got = get(thing, needed).len();
    if got == needed as usize { HELD.to_owned() } else { format!("it got {got} of {needed}") }
}

/// Gets things, at most so many; they are given back when what is returned is dropped.
fn get(thing: &str, most: u32) -> Vec<Box<dyn std::any::Any>> {
    let mut held: Vec<Box<dyn std::any::Any>> = Vec::new();
    while held.len() < usize::try_from(most).unwrap_or(usize::MAX) {
        let one: Option<Box<dyn std::any::Any>> = match thing {
            "files" => File::open("/dev/null").ok().map(|file| Box::new(file) as _),
            "watchers" => {
                use rustix::fs::inotify::{CreateFlags, init};
                init(CreateFlags::CLOEXEC).ok().map(|watcher| Box::new(watcher) as _)
            }
            "timers" => timer().map(|timer| Box::new(timer) as _),
            "queues" => Queue::make(held.len()).map(|queue| Box::new(queue) as _),
            _ => None,
        };
        match one {
            Some(one) => held.push(one),
            None => break,
        }
    }
    held
}

/// A POSIX message queue of the usual size.
struct Queue(String);

impl Queue {
    fn make(number: usize) -> Option<Queue> {
        let name = format!("{MARK}-{}-{number}", std::process::id());
        let how = flags(libc::O_CREAT | libc::O_RDWR);
        let made = call(libc::SYS_mq_open, [text(&name), how, word(0o600), word(0)]);
        matches!(attempt(&[made], CALL_SECONDS), Ok(Outcome::Returned(results)) if results[0] >= 0)
            .then_some(Queue(name))
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        let _ = attempt(&[call(libc::SYS_mq_unlink, [text(&self.0)])], CALL_SECONDS);
    }
}

fn timer() -> Option<nix::sys::timer::Timer> {
    use nix::sys::signal::{SigEvent, SigevNotify};
    nix::sys::timer::Timer::new(nix::time::ClockId::CLOCK_MONOTONIC, SigEvent::new(SigevNotify::SigevNone))
        .ok()
}

fn fill_disk(mib: u32) -> io::Result<i64> {
    let chunk = vec![0x5a; MIB];
    let mut file = File::create("/root/msb-attack-disk")?;
    for _ in 0..mib {
        file.write_all(&chunk)?;
    }
    file.sync_all()?;
    Ok(mib.into())
}

fn fill_inodes(count: u32) -> io::Result<i64> {
    fs_err::create_dir_all("/root/msb-attack-inodes")?;
    for number in 0..count {
        File::create(format!("/root/msb-attack-inodes/{number}"))?;
    }
    Ok(count.into())
}
