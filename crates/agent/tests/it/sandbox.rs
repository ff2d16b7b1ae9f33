// SPDX-License-Identifier: Apache-2.0
//! An agent in kernel namespaces of its own (user, pid, mount), and the server's side of its protocol.

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use protocol::agent::{
    Channel, CommandEnd, Hello, LENGTH_BYTES, Language, Message, Reply, Request, RunEnd, VERSION,
    frame_length,
};
use protocol::config::AgentConfig;

/// No single answer may take longer.
const ANSWER_WAIT: Duration = Duration::from_secs(30);
pub(crate) const SECRET: &str = "correct horse battery staple";

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A running agent; dropping it ends everything in it.
pub(crate) struct Sandbox {
    outside: Child,
    pub(crate) directory: PathBuf,
}

/// One connection to it.
pub(crate) struct Connection {
    pub(crate) stream: UnixStream,
}

/// A call's whole answer.
#[derive(Debug)]
pub(crate) struct Answer<End> {
    pub(crate) chunks: Vec<(Channel, Vec<u8>)>,
    pub(crate) end: End,
}

impl Sandbox {
    pub(crate) fn start() -> Sandbox {
        Sandbox::start_with(|_| {})
    }

    pub(crate) fn start_with(change: impl FnOnce(&mut AgentConfig)) -> Sandbox {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let directory =
            Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{}-{number}", std::process::id()));
        fs_err::create_dir_all(&directory).unwrap();
        let mut config = AgentConfig {
            secret: SECRET.to_owned(),
            envs: vec![
                ("PATH".to_owned(), std::env::var("PATH").unwrap()),
                ("HOME".to_owned(), directory.to_str().unwrap().to_owned()),
                ("LANG".to_owned(), "C.UTF-8".to_owned()),
            ],
            workdir: Some(directory.to_str().unwrap().to_owned()),
            user: None,
            prestart: None,
            program_group: false,
            program_nice: 0,
        };
        change(&mut config);
        fs_err::write(directory.join("config"), serde_json::to_vec(&config).unwrap()).unwrap();
        let listener = UnixListener::bind(directory.join("socket")).unwrap();
        // As in a real sandbox, nobody inside may trace others.
        let script = "exec unshare --user --map-root-user --pid --fork --mount-proc --kill-child \
                      setpriv --bounding-set=-sys_ptrace \"$0\" 3<&0 4<config 0</dev/null";
        let outside = Command::new("/bin/sh")
            .args(["-c", script])
            .arg(env!("CARGO_BIN_EXE_msb-agent"))
            .current_dir(&directory)
            .stdin(Stdio::from(OwnedFd::from(listener)))
            .stderr(std::fs::File::create(directory.join("log")).unwrap())
            .spawn()
            .unwrap();
        Sandbox { outside, directory }
    }

    pub(crate) fn connect_raw(&self) -> Connection {
        let stream = UnixStream::connect(self.directory.join("socket")).unwrap();
        stream.set_read_timeout(Some(ANSWER_WAIT)).unwrap();
        stream.set_write_timeout(Some(ANSWER_WAIT)).unwrap();
        Connection { stream }
    }

    pub(crate) fn connect(&self) -> Connection {
        let mut connection = self.connect_raw();
        connection.send(&Message::Hello(Hello { version: VERSION, secret: SECRET.to_owned() }));
        assert!(matches!(connection.receive(), Some(Message::Welcome(_))));
        connection
    }

    /// Runs a shell script to its end.
    pub(crate) fn sh(&self, script: &str) -> Answer<CommandEnd> {
        self.connect().command("sh", &["-c", script], None)
    }

    pub(crate) fn python(&self, code: &str) -> Answer<RunEnd> {
        self.connect().run(Language::Python, code, None)
    }

    pub(crate) fn log(&self) -> String {
        fs_err::read_to_string(self.directory.join("log")).unwrap()
    }

