// SPDX-License-Identifier: Apache-2.0
//! What is made of what the kernel says.

use jail::rights::{SubIds, UserIds};

use super::super::rights::Gap;
use super::*;

const STATUS: &str = "Name:\tmsb-agent\nCapInh:\t0000000000000000\nCapPrm:\t00000000000004fb\nCapEff:\t00000000000004fb\n\
CapBnd:\t00000000000004fb\nCapAmb:\t0000000000000000\nNoNewPrivs:\t1\nSeccomp:\t2\nSeccomp_filters:\t1\n";
const LIMITS: &str = "Limit                     Soft Limit           Hard Limit           Units     \n\
Max core file size        1                    1                    bytes     \n\
Max open files            20000                20000                files     \n";

/// A sandbox as it should be; the masks are those of this machine's kernel.
fn seen() -> Seen {
    let root = "89 64 0:41 / / rw,nosuid,nodev,relatime - overlay root rw,lowerdir=/proc/self/fd/16\n\
63 89 0:39 / /dev ro,nosuid,noexec,relatime - tmpfs dev rw\n";
    let cover = |path: &&str| format!("47 42 0:45 / {path} ro,nosuid,nodev,noexec - tmpfs tmpfs rw\n");
    Seen {
        namespaces: NAMESPACES.map(|(name, _)| (name, true)).to_vec(),
        user_namespace: true,
        id_map: "         0 1879048192      65536\n         0 1879048192      65536\n".to_owned(),
        status: STATUS.to_owned(),
        limits: LIMITS.to_owned(),
        mounts: MASKED.iter().chain(&READ_ONLY).map(cover).fold(root.to_owned(), |all, one| all + &one),
        interfaces: "Inter-|   Receive\n face |bytes\n    lo:       0       0\n".to_owned(),
        descriptors: ["/dev/null", "socket:[1]", "/memfd:config (deleted)", "anon_inode:[eventpoll]"]
            .map(str::to_owned)
            .to_vec(),
        core_pattern: "core".to_owned(),
    }
}

const OPEN: Protection = Protection { name: ProtectionName::NetworkPolicy, on: true, why: None, mend: None };
const REAL: Standing = Standing { rights: Rights::Root, one_id: None };

fn user(more: Option<SubIds>) -> Standing {
    let gap = Gap { why: "no range".to_owned(), mend: "give one".to_owned() };
    let one_id = more.is_none().then_some(gap);
    Standing { rights: Rights::User(UserIds { user: 1000, group: 1000, more }), one_id }
}

/// The protections that are off after a change.
fn off(change: impl FnOnce(&mut Seen)) -> Vec<&'static str> {
    let mut seen = seen();
    change(&mut seen);
    let all = seen.protections(&REAL, &Protection::on(ProtectionName::NetworkPolicy), false);
    all.iter()
        .filter(|one| !one.on)
        .inspect(|one| assert!(one.why.is_some()))
        .map(|one| one.name.text())
        .collect()
}

#[test]
fn a_sandbox_as_it_should_be_has_them_all() {
    assert_eq!(off(|_| {}), [""; 0]);
}

#[test]
fn what_the_kernel_says_otherwise_is_off() {
    let replaced = |from: &'static str, to: &'static str| {
        move |seen: &mut Seen| {
            for text in [&mut seen.status, &mut seen.limits, &mut seen.mounts, &mut seen.id_map] {
                *text = text.replace(from, to);
            }
        }
    };
    assert_eq!(off(replaced("Seccomp:\t2", "Seccomp:\t0")), ["seccomp"]);
    assert_eq!(off(replaced("NoNewPrivs:\t1", "NoNewPrivs:\t0")), ["set_id_powerless", "no_new_privs"]);
    assert_eq!(off(replaced("CapBnd:\t00000000000004fb", "CapBnd:\t000001ffffffffff")), ["capabilities"]);
    assert_eq!(off(replaced("CapEff", "Cap")), ["capabilities"]);
    assert_eq!(off(replaced(" 1879048192 ", " 0 ")), ["user_namespace", "id_range"]);
    assert_eq!(off(replaced("65536", "1")), ["id_range"]);
    assert_eq!(off(replaced(" /proc/sys ro,", " /proc/sys rw,")), ["masked_paths"]);
    assert_eq!(off(replaced(" /proc/kallsyms ", " /elsewhere ")), ["masked_paths"]);
    assert_eq!(off(replaced("/ / rw,nosuid,nodev", "/ / rw,nosuid")), ["devices_closed"]);
    assert_eq!(off(replaced("/dev ro,nosuid", "/dev rw,nosuid")), ["devices_closed"]);
    assert_eq!(off(replaced("/ / rw,nosuid,nodev", "/ / rw,nodev")), ["set_id_powerless"]);
    assert_eq!(off(replaced("20000", "unlimited")), ["open_files_limit"]);
    assert_eq!(off(|seen| seen.namespaces[1].1 = false), ["pid_namespace"]);
    assert_eq!(off(|seen| seen.user_namespace = false), ["user_namespace"]);
    for open in ["/etc", "/dev/sda", "/etc/tasks", "/microsandbox/1/cgroup.subtree_control"] {
        assert_eq!(off(|seen| seen.descriptors.push(open.to_owned())), ["descriptors_closed"], "{open}");
    }
    let entry = "/microsandbox/fe00-1/0123456789abcdef/programs/tasks";
    assert_eq!(off(|seen| seen.descriptors.push(entry.to_owned())), [""; 0]);
    assert_eq!(off(|seen| seen.interfaces.push_str("  eth0: 1 2\n")), ["network_policy"]);
}

