// SPDX-License-Identifier: Apache-2.0
//! Writable layers: what sandboxes write, on the host.
//!
//! ```text
//! <home>/sandboxes/<sandbox id>/
//!   agent.sock           how the server reaches the agent
//!   process              which process is the sandbox's first
//!   scratch              an empty directory, a place for mounts while the jail works
//!   layers/0/upper       the writes to the first mount of the rootfs
//!   layers/0/work        the kernel's room beside them
//!   layers/1/...         those to the second, and so on
//! ```
//!
//! With [`btrfs`], `layers` is empty and a mount point: in the jail's own mount namespace alone, the sandbox's subvolume
//! of a volume of our own is mounted there. Its size is limited, and counted by the kernel. With [`plain`], `layers` is a
//! directory like any other: nothing limits it, and it is counted file by file.
//!
//! What is below `upper` was made by hostile code: it is only ever reached by descriptor, one name at a time, and links
//! are never followed.

mod backing;
mod btrfs;
mod layers;
mod plain;
mod remover;
mod shared;

use std::io;
use std::path::{Path, PathBuf};

use jail::plan::WritableLayers;
pub use jail::remove::remove_tree;
use protocol::isolation::{Protection, ProtectionName};

use self::btrfs::Btrfs;
pub(crate) use self::layers::{NewLayers, Owner};
pub(crate) use self::remover::Remover;
pub use self::shared::{AllowedVolume, VolumeError, find_volumes};
use crate::spec::SandboxId;

/// What an operator decides about writable layers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DiskStore {
    /// Where they are.
    pub kind: DiskStoreKind,
    /// Size of the volume, in MiB; by default a share of what is free.
    pub size_mib: Option<u64>,
}

/// Where writable layers are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DiskStoreKind {
    /// On a volume with limits if this host can have one, else in directories.
    #[default]
    Auto,
    /// On a volume with limits, or not at all.
    Btrfs,
    /// In directories, without limits.
    Plain,
}

/// The writable layers of one server.
#[derive(Debug)]
pub(crate) struct Volume {
    root: PathBuf,
    limited: Result<Btrfs, Gap>,
    remover: Remover,
}

/// Why there is no volume with limits.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Gap {
    why: String,
    mend: &'static str,
}

impl Volume {
    /// Opens the volume below a home, making it if there is none.
    pub(crate) fn open(home: &Path, wanted: &DiskStore, remover: Remover) -> io::Result<Volume> {
        let root = home.join("sandboxes");
        fs_err::create_dir_all(&root)?;
        let limited = match wanted.kind {
            DiskStoreKind::Plain => Err(Gap {
                why: "the operator chose plain directories".to_owned(),
                mend: "start the server with --disk-store auto",
            }),
            DiskStoreKind::Auto | DiskStoreKind::Btrfs if !remover.is_root() => Err(Gap {
                why: "only root can mount a volume with limits".to_owned(),
                mend: "run the server as root",
            }),
            DiskStoreKind::Auto | DiskStoreKind::Btrfs => Btrfs::open(home, wanted.size_mib),
        };
        match &limited {
            Ok(volume) => tracing::info!(
                size_mib = volume.size_mib(),
                accounting = volume.accounting(),
                "sandboxes write on a volume of their own, with a limit each"
            ),
            Err(gap) if wanted.kind == DiskStoreKind::Btrfs => {
                return Err(io::Error::other(format!("{} (to mend it: {})", gap.why, gap.mend)));
            }
            Err(gap) => tracing::warn!(
                why = gap.why,
                mend = gap.mend,
                "no limit on what a sandbox writes: it can fill the disk of the home"
            ),
        }
        Ok(Volume { root, limited, remover })
    }

    /// Returns the most that a sandbox's limit can be, in MiB; `None` where nothing is limited.
    pub(crate) fn disk_mib_max(&self) -> Option<u32> {
        let volume = self.limited.as_ref().ok()?;
        Some(u32::try_from(volume.size_mib()).unwrap_or(u32::MAX))
    }

    /// Says which limits on what a sandbox writes are in force. Metadata counts, so one limit is both.
    pub(crate) fn protections(&self) -> Vec<Protection> {
        let one = |name| match &self.limited {
            Ok(_) => Protection::on(name),
            Err(gap) => Protection::off(name, gap.why.as_str()).mend(gap.mend),
        };
        vec![one(ProtectionName::DiskLimit), one(ProtectionName::InodeLimit)]
    }

    /// The directory of one sandbox.
    fn directory(&self, id: &SandboxId) -> PathBuf {
        self.root.join(id.as_str())
    }

    fn layers(&self, id: &SandboxId) -> PathBuf {
        self.directory(id).join("layers")
    }

    /// Where it is written down which process is the first of one sandbox.
    pub(crate) fn process_file(&self, id: &SandboxId) -> PathBuf {
        self.directory(id).join("process")
    }

    /// An empty directory of one sandbox.
    pub(crate) fn scratch(&self, id: &SandboxId) -> PathBuf {
        self.directory(id).join("scratch")
    }

    /// Says how the jail gets at the layers; `None` when they are there for everybody.
    pub(crate) fn hidden_layers(&self, id: &SandboxId) -> Option<WritableLayers> {
        let volume = self.limited.as_ref().ok()?;
        Some(WritableLayers {
            namespace: volume.namespace(),
            from: Path::new("/").join(id.as_str()),
            at: self.layers(id),
        })
    }

    /// The upper and work directories of one sandbox, one pair for each mount, as the jail sees them.
    pub(crate) fn uppers(&self, id: &SandboxId, mounts: usize) -> Vec<(PathBuf, PathBuf)> {
        let pair = |number: usize| {
            let directory = self.layers(id).join(number.to_string());
            (directory.join("upper"), directory.join("work"))
        };
        (0..mounts).map(pair).collect()
    }

    /// Makes the layers of one sandbox.
    pub(crate) fn create(&self, id: &SandboxId, new: &NewLayers<'_>) -> io::Result<()> {
        fs_err::create_dir(self.directory(id))?;
        fs_err::create_dir(self.scratch(id))?;
        fs_err::create_dir(self.layers(id))?;
        match &self.limited {
            Ok(volume) => {
                let subvolume = volume.create(id.as_str(), new.bytes_max)?;
                layers::fill(&subvolume, new)
            }
            Err(_) => layers::fill(&self.layers(id), new),
        }
    }

    /// Counts the bytes that one sandbox's layers take on the disk.
    pub(crate) fn measure(&self, id: &SandboxId) -> io::Result<u64> {
        match &self.limited {
            Ok(volume) => volume.usage(id.as_str()),
            Err(_) => plain::measure(&self.layers(id)),
        }
    }

    /// Removes everything of one sandbox; nothing there is no error.
    pub(crate) fn remove(&self, id: &SandboxId) -> io::Result<()> {
        let destroyed = match &self.limited {
            Ok(volume) => volume.destroy(id.as_str()),
            Err(_) => Ok(()),
        };
        self.remover.remove(&self.directory(id)).and(destroyed)
    }

    /// Lists the sandboxes that have layers.
    pub(crate) fn list(&self) -> io::Result<Vec<SandboxId>> {
        let mut found = Vec::new();
        for entry in fs_err::read_dir(&self.root)? {
            found.extend(entry?.file_name().to_str().and_then(SandboxId::parse));
        }
        if let Ok(volume) = &self.limited {
            found.extend(volume.names()?.iter().filter_map(|name| SandboxId::parse(name)));
        }
        Ok(found)
    }
}
