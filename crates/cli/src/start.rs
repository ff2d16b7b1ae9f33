// SPDX-License-Identifier: Apache-2.0
//! `msb server start`.

use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use server::{Access, DiskStore, KeyState, Keys, Server, Settings, Wish};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::EnvFilter;

use crate::args::StartArgs;
use crate::failure::Failure;
use crate::{failure, programs};

/// Runs a server until it is told to end.
pub(crate) fn run(arguments: StartArgs) -> Result<(), Failure> {
    let address = SocketAddr::new(arguments.host, arguments.port);
    if arguments.dev && !arguments.dev_on_network {
        refuse_network(&arguments, address)?;
    }
    log_to_standard_error();
    let home = failure::home(arguments.home)?;
    let defaults_from_registry = arguments.registries.default.is_named();
    let registries = arguments.registries.config(&home)?;
    let settings = Settings {
        access: if arguments.dev { Access::Open } else { keys(&home)? },
        allowed_hosts: arguments.allowed_host,
        home,
        programs: programs::find()?,
        allow_host_image: arguments.allow_host_image || arguments.dev,
        allowed_rootfs: arguments.allow_rootfs,
        allowed_volumes: arguments.allow_volume,
        disk: DiskStore { kind: arguments.disk_store.into(), size_mib: arguments.disk_store_size },
        defaults_from_registry,
        network: if arguments.no_network { Wish::Off } else { Wish::Enforced },
        registries,
        min_isolation: arguments.min_isolation,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(Failure::system("start the runtime"))?;
    runtime.block_on(serve(settings, address))
}

/// A server without keys is for this machine alone, unless its operator plainly says otherwise.
fn refuse_network(arguments: &StartArgs, address: SocketAddr) -> Result<(), Failure> {
    if !arguments.host.is_loopback() {
        return Err(Failure::DevOnNetwork(address.to_string()));
    }
    match arguments.allowed_host.first() {
        Some(name) => Err(Failure::DevOnNetwork(name.to_string())),
        None => Ok(()),
    }
}

/// Opens the keys, and says how to get one while nobody has any.
fn keys(home: &Path) -> Result<Access, Failure> {
    let keys = Keys::open(home).map_err(Failure::Keys)?;
    let known = keys.list().map_err(Failure::Keys)?;
    if !known.iter().any(|key| key.state() == KeyState::Active) {
        tracing::warn!(
            "no key exists that works, so every call is refused until one is made: msb server keygen (with the same \
             --home, if the server has one)"
        );
    }
    Ok(Access::Keys(Arc::new(keys)))
}

async fn serve(settings: Settings, address: SocketAddr) -> Result<(), Failure> {
    // Before anything is made, so that a signal never leaves it behind.
    let shutdown = Shutdown::listen()?;
    let listener = TcpListener::bind(address).await.map_err(|source| Failure::Listen { address, source })?;
    let bound = listener.local_addr().map_err(Failure::system("read the address"))?;
    let server = tokio::task::block_in_place(|| Server::open(settings))?;
    say_ready(bound)?;
    server.serve(listener, shutdown.first()).await;
    tracing::info!("ended: nothing is left");
    Ok(())
}

/// The one line on standard output.
fn say_ready(bound: SocketAddr) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "microsandbox is listening on http://{bound}")
        .and_then(|()| out.flush())
        .map_err(Failure::system("write to standard output"))
}

/// SIGINT and SIGTERM.
struct Shutdown {
    interrupt: Signal,
    terminate: Signal,
}

impl Shutdown {
    fn listen() -> Result<Shutdown, Failure> {
        let on = |kind| signal(kind).map_err(Failure::system("listen for signals"));
        Ok(Shutdown { interrupt: on(SignalKind::interrupt())?, terminate: on(SignalKind::terminate())? })
    }

    /// Waits for the first signal; from then on the second one ends the program at once, as it would without us.
    async fn first(mut self) {
        self.next().await;
        tracing::info!("ending; a second signal ends at once, and leaves the sandboxes to the next server");
        tokio::spawn(async move {
            self.next().await;
            end_at_once();
        });
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "whoever sends a second signal wants no more waiting")]
fn end_at_once() {
    std::process::exit(130);
}

fn log_to_standard_error() {
    let filter = EnvFilter::try_from_env("MSB_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    // The library that speaks MCP writes three lines for each request, and whole messages, code and output included, when
    // asked for more. What it refuses it says in an answer, and what is wrong with it is in our own lines.
    let filter = filter.add_directive("rmcp=off".parse().expect("a directive that is written right here"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .with_target(false)
        .init();
}
