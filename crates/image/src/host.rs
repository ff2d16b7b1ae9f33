// SPDX-License-Identifier: Apache-2.0
//! The embedded default image: this machine's own `/usr` under a private root.
//!
//! ```text
//! <home>/images/host-v1/
//!   root/        the lowest layer of `/`: empty directories, the host's links (bin -> usr/bin), an /etc of its own
//!   usr-mask/    lies over the host's /usr: opaque, empty directories hide what is not for sandboxes
//! ```
//!
//! It is made anew at each start of the server, because the host's packages change: built beside its place, then
//! swapped in by a rename. Nothing of `/etc` gets in that is not on the list [`ETC`]; no key, no password, no host name.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::XattrFlags;

use crate::owners::OwnerPolicy;
use crate::{Rootfs, RootfsMount};

/// Directories of the root, with their modes.
const DIRECTORIES: [(&str, u32); 21] = [
    ("dev", 0o755),
    ("etc", 0o755),
    ("home", 0o755),
    ("media", 0o755),
    ("mnt", 0o755),
    ("opt", 0o755),
    ("proc", 0o755),
    ("root", 0o700),
    ("run", 0o755),
    ("srv", 0o755),
    ("sys", 0o755),
    ("tmp", 0o1777),
    ("usr", 0o755),
    ("var", 0o755),
    ("var/cache", 0o755),
    ("var/lib", 0o755),
    ("var/local", 0o755),
    ("var/log", 0o755),
    ("var/spool", 0o755),
    ("var/tmp", 0o1777),
    ("run/lock", 0o1777),
];

/// Names at the top that a host has as links into `/usr`, or as directories of programs.
const USR_LINKS: [&str; 6] = ["bin", "sbin", "lib", "lib32", "lib64", "libx32"];

/// What is taken over from the host's `/etc`: what programs need to run, and nothing that tells who the host is.
const ETC: [&str; 22] = [
    "alternatives",
    "bash.bashrc",
    "debian_version",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "locale.alias",
    "localtime",
    "lsb-release",
    "mime.types",
    "nsswitch.conf",
    "os-release",
    "profile",
    "protocols",
    "python3",
    "python3.11",
    "python3.12",
    "python3.13",
    "rpc",
    "services",
    "timezone",
    "ssl/openssl.cnf",
];

/// Where distributions keep the bundle of certificate authorities; the first that exists is taken over.
const CERTIFICATES: [&str; 3] =
    ["etc/ssl/certs/ca-certificates.crt", "etc/pki/tls/certs/ca-bundle.crt", "etc/ssl/ca-bundle.pem"];

/// Directories below `/usr` that sandboxes do not see.
const HIDDEN_USR: [&str; 2] = ["local/etc", "src"];

const PASSWD: &str = "\
root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin
bin:x:2:2:bin:/bin:/usr/sbin/nologin
mail:x:8:8:mail:/var/mail:/usr/sbin/nologin
www-data:x:33:33:www-data:/var/www:/usr/sbin/nologin
nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin
";
const GROUP: &str = "\
root:x:0:
daemon:x:1:
bin:x:2:
tty:x:5:
mail:x:8:
www-data:x:33:
staff:x:50:
users:x:100:
nogroup:x:65534:
";
const SHELLS: &str = "/bin/sh\n/bin/bash\n";

/// Most bytes of one file taken over from `/etc`.
const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// How deep directories are taken over from `/etc`.
const DEPTH_MAX: usize = 4;

/// Makes the image below `images` from the programs of `host`, which is `/` but in tests.
///
/// # Errors
/// What the disk says; nothing half made is left in its place.
pub fn build(images: &Path, host: &Path) -> io::Result<Rootfs> {
    fs_err::create_dir_all(images)?;
    let (place, fresh) = (images.join("host-v1"), images.join(format!("host-v1.new-{}", std::process::id())));
    remove(&fresh)?;
    make_root(&fresh.join("root"), host)?;
    make_mask(&fresh.join("usr-mask"))?;
    remove(&place)?;
    fs_err::rename(&fresh, &place)?;
    Ok(Rootfs {
        mounts: vec![
            RootfsMount { at: "/".to_owned(), lowers: vec![place.join("root")] },
            RootfsMount { at: "/usr".to_owned(), lowers: vec![place.join("usr-mask"), host.join("usr")] },
        ],
    })
}

