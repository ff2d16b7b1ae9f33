// SPDX-License-Identifier: Apache-2.0
//! The way from the router to the internet: one pair of interfaces and one table on the host.
//!
//! This is all of a server that the host's own network sees. A user-mode stack can stand in its place: whatever gives the
//! router an interface called [`UPLINK`] with a default route.

use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::thread;

use protocol::limits::{FORWARD_PROBE_WAIT, FORWARD_PROBES_MAX};
use rustix::fs::{FlockOperation, Mode, OFlags, flock, open};

use super::link::{self, End};
use super::netlink::{Part, Socket};
use super::rules::{self, GUARD_TABLE, PROBE_COUNTER, PROBE_PORT, UPLINK};
use super::visitor::{Place, Visitor};
use super::{Unavailable, nft};

/// Held while one server changes what servers share on a host.
const LOCK: &str = "/run/microsandbox.network";
/// Whether the host passes packets on.
const FORWARDING: &str = "/proc/sys/net/ipv4/ip_forward";
/// Where the probe of the host's firewall is addressed to; the host's table drops it before it leaves.
const PROBE_TO: Ipv4Addr = Ipv4Addr::new(1, 1, 1, 1);
/// Both ends of the uplink.
const HARDWARE: [u8; 6] = [0x02, 0x6d, 0x73, 0x62, 0x00, 0x01];
/// The first pair of addresses that an uplink can have; the others follow.
const FIRST_PAIR: Ipv4Addr = Ipv4Addr::new(10, 213, 0, 0);
/// How many pairs there are.
const PAIRS: u32 = 1 << 15;

/// The uplink of one server.
#[derive(Debug)]
pub(super) struct Uplink {
    interface: String,
    table: String,
}

impl Uplink {
    /// Builds it, after clearing up what a killed server of the same name left, and tries it.
    pub(super) fn open(key: &str, visitor: &Visitor, router: &Arc<OwnedFd>) -> Result<Uplink, Unavailable> {
        let uplink = Uplink { interface: format!("msb{key}"), table: format!("msb_{key}") };
        let built = uplink.build(key, visitor, router);
        if built.is_err() {
            uplink.close();
        }
        built.map(|()| uplink)
    }

    fn build(&self, key: &str, visitor: &Visitor, router: &Arc<OwnedFd>) -> Result<(), Unavailable> {
        let at = |step: &'static str| move |error: io::Error| Unavailable::step(step, &error);
        let _lock = lock().map_err(at("lock the network's changes"))?;
        let mut socket = Socket::open(Part::Routes).map_err(at("reach the kernel's networks"))?;
        link::remove(&mut socket, &self.interface).map_err(at("remove an earlier server's interface"))?;
        let (host, ours) = free_pair(key).map_err(at("find free addresses"))?;
        // The rules are there before the interface that they hold for.
        nft::carry_out(&rules::host(&self.table, &self.interface, ours)).map_err(|error| {
            Unavailable::new(
                format!("the host's rules cannot be made: {error}"),
                "load the kernel's modules for nftables (modprobe nf_tables nft_masq nft_fib_inet)",
            )
        })?;
        let here = End { name: &self.interface, index: 0, group: 0 };
        let there = End { name: UPLINK, index: 0, group: 0 };
        link::make_pair(&mut socket, here, there, router.as_fd(), HARDWARE).map_err(at("make the uplink"))?;
        let index = interface_index(&self.interface).map_err(at("find the uplink"))?;
        link::bring_up(&mut socket, index).map_err(at("bring the uplink up"))?;
        link::add_address(&mut socket, index, host, ours).map_err(at("give the uplink its address"))?;
        let inside = move || {
            let mut socket = Socket::open(Part::Routes)?;
            let index = interface_index(UPLINK)?;
            link::bring_up(&mut socket, index)?;
            link::add_address(&mut socket, index, ours, host)?;
            link::add_default_route(&mut socket, index, host)
        };
        let place = Place::Namespace(Arc::clone(router));
        visitor.visit_blocking(place, inside).map_err(at("connect the router"))?;
        forward(&self.interface).map_err(at("let the host pass packets on"))?;
        self.probe(visitor, router)
    }

    /// Sends packets towards the internet, as a sandbox's would go, and sees whether they come through the host's own
    /// firewall. They are dropped at its far end.
    fn probe(&self, visitor: &Visitor, router: &Arc<OwnedFd>) -> Result<(), Unavailable> {
        let failed = |error: io::Error| Unavailable::step("try the way to the internet", &error);
        for _ in 0..FORWARD_PROBES_MAX {
            let send = || UdpSocket::bind("0.0.0.0:0")?.send_to(&[], (PROBE_TO, PROBE_PORT));
            let place = Place::Namespace(Arc::clone(router));
            visitor.visit_blocking(place, send).map_err(failed)?;
            let counter =
                nft::ask(&["list", "counter", "inet", &self.table, PROBE_COUNTER]).map_err(failed)?;
            if !counter.contains("packets 0 ") {
                return Ok(());
            }
            thread::sleep(FORWARD_PROBE_WAIT);
        }
        if !has_default_route().map_err(failed)? {
            tracing::warn!("this host has no way to the internet now, and so its sandboxes have none");
            return Ok(());
        }
        let interface = &self.interface;
        Err(Unavailable::new(
            "a firewall of this host drops what sandboxes send to the internet (Docker sets the FORWARD chain to DROP)"
                .to_owned(),
            &format!(
                "let it pass: iptables -I FORWARD -i {interface} -j ACCEPT; iptables -I FORWARD -o {interface} -m \
                 conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT; then start the server again"
            ),
        ))
    }

