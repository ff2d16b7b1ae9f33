// SPDX-License-Identifier: Apache-2.0
//! Which image a server would take for the two default names.

use std::path::Path;
use std::process::{Command, Stdio};

use image::store::Store;
use serde::Serialize;

use crate::failure::Failure;
use crate::registry::DefaultRegistryArgs;

/// Where programs of a sandbox are looked for (the default PATH inside).
const FOLDERS: [&str; 3] = ["/usr/local/bin", "/usr/bin", "/bin"];

/// What a name would come to.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Expected {
    /// The name.
    pub(super) name: &'static str,
    /// `store`, `registry` or `host`; nothing if no image would be found.
    pub(super) source: Option<&'static str>,
    /// Which image that is, or why there is none.
    pub(super) what: String,
    /// What would give one.
    pub(super) mend: Option<String>,
}

/// A default name, and the program that its image is for.
struct Default {
    name: &'static str,
    kind: &'static str,
    program: &'static str,
    package: &'static str,
}

const DEFAULTS: [Default; 2] = [
    Default { name: "microsandbox/python", kind: "python", program: "python3", package: "python3" },
    Default { name: "microsandbox/node", kind: "node", program: "node", package: "nodejs" },
];

/// Looks along the chain that a server has: the store, the registry if one is configured, this machine's own programs.
pub(super) fn expected(
    home: &Path,
    registry: &DefaultRegistryArgs,
    allow_host: bool,
) -> Result<Vec<Expected>, Failure> {
    let images = home.join("images");
    // Opening a store makes one.
    let store = if images.is_dir() { Some(Store::open(&images).map_err(Failure::Images)?) } else { None };
    DEFAULTS.iter().map(|image| one(image, store.as_ref(), registry, allow_host)).collect()
}

fn one(
    image: &Default,
    store: Option<&Store>,
    registry: &DefaultRegistryArgs,
    allow_host: bool,
) -> Result<Expected, Failure> {
    let found = |source, what| Expected { name: image.name, source: Some(source), what, mend: None };
    let local = DefaultRegistryArgs::default().reference(image.name)?.to_string();
    let known = store.map(|store| store.find(&local)).transpose().map_err(Failure::Images)?.flatten();
    if let Some(record) = known {
        return Ok(found("store", format!("{} ({})", record.reference, record.manifest_digest)));
    }
    let host = if allow_host { version(image.program) } else { None };
    if registry.is_named() {
        let what = registry.reference(image.name)?.to_string();
        let otherwise = if host.is_some() { ", and if it does not answer, this machine's own" } else { "" };
        return Ok(found("registry", format!("{what}, which was not asked{otherwise}")));
    }
    if let Some(version) = host {
        return Ok(found("host", format!("this machine's own {}", version.trim())));
    }
    let (kind, package) = (image.kind, image.package);
    let build = format!("msb image build-base {kind}");
    let mend = match allow_host {
        true => format!("{build}, or install the package {package}"),
        false => format!("{build}, or start the server with --allow-host-image or --dev"),
    };
    let what = "it is not in the store, and no registry is configured".to_owned();
    Ok(Expected { name: image.name, source: None, what, mend: Some(mend) })
}

/// Asks a program of this machine what it is.
fn version(program: &str) -> Option<String> {
    let path = FOLDERS.iter().map(|folder| Path::new(folder).join(program)).find(|path| path.is_file())?;
    let output = Command::new(&path).arg("--version").env_clear().stdin(Stdio::null()).output().ok()?;
    let said = String::from_utf8_lossy(&output.stdout).lines().next()?.chars().take(60).collect::<String>();
    output.status.success().then(|| format!("{} ({said})", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_anything_it_says_what_would_give_an_image() {
        let home = tempfile::tempdir().unwrap();
        let all = expected(home.path(), &DefaultRegistryArgs::default(), false).unwrap();
        assert_eq!(all.len(), 2);
        for one in &all {
            assert_eq!(one.source, None);
            assert!(one.mend.as_deref().unwrap().contains("--allow-host-image"), "{one:?}");
        }
        assert!(home.path().read_dir().unwrap().next().is_none(), "nothing was made");
    }

    #[test]
    fn a_configured_registry_goes_before_this_machine() {
        let home = tempfile::tempdir().unwrap();
        let registry = DefaultRegistryArgs { registry: "registry.example".to_owned() };
        let all = expected(home.path(), &registry, true).unwrap();
        assert_eq!(all[0].source, Some("registry"));
        assert!(all[0].what.starts_with("registry.example/microsandbox/python"), "{}", all[0].what);
    }
}
