// SPDX-License-Identifier: Apache-2.0
//! A [`Backend`] without walls, for tests that need no root: its agent is a task in this process.
//!
//! The agent speaks the real protocol over a socket pair, and "executes" a small script language of its own, one order
//! on each line of the code of a run:
//!
//! ```text
//! out TEXT, err TEXT    print a line             sleep MS             wait
//! late TEXT             background output        hang                 wait for ever
//! bytes N               N bytes without newline  lines N              N short lines
//! raise, exit N, signal N, oom, interrupt, stuck, unavailable         end the execution that way
//! die TEXT              end the whole sandbox
//! ```
//!
//! Anything else is printed as it stands. A command is the same, with the program as the order and its arguments as the
//! rest of the line: `echo`, `true`, `false` are known, `missing` cannot be started.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use protocol::agent::{
    Channel, CommandEnd, LENGTH_BYTES, Message, Refused, Reply, Request, RunEnd, VERSION, Welcome,
    encode_output, frame_length,
};
use protocol::isolation::{Isolation, Protection, ProtectionName};
use protocol::limits::{GREETING_WAIT, OUTPUT_CHUNK_BYTES_MAX};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::watch;

use crate::agent::{ConnectError, Connection};
use crate::backend::{Backend, BoxFuture, Ended, Sandbox, StartError, StopError, Usage};
use crate::spec::SandboxSpec;

const SECRET: &str = "fake";

/// What happened on a [`Fake`] so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Attempts to start a sandbox.
    pub starts: usize,
    /// Attempts that were dropped before they were through.
    pub abandoned: usize,
    /// Sandboxes that are up.
    pub live: usize,
    /// Connections opened to agents.
    pub connections: usize,
    /// Requests that agents began to serve.
    pub requests: usize,
    /// Requests whose connection was closed while they were served.
    pub cancelled: usize,
}

/// How the attempts to start a sandbox go from now on.
#[derive(Clone, Debug, Default)]
pub struct Behaviour {
    /// How long each attempt takes; `None` means for ever.
    pub start_takes: Option<Duration>,
    /// Whether each attempt fails, and how.
    pub start_fails: Option<Failure>,
    /// Whether a stop never returns.
    pub stop_hangs: bool,
    /// The protections that sandboxes lack from now on.
    pub lacks: Vec<ProtectionName>,
}

/// How an attempt fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// As on a full host.
    NoCapacity,
    /// As when a mount is refused.
    Walls,
}

/// The backend.
#[derive(Clone, Debug)]
pub struct Fake {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    behaviour: Mutex<Behaviour>,
    counts: watch::Sender<Counts>,
    sandboxes: Mutex<Vec<Arc<FakeSandbox>>>,
}

/// A sandbox of a [`Fake`].
#[derive(Debug)]
pub struct FakeSandbox {
    spec: SandboxSpec,
    ended: watch::Sender<Option<Ended>>,
    usage: Mutex<Usage>,
    oom_kills: AtomicU64,
    disk_bytes: Mutex<u64>,
    shared: Arc<Shared>,
    me: Weak<FakeSandbox>,
}

/// Counts an attempt that is dropped.
struct Attempt<'a> {
    shared: &'a Shared,
    through: bool,
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        if !self.through {
            self.shared.count(|counts| counts.abandoned += 1);
        }
    }
}

impl Default for Fake {
    fn default() -> Fake {
        Fake::new()
    }
}

impl Fake {
    /// Makes one whose attempts take no time and succeed.
    pub fn new() -> Fake {
        let behaviour = Behaviour { start_takes: Some(Duration::ZERO), ..Behaviour::default() };
        let (counts, _) = watch::channel(Counts::default());
        let shared = Shared { behaviour: Mutex::new(behaviour), counts, sandboxes: Mutex::new(Vec::new()) };
        Fake { shared: Arc::new(shared) }
    }

    /// Changes how attempts go from now on.
    pub fn behave(&self, change: impl FnOnce(&mut Behaviour)) {
        change(&mut lock(&self.shared.behaviour));
    }

