// SPDX-License-Identifier: Apache-2.0
//! The rules of the house that no other tool checks. Each is a pure function of a path and a text.

use std::path::Path;

use anyhow::Result;
use fs_err as fs;

const LINES_MAX: usize = 600;
const LICENCE: &str = "SPDX-License-Identifier: Apache-2.0";
/// Names that say nothing; whatever would go there has a better one.
const EMPTY_NAMES: &[&str] = &["util", "utils", "common", "helper", "helpers", "misc", "manager", "managers"];
/// Folders with nothing that we wrote.
const FOREIGN: &[&str] = &["target", "node_modules", "__pycache__", "venv", "dist"];
/// Files that must be there, and what must be in them.
const NEEDED: &[(&str, &str)] = &[
    ("ARCHITECTURE.md", ""),
    ("CHANGELOG.md", "## [Unreleased]"),
    ("CONTRIBUTING.md", ""),
    ("Cargo.lock", ""),
    ("LICENSE", "Apache License"),
    ("README.md", "cargo xtask quickstart"),
    ("deny.toml", "[licenses]"),
];

/// Lists what the files below `root` break.
pub(crate) fn violations(root: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for (name, content) in NEEDED {
        match fs::read_to_string(root.join(name)) {
            Ok(text) if text.contains(content) => {}
            Ok(_) => found.push(format!("{name}: does not contain {content:?}")),
            Err(error) => found.push(error.to_string()),
        }
    }
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let kind = entry.file_type()?;
            if kind.is_dir() && !name.starts_with('.') && !FOREIGN.contains(&name.as_str()) {
                folders.push(entry.path());
            } else if kind.is_file() {
                let path = entry.path();
                let shown = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().into_owned();
                if is_ours(&shown) {
                    found.extend(check(&shown, &fs::read_to_string(&path)?));
                }
            }
        }
    }
    found.sort();
    Ok(found)
}

fn is_ours(path: &str) -> bool {
    let source = [".rs", ".py", ".mjs"].iter().any(|ending| path.ends_with(ending));
    let manifest = path.starts_with("crates/") && path.ends_with("/Cargo.toml");
    source || manifest
}

/// Lists what one file breaks; its path is relative to the root of the repository.
fn check(path: &str, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    if path.ends_with("Cargo.toml") {
        if !path.starts_with("crates/sys/") && !text.contains("[lints]\nworkspace = true") {
            found.push(format!("{path}: does not take the lints of the workspace"));
        }
        return found;
    }
    if !has_licence_line(path, text) {
        found.push(format!("{path}: the first line is not the licence line ({LICENCE})"));
    }
    let lines = text.lines().count();
    if lines > LINES_MAX {
        found.push(format!("{path}: {lines} lines, at most {LINES_MAX} are allowed"));
    }
    let parts = path.split('/').map(|part| part.split_once('.').map_or(part, |(stem, _)| stem));
    for name in parts.filter(|part| EMPTY_NAMES.contains(part)) {
        found.push(format!("{path}: the name {name:?} does not say what is in it"));
    }
    if path.ends_with(".rs") && !path.starts_with("crates/sys/") {
        for (index, line) in text.lines().enumerate().filter(|(_, line)| is_unchecked(line)) {
            found.push(format!("{path}:{}: only crates/sys may do this: {}", index + 1, line.trim()));
        }
    }
    found
}

fn has_licence_line(path: &str, text: &str) -> bool {
    let comment = if path.ends_with(".py") { "#" } else { "//" };
    let mut lines = text.lines();
    let first = lines.next().unwrap_or_default();
    let line = if first.starts_with("#!") { lines.next().unwrap_or_default() } else { first };
    line == format!("{comment} {LICENCE}")
}

