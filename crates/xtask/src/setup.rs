// SPDX-License-Identifier: Apache-2.0
//! `cargo xtask setup`: installs by name what is missing and says so; quick when nothing is.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use fs_err as fs;

use crate::process;
use crate::workspace::{SYSTEM_PYTHON, Workspace, is_root};

/// A package of Debian, and how to see that what we need of it is there.
struct Package {
    name: &'static str,
    why: &'static str,
    is_there: fn() -> bool,
}

const PACKAGES: &[Package] = &[
    Package {
        name: "gcc",
        why: "the linker of Rust, and the compiler of what the benchmark of the walls compares with",
        is_there: || answers("cc", &["--version"]) && answers("gcc", &["--version"]),
    },
    Package {
        name: "libc6-dev",
        why: "msb-jail and msb-agent are linked with the static C library",
        is_there: || c_library_is_there("libc.a"),
    },
    Package {
        name: "pkg-config",
        why: "the published Rust clients of the tests find OpenSSL with it",
        is_there: || answers("pkg-config", &["--version"]),
    },
    Package {
        name: "libssl-dev",
        why: "the published Rust clients of the tests are linked with OpenSSL",
        is_there: || answers("pkg-config", &["--exists", "openssl"]),
    },
    Package {
        name: "python3",
        why: "the interpreter of sandboxes, and of the tests",
        is_there: || exists(SYSTEM_PYTHON),
    },
    Package {
        name: "python3-venv",
        why: "the Python environment of the tests",
        is_there: || answers(SYSTEM_PYTHON, &["-c", "import venv, ensurepip"]),
    },
    Package {
        name: "python3-pip",
        why: "pip install inside sandboxes",
        is_there: || answers(SYSTEM_PYTHON, &["-m", "pip", "--version"]),
    },
    Package {
        name: "nodejs",
        why: "the JavaScript interpreter of sandboxes",
        is_there: || exists("/usr/bin/node"),
    },
    Package {
        name: "mmdebstrap",
        why: "msb image build-base makes images from Debian's packages",
        is_there: || exists("/usr/bin/mmdebstrap"),
    },
    Package {
        name: "debian-archive-keyring",
        why: "the keys with which those packages are signed",
        is_there: || exists("/usr/share/keyrings/debian-archive-keyring.gpg"),
    },
    Package {
        name: "npm",
        why: "the base image with Node takes Node from the npm registry",
        is_there: || answers("npm", &["--version"]),
    },
    Package {
        name: "gpg",
        why: "the tests sign a package archive with a wrong key",
        is_there: || answers("gpg", &["--version"]),
    },
    Package {
        name: "util-linux",
        why: "tests try what unshare and mount can do",
        is_there: || exists("/usr/bin/unshare"),
    },
    Package {
        name: "uidmap",
        why: "newuidmap gives an ordinary user's sandboxes more than one id",
        is_there: || exists("/usr/bin/newuidmap"),
    },
    Package {
        name: "nftables",
        why: "the rules of what sandboxes may reach",
        is_there: || exists("/usr/sbin/nft"),
    },
    Package {
        name: "iproute2",
        why: "tests make machines with a network of their own",
        is_there: || exists("/usr/sbin/ip") || exists("/sbin/ip") || exists("/usr/bin/ip"),
    },
    Package {
        name: "btrfs-progs",
        why: "mkfs.btrfs makes the volume that sandboxes write on",
        is_there: || exists("/usr/sbin/mkfs.btrfs") || exists("/sbin/mkfs.btrfs"),
    },
    Package {
        name: "busybox-static",
        why: "the programs of the small images that tests make",
        is_there: || exists("/bin/busybox"),
    },
    Package {
        name: "docker-registry",
        why: "tests pull images from a real registry",
        is_there: || answers("docker-registry", &["--version"]),
    },
    Package {
        name: "skopeo",
        why: "tests put images into a real registry with it",
        is_there: || answers("skopeo", &["--version"]),
    },
    Package {
        name: "openssl",
        why: "tests make certificates for a registry with it",
        is_there: || answers("openssl", &["version"]),
    },
];

/// What only the emulated machine needs.
const GUEST_PACKAGES: &[Package] = &[
    Package {
        name: "qemu-system-x86",
        why: "emulates a machine with another kernel",
        is_there: || answers("qemu-system-x86_64", &["--version"]),
    },
    Package {
        name: "e2fsprogs",
        why: "makes the disks of that machine",
        is_there: || answers("mke2fs", &["-V"]),
    },
];

/// What the benchmark of pulls needs besides.
const PULL_BENCH_PACKAGES: &[Package] = &[Package {
    name: "umoci",
    why: "the benchmark of pulls compares with it",
    is_there: || answers("umoci", &["--version"]),
}];

/// The oldest Python that the SDK supports.
const PYTHON_MIN: &str = "3.10";
const STAMP: &str = "microsandbox-setup";
const REQUIREMENTS: &str = "e2e/requirements.txt";
const SDK: &str = "sdk/python";

/// Installs what is missing.
pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    debian_packages(PACKAGES)?;
    components(workspace);
    nextest(workspace)?;
    python_environment(workspace)
}

/// Installs what is missing for the emulated machine.
pub(crate) fn for_guest() -> Result<()> {
    debian_packages(GUEST_PACKAGES)
}

