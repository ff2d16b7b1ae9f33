// SPDX-License-Identifier: Apache-2.0
//! The end of directories that strangers filled.

use std::os::fd::AsFd;

use image::unpack::remove_tree;
use rustix::fs::{Mode, OFlags, mkdirat, openat};

use super::place::Place;

#[test]
fn removal_follows_no_link() {
    let place = Place::new();
    fs_err::create_dir_all(place.layer().join("a/b/c")).unwrap();
    fs_err::create_dir_all(place.layer().join("a/d/e")).unwrap();
    fs_err::os::unix::fs::symlink("../canary", place.layer().join("link")).unwrap();
    fs_err::os::unix::fs::symlink("../../../../canary", place.layer().join("a/b/c/link")).unwrap();
    fs_err::write(place.layer().join("a/d/e/file"), "").unwrap();
    place.remove();
}

#[test]
fn a_link_in_its_place_is_removed_alone() {
    let place = Place::new();
    let home = fs_err::File::open(place.layer()).unwrap();
    fs_err::os::unix::fs::symlink("../canary", place.layer().join("link")).unwrap();
    remove_tree(home.as_fd(), c"link").unwrap();
    remove_tree(home.as_fd(), c"link").unwrap();
    place.check();
    assert_eq!(fs_err::read_dir(place.layer()).unwrap().count(), 0);
}

#[test]
fn only_a_name_is_removed() {
    let place = Place::new();
    let layer = fs_err::File::open(place.layer()).unwrap();
    for name in [c"", c".", c"..", c"../canary", c"/etc", c"a/b"] {
        let error = remove_tree(layer.as_fd(), name).unwrap_err();
        assert_eq!(error.to_string(), "not the name of an entry", "{name:?}");
    }
    place.check();
}

#[test]
fn a_tree_as_deep_as_a_layer_may_be_is_removed_and_a_deeper_one_is_not() {
    let deep = |depth: usize| {
        let place = Place::new();
        let mut directory = openat(rustix::fs::CWD, place.layer(), OFlags::RDONLY, Mode::empty()).unwrap();
        for _ in 0..depth {
            mkdirat(&directory, "d", Mode::RWXU).unwrap();
            directory = openat(&directory, "d", OFlags::RDONLY, Mode::empty()).unwrap();
        }
        place
    };
    deep(256).remove();
    let place = deep(300);
    let home = fs_err::File::open(place.layer().parent().unwrap()).unwrap();
    let error = remove_tree(home.as_fd(), c"layer").unwrap_err();
    assert_eq!(error.to_string(), "the tree is too deep");
}
