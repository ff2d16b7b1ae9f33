// SPDX-License-Identifier: Apache-2.0
//! `docs/security.md` says what protects a sandbox and what tries it: it must know every protection, and name only what
//! there is.
//!
//! A test is named there as `WHERE NAME`: `attack` and a line of the list, `e2e` and a test of Python, `guest` and a check
//! in the emulated machine, or a crate and one of its tests.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use protocol::isolation::{Level, ProtectionName};

use super::list;

const DOCUMENT: &str = include_str!("../../../../docs/security.md");
/// The crates whose tests are named.
const CRATES: [&str; 6] = ["agent", "image", "jail", "protocol", "runtime", "server"];

/// One protection's part of the document.
struct Section<'a> {
    level: Level,
    text: &'a str,
}

/// The parts by the names of their protections: `#### name`, below `### level`.
fn sections(document: &str) -> BTreeMap<&str, Section<'_>> {
    let mut found = BTreeMap::new();
    for of_level in document.split("\n### `").skip(1) {
        let of_level = of_level.split("\n## ").next().unwrap_or_default();
        let (level, _) = of_level.split_once('`').expect("a level is in backticks");
        let level = level.parse().expect("it is one of the levels");
        for section in of_level.split("\n#### `").skip(1) {
            let (name, text) = section.split_once("`\n").expect("a name is all of its line");
            assert!(found.insert(name, Section { level, text }).is_none(), "{name} has two sections");
        }
    }
    found
}

/// The tests that a text names: where, and how they are called.
fn named(text: &str) -> BTreeSet<(&str, &str)> {
    let is_place = |place: &str| ["attack", "e2e", "guest"].contains(&place) || CRATES.contains(&place);
    let spans = text.split('`').skip(1).step_by(2);
    spans.filter_map(|span| span.split_once(' ')).filter(|(place, _)| is_place(place)).collect()
}

/// Whether an id of a line is meant; `*` stands for any letters.
fn matches(pattern: &str, id: &str) -> bool {
    match pattern.split_once('*') {
        Some((begin, end)) => {
            id.len() >= begin.len() + end.len() && id.starts_with(begin) && id.ends_with(end)
        }
        None => pattern == id,
    }
}

/// All sources with this ending below a folder.
fn sources(folder: &Path, ending: &str) -> String {
    let mut text = String::new();
    let mut folders: Vec<PathBuf> = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs_err::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|own| own == ending) {
                text.push_str(&fs_err::read_to_string(&path).unwrap());
            }
        }
    }
    text
}

/// The names of all tests of a crate: functions right below an attribute that says so.
fn tests_of(source: &str) -> BTreeSet<&str> {
    let mut found = BTreeSet::new();
    let mut is_test = false;
    for line in source.lines().map(str::trim) {
        let function = line.strip_prefix("async ").unwrap_or(line).strip_prefix("fn ");
        match function.and_then(|rest| rest.split(['(', '<']).next()) {
            Some(name) if is_test => {
                found.insert(name);
                is_test = false;
            }
            Some(_) => is_test = false,
            None => is_test |= line.starts_with("#[test") || line.starts_with("#[tokio::test"),
        }
    }
    found
}

/// The functions of Python sources.
fn functions_of(source: &str) -> BTreeSet<&str> {
    let lines = source.lines().map(|line| line.strip_prefix("async ").unwrap_or(line));
    lines.filter_map(|line| line.strip_prefix("def ")?.split('(').next()).collect()
}

#[test]
fn each_protection_has_its_section_below_the_level_that_demands_it() {
    let mut sections = sections(DOCUMENT);
    for name in ProtectionName::ALL {
        let section = sections.remove(name.text());
        let section = section.unwrap_or_else(|| panic!("docs/security.md has no section for {name}"));
        assert_eq!(section.level, name.level(), "{name} is below another level");
        assert!(section.text.starts_with(name.meaning()), "{name} begins with what it does");
        assert!(section.text.contains("Known"), "{name} does not say how it is known to be there");
        assert!(!named(section.text).is_empty(), "{name} names no test");
    }
    assert_eq!(sections.into_keys().collect::<Vec<_>>(), [""; 0], "no such protections");
}

#[test]
fn each_test_that_is_named_exists() {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let python = sources(&repository.join("e2e"), "py");
    let guest = sources(&repository.join("e2e/guest"), "py");
    let rust = CRATES.map(|name| (name, sources(&repository.join("crates").join(name), "rs")));
    let rust = rust.iter().map(|(name, source)| (*name, tests_of(source)));
    let mut known: BTreeMap<&str, BTreeSet<&str>> = rust.collect();
    known.insert("e2e", functions_of(&python));
    known.insert("guest", functions_of(&guest));
    let ids: Vec<String> = list().into_iter().map(|line| line.id).collect();

    let named = named(DOCUMENT);
    assert!(named.len() > 200, "only {} tests were found in the document", named.len());
    let exists = |(place, name): &(&str, &str)| match known.get(place) {
        Some(tests) => tests.contains(name) && (*place != "e2e" || name.starts_with("test_")),
        None => ids.iter().any(|id| matches(name, id)),
    };
    let missing: Vec<_> = named.into_iter().filter(|test| !exists(test)).collect();
    assert_eq!(missing, [], "docs/security.md names tests that are not there");
}

#[test]
fn what_is_not_there_is_not_found() {
    let document = "\n### `contained`: x\n\n#### `seccomp`\nA `e2e test_a`, `b c`, `attack x-*` and\n`image d`.\n\n## E\n";
    let sections = sections(document);
    let section = &sections["seccomp"];
    assert_eq!((section.level, sections.len()), (Level::Contained, 1));
    let expected = [("attack", "x-*"), ("e2e", "test_a"), ("image", "d")];
    assert_eq!(named(section.text).into_iter().collect::<Vec<_>>(), expected);
    assert!(matches("x-*", "x-y") && matches("x-*-z", "x-y-z") && matches("x", "x"));
    assert!(!matches("x-*", "y-x") && !matches("x-*-z", "x-z") && !matches("x", "xy"));
    assert_eq!(tests_of("#[test]\nfn a() {\nfn b() {\n#[tokio::test]\nasync fn c() {"), ["a", "c"].into());
    assert_eq!(functions_of("def a(b):\nasync def test_c() -> None:\n    def d():"), ["a", "test_c"].into());
}
