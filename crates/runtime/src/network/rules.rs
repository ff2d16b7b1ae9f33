// SPDX-License-Identifier: Apache-2.0
//! The rules, as `nft` reads them: pure. [`super::elements`] fills their sets.
//!
//! ```text
//! sandbox ──veth, group public or allow──▶ router's namespace ──veth──▶ host ──▶ internet
//!                                          table ip msb                table inet msb_KEY
//!                                          the policy                  never to the host itself; masquerade
//! ```

use std::fmt::Write;
use std::net::Ipv4Addr;

use protocol::limits::{
    NETWORK_FLOWS_ALL_MAX, NETWORK_FLOWS_MAX, OWN_ADDRESSES_MAX, REFUSALS_LOGGED_MAX, SANDBOXES_MAX,
};
use protocol::network::FORBIDDEN;

/// The router's table.
pub(super) const ROUTER_TABLE: &str = "msb";
/// The router's interface that leads to the host.
pub(super) const UPLINK: &str = "uplink";
/// The group of interfaces of sandboxes that may reach the internet.
pub(super) const GROUP_PUBLIC: u32 = 1;
/// The group of interfaces of sandboxes with an allow-list.
pub(super) const GROUP_ALLOW: u32 = 2;
/// Sandbox and address that it may reach.
pub(super) const HOSTS: &str = "hosts";
/// Sandbox, address and port.
pub(super) const HOST_PORTS: &str = "host_ports";
/// Sandbox and range of addresses.
pub(super) const RANGES: &str = "ranges";
/// Sandbox, range of addresses and port.
pub(super) const RANGE_PORTS: &str = "range_ports";
/// The host's own addresses.
pub(super) const OWN: &str = "own";
/// How many packets of a sandbox were refused.
pub(super) const DENIED: &str = "denied";
/// Where the kernel tells of refused packets.
pub(super) const LOG_GROUP: u16 = 77;
/// Where the probe of the host's firewall goes: discard(9), which the host's table drops on its way out.
pub(super) const PROBE_PORT: u16 = 9;
/// The counter of probes that came through.
pub(super) const PROBE_COUNTER: &str = "probe";
/// The table that is there while forwarding is on because of us.
pub(super) const GUARD_TABLE: &str = "msb_guard";

/// Most elements of one set.
const SET_ELEMENTS_MAX: usize = 1 << 20;

/// The rules inside the router's namespace.
pub(super) fn router(gateway: Ipv4Addr) -> String {
    let sandboxes = format!("iifgroup {{ {GROUP_PUBLIC}, {GROUP_ALLOW} }}");
    let set = |name: &str, kind: &str, flags: &str| {
        format!("set {name} {{\n typeof {kind}\n flags {flags}\n size {SET_ELEMENTS_MAX}\n }}\n")
    };
    let known = SANDBOXES_MAX * 2;
    [
        format!("table ip {ROUTER_TABLE} {{\n"),
        set(HOSTS, "ip saddr . ip daddr", "timeout"),
        set(HOST_PORTS, "ip saddr . ip daddr . th dport", "timeout"),
        set(RANGES, "ip saddr . ip daddr", "interval"),
        set(RANGE_PORTS, "ip saddr . ip daddr . th dport", "interval"),
        format!("set {OWN} {{\n type ipv4_addr\n size {OWN_ADDRESSES_MAX}\n }}\n"),
        format!("set {DENIED} {{\n type ipv4_addr\n flags dynamic\n size {known}\n counter\n }}\n"),
        format!("set told {{\n type ipv4_addr\n flags dynamic, timeout\n timeout 60s\n size {known}\n }}\n"),
        format!("set flows {{\n type ipv4_addr\n flags dynamic\n size {known}\n }}\n"),
        // Counted always, told of now and then; told to the sandbox, so that programs fail at once.
        format!(
            "chain note {{
              update @{DENIED} {{ ip saddr }}
              update @told {{ ip saddr limit rate {REFUSALS_LOGGED_MAX}/second burst 10 packets }} log group {LOG_GROUP} snaplen 64
            }}
            chain refuse {{
              jump note
              meta l4proto tcp reject with tcp reset
              reject with icmp admin-prohibited
            }}\n"
        ),
        // Nobody sends as somebody else: the way back to the source must be the interface that it came from.
        format!(
            "chain from {{
              type filter hook prerouting priority raw; policy drop;
              iif lo accept
              iifname {UPLINK} accept
              {sandboxes} fib saddr . iif oif missing drop
              {sandboxes} ip frag-off & 0x1fff != 0 drop
              {sandboxes} ip daddr {gateway} udp dport 53 notrack accept
              {sandboxes} accept
            }}
            chain out {{
              type filter hook output priority raw; policy accept;
              ip saddr {gateway} udp sport 53 notrack
            }}\n"
        ),
        // Of the router itself, sandboxes reach the name service and nothing else; the internet reaches nothing.
        format!(
            "chain input {{
              type filter hook input priority filter; policy drop;
              iif lo accept
              {sandboxes} ip daddr {gateway} meta l4proto {{ tcp, udp }} th dport 53 accept
              {sandboxes} goto refuse
            }}\n"
        ),
        format!(
            "chain forward {{
              type filter hook forward priority filter; policy drop;
              iifname {UPLINK} ct state established, related accept
              iifname {UPLINK} drop
              oifname != {UPLINK} goto refuse
              ip daddr {{ {} }} goto refuse
              ip daddr @{OWN} goto refuse
              ct state established, related accept
              meta l4proto != {{ tcp, udp }} goto refuse
              add @flows {{ ip saddr ct count over {NETWORK_FLOWS_MAX} }} goto refuse
              iifgroup {GROUP_PUBLIC} accept
              iifgroup {GROUP_ALLOW} ip saddr . ip daddr @{HOSTS} accept
              iifgroup {GROUP_ALLOW} ip saddr . ip daddr . th dport @{HOST_PORTS} accept
              iifgroup {GROUP_ALLOW} ip saddr . ip daddr @{RANGES} accept
              iifgroup {GROUP_ALLOW} ip saddr . ip daddr . th dport @{RANGE_PORTS} accept
              goto refuse
            }}
            chain hide_sources {{
              type nat hook postrouting priority srcnat; policy accept;
              oifname {UPLINK} masquerade
            }}\n",
            forbidden()
        ),
        "}\n".to_owned(),
        "table ip6 msb {\n chain none {\n type filter hook prerouting priority raw; policy drop;\n }\n }\n".to_owned(),
    ]
    .concat()
}

