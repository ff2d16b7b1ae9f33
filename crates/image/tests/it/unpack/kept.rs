// SPDX-License-Identifier: Apache-2.0
//! What honest layers have, and what becomes of it.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::process::Command;

use image::unpack::{Budget, Unpacked};
use rustix::fs::{lgetxattr, llistxattr};

use super::place::{Place, describe, possible};
use super::tar::{Block, Tar, record};

fn unpacked(tar: Tar) -> (Place, Unpacked) {
    let place = Place::new();
    let unpacked = place.unpack(tar.end().as_slice()).unwrap();
    (place, unpacked)
}

fn attribute(path: &Path, name: &str) -> Option<Vec<u8>> {
    let mut value = [0; 1024];
    lgetxattr(path, name, value.as_mut_slice()).ok().map(|length| value[..length].to_vec())
}

fn is_whiteout(path: &Path) -> bool {
    let status = fs_err::symlink_metadata(path).unwrap();
    status.file_type().is_char_device() && status.rdev() == 0
}

#[test]
fn owners_modes_and_times_are_those_of_the_archive() {
    if !possible() {
        return;
    }
    let tar = Tar::new()
        .entry(Block::new(b'5', "./").mode(0o750).owner(1, 2).modified(1_000_000_001), b"")
        .entry(Block::new(b'5', "d/").mode(0o1777).owner(3, 4).modified(1_000_000_002), b"")
        .entry(
            Block::new(b'0', "d/f").mode(0o100_604).owner(65_535, 65_535).modified(1_000_000_003).size(5),
            b"hello",
        )
        .entry(Block::new(b'2', "d/l").owner(5, 6).modified(1_000_000_004).target(b"../../canary/file"), b"")
        .pax(&[("mtime", b"-1.5"), ("uid", b"7"), ("gid", b"8"), ("atime", b"x"), ("size", b"2")])
        .file("d/p", b"hi");
    let (place, unpacked) = unpacked(tar);
    let check = |name: &str, mode: u32, owner: (u32, u32), time: (i64, i64)| {
        let status = fs_err::symlink_metadata(place.layer().join(name)).unwrap();
        assert_eq!(status.mode() & 0o7777, mode, "{name}");
        assert_eq!((status.uid(), status.gid()), owner, "{name}");
        assert_eq!((status.mtime(), status.mtime_nsec()), time, "{name}");
    };
    check("", 0o750, (1, 2), (1_000_000_001, 0));
    check("d", 0o1777, (3, 4), (1_000_000_002, 0));
    check("d/f", 0o604, (65_535, 65_535), (1_000_000_003, 0));
    check("d/l", 0o777, (5, 6), (1_000_000_004, 0));
    check("d/p", 0o644, (7, 8), (-2, 500_000_000));
    assert_eq!(fs_err::read(place.layer().join("d/f")).unwrap(), b"hello");
    assert_eq!(fs_err::read_link(place.layer().join("d/l")).unwrap(), Path::new("../../canary/file"));
    assert_eq!((unpacked.entries, unpacked.bytes, unpacked.implied_directories), (5, 7, 0));
    place.remove();
}

#[test]
fn the_diff_id_is_the_digest_of_the_whole_archive() {
    if !possible() {
        return;
    }
    let (_, unpacked) = unpacked(Tar::new());
    // sha256sum of 1024 zeros, the layer that Docker writes for an empty one.
    let empty = "sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef";
    assert_eq!(unpacked, Unpacked { diff_id: empty.to_owned(), ..Unpacked::default() });
}

#[test]
fn set_id_bits_devices_and_attributes_with_a_meaning_are_left_out() {
    if !possible() {
        return;
    }
    let tar = Tar::new()
        .pax(&[
            ("SCHILY.xattr.security.capability", b"\x01\0\0\x02\0\x20\0\0\0\0\n\0\0\0\0\0\0\0\0\0"),
            ("SCHILY.xattr.trusted.overlay.redirect", b"/etc"),
            ("SCHILY.xattr.user.overlay.opaque", b"y"),
            ("SCHILY.xattr.system.posix_acl_access", b"x"),
            ("SCHILY.xattr.user.note", b"one\ntwo"),
        ])
        .entry(Block::new(b'0', "ping").mode(0o6755), b"")
        .pax(&[("SCHILY.xattr.trusted.overlay.opaque", b"y"), ("SCHILY.xattr.user.of", b"directory")])
        .entry(Block::new(b'5', "mail").mode(0o2775), b"")
        .entry(Block::new(b'3', "null").put(329, b"0000001").put(337, b"0000003"), b"")
        .entry(Block::new(b'4', "disk").put(329, b"0000010").put(337, b"0000000"), b"")
        .pax(&[("SCHILY.xattr.user.of", b"symlink")])
        .symlink("link", "x");
    let (place, unpacked) = unpacked(tar);
    let (ping, mail) = (place.layer().join("ping"), place.layer().join("mail"));
    assert_eq!(fs_err::metadata(&ping).unwrap().mode() & 0o7777, 0o755);
    assert_eq!(fs_err::metadata(&mail).unwrap().mode() & 0o7777, 0o775);
    let mut names = [0; 1024];
    let length = llistxattr(&ping, names.as_mut_slice()).unwrap();
    assert_eq!(&names[..length], b"user.note\0");
    assert_eq!(attribute(&ping, "user.note").unwrap(), b"one\ntwo");
    let length = llistxattr(&mail, names.as_mut_slice()).unwrap();
    assert_eq!(&names[..length], b"user.of\0");
    let mut made: Vec<_> = fs_err::read_dir(place.layer()).unwrap().map(|e| e.unwrap().file_name()).collect();
    made.sort();
    assert_eq!(made, ["link", "mail", "ping"]);
    assert_eq!(unpacked.set_ids_left_out, 2);
    assert_eq!(unpacked.devices_left_out, 2);
    assert_eq!(unpacked.attributes_left_out, 6);
}

