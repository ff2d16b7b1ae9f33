// SPDX-License-Identifier: Apache-2.0
//! The network namespace between sandboxes and the host.
//!
//! Each sandbox has a pair of interfaces of its own into it and an address of its own; no two share a wire. The rules
//! tell them apart by the interface's group, so that a start changes no rule.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use protocol::limits::{PIN_GRACE, SANDBOXES_MAX};
use tokio::task::AbortHandle;

use super::elements::Element;
use super::link::{self, End};
use super::netlink::{Part, Socket};
use super::session::{Policy, Ports, Session};
use super::uplink::Uplink;
use super::visitor::{Place, Visitor};
use super::{Unavailable, denials, dns, elements, nft, own, rules};
use crate::spec::SandboxId;

/// The router as sandboxes see it: their gateway and their name server.
pub(super) const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
/// A sandbox's interface, as it sees it.
pub(crate) const INTERFACE: &str = "eth0";
/// The first address of sandboxes. All of this is known inside the router's namespace alone.
const FIRST_ADDRESS: u32 = GATEWAY.to_bits() + 1;
/// How many addresses there are: so many more than sandboxes that one is not used again for long.
const ADDRESSES: u32 = (1 << 16) - 16;
/// The number of a sandbox's interface, in the sandbox; some kernels make interfaces with small numbers themselves.
const INSIDE_INDEX: u32 = 1000;
/// The first number of a sandbox's interface in the router.
const FIRST_INDEX: u32 = 1000;
/// Switches of the router's namespace: value, and names below `/proc/sys/net`.
const SWITCHES: [(&str, &[&str]); 3] = [
    ("1", &["ipv4/ip_forward", "ipv4/conf/all/rp_filter", "ipv4/conf/default/rp_filter"]),
    (
        "0",
        &[
            "ipv4/conf/all/accept_redirects",
            "ipv4/conf/default/accept_redirects",
            "ipv4/conf/all/send_redirects",
            "ipv4/conf/default/send_redirects",
            "ipv4/conf/all/accept_source_route",
            "ipv4/conf/default/accept_source_route",
        ],
    ),
    // There is no way to IPv6: nothing of it is passed on or answered.
    ("1", &["ipv6/conf/all/disable_ipv6", "ipv6/conf/default/disable_ipv6"]),
];

/// The router of one server.
#[derive(Debug)]
pub(crate) struct Router {
    visitor: Visitor,
    namespace: Arc<OwnedFd>,
    uplink: Uplink,
    shared: Arc<Shared>,
    next_index: AtomicU32,
    tasks: Vec<AbortHandle>,
    closed: AtomicBool,
}

/// What the router's tasks work with.
#[derive(Debug)]
pub(super) struct Shared {
    sessions: Mutex<Sessions>,
    routes: Mutex<Socket>,
    rules: Mutex<Socket>,
}

#[derive(Debug, Default)]
struct Sessions {
    by_address: HashMap<Ipv4Addr, Arc<Session>>,
    next: u32,
}

/// A sandbox's place on the network; dropping it gives it up.
#[derive(Debug)]
pub(crate) struct Attached {
    session: Arc<Session>,
    shared: Arc<Shared>,
}

