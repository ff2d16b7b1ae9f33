// SPDX-License-Identifier: Apache-2.0
//! How strong a wall is: each protection on or off, and what an operator can demand of all of them.

use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};

/// How strong the wall around a sandbox is, as it was found to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Isolation {
    /// The kind of wall, such as `container`.
    pub kind: String,
    /// Every protection there is, on or off.
    pub protections: Vec<Protection>,
}

/// One protection of a sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Protection {
    /// Its name.
    pub name: ProtectionName,
    /// Whether it is in force.
    pub on: bool,
    /// Why it is off; on one that is on, what is special about it here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// The command or change on the server's machine that would switch it on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mend: Option<String>,
}

impl Protection {
    /// One that is in force.
    pub fn on(name: ProtectionName) -> Protection {
        Protection { name, on: true, why: None, mend: None }
    }

    /// One that is not, and why.
    pub fn off(name: ProtectionName, why: impl Into<String>) -> Protection {
        Protection { name, on: false, why: Some(why.into()), mend: None }
    }

    /// Says what would switch it on.
    #[must_use]
    pub fn mend(mut self, mend: impl Into<String>) -> Protection {
        self.mend = Some(mend.into());
        self
    }
}

macro_rules! protections {
    ($($(#[doc = $doc:literal])+ $variant:ident = $text:literal, $level:ident;)+) => {
        /// The name of a protection.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum ProtectionName {
            $($(#[doc = $doc])+ #[serde(rename = $text)] $variant,)+
        }

        impl ProtectionName {
            /// Every one, in the order in which they are told.
            pub const ALL: &[ProtectionName] = &[$(ProtectionName::$variant),+];

            /// Its name on the wire.
            pub fn text(self) -> &'static str {
                match self { $(ProtectionName::$variant => $text,)+ }
            }

            /// What it does, in one sentence.
            pub fn meaning(self) -> &'static str {
                match self { $(ProtectionName::$variant => concat!($($doc),+).trim_ascii(),)+ }
            }

            /// The lowest level that demands it.
            pub fn level(self) -> Level {
                match self { $(ProtectionName::$variant => Level::$level,)+ }
            }
        }
    };
}

protections! {
    /// Root inside is root of nothing outside.
    UserNamespace = "user_namespace", Contained;
    /// A range of user ids that no other sandbox and no user of the host has.
    IdRange = "id_range", Complete;
    /// A mount table of its own, in which nothing of the host is.
    MountNamespace = "mount_namespace", Contained;
    /// Processes outside cannot be seen or signalled.
    PidNamespace = "pid_namespace", Contained;
    /// Network interfaces, ports and abstract sockets of its own.
    NetworkNamespace = "network_namespace", Contained;
    /// System V IPC and message queues of its own.
    IpcNamespace = "ipc_namespace", Contained;
    /// A host name of its own.
    UtsNamespace = "uts_namespace", Contained;
    /// The cgroups of the host cannot be seen.
    CgroupNamespace = "cgroup_namespace", Contained;
    /// Image files belong to the ids inside without a copy, and are only read.
    IdmappedLayers = "idmapped_layers", Complete;
    /// Switches and secrets of the kernel in /proc and /sys are hidden or read-only.
    MaskedPaths = "masked_paths", Contained;
    /// Device nodes work only in its own /dev, and there are only harmless ones.
    DevicesClosed = "devices_closed", Contained;
    /// Set-id bits and file capabilities have no effect.
    SetIdPowerless = "set_id_powerless", Contained;
    /// No capability is left that reaches beyond the sandbox.
    Capabilities = "capabilities", Contained;
    /// No program can gain rights by being executed.
    NoNewPrivs = "no_new_privs", Contained;
    /// System calls that are not on a list are refused.
    Seccomp = "seccomp", Contained;
    /// Files outside stay closed even to who has a descriptor of them, and nothing can be mounted.
    Landlock = "landlock", Complete;
    /// Nothing of the server is open inside but what the agent needs.
    DescriptorsClosed = "descriptors_closed", Contained;
    /// A crash starts no program of the host and writes no file.
    CoreDumpsOff = "core_dumps_off", Contained;
    /// Memory is limited.
    MemoryLimit = "memory_limit", Limited;
    /// The limit on memory counts swap too.
    SwapLimit = "swap_limit", Limited;
    /// Processor time is limited.
    CpuLimit = "cpu_limit", Limited;
    /// The number of processes and threads is limited.
    PidsLimit = "pids_limit", Limited;
    /// The number of open files is limited.
    OpenFilesLimit = "open_files_limit", Limited;
    /// What is written is limited in bytes.
    DiskLimit = "disk_limit", Complete;
    /// What is written is limited in files.
    InodeLimit = "inode_limit", Complete;
    /// Disks are shared fairly with others.
    IoWeight = "io_weight", Complete;
    /// What can be reached over the network is decided outside.
    NetworkPolicy = "network_policy", Contained;
}

impl fmt::Display for ProtectionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

impl FromStr for ProtectionName {
    type Err = String;

    fn from_str(text: &str) -> Result<ProtectionName, String> {
        let found = ProtectionName::ALL.iter().find(|name| name.text() == text);
        found.copied().ok_or_else(|| "no protection has that name".to_owned())
    }
}

impl JsonSchema for ProtectionName {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "ProtectionName".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let names: Vec<&str> = ProtectionName::ALL.iter().map(|name| name.text()).collect();
        schemars::json_schema!({"type": "string", "enum": names})
    }
}