/// Says whether a line of Rust switches the compiler's checks of memory off.
fn is_unchecked(line: &str) -> bool {
    let code = line.split("//").next().unwrap_or_default();
    code.match_indices("unsafe").any(|(at, word)| {
        let before = code[..at].chars().next_back();
        let after = code[at + word.len()..].trim_start();
        let is_word = !before.is_some_and(|before| before.is_alphanumeric() || before == '_');
        let opens = ["{", "fn ", "impl", "trait ", "extern", "("].iter().any(|next| after.starts_with(next));
        is_word && (opens || after.is_empty())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = "// SPDX-License-Identifier: Apache-2.0\n";
    // Put together so that this file keeps the rule it tests.
    const WORD: &str = concat!("un", "safe");

    #[test]
    fn a_file_without_its_licence_line_is_found() {
        assert_eq!(check("crates/x/src/a.rs", HEADER), [""; 0]);
        assert_eq!(
            check("e2e/a.py", "#!/usr/bin/env python3\n# SPDX-License-Identifier: Apache-2.0\n"),
            [""; 0]
        );
        assert_eq!(check("e2e/a.py", HEADER).len(), 1);
        assert_eq!(check("crates/x/src/a.mjs", "\n").len(), 1);
        assert_eq!(check("crates/x/src/a.rs", "").len(), 1);
    }

    #[test]
    fn a_file_may_have_600_lines_and_no_more() {
        let longest = HEADER.to_owned() + &"\n".repeat(LINES_MAX - 1);
        assert_eq!(check("crates/x/src/a.rs", &longest), [""; 0]);
        assert_eq!(check("crates/x/src/a.rs", &(longest + "\n")).len(), 1);
    }

    #[test]
    fn a_name_that_says_nothing_is_found_as_file_and_as_folder() {
        for path in ["crates/x/src/util.rs", "crates/x/tests/common/mod.rs", "sdk/python/src/x/helpers.py"] {
            let header = if path.ends_with(".py") { HEADER.replace("//", "#") } else { HEADER.to_owned() };
            assert_eq!(check(path, &header).len(), 1, "{path}");
        }
        assert_eq!(check("crates/x/src/utility_bill.rs", HEADER), [""; 0]);
    }

    #[test]
    fn unchecked_code_is_found_outside_sys_only() {
        let found = |code: &str| check("crates/x/src/a.rs", &format!("{HEADER}{code}\n")).len();
        assert_eq!(found(&format!("let x = {WORD} {{ y() }};")), 1);
        assert_eq!(found(&format!("pub {WORD} fn x() {{}}")), 1);
        assert_eq!(found(&format!("#[{WORD}(no_mangle)]")), 1);
        assert_eq!(found(&format!("let x = {WORD}\n{{ y() }};")), 1);
        assert_eq!(found(&format!("//! The only crate with {WORD} {{")), 0);
        assert_eq!(found(&format!("#![forbid({WORD}_code)]")), 0);
        assert_eq!(found(&format!("let not_{WORD} = 1;")), 0);
        let sys = format!("{HEADER}{WORD} {{}}\n");
        assert_eq!(check("crates/sys/src/a.rs", &sys), [""; 0]);
    }

    #[test]
    fn a_crate_without_the_lints_of_the_workspace_is_found() {
        assert_eq!(check("crates/x/Cargo.toml", "[package]\n\n[lints]\nworkspace = true\n"), [""; 0]);
        assert_eq!(check("crates/x/Cargo.toml", "[package]\n").len(), 1);
        assert_eq!(check("crates/sys/Cargo.toml", "[package]\n"), [""; 0]);
    }

    #[test]
    fn only_our_own_sources_are_read() {
        assert!(is_ours("crates/x/src/a.rs"));
        assert!(is_ours("sdk/python/src/microsandbox/_x.py"));
        assert!(is_ours("crates/x/Cargo.toml"));
        assert!(!is_ours("Cargo.toml"));
        assert!(!is_ours("README.md"));
    }

    #[test]
    fn this_repository_is_walked_and_its_sources_are_found() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        // Below this folder the files that the repository needs are missing, and nothing else is wrong.
        assert_eq!(violations(&root).unwrap().len(), NEEDED.len());
    }
}
