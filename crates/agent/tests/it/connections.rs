// SPDX-License-Identifier: Apache-2.0
//! Who may connect, and that bad peers harm nobody else.

use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::time::Duration;

use protocol::agent::{CommandEnd, Hello, Message, Reply, Request, VERSION};
use protocol::limits::AGENT_CONNECTIONS_MAX;

use crate::sandbox::{Connection, SECRET, Sandbox};

fn hello(version: u32, secret: &str) -> Message {
    Message::Hello(Hello { version, secret: secret.to_owned() })
}

fn refusal(connection: &mut Connection) -> String {
    let message = match connection.receive() {
        Some(Message::Refused(refused)) => refused.message,
        other => panic!("not refused: {other:?}"),
    };
    assert_eq!(connection.receive(), None, "the connection must end");
    message
}

fn check_alive(sandbox: &Sandbox) {
    let mut connection = sandbox.connect();
    connection.send(&Message::Request(Request::Ping));
    assert_eq!(connection.receive(), Some(Message::Reply(Reply::Pong)));
}

#[test]
fn a_connection_serves_one_call_after_the_other() {
    let sandbox = Sandbox::start();
    let mut connection = sandbox.connect();
    for _ in 0..3 {
        connection.send(&Message::Request(Request::Ping));
        assert_eq!(connection.receive(), Some(Message::Reply(Reply::Pong)));
        assert_eq!(connection.command("true", &[], None).end, CommandEnd::Exited { code: 0 });
    }
}

#[test]
fn a_wrong_greeting_is_refused_with_its_reason() {
    let sandbox = Sandbox::start();
    let check = |first: &Message, reason: &str| {
        let mut connection = sandbox.connect_raw();
        connection.send(first);
        assert!(refusal(&mut connection).contains(reason));
    };
    check(&hello(VERSION, "wrong"), "wrong secret");
    check(&hello(VERSION, ""), "wrong secret");
    check(&hello(VERSION, &format!("{SECRET}x")), "wrong secret");
    check(&hello(VERSION + 1, SECRET), "another version");
    check(&Message::Request(Request::Ping), "greeting");
    check_alive(&sandbox);
}

#[test]
fn what_does_not_go_with_the_image_is_told_to_who_knows_the_secret_and_is_the_end() {
    let sandbox = Sandbox::start_with(|config| config.user = Some("no-such-user".into()));
    let mut stranger = sandbox.connect_raw();
    stranger.send(&hello(VERSION, "wrong"));
    while let Some(message) = stranger.receive() {
        assert!(!matches!(message, Message::Unfit(_) | Message::Welcome(_)), "{message:?}");
    }
    let mut connection = sandbox.connect_raw();
    connection.send(&hello(VERSION, SECRET));
    match connection.receive() {
        Some(Message::Unfit(why)) => {
            assert!(why.message.contains("no user 'no-such-user'"), "{}", why.message)
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(connection.receive(), None);
}

#[test]
fn garbage_ends_the_connection_and_nothing_else() {
    let sandbox = Sandbox::start();
    for garbage in
        [&[0; 4][..], &[255; 64], b"\x05\0\0\0\x01nope", b"\x02\0\0\0\x63x", b"GET / HTTP/1.1\r\n\r\n"]
    {
        let mut connection = sandbox.connect_raw();
        connection.stream.write_all(garbage).unwrap();
        refusal(&mut connection);
        let mut connection = sandbox.connect();
        connection.stream.write_all(garbage).unwrap();
        if garbage.starts_with(b"GET") {
            // As a length it is beyond every limit too.
            refusal(&mut connection);
        } else {
            assert!(matches!(connection.receive(), Some(Message::Refused(_))), "{garbage:?}");
        }
    }
    check_alive(&sandbox);
}

#[test]
fn a_large_frame_is_not_even_read_before_the_greeting() {
    let sandbox = Sandbox::start();
    let mut connection = sandbox.connect_raw();
    connection.stream.write_all(&1_000_000_u32.to_le_bytes()).unwrap();
    assert!(refusal(&mut connection).contains("1000000"));
}

#[test]
fn a_frame_before_the_reply_ends_the_call() {
    let sandbox = Sandbox::start();
    let mut connection = sandbox.connect();
    connection.request_command("sleep", &["4720"], None);
    connection.send(&Message::Request(Request::Ping));
    assert_eq!(connection.receive(), None);
    assert_eq!(sandbox.count("^sleep 4720"), 0);
}

#[test]
fn silence_is_refused_after_a_while() {
    let sandbox = Sandbox::start();
    let mut connection = sandbox.connect_raw();
    assert!(refusal(&mut connection).contains("no greeting"));
}

#[test]
fn more_connections_than_allowed_are_refused_and_the_others_stay() {
    let sandbox = Sandbox::start();
    let mut connections: Vec<_> = (0..AGENT_CONNECTIONS_MAX).map(|_| sandbox.connect()).collect();
    for _ in 0..100 {
        let mut one_more = sandbox.connect_raw();
        assert!(refusal(&mut one_more).contains("connections"));
    }
    for connection in &mut connections {
        connection.send(&Message::Request(Request::Ping));
        assert_eq!(connection.receive(), Some(Message::Reply(Reply::Pong)));
    }
    connections.truncate(1);
    // Freed places can be used again, as soon as the agent has seen the ends.
    for _ in 0..200 {
        let mut connection = sandbox.connect_raw();
        connection.send(&hello(VERSION, SECRET));
        if matches!(connection.receive(), Some(Message::Welcome(_))) {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("no place was freed");
}

#[test]
fn a_process_inside_cannot_connect() {
    let sandbox = Sandbox::start();
    let script = "import socket; s = socket.socket(socket.AF_UNIX); s.connect('socket'); print(s.recv(1))";
    let answer = sandbox.connect().command("python3", &["-c", script], None);
    assert_eq!(answer.stdout(), "b''\n", "{}", answer.stderr());
    assert!(sandbox.log().contains("inside the sandbox tried to connect"));
}

#[test]
fn the_agent_refuses_to_run_where_it_is_not_the_first_process() {
    let mut agent = Command::new(env!("CARGO_BIN_EXE_msb-agent"));
    let output = agent.stdin(Stdio::null()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("must be PID 1"));
}

#[test]
fn a_bad_configuration_is_said_and_ends_the_agent() {
    let script = "exec unshare --user --map-root-user --pid --fork --kill-child \"$0\" 4</etc/hostname";
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", script, env!("CARGO_BIN_EXE_msb-agent")]).stdin(Stdio::null()).stderr(Stdio::piped());
    let mut child = shell.spawn().unwrap();
    let mut text = String::new();
    child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(1));
    assert!(text.contains("cannot read the configuration"), "{text}");
}
