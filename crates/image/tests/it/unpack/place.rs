// SPDX-License-Identifier: Apache-2.0
//! Where layers are unpacked in tests: a directory with a neighbour that nothing may touch.

use std::collections::BTreeMap;
use std::ffi::CStr;
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use image::unpack::{Budget, Refusal, UnpackError, Unpacked, remove_tree, unpack};

pub(crate) struct Place {
    home: tempfile::TempDir,
    before: BTreeMap<PathBuf, String>,
}

/// Says whether layers can be unpacked here; with `MSB_TEST_REQUIRE` it is a failure if not.
#[expect(clippy::print_stderr, reason = "says why it was skipped")]
pub(crate) fn possible() -> bool {
    let root = rustix::process::geteuid().is_root();
    assert!(root || std::env::var_os("MSB_TEST_REQUIRE").is_none(), "unpacking needs root");
    if !root {
        eprintln!("skipped: not root");
    }
    root
}

const LAYER: &CStr = c"layer";

impl Place {
    pub(crate) fn new() -> Place {
        let home = tempfile::tempdir().unwrap();
        fs_err::create_dir_all(home.path().join("canary/inside")).unwrap();
        fs_err::write(home.path().join("canary/file"), "sings").unwrap();
        fs_err::os::unix::fs::symlink("file", home.path().join("canary/link")).unwrap();
        fs_err::create_dir(home.path().join("layer")).unwrap();
        let before = describe(&home.path().join("canary"));
        Place { home, before }
    }

    pub(crate) fn layer(&self) -> PathBuf {
        self.home.path().join("layer")
    }

    pub(crate) fn unpack(&self, tar: impl Read) -> Result<Unpacked, UnpackError> {
        self.unpack_within(tar, &Budget::for_image())
    }

    pub(crate) fn unpack_within(&self, tar: impl Read, budget: &Budget) -> Result<Unpacked, UnpackError> {
        let layer = fs_err::File::open(self.layer()).unwrap();
        let result = unpack(tar, layer.as_fd(), budget);
        self.check();
        result
    }

    /// Checks that nothing beside the layer has changed.
    pub(crate) fn check(&self) {
        assert_eq!(describe(&self.home.path().join("canary")), self.before, "something outside was touched");
        let beside = fs_err::read_dir(self.home.path()).unwrap().map(|entry| entry.unwrap().file_name());
        let mut beside: Vec<_> = beside.collect();
        beside.sort();
        assert_eq!(beside, ["canary", "layer"]);
    }

    /// Removes the layer, whatever is in it, and checks that nothing is left.
    pub(crate) fn remove(&self) {
        let home = fs_err::File::open(self.home.path()).unwrap();
        remove_tree(home.as_fd(), LAYER).unwrap();
        assert!(!self.layer().exists());
        fs_err::create_dir(self.layer()).unwrap();
        self.check();
    }
}

/// All that can be told of a tree, but for inode numbers and the times of changes of inodes.
pub(crate) fn describe(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut ways = vec![root.to_owned()];
    while let Some(way) = ways.pop() {
        let status = fs_err::symlink_metadata(&way).unwrap();
        let kind = status.file_type();
        let content = if kind.is_symlink() {
            format!("{:?}", fs_err::read_link(&way).unwrap())
        } else if kind.is_file() {
            format!("{:?}", fs_err::read(&way).unwrap())
        } else {
            String::new()
        };
        if kind.is_dir() {
            ways.extend(fs_err::read_dir(&way).unwrap().map(|entry| entry.unwrap().path()));
        }
        let (mode, uid, gid) = (status.mode(), status.uid(), status.gid());
        let time = (status.mtime(), status.mtime_nsec());
        let links = if kind.is_dir() { 1 } else { status.nlink() };
        let text = format!("{mode:o} {uid}:{gid} {time:?} {links} {content}");
        found.insert(way.strip_prefix(root).unwrap().to_owned(), text);
    }
    found
}

/// Unpacks what is to be refused, and checks why, what it says, and what it leaves behind.
#[track_caller]
pub(crate) fn refused(tar: &[u8], why: Refusal, text: &str) {
    let place = Place::new();
    let error = place.unpack(tar).unwrap_err();
    assert_eq!(error.to_string(), text);
    let UnpackError::Refused { refusal, .. } = error else { panic!("{error:?}") };
    assert_eq!(refusal, why);
    place.remove();
}
