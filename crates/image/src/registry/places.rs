// SPDX-License-Identifier: Apache-2.0
//! Where an address is, and who may have it asked from here.
//!
//! A client that names an image names a registry, and the server goes there. So that nobody uses it to reach what trusts
//! the server's own network, what clients name must be on the internet, unless the operator named it too; the operator
//! himself may name anything.
//!
//! A registry can send its clients elsewhere: by a redirect, or by naming a token server. A hostile one uses that to
//! have this machine ask services that trust it. So what a registry points at must not be nearer to this machine than
//! the registry itself: one on the internet cannot point into a private network, one in a private network cannot point at
//! loopback. The metadata services of clouds are never asked. Names are judged by the addresses they resolve to, in the
//! resolver that the connection itself uses, so there is no second look-up that could answer otherwise.

use std::error::Error;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use super::config::World;

/// Addresses at which clouds keep their machines' secrets, beside the link-local one.
const METADATA: [IpAddr; 6] = [
    IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)),
    IpAddr::V4(Ipv4Addr::new(169, 254, 170, 2)),
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V6(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)),
];

/// A kind of address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Place {
    Public,
    Private,
    Loopback,
    LinkLocal,
    Metadata,
}

impl Place {
    pub(super) fn of(address: IpAddr) -> Place {
        let address = unwrap_ipv4(address);
        if METADATA.contains(&address) {
            return Place::Metadata;
        }
        match address {
            IpAddr::V4(v4) => place_of_ipv4(v4),
            IpAddr::V6(v6) => place_of_ipv6(v6),
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Place::Public => "a public address",
            Place::Private => "an address of a private network",
            Place::Loopback => "a loopback address",
            Place::LinkLocal => "a link-local address",
            Place::Metadata => "the address of a cloud's metadata service",
        }
    }
}

/// Returns the IPv4 address that hides in an IPv6 one: mapped, translated, compatible, behind NAT64 or 6to4.
fn unwrap_ipv4(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else { return address };
    let s = v6.segments();
    let (high, low) = match s {
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0, 0, 0, 0, 0xffff, 0, high, low] => (high, low),
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => (high, low),
        [0, 0, 0, 0, 0, 0, high, low] if high != 0 => (high, low),
        [0x2002, high, low, ..] => (high, low),
        _ => return address,
    };
    let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
    IpAddr::V4(Ipv4Addr::new(a, b, c, d))
}

fn place_of_ipv4(address: Ipv4Addr) -> Place {
    match address.octets() {
        [0 | 127, ..] => Place::Loopback,
        [169, 254, ..] => Place::LinkLocal,
        [10, ..] | [192, 168, ..] | [172, 16..=31, ..] | [100, 64..=127, ..] => Place::Private,
        // Protocol assignments (a cloud's metadata among them), benchmarking, multicast and reserved, broadcast.
        [192, 0, 0, _] | [198, 18 | 19, ..] | [224..=255, ..] => Place::Private,
        _ => Place::Public,
    }
}

fn place_of_ipv6(address: Ipv6Addr) -> Place {
    match address.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => Place::Loopback,
        [0xfe80..=0xfebf, ..] => Place::LinkLocal,
        // Site-local, unique local, multicast, and the local prefix of NAT64.
        [0xfec0..=0xfeff | 0xfc00..=0xfdff | 0xff00..=0xffff, ..] | [0x64, 0xff9b, 1, ..] => Place::Private,
        _ => Place::Public,
    }
}

/// Whom a request is made for, which says where it may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Reach {
    /// For the operator, or for a client, to a registry that the operator named.
    Named,
    /// For a client, to a registry that he alone named.
    NamedByClient,
    /// For a registry at this place, to where it points.
    PointedFrom(Place),
}

impl Reach {
    /// Every reach there is: each has a client of its own, with its own resolver and connections.
    pub(super) const ALL: [Reach; 7] = [
        Reach::Named,
        Reach::NamedByClient,
        Reach::PointedFrom(Place::Public),
        Reach::PointedFrom(Place::Private),
        Reach::PointedFrom(Place::Loopback),
        Reach::PointedFrom(Place::LinkLocal),
        Reach::PointedFrom(Place::Metadata),
    ];

    pub(super) fn allows(self, place: Place) -> bool {
        match (place, self) {
            (Place::Metadata, _) => false,
            (Place::Public, _) | (_, Reach::Named) => true,
            (_, Reach::NamedByClient) => false,
            (Place::Private, Reach::PointedFrom(from)) => from != Place::Public,
            (Place::Loopback | Place::LinkLocal, Reach::PointedFrom(from)) => from == place,
        }
    }

