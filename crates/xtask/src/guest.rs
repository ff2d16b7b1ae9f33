// SPDX-License-Identifier: Apache-2.0
//! An emulated machine with Debian's cloud kernel and cgroups of version 2 alone, for the test of that name.
//!
//! ```text
//! target/v2guest/
//!   made-from                 what the next two were made of; they are kept until that changes
//!   kernel/                   the kernel's package, unpacked
//!   base.ext4                 the first disk: Debian with Python
//!   initramfs/, .cpio         the kernel's modules and e2e/guest/initramfs.sh, which mounts the disks
//!   work/, work.ext4          the second disk: our programs and what is run there (e2e/guest)
//! ```
//!
//! There is no hardware virtualisation in it: QEMU translates every instruction, so that it runs anywhere.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use fs_err as fs;

use crate::build::Profile;
use crate::workspace::Workspace;
use crate::{process, setup};

/// Changes whenever the way does in which the disk is made.
const RECIPE: &str = "2";
/// The kernel's package by the name that stays the same.
const KERNEL: &str = "linux-image-cloud-amd64";
/// What of the kernel is a module and needed, in the order in which it is loaded.
const MODULES: [&str; 8] = [
    "drivers/virtio/virtio_ring",
    "drivers/virtio/virtio",
    "drivers/virtio/virtio_pci_modern_dev",
    "drivers/virtio/virtio_pci_legacy_dev",
    "drivers/virtio/virtio_pci",
    "drivers/block/virtio_blk",
    "fs/overlayfs/overlay",
    "block/bfq",
];
/// Our programs.
const PROGRAMS: [&str; 3] = ["msb", "msb-jail", "msb-agent"];
/// Files of `e2e/guest` that the machine runs from its second disk.
const SCRIPTS: [&str; 2] = ["init.sh", "check.py"];
/// After so many seconds the machine is switched off: ten times what it takes on two idle processors.
const SECONDS_MAX: &str = "900";

/// Makes the disks and returns the command that is the machine; its output is that of the checks.
pub(crate) fn machine(workspace: &Workspace, profile: Profile) -> Result<Command> {
    setup::for_guest()?;
    let room = Room { at: workspace.target.join("v2guest"), scripts: workspace.root.join("e2e/guest") };
    room.base()?;
    room.initramfs()?;
    room.work(&workspace.target.join(profile.folder()))?;
    let kernel = only_entry(&room.at.join("kernel/boot"), "vmlinuz-")?;
    let mut machine = Command::new("timeout");
    machine.args(["--kill-after=10", SECONDS_MAX, "qemu-system-x86_64"]);
    machine.args(["-M", "pc", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "1500"]);
    machine.args(["-no-reboot", "-nographic", "-nodefaults", "-serial", "stdio"]);
    machine.arg("-kernel").arg(kernel).arg("-initrd").arg(room.at.join("initramfs.cpio"));
    machine.args(["-append", "console=ttyS0 panic=-1 quiet"]);
    for disk in ["base", "work"] {
        let file = room.at.join(format!("{disk}.ext4"));
        let file = file.to_str().context("the target folder has a name that is no UTF-8")?;
        // Written to a file that vanishes: every run begins with the same disks.
        machine.args(["-drive", &format!("id={disk},file={file},format=raw,if=none,snapshot=on")]);
        machine.args(["-device", &format!("virtio-blk-pci,drive={disk}")]);
    }
    Ok(machine)
}

/// The folder of the machine, and that of what it runs.
struct Room {
    at: PathBuf,
    scripts: PathBuf,
}

impl Room {
    /// Makes the first disk and gets the kernel, unless they are there.
    fn base(&self) -> Result<()> {
        let suite = suite(&fs::read_to_string("/etc/os-release")?)?;
        let wanted = format!("{RECIPE} {suite} {KERNEL}\n");
        let stamp = self.at.join("made-from");
        if fs::read_to_string(&stamp).is_ok_and(|found| found == wanted) {
            return Ok(());
        }
        println!("v2guest: making the disk with Debian {suite} and getting its kernel; this is kept");
        self.anew("")?;
        process::run(Command::new("apt-get").args(["update", "--quiet"]))?;
        let about = process::capture(Command::new("apt-cache").args(["show", "--no-all-versions", KERNEL]))?;
        let package =
            kernel_package(&about).with_context(|| format!("{KERNEL} names no kernel:\n{about}"))?;
        process::run(Command::new("apt-get").args(["download", "--quiet", package]).current_dir(&self.at))?;
        let kernel = only_entry(&self.at, "linux-image-")?;
        process::run(Command::new("dpkg-deb").arg("-x").arg(kernel).arg(self.at.join("kernel")))?;
        let root = self.at.join("root");
        let mut debian = Command::new("mmdebstrap");
        debian.args(["--quiet", "--variant=essential", "--include=python3"]);
        for folder in ["doc", "info", "locale", "man"] {
            debian.arg(format!("--dpkgopt=path-exclude=/usr/share/{folder}/*"));
        }
        debian.args(["--customize-hook=mkdir \"$1/checks\"", &suite]).arg(&root);
        process::run(&mut debian)?;
        disk(&root, &self.at.join("base.ext4"), "400M")?;
        fs::remove_dir_all(root)?;
        fs::write(stamp, wanted)?;
        Ok(())
    }

