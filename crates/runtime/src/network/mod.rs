// SPDX-License-Identifier: Apache-2.0
//! Whom sandboxes may reach, and who may reach them.
//!
//! ```text
//! router    a network namespace of the server's own, in which all rules live; a kill of the server takes it along
//! uplink    its way to the internet: the only thing that the host's own network sees
//! session   one sandbox: address, policy, what is open       rules, elements   nftables, as text and in process
//! dns       the only name service of sandboxes               denials           the kernel's news of refused packets
//! own       the host's own addresses
//! ports     published ports, which need none of the above    visitor           the thread inside the namespaces
//! link, netlink, nft   how the kernel is told
//! ```
//!
//! A sandbox that may reach nobody has no interface, and nothing here runs for it. What a host cannot do is reported
//! with its reason; a policy that cannot be enforced is refused, never loosened.

mod denials;
mod dns;
mod elements;
mod link;
mod netlink;
mod nft;
mod own;
mod ports;
mod router;
mod rules;
mod session;
mod uplink;
mod visitor;

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use protocol::isolation::{Protection, ProtectionName};
use protocol::network::{Network, PublishedPort};

pub(crate) use self::ports::{BoundPorts, Ports};
pub(crate) use self::router::Attached;
pub(crate) use self::router::INTERFACE;
use self::router::Router;
use self::visitor::Visitor;
use crate::backend::StartError;
use crate::spec::SandboxId;

/// What sandboxes of a server have of the network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wish {
    /// What each asks for, if this host can enforce it.
    #[default]
    Enforced,
    /// Nothing; and the host's own network stays untouched.
    Off,
}

/// How a sandbox uses the network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetworkUse {
    /// How many packets and questions for names were refused; `None` where nothing could have been sent.
    pub denied: Option<u64>,
    /// Its published ports; the host's as they are.
    pub ports: Vec<PublishedPort>,
}

/// Why there is no network for sandboxes here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub(crate) struct Unavailable {
    why: String,
    mend: String,
}

impl Unavailable {
    fn new(why: String, mend: &str) -> Unavailable {
        Unavailable { why, mend: mend.to_owned() }
    }

    fn step(step: &'static str, error: &io::Error) -> Unavailable {
        let mend = match error.kind() {
            io::ErrorKind::PermissionDenied => {
                "run the server as root, with CAP_NET_ADMIN and CAP_SYS_ADMIN, and /proc/sys writable"
            }
            _ => "see what the message says, mend that and start the server again",
        };
        Unavailable::new(format!("cannot {step}: {error}"), mend)
    }
}

/// The network of one server.
#[derive(Debug)]
pub(crate) struct Networks {
    visitor: Visitor,
    router: Result<Arc<Router>, Unavailable>,
}

impl Networks {
    /// Builds what can be built here. Blocks; needs to be called within a tokio runtime.
    ///
    /// # Errors
    /// When not even a thread can be started.
    pub(crate) fn open(key: &str, wish: Wish) -> io::Result<Networks> {
        let visitor = Visitor::start()?;
        let router = match wish {
            Wish::Enforced if !is_root() => {
                Err(Unavailable::new("only root can enforce a policy".to_owned(), "run the server as root"))
            }
            Wish::Enforced => Router::open(key, &visitor).map(Arc::new),
            Wish::Off => Err(Unavailable::new(
                "it was switched off when the server was started".to_owned(),
                "start the server without --no-network",
            )),
        };
        if let (Err(error), Wish::Enforced) = (&router, wish) {
            tracing::warn!(why = %error.why, mend = error.mend, "sandboxes have no network");
        }
        Ok(Networks { visitor, router })
    }

    /// Says whether policies are enforced here, and if not, why.
    pub(crate) fn protection(&self) -> Protection {
        let name = ProtectionName::NetworkPolicy;
        match &self.router {
            Ok(_) => Protection::on(name),
            Err(Unavailable { why, mend }) => Protection::off(name, why.clone()).mend(mend.clone()),
        }
    }

    /// Returns the address of the name service for a policy; none where it may reach nobody.
    pub(crate) fn name_server(&self, network: &Network) -> Option<std::net::Ipv4Addr> {
        (*network != Network::None).then_some(router::GATEWAY)
    }

    /// Connects a sandbox whose first process is held by this pidfd, as its policy says.
    pub(crate) async fn attach(
        &self,
        id: SandboxId,
        network: Network,
        process: Arc<OwnedFd>,
    ) -> Result<Option<Attached>, StartError> {
        let policy = match network {
            Network::None => return Ok(None),
            Network::Public => session::Policy::Public,
            Network::Allow(list) => session::Policy::Allow(list),
        };
        let router = self.router.as_ref().map_err(|error| {
            StartError::Unfit(format!("this server has no network for sandboxes: {}", error.why))
        })?;
        let attached = router.attach(id, policy, process).await;
        attached.map(Some).map_err(|source| StartError::Walls {
            step: "connect the sandbox to the network".to_owned(),
            source: Some(source),
        })
    }

    /// Takes the ports that a sandbox publishes.
    pub(crate) async fn bind(&self, ports: &[PublishedPort]) -> Result<BoundPorts, StartError> {
        if !ports.is_empty() && !is_root() {
            return Err(StartError::Unfit("only a server that runs as root can publish ports".to_owned()));
        }
        BoundPorts::bind(ports, self.visitor.clone()).await
    }

    /// Removes what is on the host.
    pub(crate) fn close(&self) {
        if let Ok(router) = &self.router {
            router.close();
        }
    }
}

/// Whether this process may enter the network of a sandbox: an ordinary user would have to be in its user namespace.
fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
