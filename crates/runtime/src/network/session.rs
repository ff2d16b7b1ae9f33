// SPDX-License-Identifier: Apache-2.0
//! One sandbox on the network: its address, its policy, and what name servers' answers opened for it.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use protocol::limits::{NAME_CONNECTIONS_PER_SANDBOX_MAX, NAME_QUERIES_PER_SANDBOX_MAX, PINS_MAX};
use protocol::network::{Allowed, Destination, Range};
use tokio::sync::Semaphore;

use super::elements::Element;
use super::rules::{HOST_PORTS, HOSTS, RANGE_PORTS, RANGES};
use crate::spec::SandboxId;

/// What a sandbox with an interface may reach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Policy {
    /// The internet.
    Public,
    /// These.
    Allow(Vec<Allowed>),
}

/// The ports of an allowed domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ports {
    /// The rules ask for no address.
    Open,
    /// Every port of its addresses.
    All,
    /// These ports.
    Only(Vec<u16>),
}

impl Policy {
    /// Returns the ports of a domain; `None` when it is not allowed.
    pub(super) fn domain(&self, domain: &str) -> Option<Ports> {
        let Policy::Allow(list) = self else { return Some(Ports::Open) };
        let entries: Vec<&Allowed> = list.iter().filter(|allowed| allowed.to.names(domain)).collect();
        let ports: Option<Vec<u16>> = entries.iter().map(|allowed| allowed.port).collect();
        match (entries.is_empty(), ports) {
            (true, _) => None,
            (false, None) => Some(Ports::All),
            (false, Some(ports)) => Some(Ports::Only(ports)),
        }
    }

    /// Returns what of the rules' sets opens the ranges that the policy names.
    ///
    /// The kernel takes no ranges that overlap: those that lie in another are left out.
    pub(super) fn elements(&self, own: Ipv4Addr) -> Vec<Element> {
        let Policy::Allow(list) = self else { return Vec::new() };
        let mut ranges: Vec<(Range, Option<u16>)> = Vec::new();
        for allowed in list {
            let Destination::Range(range) = allowed.to else { continue };
            let covered =
                |(other, port): &(Range, Option<u16>)| *port == allowed.port && other.covers(&range);
            if !ranges.iter().any(covered) {
                ranges.retain(|(other, port)| *port != allowed.port || !range.covers(other));
                ranges.push((range, allowed.port));
            }
        }
        let element = |(range, port): (Range, Option<u16>)| Element {
            set: if port.is_some() { RANGE_PORTS } else { RANGES },
            key: key(own, range.first(), port),
            last: Some(key(own, range.last(), port)),
        };
        ranges.into_iter().map(element).collect()
    }
}

/// One sandbox on the network.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) id: SandboxId,
    pub(super) address: Ipv4Addr,
    pub(super) policy: Policy,
    /// Bounds its questions for names.
    pub(super) queries: Arc<Semaphore>,
    /// Bounds its connections to the name service.
    pub(super) connections: Arc<Semaphore>,
    refused_names: AtomicU64,
    pins: Mutex<Pins>,
}

/// What is open because a name server's answer named it.
#[derive(Debug, Default)]
pub(super) struct Pins {
    until: HashMap<Element, Instant>,
    closed: bool,
}

impl Session {
    pub(super) fn new(id: SandboxId, address: Ipv4Addr, policy: Policy) -> Session {
        Session {
            id,
            address,
            policy,
            queries: Arc::new(Semaphore::new(NAME_QUERIES_PER_SANDBOX_MAX)),
            connections: Arc::new(Semaphore::new(NAME_CONNECTIONS_PER_SANDBOX_MAX)),
            refused_names: AtomicU64::new(0),
            pins: Mutex::default(),
        }
    }

    /// Counts a name that was refused.
    pub(super) fn refuse_name(&self, name: &str, why: &str) {
        let count = self.refused_names.fetch_add(1, Ordering::Relaxed) + 1;
        // The first few, and then fewer and fewer: a sandbox cannot fill the log.
        if count <= 20 || count.is_power_of_two() {
            tracing::info!(sandbox = %self.id, name, why, refused_names = count, "network: a name was refused");
        }
    }

    /// Returns how many names were refused.
    pub(super) fn refused_names(&self) -> u64 {
        self.refused_names.load(Ordering::Relaxed)
    }

    /// Returns the elements that open an answer's addresses.
    pub(super) fn pins_for(&self, addresses: &[Ipv4Addr], ports: &Ports) -> Vec<Element> {
        let element = |set, address, port| Element { set, key: key(self.address, address, port), last: None };
        let each = |address: &Ipv4Addr| match ports {
            Ports::Open => vec![],
            Ports::All => vec![element(HOSTS, *address, None)],
            Ports::Only(ports) => {
                ports.iter().map(|port| element(HOST_PORTS, *address, Some(*port))).collect()
            }
        };
        addresses.iter().flat_map(each).collect()
    }

