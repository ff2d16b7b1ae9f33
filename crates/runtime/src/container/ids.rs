// SPDX-License-Identifier: Apache-2.0
//! The ids of each sandbox: a block of the host's, or those of an ordinary user.
//!
//! Root gives each sandbox a block of user and group ids of its own. An ordinary user has the ids that he can map, and all
//! of his sandboxes have the same.
//!
//! Blocks are shared by all servers of a host: each block stands for one byte of one file, and whoever holds the lock on
//! that byte (an open file description lock, `fcntl(2)`) has the block. The kernel lets go of it when the server dies.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use jail::plan::IdBlock;
use jail::rights::{Rights, UserIds};
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;

use crate::volume::Owner;

/// Ids in one block: all that a program inside can name with 16 bits.
const BLOCK_IDS: u32 = 65_536;
/// The first id of the first block. From here up to 2^31 systemd's list of ids (`UIDS-GIDS`) has nothing.
const FIRST_ID: u32 = 0x7000_0000;
/// How many blocks there are.
const BLOCKS: u32 = 4095;
/// The file whose bytes are locked.
const LOCK_FILE: &str = "/run/microsandbox.ids";

/// Where ids come from.
#[derive(Debug)]
pub(crate) enum Ids {
    /// A block for each sandbox.
    Blocks(Arc<IdBlocks>),
    /// Those of the user.
    Own(UserIds),
}

/// The ids of one sandbox, held until they are dropped.
#[derive(Debug)]
pub(crate) struct HeldIds {
    /// As root of who builds the walls sees them.
    pub(crate) block: IdBlock,
    /// Those after it inside.
    pub(crate) more: Option<IdBlock>,
    /// Who root inside is on the host.
    pub(crate) owner: Owner,
    _held: Option<HeldBlock>,
}

impl Ids {
    /// Opens what there is with these rights.
    pub(crate) fn open(rights: &Rights) -> io::Result<Ids> {
        match rights {
            Rights::Root => Ok(Ids::Blocks(IdBlocks::open(Path::new(LOCK_FILE))?)),
            Rights::User(ids) => Ok(Ids::Own(ids.clone())),
        }
    }

    /// Takes ids for a sandbox; `None` when all are taken.
    pub(crate) fn take(&self) -> io::Result<Option<HeldIds>> {
        match self {
            Ids::Blocks(blocks) => Ok(blocks.take()?.map(|held| {
                let block = held.ids();
                HeldIds {
                    block,
                    more: None,
                    owner: Owner { user: block.first, group: block.first },
                    _held: Some(held),
                }
            })),
            // Root of the user's own namespace, and whoever else is in it.
            Ids::Own(ids) => Ok(Some(HeldIds {
                block: IdBlock { first: 0, count: 1 },
                more: ids.more.as_ref().map(|more| IdBlock { first: 1, count: more.count }),
                owner: Owner { user: ids.user, group: ids.group },
                _held: None,
            })),
        }
    }
}

/// The blocks of this host.
#[derive(Debug)]
pub(crate) struct IdBlocks {
    file: File,
    mine: Mutex<BTreeSet<u32>>,
}

/// One block, held until it is dropped.
#[derive(Debug)]
pub(crate) struct HeldBlock {
    blocks: Arc<IdBlocks>,
    number: u32,
}

impl IdBlocks {
    /// Opens the blocks of this host.
    pub(crate) fn open(path: &Path) -> io::Result<Arc<IdBlocks>> {
        use std::os::unix::fs::OpenOptionsExt;
        let file = fs_err::OpenOptions::new();
        let mut options = file;
        options.read(true).write(true).create(true).truncate(false).options_mut().mode(0o600);
        Ok(Arc::new(IdBlocks { file: options.open(path)?.into_parts().0, mine: Mutex::default() }))
    }

    /// Takes the lowest free block; `None` when all are taken.
    pub(crate) fn take(self: &Arc<Self>) -> io::Result<Option<HeldBlock>> {
        let mut mine = self.mine.lock().unwrap_or_else(PoisonError::into_inner);
        for number in 0..BLOCKS {
            // Locks of one description never conflict with each other, so our own are kept in a set.
            if !mine.contains(&number) && self.lock(number, libc::F_WRLCK)? {
                mine.insert(number);
                return Ok(Some(HeldBlock { blocks: Arc::clone(self), number }));
            }
        }
        Ok(None)
    }

    fn lock(&self, number: u32, kind: i32) -> io::Result<bool> {
        let request = libc::flock {
            l_type: i16::try_from(kind).map_err(io::Error::other)?,
            l_whence: 0,
            l_start: i64::from(number),
            l_len: 1,
            l_pid: 0,
        };
        match fcntl(&self.file, FcntlArg::F_OFD_SETLK(&request)) {
            Ok(_) => Ok(true),
            Err(nix::errno::Errno::EAGAIN | nix::errno::Errno::EACCES) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

impl HeldBlock {
    /// Returns its ids.
    pub(crate) fn ids(&self) -> IdBlock {
        IdBlock { first: FIRST_ID + self.number * BLOCK_IDS, count: BLOCK_IDS }
    }
}

impl Drop for HeldBlock {
    fn drop(&mut self) {
        let mut mine = self.blocks.mine.lock().unwrap_or_else(PoisonError::into_inner);
        match self.blocks.lock(self.number, libc::F_UNLCK) {
            Ok(_) => {
                mine.remove(&self.number);
            }
            // Kept in the set: a block that may still be locked is not given out again.
            Err(error) => tracing::warn!(%error, block = self.number, "cannot unlock an id block"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_servers_never_get_the_same_block_and_a_dropped_one_comes_back() {
        let path = std::env::temp_dir().join(format!("ids-test-{}", std::process::id()));
        let (one, two) = (IdBlocks::open(&path).unwrap(), IdBlocks::open(&path).unwrap());
        let a = one.take().unwrap().unwrap();
        let b = two.take().unwrap().unwrap();
        let c = one.take().unwrap().unwrap();
        let firsts = [a.ids().first, b.ids().first, c.ids().first];
        assert_eq!(firsts, [FIRST_ID, FIRST_ID + BLOCK_IDS, FIRST_ID + 2 * BLOCK_IDS]);
        drop(a);
        assert_eq!(two.take().unwrap().unwrap().ids().first, FIRST_ID);
        fs_err::remove_file(path).unwrap();
    }
}
