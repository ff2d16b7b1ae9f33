// SPDX-License-Identifier: Apache-2.0
//! Entries that are refused, one test for each way to be bad.

use image::unpack::Refusal;

use super::place::{possible, refused};
use super::tar::{Block, Tar, record};

#[test]
fn names_that_lead_out() {
    if !possible() {
        return;
    }
    let check = |name: &str, why: &'static str| {
        let refusal = Refusal::Name(why);
        let text = format!("refused the entry {name:?}: its name {why}");
        refused(&Tar::new().file(name, b"x").end(), refusal, &text);
        refused(&Tar::new().directory(name).end(), refusal, &text);
        refused(&Tar::new().symlink(name, "x").end(), refusal, &text);
        refused(&Tar::new().file("good", b"x").hard_link(name, "good").end(), refusal, &text);
        refused(&Tar::new().entry(Block::new(b'3', name), b"").end(), refusal, &text);
        refused(&Tar::new().pax(&[("path", name.as_bytes())]).file("good", b"x").end(), refusal, &text);
    };
    check("../canary/new", "has `..` in it");
    check("..", "has `..` in it");
    check("../", "has `..` in it");
    check("./../canary/file", "has `..` in it");
    check("a/../../canary/file", "has `..` in it");
    check("a/..", "has `..` in it");
    check("/canary/file", "is absolute");
    check("/", "is absolute");
    check("//x", "is absolute");
    check("a//b", "has an empty part");
    check("a/./b", "has `.` in it");
}

#[test]
fn names_that_are_none() {
    if !possible() {
        return;
    }
    let name = |name: &[u8]| Tar::new().pax(&[("path", name)]).file("good", b"x").end();
    let why = "has NUL in it";
    refused(&name(b"a\0b"), Refusal::Name(why), "refused the entry \"a\\0b\": its name has NUL in it");
    let gnu = Tar::new().entry(Block::new(b'L', "long").gnu().size(4), b"a\0b\0").file("good", b"x").end();
    refused(&gnu, Refusal::Name(why), "refused the entry \"a\\0b\": its name has NUL in it");
    let empty = Tar::new().file("", b"x").end();
    refused(&empty, Refusal::Name("is empty"), "refused the entry \"\": its name is empty");
    let why = "ends with a slash, as only a directory's may";
    refused(
        &Tar::new().file("a/", b"").end(),
        Refusal::Name(why),
        &format!("refused the entry \"a/\": its name {why}"),
    );
    for root in [".", "./"] {
        let why = "is that of the root, which is a directory";
        let text = format!("refused the entry {root:?}: its name {why}");
        let links = if root == "." { Tar::new().symlink(root, "/") } else { Tar::new().file(root, b"") };
        refused(&links.end(), Refusal::Name(why), &text);
    }
}

#[test]
fn names_that_are_too_long_or_too_deep() {
    if !possible() {
        return;
    }
    let check = |name: &str, why: &'static str| {
        let shown = format!("{}…", name.chars().take(200).collect::<String>());
        let text = format!("refused the entry {shown:?}: its name {why}");
        refused(
            &Tar::new().pax(&[("path", name.as_bytes())]).file("x", b"").end(),
            Refusal::Name(why),
            &text,
        );
        let long = Tar::new().entry(Block::new(b'L', "long").gnu().size(name.len()), name.as_bytes());
        refused(&long.file("x", b"").end(), Refusal::Name(why), &text);
    };
    check(&"n".repeat(256), "has a part that is too long");
    check(&["n"; 257].join("/"), "is too deep");
    check(&format!("n{}", vec!["n".repeat(63); 64].join("/")), "is longer than a path may be");
    // Longer than would be read into memory.
    let long = Tar::new().entry(Block::new(b'L', "long").gnu().size(1 << 30), b"").end();
    let why = "is longer than a path may be";
    refused(&long, Refusal::Name(why), "refused the entry \"long\": its name is longer than a path may be");
    let why = "is longer than a path may be";
    let target = "t".repeat(4096);
    let long = Tar::new().pax(&[("linkpath", target.as_bytes())]).symlink("a", "x").end();
    refused(&long, Refusal::Target(why), "refused the entry \"a\": its target is longer than a path may be");
}