    /// Returns what happened so far.
    pub fn counts(&self) -> Counts {
        *self.shared.counts.borrow()
    }

    /// Waits until what happened fulfils a condition.
    pub async fn wait_until(&self, condition: impl FnMut(&Counts) -> bool) -> Counts {
        let mut counts = self.shared.counts.subscribe();
        *counts.wait_for(condition).await.expect("the sender lives as long as this handle")
    }

    /// Returns the sandbox that was started last.
    ///
    /// # Panics
    /// When none was started.
    pub fn last(&self) -> Arc<FakeSandbox> {
        Arc::clone(lock(&self.shared.sandboxes).last().expect("a sandbox was started"))
    }
}

impl Shared {
    /// Says that all protections are there but those that shall lack.
    fn isolation(&self) -> Isolation {
        let lacks = lock(&self.behaviour).lacks.clone();
        let one = |name: &ProtectionName| match lacks.contains(name) {
            true => Protection::off(*name, "it was taken away").mend("give it back"),
            false => Protection::on(*name),
        };
        Isolation::gather("fake", ProtectionName::ALL.iter().map(one))
    }

    fn count(&self, change: impl FnOnce(&mut Counts)) {
        self.counts.send_modify(change);
    }
}

impl Backend for Fake {
    fn start(&self, spec: SandboxSpec) -> BoxFuture<'_, Result<Arc<dyn Sandbox>, StartError>> {
        Box::pin(async move {
            spec.check()?;
            self.shared.count(|counts| counts.starts += 1);
            let behaviour = lock(&self.shared.behaviour).clone();
            let mut attempt = Attempt { shared: &self.shared, through: false };
            match behaviour.start_takes {
                Some(time) => tokio::time::sleep(time).await,
                None => std::future::pending().await,
            }
            attempt.through = true;
            match behaviour.start_fails {
                Some(Failure::NoCapacity) => {
                    return Err(StartError::NoCapacity("no free id block".to_owned()));
                }
                Some(Failure::Walls) => {
                    let source = Some(io::Error::from_raw_os_error(1));
                    return Err(StartError::Walls { step: "mount the root".to_owned(), source });
                }
                None => {}
            }
            let sandbox = Arc::new_cyclic(|me| FakeSandbox {
                spec,
                ended: watch::channel(None).0,
                usage: Mutex::new(Usage::default()),
                oom_kills: AtomicU64::new(0),
                disk_bytes: Mutex::new(0),
                shared: Arc::clone(&self.shared),
                me: Weak::clone(me),
            });
            self.shared.count(|counts| counts.live += 1);
            lock(&self.shared.sandboxes).push(Arc::clone(&sandbox));
            Ok(sandbox as Arc<dyn Sandbox>)
        })
    }

    fn try_walls(&self) -> BoxFuture<'_, Isolation> {
        Box::pin(std::future::ready(self.shared.isolation()))
    }

    fn network(&self) -> Protection {
        Protection::off(ProtectionName::NetworkPolicy, "this kind of wall has no network")
    }

    fn disk_mib_max(&self) -> Option<u32> {
        None
    }

    fn drain(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }
}

impl FakeSandbox {
    /// Returns what it was asked to be.
    pub fn spec(&self) -> &SandboxSpec {
        &self.spec
    }

    /// Ends it as if its agent had died.
    pub fn die(&self, reason: &str) {
        self.end(Ended::Died { reason: reason.to_owned() });
    }

    /// Sets what it uses of the machine.
    pub fn use_machine(&self, change: impl FnOnce(&mut Usage)) {
        change(&mut lock(&self.usage));
    }

    /// Sets the size of its writable layer.
    pub fn use_disk(&self, bytes: u64) {
        *lock(&self.disk_bytes) = bytes;
    }

    fn end(&self, how: Ended) {
        let first = self.ended.send_if_modified(|ended| {
            let first = ended.is_none();
            ended.get_or_insert(how);
            first
        });
        if first {
            self.shared.count(|counts| counts.live -= 1);
        }
    }

