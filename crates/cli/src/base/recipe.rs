// SPDX-License-Identifier: Apache-2.0
//! What goes into an image, and how `mmdebstrap` is asked for it. Pure: nothing is read, run or written here.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use protocol::limits::{MIRROR_BYTES_MAX, SUITE_CHARS_MAX};

use crate::base::Request;

/// The key ring that has the keys of Debian's archive, outside and inside of an image.
pub(crate) const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// The moment at which times are cut unless another is named: the first of January 2025, in UTC.
pub(crate) const EPOCH: u32 = 1_735_689_600;

const MIRROR: &str = "http://deb.debian.org/debian";
const SECURITY_MIRROR: &str = "http://deb.debian.org/debian-security";
/// Suites that move on every day: fixes come to them as ordinary packages.
const ROLLING: [&str; 4] = ["sid", "unstable", "experimental", "testing"];

/// The language of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Kind {
    /// Python 3 with pip and venv.
    Python,
    /// Node with npm and npx.
    Node,
}

impl Kind {
    /// Returns its name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Python => "python",
            Kind::Node => "node",
        }
    }

    fn packages(self) -> &'static str {
        match self {
            Kind::Python => "ca-certificates,python3,python3-pip,python3-venv,python-is-python3",
            // Node itself is linked with the C++ library.
            Kind::Node => "ca-certificates,libstdc++6",
        }
    }
}

/// The name of one of Debian's releases.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Suite(String);

impl Suite {
    /// Reads one. It ends up in file contents, URLs and command lines, so it is letters and nothing else.
    pub(crate) fn parse(text: &str) -> Result<Suite, String> {
        let is_name =
            (1..=SUITE_CHARS_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_lowercase());
        match is_name {
            true => Ok(Suite(text.to_owned())),
            false => Err("it must be the name of a release of Debian, such as bookworm or trixie".to_owned()),
        }
    }

    fn is_rolling(&self) -> bool {
        ROLLING.contains(&self.0.as_str())
    }
}

impl fmt::Display for Suite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The address of a mirror of Debian's archive.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Mirror(String);

impl Mirror {
    /// Reads one.
    pub(crate) fn parse(text: &str) -> Result<Mirror, String> {
        let rest = ["http://", "https://", "file:///"].iter().find_map(|scheme| text.strip_prefix(scheme));
        let is_plain = text.len() <= MIRROR_BYTES_MAX && text.bytes().all(|byte| byte.is_ascii_graphic());
        match rest {
            Some(rest) if is_plain && !rest.is_empty() => Ok(Mirror(text.trim_end_matches('/').to_owned())),
            _ => Err("it must begin with http://, https:// or file:/// and have no spaces".to_owned()),
        }
    }

    /// Returns where the security updates of the same mirror are, if it is laid out as most are.
    fn security(&self) -> Option<Mirror> {
        self.0.ends_with("/debian").then(|| Mirror(format!("{}-security", self.0)))
    }
}

impl fmt::Debug for Mirror {
    // It may carry a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Mirror(..)")
    }
}

/// Where packages come from, in the order in which apt shall look.
#[derive(Debug)]
pub(crate) struct Sources(Vec<Source>);

#[derive(Debug)]
struct Source {
    mirror: Mirror,
    suites: String,
}

impl Sources {
    /// Names the sources of a suite on the mirrors.
    pub(crate) fn new(suite: &Suite, mirror: Mirror, security: Option<Mirror>) -> Sources {
        if suite.is_rolling() {
            return Sources(vec![Source { mirror, suites: suite.to_string() }]);
        }
        let security = security.or_else(|| mirror.security());
        let main = Source { mirror, suites: format!("{suite} {suite}-updates") };
        let updates = security.map(|mirror| Source { mirror, suites: format!("{suite}-security") });
        Sources([Some(main), updates].into_iter().flatten().collect())
    }

    /// Takes security updates from another mirror, if one is named.
    pub(crate) fn with_security(mut self, named: Option<Mirror>) -> Sources {
        if let (Some(mirror), [_, security]) = (named, self.0.as_mut_slice()) {
            security.mirror = mirror;
        }
        self
    }

