// SPDX-License-Identifier: Apache-2.0
//! What the machine has.

use std::io;

/// The machine's size, read once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Host {
    /// Its memory in MiB.
    pub memory_mib: u32,
    /// Its processors.
    pub cpus: u32,
}

impl Host {
    /// Reads it from the kernel.
    ///
    /// # Errors
    /// When `/proc/meminfo` cannot be read or does not say.
    pub fn read() -> io::Result<Host> {
        let text = fs_err::read_to_string("/proc/meminfo")?;
        let silent = || io::Error::new(io::ErrorKind::InvalidData, "/proc/meminfo says no MemTotal");
        let memory_mib = memory_mib(&text).ok_or_else(silent)?;
        let cpus = std::thread::available_parallelism()?.get();
        Ok(Host { memory_mib, cpus: u32::try_from(cpus).unwrap_or(u32::MAX) })
    }
}

fn memory_mib(meminfo: &str) -> Option<u32> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(u32::try_from(kib / 1024).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_is_what_the_kernel_says() {
        assert_eq!(memory_mib("MemTotal:       24669068 kB\nMemFree: 1 kB\n"), Some(24090));
        assert_eq!(memory_mib("MemFree: 1 kB\n"), None);
        let host = Host::read().unwrap();
        assert!(host.memory_mib > 0 && host.cpus > 0);
    }
}
