// SPDX-License-Identifier: Apache-2.0
//! Which image of an index runs on a machine.
//!
//! An entry fits when system and architecture are the machine's and its variant is one that the machine can run. Of those
//! that fit the best variant wins, and the first of equals. No variant means the usual one: `v7` for `arm`, `v8` for
//! `arm64`, `v1` for `amd64`.

use std::fmt;

use oci_spec::image::{Descriptor, ImageIndex};

use super::error::ContentError;
use crate::reference::quote;

/// Most platforms that an error lists.
const LISTED_MAX: usize = 12;

/// A system and a processor, in the words of OCI.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Platform {
    /// The operating system, such as `linux`.
    pub os: String,
    /// The architecture, such as `amd64`.
    pub architecture: String,
    /// The variant of the architecture, such as `v7`.
    pub variant: Option<String>,
}

impl Platform {
    /// Returns the platform of this machine.
    #[must_use]
    pub fn host() -> Platform {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "x86" => "386",
            "aarch64" => "arm64",
            "powerpc64" if cfg!(target_endian = "little") => "ppc64le",
            "powerpc64" => "ppc64",
            "loongarch64" => "loong64",
            other => other,
        };
        Platform { os: "linux".to_owned(), architecture: architecture.to_owned(), variant: None }
    }

    /// Returns how well an image for `other` runs here; higher is better, none is not at all.
    fn rank(&self, other: &Platform) -> Option<u32> {
        if self.os != other.os || self.architecture != other.architecture {
            return None;
        }
        if self.variant == other.variant {
            return Some(u32::MAX);
        }
        match (self.level(), other.level()) {
            (Some(mine), Some(theirs)) if theirs <= mine => Some(theirs),
            _ => None,
        }
    }

    /// Returns the number of a variant in architectures where a higher one runs what is for a lower one.
    fn level(&self) -> Option<u32> {
        let usual = match self.architecture.as_str() {
            "arm" => "v7",
            "arm64" => "v8",
            "amd64" => "v1",
            _ => return None,
        };
        self.variant.as_deref().unwrap_or(usual).strip_prefix('v')?.parse().ok()
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(variant) => write!(f, "/{variant}"),
            None => Ok(()),
        }
    }
}

/// Chooses the entry of an index that runs best on `wanted`.
///
/// Entries that name no platform count only when none does: such an index has one image for all.
pub(super) fn choose<'a>(index: &'a ImageIndex, wanted: &Platform) -> Result<&'a Descriptor, ContentError> {
    let mut best: Option<(u32, &Descriptor)> = None;
    let mut seen = Vec::new();
    for entry in index.manifests() {
        let Some(platform) = platform_of(entry) else { continue };
        if let Some(rank) = wanted.rank(&platform)
            && best.is_none_or(|(so_far, _)| rank > so_far)
        {
            best = Some((rank, entry));
        }
        seen.push(platform);
    }
    match (best, index.manifests().as_slice()) {
        (Some((_, entry)), _) => Ok(entry),
        (None, [only]) if seen.is_empty() => Ok(only),
        (None, _) => Err(ContentError::NoPlatform { wanted: wanted.to_string(), has: list(&seen) }),
    }
}

fn platform_of(entry: &Descriptor) -> Option<Platform> {
    let platform = entry.platform().as_ref()?;
    Some(Platform {
        os: platform.os().to_string(),
        architecture: platform.architecture().to_string(),
        variant: platform.variant().clone().filter(|variant| !variant.is_empty()),
    })
}

fn list(platforms: &[Platform]) -> String {
    // What builders add beside images (attestations) says that it is for an unknown system.
    let mut names: Vec<String> = Vec::new();
    for platform in platforms.iter().filter(|platform| platform.os != "unknown") {
        let name = quote(&platform.to_string());
        if !names.contains(&name) && names.len() < LISTED_MAX {
            names.push(name);
        }
    }
    if names.is_empty() { "nothing that names its platform".to_owned() } else { names.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn platform(text: &str) -> Platform {
        let mut parts = text.split('/').map(str::to_owned);
        let (os, architecture) = (parts.next().unwrap(), parts.next().unwrap());
        Platform { os, architecture, variant: parts.next() }
    }

    /// Makes an index with one entry for each word; `-` names no platform.
    fn index(platforms: &[&str]) -> ImageIndex {
        let entry = |(number, text): (usize, &&str)| {
            let platform = match *text {
                "-" => String::new(),
                text => {
                    let Platform { os, architecture, variant } = platform(text);
                    let variant = variant.map_or_else(String::new, |v| format!(r#","variant":"{v}""#));
                    format!(r#","platform":{{"os":"{os}","architecture":"{architecture}"{variant}}}"#)
                }
            };
            format!(
                r#"{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:{number:064}","size":1{platform}}}"#
            )
        };
        let entries: Vec<String> = platforms.iter().enumerate().map(entry).collect();
        serde_json::from_str(&format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, entries.join(",")))
            .unwrap()
    }

    fn chosen(platforms: &[&str], wanted: &str) -> Result<usize, ContentError> {
        choose(&index(platforms), &platform(wanted)).map(|entry| entry.digest().digest().parse().unwrap())
    }

    #[test]
    fn the_best_image_that_runs_is_chosen() {
        let many = [
            "linux/arm/v5",
            "linux/arm/v7",
            "linux/arm/v6",
            "linux/arm64/v8",
            "windows/amd64",
            "linux/amd64",
        ];
        let rows: [(&[&str], &str, usize); 12] = [
            (&many, "linux/amd64", 5),
            (&many, "linux/arm64", 3),
            (&many, "linux/arm64/v9", 3),
            (&many, "linux/arm", 1),
            (&many, "linux/arm/v7", 1),
            (&many, "linux/arm/v6", 2),
            (&many, "linux/arm/v5", 0),
            (&["linux/amd64/v3", "linux/amd64"], "linux/amd64", 1),
            (&["linux/amd64", "linux/amd64/v3", "linux/amd64/v2"], "linux/amd64/v3", 1),
            (&["linux/amd64", "linux/amd64"], "linux/amd64", 0),
            (&["-"], "linux/amd64", 0),
            (&["-", "linux/amd64", "unknown/unknown"], "linux/amd64", 1),
        ];
        for (platforms, wanted, number) in rows {
            assert_eq!(chosen(platforms, wanted), Ok(number), "{platforms:?} for {wanted}");
        }
    }

    #[test]
    fn what_there_is_is_told_when_nothing_runs() {
        for (platforms, wanted) in [
            (&["linux/arm64", "unknown/unknown"][..], "linux/amd64"),
            (&["linux/amd64/v3"], "linux/amd64"),
            (&["linux/arm/v7"], "linux/arm/v6"),
            (&["linux/riscv64/x"], "linux/riscv64"),
        ] {
            let error = chosen(platforms, wanted).expect_err(wanted).to_string();
            assert!(error.contains(wanted) && error.contains(platforms[0]), "{error}");
            assert!(!error.contains("unknown"), "{error}");
        }
        assert!(chosen(&["-", "-"], "linux/amd64").is_err());
        assert!(chosen(&[], "linux/amd64").is_err());
    }
}
