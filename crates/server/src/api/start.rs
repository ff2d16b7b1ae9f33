// SPDX-License-Identifier: Apache-2.0
//! `sandbox.start`

use std::sync::Arc;
use std::time::Duration;

use image::pull::{PullError, PullPolicy};
use image::registry::RegistryError;
use image::{Found, ImageError, ImageName, ResolveError, Source};
use protocol::agent::Language;
use protocol::calls::{Config, ImageSource, Pull, Start, Target};
use protocol::errors::{ApiError, ErrorCode};
use protocol::isolation::Protection;
use protocol::limits::{
    DISK_MIB_DEFAULT, DISK_MIB_MAX, DISK_MIB_MIN, IO_WEIGHT_DEFAULT, MEMORY_MIB_DEFAULT, MEMORY_MIB_MIN,
    OPEN_FILES_DEFAULT, PIDS_DEFAULT, SHM_MIB_DEFAULT, START_WAIT,
};
use protocol::network::Network;
use runtime::volume::find_volumes;
use runtime::{Rootfs, RootfsMount};

use crate::app::App;
use crate::host::Host;
use crate::sandbox::{Ending, Failure, Leased, StartRefused, Started, Wanted};

pub(crate) async fn start(app: &App, start: Start) -> Result<String, ApiError> {
    let Start { target, config, timeout_ms } = start;
    let deadline = timeout_ms.map_or(START_WAIT, Duration::from_millis);
    let (cpu_millis, clamped) = cpus(&config, app.host());
    let starting = async {
        let wanted = wanted(app, &target, config, cpu_millis).await?;
        let started = app.registry().start(&target, wanted.as_ref()).await;
        let started = started.map_err(|refused| refused_start(&target, refused))?;
        Ok((started, wanted.map(|wanted| wanted.from.clone())))
    };
    match tokio::time::timeout(deadline, starting).await {
        Ok(Ok((started, from))) => {
            let mut text = describe(&target, &started, from, clamped);
            text.push_str(&published(app, &target));
            Ok(text)
        }
        Ok(Err(error)) => Err(error),
        Err(_) => Err(too_late(&target, deadline)),
    }
}

/// Checks a configuration against the machine and finds its image; `None` when the client named none.
async fn wanted(
    app: &App,
    target: &Target,
    config: Config,
    cpu_millis: u32,
) -> Result<Option<Arc<Wanted>>, ApiError> {
    let memory_mib = memory(&config, app.host())?;
    let shm_mib = shm(&config, memory_mib)?;
    let disk_mib = disk(&config, app.registry().disk_mib_max())?;
    let volumes = find_volumes(app.allowed_volumes(), &config.volumes)
        .map_err(|error| bad(format!("Invalid 'config.volumes' parameter: {error}")))?;
    let network = network(config.network, app.registry().network())?;
    let Some(name) = config.image else {
        return Ok(None);
    };
    let image = ImageName::parse(&name).map_err(|error| {
        bad(format!("Invalid 'config.image' parameter for sandbox '{}': {error}", target.sandbox))
    })?;
    let Found { rootfs, settings, from, lease } =
        app.images().find(&image, policy(config.pull)).await.map_err(|error| no_image(&error, &name))?;
    let mount = |mount: image::RootfsMount| RootfsMount { at: mount.at, lowers: mount.lowers };
    let mut envs = settings.envs;
    envs.extend(config.envs);
    let wanted = Wanted {
        rootfs: Rootfs { mounts: rootfs.mounts.into_iter().map(mount).collect() },
        prestart: language(&image),
        image: image.to_string(),
        from: describe_source(&from),
        image_source: source_word(&from),
        image_reference: source_reference(&from),
        lease: Leased(lease.map(Arc::new)),
        memory_mib,
        cpu_millis,
        pids_max: config.pids.unwrap_or(PIDS_DEFAULT),
        open_files_max: config.open_files.unwrap_or(OPEN_FILES_DEFAULT),
        io_weight: config.io_weight.unwrap_or(IO_WEIGHT_DEFAULT),
        shm_mib,
        disk_mib,
        volumes,
        envs,
        workdir: config.workdir.or(settings.workdir).or_else(|| workdir_of(&from)),
        user: settings.user,
        network,
        ports: config.ports,
    };
    Ok(Some(Arc::new(wanted)))
}

