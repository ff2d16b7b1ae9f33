// SPDX-License-Identifier: Apache-2.0
//! Memory by every road that leads to the kernel's.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;

use attack::line::Memory;
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair, sockopt};
use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};

const MIB: usize = 1024 * 1024;
/// Where files in memory are.
const SHARED_FILE: &str = "/dev/shm/msb-attack-fill";

/// Takes memory, at most so many MiB, and returns how many it got; it is given back when this process ends.
pub(super) fn take(kind: Memory, most_mib: u32) -> io::Result<i64> {
    let most = usize::try_from(most_mib).unwrap_or(usize::MAX).saturating_mul(MIB);
    let taken = match kind {
        Memory::Own => own(most),
        Memory::SharedFiles => {
            let file = File::create(SHARED_FILE)?;
            // The file has no name any more, so that it ends with this process.
            fs_err::remove_file(SHARED_FILE)?;
            write_all_there_is(file, most)
        }
        Memory::MemoryFiles => write_all_there_is(memfd_create("x", MemfdFlags::CLOEXEC)?.into(), most),
        Memory::Pipes => stuff(most, || {
            let (reader, writer) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
            let _ = fcntl_setpipe_size(&writer, MIB);
            Ok((reader, writer))
        }),
        Memory::Sockets => stuff(most, || {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let pair = socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
            let _ = sockopt::set_socket_send_buffer_size(&pair.1, MIB);
            Ok(pair)
        }),
    };
    Ok(i64::try_from(taken / MIB).unwrap_or(i64::MAX))
}

fn own(most: usize) -> usize {
    let mut blocks = Vec::new();
    while blocks.len() * MIB < most {
        let mut block = Vec::new();
        if block.try_reserve_exact(MIB).is_err() {
            break;
        }
        // Not zero, so that the pages cannot be the kernel's empty one.
        block.resize(MIB, 0x5a_u8);
        blocks.push(std::hint::black_box(block));
    }
    blocks.len() * MIB
}

fn write_all_there_is(mut file: File, most: usize) -> usize {
    let chunk = vec![0x5a; MIB];
    let mut written = 0;
    while written < most && file.write_all(&chunk).is_ok() {
        written += MIB;
    }
    written
}

/// Fills one buffer of the kernel after the other.
fn stuff(most: usize, mut make: impl FnMut() -> rustix::io::Result<(OwnedFd, OwnedFd)>) -> usize {
    let chunk = vec![0x5a; 64 * 1024];
    let mut held = Vec::new();
    let mut written = 0;
    while written < most {
        let Ok((reader, writer)) = make() else { break };
        while written < most
            && let Ok(bytes) = rustix::io::write(&writer, &chunk)
        {
            written += bytes;
        }
        held.push((reader, writer));
    }
    written
}
