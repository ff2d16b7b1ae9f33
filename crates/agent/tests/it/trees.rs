// SPDX-License-Identifier: Apache-2.0
//! Process trees that try to get away, and what programs inside can do to the agent: nothing.

use std::time::{Duration, Instant};

use protocol::agent::CommandEnd;

use crate::sandbox::Sandbox;

#[test]
fn a_timeout_kills_daemons_that_left_session_and_parents() {
    let sandbox = Sandbox::start();
    let daemon = "setsid sh -c 'setsid sleep 4712 >/dev/null 2>&1 </dev/null &' & ";
    let script = format!("{daemon} sleep 0.2; echo up; exec sleep 4713");
    let answer = sandbox.connect().command("sh", &["-c", &script], Some(700));
    assert_eq!((answer.end.clone(), answer.stdout().as_str()), (CommandEnd::TimedOut, "up\n"));
    assert_eq!((sandbox.count("^sleep 4712"), sandbox.count("^sleep 4713")), (0, 0));
}

#[test]
fn a_daemon_of_a_command_that_ended_lives_on() {
    let sandbox = Sandbox::start();
    let answer = sandbox.sh("setsid sh -c 'setsid sleep 4714 >/dev/null 2>&1 &' & exit 5");
    assert_eq!(answer.end, CommandEnd::Exited { code: 5 });
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(sandbox.count("^sleep 4714"), 1);
}

#[test]
fn a_fork_bomb_ends_with_its_timeout() {
    let sandbox = Sandbox::start();
    let mut connection = sandbox.connect();
    let began = Instant::now();
    // Bounded to a hundred processes at a time, ever new ones in ever new sessions, so that the test's host lives.
    let bomb = r#"
import os, time
def breed(depth):
    while True:
        for _ in range(5 if depth else 0):
            if os.fork() == 0:
                os.setsid()
                breed(depth - 1)
        time.sleep(0.005)
        if depth < 2: os._exit(0)
        try:
            while True: os.waitpid(-1, os.WNOHANG) != (0, 0) or time.sleep(0.001)
        except ChildProcessError: pass
breed(2)
"#;
    let answer = connection.command("python3", &["-c", bomb, "bomb-of-this-test"], Some(700));
    assert_eq!(answer.end, CommandEnd::TimedOut);
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    assert_eq!(sandbox.count("bomb-of-this-test"), 0);
    assert_eq!(connection.command("true", &[], None).end, CommandEnd::Exited { code: 0 });
}

#[test]
fn killing_the_supervisor_does_not_let_a_command_escape() {
    let sandbox = Sandbox::start();
    let script = "setsid sleep 4715 & kill -STOP $PPID; sleep 0.05; kill -KILL $PPID; exec sleep 4716";
    let answer = sandbox.connect().command("sh", &["-c", script], Some(2000));
    assert_eq!(answer.end, CommandEnd::Signaled { signal: 9 });
    assert_eq!((sandbox.count("^sleep 4715"), sandbox.count("^sleep 4716")), (0, 0));
}

#[test]
fn stopping_the_supervisor_does_not_stop_the_timeout() {
    let sandbox = Sandbox::start();
    let began = Instant::now();
    let answer =
        sandbox.connect().command("sh", &["-c", "kill -STOP $PPID; sleep 4717 & exec sleep 4718"], Some(500));
    assert_eq!(answer.end, CommandEnd::TimedOut);
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    assert_eq!((sandbox.count("^sleep 4717"), sandbox.count("^sleep 4718")), (0, 0));
}

#[test]
fn signals_to_everybody_leave_the_agent_and_the_answer() {
    let sandbox = Sandbox::start();
    let mut connection = sandbox.connect();
    let script = "kill -TERM 1; kill -INT 1; kill -KILL 1; trap '' TERM; kill -TERM -1; echo alive";
    let answer = connection.command("sh", &["-c", script], None);
    assert_eq!((answer.end.clone(), answer.stdout().as_str()), (CommandEnd::Exited { code: 0 }, "alive\n"));
    assert_eq!(connection.command("true", &[], None).end, CommandEnd::Exited { code: 0 });
}

#[test]
fn the_memory_descriptors_and_secrets_of_agent_and_supervisor_are_closed_to_code_inside() {
    let sandbox = Sandbox::start();
    for (pid, descriptor) in [("1", "fd/3"), ("$PPID", "fd/0")] {
        for file in ["environ", "mem", "maps", descriptor] {
            let answer = sandbox.sh(&format!("exec 2>&1; head -c 1 /proc/{pid}/{file} && echo open"));
            assert!(answer.stdout().contains("Permission denied"), "{pid} {file}: {}", answer.stdout());
        }
    }
}

#[test]
fn a_command_has_no_descriptor_but_its_three_and_is_preferred_by_the_oom_killer() {
    let sandbox = Sandbox::start();
    let answer = sandbox
        .sh("ls /proc/self/fd; cat /proc/self/oom_score_adj; grep -E 'Sig(Blk|Ign)' /proc/self/status");
    let text = answer.stdout();
    // 3 is the directory that ls reads
    assert!(text.starts_with("0\n1\n2\n3\n500\n"), "{text}");
    assert!(text.contains("SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000"), "{text}");
}

#[test]
fn no_zombies_stay() {
    let sandbox = Sandbox::start();
    for _ in 0..20 {
        sandbox.sh("(sh -c 'exit 3' & ) ; true");
    }
    std::thread::sleep(Duration::from_millis(200));
    let answer = sandbox.sh("grep -l '^State:.Z' /proc/[0-9]*/status 2>/dev/null | wc -l");
    assert_eq!(answer.stdout(), "0\n");
}
