// SPDX-License-Identifier: Apache-2.0
//! Whose the files of an image are on this host.
//!
//! Root gives each file the owner that its layer names. An ordinary user owns all that he unpacks, and is root in his
//! sandboxes, so there everything is root's; who an image says owns a file is lost. His sandboxes are mounted with other
//! marks of overlayfs (`userxattr`), too.

/// What becomes of owners.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OwnerPolicy {
    /// They are kept.
    Kept,
    /// Everything is this user's.
    Squashed,
}

impl OwnerPolicy {
    /// What this process can do.
    pub(crate) fn of_this_process() -> OwnerPolicy {
        if rustix::process::geteuid().is_root() { OwnerPolicy::Kept } else { OwnerPolicy::Squashed }
    }

    /// The attribute that makes overlayfs hide what the layers below have in a directory.
    pub(crate) fn opaque(self) -> &'static str {
        match self {
            OwnerPolicy::Kept => "trusted.overlay.opaque",
            OwnerPolicy::Squashed => "user.overlay.opaque",
        }
    }
}
