// SPDX-License-Identifier: Apache-2.0
//! Commands: what they see, what comes back, and that the whole tree ends in time.

use std::io::Write;
use std::time::{Duration, Instant};

use protocol::agent::{Channel, CommandEnd, Message, Request};

use crate::sandbox::Sandbox;

#[test]
fn exit_codes_and_signals_come_back_exactly() {
    let sandbox = Sandbox::start();
    let mut connection = sandbox.connect();
    assert_eq!(connection.command("true", &[], None).end, CommandEnd::Exited { code: 0 });
    assert_eq!(connection.command("sh", &["-c", "exit 300"], None).end, CommandEnd::Exited { code: 44 });
    assert_eq!(
        connection.command("sh", &["-c", "kill -SEGV $$"], None).end,
        CommandEnd::Signaled { signal: 11 }
    );
    assert_eq!(
        connection.command("sh", &["-c", "kill -KILL $$"], None).end,
        CommandEnd::Signaled { signal: 9 }
    );
}

#[test]
fn arguments_environment_and_directory_arrive_without_a_shell() {
    let sandbox = Sandbox::start_with(|config| config.envs.push(("GREETING".into(), "hi there".into())));
    let mut connection = sandbox.connect();
    let answer = connection.command("printf", &["%s|", "a b", "$HOME", "*", ""], None);
    assert_eq!(answer.stdout(), "a b|$HOME|*||");
    let answer = connection.command("sh", &["-c", "echo $GREETING; pwd; env | wc -l; cat"], None);
    let directory = sandbox.directory.display();
    // PATH, HOME, LANG, GREETING, and PWD of the shell itself; standard input is empty
    assert_eq!(answer.stdout(), format!("hi there\n{directory}\n5\n"));
}

#[test]
fn streams_are_kept_apart_and_in_order_of_arrival() {
    let sandbox = Sandbox::start();
    let answer = sandbox.sh("echo a; sleep 0.05; echo b >&2; sleep 0.05; echo c; sleep 0.05; echo d >&2");
    let expected = [
        (Channel::Stdout, "a\n"),
        (Channel::Stderr, "b\n"),
        (Channel::Stdout, "c\n"),
        (Channel::Stderr, "d\n"),
    ];
    let expected: Vec<_> =
        expected.into_iter().map(|(channel, text)| (channel, text.as_bytes().to_vec())).collect();
    assert_eq!(answer.chunks, expected);
}

#[test]
fn short_output_is_never_lost() {
    let sandbox = Sandbox::start();
    let mut connection = sandbox.connect();
    for round in 0..300 {
        let answer = connection.command("sh", &["-c", "echo out; echo err >&2"], None);
        assert_eq!((answer.stdout().as_str(), answer.stderr().as_str()), ("out\n", "err\n"), "round {round}");
    }
}

#[test]
fn bytes_that_are_not_utf8_come_through() {
    let sandbox = Sandbox::start();
    let answer = sandbox.sh(r"printf '\377\000\200x'");
    assert_eq!(answer.bytes(Channel::Stdout), b"\xff\0\x80x");
}

#[test]
fn ten_megabytes_come_through_also_to_a_slow_reader() {
    let sandbox = Sandbox::start();
    let mut connection = sandbox.connect();
    connection.request_command("head", &["-c", "10000000", "/dev/zero"], None);
    std::thread::sleep(Duration::from_millis(300));
    let answer = connection.command_answer();
    assert_eq!(answer.bytes(Channel::Stdout).len(), 10_000_000);
    assert_eq!(answer.end, CommandEnd::Exited { code: 0 });
}

#[test]
fn what_cannot_be_started_is_said_with_its_reason() {
    let sandbox = Sandbox::start();
    let mut connection = sandbox.connect();
    assert_eq!(sandbox.sh("echo data >text; chmod +x text").end, CommandEnd::Exited { code: 0 });
    let mut message = |command: &str, args: &[&str]| match connection.command(command, args, None).end {
        CommandEnd::NotStarted { message } => message,
        other => panic!("{other:?}"),
    };
    let unknown = message("no-such-command", &[]);
    assert!(
        unknown.contains("command not found: 'no-such-command'") && unknown.contains("os error 2"),
        "{unknown}"
    );
    let missing = message("./no-such-file", &[]);
    assert!(missing.contains("'./no-such-file'") && missing.contains("no such file"), "{missing}");
    std::fs::File::create(sandbox.directory.join("data")).unwrap().write_all(b"data").unwrap();
    let data = message("./data", &[]);
    assert!(data.contains("not an executable file"), "{data}");
    let foreign = sandbox.sh("printf '#!/no/such/shell -e\\n' >foreign; chmod +x foreign");
    assert_eq!(foreign.end, CommandEnd::Exited { code: 0 }, "{foreign:?}");
    let foreign = message("./foreign", &[]);
    assert!(foreign.contains("'/no/such/shell', which is not in this image"), "{foreign}");
    let text = message("./text", &[]);
    assert!(text.contains("a script needs a first line with #!"), "{text}");
    let zero = message("echo", &["a\0b"]);
    assert!(zero.contains("zero byte"), "{zero}");
    let empty = message("", &[]);
    assert!(empty.contains("''"), "{empty}");
    assert_eq!(connection.command("true", &[], None).end, CommandEnd::Exited { code: 0 });
}

