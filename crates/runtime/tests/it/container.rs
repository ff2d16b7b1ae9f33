// SPDX-License-Identifier: Apache-2.0
//! What stands, what is gone afterwards, and what happens when something dies.

use protocol::agent::{CommandEnd, Language, RunEnd};
use runtime::{Backend, Ended, RootfsMount, StartError};

use crate::host::{Host, groups_of, missing, run, sh};

const FINE: CommandEnd = CommandEnd::Exited { code: 0 };

#[tokio::test]
async fn a_command_runs_behind_the_walls_and_nothing_is_left() {
    if missing().is_some() {
        return;
    }
    let host = Host::new("command");
    let sandbox = host.start().await;
    let (end, said) =
        sh(&sandbox, "id -u; hostname; cat /proc/1/comm; pwd; ls /dev; cat /etc/hostname").await;
    assert_eq!(end, FINE, "{said}");
    for line in ["0", "walled", "/root", "null"] {
        assert!(said.lines().any(|l| l == line), "{line} is not in {said}");
    }
    let usage = sandbox.usage().unwrap();
    assert!(usage.cpu_ns > 0 && usage.memory_bytes > 0, "{usage:?}");
    sandbox.stop().await.unwrap();
    sandbox.stop().await.unwrap();
    assert_eq!(sandbox.ended().await, Ended::Stopped);
    host.close().await;
}

#[tokio::test]
async fn kernels_work_behind_the_walls() {
    if missing().is_some() {
        return;
    }
    let host = Host::new("kernels");
    let sandbox = host.start().await;
    let (end, said) = run(&sandbox, Language::Python, "import os\nos.getpid() > 1, 6 * 7").await;
    assert_eq!((end, said.as_str()), (RunEnd::Success, "(True, 42)\n"));
    let (end, said) = run(&sandbox, Language::Node, "[6 * 7, process.platform]").await;
    assert_eq!((end, said.as_str()), (RunEnd::Success, "[ 42, 'linux' ]\n"));
    sandbox.stop().await.unwrap();
    host.close().await;
}

#[tokio::test]
async fn privileges_are_what_the_plan_says() {
    if missing().is_some() {
        return;
    }
    let host = Host::new("privileges");
    let sandbox = host.start().await;
    let (_, said) = sh(&sandbox, "grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status").await;
    // chown, dac_override, fowner, fsetid, kill, setgid, setuid, net_bind_service.
    for line in ["CapEff:\t00000000000004fb", "CapBnd:\t00000000000004fb", "CapInh:\t0000000000000000"] {
        assert!(said.contains(line), "{line} is not in {said}");
    }
    assert!(said.contains("NoNewPrivs:\t1") && said.contains("Seccomp:\t2"), "{said}");
    let (_, said) = sh(&sandbox, "cat /proc/self/mountinfo").await;
    let home = host.home.to_str().unwrap();
    assert!(!said.contains(home) && !said.contains("sandboxes"), "a path of the host is in {said}");
    let (_, said) = sh(
        &sandbox,
        "mount -t tmpfs x /tmp; unshare -U true; ls /proc/kcore -l; echo 1 > /proc/sys/kernel/panic",
    )
    .await;
    assert!(!said.contains("Success"), "{said}");
    sandbox.stop().await.unwrap();
    host.close().await;
}

#[tokio::test]
async fn a_killed_agent_is_noticed_and_everything_is_removed() {
    if missing().is_some() {
        return;
    }
    let host = Host::new("killed");
    let sandbox = host.start().await;
    let group = groups_of(&host.home).into_iter().next().unwrap();
    let id =
        fs_err::read_dir(&group).unwrap().find(|e| e.as_ref().unwrap().path().is_dir()).unwrap().unwrap();
    let first = fs_err::read_to_string(id.path().join("cgroup.procs")).unwrap();
    let first = first.lines().next().unwrap().parse().ok().and_then(rustix::process::Pid::from_raw).unwrap();
    rustix::process::kill_process(first, rustix::process::Signal::KILL).unwrap();
    let ended = sandbox.ended().await;
    assert!(matches!(&ended, Ended::Died { reason } if reason.contains("signal 9")), "{ended:?}");
    assert!(sandbox.connect().await.is_err());
    host.close().await;
}

#[tokio::test]
async fn a_start_that_cannot_work_says_why_and_leaves_nothing() {
    if missing().is_some() {
        return;
    }
    let host = Host::new("broken");
    let mut spec = host.spec();
    spec.rootfs.mounts = vec![RootfsMount { at: "/".into(), lowers: vec![host.home.join("nowhere")] }];
    let Err(error) = host.backend.start(spec).await else { panic!("it started") };
    assert!(matches!(&error, StartError::Walls { step, .. } if step.contains("nowhere")), "{error:?}");
    host.close().await;
}

#[tokio::test]
async fn an_image_whose_proc_is_a_link_is_refused() {
    if missing().is_some() {
        return;
    }
    let host = Host::new("links");
    let evil = host.home.join("evil");
    fs_err::create_dir_all(evil.join("usr")).unwrap();
    fs_err::os::unix::fs::symlink("/etc", evil.join("proc")).unwrap();
    let mut spec = host.spec();
    spec.rootfs.mounts[0].lowers = vec![evil];
    let Err(error) = host.backend.start(spec).await else { panic!("it started") };
    assert!(matches!(&error, StartError::Walls { step, .. } if step.contains("/proc")), "{error:?}");
    host.close().await;
}

#[tokio::test]
async fn a_start_that_nobody_waits_for_is_undone() {
    if missing().is_some() {
        return;
    }
    let host = Host::new("dropped");
    drop(host.backend.start(host.spec()));
    host.close().await;
}

#[tokio::test]
async fn sandboxes_start_side_by_side_with_ids_of_their_own() {
    if missing().is_some() {
        return;
    }
    let host = Host::new("many");
    let starts = (0..8).map(|_| host.backend.start(host.spec()));
    let started: Vec<_> = {
        let mut all = Vec::new();
        for start in starts.collect::<Vec<_>>() {
            all.push(start.await.unwrap());
        }
        all
    };
    let mut maps = Vec::new();
    for sandbox in &started {
        let (_, map) = sh(sandbox, "cat /proc/self/uid_map").await;
        assert!(!maps.contains(&map), "{map} twice");
        maps.push(map);
    }
    for sandbox in started {
        sandbox.stop().await.unwrap();
    }
    host.close().await;
}

#[tokio::test]
async fn each_limit_of_the_host_is_held_or_has_a_reason() {
    if missing().is_some() {
        return;
    }
    let host = Host::new("limits");
    let limits = host.backend.limits().to_vec();
    let names: Vec<&str> = limits.iter().map(|limit| limit.name.text()).collect();
    assert_eq!(names, ["memory_limit", "swap_limit", "cpu_limit", "pids_limit", "io_weight"]);
    for limit in &limits {
        assert_eq!(limit.on, limit.why.is_none(), "{limit:?}");
    }
    for needed in ["memory_limit", "cpu_limit", "pids_limit"] {
        assert!(limits.iter().any(|limit| limit.name.text() == needed && limit.on), "{limits:?}");
    }
    // What is said is what is so: a sandbox of 64 processes has no more.
    let sandbox = host.start().await;
    let (_, said) = sh(&sandbox, "for n in $(seq 90); do sleep 60 & done; echo all").await;
    assert!(!said.contains("all") && said.contains("fork"), "{said}");
    sandbox.stop().await.unwrap();
    host.close().await;
}
