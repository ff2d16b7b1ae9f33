// SPDX-License-Identifier: Apache-2.0
//! Makes base images from Debian packages: a root file system as a tar archive, and the configuration that goes with it.
//!
//! `mmdebstrap` unpacks and configures the packages below a staging directory; apt checks every one of them against the
//! archive's signature and Debian's own keyring. Where the packages are fetched from, and through which proxy, is this
//! machine's affair and stays out of the image. The same versions of the packages give the same bytes: times are cut at
//! one moment, logs and caches are left out, compiled Python says nothing of when it was compiled.
//!
//! ```text
//! INTO/.msb-base-XXXXXX/     the staging directory, locked while its maker lives, gone with the `BaseImage`
//!   finish.sh                takes what this machine left out of the new root
//!   apt.conf                 this machine's settings of apt, for the time of the build
//!   build.sources            where packages come from, for the time of the build
//!   image.sources            where they come from inside of the image: Debian's own mirrors
//!   node/, node.tar          what goes to /usr/local, for Node
//!   status                   dpkg's list of what was installed
//!   rootfs.tar               the result
//!   layout/                  the same as an image, for the store
//! ```

mod config;
mod layout;
mod machine;
mod node;
mod progress;
mod recipe;
mod run;
mod staging;

use std::path::{Path, PathBuf};
use std::time::Duration;

use fs_err as fs;

pub(crate) use crate::base::config::BaseConfig;
pub(crate) use crate::base::progress::Progress;
pub(crate) use crate::base::recipe::{EPOCH, Kind, Mirror, Suite};

use crate::base::machine::Machine;
use crate::base::recipe::Recipe;
use crate::base::run::Runner;
use crate::base::staging::Staging;

/// What image to make.
#[derive(Debug)]
pub(crate) struct Request {
    /// Its language.
    pub(crate) kind: Kind,
    /// Debian's release.
    pub(crate) suite: Suite,
    /// Where packages come from; else from where this machine has its own.
    pub(crate) mirror: Option<Mirror>,
    /// Where security updates come from.
    pub(crate) security_mirror: Option<Mirror>,
    /// The moment at which times in the image are cut, and at which it is made: seconds since 1970.
    pub(crate) epoch: u32,
}

/// A root file system and how to use it. The archive goes with this value.
#[derive(Debug)]
pub(crate) struct BaseImage {
    /// The root file system, an uncompressed archive.
    pub(crate) tar: PathBuf,
    /// The configuration of the image.
    pub(crate) config: BaseConfig,
    _staging: Staging,
}

/// Why there is no image.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BaseError {
    /// A program is not installed.
    #[error("{program} is not installed")]
    Missing {
        /// The program or file.
        program: &'static str,
        /// The package of Debian that has it.
        package: &'static str,
    },
    /// A program said that it failed.
    #[error("{program} failed ({status}); it said last:{said}")]
    Failed {
        /// The program.
        program: &'static str,
        /// How it ended.
        status: String,
        /// The end of what it wrote, each line after a line break.
        said: String,
    },
    /// Somebody asked to end.
    #[error("the build was interrupted; nothing of it is left")]
    Interrupted,
    /// It took too long.
    #[error("{program} did not end within {} minutes", .wait.as_secs() / 60)]
    TooSlow {
        /// The program.
        program: &'static str,
        /// How long the whole build may take.
        wait: Duration,
    },
    /// A program wrote something else than it should.
    #[error("cannot understand what {program} wrote: {what}")]
    Answer {
        /// The program.
        program: &'static str,
        /// What is wrong with it.
        what: String,
    },
    /// There is no Node for this kind of machine.
    #[error("there is no Node for a machine of the kind {0}")]
    Machine(&'static str),
    /// The system refused something.
    #[error("cannot {act}")]
    Io {
        /// What was tried.
        act: &'static str,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
}

impl BaseError {
    /// Says what was tried when the system refused.
    fn io(act: &'static str) -> impl FnOnce(std::io::Error) -> BaseError {
        move |source| BaseError::Io { act, source }
    }
}

/// Makes an image, with everything that is needed for it below a new directory in `into`.
///
/// SIGINT, SIGTERM and SIGHUP end it with [`BaseError::Interrupted`]. Call it on the main thread, outside of any runtime:
/// what it starts dies with the thread that started it.
pub(crate) fn build(
    request: &Request,
    into: &Path,
    tell: &mut dyn FnMut(Progress),
) -> Result<BaseImage, BaseError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(BaseError::io("start the runtime"))?;
    runtime.block_on(async {
        // Before anything is made, so that a signal never leaves it behind.
        let mut runner = Runner::new()?;
        runner.need("mmdebstrap", "mmdebstrap")?;
        machine::need_keyring()?;
        let staging = Staging::make(into)?;
        build_in(staging, &mut runner, request, tell).await
    })
}

async fn build_in(
    staging: Staging,
    runner: &mut Runner,
    request: &Request,
    tell: &mut dyn FnMut(Progress),
) -> Result<BaseImage, BaseError> {
    tell(Progress::PREPARING);
    let machine = Machine::read(runner, request).await?;
    let recipe = Recipe::new(request, staging.path());
    let write = |path: PathBuf, text: &str| fs::write(path, text).map_err(BaseError::io("write a recipe"));
    write(recipe.apt_conf(), &machine.apt_conf)?;
    write(recipe.finish(), include_str!("base/finish.sh"))?;
    write(recipe.build_sources(), &machine.sources.deb822())?;
    write(recipe.image_sources(), &recipe::official(&request.suite).deb822())?;
    if request.kind == Kind::Node {
        tell(Progress::NODE);
        node::fetch(runner, &recipe).await?;
    }
    let arguments = recipe.arguments(rustix::process::geteuid().is_root());
    let environment = recipe.environment();
    runner
        .mmdebstrap(&arguments, &environment, &mut |line| progress::of(line).into_iter().for_each(&mut *tell))
        .await?;
    let status = fs::read_to_string(recipe.status()).map_err(BaseError::io("read the list of packages"))?;
    let config = config::of(request, &machine.sources, &recipe, &status)?;
    tell(Progress::DONE);
    Ok(BaseImage { tar: recipe.tar(), config, _staging: staging })
}
