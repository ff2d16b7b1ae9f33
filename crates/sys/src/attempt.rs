// SPDX-License-Identifier: Apache-2.0
//! Kernel calls by number, made in a process that lives for nothing else.
//!
//! Which calls a sandbox refuses can only be seen by making them, with whatever numbers and addresses. Such a call can
//! do anything to the memory and the descriptors of its process; so a copy of the process makes it, tells what came
//! back, and ends. What the call broke ends with it.
//!
//! ```text
//! caller ── fork ──▶ child: call, call, … ──▶ results into shared memory, _exit
//!    └── waits: all results, or the signal that ended the child
//! ```

use std::io;
use std::mem::size_of;
use std::ptr;

use crate::namespace::{Fork, thread_count};

/// The bytes that all arguments of one attempt may have.
const ROOM_BYTES: usize = 64 * 1024;
/// Most calls of one attempt.
pub const CALLS_MAX: usize = 16;
/// Most arguments of a call.
pub const ARGUMENTS_MAX: usize = 6;
/// Arguments lie at multiples of this.
const ALIGNMENT: usize = 16;
/// Largest error number that the kernel returns (`linux/err.h`).
const ERROR_MAX: i64 = 4095;

/// The way into the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// As programs for this machine do it.
    Native,
    /// As 32-bit programs for x86 do it, `int 0x80`: other numbers, other checks.
    I386,
}

/// One kernel call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// The way in.
    pub entry: Entry,
    /// Its number there.
    pub number: u32,
    /// Its arguments, at most [`ARGUMENTS_MAX`].
    pub arguments: Vec<Argument>,
}

/// One argument of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Argument {
    /// A number.
    Word(u64),
    /// What an earlier call of the attempt returned.
    Result(usize),
    /// The address of these bytes, below 4 GiB, where 32-bit calls reach too. The kernel may write there.
    Bytes(Vec<u8>),
    /// The address of a list of arguments in memory: of eight bytes each, or four for [`Entry::I386`].
    List(Vec<Argument>),
}

/// What became of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// What each call returned, up to the first one that failed: it is negative, the error number.
    Returned(Vec<i64>),
    /// The calls ended their process by this signal.
    Killed(i32),
}

/// Makes calls one after the other until one fails, in a process of its own that ends after `seconds` at the latest.
///
/// # Errors
/// `EBUSY` when this process has more than one thread, `E2BIG` when the arguments are too many or too large, else what
/// the kernel says about a process or memory.
pub fn attempt(calls: &[Call], seconds: u32) -> io::Result<Outcome> {
    if calls.len() > CALLS_MAX || calls.iter().any(|call| call.arguments.len() > ARGUMENTS_MAX) {
        return Err(io::Error::from_raw_os_error(libc::E2BIG));
    }
    let results = Mapping::new((CALLS_MAX + 1) * size_of::<i64>(), libc::MAP_SHARED)?;
    let mut room = Room { mapping: Mapping::new(ROOM_BYTES, libc::MAP_PRIVATE | libc::MAP_32BIT)?, used: 0 };
    let prepared: Vec<Prepared> = calls.iter().map(|call| room.prepare(call)).collect::<io::Result<_>>()?;
    let child = match fork()? {
        Fork::Child => make(&prepared, results.start.cast(), seconds),
        Fork::Parent(child) => child,
    };
    let status = wait(child)?;
    if libc::WIFSIGNALED(status) {
        return Ok(Outcome::Killed(libc::WTERMSIG(status)));
    }
    let words = results.start.cast::<i64>();
    // SAFETY: the mapping has CALLS_MAX + 1 words; its only other writer, the child, is gone.
    let made = usize::try_from(unsafe { words.read() }).unwrap_or(0).min(calls.len());
    // SAFETY: as above; `made` is at most CALLS_MAX.
    Ok(Outcome::Returned((1..=made).map(|at| unsafe { words.add(at).read() }).collect()))
}

