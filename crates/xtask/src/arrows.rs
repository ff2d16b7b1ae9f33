// SPDX-License-Identifier: Apache-2.0
//! Which crate may depend on which: the arrows of ARCHITECTURE.md, checked against `cargo metadata`.

use std::collections::BTreeSet;

use serde_json::Value;

/// Every crate of the workspace, and the crates of it that it may depend on.
const ALLOWED: &[(&str, &[&str])] = &[
    ("protocol", &[]),
    ("sys", &[]),
    ("image", &["protocol"]),
    ("jail", &["sys"]),
    ("runtime", &["protocol", "jail", "sys"]),
    ("agent", &["protocol", "sys"]),
    ("server", &["protocol", "runtime", "image"]),
    ("attack", &["protocol", "sys"]),
    ("cli", &["protocol", "server", "image", "attack"]),
    ("xtask", &[]),
    ("corpus", &[]),
];

/// Crates from elsewhere that must never get into one of ours, and why.
const KEPT_OUT: &[(&str, &str, &str)] = &[
    ("protocol", "tokio", "the words on the wire do no I/O"),
    ("jail", "tokio", "it makes kernel namespaces, which only a single-threaded process can"),
    ("runtime", "oci-spec", "the server introduces images and walls to each other"),
    ("runtime", "oci-client", "the server introduces images and walls to each other"),
];

/// Lists what the workspace's dependencies break; tests and build scripts of a crate may use what they need.
pub(crate) fn violations(metadata: &Value) -> Vec<String> {
    let packages = metadata["packages"].as_array().map(Vec::as_slice).unwrap_or_default();
    if packages.is_empty() {
        return vec!["cargo metadata lists no package".to_owned()];
    }
    let mut found = Vec::new();
    for package in packages {
        let name = package["name"].as_str().unwrap_or("(no name)");
        let Some((_, allowed)) = ALLOWED.iter().find(|(known, _)| *known == name) else {
            found.push(format!("crate {name} is not among the crates of xtask/src/arrows.rs"));
            continue;
        };
        for (to, ours) in dependencies(package) {
            if ours && !allowed.contains(&to) {
                found.push(format!("crate {name} may not depend on {to}"));
            }
            if let Some((_, _, why)) = KEPT_OUT.iter().find(|(from, kept, _)| *from == name && *kept == to) {
                found.push(format!("crate {name} may not depend on {to}: {why}"));
            }
        }
    }
    found
}

/// The names of a package's ordinary dependencies, and whether each is of this workspace.
fn dependencies(package: &Value) -> BTreeSet<(&str, bool)> {
    let all = package["dependencies"].as_array().map(Vec::as_slice).unwrap_or_default();
    let ordinary = all.iter().filter(|dependency| dependency["kind"].is_null());
    ordinary
        .filter_map(|dependency| Some((dependency["name"].as_str()?, dependency["path"].is_string())))
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn workspace(from: &str, dependency: &Value) -> Value {
        json!({"packages": [{"name": from, "dependencies": [dependency]}]})
    }

    #[test]
    fn an_arrow_that_is_not_drawn_is_found() {
        let upward = workspace("runtime", &json!({"name": "server", "kind": null, "path": "/x"}));
        assert_eq!(violations(&upward), ["crate runtime may not depend on server"]);
        let drawn = workspace("runtime", &json!({"name": "jail", "kind": null, "path": "/x"}));
        assert_eq!(violations(&drawn), [""; 0]);
    }

    #[test]
    fn a_test_may_use_what_it_needs() {
        let for_tests = workspace("cli", &json!({"name": "runtime", "kind": "dev", "path": "/x"}));
        assert_eq!(violations(&for_tests), [""; 0]);
    }

    #[test]
    fn a_crate_from_elsewhere_is_kept_out_where_that_is_said() {
        let outside = |name: &str| json!({"name": name, "kind": null});
        assert_eq!(violations(&workspace("jail", &outside("tokio"))).len(), 1);
        assert_eq!(violations(&workspace("server", &outside("tokio"))), [""; 0]);
    }

    #[test]
    fn an_unknown_crate_and_an_empty_workspace_are_found() {
        assert_eq!(violations(&json!({"packages": [{"name": "extra", "dependencies": []}]})).len(), 1);
        assert_eq!(violations(&json!({"packages": []})).len(), 1);
        assert_eq!(violations(&json!({})).len(), 1);
    }

    #[test]
    fn the_arrows_have_no_circle() {
        let mut done: BTreeSet<&str> = BTreeSet::new();
        for _ in ALLOWED {
            let ready = ALLOWED.iter().filter(|(_, to)| to.iter().all(|name| done.contains(name)));
            done = ready.map(|(name, _)| *name).collect();
        }
        assert_eq!(done.len(), ALLOWED.len());
    }
}
