// SPDX-License-Identifier: Apache-2.0
//! Kernel calls in the words of the list, and their numbers the other ways in.

use nix::libc;
use sys::attempt::{Argument, Call, Entry};

/// The bit in a number that makes it one of x32 (`asm/unistd.h`).
pub const X32_BIT: u32 = 0x4000_0000;
/// Bits that a kernel which takes an `int` never sees, and a filter that compares 64 bits does.
pub const HIGH_BITS: u64 = 0xffff_ffff_0000_0000;
/// The directory that the process is in, as an argument (`AT_FDCWD`).
pub const HERE: Argument = Argument::Word((-100_i64).cast_unsigned());

/// Makes a call in the way of this machine.
pub fn call(number: libc::c_long, arguments: impl Into<Vec<Argument>>) -> Call {
    let number = u32::try_from(number).expect("numbers of kernel calls are small and positive");
    Call { entry: Entry::Native, number, arguments: arguments.into() }
}

/// A number.
pub fn word(value: u64) -> Argument {
    Argument::Word(value)
}

/// A set of flags.
pub fn flags(value: i32) -> Argument {
    Argument::Word(u64::from(value.cast_unsigned()))
}

/// A descriptor that is none.
pub fn no_descriptor() -> Argument {
    Argument::Word(u64::MAX)
}

/// The address of a text.
pub fn text(value: &str) -> Argument {
    let mut bytes = value.as_bytes().to_vec();
    bytes.push(0);
    Argument::Bytes(bytes)
}

/// The address of that many zeros, for the kernel to read or to write.
pub fn room(bytes: usize) -> Argument {
    Argument::Bytes(vec![0; bytes])
}

/// The address of 32-bit words, then zeros up to a size.
pub fn words(values: &[u32], bytes: usize) -> Argument {
    let mut all: Vec<u8> = values.iter().flat_map(|value| value.to_ne_bytes()).collect();
    all.resize(bytes.max(all.len()), 0);
    Argument::Bytes(all)
}

/// Opens a path.
pub fn open(path: &str, how: i32) -> Call {
    call(libc::SYS_openat, [HERE, text(path), flags(how), word(0)])
}

/// Reads from what the first call opened.
pub fn read_first() -> Call {
    call(libc::SYS_read, [Argument::Result(0), room(4096), word(4096)])
}

/// Returns the same call as a 32-bit program makes it, where that is possible with the same arguments.
pub fn as_i386(of: &Call) -> Option<Call> {
    let native = libc::c_long::from(of.number);
    let (_, number) = I386.iter().find(|(from, _)| *from == native)?;
    Some(Call { entry: Entry::I386, number: *number, arguments: of.arguments.clone() })
}

/// Returns the same call by its number of x32.
pub fn as_x32(of: &Call) -> Call {
    Call { number: of.number | X32_BIT, ..of.clone() }
}

/// From numbers of this machine to those of 32-bit programs (`asm/unistd_32.h`). A call that takes a structure whose
/// fields have other places there still reaches the wall with the same number of arguments.
const I386: &[(libc::c_long, u32)] = &[
    (libc::SYS_mount, 21),
    (libc::SYS_umount2, 52),
    (libc::SYS_pivot_root, 217),
    (libc::SYS_chroot, 61),
    (libc::SYS_fsopen, 430),
    (libc::SYS_fsconfig, 431),
    (libc::SYS_fsmount, 432),
    (libc::SYS_fspick, 433),
    (libc::SYS_open_tree, 428),
    (libc::SYS_move_mount, 429),
    (libc::SYS_mount_setattr, 442),
    (libc::SYS_unshare, 310),
    (libc::SYS_clone, 120),
    (libc::SYS_clone3, 435),
    (libc::SYS_setns, 346),
    (libc::SYS_ptrace, 26),
    (libc::SYS_process_vm_readv, 347),
    (libc::SYS_process_vm_writev, 348),
    (libc::SYS_kcmp, 349),
    (libc::SYS_pidfd_getfd, 438),
    (libc::SYS_add_key, 286),
    (libc::SYS_request_key, 287),
    (libc::SYS_keyctl, 288),
    (libc::SYS_bpf, 357),
    (libc::SYS_perf_event_open, 336),
    (libc::SYS_userfaultfd, 374),
    (libc::SYS_io_uring_setup, 425),
    (libc::SYS_io_uring_enter, 426),
    (libc::SYS_io_uring_register, 427),
    (libc::SYS_name_to_handle_at, 341),
    (libc::SYS_open_by_handle_at, 342),
    (libc::SYS_personality, 136),
    (libc::SYS_clock_settime, 264),
    (libc::SYS_settimeofday, 79),
    (libc::SYS_adjtimex, 124),
    (libc::SYS_clock_adjtime, 343),
    (libc::SYS_init_module, 128),
    (libc::SYS_finit_module, 350),
    (libc::SYS_delete_module, 129),
    (libc::SYS_kexec_load, 283),
    (libc::SYS_reboot, 88),
    (libc::SYS_swapon, 87),
    (libc::SYS_swapoff, 115),
    (libc::SYS_acct, 51),
    (libc::SYS_quotactl, 131),
    (libc::SYS_syslog, 103),
    (libc::SYS_iopl, 110),
    (libc::SYS_ioperm, 101),
    (libc::SYS_modify_ldt, 123),
    (libc::SYS_fanotify_init, 338),
    (libc::SYS_memfd_secret, 447),
    (libc::SYS_sethostname, 74),
    (libc::SYS_setdomainname, 121),
    (libc::SYS_socket, 359),
    (libc::SYS_mknod, 14),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_keeps_its_arguments_on_the_other_ways() {
        let mount = call(libc::SYS_umount2, [text("/proc"), word(2)]);
        let old = as_i386(&mount).unwrap();
        assert_eq!((old.entry, old.number, &old.arguments), (Entry::I386, 52, &mount.arguments));
        let x32 = as_x32(&mount);
        assert_eq!((x32.entry, x32.number), (Entry::Native, 0x4000_0000 | 166));
        assert_eq!(as_i386(&call(libc::SYS_kexec_file_load, [])), None);
    }

    #[test]
    fn words_lie_one_after_the_other() {
        assert_eq!(words(&[1, 2], 12), Argument::Bytes([[1, 0, 0, 0], [2, 0, 0, 0], [0; 4]].concat()));
        assert_eq!(text("a"), Argument::Bytes(b"a\0".to_vec()));
    }
}