    /// Writes them as apt reads them. Whatever is not signed by Debian is refused.
    pub(crate) fn deb822(&self) -> String {
        let stanza = |source: &Source| {
            format!(
                "Types: deb\nURIs: {}\nSuites: {}\nComponents: main\nSigned-By: {KEYRING}\n",
                source.mirror.0, source.suites
            )
        };
        self.0.iter().map(stanza).collect::<Vec<String>>().join("\n")
    }

    /// Returns all suites.
    pub(crate) fn suites(&self) -> String {
        self.0.iter().map(|source| source.suites.as_str()).collect::<Vec<&str>>().join(" ")
    }
}

/// Returns Debian's own mirrors, which work from everywhere.
pub(crate) fn official(suite: &Suite) -> Sources {
    Sources::new(suite, Mirror(MIRROR.to_owned()), Some(Mirror(SECURITY_MIRROR.to_owned())))
}

/// What packages leave out: documentation and translations; the terms under which they may be used stay. And the mark
/// that keeps pip from installing for all users: in a sandbox there is nobody else.
const LEFT_OUT: [&str; 11] = [
    "path-exclude=/usr/share/man/*",
    "path-exclude=/usr/share/info/*",
    "path-exclude=/usr/share/groff/*",
    "path-exclude=/usr/share/lintian/*",
    "path-exclude=/usr/share/bug/*",
    "path-exclude=/usr/share/doc/*",
    "path-include=/usr/share/doc/*/copyright",
    "path-exclude=/usr/share/locale/*",
    "path-include=/usr/share/locale/locale.alias",
    "path-exclude=/usr/lib/python3*/EXTERNALLY-MANAGED",
    // For the time of the build: what a crash would lose is thrown away then anyway.
    "force-unsafe-io",
];

/// How one image is made.
#[derive(Debug)]
pub(crate) struct Recipe<'a> {
    /// What was asked for.
    pub(crate) request: &'a Request,
    staging: &'a Path,
}

impl<'a> Recipe<'a> {
    /// Makes the recipe of an image that is made in a directory.
    pub(crate) fn new(request: &'a Request, staging: &'a Path) -> Recipe<'a> {
        Recipe { request, staging }
    }

    /// Returns the directory in which it is made.
    pub(crate) fn staging(&self) -> &Path {
        self.staging
    }

    /// Returns the script that cleans the new root.
    pub(crate) fn finish(&self) -> PathBuf {
        self.staging.join("finish.sh")
    }

    /// Returns where this machine's settings of apt are.
    pub(crate) fn apt_conf(&self) -> PathBuf {
        self.staging.join("apt.conf")
    }

    /// Returns where the sources for the build are.
    pub(crate) fn build_sources(&self) -> PathBuf {
        self.staging.join("build.sources")
    }

    /// Returns where the sources for the image are.
    pub(crate) fn image_sources(&self) -> PathBuf {
        self.staging.join("image.sources")
    }

    /// Returns the archive of what goes to `/usr/local`.
    pub(crate) fn node_tar(&self) -> PathBuf {
        self.staging.join("node.tar")
    }

    /// Returns where the list of packages is put.
    pub(crate) fn status(&self) -> PathBuf {
        self.staging.join("status")
    }

    /// Returns the result.
    pub(crate) fn tar(&self) -> PathBuf {
        self.staging.join("rootfs.tar")
    }

    /// Returns what `mmdebstrap` is told.
    pub(crate) fn arguments(&self, root: bool) -> Vec<OsString> {
        let hook = |text: String| format!("--customize-hook={text}");
        let mode = if root { "root" } else { "unshare" };
        let mut arguments = vec![
            format!("--mode={mode}"),
            // Essential packages and apt.
            "--variant=apt".to_owned(),
            "--format=tar".to_owned(),
            // Every sandbox has devices of its own.
            "--skip=output/dev".to_owned(),
            // The script that is run last does it.
            "--skip=cleanup/apt".to_owned(),
            // Without it, a whole Perl comes along for a step that is never taken.
            "--hook-dir=/usr/share/mmdebstrap/hooks/maybe-merged-usr".to_owned(),
            format!("--include={}", self.request.kind.packages()),
            format!("--aptopt={}", self.apt_conf().display()),
        ];
        arguments.extend(LEFT_OUT.map(|option| format!("--dpkgopt={option}")));
        arguments.push(hook(format!("sh {} \"$1\"", quoted(&self.finish()))));
        arguments.push(hook(format!(
            "upload {} /etc/apt/sources.list.d/debian.sources",
            quoted(&self.image_sources())
        )));
        if self.request.kind == Kind::Node {
            arguments.push(hook(format!("tar-in {} /usr/local", quoted(&self.node_tar()))));
        }
        arguments.push(hook(format!("download /var/lib/dpkg/status {}", quoted(&self.status()))));
        arguments.push(self.request.suite.to_string());
        let mut arguments: Vec<OsString> = arguments.into_iter().map(OsString::from).collect();
        arguments.extend([self.tar().into(), self.build_sources().into()]);
        arguments
    }

    /// Returns what `mmdebstrap` finds in its environment, beside what every program gets.
    pub(crate) fn environment(&self) -> Vec<(&'static str, OsString)> {
        vec![
            ("TMPDIR", self.staging.into()),
            ("SOURCE_DATE_EPOCH", self.request.epoch.to_string().into()),
            ("LC_ALL", "C.UTF-8".into()),
            ("DEBIAN_FRONTEND", "noninteractive".into()),
        ]
    }
}

