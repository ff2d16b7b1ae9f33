// SPDX-License-Identifier: Apache-2.0
//! The attack list: what hostile code tries in a sandbox, what the wall must answer, and how it is shown that the same
//! attempt would get somewhere without the wall.
//!
//! ```text
//! list ── lines ──▶ msb selftest ── command ──▶ msb-probe in a sandbox ── Finding ──▶ judge: Pass | Fail |
//!                        └───────── spawns ──▶ msb-probe as a control ─── Finding ──▶        NotApplicable
//! ```
//!
//! Everything here is plain data; `msb-probe` is what tries it. A control runs as whoever started it, with no filter and
//! all rights, so it is in kernel namespaces of its own with a root file system in memory. What has no namespace (clock,
//! modules, kexec, switches of the kernel) it asks for in a way that the kernel refuses for another reason, *after* it
//! has looked at the caller's rights: the other error number shows that nothing else stood in the way.

pub mod abi;
pub mod answer;
pub mod judge;
pub mod line;
pub mod list;

pub use answer::{Answer, Finding};
pub use judge::{Verdict, judge};
pub use line::{Act, Control, Group, Line, Probe, Scene, Wanted};
pub use list::list;

/// Gives this process a mount table of its own: from here on mounts of others do not show up in it, and none that an
/// attack makes shows up elsewhere.
///
/// # Errors
/// What the kernel says.
pub fn keep_mounts_apart() -> std::io::Result<()> {
    use rustix::mount::{MountPropagationFlags, mount_change};
    if !rustix::process::geteuid().is_root() {
        // An ordinary user's attacks change no table of the host's, and he has no right to one of his own.
        return Ok(());
    }
    sys::namespace::unshare_mounts()?;
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    Ok(())
}

/// The mark on whatever a probe makes: a file, an interface, a segment. Found where it should not be, it tells of a hole.
pub const MARK: &str = "msb-attack";
/// Most output that one run of a probe makes, in bytes.
pub const FINDINGS_BYTES_MAX: usize = 1024 * 1024;