impl Router {
    /// Builds it. Blocks; needs to be called within a tokio runtime.
    pub(super) fn open(key: &str, visitor: &Visitor) -> Result<Router, Unavailable> {
        let at = |step: &'static str| move |error: io::Error| Unavailable::step(step, &error);
        if !nft::is_there() {
            let why = "the program nft, which writes the rules, is not installed".to_owned();
            return Err(Unavailable::new(why, "install the package nftables, then start the server again"));
        }
        let namespace = visitor.make_namespace().map_err(at("make a network namespace"))?;
        let inside = || Place::Namespace(Arc::clone(&namespace));
        visitor.visit_blocking(inside(), prepare).map_err(at("prepare the router's network namespace"))?;
        let sockets =
            visitor.visit_blocking(inside(), Sockets::open).map_err(at("open the router's sockets"))?;
        let Sockets { routes, rules, log, questions, connections } = sockets;
        // The last step: from here on, all is in its place, and sandboxes could be connected.
        let uplink = Uplink::open(key, visitor, &namespace)?;
        let shared = Arc::new(Shared {
            sessions: Mutex::default(),
            routes: Mutex::new(routes),
            rules: Mutex::new(rules),
        });
        let tasks = denials::watch(log, &shared)
            .and_then(|denials| {
                let names = dns::serve(questions, connections, &shared)?;
                Ok([denials, own::watch(&shared)?].into_iter().chain(names).collect())
            })
            .map_err(|error| {
                uplink.close();
                Unavailable::step("serve the router's sockets", &error)
            })?;
        let visitor = visitor.clone();
        Ok(Router {
            visitor,
            namespace,
            uplink,
            shared,
            next_index: AtomicU32::new(FIRST_INDEX),
            tasks,
            closed: AtomicBool::new(false),
        })
    }

    /// Connects a sandbox, by the first process in it.
    pub(super) async fn attach(
        &self,
        id: SandboxId,
        policy: Policy,
        process: Arc<OwnedFd>,
    ) -> io::Result<Attached> {
        let group = match policy {
            Policy::Public => rules::GROUP_PUBLIC,
            Policy::Allow(_) => rules::GROUP_ALLOW,
        };
        let session = self.shared.admit(id, policy)?;
        // From here on, giving up takes back what was done.
        let attached = Attached { session: Arc::clone(&session), shared: Arc::clone(&self.shared) };
        let index = self.next_index.fetch_add(1, Ordering::Relaxed);
        let (address, namespace) = (session.address, Arc::clone(&self.namespace));
        let shared = Arc::clone(&self.shared);
        let build = move || {
            build_inside(address, index, group, &namespace)?;
            // These sockets are the router's, wherever this thread is.
            shared.change(&session.policy.elements(address), &[])?;
            let mut routes = lock(&shared.routes);
            link::bring_up(&mut routes, index)?;
            link::add_route(&mut routes, index, address)
        };
        self.visitor.visit(Place::Process(process), build).await?;
        Ok(attached)
    }

    /// Removes what is on the host. Does nothing more when called again.
    pub(super) fn close(&self) {
        if !self.closed.swap(true, Ordering::AcqRel) {
            self.tasks.iter().for_each(AbortHandle::abort);
            self.uplink.close();
        }
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        self.close();
    }
}

impl Shared {
    /// Gives a sandbox an address that nobody has, and that nobody had for long.
    fn admit(&self, id: SandboxId, policy: Policy) -> io::Result<Arc<Session>> {
        let mut sessions = self.sessions();
        if sessions.by_address.len() >= SANDBOXES_MAX {
            return Err(io::Error::new(io::ErrorKind::QuotaExceeded, "all addresses are in use"));
        }
        loop {
            let address = Ipv4Addr::from_bits(FIRST_ADDRESS + sessions.next);
            sessions.next = (sessions.next + 1) % ADDRESSES;
            if let Entry::Vacant(place) = sessions.by_address.entry(address) {
                let session = Arc::new(Session::new(id, address, policy));
                return Ok(Arc::clone(place.insert(session)));
            }
        }
    }

    /// Finds the sandbox behind an address; the rules see to it that nobody uses another's.
    pub(super) fn session(&self, address: Ipv4Addr) -> Option<Arc<Session>> {
        self.sessions().by_address.get(&address).cloned()
    }

    /// Opens the addresses of an answer for a sandbox; `false` when it has too many open. Blocks.
    pub(super) fn pin(
        &self,
        session: &Session,
        addresses: &[Ipv4Addr],
        ports: &Ports,
        life: std::time::Duration,
    ) -> io::Result<bool> {
        let wanted = session.pins_for(addresses, ports);
        let mut pins = session.pins();
        let Some(missing) = pins.missing(&wanted, life) else { return Ok(false) };
        if !missing.is_empty() {
            let life = life + PIN_GRACE;
            elements::add(&mut lock(&self.rules), &missing, Some(life))?;
            pins.note(missing, life);
        }
        Ok(true)
    }