/// Installs what only the benchmark of pulls needs.
pub(crate) fn for_pull_bench() -> Result<()> {
    debian_packages(PULL_BENCH_PACKAGES)
}

fn debian_packages(needed: &[Package]) -> Result<()> {
    let missing: Vec<&Package> = needed.iter().filter(|package| !(package.is_there)()).collect();
    if missing.is_empty() {
        println!("setup: all packages of the system are there");
        return Ok(());
    }
    println!("setup: missing on this system, by the names of Debian's packages:");
    for package in &missing {
        println!("  {}: {}", package.name, package.why);
    }
    let names: Vec<&str> = missing.iter().map(|package| package.name).collect();
    if !exists("/etc/debian_version") || !exists("/usr/bin/apt-get") {
        println!(
            "setup: this is no Debian; going on without, install what these packages hold if something fails"
        );
        return Ok(());
    }
    if !is_root()? {
        bail!(
            "only root can install packages; try: sudo apt-get install --no-install-recommends {}",
            names.join(" ")
        );
    }
    process::run(Command::new("apt-get").args(["update", "--quiet"]))?;
    let mut install = Command::new("apt-get");
    install.args(["install", "--yes", "--quiet", "--no-install-recommends"]).args(names);
    process::run(install.env("DEBIAN_FRONTEND", "noninteractive"))?;
    match missing.iter().find(|package| !(package.is_there)()) {
        None => Ok(()),
        Some(package) => {
            bail!("{} was installed, but what it is for still does not work: {}", package.name, package.why)
        }
    }
}

/// Adds the parts of the Rust toolchain that `check` and `fmt` use; a toolchain that cannot have them works without.
fn components(workspace: &Workspace) {
    for (subcommand, component) in [("fmt", "rustfmt"), ("clippy", "clippy")] {
        if component_is_there(workspace, subcommand) {
            continue;
        }
        println!("setup: adding {component} to the Rust toolchain");
        let mut rustup = Command::new("rustup");
        rustup.args(["component", "add", component]).current_dir(&workspace.root);
        if let Err(error) = process::run(&mut rustup) {
            println!(
                "setup: {component} is left out, and so is what `cargo xtask check` does with it ({error:#})"
            );
        }
    }
}

/// Says whether a cargo subcommand of the toolchain is installed.
pub(crate) fn component_is_there(workspace: &Workspace, subcommand: &str) -> bool {
    process::succeeds(workspace.cargo(subcommand).arg("--version"))
}

fn nextest(workspace: &Workspace) -> Result<()> {
    if process::succeeds(workspace.cargo("nextest").arg("--version")) {
        return Ok(());
    }
    println!("setup: installing cargo-nextest, which runs the Rust tests; this takes some minutes");
    process::run(workspace.cargo("install").args(["--locked", "cargo-nextest"]))
}

/// Makes the Python environment with the SDK as it stands in this repository and the tools of the tests.
pub(crate) fn python_environment(workspace: &Workspace) -> Result<()> {
    let python = python()?;
    let stamp = workspace.venv().join(STAMP);
    let wanted = fingerprint(workspace, &python)?;
    if fs::read_to_string(&stamp).is_ok_and(|found| found == wanted) {
        return Ok(());
    }
    println!("setup: making the Python environment {}", workspace.venv().display());
    process::run(Command::new(&python).args(["-m", "venv", "--clear"]).arg(workspace.venv()))?;
    let mut pip = workspace.python_program("python");
    pip.args(["-m", "pip", "install", "--quiet", "--requirement", REQUIREMENTS, "--editable", SDK]);
    process::run(&mut pip)?;
    // pyright fetches its other half when it is first run: that belongs to the setup, not to a check.
    if !process::succeeds(workspace.python_program("pyright").arg("--version")) {
        println!("setup: pyright does not start here; `cargo xtask check` will say so too");
    }
    fs::write(stamp, wanted)?;
    Ok(())
}

/// Finds the Python for the environment: the system's own, else the first one on the path.
fn python() -> Result<String> {
    let version = format!(
        "import sys, venv, ensurepip; sys.exit(sys.version_info < ({}))",
        PYTHON_MIN.replace('.', ", ")
    );
    let found = [SYSTEM_PYTHON, "python3"].into_iter().find(|python| answers(python, &["-c", &version]));
    let found = found.with_context(|| format!("no Python {PYTHON_MIN} or later with venv and ensurepip"))?;
    Ok(found.to_owned())
}

/// Names everything that the environment was made from.
fn fingerprint(workspace: &Workspace, python: &str) -> Result<String> {
    let mut hasher = DefaultHasher::new();
    for file in [REQUIREMENTS, "sdk/python/pyproject.toml"] {
        fs::read_to_string(workspace.root.join(file))?.hash(&mut hasher);
    }
    process::capture(Command::new(python).arg("--version"))?.hash(&mut hasher);
    (python, &workspace.root, workspace.venv()).hash(&mut hasher);
    Ok(format!("{:016x}\n", hasher.finish()))
}

fn exists(path: &str) -> bool {
    Path::new(path).exists()
}

fn answers(program: &str, arguments: &[&str]) -> bool {
    process::succeeds(Command::new(program).args(arguments))
}

/// Says whether the C compiler knows where a library is: it answers with the bare name when it does not.
fn c_library_is_there(library: &str) -> bool {
    process::capture(Command::new("cc").arg(format!("-print-file-name={library}")))
        .is_ok_and(|answer| answer.trim_end() != library)
}
