// SPDX-License-Identifier: Apache-2.0
//! `sandbox.command.run`

use protocol::agent::{CommandEnd, Reply, Request};
use protocol::calls::{Command, CommandResult};
use protocol::errors::{ApiError, ErrorCode};

use crate::app::App;
use crate::output::{Room, Transcript};

pub(crate) async fn command(app: &App, command: Command, room: &mut Room) -> Result<CommandResult, ApiError> {
    let running = super::running(app, &command.target)?;
    let request = Request::Command {
        command: command.command.clone(),
        args: command.args.clone(),
        timeout_ms: command.timeout_s.map(|seconds| seconds * 1000),
    };
    let mut transcript = Transcript::new(room);
    let answer = running.call(request, |channel, bytes| transcript.take(channel, bytes)).await;
    let printed = transcript.finish();
    let answer = match answer {
        Ok(answer) => answer,
        Err(broken) => return Err(super::broken("Command execution", &broken, printed)),
    };
    let failed = |text: String| ApiError::new(ErrorCode::Failed, format!("Command execution failed: {text}"));
    let (exit_code, signal) = match answer.reply {
        Reply::Command { end: CommandEnd::Exited { code } } => (code, None),
        Reply::Command { end: CommandEnd::Signaled { signal } } => (1, Some(signal)),
        Reply::Command { end: CommandEnd::TimedOut } => {
            let after = super::plural(command.timeout_s.unwrap_or(0), "second");
            let error = failed(format!("command timed out after {after}"));
            let remedy = "it and all processes it started were killed; give it a longer timeout";
            return Err(super::with_output(error.with("timed_out", true).remedy(remedy), printed));
        }
        Reply::Command { end: CommandEnd::NotStarted { message } } => {
            let (command, message) = (super::quoted(&command.command), super::quoted(&message));
            let error = failed(format!("cannot start '{command}': {message}"));
            return Err(super::with_output(error.with("not_started", true), printed));
        }
        Reply::Pong | Reply::Run { .. } => {
            return Err(failed("the agent gave another call's answer".to_owned()));
        }
    };
    Ok(CommandResult {
        command: command.command,
        args: command.args,
        exit_code,
        success: exit_code == 0,
        output: printed.output,
        truncated: printed.truncated,
        signal,
        out_of_memory: answer.out_of_memory,
    })
}
