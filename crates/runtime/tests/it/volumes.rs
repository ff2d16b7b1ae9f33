// SPDX-License-Identifier: Apache-2.0
//! Directories of the host in a sandbox: what can be done with them, and what cannot.

use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use protocol::agent::CommandEnd;
use runtime::{HostVolume, StartError};

use crate::host::{Host, missing, sh};

const FINE: CommandEnd = CommandEnd::Exited { code: 0 };
/// Somebody who is not root.
const OWNER: u32 = 4711;

/// A directory with a file and a subdirectory, all of it `OWNER`'s.
fn data(host: &Host) -> PathBuf {
    let data = host.home.join("data");
    fs_err::create_dir_all(data.join("sub")).unwrap();
    fs_err::write(data.join("file"), "from the host").unwrap();
    for path in [data.clone(), data.join("sub"), data.join("file")] {
        chown(path, Some(OWNER), Some(OWNER)).unwrap();
    }
    data
}

fn volume(root: &Path, beneath: &str, at: &str, writable: bool) -> HostVolume {
    HostVolume { root: root.to_owned(), beneath: beneath.into(), at: at.into(), writable }
}

fn step(error: &StartError) -> &str {
    match error {
        StartError::Walls { step, .. } => step,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_volume_is_read_and_nothing_can_write_through_it() {
    if missing().is_some() {
        return;
    }
    let host = Host::new("read");
    let data = data(&host);
    fs_err::set_permissions(&data, PermissionsExt::from_mode(0o700)).unwrap();
    let sandbox =
        host.start_with(|spec| spec.volumes = vec![volume(&data, ".", "/mnt/in/data", false)]).await;
    let (end, said) = sh(&sandbox, "cat /mnt/in/data/file; stat -c ' %u %g' /mnt/in/data/file").await;
    assert_eq!((end, said.as_str()), (FINE, "from the host 0 0\n"));
    for script in [
        "echo x > /mnt/in/data/file",
        "echo x > /mnt/in/data/new",
        "rm /mnt/in/data/file",
        "chmod 777 /mnt/in/data",
        "chown 1 /mnt/in/data/file",
        "touch /mnt/in/data/file",
        "mount -o remount,rw /mnt/in/data",
        "mount --bind /mnt/in/data /tmp",
        "umount /mnt/in/data",
    ] {
        let (end, said) = sh(&sandbox, script).await;
        assert_ne!(end, FINE, "{script}: {said}");
    }
    let (_, said) = sh(&sandbox, "grep /mnt/in/data /proc/self/mountinfo").await;
    assert!(["ro,", "nosuid", "nodev"].iter().all(|word| said.contains(word)), "{said}");
    sandbox.stop().await.unwrap();
    assert_eq!(fs_err::read_to_string(data.join("file")).unwrap(), "from the host");
    assert_eq!(fs_err::read_dir(&data).unwrap().count(), 2);
    host.close().await;
}

#[tokio::test]
async fn what_root_inside_writes_is_the_owners_and_nobody_else_inside_can_write() {
    if missing().is_some() {
        return;
    }
    let host = Host::new("write");
    let data = data(&host);
    fs_err::write(data.join("sub/roots"), "x").unwrap();
    fs_err::set_permissions(data.join("sub/roots"), PermissionsExt::from_mode(0o600)).unwrap();
    fs_err::set_permissions(&data, PermissionsExt::from_mode(0o777)).unwrap();
    let sandbox = host.start_with(|spec| spec.volumes = vec![volume(&data, ".", "/data", true)]).await;
    let script =
        "echo inside > /data/new && mkdir -p /data/a/b && ln -s /etc/shadow /data/link && rm /data/file";
    let (end, said) = sh(&sandbox, script).await;
    assert_eq!(end, FINE, "{said}");
    for script in [
        "cat /data/sub/roots",
        "echo x >> /data/sub/roots",
        "chown 1 /data/new",
        "mknod /data/null c 1 3",
        "setpriv --reuid 1000 --clear-groups touch /data/others",
    ] {
        let (end, said) = sh(&sandbox, script).await;
        assert_ne!(end, FINE, "{script}: {said}");
    }
    sandbox.stop().await.unwrap();
    for name in ["new", "a", "a/b", "link"] {
        let status = data.join(name).symlink_metadata().unwrap();
        assert_eq!((status.uid(), status.gid()), (OWNER, OWNER), "{name}");
    }
    assert!(!data.join("file").exists() && !data.join("others").exists());
    assert_eq!(fs_err::read_to_string(data.join("sub/roots")).unwrap(), "x");
    host.close().await;
}

#[tokio::test]
async fn the_jail_looks_for_itself() {
    if missing().is_some() {
        return;
    }
    let host = Host::new("looks");
    let data = data(&host);
    symlink("/etc", data.join("out")).unwrap();
    symlink("../..", data.join("up")).unwrap();
    symlink("sub", data.join("near")).unwrap();
    for beneath in ["out", "up", "../root", "/etc", "none", "file"] {
        let tried = host.try_start(|spec| spec.volumes = vec![volume(&data, beneath, "/data", false)]).await;
        let Err(error) = tried else { panic!("{beneath} was mounted") };
        assert!(step(&error).contains("open the volume"), "{beneath}: {error:?}");
    }
    // Root's directories of the host are not written to: set-id files in them would be root's.
    chown(&data, Some(0), Some(0)).unwrap();
    let tried = host.try_start(|spec| spec.volumes = vec![volume(&data, ".", "/data", true)]).await;
    let Err(error) = tried else { panic!("root's directory was mounted for writing") };
    assert!(step(&error).contains("belongs to user 0"), "{error:?}");
    let sandbox = host.start_with(|spec| spec.volumes = vec![volume(&data, "near", "/data", false)]).await;
    sandbox.stop().await.unwrap();
    // The allowed directory itself, exchanged for a link.
    let linked = host.home.join("linked");
    symlink("/etc", &linked).unwrap();
    let tried = host.try_start(|spec| spec.volumes = vec![volume(&linked, ".", "/data", false)]).await;
    assert!(tried.is_err());
    host.close().await;
}

#[tokio::test]
async fn an_image_that_ships_the_place_as_a_link_is_refused() {
    if missing().is_some() {
        return;
    }
    let host = Host::new("places");
    let data = data(&host);
    let evil = host.home.join("evil");
    fs_err::create_dir_all(evil.join("usr")).unwrap();
    fs_err::create_dir_all(evil.join("real")).unwrap();
    symlink("/etc", evil.join("link")).unwrap();
    symlink("real", evil.join("near")).unwrap();
    fs_err::write(evil.join("file"), "x").unwrap();
    for at in ["/link", "/link/x", "/near", "/near/x", "/file", "/file/x"] {
        let tried = host
            .try_start(|spec| {
                spec.rootfs.mounts[0].lowers = vec![evil.clone()];
                spec.volumes = vec![volume(&data, ".", at, false)];
            })
            .await;
        let Err(error) = tried else { panic!("{at} was mounted on") };
        assert!(step(&error).contains(at), "{at}: {error:?}");
    }
    assert!(!Path::new("/etc/x").exists() && !evil.join("real/x").exists());
    host.close().await;
}

#[tokio::test]
async fn a_directory_that_is_exchanged_for_a_link_all_the_time_never_leads_out() {
    if missing().is_some() {
        return;
    }
    let host = Host::new("swap");
    let data = data(&host);
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let (root, ended) = (data.clone(), stop.clone());
    symlink("/etc", data.join("trap")).unwrap();
    let swapper = std::thread::spawn(move || {
        while !ended.load(std::sync::atomic::Ordering::Relaxed) {
            let (one, other) = (root.join("sub"), root.join("trap"));
            rustix::fs::renameat_with(
                rustix::fs::CWD,
                &one,
                rustix::fs::CWD,
                &other,
                rustix::fs::RenameFlags::EXCHANGE,
            )
            .unwrap();
        }
    });
    let (mut mounted, mut refused) = (0, 0);
    for _ in 0..20 {
        match host.try_start(|spec| spec.volumes = vec![volume(&data, "sub", "/data", false)]).await {
            Ok(sandbox) => {
                let (_, said) = sh(&sandbox, "ls /data").await;
                assert_eq!(said, "", "the host's /etc is inside");
                sandbox.stop().await.unwrap();
                mounted += 1;
            }
            Err(_) => refused += 1,
        }
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    swapper.join().unwrap();
    assert_eq!(mounted + refused, 20);
    host.close().await;
}
