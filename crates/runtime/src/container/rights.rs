// SPDX-License-Identifier: Apache-2.0
//! With whose rights walls are built here: those of root, or those of the user who runs the server.
//!
//! A user can map his own id. With the programs `newuidmap` and `newgidmap`, and a range in `/etc/subuid` and
//! `/etc/subgid`, he can map more; whether that works is tried.

use std::path::{Path, PathBuf};

use jail::facts::{Facts, What};
use jail::rights::{Rights, SubIds, UserIds};

use super::probe;

/// Ids that a sandbox should have beside root: with them, all that a program inside can name with 16 bits.
const MORE_IDS: u32 = 65_535;
const USER_RANGES: &str = "/etc/subuid";
const GROUP_RANGES: &str = "/etc/subgid";
const PLACES: [&str; 3] = ["/usr/bin", "/bin", "/usr/local/bin"];

/// What there is to stand on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Standing {
    /// The rights.
    pub(super) rights: Rights,
    /// Why an ordinary user has one id alone, if that is so.
    pub(super) one_id: Option<Gap>,
}

/// What keeps a user from more ids, and what would help.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Gap {
    pub(super) why: String,
    pub(super) mend: String,
}

/// Finds out with whose rights walls can be built, and tries what this host can do with them.
pub(super) fn find(jail: &Path, home: &Path) -> (Standing, Facts) {
    let user = rustix::process::geteuid();
    if user.is_root() {
        let rights = Rights::Root;
        let facts = probe::facts(jail, home, &rights);
        return (Standing { rights, one_id: None }, facts);
    }
    let (user, group) = (user.as_raw(), rustix::process::getegid().as_raw());
    let alone = Rights::User(UserIds { user, group, more: None });
    let gap = match more_ids(user) {
        Ok(more) => {
            let rights = Rights::User(UserIds { user, group, more: Some(more) });
            let facts = probe::facts(jail, home, &rights);
            match facts.failure(What::IdRange) {
                None => return (Standing { rights, one_id: None }, facts),
                Some(why) => Gap {
                    why: format!("its range of ids cannot be mapped: {why}"),
                    mend: "start the server where set-id programs work: outside of containers and without no_new_privs"
                        .to_owned(),
                },
            }
        }
        Err(gap) => gap,
    };
    let facts = probe::facts(jail, home, &alone);
    (Standing { rights: alone, one_id: Some(gap) }, facts)
}

fn more_ids(user: u32) -> Result<SubIds, Gap> {
    let name = name_of(user, &fs_err::read_to_string("/etc/passwd").unwrap_or_default());
    let called = name.clone().unwrap_or_else(|| user.to_string());
    let program = |name: &str| {
        PLACES.iter().map(|place| Path::new(place).join(name)).find(|path| path.is_file()).ok_or_else(|| {
            Gap {
                why: format!("{name} is not installed"),
                mend: "install the package uidmap (Debian, Ubuntu) or shadow-utils (Fedora)".to_owned(),
            }
        })
    };
    let programs: (PathBuf, PathBuf) = (program("newuidmap")?, program("newgidmap")?);
    let first = |file: &str| {
        let text = fs_err::read_to_string(file).unwrap_or_default();
        range(&text, user, name.as_deref()).ok_or_else(|| Gap {
            why: format!("{called} has no range of {MORE_IDS} ids in {file}"),
            mend: format!("sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {called}"),
        })
    };
    Ok(SubIds {
        first_user: first(USER_RANGES)?,
        first_group: first(GROUP_RANGES)?,
        count: MORE_IDS,
        map_users: programs.0,
        map_groups: programs.1,
    })
}

/// Finds a user's name in the text of `/etc/passwd`.
fn name_of(user: u32, passwd: &str) -> Option<String> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, id) = (fields.next()?, fields.nth(1)?);
        (id.parse() == Ok(user)).then(|| name.to_owned())
    })
}

/// Finds the first range that is large enough (`subuid(5)`); it belongs to a name or to an id.
fn range(text: &str, user: u32, name: Option<&str>) -> Option<u32> {
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (owner, first, count) = (fields.next()?, fields.next()?, fields.next()?);
        let is_ours = Some(owner) == name || owner.parse() == Ok(user);
        let (first, count): (u32, u32) = (first.parse().ok()?, count.trim().parse().ok()?);
        (is_ours && count >= MORE_IDS && first.checked_add(count).is_some()).then_some(first)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_belongs_to_a_name_or_an_id_and_is_large_enough() {
        let text = "ann:100000:65536\nbob:1:10\nbob:300000:65536\n\n1002:500000:70000\nbad:x:y\nbob:4294967290:65536\n";
        let of = |user: u32, name| range(text, user, name);
        assert_eq!(of(1000, Some("ann")), Some(100_000));
        assert_eq!(of(1001, Some("bob")), Some(300_000));
        assert_eq!(of(1002, None), Some(500_000));
        assert_eq!(of(1003, Some("bad")), None);
        assert_eq!(of(1004, None), None);
        assert_eq!(range("x:4294967290:65536\n", 1, Some("x")), None);
    }

    #[test]
    fn a_name_is_found_by_the_id() {
        let passwd = "root:x:0:0::/root:/bin/sh\nann:x:1000:1001:Ann:/home/ann:/bin/sh\n";
        assert_eq!(name_of(1000, passwd).as_deref(), Some("ann"));
        assert_eq!(name_of(1001, passwd), None);
    }
}