    /// Removes it from the host. Does nothing more when called again.
    pub(super) fn close(&self) {
        let removed = (|| {
            let _lock = lock()?;
            link::remove(&mut Socket::open(Part::Routes)?, &self.interface)?;
            nft::carry_out(&format!("table inet {0} {{}}\ndelete table inet {0}\n", self.table))?;
            stop_forwarding()
        })();
        if let Err(error) = removed {
            tracing::error!(%error, "something of the network is still on the host");
        }
    }
}

fn lock() -> io::Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let file = open(LOCK, flags, Mode::RUSR | Mode::WUSR)?;
    flock(&file, FlockOperation::LockExclusive)?;
    Ok(file)
}

/// Has the host pass packets on. If it did not before, it is guarded against doing so for others.
fn forward(own: &str) -> io::Result<()> {
    if fs_err::read_to_string(FORWARDING)?.trim() != "0" {
        return Ok(());
    }
    let interfaces = interfaces()?.into_iter().filter(|name| name != own && name != "lo");
    let interfaces: Vec<String> = interfaces.collect();
    if !interfaces.is_empty() {
        nft::carry_out(&rules::guard(&interfaces))?;
    }
    tracing::info!("this host passes packets on from now on, for sandboxes: {FORWARDING}");
    fs_err::write(FORWARDING, "1")
}

/// Undoes [`forward`] when no other server is there.
fn stop_forwarding() -> io::Result<()> {
    let tables = nft::ask(&["list", "tables", "inet"])?;
    let mut ours =
        tables.lines().filter_map(|line| line.strip_prefix("table inet ")).filter(|n| n.starts_with("msb_"));
    if ours.clone().any(|name| name != GUARD_TABLE) || ours.next().is_none() {
        return Ok(());
    }
    fs_err::write(FORWARDING, "0")?;
    nft::carry_out(&format!("delete table inet {GUARD_TABLE}\n"))
}

/// Finds two addresses next to each other that no route of this host leads to: the host's and the router's.
fn free_pair(key: &str) -> io::Result<(Ipv4Addr, Ipv4Addr)> {
    let taken = routes()?;
    let start = u32::from_str_radix(key, 16).unwrap_or(0) % PAIRS;
    let pair = |number: u32| FIRST_PAIR.to_bits() + ((start + number) % PAIRS) * 2;
    let is_free = |first: &u32| {
        let inside =
            |(to, mask): &(u32, u32)| *mask != 0 && (first & mask == *to || (first + 1) & mask == *to);
        !taken.iter().any(inside)
    };
    let first = (0..PAIRS).map(pair).find(is_free);
    let first = first.ok_or_else(|| io::Error::other("all of 10.213.0.0/16 is in use on this host"))?;
    Ok((Ipv4Addr::from_bits(first), Ipv4Addr::from_bits(first + 1)))
}

/// Reads where the host's routes lead: address and mask.
fn routes() -> io::Result<Vec<(u32, u32)>> {
    let text = fs_err::read_to_string("/proc/self/net/route")?;
    let number = |text: &str| u32::from_str_radix(text, 16).ok().map(u32::from_be);
    let read = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        Some((number(fields.get(1)?)?, number(fields.get(7)?)?))
    };
    Ok(text.lines().skip(1).filter_map(read).collect())
}

fn has_default_route() -> io::Result<bool> {
    Ok(routes()?.iter().any(|(_, mask)| *mask == 0))
}

/// Lists the interfaces of this thread's network namespace.
fn interfaces() -> io::Result<Vec<String>> {
    let text = fs_err::read_to_string(Path::new("/proc/thread-self/net/dev"))?;
    Ok(text
        .lines()
        .skip(2)
        .filter_map(|line| line.split_once(':'))
        .map(|(name, _)| name.trim().to_owned())
        .collect())
}

fn interface_index(name: &str) -> io::Result<u32> {
    let socket = rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::DGRAM, None)?;
    Ok(rustix::net::netdevice::name_to_index(&socket, name)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_the_uplink_are_two_that_nothing_leads_to() {
        let (host, ours) = free_pair("00000000").unwrap();
        assert_eq!(host.to_bits() + 1, ours.to_bits());
        let taken = routes().unwrap();
        assert!(taken.iter().all(|(to, mask)| *mask == 0 || (host.to_bits() & mask) != *to));
        assert_ne!(free_pair("00000001").unwrap().0, host);
    }
}