#[test]
fn hard_links_are_one_file() {
    if !possible() {
        return;
    }
    let tar = Tar::new().file("a/b", b"one").hard_link("c/d", "a/b").hard_link("e", "./c/d");
    let (place, unpacked) = unpacked(tar);
    let inode = |name: &str| fs_err::metadata(place.layer().join(name)).unwrap().ino();
    assert_eq!(inode("a/b"), inode("c/d"));
    assert_eq!(inode("a/b"), inode("e"));
    assert_eq!((unpacked.entries, unpacked.bytes, unpacked.implied_directories), (3, 3, 2));
}

#[test]
fn long_and_odd_names_are_kept_in_every_format() {
    if !possible() {
        return;
    }
    // The longest path that there can be: it fits in one call of the kernel with its NUL.
    let longest = vec!["n".repeat(63); 64].join("/");
    assert_eq!(longest.len(), 4095);
    let long = "l".repeat(255);
    let target = "t".repeat(4095);
    let gnu = |kind: u8, text: &str| {
        let text = [text.as_bytes(), b"\0"].concat();
        (Block::new(kind, "././@LongLink").gnu().size(text.len()), text)
    };
    let (name_block, name_text) = gnu(b'L', &long);
    let (target_block, target_text) = gnu(b'K', &target);
    let tar = Tar::new()
        .pax(&[("path", longest.as_bytes())])
        .file("short", b"deep")
        .entry(name_block, &name_text)
        .entry(target_block, &target_text)
        .symlink("short", "short")
        .pax(&[("path", b"\xff\n\\\"=")])
        .file("short", b"odd")
        .entry(Block::new(b'0', "name").put(345, b"pre/fix").size(3), b"old")
        .entry(Block::new(b'0', &"h".repeat(100)), b"");
    let (place, _) = unpacked(tar);
    let layer = place.layer();
    // Too long for one path from the outside.
    let deep = fs_err::read_dir(layer.join("n".repeat(63))).unwrap().count();
    assert_eq!(deep, 1);
    assert_eq!(fs_err::read_link(layer.join(&long)).unwrap(), Path::new(&target));
    assert_eq!(fs_err::read(layer.join(OsStr::from_bytes(b"\xff\n\\\"="))).unwrap(), b"odd");
    assert_eq!(fs_err::read(layer.join("pre/fix/name")).unwrap(), b"old");
    assert!(layer.join("h".repeat(100)).is_file());
    place.remove();
}

#[test]
fn whiteouts_become_those_of_overlayfs_unless_the_layer_has_the_name() {
    if !possible() {
        return;
    }
    let tar = Tar::new()
        .file("a/.wh.gone", b"")
        .file("a/.wh.gone", b"")
        .file(".wh.top", b"")
        // As Docker on aufs wrote them.
        .hard_link(".wh.aufs", ".wh..wh.aufs")
        // The entry of the same layer stays, whichever comes first.
        .file("a/.wh.before", b"")
        .file("a/before", b"new")
        .directory("a/after")
        .file("a/.wh.after", b"")
        .file("opaque/.wh..wh..opq", b"")
        .file("opaque/new", b"")
        .file(".wh..wh.aufs", b"left")
        .directory(".wh..wh.plnk/")
        .file(".wh..wh.plnk/12.34", b"left")
        .file("a/.wh.....", b"");
    let (place, unpacked) = unpacked(tar);
    let layer = place.layer();
    for name in ["a/gone", "top", "aufs", "a/...."] {
        assert!(is_whiteout(&layer.join(name)), "{name}");
    }
    assert_eq!(fs_err::read(layer.join("a/before")).unwrap(), b"new");
    assert!(layer.join("a/after").is_dir());
    assert_eq!(attribute(&layer.join("opaque"), "trusted.overlay.opaque").unwrap(), b"y");
    assert_eq!(attribute(&layer.join("a"), "trusted.overlay.opaque"), None);
    let mut made: Vec<_> = fs_err::read_dir(&layer).unwrap().map(|e| e.unwrap().file_name()).collect();
    made.sort();
    assert_eq!(made, ["a", "aufs", "opaque", "top"]);
    assert_eq!(unpacked.whiteouts, 4);
}

