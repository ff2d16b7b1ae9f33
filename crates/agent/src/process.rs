// SPDX-License-Identifier: Apache-2.0
//! One program below its supervisor: started, followed to its end, killed with all its descendants.

use std::io;
use std::os::fd::{BorrowedFd, RawFd};
use std::sync::Arc;

use nix::sys::signal::Signal;
use protocol::limits::PROCESS_START_WAIT;
use rustix::fs::{FileType, Gid, Uid, fchown, fstat};
use sys::spawn::{End, Program, REPORT_BYTES, Report, Stage};
use tokio::net::unix::pipe;
use tokio::time::{Instant, timeout_at};

use crate::reaper::{Reaper, Supervisor};
use crate::tree::{self, Identity};

/// A running program.
pub(crate) struct Process {
    reaper: Arc<Reaper>,
    supervisor: Supervisor,
    report: pipe::Receiver,
    main: Option<Identity>,
    end: Option<End>,
    /// Whether the supervisor was killed before it could report.
    lost: bool,
}

/// Why a program does not run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    /// No process could be made.
    #[error("cannot make a process")]
    Fork(#[source] io::Error),
    /// The new process could not become the program.
    #[error("cannot start the program ({stage:?})")]
    Program {
        stage: Stage,
        #[source]
        source: io::Error,
    },
    /// Time was up before the program ran.
    #[error("the program did not start in time")]
    Slow,
}

impl Process {
    /// Starts a program with these descriptors and waits until it is executed, at most until `deadline`.
    ///
    /// Not to be cancelled: it ends by itself, with nothing left of what it could not start.
    pub(crate) async fn start(
        reaper: &Arc<Reaper>,
        program: &Program,
        descriptors: &[(BorrowedFd<'_>, RawFd)],
        deadline: Option<Instant>,
    ) -> Result<Process, StartError> {
        hand_over(program, descriptors).map_err(StartError::Fork)?;
        let (supervisor, report) = reaper.spawn(program, descriptors).map_err(StartError::Fork)?;
        let report = pipe::Receiver::from_owned_fd(report).map_err(StartError::Fork)?;
        let mut process =
            Process { reaper: Arc::clone(reaper), supervisor, report, main: None, end: None, lost: false };
        let bound = Instant::now() + PROCESS_START_WAIT;
        let until = deadline.map_or(bound, |deadline| deadline.min(bound));
        match timeout_at(until, process.next_report()).await {
            Ok(Some(Report::Started { main })) => {
                process.main = Identity::of(main);
                Ok(process)
            }
            Ok(Some(Report::Failed { stage: Stage::Fork, errno })) => {
                Err(StartError::Fork(io::Error::from_raw_os_error(errno)))
            }
            Ok(Some(Report::Failed { stage, errno })) => {
                Err(StartError::Program { stage, source: io::Error::from_raw_os_error(errno) })
            }
            // Somebody killed the supervisor before it could say; whether the program ran, nobody knows.
            Ok(Some(Report::Ended(_)) | None) => {
                process.conclude(None);
                Ok(process)
            }
            Err(_) => {
                process.kill().await;
                Err(StartError::Slow)
            }
        }
    }

    /// Waits until the program itself has ended; processes that it started may live on. Can be cancelled.
    pub(crate) async fn ended(&mut self) -> End {
        if let Some(end) = self.end {
            return end;
        }
        let report = self.next_report().await;
        self.conclude(report)
    }

    /// Tells whether the program has ended by now, even if the event loop has not heard of it yet.
    pub(crate) fn has_ended(&mut self) -> bool {
        let mut bytes = [0; REPORT_BYTES];
        if self.end.is_none()
            && let Ok(count) = rustix::io::read(&self.report, &mut bytes)
        {
            let report = if count == REPORT_BYTES { Report::decode(bytes) } else { None };
            self.conclude(report);
        }
        self.end.is_some()
    }

    /// Interrupts the program itself, as Ctrl-C would.
    pub(crate) fn interrupt(&self) {
        if let (Some(main), None) = (self.main, self.end) {
            main.signal(Signal::SIGINT);
        }
    }

    /// Kills the program and everything that descends from it.
    pub(crate) async fn kill(&mut self) {
        tree::kill_all(&mut self.supervisor, &self.reaper).await;
    }

    /// Tells whether somebody killed the supervisor, so that nobody watches over what is left of the tree.
    pub(crate) fn is_lost(&self) -> bool {
        self.lost
    }

    fn conclude(&mut self, report: Option<Report>) -> End {
        let end = match report {
            Some(Report::Ended(end)) => end,
            // Without its supervisor nobody can say; the program is killed with all that is left of its tree.
            Some(Report::Started { .. } | Report::Failed { .. }) | None => {
                self.lost = true;
                End::Signaled(Signal::SIGKILL as i32)
            }
        };
        *self.end.insert(end)
    }

    async fn next_report(&self) -> Option<Report> {
        let mut bytes = [0; REPORT_BYTES];
        loop {
            self.report.readable().await.ok()?;
            match self.report.try_read(&mut bytes) {
                Ok(REPORT_BYTES) => return Report::decode(bytes),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Ok(_) | Err(_) => return None,
            }
        }
    }
}

/// Gives the pipes of a program to its user: it shall be able to open them again by name (`/dev/stdout`,
/// `/proc/self/fd/1`), as Node does, and a pipe belongs to who made it.
fn hand_over(program: &Program, descriptors: &[(BorrowedFd<'_>, RawFd)]) -> io::Result<()> {
    let Some(ids) = &program.ids else { return Ok(()) };
    for (descriptor, _) in descriptors {
        if FileType::from_raw_mode(fstat(descriptor)?.st_mode) == FileType::Fifo {
            fchown(descriptor, Some(Uid::from_raw(ids.user)), Some(Gid::from_raw(ids.group)))?;
        }
    }
    Ok(())
}