/// What an operator demands of every sandbox; each level demands what the ones before it do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Nothing.
    #[default]
    Any,
    /// The wall itself: code inside reaches nothing outside, but could use up the machine.
    Contained,
    /// Besides, one sandbox cannot take memory, processors and processes from all others.
    Limited,
    /// Every protection there is.
    Complete,
}

impl Level {
    /// All of them, the weakest first.
    pub const ALL: [Level; 4] = [Level::Any, Level::Contained, Level::Limited, Level::Complete];

    /// Its name.
    pub fn text(self) -> &'static str {
        match self {
            Level::Any => "any",
            Level::Contained => "contained",
            Level::Limited => "limited",
            Level::Complete => "complete",
        }
    }

    /// Returns what it demands and a wall lacks.
    pub fn missing(self, isolation: &Isolation) -> Vec<Protection> {
        let demanded = ProtectionName::ALL.iter().filter(|name| name.level() <= self);
        let lacking = demanded.filter_map(|name| {
            match isolation.protections.iter().find(|protection| protection.name == *name) {
                Some(protection) if protection.on => None,
                Some(protection) => Some(protection.clone()),
                None => Some(Protection::off(*name, "this kind of wall does not have it")),
            }
        });
        lacking.collect()
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

impl FromStr for Level {
    type Err = String;

    fn from_str(text: &str) -> Result<Level, String> {
        let found = Level::ALL.into_iter().find(|level| level.text() == text);
        found.ok_or_else(|| format!("it must be one of {}", Level::ALL.map(Level::text).join(", ")))
    }
}

impl Isolation {
    /// Returns the highest level whose demands are all met.
    pub fn level(&self) -> Level {
        let met = Level::ALL.into_iter().rev().find(|level| level.missing(self).is_empty());
        met.unwrap_or(Level::Any)
    }

    /// Puts what several parts of a backend say of their protections in order: each name once, `off` where nobody said
    /// anything or somebody said so.
    pub fn gather(kind: &str, said: impl IntoIterator<Item = Protection>) -> Isolation {
        let said: Vec<Protection> = said.into_iter().collect();
        let of = |name: &ProtectionName| {
            let mut all = said.iter().filter(|protection| protection.name == *name);
            let first = all.next().cloned();
            let off = first.iter().chain(all).find(|protection| !protection.on).cloned();
            off.or(first).unwrap_or_else(|| Protection::off(*name, "this kind of wall does not have it"))
        };
        Isolation { kind: kind.to_owned(), protections: ProtectionName::ALL.iter().map(of).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(off: &[ProtectionName]) -> Isolation {
        let one = |name: &ProtectionName| match off.contains(name) {
            true => Protection::off(*name, "a reason").mend("a command"),
            false => Protection::on(*name),
        };
        Isolation::gather("container", ProtectionName::ALL.iter().map(one))
    }

    #[test]
    fn each_level_demands_what_the_ones_before_it_do_and_more() {
        let counts = Level::ALL.map(|level| level.missing(&with(ProtectionName::ALL)).len());
        assert!(counts.is_sorted_by(|a, b| a < b), "{counts:?}");
        assert_eq!((counts[0], counts[3]), (0, ProtectionName::ALL.len()));
        assert_eq!(with(&[]).level(), Level::Complete);
        assert_eq!(with(&[ProtectionName::DiskLimit]).level(), Level::Limited);
        assert_eq!(with(&[ProtectionName::MemoryLimit]).level(), Level::Contained);
        assert_eq!(with(&[ProtectionName::Seccomp]).level(), Level::Any);
    }

    #[test]
    fn what_is_missing_is_named_with_its_reason_and_what_mends_it() {
        let missing = Level::Limited.missing(&with(&[ProtectionName::SwapLimit, ProtectionName::Landlock]));
        assert_eq!(missing.len(), 1);
        assert_eq!(
            (missing[0].name, missing[0].mend.as_deref()),
            (ProtectionName::SwapLimit, Some("a command"))
        );
    }

    #[test]
    fn a_protection_that_nobody_speaks_of_is_off_and_one_doubt_is_enough() {
        let none = Isolation::gather("container", []);
        assert_eq!(none.protections.len(), ProtectionName::ALL.len());
        assert!(none.protections.iter().all(|protection| !protection.on && protection.why.is_some()));
        let name = ProtectionName::Seccomp;
        let both = Isolation::gather("x", [Protection::on(name), Protection::off(name, "doubt")]);
        assert!(both.protections.iter().any(|p| p.name == name && p.why.as_deref() == Some("doubt")));
        let empty = Isolation { kind: "x".into(), protections: vec![] };
        assert_eq!(Level::Complete.missing(&empty).len(), ProtectionName::ALL.len());
    }

    #[test]
    fn names_and_levels_survive_the_wire() {
        for name in ProtectionName::ALL {
            let text = serde_json::to_string(name).unwrap();
            assert_eq!(text, format!("\"{name}\""));
            assert_eq!(serde_json::from_str::<ProtectionName>(&text).unwrap(), *name);
            assert_eq!(text.trim_matches('"').parse(), Ok(*name));
            assert!(name.meaning().ends_with('.'), "{}", name.meaning());
        }
        for level in Level::ALL {
            assert_eq!(level.text().parse(), Ok(level));
        }
        assert!("most".parse::<Level>().unwrap_err().contains("contained"));
        assert_eq!(
            serde_json::to_string(&Protection::on(ProtectionName::Seccomp)).unwrap(),
            r#"{"name":"seccomp","on":true}"#
        );
    }
}