#[test]
fn a_symlink_and_then_something_through_it() {
    if !possible() {
        return;
    }
    for target in ["../canary", "/", "."] {
        let link = Tar::new().symlink("a", target);
        let why = Refusal::Parent("a symlink");
        refused(
            &link.clone().file("a/file", b"x").end(),
            why,
            "refused the entry \"a/file\": it is below a symlink",
        );
        refused(
            &link.clone().directory("a/new/").end(),
            why,
            "refused the entry \"a/new/\": it is below a symlink",
        );
        refused(
            &link.clone().symlink("a/b/c", "x").end(),
            why,
            "refused the entry \"a/b/c\": it is below a symlink",
        );
        refused(
            &link.clone().file("a/.wh.file", b"").end(),
            why,
            "refused the entry \"a/.wh.file\": it is below a symlink",
        );
        let opaque = "refused the entry \"a/.wh..wh..opq\": it is below a symlink";
        refused(&link.clone().file("a/.wh..wh..opq", b"").end(), why, opaque);
        let text = "refused the entry \"b\": it is a hard link to something below a symlink";
        refused(&link.hard_link("b", "a/file").end(), Refusal::HardLink("something below a symlink"), text);
    }
    let file = Tar::new().file("a", b"").file("a/b", b"").end();
    let text = "refused the entry \"a/b\": it is below something that is no directory";
    refused(&file, Refusal::Parent("something that is no directory"), text);
}

#[test]
fn a_name_that_is_there_already() {
    if !possible() {
        return;
    }
    let check = |tar: Tar, name: &str| {
        let text = format!("refused the entry {name:?}: the layer has an entry of this name already");
        refused(&tar.end(), Refusal::Duplicate, &text);
    };
    let link = Tar::new().symlink("a", "../canary/inside");
    check(link.clone().directory("a"), "a");
    check(link.clone().directory("a/"), "a/");
    check(link.clone().file("a", b"x"), "a");
    check(link.clone().symlink("a", "b"), "a");
    check(link.clone().file("b", b"").hard_link("a", "b"), "a");
    let file = Tar::new().file("a", b"x");
    check(file.clone().file("a", b"y"), "a");
    check(file.clone().file("./a", b"y"), "./a");
    check(file.clone().symlink("a", "y"), "a");
    check(file.clone().directory("a"), "a");
    let directory = Tar::new().directory("a");
    check(directory.clone().file("a", b"x"), "a");
    check(directory.clone().symlink("a", "x"), "a");
    check(directory.file("b", b"").hard_link("a", "b"), "a");
    check(Tar::new().file("a/b", b"").file("a", b""), "a");
}

#[test]
fn hard_links_to_what_is_no_file_of_the_layer() {
    if !possible() {
        return;
    }
    let check = |tar: Tar, refusal: Refusal, says: &str| {
        refused(&tar.end(), refusal, &format!("refused the entry \"link\": {says}"));
    };
    for (target, why) in [
        ("../canary/file", "has `..` in it"),
        ("/etc/passwd", "is absolute"),
        ("a/../../canary/file", "has `..` in it"),
        ("..", "has `..` in it"),
    ] {
        check(Tar::new().hard_link("link", target), Refusal::Target(why), &format!("its target {why}"));
    }
    let symlink = Tar::new().symlink("a", "../canary/file").hard_link("link", "a");
    let why = "a symlink";
    let kind = "something that is no file";
    let missing = "something that this layer has not";
    check(symlink, Refusal::HardLink(why), &format!("it is a hard link to {why}"));
    for target in [".", "a"] {
        let directory = Tar::new().directory("a").hard_link("link", target);
        check(directory, Refusal::HardLink(kind), &format!("it is a hard link to {kind}"));
    }
    for target in ["missing", "link", "a/missing"] {
        let tar = Tar::new().file("a", b"").hard_link("link", target);
        check(tar, Refusal::HardLink(missing), &format!("it is a hard link to {missing}"));
    }
    let device = Tar::new().entry(Block::new(b'3', "null"), b"").hard_link("link", "null");
    check(device, Refusal::HardLink(missing), &format!("it is a hard link to {missing}"));
    check(Tar::new().hard_link("link", ""), Refusal::Target("is empty"), "its target is empty");
    check(Tar::new().symlink("link", ""), Refusal::Target("is empty"), "its target is empty");
    let nul = Tar::new().pax(&[("linkpath", b"a\0b")]).symlink("link", "x");
    check(nul, Refusal::Target("has NUL in it"), "its target has NUL in it");
}

#[test]
fn kinds_that_layers_do_not_have() {
    if !possible() {
        return;
    }
    let kinds = [
        (b'6', "a named pipe"),
        (b's', "a socket"),
        (b'D', "a directory of an incremental archive of GNU tar"),
        (b'M', "a part of a file of a multi-volume archive"),
        (b'V', "the label of a volume"),
        (b'Z', "of a kind that is not known"),
        (0xff, "of a kind that is not known"),
    ];
    for (kind, what) in kinds {
        let tar = Tar::new().entry(Block::new(kind, "a"), b"").end();
        refused(&tar, Refusal::Kind(what), &format!("refused the entry \"a\": it is {what}"));
    }
}