    /// Waits until so many processes fit a pattern.
    pub(crate) fn wait_for_count(&self, pattern: &str, wanted: usize) {
        let until = Instant::now() + Duration::from_secs(5);
        while self.count(pattern) != wanted {
            assert!(Instant::now() < until, "there are {} of '{pattern}', not {wanted}", self.count(pattern));
        }
    }

    /// Counts the processes whose command line has a line that fits a pattern of `grep`.
    pub(crate) fn count(&self, pattern: &str) -> usize {
        // The class keeps the counting command itself out.
        let (rest, last) = pattern.split_at(pattern.len() - 1);
        let line = format!("tr '\\0' ' ' <$d/cmdline 2>/dev/null | grep -q '{rest}[{last}]' && echo $d");
        let answer = self.sh(&format!("for d in /proc/[0-9]*; do {line}; done | wc -l"));
        answer.stdout().trim().parse().unwrap()
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        let _ = self.outside.kill();
        let _ = self.outside.wait();
        if std::thread::panicking() {
            eprintln!("the agent's log: {}", self.log());
        }
        let _ = fs_err::remove_dir_all(&self.directory);
    }
}

impl Connection {
    pub(crate) fn send(&mut self, message: &Message) {
        self.stream.write_all(&message.encode().unwrap()).unwrap();
    }

    /// Receives a message; `None` at the end of the connection.
    pub(crate) fn receive(&mut self) -> Option<Message> {
        let mut field = [0; LENGTH_BYTES];
        match self.stream.read_exact(&mut field) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return None,
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return None,
            Err(error) => panic!("no answer: {error}"),
        }
        let mut body = vec![0; frame_length(field).unwrap()];
        self.stream.read_exact(&mut body).unwrap();
        Some(Message::decode(&body).unwrap())
    }

    pub(crate) fn answer(&mut self) -> Answer<Reply> {
        let mut chunks = Vec::new();
        loop {
            match self.receive().expect("the agent ended the connection") {
                Message::Output(channel, bytes) => chunks.push((channel, bytes)),
                Message::Reply(end) => return Answer { chunks, end },
                other => panic!("{other:?}"),
            }
        }
    }

    pub(crate) fn request_command(&mut self, command: &str, args: &[&str], timeout_ms: Option<u64>) {
        let args = args.iter().map(|arg| (*arg).to_owned()).collect();
        self.send(&Message::Request(Request::Command { command: command.to_owned(), args, timeout_ms }));
    }

    pub(crate) fn request_run(&mut self, language: Language, code: &str, timeout_ms: Option<u64>) {
        self.send(&Message::Request(Request::Run { language, code: code.to_owned(), timeout_ms }));
    }

    pub(crate) fn command(
        &mut self,
        command: &str,
        args: &[&str],
        timeout_ms: Option<u64>,
    ) -> Answer<CommandEnd> {
        self.request_command(command, args, timeout_ms);
        self.command_answer()
    }

    pub(crate) fn command_answer(&mut self) -> Answer<CommandEnd> {
        let Answer { chunks, end } = self.answer();
        let Reply::Command { end } = end else { panic!("{end:?}") };
        Answer { chunks, end }
    }

    pub(crate) fn run(&mut self, language: Language, code: &str, timeout_ms: Option<u64>) -> Answer<RunEnd> {
        self.request_run(language, code, timeout_ms);
        self.run_answer()
    }

    pub(crate) fn run_answer(&mut self) -> Answer<RunEnd> {
        let Answer { chunks, end } = self.answer();
        let Reply::Run { end } = end else { panic!("{end:?}") };
        Answer { chunks, end }
    }
}

impl<End> Answer<End> {
    pub(crate) fn bytes(&self, wanted: Channel) -> Vec<u8> {
        let of_channel = self.chunks.iter().filter(|(channel, _)| *channel == wanted);
        of_channel.flat_map(|(_, bytes)| bytes).copied().collect()
    }

    pub(crate) fn stdout(&self) -> String {
        String::from_utf8(self.bytes(Channel::Stdout)).unwrap()
    }

    pub(crate) fn stderr(&self) -> String {
        String::from_utf8(self.bytes(Channel::Stderr)).unwrap()
    }
}