/// Returns the policy: what was asked for if this server can enforce it, and if nothing was, the widest that it can.
fn network(asked: Option<Network>, enforced: Protection) -> Result<Network, ApiError> {
    match (asked, enforced.on) {
        (Some(network), true) => Ok(network),
        (None, true) => Ok(Network::Public),
        (None | Some(Network::None), false) => Ok(Network::None),
        (Some(Network::Public | Network::Allow(_)), false) => {
            let why = enforced.why.unwrap_or_else(|| "it is not known why".to_owned());
            let text = format!(
                "Invalid 'config.network' parameter: this server cannot enforce a policy about the network, so that \
                 sandboxes have none: {why}"
            );
            let mend = enforced.mend.map(|mend| format!("; or, on the server's machine: {mend}"));
            Err(bad(text).remedy(format!("leave 'network' out, or say \"none\"{}", mend.unwrap_or_default())))
        }
    }
}

fn memory(config: &Config, host: Host) -> Result<u32, ApiError> {
    let memory_mib = config.memory.unwrap_or(MEMORY_MIB_DEFAULT.min(host.memory_mib));
    if !(MEMORY_MIB_MIN..=host.memory_mib).contains(&memory_mib) {
        return Err(bad(format!(
            "Invalid 'config.memory' parameter: it must be from {MEMORY_MIB_MIN} to {} MiB on this machine, not {memory_mib}",
            host.memory_mib
        )));
    }
    Ok(memory_mib)
}

/// What is in `/dev/shm` is memory, so a larger one than that could not be filled.
fn shm(config: &Config, memory_mib: u32) -> Result<u32, ApiError> {
    let shm_mib = config.shm.unwrap_or(SHM_MIB_DEFAULT.min(memory_mib));
    if shm_mib > memory_mib {
        return Err(bad(format!(
            "Invalid 'config.shm' parameter: it must be at most the sandbox's memory of {memory_mib} MiB, not {shm_mib}"
        )));
    }
    Ok(shm_mib)
}

/// Returns what a sandbox may write, in MiB.
fn disk(config: &Config, most: Option<u32>) -> Result<u32, ApiError> {
    let most = most.unwrap_or(DISK_MIB_MAX);
    let disk_mib = config.disk.unwrap_or(DISK_MIB_DEFAULT.min(most));
    if !(DISK_MIB_MIN..=most).contains(&disk_mib) {
        return Err(bad(format!(
            "Invalid 'config.disk' parameter: it must be from {DISK_MIB_MIN} to {most} MiB on this machine, not {disk_mib}"
        )));
    }
    Ok(disk_mib)
}

/// Returns the processors to give, and whether that is less than was asked for.
fn cpus(config: &Config, host: Host) -> (u32, Option<Host>) {
    let wanted = config.wanted_cpu_millis().unwrap_or(1000);
    let most = host.cpus.saturating_mul(1000);
    if wanted > most { (most, Some(host)) } else { (wanted, None) }
}

/// Returns the language whose kernel is started ahead.
fn language(image: &ImageName) -> Option<Language> {
    match image {
        ImageName::Python => Some(Language::Python),
        ImageName::Node => Some(Language::Node),
        ImageName::Directory(_) | ImageName::Other(_) => None,
    }
}

/// Without a word of it, an image's programs start in `/`; what is no image has a home.
fn workdir_of(from: &Source) -> Option<String> {
    match from {
        Source::Store(_) | Source::Registry(_) => Some("/".to_owned()),
        Source::Host | Source::Directory => None,
    }
}

