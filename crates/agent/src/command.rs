// SPDX-License-Identifier: Apache-2.0
//! One command: a process without a shell, its output in order of arrival, and its whole tree killed in time.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use nix::errno::Errno;
use protocol::agent::CommandEnd;
use protocol::limits::{COMMAND_ARGS_MAX, COMMAND_DRAIN_WAIT};
use rustix::fs::{Mode, OFlags, open};
use sys::spawn::{End, Program, Stage};
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::Agent;
use crate::loader;
use crate::outbox::{Gone, Outbox};
use crate::process::{Process, StartError};
use crate::relay::{Pipes, Relay};

/// What to run.
pub(crate) struct Command {
    /// A path, or a name that is looked up in `PATH`.
    pub(crate) command: String,
    /// The arguments after it.
    pub(crate) args: Vec<String>,
    /// The time after which everything of it is killed.
    pub(crate) timeout: Option<Duration>,
}

/// Why following a command ended.
enum Turn {
    Ended(End),
    TimeUp,
    Gone,
}

/// Runs a command to its end, which is the end of its main process.
///
/// What that leaves behind lives on, unless time is up or the server leaves: then all of the tree is killed.
pub(crate) async fn run(agent: &Agent, command: Command, outbox: Outbox, mut gone: Gone) -> CommandEnd {
    if command.timeout.is_some_and(|timeout| timeout.is_zero()) {
        return CommandEnd::TimedOut;
    }
    let deadline = command.timeout.map(|timeout| Instant::now() + timeout);
    let (mut process, mut relay) = match start(agent, &command, deadline).await {
        Ok(started) => started,
        Err(end) => return end,
    };
    match follow(&mut process, &mut relay, (&outbox, &mut gone), deadline).await {
        Turn::Ended(end) => {
            if process.is_lost() {
                process.kill().await;
            }
            drain(&mut relay, &outbox).await;
            relay.leave_behind(&agent.left_behind);
            match end {
                End::Exited(code) => CommandEnd::Exited { code },
                End::Signaled(signal) => CommandEnd::Signaled { signal },
            }
        }
        Turn::TimeUp => {
            process.kill().await;
            relay.catch_up();
            relay.flush(&outbox).await;
            CommandEnd::TimedOut
        }
        Turn::Gone => {
            process.kill().await;
            CommandEnd::TimedOut
        }
    }
}

async fn start(
    agent: &Agent,
    command: &Command,
    deadline: Option<Instant>,
) -> Result<(Process, Relay), CommandEnd> {
    if command.args.len() > COMMAND_ARGS_MAX {
        return Err(not_started(format!("at most {COMMAND_ARGS_MAX} arguments are allowed")));
    }
    let Some(program) = agent.environment.program(&command.command, &command.args) else {
        return Err(not_started("a zero byte in a command or its arguments is not possible".to_owned()));
    };
    match launch(agent, &program, deadline).await {
        Ok(started) => Ok(started),
        Err(StartError::Slow) if deadline.is_some_and(|deadline| deadline <= Instant::now()) => {
            Err(CommandEnd::TimedOut)
        }
        Err(error) => Err(not_started(explain(agent, (&command.command, &program), &error))),
    }
}

async fn launch(
    agent: &Agent,
    program: &Program,
    deadline: Option<Instant>,
) -> Result<(Process, Relay), StartError> {
    let null = open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|errno| StartError::Fork(errno.into()))?;
    let (pipes, writers) = Pipes::open().map_err(StartError::Fork)?;
    let places = [(null.as_fd(), 0), (writers.stdout.as_fd(), 1), (writers.stderr.as_fd(), 2)];
    let process = Process::start(&agent.reaper, program, &places, deadline).await?;
    Ok((process, Relay::new(pipes)))
}

async fn follow(
    process: &mut Process,
    relay: &mut Relay,
    (outbox, gone): (&Outbox, &mut Gone),
    deadline: Option<Instant>,
) -> Turn {
    loop {
        tokio::select! {
            () = gone.wait() => return Turn::Gone,
            () = time_up(deadline) => return Turn::TimeUp,
            end = process.ended() => return Turn::Ended(end),
            () = relay.step(outbox), if relay.is_open() => {}
        }
    }
}

/// Waits until a deadline, or for ever.
async fn time_up(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// Hands on what the ended process wrote; waits a little for the end of it if something left behind can still write.
async fn drain(relay: &mut Relay, outbox: &Outbox) {
    let until = Instant::now() + COMMAND_DRAIN_WAIT;
    while relay.is_open() {
        if timeout_at(until, relay.step(outbox)).await.is_err() || Instant::now() >= until {
            break;
        }
    }
    relay.catch_up();
    relay.flush(outbox).await;
}

fn not_started(message: String) -> CommandEnd {
    CommandEnd::NotStarted { message }
}

/// Says what was wrong in words for whoever sent the command.
fn explain(agent: &Agent, (command, program): (&str, &Program), error: &StartError) -> String {
    let environment = &agent.environment;
    let is_missing = |source: &io::Error| source.kind() == io::ErrorKind::NotFound;
    if let StartError::Program { stage: Stage::Exec, source } = error
        && is_missing(source)
        && let Some(missing) = loader::missing_for(program)
    {
        return format!("cannot start '{command}': {missing}: {source}");
    }
    match error {
        StartError::Program { stage: Stage::Workdir, source } => {
            format!("cannot start '{command}' in the working directory '{}': {source}", environment.workdir())
        }
        StartError::Program { stage: Stage::Exec, source } => match source.kind() {
            io::ErrorKind::NotFound if command.contains('/') => {
                format!("cannot start '{command}': there is no such file: {source}")
            }
            io::ErrorKind::NotFound => {
                format!(
                    "command not found: '{command}' is not in PATH ({}): {source}",
                    environment.search_path()
                )
            }
            io::ErrorKind::PermissionDenied => {
                format!("cannot start '{command}': not an executable file: {source}")
            }
            _ if source.raw_os_error() == Some(Errno::ENOEXEC as i32) => {
                format!(
                    "cannot start '{command}': no program (a script needs a first line with #!): {source}"
                )
            }
            _ => format!("cannot start '{command}': {source}"),
        },
        StartError::Program { stage: Stage::Fork | Stage::Descriptors | Stage::Ids, source }
        | StartError::Fork(source) => {
            format!("cannot start '{command}': {source}")
        }
        StartError::Slow => format!("cannot start '{command}': it did not start in time"),
    }
}
