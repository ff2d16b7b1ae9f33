// SPDX-License-Identifier: Apache-2.0
//! How other programs are run: shown, and never waited for without a bound where they may hang.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// A test run that says nothing for so long hangs.
const SILENCE_MAX: Duration = Duration::from_secs(15 * 60);
/// How long the output may stay open after the program that wrote it has ended.
const OUTPUT_AFTER_EXIT_MAX: Duration = Duration::from_secs(10);
/// Lines that may wait between the reader of a program's output and ourselves.
const EVENTS_WAITING_MAX: usize = 1024;

/// Shows a command, runs it, and fails when it does.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    println!("$ {}", shown(command));
    let status = command.status().with_context(|| format!("cannot run {}", shown(command)))?;
    if !status.success() {
        bail!("{} failed ({status})", shown(command));
    }
    Ok(())
}

/// Runs a command without its output and says whether it succeeded; a missing program is a no.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// Runs a command and returns its standard output as text.
pub(crate) fn capture(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot run {}", shown(command)))?;
    if !output.status.success() {
        bail!("{} failed ({})", shown(command), output.status);
    }
    String::from_utf8(output.stdout).with_context(|| format!("{} wrote no UTF-8", shown(command)))
}

/// Something that happens while a program runs under [`watch`].
enum Event {
    Line(String),
    OutputEnded,
    Exited(std::io::Result<ExitStatus>),
}

/// Shows a command, runs it with its output passed on, and gives each line of it to `line` as well.
///
/// Fails when the program is silent for too long, or leaves another one behind that holds its output open.
pub(crate) fn watch(command: &mut Command, line: impl FnMut(&str)) -> Result<ExitStatus> {
    println!("$ {}", shown(command));
    let (reader, writer) = std::io::pipe().context("cannot make a pipe")?;
    command.stdin(Stdio::null()).stdout(writer.try_clone().context("cannot copy a pipe")?).stderr(writer);
    let mut child = command.spawn().with_context(|| format!("cannot run {}", shown(command)))?;
    let id = child.id();
    // The command holds write ends of its own: only without them the reader sees the end.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let (sender, events) = sync_channel(EVENTS_WAITING_MAX);
    let exit_sender = sender.clone();
    thread::spawn(move || exit_sender.send(Event::Exited(child.wait())));
    thread::spawn(move || {
        for bytes in BufReader::new(reader).split(b'\n').map_while(Result::ok) {
            if sender.send(Event::Line(String::from_utf8_lossy(&bytes).into_owned())).is_err() {
                return;
            }
        }
        // Nobody listens any more when the run was given up.
        let _ = sender.send(Event::OutputEnded);
    });
    let outcome = follow(&events, line);
    if outcome.is_err() {
        signal(id, "KILL");
    }
    outcome.with_context(|| format!("watching {}", shown(command)))
}

fn follow(events: &Receiver<Event>, mut line: impl FnMut(&str)) -> Result<ExitStatus> {
    let mut output_ended = false;
    let mut exited = None;
    loop {
        if let (true, Some(status)) = (output_ended, exited) {
            return Ok(status);
        }
        let wait = if exited.is_some() { OUTPUT_AFTER_EXIT_MAX } else { SILENCE_MAX };
        match events.recv_timeout(wait) {
            Ok(Event::Line(text)) => {
                println!("{text}");
                line(&text);
            }
            Ok(Event::OutputEnded) => output_ended = true,
            Ok(Event::Exited(status)) => exited = Some(status.context("cannot wait for the program")?),
            Err(_) if exited.is_some() => {
                bail!("it ended, but a process it left behind holds its output open")
            }
            Err(_) => bail!("it was silent for {} minutes", SILENCE_MAX.as_secs() / 60),
        }
    }
}

/// Waits for a child to end; `None` when it has not within `wait`.
pub(crate) fn wait_at_most(mut child: Child, wait: Duration) -> Result<Option<ExitStatus>> {
    let (sender, exit) = sync_channel(1);
    thread::spawn(move || sender.send(child.wait()));
    match exit.recv_timeout(wait) {
        Ok(status) => Ok(Some(status.context("cannot wait for a child process")?)),
        Err(_) => Ok(None),
    }
}

/// Sends a signal to a process that we started and have not yet waited for.
pub(crate) fn signal(id: u32, name: &str) {
    // The shell's own `kill` is everywhere; the program of that name is not.
    succeeds(Command::new("sh").args(["-c", "kill -s \"$0\" \"$1\"", name, &id.to_string()]));
}

/// Writes a command as somebody would type it, near enough.
pub(crate) fn shown(command: &Command) -> String {
    let mut text = command.get_program().to_string_lossy().into_owned();
    for argument in command.get_args() {
        text.push(' ');
        text.push_str(&argument.to_string_lossy());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watched_program_gives_every_line_of_both_streams_and_its_exit() {
        let mut lines = Vec::new();
        let mut command = Command::new("sh");
        command.args(["-c", "echo one; echo two >&2; printf three; exit 3"]);
        let status = watch(&mut command, |line| lines.push(line.to_owned())).unwrap();
        assert_eq!(lines, ["one", "two", "three"]);
        assert_eq!(status.code(), Some(3));
    }

    #[test]
    fn a_child_that_does_not_end_in_time_is_reported_and_one_that_does_has_its_status() {
        let quick = Command::new("sh").args(["-c", "exit 4"]).spawn().unwrap();
        let status = wait_at_most(quick, Duration::from_secs(20)).unwrap().unwrap();
        assert_eq!(status.code(), Some(4));
        let slow = Command::new("sleep").arg("60").spawn().unwrap();
        let id = slow.id();
        assert!(wait_at_most(slow, Duration::from_millis(50)).unwrap().is_none());
        signal(id, "KILL");
    }

    #[test]
    fn a_failing_program_is_named_with_its_arguments() {
        let error = run(Command::new("sh").args(["-c", "exit 5"])).unwrap_err();
        assert!(error.to_string().contains("sh -c exit 5 failed"), "{error}");
        assert!(capture(Command::new("/nonexistent/program").arg("x")).is_err());
        assert!(!succeeds(&mut Command::new("/nonexistent/program")));
    }
}