/// What helps when a registry does not give an image.
const GET_IMAGE: &str = "name one that the registry has, such as microsandbox/python; on the server's machine, msb pull \
     and msb image load bring one into the store, and --allow-rootfs DIR allows a directory";

pub(super) fn policy(pull: Option<Pull>) -> PullPolicy {
    match pull {
        Some(Pull::Always) => PullPolicy::Always,
        Some(Pull::Never) => PullPolicy::Never,
        Some(Pull::IfMissing) | None => PullPolicy::IfMissing,
    }
}

/// Says where an image was found.
fn describe_source(from: &Source) -> String {
    match from {
        Source::Store(stored) => format!("{} of the image store", stored.reference),
        Source::Registry(stored) => format!("{}, pulled from the registry", stored.reference),
        Source::Directory => "a directory of this machine".to_owned(),
        Source::Host => "this machine's own programs".to_owned(),
    }
}

fn source_word(from: &Source) -> ImageSource {
    match from {
        Source::Store(_) => ImageSource::Store,
        Source::Registry(_) => ImageSource::Registry,
        Source::Host => ImageSource::Host,
        Source::Directory => ImageSource::Directory,
    }
}

fn source_reference(from: &Source) -> Option<String> {
    match from {
        Source::Store(stored) | Source::Registry(stored) => {
            Some(format!("{}@{}", stored.reference, stored.digest))
        }
        Source::Host | Source::Directory => None,
    }
}

pub(super) fn no_image(error: &ImageError, name: &str) -> ApiError {
    let name = super::quoted(name);
    let not_found = |why: &dyn std::fmt::Display| {
        ApiError::new(ErrorCode::NotFound, format!("Image not found: '{name}': {why}"))
    };
    let failed = |why: &dyn std::fmt::Display| {
        ApiError::new(ErrorCode::Failed, format!("Image '{name}' cannot be used: {why}"))
    };
    match error {
        ImageError::Own(own) => {
            let remedy = own.remedy();
            match own {
                ResolveError::Unknown(_) | ResolveError::HostNotAllowed(_) | ResolveError::Directory(_) => {
                    not_found(&format!("{own}; {remedy}"))
                }
                ResolveError::Host(cause) => failed(own).detail(cause.to_string()),
            }
            .remedy(remedy)
        }
        ImageError::Reference(wrong) => {
            ApiError::new(ErrorCode::BadParameters, format!("Invalid 'config.image' parameter: {wrong}"))
        }
        ImageError::Settings(_) => failed(error),
        ImageError::Pull(pull) => match &**pull {
            PullError::NotThere(_) => {
                not_found(pull).remedy("let it be pulled, or run msb pull on the server's machine")
            }
            PullError::Registry(
                registry @ (RegistryError::NotFound { .. }
                | RegistryError::Denied { .. }
                | RegistryError::Unreachable { .. }),
            ) => {
                // In the text too, for clients that show nothing else.
                let text = format!("it is not in the image store, and {registry}; {GET_IMAGE}");
                not_found(&text).remedy(GET_IMAGE)
            }
            PullError::Registry(RegistryError::Sink { .. }) | PullError::Store(_) | PullError::Lost => {
                failed(&"it could not be stored").detail(chain(pull.as_ref())).remedy(super::LOOK_INTO_LOG)
            }
            PullError::TooMany => {
                ApiError::new(ErrorCode::NoCapacity, format!("Image '{name}' is not pulled now: {pull}"))
                    .remedy("try again later")
            }
            PullError::Registry(near @ RegistryError::Near { .. }) => {
                let text = format!("Image '{name}' is not pulled: {near}");
                bad(text).remedy("name an image of a registry on the internet, or ask the server's operator")
            }
            PullError::Platform { .. } => not_found(pull).remedy(GET_IMAGE),
            PullError::Registry(registry) => failed(registry),
            PullError::Layer(_) | PullError::Unpack(_) => failed(&chain(pull.as_ref())),
        },
        ImageError::Store(_) | ImageError::Lost => {
            failed(&"it could not be read").detail(chain(error)).remedy(super::LOOK_INTO_LOG)
        }
    }
}

