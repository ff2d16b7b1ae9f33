// SPDX-License-Identifier: Apache-2.0
//! What a sandbox can write, and what its neighbours and the host notice of it.

use std::path::Path;
use std::sync::Arc;

use protocol::agent::{Language, RunEnd};
use protocol::isolation::{Protection, ProtectionName};
use runtime::Sandbox;
use runtime::volume::{DiskStore, DiskStoreKind};

use crate::host::{Host, missing, run};

const MIB: u64 = 1 << 20;
/// Tree blocks of btrfs; counts are exact but for a few of them.
const BLOCK: u64 = 16 << 10;

const FILL: &str = "
import errno, os
def fill(path, chunk=b'x' * 65536):
    written = 0
    try:
        with open(path, 'wb', buffering=0) as file:
            while True:
                written += file.write(chunk)
    except OSError as error:
        return errno.errorcode[error.errno], written
";

async fn python(sandbox: &Arc<dyn Sandbox>, code: &str) -> String {
    let (end, said) = run(sandbox, Language::Python, code).await;
    assert_eq!(end, RunEnd::Success, "{said}");
    said
}

/// A host with a volume, 1 GiB of it.
fn limited(name: &str) -> Host {
    Host::with_disk(name, &DiskStore { kind: DiskStoreKind::Btrfs, size_mib: Some(1024) })
}

fn sub_mib_of(said: &str) -> (String, u64) {
    let mut words = said.trim().trim_matches(['(', ')']).split(", ");
    let name = words.next().unwrap().trim_matches('\'').to_owned();
    (name, words.next().unwrap().parse().unwrap())
}

#[tokio::test]
async fn a_full_disk_is_its_sandboxs_own_trouble_and_space_comes_back() {
    if missing().is_some() {
        return;
    }
    let host = limited("full");
    let sandbox = host.start_with(|spec| spec.disk_mib = 64).await;
    let neighbour = host.start_with(|spec| spec.disk_mib = 64).await;
    python(&sandbox, FILL).await;
    for _ in 0..2 {
        let (error, written) = sub_mib_of(&python(&sandbox, "fill('/root/big')").await);
        assert!(error == "EDQUOT" || error == "ENOSPC", "{error}");
        assert!((62 * MIB..=64 * MIB).contains(&written), "{written}");
        let used = sandbox.disk_bytes().await.unwrap();
        assert!((written..=64 * MIB).contains(&used), "{used}");
        assert_eq!(python(&sandbox, "os.unlink('/root/big'); 'gone'").await, "'gone'\n");
    }
    let written = python(&neighbour, "open('/root/a', 'wb').write(b'y' * (40 << 20))").await;
    assert_eq!(written, format!("{}\n", 40 * MIB));
    let used = neighbour.disk_bytes().await.unwrap();
    assert!((40 * MIB..40 * MIB + 16 * BLOCK).contains(&used), "{used}");
    sandbox.stop().await.unwrap();
    neighbour.stop().await.unwrap();
    host.close().await;
}

#[tokio::test]
async fn empty_files_names_and_attributes_meet_the_limit_too() {
    if missing().is_some() {
        return;
    }
    let host = limited("inodes");
    let sandbox = host.start_with(|spec| spec.disk_mib = 16).await;
    // Near its limit btrfs does everything twice: most is taken quickly, and the rest by what is tested.
    let code = "
import errno, os, shutil
def until_full(act):
    count = 0
    try:
        while count < 1_000_000:
            act(count)
            count += 1
    except OSError as error:
        return errno.errorcode[error.errno], count
def touch(n):
    os.close(os.open(f'/root/d/{n}', os.O_CREAT))
def attribute(n):
    touch(n)
    os.setxattr(f'/root/d/{n}', 'user.a', b'x' * 3000)
def name(n):
    os.symlink('x' * 2000, f'/root/d/{n:0200}')
with open('/root/most', 'wb') as file:
    file.write(b'x' * (14 << 20))
os.sync()
";
    python(&sandbox, code).await;
    for (act, most) in [("touch", 20_000), ("attribute", 2000), ("name", 3000)] {
        let code =
            format!("os.mkdir('/root/d')\nprint(until_full({act}))\nshutil.rmtree('/root/d')\nos.sync()");
        let (error, count) = sub_mib_of(&python(&sandbox, &code).await);
        assert!(error == "EDQUOT" || error == "ENOSPC", "{act}: {error}");
        assert!((100..most).contains(&count), "{act}: {count}");
        assert!(sandbox.disk_bytes().await.unwrap() <= 16 * MIB, "{act}");
    }
    sandbox.stop().await.unwrap();
    host.close().await;
}

