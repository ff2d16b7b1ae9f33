// SPDX-License-Identifier: Apache-2.0
//! Installing a seccomp filter (`seccomp(2)`).

use std::io;

/// One instruction of classic BPF, as the kernel takes it (`linux/filter.h`, `struct sock_filter`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// The operation.
    pub code: u16,
    /// How many instructions to skip when a comparison holds.
    pub jump_true: u8,
    /// How many to skip when it does not.
    pub jump_false: u8,
    /// The operand.
    pub operand: u32,
}

/// Puts a filter on the calling thread and all it will ever start; no_new_privs must be set before.
///
/// # Errors
/// `EINVAL` for a program that the kernel rejects or that is longer than 4096 instructions, `EACCES` without no_new_privs.
pub fn install(program: &[Instruction]) -> io::Result<()> {
    let mut filter: Vec<libc::sock_filter> = program
        .iter()
        .map(|i| libc::sock_filter { code: i.code, jt: i.jump_true, jf: i.jump_false, k: i.operand })
        .collect();
    let length = u16::try_from(filter.len()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    let program = libc::sock_fprog { len: length, filter: filter.as_mut_ptr() };
    // SAFETY: `program` points to `length` instructions, both alive across the call; the kernel copies and checks them.
    let result =
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