/// Writes an error and all its causes in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<String>>().join(": ")
}

/// Says what became of a start. Published clients look for the words of the first sentence.
fn describe(target: &Target, started: &Started, from: Option<String>, clamped: Option<Host>) -> String {
    let mut text = format!("Sandbox {} started successfully", target.sandbox);
    if let Some(from) = from.filter(|_| !started.by_another) {
        text.push_str(&format!(" (image: {from})"));
    }
    if started.by_another && started.differs.is_empty() {
        text.push_str(" (it was running already)");
    } else if started.by_another {
        let parts = started.differs.join(", ");
        text.push_str(" (it was running already, with other values than asked for: ");
        text.push_str(&format!("{parts}; stop it first to change them)"));
    }
    if let Some(host) = clamped.filter(|_| !started.by_another) {
        text.push_str(&format!(
            " (warning: cpus was lowered to what this machine has: {})",
            super::plural(u64::from(host.cpus), "processor")
        ));
    }
    text
}

/// Says where published ports are.
fn published(app: &App, target: &Target) -> String {
    let ports = app.registry().running(target).map(|running| running.live().ports()).unwrap_or_default();
    if ports.is_empty() {
        String::new()
    } else {
        format!(" (ports on 127.0.0.1, host:sandbox: {})", ports.join(", "))
    }
}

fn refused_start(target: &Target, refused: StartRefused) -> ApiError {
    let name = &target.sandbox;
    match refused {
        StartRefused::NothingWanted => {
            let text =
                format!("No configuration provided and no existing configuration found for sandbox '{name}'");
            bad(text).remedy("name an image in 'config.image', such as microsandbox/python")
        }
        StartRefused::Full => {
            let text =
                format!("No capacity for sandbox '{name}': as many sandboxes run as this server allows");
            ApiError::new(ErrorCode::NoCapacity, text).remedy("stop a sandbox, or try again later")
        }
        StartRefused::Failed(Failure::NoCapacity(why)) => {
            let text = format!("No capacity for sandbox '{name}': {why}");
            ApiError::new(ErrorCode::NoCapacity, text).remedy("stop a sandbox, or try again later")
        }
        StartRefused::Failed(Failure::TooWeak(lacking)) => {
            let text = format!("Sandbox '{name}' could not be started: {lacking}");
            ApiError::new(ErrorCode::Failed, text).remedy(
                "on the server's machine, msb doctor says what mends it; a lower --min-isolation would let it start",
            )
        }
        StartRefused::Failed(Failure::Broken { what, detail }) => {
            let text = format!("Sandbox '{name}' could not be started: {what}");
            ApiError::new(ErrorCode::Failed, text).detail(detail).remedy(super::LOOK_INTO_LOG)
        }
        StartRefused::Closing => ApiError::new(
            ErrorCode::Failed,
            format!("Sandbox '{name}' was not started: the server is ending"),
        ),
        StartRefused::Ended(ending @ (Ending::Stopped | Ending::NotWholly { .. })) => {
            let text = format!("Sandbox '{name}' {} while it was starting", ending.describe());
            ApiError::new(ErrorCode::NotRunning, text)
        }
        StartRefused::Ended(ending @ (Ending::Died { .. } | Ending::NotStarted(_) | Ending::Abandoned)) => {
            ApiError::new(ErrorCode::Failed, format!("Sandbox '{name}' {}", ending.describe()))
        }
    }
}

fn too_late(target: &Target, deadline: Duration) -> ApiError {
    let name = &target.sandbox;
    let text =
        format!("Sandbox '{name}' was not up within {} ms; nothing of it is kept", deadline.as_millis());
    ApiError::new(ErrorCode::StartDeadline, text).remedy("give the start a longer timeout")
}

fn bad(text: impl Into<String>) -> ApiError {
    ApiError::new(ErrorCode::BadParameters, text)
}