/// Removes a tree that this module made: no sandbox ever writes into it.
#[expect(clippy::disallowed_methods, reason = "only trees made here, which nobody else writes to")]
fn remove(tree: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(tree) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn make_root(root: &Path, host: &Path) -> io::Result<()> {
    make_directory(root, 0o755)?;
    for (name, mode) in DIRECTORIES {
        make_directory(&root.join(name), mode)?;
    }
    for name in USR_LINKS {
        if let Ok(target) = fs_err::read_link(host.join(name)) {
            fs_err::os::unix::fs::symlink(target, root.join(name))?;
        }
    }
    let etc = root.join("etc");
    write(&etc.join("passwd"), PASSWD)?;
    write(&etc.join("group"), GROUP)?;
    write(&etc.join("shells"), SHELLS)?;
    fs_err::os::unix::fs::symlink("/proc/self/mounts", etc.join("mtab"))?;
    make_directory(&etc.join("ssl"), 0o755)?;
    for name in ETC {
        take_over(&host.join("etc").join(name), &etc.join(name), DEPTH_MAX)?;
    }
    take_over_certificates(&etc, host)
}

fn take_over_certificates(etc: &Path, host: &Path) -> io::Result<()> {
    for bundle in CERTIFICATES {
        let bundle = host.join(bundle);
        if bundle.exists() {
            make_directory(&etc.join("ssl/certs"), 0o755)?;
            // The bundle itself, whatever links lead to it.
            return copy_file(&fs_err::canonicalize(bundle)?, &etc.join("ssl/certs/ca-certificates.crt"));
        }
    }
    // A host without certificates is no error: sandboxes on it have none either.
    Ok(())
}

/// Copies a file, a link as a link, or a directory with what is in it; what is not there is left out.
fn take_over(from: &Path, to: &Path, depth_left: usize) -> io::Result<()> {
    let Ok(status) = fs_err::symlink_metadata(from) else { return Ok(()) };
    if status.is_symlink() {
        return fs_err::os::unix::fs::symlink(fs_err::read_link(from)?, to);
    }
    if status.is_file() && status.len() <= FILE_BYTES_MAX {
        return copy_file(from, to);
    }
    if status.is_dir() && depth_left > 0 {
        make_directory(to, 0o755)?;
        for entry in fs_err::read_dir(from)? {
            let entry = entry?;
            take_over(&entry.path(), &to.join(entry.file_name()), depth_left - 1)?;
        }
    }
    Ok(())
}

/// Lays empty, opaque directories where the host's are hidden (`Documentation/filesystems/overlayfs.rst`).
fn make_mask(mask: &Path) -> io::Result<()> {
    make_directory(mask, 0o755)?;
    for hidden in HIDDEN_USR {
        let mut path = mask.to_owned();
        for part in Path::new(hidden) {
            path.push(part);
            if !path.exists() {
                make_directory(&path, 0o755)?;
            }
        }
        rustix::fs::setxattr(&path, OwnerPolicy::of_this_process().opaque(), b"y", XattrFlags::empty())?;
    }
    Ok(())
}

fn make_directory(path: &Path, mode: u32) -> io::Result<()> {
    fs_err::create_dir_all(path)?;
    fs_err::set_permissions(path, PermissionsExt::from_mode(mode))
}

fn copy_file(from: &Path, to: &Path) -> io::Result<()> {
    fs_err::copy(from, to)?;
    // Readable to all, written by root alone, never set-id.
    fs_err::set_permissions(to, PermissionsExt::from_mode(0o644))
}

fn write(path: &PathBuf, text: &str) -> io::Result<()> {
    fs_err::write(path, text)?;
    fs_err::set_permissions(path, PermissionsExt::from_mode(0o644))
}
