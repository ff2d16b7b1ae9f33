// SPDX-License-Identifier: Apache-2.0
//! Where the list is tried: a home for the time, a file system with nothing but the probe, and a server of its own.
//!
//! ```text
//! <home>/selftest-<pid>/         mode 0700, removed at the end
//!     server/                    the server's home
//!     rootfs/                    what sandboxes start from: the probe, and empty directories
//!     images/<n>/                the same with a link where there should be none
//!     control/                   where the control puts its root file system
//! ```

use std::io::{self, BufRead, BufReader};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat, open};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::client::Client;
use super::error::{Act, SelftestError};

const DIRECTORIES: [&str; 12] =
    ["proc", "sys", "dev", "tmp", "etc", "root", "run", "usr", "usr/bin", "var", "var/tmp", "home"];
/// A place in the root file system that is no directory.
const FIFO: &str = "msb-attack-fifo";
/// Most of the server's log that is told when it fails, in lines.
const LOG_LINES_MAX: usize = 20;

/// The ground, to be cleared at the end.
pub(crate) struct Ground {
    folder: PathBuf,
    server: Mutex<Child>,
    pid: u32,
    probe: PathBuf,
    pub(crate) client: Client,
}

impl Ground {
    /// Makes the folders and starts the server.
    pub(crate) fn make(home: &Path, probe: PathBuf) -> Result<Ground, SelftestError> {
        let folder = home.join(format!("selftest-{}", std::process::id()));
        let made = Ground::furnish(&folder, &probe).and_then(|()| start_server(&folder));
        match made {
            Ok((server, address)) => {
                let (pid, client) = (server.id(), Client { address });
                Ok(Ground { folder, server: Mutex::new(server), pid, probe, client })
            }
            Err(error) => {
                let _ = remove(&folder);
                Err(error)
            }
        }
    }

    fn furnish(folder: &Path, probe: &Path) -> Result<(), SelftestError> {
        std::fs::DirBuilder::new().mode(0o700).create(folder).act("make the folder for the test")?;
        for part in ["server", "images", "control"] {
            std::fs::DirBuilder::new().mode(0o700).create(folder.join(part)).act("make folders")?;
        }
        rootfs(&folder.join("rootfs"), probe).act("make the root file system")
    }

    /// The server's home.
    pub(crate) fn home(&self) -> PathBuf {
        self.folder.join("server")
    }

    /// The folder of all that is made.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The probe on the host.
    pub(crate) fn probe(&self) -> &Path {
        &self.probe
    }

    /// The server's process.
    pub(crate) fn server_pid(&self) -> u32 {
        self.pid
    }

    /// An empty directory for a control.
    pub(crate) fn control(&self) -> PathBuf {
        self.folder.join("control")
    }

    /// What a sandbox shall be that starts from the plain root file system.
    pub(crate) fn config(&self) -> Value {
        self.config_of(&self.folder.join("rootfs"))
    }

    /// What a sandbox shall be that starts from this one.
    pub(crate) fn config_of(&self, rootfs: &Path) -> Value {
        json!({"image": rootfs, "memory": attack::list::resources::MEMORY_MIB, "cpus": 1})
    }

    /// Makes a root file system in which a path is a link.
    pub(crate) fn linked_image(&self, path: &str, to: &str) -> io::Result<PathBuf> {
        let images = self.folder.join("images");
        let number = fs_err::read_dir(&images)?.count();
        let at = images.join(number.to_string());
        rootfs(&at, &self.probe)?;
        let link = at.join(path);
        match fs_err::remove_dir(&link) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => symlink(to, &link)?,
        }
        Ok(at)
    }

    /// Says whether the server's process is there.
    pub(crate) fn server_is_there(&self) -> bool {
        let mut server = self.server.lock().unwrap_or_else(PoisonError::into_inner);
        matches!(server.try_wait(), Ok(None))
    }

    /// Ends the server and removes everything; says what was left.
    pub(crate) fn clear(&self) -> Result<(), SelftestError> {
        let mut server = self.server.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(server.try_wait(), Ok(None))
            && let Some(pid) = i32::try_from(server.id()).ok().and_then(Pid::from_raw)
        {
            kill_process(pid, Signal::TERM).map_err(io::Error::from).act("end the server")?;
        }
        let status = server.wait().act("wait for the server")?;
        let left = remove(&self.folder);
        if !status.success() {
            return Err(SelftestError::Server(format!("it ended with {status}")));
        }
        left.act("remove the folder of the test")
    }
}

/// Makes a root file system in which there is a static program, and nothing else that could be run.
fn rootfs(at: &Path, probe: &Path) -> io::Result<()> {
    fs_err::create_dir(at)?;
    for directory in DIRECTORIES {
        fs_err::create_dir(at.join(directory))?;
    }
    fs_err::set_permissions(at.join("tmp"), std::fs::Permissions::from_mode(0o1777))?;
    fs_err::copy(probe, at.join("msb-probe"))?;
    mknodat(CWD, at.join(FIFO), FileType::Fifo, Mode::from_raw_mode(0o666), 0)?;
    Ok(())
}

fn start_server(folder: &Path) -> Result<(Child, SocketAddr), SelftestError> {
    let msb = std::env::current_exe().act("find the program file of msb")?;
    let log = folder.join("server.log");
    let errors = fs_err::File::create(&log).act("make the server's log")?;
    let mut server = Command::new(msb)
        .args(["server", "start", "--dev", "--no-network", "--port", "0", "--home"])
        .arg(folder.join("server"))
        .arg("--allow-rootfs")
        .arg(folder)
        .env_remove("MICROSANDBOX_HOME")
        // Signals of the terminal are for this program alone: it ends the server.
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(errors.into_parts().0)
        .spawn()
        .act("start a server")?;
    let mut line = String::new();
    if let Some(output) = server.stdout.take() {
        BufReader::new(output).read_line(&mut line).act("read where the server listens")?;
    }
    let address = line.trim_end().rsplit_once("http://").and_then(|(_, address)| address.parse().ok());
    match address {
        Some(address) => Ok((server, address)),
        None => {
            let _ = server.wait();
            let text = fs_err::read_to_string(&log).unwrap_or_default();
            let lines: Vec<&str> = text.lines().rev().take(LOG_LINES_MAX).collect();
            Err(SelftestError::Server(lines.into_iter().rev().collect::<Vec<&str>>().join("\n")))
        }
    }
}

fn remove(folder: &Path) -> io::Result<()> {
    let (Some(parent), Some(name)) = (folder.parent(), folder.file_name()) else { return Ok(()) };
    let parent: OwnedFd = open(parent, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let name = std::ffi::CString::new(name.as_encoded_bytes()).map_err(io::Error::other)?;
    image::unpack::remove_tree(std::os::fd::AsFd::as_fd(&parent), &name)
}