    /// Makes what the kernel starts from.
    fn initramfs(&self) -> Result<()> {
        let folder = self.anew("initramfs")?;
        for name in ["bin", "dev", "modules", "root"] {
            fs::create_dir(folder.join(name))?;
        }
        fs::copy("/bin/busybox", folder.join("bin/busybox"))?;
        fs::copy(self.scripts.join("initramfs.sh"), folder.join("init"))?;
        fs::set_permissions(folder.join("init"), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        let modules = only_entry(&self.at.join("kernel/lib/modules"), "")?.join("kernel");
        let mut order = String::new();
        for module in MODULES {
            let file = modules.join(format!("{module}.ko"));
            let name = module.rsplit('/').next().unwrap_or(module);
            fs::copy(&file, folder.join(format!("modules/{name}.ko")))?;
            order.push_str(&format!("{name}\n"));
        }
        fs::write(folder.join("modules/order"), order)?;
        let mut pack = Command::new("sh");
        pack.args(["-c", "find . | /bin/busybox cpio -o -H newc > ../initramfs.cpio"]).current_dir(folder);
        process::run(&mut pack)
    }

    /// Makes the second disk.
    fn work(&self, programs: &Path) -> Result<()> {
        let folder = self.anew("work")?;
        for program in PROGRAMS {
            let mut strip = Command::new("strip");
            process::run(
                strip.arg("--strip-debug").arg("-o").arg(folder.join(program)).arg(programs.join(program)),
            )?;
        }
        fs::copy("/bin/busybox", folder.join("busybox"))?;
        for script in SCRIPTS {
            fs::copy(self.scripts.join(script), folder.join(script))?;
        }
        disk(&folder, &self.at.join("work.ext4"), "256M")
    }

    /// Makes a folder that is empty.
    fn anew(&self, name: &str) -> Result<PathBuf> {
        let folder = self.at.join(name);
        match fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            _ => fs::create_dir_all(&folder)?,
        }
        Ok(folder)
    }
}

/// Makes a file with a file system that holds a folder.
fn disk(folder: &Path, file: &Path, size: &str) -> Result<()> {
    if file.exists() {
        fs::remove_file(file)?;
    }
    process::run(Command::new("mke2fs").args(["-q", "-t", "ext4", "-d"]).arg(folder).arg(file).arg(size))
}

/// The release of Debian that this is: its C library is the one our programs were linked with.
fn suite(os_release: &str) -> Result<String> {
    let value = |key: &str| {
        let line = os_release.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        line.map(|value| value.trim_matches('"').to_owned())
    };
    match (value("ID").as_deref(), value("VERSION_CODENAME")) {
        (Some("debian"), Some(suite)) => Ok(suite),
        _ => bail!("the emulated machine is made from the packages of Debian, and this is another system"),
    }
}

/// Finds the package of the kernel itself in what is said about the one that depends on it.
fn kernel_package(about: &str) -> Option<&str> {
    let depends = about.lines().find_map(|line| line.strip_prefix("Depends: "))?;
    depends.split(", ").find(|name| name.starts_with("linux-image-"))?.split(' ').next()
}

/// Finds the one entry of a folder that begins so.
fn only_entry(folder: &Path, prefix: &str) -> Result<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(prefix) {
            found.push(entry.path());
        }
    }
    match found.as_slice() {
        [only] => Ok(only.clone()),
        _ => bail!("{} has {} entries called {prefix}*", folder.display(), found.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_is_the_one_that_the_steady_name_depends_on() {
        let about =
            "Package: linux-image-cloud-amd64\nDepends: linux-image-6.1.0-9-cloud-amd64 (= 6.1.1-2)\n";
        assert_eq!(kernel_package(about), Some("linux-image-6.1.0-9-cloud-amd64"));
        assert_eq!(kernel_package("Package: x\n"), None);
    }

    #[test]
    fn only_debian_has_a_suite() {
        assert_eq!(suite("ID=debian\nVERSION_CODENAME=bookworm\n").unwrap(), "bookworm");
        assert!(suite("ID=ubuntu\nVERSION_CODENAME=noble\n").is_err());
    }
}