    async fn until_ended(&self) -> Ended {
        let mut ended = self.ended.subscribe();
        let ended = ended.wait_for(Option::is_some).await.expect("the sender is in self");
        ended.clone().expect("waited for it")
    }
}

impl Sandbox for FakeSandbox {
    fn connect(&self) -> BoxFuture<'_, Result<Connection, ConnectError>> {
        Box::pin(async {
            if self.ended.borrow().is_some() {
                return Err(ConnectError::Io(io::ErrorKind::ConnectionRefused.into()));
            }
            let (ours, theirs) = UnixStream::pair()?;
            self.shared.count(|counts| counts.connections += 1);
            let sandbox = self.me.upgrade().expect("whoever calls holds it");
            tokio::spawn(async move {
                tokio::select! {
                    _ = sandbox.until_ended() => {}
                    _ = serve(theirs, &sandbox) => {}
                }
            });
            Connection::greet(ours, SECRET, GREETING_WAIT).await
        })
    }

    fn ended(&self) -> BoxFuture<'_, Ended> {
        Box::pin(self.until_ended())
    }

    fn stop(&self) -> BoxFuture<'_, Result<(), StopError>> {
        Box::pin(async {
            if lock(&self.shared.behaviour).stop_hangs {
                std::future::pending::<()>().await;
            }
            self.end(Ended::Stopped);
            Ok(())
        })
    }

    fn usage(&self) -> io::Result<Usage> {
        Ok(*lock(&self.usage))
    }

    fn oom_kills(&self) -> io::Result<u64> {
        Ok(self.oom_kills.load(Ordering::Acquire))
    }

    fn isolation(&self) -> Isolation {
        self.shared.isolation()
    }

    fn disk_bytes(&self) -> BoxFuture<'_, io::Result<u64>> {
        let bytes = *lock(&self.disk_bytes);
        Box::pin(std::future::ready(Ok(bytes)))
    }
}

/// Serves one connection to its end.
async fn serve(stream: UnixStream, sandbox: &FakeSandbox) -> io::Result<()> {
    let (mut from, mut to) = stream.into_split();
    match receive(&mut from).await? {
        Message::Hello(hello) if hello.secret == SECRET && hello.version == VERSION => {
            send(&mut to, &Message::Welcome(Welcome { version: VERSION })).await?;
        }
        _ => return send(&mut to, &Message::Refused(Refused { message: "no".to_owned() })).await,
    }
    loop {
        let Message::Request(request) = receive(&mut from).await? else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        sandbox.shared.count(|counts| counts.requests += 1);
        let mut nothing = [0];
        let reply = tokio::select! {
            reply = execute(&mut to, sandbox, request) => reply?,
            // A client sends nothing during a call: this is the end of the stream.
            _ = from.read(&mut nothing) => {
                sandbox.shared.count(|counts| counts.cancelled += 1);
                return Ok(());
            }
        };
        send(&mut to, &Message::Reply(reply)).await?;
    }
}

async fn execute(to: &mut OwnedWriteHalf, sandbox: &FakeSandbox, request: Request) -> io::Result<Reply> {
    match request {
        Request::Ping => Ok(Reply::Pong),
        Request::Command { command, args, timeout_ms } => {
            let order = format!("{command} {}", args.join(" "));
            let script = command_script(&command, &args);
            let end =
                match limited(timeout_ms, perform(to, sandbox, script.as_deref().unwrap_or(&order))).await {
                    None => CommandEnd::TimedOut,
                    Some(end) => match end? {
                        RunEnd::Success => CommandEnd::Exited { code: 0 },
                        RunEnd::Died { signal: Some(signal), .. } => CommandEnd::Signaled { signal },
                        RunEnd::Died { code, .. } => CommandEnd::Exited { code: code.unwrap_or(1) },
                        RunEnd::Unavailable { message } => CommandEnd::NotStarted { message },
                        RunEnd::Error | RunEnd::TimedOut { .. } | RunEnd::Interrupted => {
                            CommandEnd::Exited { code: 1 }
                        }
                    },
                };
            Ok(Reply::Command { end })
        }
        Request::Run { code, timeout_ms, .. } => {
            let kept = !code.contains("stuck");
            let end = match limited(timeout_ms, perform(to, sandbox, &code)).await {
                None => RunEnd::TimedOut { kept },
                Some(end) => end?,
            };
            Ok(Reply::Run { end })
        }
    }
}

