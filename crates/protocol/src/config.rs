// SPDX-License-Identifier: Apache-2.0
//! What an agent is told once, when it starts: one JSON document on the descriptor [`CONFIG_FD`].

use serde::{Deserialize, Serialize};

use crate::agent::Language;

/// The descriptor on which an agent finds its listening unix socket.
pub const LISTENER_FD: i32 = 3;
/// The descriptor from which an agent reads its [`AgentConfig`], to the end.
pub const CONFIG_FD: i32 = 4;

/// The descriptor of the entry file of the cgroup that programs run in, but not the agent, where there is one.
pub const PROGRAM_GROUP_FD: i32 = 5;

/// What one agent must know about its sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentConfig {
    /// The secret that every connection must present, as text.
    pub secret: String,
    /// The environment of kernels and commands, in order; `HOME` is added if it is not in it.
    pub envs: Vec<(String, String)>,
    /// The directory in which kernels and commands start, made if it is missing; the home directory if none is named.
    pub workdir: Option<String>,
    /// Who kernels and commands are, as [`crate::user::User`] reads it; root if nobody is named.
    #[serde(default)]
    pub user: Option<String>,
    /// The language whose kernel is started before anybody asks for it.
    pub prestart: Option<Language>,
    /// Whether there is a descriptor [`PROGRAM_GROUP_FD`].
    #[serde(default)]
    pub program_group: bool,
    /// The nice value of programs, above the agent's: where nothing else lets it act before what they do.
    #[serde(default)]
    pub program_nice: i32,
}
