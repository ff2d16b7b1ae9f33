// SPDX-License-Identifier: Apache-2.0
//! From a spec to a running sandbox: its share of the host, the jail, the first connection.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;

use jail::facts::What;
use jail::plan::Plan;
use jail::report::{REPORT_BYTES_MAX, Report};
use protocol::limits::WALLS_WAIT;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal, waitid,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{ChildStderr, ChildStdout, Command};

use super::cgroup::Limits;
use super::ids::HeldIds;
use super::plan::{Places, plan, preset_files};
use super::sandbox::ContainerSandbox;
use super::{Alive, Shares};
use crate::agent::ConnectError;
use crate::backend::{Sandbox, StartError};
use crate::spec::{SandboxId, SandboxSpec};
use crate::volume::NewLayers;

/// Most bytes that one agent's standard error puts into the server's log.
const AGENT_LOG_BYTES_MAX: usize = 64 * 1024;
/// The file name of the agent's socket in the sandbox's directory.
pub(super) const SOCKET: &str = "agent.sock";

/// What was made for a sandbox on the host, to be removed with it.
pub(super) struct Share {
    pub(super) id: SandboxId,
    pub(super) ids: HeldIds,
    pub(super) alive: Alive,
}

/// Starts one sandbox and waits until its agent answers.
pub(super) async fn launch(alive: Alive, spec: SandboxSpec) -> Result<Arc<ContainerSandbox>, StartError> {
    spec.check()?;
    let shares = Arc::clone(&alive.shares);
    let ports = shares.networks.bind(&spec.ports).await?;
    let (id, network) = (spec.id.clone(), spec.network.clone());
    let ids =
        shares.ids.take().map_err(walls("take an id block"))?.ok_or_else(|| {
            StartError::NoCapacity("all blocks of user ids of this host are taken".to_owned())
        })?;
    let share = Share { id: spec.id.clone(), ids, alive };
    let secret = secret().map_err(walls("make a secret"))?;
    let (share, made) = blocking(move || {
        let made = prepare(&shares, &share, &spec, &secret).map(|plan| (plan, secret));
        (share, made)
    })
    .await
    .map_err(walls("make the directories and cgroups"))?;
    let (plan, secret) = match made {
        Ok(made) => made,
        Err(error) => return Err(give_back(share, error).await),
    };
    let process = match run_jail(&share.alive.shares.programs.jail, &plan, &share.id).await {
        Ok(process) => process,
        Err(error) => return Err(give_back(share, error).await),
    };
    let sandbox = ContainerSandbox::watch(share, process, secret, &plan.socket)?;
    // While the agent gets ready.
    let attach = sandbox.attach(id, network, ports);
    let (connected, attached) = tokio::join!(sandbox.connect(), attach);
    let connected = connected.map(drop).map_err(|error| match error {
        ConnectError::Unfit(message) => StartError::Unfit(message),
        other => StartError::Agent(other),
    });
    if let Err(error) = connected.and(attached) {
        if let Err(left) = sandbox.stop().await {
            tracing::error!(error = %left, "a sandbox that failed to start left something behind");
        }
        return Err(error);
    }
    Ok(sandbox)
}

/// Makes the directories and cgroups of a sandbox, and its plan.
fn prepare(shares: &Shares, share: &Share, spec: &SandboxSpec, secret: &str) -> Result<Plan, StartError> {
    let mounts = spec.rootfs.mounts.len();
    let etc = preset_files(&spec.hostname, shares.networks.name_server(&spec.network));
    shares
        .volume
        .create(
            &spec.id,
            &NewLayers {
                mounts,
                owner: share.ids.owner,
                etc: &etc,
                bytes_max: u64::from(spec.disk_mib) << 20,
            },
        )
        .map_err(walls("make the writable layer"))?;
    let limits = Limits {
        memory_bytes: u64::from(spec.memory_mib) << 20,
        cpu_millis: spec.cpu_millis,
        pids: spec.pids_max,
        io_weight: spec.io_weight,
    };
    shares.cgroups.create(&spec.id, limits).map_err(walls("make the cgroups"))?;
    let scratch = shares.volume.scratch(&spec.id);
    let places = Places {
        agent: shares.programs.agent.clone(),
        socket: scratch.with_file_name(SOCKET),
        cgroup_tasks: shares.cgroups.entry_files(&spec.id),
        program_tasks: shares.cgroups.program_entry_file(&spec.id),
        hidden_layers: shares.volume.hidden_layers(&spec.id),
        uppers: shares.volume.uppers(&spec.id, mounts),
        scratch,
        ids: share.ids.block,
        more_ids: share.ids.more,
        rights: shares.standing.rights.clone(),
        process: shares.volume.process_file(&spec.id),
        counts_processes: shares.counts_processes(),
        landlock: shares.facts.failure(What::Landlock).is_none(),
    };
    plan(spec, places, secret).map_err(|error| walls("make the plan")(io::Error::other(error)))
}

