// SPDX-License-Identifier: Apache-2.0
//! `sandbox.repl.run`

use protocol::agent::{Reply, Request, RunEnd};
use protocol::calls::{Run, RunResult, RunStatus};
use protocol::errors::{ApiError, ErrorCode};

use crate::app::App;
use crate::output::{Printed, Room, Transcript};

/// What is said of the variables when the interpreter is gone.
const LOST: &str = "its variables are lost, the next run starts a new one";

pub(crate) async fn run(app: &App, run: Run, room: &mut Room) -> Result<RunResult, ApiError> {
    let running = super::running(app, &run.target)?;
    let memory_mib = running.live().memory_mib();
    let timeout_ms = run.timeout_s.map(|seconds| seconds * 1000);
    let request = Request::Run { language: run.language.engine, code: run.code, timeout_ms };
    let mut transcript = Transcript::new(room);
    let answer = running.call(request, |channel, bytes| transcript.take(channel, bytes)).await;
    let mut printed = transcript.finish();
    let answer = match answer {
        Ok(answer) => answer,
        Err(broken) => return Err(super::broken("Execution", &broken, printed)),
    };
    let end = match answer.reply {
        Reply::Run { end } => end,
        Reply::Pong | Reply::Command { .. } => {
            return Err(ApiError::new(
                ErrorCode::Failed,
                "Execution failed: the agent gave another call's answer",
            ));
        }
    };
    let told = Told { seconds: run.timeout_s.unwrap_or(0), memory_mib, out_of_memory: answer.out_of_memory };
    let status = told.tell(&mut printed, end)?;
    Ok(RunResult {
        status,
        language: run.language.name,
        output: printed.output,
        truncated: printed.truncated,
        background_output: printed.background,
    })
}

/// What is known beside the end itself.
struct Told {
    seconds: u64,
    memory_mib: u32,
    out_of_memory: bool,
}

impl Told {
    /// Translates the end of an execution, and sees to it that every failure has a line on standard error: published
    /// clients know a failure by that.
    fn tell(&self, printed: &mut Printed, end: RunEnd) -> Result<RunStatus, ApiError> {
        match end {
            RunEnd::Success => Ok(RunStatus::Success),
            RunEnd::Error => {
                if !printed.has_error() {
                    printed.add_error("Error: the code raised an exception that printed nothing");
                }
                Ok(RunStatus::Error)
            }
            RunEnd::TimedOut { kept } => {
                let after = super::plural(self.seconds, "second");
                printed.add_error(format!("Error: Execution timed out after {after}"));
                printed.add_error(if kept {
                    "The execution was interrupted; the variables are kept as they were then".to_owned()
                } else {
                    format!("The interpreter did not heed the interrupt and was killed; {LOST}")
                });
                Ok(RunStatus::Timeout)
            }
            RunEnd::Interrupted => {
                printed
                    .add_error("Error: Execution was interrupted; the variables are kept as they were then");
                Ok(RunStatus::Interrupted)
            }
            RunEnd::Died { signal: Some(9), .. } if self.out_of_memory => {
                let limit = self.memory_mib;
                printed.add_error(format!(
                    "Error: Out of memory: the sandbox reached its limit of {limit} MiB and the interpreter was killed; {LOST}"
                ));
                Ok(RunStatus::OutOfMemory)
            }
            RunEnd::Died { code, signal } => {
                let how = match (code, signal) {
                    (_, Some(signal)) => format!("was killed by signal {signal}"),
                    (Some(code), None) => format!("exited with code {code}"),
                    (None, None) => "died".to_owned(),
                };
                printed.add_error(format!("Error: The interpreter {how}; {LOST}"));
                Ok(RunStatus::Crashed)
            }
            RunEnd::Unavailable { message } => Err(ApiError::new(
                ErrorCode::Failed,
                format!("Execution failed: {}", super::quoted(&message)),
            )),
        }
    }
}
