// SPDX-License-Identifier: Apache-2.0
//! Why a layer is not unpacked.

use std::io;

use rustix::io::Errno;

/// Most characters of an entry's name that an error repeats.
const SHOWN_CHARS_MAX: usize = 200;

/// Why a layer was not unpacked. What is there by then is of no use, and removed by the caller.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// The layer is of a kind that is not unpacked: the media type, and what is wrong with it.
    #[error("layers of type {0:?} are not unpacked: {1}")]
    MediaType(String, &'static str),
    /// The blob cannot be read, or what comes of it.
    #[error("cannot read the layer")]
    Read(#[source] io::Error),
    /// The blob is not compressed as its media type says, or damaged.
    #[error("cannot decompress the layer as {0}")]
    Compression(&'static str, #[source] io::Error),
    /// The blob or the archive in it ends too early.
    #[error("the layer ends before its archive does")]
    Truncated,
    /// Something other than zeros follows the archive.
    #[error("the layer has data after the end of its archive")]
    Trailing,
    /// The layer, or its image, is larger than a bound allows.
    #[error("the layer has more than {max} {what}")]
    Limit {
        /// What there is too much of.
        what: &'static str,
        /// How much of it is allowed.
        max: u64,
    },
    /// An entry is not unpacked.
    #[error("refused the entry {entry}: {refusal}")]
    Refused {
        /// The entry's name, shortened and escaped.
        entry: String,
        /// What is wrong with it.
        refusal: Refusal,
    },
    /// The host refused to make an entry.
    #[error("cannot write the entry {entry}")]
    Write {
        /// The entry's name, shortened and escaped.
        entry: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

/// What is wrong with an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The header is no header of a tar archive.
    #[error("its header {0}")]
    Header(&'static str),
    /// The name leads out of the layer, or nowhere.
    #[error("its name {0}")]
    Name(&'static str),
    /// A kind of file that layers do not have.
    #[error("it is {0}")]
    Kind(&'static str),
    /// The user or group is none that a sandbox has.
    #[error("its owner is beyond the ids of a sandbox, 0 to 65535")]
    Owner,
    /// The size cannot be.
    #[error("its size {0}")]
    Size(&'static str),
    /// The PAX records that describe it cannot be read, or contradict it.
    #[error("its PAX header {0}")]
    Pax(&'static str),
    /// The map of a sparse file cannot be.
    #[error("its sparse map {0}")]
    Sparse(&'static str),
    /// What should be its directory is something else.
    #[error("it is below {0}")]
    Parent(&'static str),
    /// A hard link to something that can have none.
    #[error("it is a hard link to {0}")]
    HardLink(&'static str),
    /// The target of a link is no name.
    #[error("its target {0}")]
    Target(&'static str),
    /// The layer has an entry of this name already.
    #[error("the layer has an entry of this name already")]
    Duplicate,
    /// A whiteout of something that cannot be removed.
    #[error("it is a whiteout {0}")]
    Whiteout(&'static str),
    /// The extended attributes are too many or too long.
    #[error("its extended attributes {0}")]
    Attribute(&'static str),
}

/// What stops the work on an entry whose name the one who stops does not know.
#[derive(Debug)]
pub(super) enum Fault {
    Refused(Refusal),
    Kernel(Errno),
    Stop(UnpackError),
}

impl Fault {
    /// Names the entry.
    pub(super) fn of(self, entry: &[u8]) -> UnpackError {
        match self {
            Fault::Refused(refusal) => UnpackError::Refused { entry: shown(entry), refusal },
            Fault::Kernel(errno) => UnpackError::Write { entry: shown(entry), source: errno.into() },
            Fault::Stop(error) => error,
        }
    }
}

impl From<Refusal> for Fault {
    fn from(refusal: Refusal) -> Fault {
        Fault::Refused(refusal)
    }
}

impl From<Errno> for Fault {
    fn from(errno: Errno) -> Fault {
        Fault::Kernel(errno)
    }
}

impl From<UnpackError> for Fault {
    fn from(error: UnpackError) -> Fault {
        Fault::Stop(error)
    }
}

impl UnpackError {
    /// Gets back the error that a reader of ours put into one of the standard library.
    pub(super) fn of_reader(error: io::Error) -> UnpackError {
        match error.downcast::<UnpackError>() {
            Ok(ours) => ours,
            Err(error) => UnpackError::Read(error),
        }
    }
}

/// Shows a name that a stranger chose: in quotes, escaped, and shortened.
fn shown(name: &[u8]) -> String {
    let text = String::from_utf8_lossy(name);
    let mut short: String = text.chars().take(SHOWN_CHARS_MAX).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    format!("{short:?}")
}
