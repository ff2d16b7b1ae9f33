// SPDX-License-Identifier: Apache-2.0
//! Any tree survives the way through an archive that another writer made.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::place::{Place, possible};

#[derive(Clone, Debug)]
enum Node {
    File(Vec<u8>),
    Symlink(Vec<u8>),
    Directory(BTreeMap<Vec<u8>, Meant>),
}

#[derive(Clone, Debug)]
struct Meant {
    node: Node,
    mode: u32,
    owner: (u32, u32),
    modified: u32,
}

fn name() -> impl Strategy<Value = Vec<u8>> {
    let byte = any::<u8>().prop_filter("no name", |byte| !matches!(byte, 0 | b'/'));
    let short = prop::collection::vec(byte, 1..20);
    let long = "[a-z]{90,255}".prop_map(String::into_bytes);
    prop_oneof![4 => short, 1 => long].prop_filter("has a meaning", |name| {
        !matches!(name.as_slice(), b"." | b"..") && !name.starts_with(b".wh.")
    })
}

fn meant(node: impl Strategy<Value = Node>) -> impl Strategy<Value = Meant> {
    (node, 0..0o2000_u32, (0..=65_535_u32, 0..=65_535_u32), any::<u32>())
        .prop_map(|(node, mode, owner, modified)| Meant { node, mode, owner, modified })
}

fn tree() -> impl Strategy<Value = Meant> {
    let content = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..2000),
        (any::<u8>(), 510..1100_usize).prop_map(|(byte, length)| vec![byte; length]),
    ];
    let leaf = prop_oneof![content.prop_map(Node::File), name().prop_map(Node::Symlink)];
    meant(leaf).prop_recursive(5, 40, 8, |inner| {
        meant(prop::collection::btree_map(name(), inner, 0..8).prop_map(Node::Directory))
    })
}

fn write(builder: &mut tar::Builder<Vec<u8>>, path: &Path, meant: &Meant) {
    let mut header = tar::Header::new_gnu();
    header.set_mode(meant.mode);
    header.set_uid(meant.owner.0.into());
    header.set_gid(meant.owner.1.into());
    header.set_mtime(meant.modified.into());
    header.set_size(0);
    match &meant.node {
        Node::File(content) => {
            header.set_entry_type(tar::EntryType::Regular);
            header.set_size(content.len() as u64);
            builder.append_data(&mut header, path, content.as_slice()).unwrap();
        }
        Node::Symlink(target) => {
            header.set_entry_type(tar::EntryType::Symlink);
            builder.append_link(&mut header, path, OsStr::from_bytes(target)).unwrap();
        }
        Node::Directory(inside) => {
            header.set_entry_type(tar::EntryType::Directory);
            builder.append_data(&mut header, path, std::io::empty()).unwrap();
            for (name, meant) in inside {
                write(builder, &path.join(OsStr::from_bytes(name)), meant);
            }
        }
    }
}

fn compare(path: &Path, meant: &Meant) {
    let status = fs_err::symlink_metadata(path).unwrap();
    assert_eq!((status.uid(), status.gid()), meant.owner, "{path:?}");
    assert_eq!((status.mtime(), status.mtime_nsec()), (meant.modified.into(), 0), "{path:?}");
    if !status.is_symlink() {
        assert_eq!(status.permissions().mode() & 0o7777, meant.mode, "{path:?}");
    }
    match &meant.node {
        Node::File(content) => assert_eq!(&fs_err::read(path).unwrap(), content),
        Node::Symlink(target) => {
            assert_eq!(fs_err::read_link(path).unwrap().as_os_str().as_bytes(), target);
        }
        Node::Directory(inside) => {
            assert!(status.is_dir());
            let found =
                fs_err::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name().as_bytes().to_vec());
            let mut found: Vec<Vec<u8>> = found.collect();
            found.sort();
            assert_eq!(found, inside.keys().cloned().collect::<Vec<_>>(), "{path:?}");
            for (name, meant) in inside {
                compare(&path.join(OsStr::from_bytes(name)), meant);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_tree_comes_out_as_it_went_in(tree in tree()) {
        if !possible() {
            return Ok(());
        }
        let mut builder = tar::Builder::new(Vec::new());
        write(&mut builder, &PathBuf::from("tree"), &tree);
        let place = Place::new();
        let unpacked = place.unpack(builder.into_inner().unwrap().as_slice()).unwrap();
        prop_assert_eq!(unpacked.implied_directories, 0);
        compare(&place.layer().join("tree"), &tree);
        place.remove();
    }
}
