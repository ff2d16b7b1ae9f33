// SPDX-License-Identifier: Apache-2.0
//! Landlock (`landlock(7)`): what is outside of a directory stays closed, also to who holds a descriptor of it.
//!
//! It stands behind the other walls. A descriptor of a host directory that leaked, a link that leads out of the root, a
//! kernel error that gives capabilities back: none of them opens a file of the host, and no mount can be made, moved or
//! taken away. Devices take commands only beneath `/dev`, and where the kernel has scopes no signal and no abstract
//! socket crosses the border.
//!
//! It cannot take rights away below a directory that has them, so it is not what keeps `/proc` and `/sys` read-only:
//! a rule for `/` covers them, and rules for every other directory would close those that are made later.

use std::os::fd::{AsFd, OwnedFd};

use landlock::{
    ABI, Access, AccessFs, CompatLevel, Compatible, LandlockStatus, PathBeneath, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetStatus, Scope,
};

/// The newest rights that are asked for; an older kernel gives fewer.
const NEWEST: ABI = ABI::V6;

/// The directories that stay open.
pub(crate) struct Open<'fd> {
    /// All that can be done with files, but no commands to devices.
    pub(crate) root: &'fd OwnedFd,
    /// Where devices are.
    pub(crate) dev: Option<&'fd OwnedFd>,
    /// Where message queues are: calls that name one do not go through a path that the kernel sees below the root.
    pub(crate) queues: Option<&'fd OwnedFd>,
    /// A program outside that may be executed.
    pub(crate) program: Option<&'fd OwnedFd>,
}

/// Shuts everything else, for this process and all that it will start; needs no_new_privs.
///
/// # Errors
/// In words, when the kernel cannot do it, or not without breaking programs.
pub(crate) fn confine(open: &Open<'_>) -> Result<(), String> {
    let text = |error: landlock::RulesetError| error.to_string();
    let devices = AccessFs::from_all(NEWEST);
    let files = devices & !AccessFs::IoctlDev;
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(devices)
        .and_then(|ruleset| ruleset.scope(Scope::from_all(NEWEST)))
        .and_then(Ruleset::create)
        .and_then(|rules| rules.add_rule(PathBeneath::new(open.root.as_fd(), files)))
        .map_err(text)?;
    if let Some(dev) = open.dev {
        rules = rules.add_rule(PathBeneath::new(dev.as_fd(), devices)).map_err(text)?;
    }
    if let Some(queues) = open.queues {
        rules = rules.add_rule(PathBeneath::new(queues.as_fd(), files)).map_err(text)?;
    }
    if let Some(program) = open.program {
        let execute = AccessFs::Execute | AccessFs::ReadFile;
        rules = rules.add_rule(PathBeneath::new(program.as_fd(), execute)).map_err(text)?;
    }
    let status = rules.restrict_self().map_err(text)?;
    match (status.landlock, status.ruleset) {
        (LandlockStatus::NotImplemented, _) => Err("this kernel is built without landlock".to_owned()),
        (LandlockStatus::NotEnabled, _) => Err("landlock is not switched on in this kernel".to_owned()),
        // Before version 2 nothing can be renamed from one directory to another.
        (LandlockStatus::Available { effective_abi, .. }, _) if effective_abi < ABI::V2 => {
            Err("the landlock of this kernel is older than Linux 5.19 and would break programs".to_owned())
        }
        (LandlockStatus::Available { .. }, RulesetStatus::NotEnforced) => {
            Err("the kernel did not enforce the rules".to_owned())
        }
        (LandlockStatus::Available { .. }, _) => Ok(()),
    }
}