#[test]
fn owners_that_no_sandbox_has() {
    if !possible() {
        return;
    }
    let check = |tar: Tar| {
        let text = "refused the entry \"a\": its owner is beyond the ids of a sandbox, 0 to 65535";
        refused(&tar.end(), Refusal::Owner, text);
    };
    check(Tar::new().entry(Block::new(b'0', "a").owner(65_536, 0), b""));
    check(Tar::new().entry(Block::new(b'5', "a").owner(0, 65_536), b""));
    // 2^32, which is root where it is cut to 32 bits, and a negative one.
    check(Tar::new().entry(Block::new(b'0', "a").put(108, b"\x80\0\0\x01\0\0\0\0"), b""));
    check(Tar::new().entry(Block::new(b'0', "a").put(116, &[0xff; 8]), b""));
    for id in ["65536", "4294967295", "4294967296", "18446744073709551615"] {
        check(Tar::new().pax(&[("uid", id.as_bytes())]).file("a", b""));
        check(Tar::new().pax(&[("gid", id.as_bytes())]).symlink("a", "x"));
    }
}

#[test]
fn sizes_that_cannot_be() {
    if !possible() {
        return;
    }
    let check = |block: Block, why: &'static str| {
        let text = format!("refused the entry \"a\": its size {why}");
        refused(&Tar::new().entry(block, b"").end(), Refusal::Size(why), &text);
    };
    let file = Block::new(b'0', "a");
    check(file.clone().put(124, b"-0000000001"), "is no number");
    check(file.clone().put(124, b"00000000009"), "is no number");
    check(file.clone().put(124, &[0xff; 12]), "is negative or huge");
    // 2^64, which is nothing where the first bytes are overlooked.
    check(file.clone().put(124, b"\x80\0\0\x01\0\0\0\0\0\0\0\0"), "is negative or huge");
    check(
        file.clone().put(124, b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff"),
        "is more than a file of a layer may have",
    );
    check(file.put(124, b"\x80\0\0\0\0\0\0\x02\0\0\0\0"), "is more than a file of a layer may have");
    for kind in [b'1', b'2', b'5', b'3', b'4'] {
        check(Block::new(kind, "a").target(b"b").size(512), "is not zero, but it is no file");
    }
}

#[test]
fn a_size_in_pax_that_differs() {
    if !possible() {
        return;
    }
    let why = "differs between its header and its PAX header";
    for (size, content) in [("0", &b"xxxx"[..]), ("3", b"xxxx"), ("1024", b"xxxx"), ("4", b"")] {
        let tar = Tar::new().pax(&[("size", size.as_bytes())]).file("a", content).end();
        refused(&tar, Refusal::Size(why), &format!("refused the entry \"a\": its size {why}"));
    }
    let why = "is more than a file of a layer may have";
    for size in ["8589934592", "18446744073709551615"] {
        let tar = Tar::new().pax(&[("size", size.as_bytes())]).file("a", b"x").end();
        refused(&tar, Refusal::Size(why), &format!("refused the entry \"a\": its size {why}"));
    }
}

#[test]
fn pax_records_that_are_malformed() {
    if !possible() {
        return;
    }
    let check = |bytes: &[u8], why: &'static str| {
        let tar = Tar::new().raw_pax(bytes).file("a", b"x").end();
        refused(&tar, Refusal::Pax(why), &format!("refused the entry \"pax\": its PAX header {why}"));
    };
    for malformed in [
        &b"path=a\n"[..],
        b"9 path=a",
        b"9 path=ab\n",
        b"8 path=a\n",
        b"100 path=a\n",
        b" path=a\n",
        b"-9 path=a\n",
        b"+9 path=a\n",
        b"0 path=a\n",
        b"1 path=a\n",
        b"18446744073709551616 path=a\n",
        b"9 pathxa\n",
        b"5 =a\n",
        b"10 pa\0th=a\n",
        b"\0\0\0\0",
        b"9 path=a\n\n",
        b"9 path=a\n\0",
    ] {
        check(malformed, "is malformed");
    }
    for key in ["path", "linkpath", "size", "uid", "gid", "mtime", "SCHILY.xattr.user.a", "GNU.sparse.name"] {
        check(&[record(key, b"1"), record(key, b"1")].concat(), "has a record twice");
    }
    check(&record("path", b""), "has an empty record");
    check(&record("linkpath", b""), "has an empty record");
    for number in [&b""[..], b"-1", b"+1", b"1 ", b"0x10", b"18446744073709551616", b"1.5"] {
        for key in ["size", "uid", "gid"] {
            check(&record(key, number), "has a number that is none, is negative or too large");
        }
    }
    check(&record("mtime", b"never"), "has a time that is none");
    let long = Tar::new().entry(Block::new(b'x', "pax").size(1024 * 1024 + 1), b"").end();
    refused(&long, Refusal::Pax("is too long"), "refused the entry \"pax\": its PAX header is too long");
    let global = record("path", b"../canary/file");
    let global = Tar::new().entry(Block::new(b'g', "pax").size(global.len()), &global).file("a", b"x").end();
    let why = "is for all entries, and more than a comment";
    refused(&global, Refusal::Pax(why), &format!("refused the entry \"pax\": its PAX header {why}"));
}