    /// Says whether one may go to all of these addresses.
    pub(super) fn check(self, addresses: &[IpAddr], world: &World) -> Result<(), Forbidden> {
        let places = addresses.iter().map(|address| world.place(*address));
        match places.into_iter().find(|place| !self.allows(*place)) {
            Some(place) => Err(Forbidden { place }),
            None => Ok(()),
        }
    }
}

/// An address at which nothing may be asked from here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it leads to {}", place.name())]
pub(super) struct Forbidden {
    pub(super) place: Place,
}

impl Forbidden {
    /// Finds it among the causes of a failed request.
    pub(super) fn among<'a>(
        mut causes: impl Iterator<Item = &'a (dyn Error + 'static)>,
    ) -> Option<Forbidden> {
        causes.find_map(|cause| cause.downcast_ref::<Forbidden>().copied())
    }
}

/// The system's resolver, whose answers are judged before anything connects to them.
pub(super) struct Guard {
    pub(super) reach: Reach,
    pub(super) world: Arc<World>,
}

impl Resolve for Guard {
    fn resolve(&self, name: Name) -> Resolving {
        let (reach, world) = (self.reach, Arc::clone(&self.world));
        Box::pin(async move {
            let addresses: Vec<SocketAddr> = match world.hosts.get(name.as_str()) {
                Some(addresses) => addresses.iter().map(|address| SocketAddr::new(*address, 0)).collect(),
                None => tokio::net::lookup_host((name.as_str(), 0)).await?.collect(),
            };
            let bare: Vec<IpAddr> = addresses.iter().map(SocketAddr::ip).collect();
            reach.check(&bare, &world)?;
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_where_it_leads_however_it_is_written() {
        let rows = [
            ("127.0.0.1", Place::Loopback),
            ("127.9.9.9", Place::Loopback),
            ("0.0.0.0", Place::Loopback),
            ("::1", Place::Loopback),
            ("::", Place::Loopback),
            ("::ffff:127.0.0.1", Place::Loopback),
            ("::127.0.0.1", Place::Loopback),
            ("::ffff:0:127.0.0.1", Place::Loopback),
            ("64:ff9b::7f00:1", Place::Loopback),
            ("2002:7f00:1::", Place::Loopback),
            ("169.254.169.254", Place::Metadata),
            ("::ffff:169.254.169.254", Place::Metadata),
            ("64:ff9b::a9fe:a9fe", Place::Metadata),
            ("2002:a9fe:a9fe::", Place::Metadata),
            ("fd00:ec2::254", Place::Metadata),
            ("100.100.100.200", Place::Metadata),
            ("169.254.1.1", Place::LinkLocal),
            ("fe80::1", Place::LinkLocal),
            ("10.0.0.1", Place::Private),
            ("172.31.255.255", Place::Private),
            ("192.168.1.1", Place::Private),
            ("100.64.0.1", Place::Private),
            ("fd12::1", Place::Private),
            ("224.0.0.1", Place::Private),
            ("172.32.0.1", Place::Public),
            ("8.8.8.8", Place::Public),
            ("2606:4700::1111", Place::Public),
        ];
        for (address, place) in rows {
            assert_eq!(Place::of(address.parse().unwrap()), place, "{address}");
        }
    }

    #[test]
    fn nobody_points_nearer_to_this_machine_than_he_is() {
        let from = Reach::PointedFrom;
        for place in [Place::Private, Place::Loopback, Place::LinkLocal] {
            assert!(!from(Place::Public).allows(place), "{place:?}");
            assert!(Reach::Named.allows(place), "{place:?}");
            assert!(from(place).allows(place) && from(place).allows(Place::Public), "{place:?}");
        }
        assert!(!from(Place::Private).allows(Place::Loopback));
        assert!(!from(Place::Loopback).allows(Place::LinkLocal));
        assert!(Reach::ALL.iter().all(|reach| !reach.allows(Place::Metadata)));
    }

    #[test]
    fn what_a_client_names_is_on_the_internet() {
        for place in [Place::Private, Place::Loopback, Place::LinkLocal, Place::Metadata] {
            assert!(!Reach::NamedByClient.allows(place), "{place:?}");
        }
        assert!(Reach::NamedByClient.allows(Place::Public));
    }
}