#[tokio::test]
async fn other_ways_to_take_space_meet_the_limit_and_holes_take_none() {
    if missing().is_some() {
        return;
    }
    let host = limited("ways");
    let sandbox = host.start_with(|spec| spec.disk_mib = 64).await;
    let code = "
import ctypes, errno, fcntl, os
libc = ctypes.CDLL(None, use_errno=True)
def allocate(mib, mode=0):
    file = os.open('/root/allocated', os.O_CREAT | os.O_RDWR)
    failed = libc.fallocate(file, mode, ctypes.c_long(0), ctypes.c_long(mib << 20))
    os.close(file)
    return errno.errorcode[ctypes.get_errno()] if failed else 'ok'
said = [allocate(100), allocate(100, 1), allocate(20)]
os.unlink('/root/allocated')
with open('/root/sparse', 'wb') as file:
    file.truncate(1 << 40)
os.truncate('/root/sparse', 0)
with open('/root/one', 'wb') as file:
    file.write(b'x' * (20 << 20))
os.sync()
for n in range(50):
    os.link('/root/one', f'/root/link{n}')
def clone(to):
    with open('/root/one', 'rb') as one, open(to, 'wb') as other:
        try:
            fcntl.ioctl(other, 0x40049409, one.fileno())
            return 'ok'
        except OSError as error:
            return errno.errorcode[error.errno]
[*said, clone('/root/two')]
";
    let said = python(&sandbox, code).await;
    let answers: Vec<&str> =
        said.trim().trim_matches(['[', ']']).split(", ").map(|word| word.trim_matches('\'')).collect();
    assert!(["EDQUOT", "ENOSPC"].contains(&answers[0]), "{said}");
    assert!(["EDQUOT", "ENOSPC"].contains(&answers[1]), "{said}");
    assert_eq!(answers[2], "ok", "{said}");
    let used = sandbox.disk_bytes().await.unwrap();
    assert!((20 * MIB..21 * MIB).contains(&used), "{used} after {said}");
    sandbox.stop().await.unwrap();
    host.close().await;
}

#[tokio::test]
async fn a_crowd_of_writers_has_one_limit() {
    if missing().is_some() {
        return;
    }
    let host = limited("crowd");
    let sandbox = host.start_with(|spec| (spec.disk_mib, spec.memory_mib) = (48, 512)).await;
    let code = "
import os
children = []
for n in range(40):
    child = os.fork()
    if child == 0:
        try:
            file = os.open(f'/root/{n}', os.O_CREAT | os.O_WRONLY)
            while True:
                os.write(file, b'x' * 100_000)
                os.fsync(file)
        except OSError:
            os._exit(0)
    children.append(child)
for child in children:
    os.waitpid(child, 0)
sum(entry.stat().st_size for entry in os.scandir('/root') if entry.name.isdecimal())
";
    let total: u64 = python(&sandbox, code).await.trim().parse().unwrap();
    assert!((40 * MIB..=48 * MIB).contains(&total), "{total}");
    // What was just written counts as reserved and as referenced for a moment, until the next commit.
    let mut used = sandbox.disk_bytes().await.unwrap();
    if used > 48 * MIB {
        tokio::time::sleep(std::time::Duration::from_secs(2)).await;
        used = sandbox.disk_bytes().await.unwrap();
    }
    assert!(used <= 48 * MIB, "{used}");
    sandbox.stop().await.unwrap();
    host.close().await;
}