    /// Gives what is open, to be changed together with the kernel's sets.
    pub(super) fn pins(&self) -> MutexGuard<'_, Pins> {
        self.pins.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pins {
    /// Returns which of these the kernel must be told of, so that they are open for that long; `None` when there are too
    /// many, or the sandbox is gone.
    pub(super) fn missing(&mut self, wanted: &[Element], life: Duration) -> Option<Vec<Element>> {
        let now = Instant::now();
        self.until.retain(|_, until| *until > now);
        let new = wanted.iter().filter(|element| !self.until.contains_key(element)).count();
        if self.closed || self.until.len() + new > PINS_MAX {
            return None;
        }
        let short = |element: &&Element| self.until.get(element).is_none_or(|until| *until < now + life);
        Some(wanted.iter().filter(short).cloned().collect())
    }

    /// Remembers what the kernel was told.
    pub(super) fn note(&mut self, elements: Vec<Element>, life: Duration) {
        let until = Instant::now() + life;
        self.until.extend(elements.into_iter().map(|element| (element, until)));
    }

    /// Lets nothing be opened any more; what was open.
    pub(super) fn close(&mut self) -> Vec<Element> {
        self.closed = true;
        self.until.drain().map(|(element, _)| element).collect()
    }
}

/// The key of an element: fields of four bytes each.
fn key(own: Ipv4Addr, to: Ipv4Addr, port: Option<u16>) -> Vec<u8> {
    let port = port.map(|port| [&port.to_be_bytes()[..], &[0, 0]].concat());
    [&own.octets()[..], &to.octets(), &port.unwrap_or_default()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 9);

    fn session(entries: &[&str]) -> Session {
        let list = entries.iter().map(|text| Allowed::parse(text).unwrap()).collect();
        Session::new(SandboxId::parse("0123456789abcdef").unwrap(), OWN, Policy::Allow(list))
    }

    #[test]
    fn an_allow_list_names_domains_with_their_ports() {
        let policy =
            session(&["a.example:443", "a.example:80", "*.b.example", "*.b.example:22", "1.1.1.1"]).policy;
        assert_eq!(policy.domain("a.example"), Some(Ports::Only(vec![443, 80])));
        assert_eq!(policy.domain("x.b.example"), Some(Ports::All));
        for other in ["b.example", "c.example", "example", "1.1.1.1", ""] {
            assert_eq!(policy.domain(other), None, "{other}");
        }
        assert_eq!(session(&[]).policy.domain("a.example"), None);
        assert_eq!(Policy::Public.domain("a.example"), Some(Ports::Open));
    }

    #[test]
    fn ranges_never_overlap_in_one_set() {
        let list =
            ["1.1.1.1", "1.1.0.0/16", "1.1.1.0/24", "1.1.0.0/16", "1.1.1.1:53", "1.1.1.0/24:80", "a.example"];
        let elements = session(&list).policy.elements(OWN);
        let shown: Vec<_> = elements.iter().map(|e| (e.set, e.key[4..8].to_vec(), e.key.len())).collect();
        assert_eq!(
            shown,
            [
                (RANGES, vec![1, 1, 0, 0], 8),
                (RANGE_PORTS, vec![1, 1, 1, 1], 12),
                (RANGE_PORTS, vec![1, 1, 1, 0], 12)
            ]
        );
        assert!(
            elements
                .iter()
                .all(|e| e.key[..4] == OWN.octets() && e.key.len() == e.last.as_ref().unwrap().len())
        );
    }

    #[test]
    fn what_is_open_is_bounded_and_nothing_opens_after_the_end() {
        let session = session(&["a.example:443"]);
        let life = Duration::from_secs(60);
        let many: Vec<Ipv4Addr> = (0..1024).map(|n| Ipv4Addr::from_bits(0x0101_0000 + n)).collect();
        let elements = session.pins_for(&many, &Ports::All);
        let missing = session.pins().missing(&elements, life).unwrap();
        assert_eq!(missing.len(), PINS_MAX);
        session.pins().note(missing, life * 2);
        assert_eq!(session.pins().missing(&elements, life), Some(vec![]), "open for long enough");
        let more = session.pins_for(&[Ipv4Addr::new(9, 9, 9, 9)], &Ports::All);
        assert_eq!(session.pins().missing(&more, life), None);
        assert_eq!(session.pins().close().len(), PINS_MAX);
        assert_eq!(session.pins().missing(&more, life), None);
    }
}