#[test]
fn descriptions_that_contradict_each_other() {
    if !possible() {
        return;
    }
    let why = Refusal::Header("is described twice");
    let long = |kind: u8| Tar::new().entry(Block::new(kind, "long").gnu().size(2), b"b\0");
    let text = |name: &str| format!("refused the entry {name:?}: its header is described twice");
    refused(&long(b'L').pax(&[("path", b"c")]).file("a", b"").end(), why, &text("a"));
    refused(&long(b'K').pax(&[("linkpath", b"c")]).symlink("a", "x").end(), why, &text("a"));
    let two = long(b'L').entry(Block::new(b'L', "long").gnu().size(2), b"c\0").file("a", b"").end();
    refused(&two, why, &text("long"));
    refused(
        &Tar::new().pax(&[("path", b"b")]).pax(&[("path", b"c")]).file("a", b"").end(),
        why,
        &text("pax"),
    );
}

#[test]
fn headers_that_are_none() {
    if !possible() {
        return;
    }
    let check = |block: Block, why: &'static str| {
        let text = format!("refused the entry \"a\": its header {why}");
        refused(&Tar::new().entry(block, b"").end(), Refusal::Header(why), &text);
    };
    check(Block::new(b'0', "a").sum(b"000000\0 "), "has a wrong checksum");
    check(Block::new(b'0', "a").sum(b"garbage!"), "has a wrong checksum");
    check(Block::new(b'0', "a").put(100, b"rw-r--r"), "has a mode that is none");
    check(Block::new(b'0', "a").put(108, b"root"), "has a user that is none");
    check(Block::new(b'0', "a").put(136, b"yesterday"), "has a time that is none");
    let page = b"<html><body>Not a layer".repeat(100);
    let text = "refused the entry \"<html><body>Not a layer<html><body>Not a layer<html><body>Not a layer<html><body>Not a layer<html><b\": its header has a wrong checksum";
    refused(&Tar::new().content(&page).end(), Refusal::Header("has a wrong checksum"), text);
}

#[test]
fn whiteouts_of_what_cannot_be_removed() {
    if !possible() {
        return;
    }
    let check = |tar: Tar, name: &str, what: &'static str| {
        let text = format!("refused the entry {name:?}: it is a whiteout {what}");
        refused(&tar.end(), Refusal::Whiteout(what), &text);
    };
    for (name, what) in [
        (".wh...", "of `..`"),
        ("a/.wh...", "of `..`"),
        (".wh..", "of the root"),
        ("a/.wh..", "of its own directory"),
        (".wh.", "of nothing"),
        ("a/.wh.", "of nothing"),
        (".wh..wh..opq", "of the root"),
        ("./.wh..wh..opq", "of the root"),
        (".wh.a/b", "that is a directory"),
        ("a/.wh.b/c/d", "that is a directory"),
    ] {
        check(Tar::new().file(name, b""), name, what);
    }
    check(Tar::new().directory(".wh.a"), ".wh.a", "that is no file");
    check(Tar::new().symlink(".wh.a", "x"), ".wh.a", "that is no file");
    check(Tar::new().symlink("a/.wh..wh..opq", "x"), "a/.wh..wh..opq", "that is no file");
    check(Tar::new().file(".wh.a", b"x"), ".wh.a", "with a content");
    let slash = Tar::new().pax(&[("path", b".wh.../canary/file")]).file("x", b"");
    check(slash, ".wh.../canary/file", "that is a directory");
}

#[test]
fn extended_attributes_without_end() {
    if !possible() {
        return;
    }
    let many: Vec<u8> = (0..65).flat_map(|n| record(&format!("SCHILY.xattr.user.{n}"), b"x")).collect();
    let check = |records: &[u8], why: &'static str| {
        let tar = Tar::new().raw_pax(records).file("a", b"").end();
        refused(
            &tar,
            Refusal::Attribute(why),
            &format!("refused the entry \"a\": its extended attributes {why}"),
        );
    };
    check(&many, "are too many");
    check(&record("SCHILY.xattr.user.a", &[b'x'; 65_537]), "have a value that is too long");
    check(&record("SCHILY.xattr.user.", b"x"), "have a name that is none");
    check(&record(&format!("SCHILY.xattr.user.{}", "n".repeat(251)), b"x"), "have a name that is none");
}