#[test]
fn an_ordinary_users_ids_are_told_for_what_they_are() {
    let mut seen = seen();
    let find = |all: &[Protection], name| all.iter().find(|one| one.name == name).unwrap().clone();
    seen.id_map = "0 1000 1\n0 1000 1\n".to_owned();
    let all = seen.protections(&user(None), &OPEN, false);
    let (namespace, range) = (find(&all, ProtectionName::UserNamespace), find(&all, ProtectionName::IdRange));
    assert!(namespace.on && namespace.why.unwrap().contains("1000"));
    assert!(
        !range.on && range.why.unwrap().ends_with("no range") && range.mend.unwrap().contains("give one")
    );
    seen.id_map = "0 1000 1\n1 100000 65535\n0 1000 1\n1 100000 65535\n".to_owned();
    let more = SubIds {
        first_user: 100_000,
        first_group: 100_000,
        count: 65_535,
        map_users: "/a".into(),
        map_groups: "/b".into(),
    };
    let range = find(&seen.protections(&user(Some(more)), &OPEN, false), ProtectionName::IdRange);
    assert!(!range.on && range.why.unwrap().contains("the same ids"));
}

#[test]
fn processes_count_as_limited_where_the_first_one_says_so() {
    let mut seen = seen();
    assert!(!seen.processes_counted().on);
    seen.limits.push_str("Max processes             unlimited            unlimited            processes\n");
    assert!(!seen.processes_counted().on);
    seen.limits = seen.limits.replace("unlimited            unlimited ", "256                  256 ");
    assert!(seen.processes_counted().on);
}

#[test]
fn a_device_of_the_host_is_harmless_at_its_place_alone() {
    let with = |line: &str| off(|seen| seen.mounts.push_str(line));
    let null = "70 63 0:6 /null /dev/null ro,nosuid,noexec - devtmpfs devtmpfs rw\n";
    assert_eq!(with(null), [""; 0]);
    for (from, to) in [("ro,", "rw,"), ("/dev/null", "/tmp/null"), ("/null /", "/mem /"), ("null", "mem")] {
        assert_eq!(with(&null.replace(from, to)), ["devices_closed"], "{to}");
    }
}

#[test]
fn a_connected_sandbox_has_one_interface_and_somebody_who_decides() {
    let name = ProtectionName::NetworkPolicy;
    let mut seen = seen();
    seen.interfaces.push_str("  eth0: 1 2\n");
    assert!(seen.network_policy(&Protection::on(name), true).on);
    assert!(!seen.network_policy(&Protection::on(name), false).on);
    assert!(!seen.network_policy(&Protection::off(name, "no nft"), true).on);
    seen.interfaces.push_str("  eth1: 1 2\n");
    assert!(!seen.network_policy(&Protection::on(name), true).on);
}

#[test]
fn core_dumps_depend_on_where_the_host_sends_them() {
    let with = |pattern: &str, limit: &str| {
        off(|seen| {
            seen.core_pattern = pattern.to_owned();
            seen.limits = LIMITS.replace("1                    1 ", &format!("0  {limit} "));
        })
    };
    for (pattern, limit) in [("core", "0"), ("core", "1"), ("|/usr/lib/dump %P", "1"), ("/var/core.%p", "0")]
    {
        assert_eq!(with(pattern, limit), [""; 0], "{pattern} {limit}");
    }
    for (pattern, limit) in [
        ("|/usr/lib/dump %P", "0"),
        ("|/x", "unlimited"),
        ("core", "4096"),
        ("core", "unlimited"),
        ("@/run/x", "1"),
    ] {
        assert_eq!(with(pattern, limit), ["core_dumps_off"], "{pattern} {limit}");
    }
}

#[test]
fn without_a_sandbox_everything_is_off_and_says_why() {
    let facts =
        Facts { trials: vec![jail::facts::Trial { what: What::Landlock, failed: Some("old".into()) }] };
    let isolation =
        protocol::isolation::Isolation::gather(KIND, without_sandbox(&facts, &REAL, "mount /: no"));
    assert!(isolation.protections.iter().all(|one| !one.on && one.why.is_some()));
    let why = |name| isolation.protections.iter().find(|one| one.name == name).unwrap().why.clone().unwrap();
    assert_eq!(why(ProtectionName::Landlock), "old");
    assert!(why(ProtectionName::MemoryLimit).contains("mount /: no"));
}