#[test]
fn a_working_directory_that_is_no_more_is_named() {
    let mut place = String::new();
    let sandbox = Sandbox::start_with(|config| {
        place = format!("{}/not/yet", config.workdir.as_deref().unwrap());
        config.workdir = Some(place.clone());
    });
    // It was made, and can be removed.
    assert_eq!(sandbox.sh("pwd; rmdir \"$PWD\"").stdout(), format!("{place}\n"));
    match sandbox.connect().command("true", &[], None).end {
        CommandEnd::NotStarted { message } => {
            assert!(message.contains(&format!("working directory '{place}'")), "{message}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_timeout_kills_a_grandchild_that_holds_the_pipe_and_keeps_the_output() {
    let sandbox = Sandbox::start();
    let mut connection = sandbox.connect();
    let began = Instant::now();
    let answer = connection.command("sh", &["-c", "echo before; sleep 4711 & wait"], Some(300));
    assert_eq!((answer.end.clone(), answer.stdout().as_str()), (CommandEnd::TimedOut, "before\n"));
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    assert_eq!(sandbox.count("^sleep 4711"), 0);
}

#[test]
fn a_timeout_of_zero_is_over_at_once() {
    let sandbox = Sandbox::start();
    let answer = sandbox.connect().command("sleep", &["4711"], Some(0));
    assert_eq!(answer.end, CommandEnd::TimedOut);
    assert_eq!(sandbox.count("^sleep 4711"), 0);
}

#[test]
fn a_timeout_kills_also_when_nobody_reads_the_output() {
    let sandbox = Sandbox::start();
    let mut connection = sandbox.connect();
    connection.request_command("sh", &["-c", "exec yes timeless"], Some(300));
    std::thread::sleep(Duration::from_millis(1200));
    assert_eq!(sandbox.count("^yes timeless"), 0);
    assert_eq!(connection.command_answer().end, CommandEnd::TimedOut);
}

#[test]
fn a_background_child_neither_delays_the_answer_nor_dies_of_it() {
    let sandbox = Sandbox::start();
    let script =
        "(for i in $(seq 50); do echo still here || exit; sleep 0.02; done; echo done >proof) & echo started";
    let began = Instant::now();
    let answer = sandbox.sh(script);
    assert!(began.elapsed() < Duration::from_millis(900), "{:?}", began.elapsed());
    assert_eq!(answer.end, CommandEnd::Exited { code: 0 });
    assert!(
        answer.stdout().starts_with("started\n") || answer.stdout().contains("\nstarted\n"),
        "{answer:?}"
    );
    assert_eq!(sandbox.sh("while ! [ -e proof ]; do sleep 0.05; done; cat proof").stdout(), "done\n");
}

#[test]
fn a_closed_connection_cancels_the_command() {
    let sandbox = Sandbox::start();
    let mut connection = sandbox.connect();
    connection.request_command("sh", &["-c", "echo started; sleep 4711 & wait"], None);
    assert!(matches!(connection.receive(), Some(Message::Output(Channel::Stdout, _))));
    sandbox.wait_for_count("^sleep 4711", 1);
    drop(connection);
    sandbox.wait_for_count("^sleep 4711", 0);
}

#[test]
fn a_flood_into_a_connection_that_closes_ends() {
    let sandbox = Sandbox::start();
    let mut connection = sandbox.connect();
    connection.request_command("yes", &["endless"], None);
    assert!(connection.receive().is_some());
    drop(connection);
    sandbox.wait_for_count("^yes endless", 0);
}

#[test]
fn commands_run_beside_each_other() {
    let sandbox = Sandbox::start();
    let began = Instant::now();
    let mut connections: Vec<_> = (0..8).map(|_| sandbox.connect()).collect();
    for connection in &mut connections {
        connection.send(&Message::Request(Request::Command {
            command: "sleep".into(),
            args: vec!["0.5".into()],
            timeout_ms: None,
        }));
    }
    for connection in &mut connections {
        assert_eq!(connection.command_answer().end, CommandEnd::Exited { code: 0 });
    }
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
}