    /// Adds and removes elements. Blocks.
    pub(super) fn change(&self, new: &[Element], gone: &[Element]) -> io::Result<()> {
        let mut rules = lock(&self.rules);
        if !new.is_empty() {
            elements::add(&mut rules, new, None)?;
        }
        if gone.is_empty() { Ok(()) } else { elements::remove(&mut rules, gone) }
    }

    fn sessions(&self) -> MutexGuard<'_, Sessions> {
        lock(&self.sessions)
    }
}

impl Attached {
    /// Counts what was refused to the sandbox. Blocks shortly.
    pub(crate) fn refused(&self) -> io::Result<u64> {
        let packets =
            elements::refused_packets(&mut lock(&self.shared.rules), self.session.address.octets())?;
        Ok(packets + self.session.refused_names())
    }
}

impl Drop for Attached {
    /// The interfaces go with the sandbox's network namespace; its address is free once nothing is open for it.
    fn drop(&mut self) {
        let mut open = self.session.pins().close();
        open.extend(self.session.policy.elements(self.session.address));
        let counter = Element { set: rules::DENIED, key: self.session.address.octets().to_vec(), last: None };
        open.push(counter);
        match self.shared.change(&[], &open) {
            Ok(()) => drop(self.shared.sessions().by_address.remove(&self.session.address)),
            // The address stays taken: nobody else must have what is open for it.
            Err(error) => {
                tracing::error!(sandbox = %self.session.id, %error, "cannot close what was open for a sandbox");
            }
        }
    }
}

/// What is opened inside the router's namespace.
struct Sockets {
    routes: Socket,
    rules: Socket,
    log: Socket,
    questions: UdpSocket,
    connections: TcpListener,
}

impl Sockets {
    fn open() -> io::Result<Sockets> {
        Ok(Sockets {
            routes: Socket::open(Part::Routes)?,
            rules: Socket::open(Part::Rules)?,
            log: denials::listen()?,
            questions: UdpSocket::bind((GATEWAY, 53))?,
            connections: TcpListener::bind((GATEWAY, 53))?,
        })
    }
}

/// Prepares the router's namespace, in it: closed, before anything leads to it.
fn prepare() -> io::Result<()> {
    nft::carry_out(&rules::router(GATEWAY))?;
    for (value, names) in SWITCHES {
        for name in names {
            switch(name, value)?;
        }
    }
    let mut socket = Socket::open(Part::Routes)?;
    link::bring_up(&mut socket, link::LOOPBACK)?;
    link::add_address(&mut socket, link::LOOPBACK, GATEWAY, GATEWAY)
}

/// Builds a sandbox's pair of interfaces, in the sandbox's namespace.
fn build_inside(address: Ipv4Addr, index: u32, group: u32, router: &OwnedFd) -> io::Result<()> {
    // Its own interface gets no IPv6 at all; the loopback interface is there already and keeps it.
    switch("ipv6/conf/default/disable_ipv6", "1")?;
    let mut socket = Socket::open(Part::Routes)?;
    let inside = End { name: INTERFACE, index: INSIDE_INDEX, group: 0 };
    let outside = End { name: &format!("sb{index}"), index, group };
    let [_, b, c, d] = address.octets();
    link::make_pair(&mut socket, inside, outside, router.as_fd(), [0x02, 0x6d, 0x73, b, c, d])?;
    link::bring_up(&mut socket, INSIDE_INDEX)?;
    link::add_address(&mut socket, INSIDE_INDEX, address, address)?;
    link::add_default_route(&mut socket, INSIDE_INDEX, GATEWAY)
}

/// Sets a switch of this thread's network namespace; one that this kernel does not have needs no setting.
fn switch(name: &str, value: &str) -> io::Result<()> {
    match fs_err::write(format!("/proc/sys/net/{name}"), value) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && name.starts_with("ipv6") => Ok(()),
        other => other,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