/// Removes what was made for a sandbox that did not start; the first failure is the one that counts.
async fn give_back(share: Share, error: StartError) -> StartError {
    let removed = blocking(move || share.alive.shares.remove(&share.id)).await.and_then(|removed| removed);
    if let Err(left) = removed {
        tracing::error!(error = %left, "a failed start left something behind");
    }
    error
}

/// Runs the jail and returns the first process of the sandbox, which has become the agent.
async fn run_jail(program: &Path, plan: &Plan, id: &SandboxId) -> Result<OwnedFd, StartError> {
    let text = serde_json::to_vec(plan).map_err(|error| walls("write the plan")(error.into()))?;
    let mut jail = Command::new(program)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(walls("run msb-jail"))?;
    let (Some(mut stdin), Some(stdout), Some(stderr)) =
        (jail.stdin.take(), jail.stdout.take(), jail.stderr.take())
    else {
        return Err(walls("reach msb-jail")(io::Error::other("a pipe is missing")));
    };
    tokio::spawn(log_agent(stderr, id.clone()));
    let mut reports = Vec::new();
    let whole = async {
        // A jail that fails early does not read its plan to the end: its report says why.
        let _ = stdin.write_all(&text).await;
        drop(stdin);
        read_reports(stdout, &mut reports).await?;
        jail.wait().await
    };
    let finished = match tokio::time::timeout(WALLS_WAIT, whole).await {
        Ok(finished) => finished.map(|_| ()),
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "the walls took too long")),
    };
    let (process, failure) = read_outcome(&reports)?;
    match (process, failure, finished) {
        (Some(process), None, Ok(())) => Ok(process),
        (process, failure, finished) => {
            if let Some(process) = process {
                end(&process);
            }
            let step = failure.unwrap_or_else(|| "msb-jail ended without a report".to_owned());
            Err(StartError::Walls { step, source: finished.err() })
        }
    }
}

async fn read_reports(mut stdout: ChildStdout, reports: &mut Vec<u8>) -> io::Result<()> {
    let mut chunk = [0; 4096];
    loop {
        let count = stdout.read(&mut chunk).await?;
        if count == 0 {
            return Ok(());
        }
        if reports.len() + count > REPORT_BYTES_MAX {
            return Err(io::Error::other("msb-jail reports without end"));
        }
        reports.extend_from_slice(&chunk[..count]);
    }
}

/// Reads the reports: the process that was made, held by a descriptor, and the step that failed.
///
/// The pid cannot have become another process: it is our child, and nobody but us reaps it.
fn read_outcome(reports: &[u8]) -> Result<(Option<OwnedFd>, Option<String>), StartError> {
    let (mut process, mut failure) = (None, None);
    for line in reports.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        match serde_json::from_slice(line) {
            Ok(Report::Started { pid }) => {
                let pid =
                    Pid::from_raw(pid).ok_or_else(|| walls("read a pid")(io::Error::other("it is 0")))?;
                process = Some(
                    pidfd_open(pid, PidfdFlags::empty()).map_err(|e| walls("hold the sandbox")(e.into()))?,
                );
            }
            Ok(Report::Failed { step }) => failure = failure.or(Some(step)),
            Err(error) => failure = failure.or(Some(format!("msb-jail reports nonsense: {error}"))),
        }
    }
    Ok((process, failure))
}

/// Kills and reaps a first process that never became an agent.
fn end(process: &OwnedFd) {
    let _ = pidfd_send_signal(process, Signal::KILL);
    if let Err(error) = waitid(WaitId::PidFd(std::os::fd::AsFd::as_fd(process)), WaitIdOptions::EXITED) {
        tracing::error!(%error, "cannot reap a sandbox that failed to start");
    }
}

/// Copies what an agent says on standard error into the log, up to a limit, and reads on so that it is never blocked.
async fn log_agent(mut stderr: ChildStderr, id: SandboxId) {
    let mut left = AGENT_LOG_BYTES_MAX;
    let mut chunk = vec![0; 4096];
    while let Ok(count @ 1..) = stderr.read(&mut chunk).await {
        let shown = count.min(left);
        left -= shown;
        for line in chunk[..shown].split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            tracing::warn!(sandbox = %id, "agent: {}", String::from_utf8_lossy(line).escape_debug());
        }
    }
}

fn secret() -> Result<String, io::Error> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)
}

pub(super) fn walls(step: &'static str) -> impl Fn(io::Error) -> StartError {
    move |source| StartError::Walls { step: step.to_owned(), source: Some(source) }
}