fn command_script(command: &str, args: &[String]) -> Option<String> {
    match command {
        "echo" => Some(format!("out {}", args.join(" "))),
        "true" => Some(String::new()),
        "false" => Some("exit 1".to_owned()),
        "missing" => Some("unavailable".to_owned()),
        "script" => Some(args.join("\n")),
        _ => None,
    }
}

async fn limited<T>(timeout_ms: Option<u64>, work: impl Future<Output = T>) -> Option<T> {
    match timeout_ms {
        Some(timeout_ms) => tokio::time::timeout(Duration::from_millis(timeout_ms), work).await.ok(),
        None => Some(work.await),
    }
}

/// Carries out a script; the end it names, or success.
async fn perform(to: &mut OwnedWriteHalf, sandbox: &FakeSandbox, script: &str) -> io::Result<RunEnd> {
    for line in script.lines() {
        let (order, rest) = line.split_once(' ').unwrap_or((line, ""));
        let number: Option<i32> = rest.parse().ok();
        let count = usize::try_from(number.unwrap_or(0)).unwrap_or(0);
        match order {
            "out" => print(to, Channel::Stdout, format!("{rest}\n").as_bytes()).await?,
            "err" => print(to, Channel::Stderr, format!("{rest}\n").as_bytes()).await?,
            "late" => print(to, Channel::BackgroundStdout, format!("{rest}\n").as_bytes()).await?,
            "bytes" => print(to, Channel::Stdout, &vec![b'x'; count]).await?,
            "lines" => print(to, Channel::Stdout, "y\n".repeat(count).as_bytes()).await?,
            "sleep" => tokio::time::sleep(Duration::from_millis(count as u64)).await,
            "hang" | "stuck" => std::future::pending().await,
            "raise" => return Ok(RunEnd::Error),
            "interrupt" => return Ok(RunEnd::Interrupted),
            "exit" => return Ok(RunEnd::Died { code: number, signal: None }),
            "signal" => return Ok(RunEnd::Died { code: None, signal: number }),
            "oom" => {
                sandbox.oom_kills.fetch_add(1, Ordering::AcqRel);
                return Ok(RunEnd::Died { code: None, signal: Some(9) });
            }
            "unavailable" => {
                return Ok(RunEnd::Unavailable { message: "No such file or directory".to_owned() });
            }
            "die" => {
                sandbox.die(rest);
                std::future::pending().await
            }
            _ => print(to, Channel::Stdout, format!("{line}\n").as_bytes()).await?,
        }
    }
    Ok(RunEnd::Success)
}

async fn print(to: &mut OwnedWriteHalf, channel: Channel, bytes: &[u8]) -> io::Result<()> {
    for chunk in bytes.chunks(OUTPUT_CHUNK_BYTES_MAX) {
        let frame = encode_output(channel, chunk).map_err(io::Error::other)?;
        to.write_all(&frame).await?;
    }
    Ok(())
}

async fn send(to: &mut OwnedWriteHalf, message: &Message) -> io::Result<()> {
    to.write_all(&message.encode().map_err(io::Error::other)?).await
}

async fn receive(from: &mut OwnedReadHalf) -> io::Result<Message> {
    let mut field = [0; LENGTH_BYTES];
    from.read_exact(&mut field).await?;
    let mut body = vec![0; frame_length(field).map_err(io::Error::other)?];
    from.read_exact(&mut body).await?;
    Message::decode(&body).map_err(io::Error::other)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