/// Writes a path as one word of a hook.
fn quoted(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn suite(name: &str) -> Suite {
        Suite::parse(name).unwrap()
    }

    fn mirror(text: &str) -> Mirror {
        Mirror::parse(text).unwrap()
    }

    #[test]
    fn names_and_addresses_that_could_say_more_are_refused() {
        assert!(Suite::parse("trixie").is_ok());
        for wrong in ["", "Bookworm", "bookworm/", "../x", "a b", "bookworm\nTrusted: yes", "--help", "b00k"]
        {
            assert!(Suite::parse(wrong).is_err(), "{wrong:?}");
        }
        assert!(Suite::parse(&"a".repeat(SUITE_CHARS_MAX + 1)).is_err());
        for wrong in [
            "",
            "http://",
            "ftp://a/debian",
            "mirror.example",
            "http://a/\nTrusted: yes",
            "http://a b",
            "file:x",
        ] {
            assert!(Mirror::parse(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn security_updates_are_found_beside_a_mirror() {
        let suites = |sources: Sources| sources.suites();
        let plain = mirror("http://mirror.example/debian/");
        assert_eq!(
            suites(Sources::new(&suite("trixie"), plain.clone(), None)),
            "trixie trixie-updates trixie-security"
        );
        assert_eq!(suites(Sources::new(&suite("sid"), plain, None)), "sid");
        let other = || mirror("http://mirror.example/d12");
        assert_eq!(suites(Sources::new(&suite("bookworm"), other(), None)), "bookworm bookworm-updates");
        let both = Sources::new(&suite("bookworm"), other(), Some(mirror("http://s.example/x")));
        assert!(both.deb822().ends_with(
            "\n\nTypes: deb\nURIs: http://s.example/x\nSuites: bookworm-security\nComponents: main\n\
             Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg\n"
        ));
    }

    #[test]
    fn a_recipe_never_trusts_what_is_not_signed() {
        for kind in [Kind::Python, Kind::Node] {
            let request =
                Request { kind, suite: suite("bookworm"), mirror: None, security_mirror: None, epoch: EPOCH };
            let arguments = Recipe::new(&request, Path::new("/it's")).arguments(true);
            let arguments: Vec<&str> = arguments.iter().map(|argument| argument.to_str().unwrap()).collect();
            let all = arguments.join("\n").to_lowercase();
            for word in ["trusted", "unauthenticated", "insecure"] {
                assert!(!all.contains(word), "{all}");
            }
            assert!(all.contains(r"download /var/lib/dpkg/status '/it'\''s/status'"));
            assert_eq!(
                arguments[arguments.len() - 3..],
                ["bookworm", "/it's/rootfs.tar", "/it's/build.sources"]
            );
        }
    }
}