#[tokio::test]
async fn no_mount_shows_the_volume_and_nothing_of_it_is_left() {
    if missing().is_some() {
        return;
    }
    let host = limited("hidden");
    let sandbox = host.start().await;
    let file = host.home.join("volume.btrfs");
    assert_eq!(devices_of(&file), 1);
    let mounts = fs_err::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(host.home.to_str().unwrap()), "{mounts}");
    let said = python(&sandbox, "open('/proc/self/mountinfo').read()").await;
    assert!(!said.contains("volume") && !said.contains("loop"), "{said}");
    sandbox.stop().await.unwrap();
    drop(sandbox);
    let home = host.home.clone();
    // A second one, on the volume that is there.
    drop(host);
    assert_eq!(devices_of(&file), 0, "the device let go of its file");
    let inode = inode_of(&file);
    let host = limited("hidden");
    assert_eq!((host.home.clone(), inode_of(&file)), (home, inode), "the volume is kept");
    host.start().await.stop().await.unwrap();
    host.close().await;
}

#[tokio::test]
async fn a_volume_that_is_damaged_is_made_anew() {
    if missing().is_some() {
        return;
    }
    let host = limited("damaged");
    let file = host.home.join("volume.btrfs");
    drop(host);
    let inode = inode_of(&file);
    fs_err::write(&file, "this is no file system").unwrap();
    fs_err::OpenOptions::new().write(true).open(&file).unwrap().set_len(1 << 30).unwrap();
    let host = limited("damaged");
    assert_ne!(inode_of(&file), inode);
    host.start().await.stop().await.unwrap();
    host.close().await;
}

#[tokio::test]
async fn without_a_volume_nothing_is_limited_and_that_is_said() {
    if missing().is_some() {
        return;
    }
    let host = Host::with_disk("plain", &DiskStore { kind: DiskStoreKind::Plain, size_mib: None });
    let sandbox = host.start_with(|spec| spec.disk_mib = 16).await;
    for limit in disk_protections(&sandbox) {
        assert!(!limit.on && limit.mend.is_some(), "{limit:?}");
        assert!(limit.why.as_deref().unwrap().contains("plain"), "{limit:?}");
    }
    python(&sandbox, "open('/root/big', 'wb').write(b'x' * (20 << 20))").await;
    let used = sandbox.disk_bytes().await.unwrap();
    assert!((20 * MIB..21 * MIB).contains(&used), "{used}");
    assert!(!host.home.join("volume.btrfs").exists());
    sandbox.stop().await.unwrap();
    host.close().await;

    let host = limited("said");
    let sandbox = host.start().await;
    assert!(disk_protections(&sandbox).iter().all(|limit| limit.on && limit.mend.is_none()));
    sandbox.stop().await.unwrap();
    host.close().await;
}

fn disk_protections(sandbox: &Arc<dyn Sandbox>) -> Vec<Protection> {
    let names = [ProtectionName::DiskLimit, ProtectionName::InodeLimit];
    let all = sandbox.isolation().protections;
    let found: Vec<Protection> = all.into_iter().filter(|one| names.contains(&one.name)).collect();
    assert_eq!(found.len(), 2);
    found
}

fn inode_of(file: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    fs_err::metadata(file).unwrap().ino()
}

/// Counts the loop devices that have this file behind them.
fn devices_of(file: &Path) -> usize {
    let devices = fs_err::read_dir("/sys/block").unwrap();
    let behind = devices
        .filter_map(|entry| fs_err::read_to_string(entry.unwrap().path().join("loop/backing_file")).ok());
    behind.filter(|path| path.trim() == file.to_str().unwrap()).count()
}
