// SPDX-License-Identifier: Apache-2.0
//! How this machine reaches Debian's archive: its mirrors, proxies and passwords, as its own apt has them.
//!
//! Only what says where and how to fetch is taken over. What would accept packages without a good signature is not, and is
//! switched off again by name.

use std::fmt::Write as _;
use std::path::Path;

use fs_err as fs;

use crate::base::recipe::{self, KEYRING, Mirror, Sources};
use crate::base::run::Runner;
use crate::base::{BaseError, Request};

/// Settings of apt that are taken over: those with one of these names, and those below them.
const TAKEN_OVER: [&str; 10] = [
    "Acquire::http",
    "Acquire::https",
    "Acquire::ftp",
    "Acquire::Retries",
    "Acquire::ForceIPv4",
    "Acquire::ForceIPv6",
    // How old an index may be is for those to say who keep a mirror of another day.
    "Acquire::Check-Valid-Until",
    "Acquire::Check-Date",
    "Acquire::Max-FutureTime",
    "Acquire::Min-ValidTime",
];

/// Comes after everything that was taken over.
const CHECKED: &str = "\
Acquire::AllowInsecureRepositories \"false\";
Acquire::AllowWeakRepositories \"false\";
Acquire::AllowDowngradeToInsecureRepositories \"false\";
APT::Get::AllowUnauthenticated \"false\";
";

/// What the build needs to know of this machine.
#[derive(Debug)]
pub(crate) struct Machine {
    /// Where packages come from.
    pub(crate) sources: Sources,
    /// Settings of apt.
    pub(crate) apt_conf: String,
}

impl Machine {
    /// Asks apt.
    pub(crate) async fn read(runner: &mut Runner, request: &Request) -> Result<Machine, BaseError> {
        let dump = runner.output("apt-config", &["dump".into()]).await?;
        let targets = ["indextargets", "--format", "$(REPO_URI) $(RELEASE)", "Identifier: Packages"];
        let targets = runner.output("apt-get", &targets.map(Into::into)).await?;
        let os_release = fs::read_to_string("/etc/os-release").unwrap_or_default();
        let (mirror, security) = mirrors(&os_release, &targets);
        let sources = match (&request.mirror, &request.security_mirror, mirror) {
            (Some(mirror), named, _) => Sources::new(&request.suite, mirror.clone(), named.clone()),
            (None, named, Some(mirror)) => Sources::new(&request.suite, mirror, named.clone().or(security)),
            (None, named, None) => recipe::official(&request.suite).with_security(named.clone()),
        };
        Ok(Machine { sources, apt_conf: apt_conf(&dump) })
    }
}

/// Says what is missing where Debian's keys are not there.
pub(crate) fn need_keyring() -> Result<(), BaseError> {
    match Path::new(KEYRING).is_file() {
        true => Ok(()),
        false => Err(BaseError::Missing { program: KEYRING, package: "debian-archive-keyring" }),
    }
}

/// Finds where a machine that runs Debian has its own packages and its security updates from.
fn mirrors(os_release: &str, targets: &str) -> (Option<Mirror>, Option<Mirror>) {
    let value = |name: &str| {
        let found = os_release.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        found.map(|value| value.trim_matches('"'))
    };
    let Some(own) = value("VERSION_CODENAME").filter(|_| value("ID") == Some("debian")) else {
        return (None, None);
    };
    let of = |wanted: &str| {
        let targets = targets.lines().filter_map(|line| line.split_once(' '));
        let mut uris = targets.filter(|(_, release)| *release == wanted).map(|(uri, _)| Mirror::parse(uri));
        uris.find_map(Result::ok)
    };
    (of(own), of(&format!("{own}-security")))
}

/// Makes the settings for the build of what `apt-config dump` writes.
fn apt_conf(dump: &str) -> String {
    let mut settings = String::new();
    for line in dump.lines() {
        let Some((name, value)) = line.split_once(' ') else { continue };
        let is_taken = TAKEN_OVER.iter().any(|taken| {
            let below = name.get(..taken.len()).filter(|start| start.eq_ignore_ascii_case(taken));
            below.is_some_and(|_| name.len() == taken.len() || name[taken.len()..].starts_with("::"))
        });
        if is_taken && value.starts_with('"') && value.ends_with("\";") {
            let _ = writeln!(settings, "{line}");
        }
    }
    // Passwords for mirrors are looked up below the new root unless they are named from the top.
    settings.push_str(
        "Dir::Etc::netrc \"/etc/apt/auth.conf\";\nDir::Etc::netrcparts \"/etc/apt/auth.conf.d\";\n",
    );
    settings + CHECKED
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEBIAN: &str = "NAME=\"Debian GNU/Linux\"\nVERSION_CODENAME=bookworm\nID=debian\n";
    const TARGETS: &str = "\
http://packages.example/other stable
http://mirror.example/debian/ bookworm
http://mirror.example/debian/ bookworm-updates
https://other.example/security/ bookworm-security
";

    #[test]
    fn a_debian_machine_lends_its_mirrors() {
        let (mirror, security) = mirrors(DEBIAN, TARGETS);
        assert!(mirror == Some(Mirror::parse("http://mirror.example/debian").unwrap()));
        assert!(security == Some(Mirror::parse("https://other.example/security").unwrap()));
        let ubuntu = DEBIAN.replace("ID=debian", "ID=ubuntu");
        assert!(mirrors(&ubuntu, TARGETS) == (None, None));
        assert!(mirrors(DEBIAN, "tor+http://mirror.example/debian/ bookworm\n") == (None, None));
    }

    #[test]
    fn how_to_fetch_is_taken_over_and_trust_is_not() {
        let conf = apt_conf(
            "APT \"\";\nAcquire::http::Proxy \"http://proxy.example:3128/\";\nacquire::retries \"3\";\n\
             Acquire::AllowInsecureRepositories \"true\";\nAPT::Get::AllowUnauthenticated \"true\";\n\
             Acquire::httpx \"1\";\nDir::Etc::trusted \"/tmp/x\";\nAcquire::http \"\"; Evil \"1\"\n",
        );
        assert!(conf.starts_with(
            "Acquire::http::Proxy \"http://proxy.example:3128/\";\nacquire::retries \"3\";\nDir"
        ));
        for refused in ["\"true\"", "httpx", "trusted", "Evil"] {
            assert!(!conf.contains(refused), "{conf}");
        }
        assert!(conf.ends_with(CHECKED));
    }
}