/// The rules on the host: a table of our own, which takes the place of one that a killed server left.
///
/// What comes from sandboxes never reaches the host itself, on whichever of its addresses, those of tomorrow included;
/// that is asked before anybody's translation of addresses, and again after it.
pub(super) fn host(table: &str, interface: &str, router: Ipv4Addr) -> String {
    let forbidden = forbidden();
    format!(
        "table inet {table} {{}}
        delete table inet {table}
        table inet {table} {{
          counter {PROBE_COUNTER} {{}}
          chain from {{
            type filter hook prerouting priority raw; policy accept;
            iifname {interface} meta nfproto != ipv4 drop
            iifname {interface} ip saddr != {router} drop
            iifname {interface} fib daddr type != unicast drop
            iifname {interface} ip daddr {{ {forbidden} }} drop
          }}
          chain input {{
            type filter hook input priority filter - 10; policy accept;
            iifname {interface} drop
          }}
          chain forward {{
            type filter hook forward priority filter - 10; policy accept;
            oifname {interface} ct state != {{ established, related }} drop
            iifname {interface} ip daddr {{ {forbidden} }} drop
            iifname {interface} ct state new ct count over {NETWORK_FLOWS_ALL_MAX} drop
          }}
          chain probe {{
            type filter hook postrouting priority srcnat - 10; policy accept;
            ip saddr {router} udp dport {PROBE_PORT} counter name {PROBE_COUNTER} drop
          }}
          chain hide_sources {{
            type nat hook postrouting priority srcnat; policy accept;
            ip saddr {router} oifname != {interface} masquerade
          }}
        }}\n"
    )
}

/// The rules that are on the host while it forwards packets only because of us: what comes in at the interfaces that it
/// had is not passed on as if it were a router, unless somebody published a port.
pub(super) fn guard(interfaces: &[String]) -> String {
    let mut names = String::new();
    for interface in interfaces {
        let _ = write!(names, "\"{interface}\", ");
    }
    format!(
        "table inet {GUARD_TABLE} {{}}
        delete table inet {GUARD_TABLE}
        table inet {GUARD_TABLE} {{
          chain forward {{
            type filter hook forward priority filter - 20; policy accept;
            iifname {{ {names} }} ct state new ct status ! dnat drop
          }}
        }}\n"
    )
}

fn forbidden() -> String {
    FORBIDDEN.map(|(range, _)| range.to_string()).join(", ")
}
