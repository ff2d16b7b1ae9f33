// SPDX-License-Identifier: Apache-2.0
//! The processes of a sandbox whose server was killed.
//!
//! The jail wrote down which process is the first ([`jail::process`]); when it is dead, so are all others of its pid
//! namespace. It is held by a descriptor before it is compared with what was written down, so that no other process is
//! ended in its place.

use std::io;
use std::path::Path;

use jail::process::ProcessRecord;
use protocol::limits::STOP_WAIT;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// Ends the process that is written down in a file, and waits until it is gone. No file, or no such process any more, is
/// no error.
pub(super) fn end(file: &Path) -> io::Result<()> {
    let Some(record) = ProcessRecord::read(file) else { return Ok(()) };
    let Some(pid) = Pid::from_raw(record.pid) else { return Ok(()) };
    let process = match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(process) => process,
        Err(Errno::SRCH) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    // One that cannot be read has ended.
    if ProcessRecord::of(record.pid).ok().as_ref() != Some(&record) {
        return Ok(());
    }
    match pidfd_send_signal(&process, Signal::KILL) {
        Ok(()) => {}
        Err(Errno::SRCH) => return Ok(()),
        Err(error) => return Err(error.into()),
    }
    let wait = STOP_WAIT.try_into().map_err(io::Error::other)?;
    if poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&wait))? == 0 {
        return Err(io::Error::new(io::ErrorKind::TimedOut, "a process of an earlier server does not end"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};

    use super::*;

    fn sleeper() -> (Child, ProcessRecord) {
        let child = Command::new("/bin/sleep").arg("60").spawn().unwrap();
        let record = ProcessRecord::of(i32::try_from(child.id()).unwrap()).unwrap();
        (child, record)
    }

    #[test]
    fn the_process_that_is_meant_ends_and_no_other() {
        let file = std::env::temp_dir().join(format!("leftover-{}", std::process::id()));
        let (mut child, record) = sleeper();
        for other in [
            ProcessRecord { began: record.began + 1, ..record.clone() },
            ProcessRecord { boot: "another".to_owned(), ..record.clone() },
            ProcessRecord { pid: 0, ..record.clone() },
        ] {
            other.write(&file).unwrap();
            end(&file).unwrap();
        }
        assert!(child.try_wait().unwrap().is_none());
        record.write(&file).unwrap();
        end(&file).unwrap();
        assert!(!child.wait().unwrap().success());
        end(&file).unwrap();
        fs_err::remove_file(&file).unwrap();
        end(&file).unwrap();
    }
}