/// Forks a process that has one thread. The child goes on where the caller is.
///
/// # Errors
/// `EBUSY` when there are more threads (a fork would leave locks held by nobody); else what the kernel says.
pub fn fork() -> io::Result<Fork> {
    if thread_count()? != 1 {
        return Err(io::Error::from_raw_os_error(libc::EBUSY));
    }
    // SAFETY: there is exactly one thread (checked above), so no lock is left behind locked in the copy.
    match unsafe { libc::fork() } {
        0 => Ok(Fork::Child),
        pid if pid > 0 => Ok(Fork::Parent(pid)),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Ends this process at once: nothing that the process it was copied from prepared for its own end is done here.
pub fn exit_copy(code: i32) -> ! {
    // SAFETY: _exit takes an integer, runs nothing of this process and does not return.
    unsafe { libc::_exit(code) }
}

/// A call whose arguments lie in memory.
struct Prepared {
    entry: Entry,
    number: u32,
    arguments: [Prepare; ARGUMENTS_MAX],
    /// Words in memory to be filled with earlier results.
    patches: Vec<(usize, usize)>,
}

#[derive(Clone, Copy)]
enum Prepare {
    Word(u64),
    Result(usize),
}

/// The memory of the arguments.
struct Room {
    mapping: Mapping,
    used: usize,
}

impl Room {
    fn prepare(&mut self, call: &Call) -> io::Result<Prepared> {
        let word_bytes = if call.entry == Entry::I386 { 4 } else { 8 };
        let mut patches = Vec::new();
        let mut arguments = [Prepare::Word(0); ARGUMENTS_MAX];
        for (slot, argument) in arguments.iter_mut().zip(&call.arguments) {
            *slot = self.place(argument, word_bytes, &mut patches)?;
        }
        Ok(Prepared { entry: call.entry, number: call.number, arguments, patches })
    }

    fn place(
        &mut self,
        argument: &Argument,
        word_bytes: usize,
        patches: &mut Vec<(usize, usize)>,
    ) -> io::Result<Prepare> {
        Ok(match argument {
            Argument::Word(word) => Prepare::Word(*word),
            Argument::Result(of) => Prepare::Result(*of),
            Argument::Bytes(bytes) => Prepare::Word(self.put(bytes)? as u64),
            Argument::List(members) => {
                let mut list = Vec::new();
                let mut from_results = Vec::new();
                for member in members {
                    let word = match self.place(member, word_bytes, patches)? {
                        Prepare::Word(word) => word,
                        Prepare::Result(of) => {
                            from_results.push((list.len(), of));
                            0
                        }
                    };
                    list.extend_from_slice(&word.to_ne_bytes()[..word_bytes]);
                }
                let at = self.put(&list)?;
                patches.extend(from_results.into_iter().map(|(offset, of)| (at + offset, of)));
                Prepare::Word(at as u64)
            }
        })
    }

    /// Copies bytes into the room and returns their address.
    fn put(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let end = self.used + bytes.len();
        if end > ROOM_BYTES {
            return Err(io::Error::from_raw_os_error(libc::E2BIG));
        }
        // SAFETY: the mapping has ROOM_BYTES, nobody else has a reference into it, and the end was checked above.
        let at = unsafe {
            let at = self.mapping.start.cast::<u8>().add(self.used);
            ptr::copy_nonoverlapping(bytes.as_ptr(), at, bytes.len());
            at
        };
        self.used = end.next_multiple_of(ALIGNMENT);
        Ok(at as usize)
    }
}

/// Anonymous memory.
struct Mapping {
    start: *mut libc::c_void,
    bytes: usize,
}

impl Mapping {
    fn new(bytes: usize, flags: libc::c_int) -> io::Result<Mapping> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new anonymous mapping at an address of the kernel's choice replaces nothing.
        let start =
            unsafe { libc::mmap(ptr::null_mut(), bytes, protection, flags | libc::MAP_ANONYMOUS, -1, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Mapping { start, bytes })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours alone and no reference into it outlives `self`.
        unsafe { libc::munmap(self.start, self.bytes) };
    }
}

/// The child's whole life: it allocates nothing and makes no other calls than the ones it is told and a few of its own.
fn make(calls: &[Prepared], results: *mut i64, seconds: u32) -> ! {
    // SAFETY: integers only; the alarm ends this process if a call waits for ever.
    let own = unsafe {
        libc::alarm(seconds);
        libc::getpid()
    };
    for (at, call) in calls.iter().enumerate() {
        // SAFETY: `results` has CALLS_MAX + 1 words; the first is the number of results, and those before `at` are set.
        let result = unsafe {
            let word = |argument: &Prepare| match *argument {
                Prepare::Word(word) => word,
                Prepare::Result(of) if of < at => results.add(of + 1).read().cast_unsigned(),
                Prepare::Result(_) => 0,
            };
            for &(address, of) in &call.patches {
                if of < at {
                    // A descriptor or another small number: its low half is all of it.
                    let low = results.add(of + 1).cast::<u32>().read();
                    ptr::with_exposed_provenance_mut::<u32>(address).write(low);
                }
            }
            enter(call.entry, call.number, &call.arguments.each_ref().map(word))
        };
        // SAFETY: no arguments. A call that forks comes back twice: the second one must end without a trace.
        if unsafe { libc::syscall(libc::SYS_getpid) } != libc::c_long::from(own) {
            exit_copy(0);
        }
        // SAFETY: as above.
        unsafe {
            results.add(at + 1).write(result);
            results.write(i64::try_from(at + 1).unwrap_or(0));
        }
        if (-ERROR_MAX..0).contains(&result) {
            break;
        }
    }
    exit_copy(0)
}

/// Makes one call and returns what the kernel returned, errors as negative numbers.
///
/// # Safety
/// The process must be one that does nothing any more but to tell the result and end.
#[cfg(target_arch = "x86_64")]
unsafe fn enter(entry: Entry, number: u32, a: &[u64; ARGUMENTS_MAX]) -> i64 {
    let mut result = i64::from(number);
    match entry {
        // SAFETY: the caller's promise; registers are as the kernel's convention says (syscall(2)).
        Entry::Native => unsafe {
            std::arch::asm!("syscall", inlateout("rax") result, in("rdi") a[0], in("rsi") a[1], in("rdx") a[2],
                in("r10") a[3], in("r8") a[4], in("r9") a[5], lateout("rcx") _, lateout("r11") _);
        },
        // SAFETY: as above. rbx cannot be named as an operand, so it is kept on the stack. The sixth argument (ebp) is
        // left as it is: no call that is made this way has one.
        Entry::I386 => unsafe {
            std::arch::asm!("push rbx", "mov ebx, r8d", "int 0x80", "pop rbx", inlateout("rax") result,
                inlateout("r8") a[0] => _, in("rcx") a[1], in("rdx") a[2], in("rsi") a[3], in("rdi") a[4],
                lateout("r9") _, lateout("r10") _, lateout("r11") _);
            // 32-bit results come without a sign.
            result = i64::from(result as i32);
        },
    }
    result
}

/// Elsewhere there is one way in.
///
/// # Safety
/// The process must be one that does nothing any more but to tell the result and end.
#[cfg(not(target_arch = "x86_64"))]
unsafe fn enter(entry: Entry, number: u32, a: &[u64; ARGUMENTS_MAX]) -> i64 {
    if entry == Entry::I386 {
        return -i64::from(libc::ENOSYS);
    }
    // SAFETY: the caller's promise.
    let result = unsafe { libc::syscall(libc::c_long::from(number), a[0], a[1], a[2], a[3], a[4], a[5]) };
    if result < 0 { -i64::from(io::Error::last_os_error().raw_os_error().unwrap_or(0)) } else { result }
}

fn wait(child: i32) -> io::Result<i32> {
    let mut status = 0;
    loop {
        // SAFETY: `status` lives across the call.
        if unsafe { libc::waitpid(child, &raw mut status, 0) } == child {
            return Ok(status);
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_made_safely_is_not_made() {
        // A test has a thread beside the one of the program: a fork could leave a lock locked.
        assert_eq!(attempt(&[], 1).unwrap_err().raw_os_error(), Some(libc::EBUSY));
        let call = Call { entry: Entry::Native, number: 39, arguments: vec![Argument::Word(0); 7] };
        assert_eq!(attempt(&[call], 1).unwrap_err().raw_os_error(), Some(libc::E2BIG));
        let large = vec![Argument::Bytes(vec![0; ROOM_BYTES + 1])];
        let call = Call { entry: Entry::Native, number: 39, arguments: large };
        assert_eq!(attempt(&[call], 1).unwrap_err().raw_os_error(), Some(libc::E2BIG));
    }

    #[test]
    fn lists_have_the_words_of_their_way_and_know_where_results_go() {
        let mut room = Room { mapping: Mapping::new(ROOM_BYTES, libc::MAP_PRIVATE).unwrap(), used: 0 };
        let list = vec![Argument::List(vec![Argument::Word(1), Argument::Result(0)])];
        for (entry, bytes) in [(Entry::Native, 16_usize), (Entry::I386, 8)] {
            let before = room.used;
            let call = Call { entry, number: 1, arguments: list.clone() };
            let prepared = room.prepare(&call).unwrap();
            assert_eq!(room.used - before, bytes.next_multiple_of(ALIGNMENT));
            let start = room.mapping.start as usize + before;
            assert_eq!(prepared.patches, [(start + bytes / 2, 0)]);
        }
    }
}