#[test]
fn overlayfs_hides_what_whiteouts_hide() {
    if !possible() {
        return;
    }
    let below = Tar::new().file("d/old", b"").file("d/kept", b"").file("o/old", b"").file("f", b"");
    let above =
        Tar::new().file("d/.wh.old", b"").file("o/new", b"").file("o/.wh..wh..opq", b"").file(".wh.f", b"");
    let ((below, _), (above, _)) = (unpacked(below), unpacked(above));
    let mounted = tempfile::tempdir().unwrap();
    let layers = format!("lowerdir={}:{}", above.layer().display(), below.layer().display());
    let script = "mount -t overlay overlay -o \"$1\" \"$2\" && cd \"$2\" && find . | sort | tr '\\n' ' '";
    let output = Command::new("unshare")
        .args(["--mount", "sh", "-c", script, "sh", &layers])
        .arg(mounted.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8_lossy(&output.stdout), ". ./d ./d/kept ./o ./o/new ");
}

#[test]
fn a_directory_may_come_again_and_after_what_is_in_it() {
    if !possible() {
        return;
    }
    let tar = Tar::new()
        .file("a/b/c", b"")
        .entry(Block::new(b'5', "a").mode(0o700).owner(1, 1).modified(5), b"")
        .entry(Block::new(b'5', "a/").mode(0o711).owner(2, 2).modified(6), b"")
        .file("a/d", b"");
    let (place, unpacked) = unpacked(tar);
    let status = fs_err::metadata(place.layer().join("a")).unwrap();
    assert_eq!((status.mode() & 0o7777, status.uid(), status.gid(), status.mtime()), (0o711, 2, 2, 6));
    let status = fs_err::metadata(place.layer().join("a/b")).unwrap();
    assert_eq!((status.mode() & 0o7777, status.uid(), status.gid(), status.mtime()), (0o755, 0, 0, 0));
    assert_eq!(unpacked.implied_directories, 2);
}

#[test]
fn a_comment_for_all_entries_is_passed_over() {
    if !possible() {
        return;
    }
    let comment = record("comment", b"b8d71bf");
    let tar =
        Tar::new().entry(Block::new(b'g', "pax_global_header").size(comment.len()), &comment).file("a", b"x");
    let (place, unpacked) = unpacked(tar);
    assert!(place.layer().join("a").is_file());
    assert_eq!(unpacked.entries, 1);
}

#[test]
fn the_layers_of_an_image_share_a_budget() {
    if !possible() {
        return;
    }
    let tar = Tar::new().file("a/b", b"12345").end();
    let budget = Budget::new(10_000, 5);
    Place::new().unpack_within(tar.as_slice(), &budget).unwrap();
    assert_eq!((budget.bytes_left(), budget.entries_left()), (10_000 - 5 - 512, 3));
    Place::new().unpack_within(tar.as_slice(), &budget).unwrap();
    let error = Place::new().unpack_within(tar.as_slice(), &budget).unwrap_err();
    assert_eq!(error.to_string(), "the layer has more than 5 entries");
}

#[test]
fn what_tar_of_the_system_writes_is_unpacked_as_it_was() {
    if !possible() {
        return;
    }
    let original = tempfile::tempdir().unwrap();
    let script = "umask 022; mkdir -p usr/bin usr/lib/deep/deeper tmp var/empty && chmod 1777 tmp
        echo x > usr/bin/x; chmod 755 usr/bin/x; ln usr/bin/x usr/bin/y; ln -s ../bin/x usr/lib/z
        head -c 300000 /dev/urandom > usr/lib/deep/noise; : > usr/lib/deep/empty
        name=$(printf 'long%.0s' $(seq 40)); echo long > usr/lib/deep/$name; ln -s $name/$name usr/lib/l
        chown 33:33 usr/lib/deep/noise; chown -h 65534:100 usr/lib/z; chmod 0 usr/lib/deep/empty; chmod 700 var/empty
        find . -depth -exec touch -h -d @1600000000 {} +";
    let run = |command: &mut Command| {
        let output = command.current_dir(original.path()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    };
    run(Command::new("sh").args(["-c", script]));
    for format in ["gnu", "oldgnu", "pax", "posix"] {
        let tar = run(Command::new("tar").args(["--create", "--numeric-owner", "--format", format, "."]));
        let place = Place::new();
        let unpacked = place.unpack(tar.as_slice()).unwrap();
        assert_eq!(describe(&place.layer()), describe(original.path()), "{format}");
        assert_eq!(unpacked.entries, 16, "{format}");
        let digest = run(Command::new("sh")
            .args(["-c", &format!("tar --create --numeric-owner --format {format} . | sha256sum")]));
        if !matches!(format, "pax" | "posix") {
            // The others name the process that wrote them.
            assert_eq!(unpacked.diff_id.as_bytes()[7..], digest[..64], "{format}");
        }
    }
}
