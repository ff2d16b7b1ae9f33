// SPDX-License-Identifier: Apache-2.0
//! A home of its own for each test, and what it takes to build walls here.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use protocol::agent::{Channel, CommandEnd, Language, Reply, Request, RunEnd};
use protocol::network::Network;
use runtime::agent::Event;
use runtime::container::{ContainerBackend, Programs};
use runtime::network::Wish;
use runtime::volume::DiskStore;
use runtime::{Backend, Rootfs, RootfsMount, Sandbox, SandboxId, SandboxSpec, StartError};

/// One test's home and backend.
pub(crate) struct Host {
    pub(crate) backend: ContainerBackend,
    pub(crate) home: PathBuf,
}

/// Says why the wall cannot be tested here, or nothing; with `MSB_TEST_REQUIRE=all` a reason is a failure.
pub(crate) fn missing() -> Option<String> {
    let reason = if !rustix::process::geteuid().is_root() {
        Some("not root".to_owned())
    } else if !programs().jail.exists() || !programs().agent.exists() {
        Some("msb-jail and msb-agent are not built (cargo xtask build)".to_owned())
    } else {
        None
    };
    if let Some(reason) = &reason {
        assert!(std::env::var_os("MSB_TEST_REQUIRE").is_none(), "cannot test the wall: {reason}");
        eprintln!("skipped: {reason}");
    }
    reason
}

fn programs() -> Programs {
    let test = std::env::current_exe().unwrap();
    let beside = test.ancestors().nth(2).unwrap();
    Programs { jail: beside.join("msb-jail"), agent: beside.join("msb-agent") }
}

impl Host {
    pub(crate) fn new(name: &str) -> Host {
        Host::with_disk(name, &DiskStore::default())
    }

    pub(crate) fn with_disk(name: &str, disk: &DiskStore) -> Host {
        let home = std::env::temp_dir().join(format!("wall-{name}-{}", std::process::id()));
        fs_err::create_dir_all(home.join("root")).unwrap();
        for directory in ["usr", "proc", "sys", "dev", "tmp", "etc", "root"] {
            fs_err::create_dir_all(home.join("root").join(directory)).unwrap();
        }
        for link in ["bin", "sbin", "lib", "lib64"] {
            let at = home.join("root").join(link);
            if at.symlink_metadata().is_err() {
                fs_err::os::unix::fs::symlink(format!("usr/{link}"), at).unwrap();
            }
        }
        Host { backend: ContainerBackend::open(&home, programs(), disk, Wish::Off).unwrap(), home }
    }

    pub(crate) fn spec(&self) -> SandboxSpec {
        SandboxSpec {
            id: SandboxId::random().unwrap(),
            hostname: "walled".into(),
            rootfs: Rootfs {
                mounts: vec![
                    RootfsMount { at: "/".into(), lowers: vec![self.home.join("root")] },
                    RootfsMount { at: "/usr".into(), lowers: vec!["/usr".into()] },
                ],
            },
            memory_mib: 128,
            cpu_millis: 1000,
            disk_mib: 64,
            volumes: vec![],
            pids_max: 64,
            open_files_max: 1024,
            io_weight: 100,
            shm_mib: 64,
            envs: vec![],
            workdir: None,
            user: None,
            prestart: None,
            network: Network::None,
            ports: vec![],
        }
    }

    pub(crate) async fn start(&self) -> Arc<dyn Sandbox> {
        self.start_with(|_| {}).await
    }

    pub(crate) async fn start_with(&self, change: impl FnOnce(&mut SandboxSpec)) -> Arc<dyn Sandbox> {
        self.try_start(change).await.unwrap()
    }

    pub(crate) async fn try_start(
        &self,
        change: impl FnOnce(&mut SandboxSpec),
    ) -> Result<Arc<dyn Sandbox>, StartError> {
        let mut spec = self.spec();
        change(&mut spec);
        self.backend.start(spec).await
    }

    /// Ends everything and checks that nothing is left.
    pub(crate) async fn close(self) {
        self.backend.drain().await;
        let left: Vec<_> = fs_err::read_dir(self.home.join("sandboxes")).unwrap().collect();
        assert!(left.is_empty(), "{left:?}");
        assert_eq!(groups_of(&self.home), Vec::<PathBuf>::new());
        runtime::volume::remove_tree(&self.home).unwrap();
    }
}

/// The cgroup directories of a home.
pub(crate) fn groups_of(home: &Path) -> Vec<PathBuf> {
    use std::os::unix::fs::MetadataExt;
    let status = fs_err::metadata(home).unwrap();
    let key = format!("{:x}-{:x}", status.dev(), status.ino());
    // With version 2 it is the mount itself, with version 1 each hierarchy in it.
    let top = PathBuf::from("/sys/fs/cgroup");
    let hierarchies = fs_err::read_dir(&top).unwrap().map(|entry| entry.unwrap().path());
    let own = hierarchies.chain([top]).map(|hierarchy| hierarchy.join("microsandbox").join(&key));
    own.filter(|path| path.exists()).collect()
}

/// Runs a shell script inside and returns how it ended and what it said on both streams.
pub(crate) async fn sh(sandbox: &Arc<dyn Sandbox>, script: &str) -> (CommandEnd, String) {
    command(sandbox, "/bin/sh", &["-c", script]).await
}

/// Runs a program inside and returns how it ended and what it said on both streams.
pub(crate) async fn command(
    sandbox: &Arc<dyn Sandbox>,
    command: &str,
    args: &[&str],
) -> (CommandEnd, String) {
    let args = args.iter().map(|arg| (*arg).to_owned()).collect();
    let request = Request::Command { command: command.into(), args, timeout_ms: Some(20_000) };
    match call(sandbox, request).await {
        (Reply::Command { end }, said) => (end, said),
        (other, _) => panic!("{other:?}"),
    }
}

/// Executes code inside and returns how it ended and what it said on both streams.
pub(crate) async fn run(sandbox: &Arc<dyn Sandbox>, language: Language, code: &str) -> (RunEnd, String) {
    match call(sandbox, Request::Run { language, code: code.into(), timeout_ms: Some(20_000) }).await {
        (Reply::Run { end }, said) => (end, said),
        (other, _) => panic!("{other:?}"),
    }
}

async fn call(sandbox: &Arc<dyn Sandbox>, request: Request) -> (Reply, String) {
    let mut connection = sandbox.connect().await.unwrap();
    connection.request(request).await.unwrap();
    let mut said = Vec::new();
    loop {
        match connection.next().await.unwrap() {
            Event::Output(Channel::Stdout | Channel::Stderr, bytes) => said.extend(bytes),
            Event::Output(..) => panic!("output of no call"),
            Event::Reply(reply) => return (reply, String::from_utf8_lossy(&said).into_owned()),
        }
    }
}
