// SPDX-License-Identifier: Apache-2.0
//! Names resolved against directories on the disk; the store of images and archives of them, with several processes.
//! The host image needs root: its mask is a trusted attribute.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, and says why it was skipped")]

mod archive;
mod crash;
mod hostile_archive;
mod registry;
mod sample;
mod store;
mod store_sharing;
mod unpack;

use std::path::Path;

use image::{Allowed, ImageName, ResolveError, Resolver};

fn name(text: &str) -> ImageName {
    ImageName::parse(text).unwrap()
}

#[test]
fn only_directories_that_the_operator_allows_are_images() {
    let home = tempfile::tempdir().unwrap();
    let allowed = tempfile::tempdir().unwrap();
    let other = tempfile::tempdir().unwrap();
    fs_err::create_dir(allowed.path().join("alpine")).unwrap();
    fs_err::write(allowed.path().join("file"), "").unwrap();
    fs_err::os::unix::fs::symlink(other.path(), allowed.path().join("out")).unwrap();
    let rules = Allowed { host: false, rootfs: vec![allowed.path().to_owned()] };
    let resolver = Resolver::new(home.path(), rules).unwrap();
    let resolve = |path: &Path| resolver.resolve(&ImageName::Directory(path.to_owned()));

    let rootfs = resolve(&allowed.path().join("alpine")).unwrap();
    assert_eq!(rootfs.mounts[0].at, "/");
    assert!(resolve(&allowed.path().join("../").join(allowed.path().file_name().unwrap())).is_ok());
    for refused in ["out", "file", "missing", "alpine/../../", "out/.."] {
        let result = resolve(&allowed.path().join(refused));
        assert!(matches!(result, Err(ResolveError::Directory(_))), "{refused}: {result:?}");
    }
    assert!(resolve(Path::new("/")).is_err());
}

#[test]
fn names_that_nobody_serves_are_unknown_with_a_remedy() {
    let home = tempfile::tempdir().unwrap();
    let resolver = Resolver::new(home.path(), Allowed::default()).unwrap();
    let error = resolver.resolve(&name("alpine")).unwrap_err();
    assert_eq!(error.to_string(), "no image alpine here");
    let error = resolver.resolve(&name("microsandbox/python")).unwrap_err();
    assert!(error.remedy().contains("--allow-host-image"), "{}", error.remedy());
}

#[test]
fn the_host_image_shows_what_is_listed_and_nothing_else() {
    if !rustix::process::geteuid().is_root() {
        assert!(std::env::var_os("MSB_TEST_REQUIRE").is_none(), "the host image needs root");
        eprintln!("skipped: not root");
        return;
    }
    let (home, host) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for directory in ["usr/local/etc", "usr/src", "etc/ssl/private", "etc/alternatives"] {
        fs_err::create_dir_all(host.path().join(directory)).unwrap();
    }
    for file in ["etc/shadow", "etc/machine-id", "etc/ssl/private/key", "etc/services", "etc/passwd"] {
        fs_err::write(host.path().join(file), "of the host").unwrap();
    }
    fs_err::os::unix::fs::symlink("/usr/bin/vim", host.path().join("etc/alternatives/editor")).unwrap();
    fs_err::os::unix::fs::symlink("usr/bin", host.path().join("bin")).unwrap();
    let rootfs = image::host::build(home.path(), host.path()).unwrap();
    let root = rootfs.mounts[0].lowers[0].clone();
    for absent in ["etc/shadow", "etc/machine-id", "etc/ssl/private", "sbin"] {
        assert!(!root.join(absent).exists(), "{absent}");
    }
    assert_eq!(fs_err::read_to_string(root.join("etc/services")).unwrap(), "of the host");
    assert!(fs_err::read_to_string(root.join("etc/passwd")).unwrap().starts_with("root:x:0:0:"));
    assert_eq!(fs_err::read_link(root.join("bin")).unwrap(), Path::new("usr/bin"));
    assert!(fs_err::read_link(root.join("etc/alternatives/editor")).is_ok());
    assert_eq!(rootfs.mounts[1].at, "/usr");
    assert!(rootfs.mounts[1].lowers[0].join("local/etc").is_dir());
    // A second server start replaces it.
    assert_eq!(image::host::build(home.path(), host.path()).unwrap(), rootfs);
}
