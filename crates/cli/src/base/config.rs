// SPDX-License-Identifier: Apache-2.0
//! The configuration of a base image, and the list of packages in it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;

use crate::base::node;
use crate::base::recipe::{Kind, Recipe, Sources};
use crate::base::{BaseError, Request};

/// How the image is used: what goes into its configuration as OCI has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct BaseConfig {
    /// When it was made: the moment at which times are cut, as RFC 3339.
    pub(crate) created: String,
    /// The kind of machine, by OCI's name for it.
    pub(crate) architecture: &'static str,
    /// The environment of every program, as `NAME=value`.
    pub(crate) env: Vec<String>,
    /// Where programs start.
    pub(crate) workdir: &'static str,
    /// What is started if nothing is named.
    pub(crate) cmd: Vec<String>,
    /// What it was made of.
    pub(crate) labels: BTreeMap<String, String>,
}

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Makes the configuration of an image from dpkg's list of what is installed in it.
pub(crate) fn of(
    request: &Request,
    sources: &Sources,
    recipe: &Recipe<'_>,
    status: &str,
) -> Result<BaseConfig, BaseError> {
    let packages = packages(status);
    let (program, version) = match request.kind {
        Kind::Python => ("python3", packages.get("python3").map(|version| (*version).to_owned())),
        Kind::Node => ("node", Some(node::version(recipe)?)),
    };
    let answer = |what: &str| BaseError::Answer { program: "mmdebstrap", what: what.to_owned() };
    let version = version.ok_or_else(|| answer("python3 is not among the packages"))?;
    let list = packages.iter().map(|(name, version)| format!("{name}={version}"));
    let mut env = vec![PATH.to_owned(), "LANG=C.UTF-8".to_owned()];
    if request.kind == Kind::Python {
        // Sandboxes run as their own root; pip's advice not to is for other machines.
        env.push("PIP_ROOT_USER_ACTION=ignore".to_owned());
    }
    let label = |name: &str, value: String| (name.to_owned(), value);
    let labels = [
        label("org.opencontainers.image.title", format!("microsandbox/{}", request.kind.name())),
        label("org.opencontainers.image.version", version),
        label("microsandbox.suites", sources.suites()),
        label("microsandbox.packages", list.collect::<Vec<String>>().join(" ")),
    ];
    Ok(BaseConfig {
        created: Timestamp::from_second(i64::from(request.epoch))
            .expect("every 32-bit number of seconds is a time")
            .to_string(),
        architecture: architecture(),
        env,
        workdir: "/",
        cmd: vec![program.to_owned()],
        labels: labels.into(),
    })
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Reads which packages are installed in which versions.
fn packages(status: &str) -> BTreeMap<&str, &str> {
    let read = |paragraph| Some((field(paragraph, "Package: ")?, field(paragraph, "Version: ")?));
    status.split("\n\n").filter_map(read).collect()
}

fn field<'a>(paragraph: &'a str, name: &str) -> Option<&'a str> {
    paragraph.lines().find_map(|line| line.strip_prefix(name))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::base::recipe::{self, Suite};

    const STATUS: &str = "\
Package: zlib1g
Status: install ok installed
Description: text
 Package: not this one
Version: 1:1.2.13

Package: python3
Version: 3.11.2-1
";

    fn config(status: &str) -> Result<BaseConfig, BaseError> {
        let suite = Suite::parse("bookworm").unwrap();
        let sources = recipe::official(&suite);
        let request =
            Request { kind: Kind::Python, suite, mirror: None, security_mirror: None, epoch: recipe::EPOCH };
        of(&request, &sources, &Recipe::new(&request, Path::new("/s")), status)
    }

    #[test]
    fn labels_say_what_it_was_made_of() {
        let config = config(STATUS).unwrap();
        assert_eq!(config.labels["microsandbox.packages"], "python3=3.11.2-1 zlib1g=1:1.2.13");
        assert_eq!(config.labels["microsandbox.suites"], "bookworm bookworm-updates bookworm-security");
        assert_eq!(config.labels["org.opencontainers.image.version"], "3.11.2-1");
        assert_eq!(config.cmd, ["python3"]);
        assert_eq!(config.created, "2025-01-01T00:00:00Z");
        assert!(config.env.contains(&"LANG=C.UTF-8".to_owned()));
    }

    #[test]
    fn an_image_without_its_language_is_none() {
        assert!(config("Package: zlib1g\nVersion: 1\n").unwrap_err().to_string().contains("python3"));
    }
}
