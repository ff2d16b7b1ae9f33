// SPDX-License-Identifier: Apache-2.0
//! With whose rights walls are built: those of real root, or those that an ordinary user has in a user namespace of his
//! own, in which he is root.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Whose rights they are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rights {
    /// Those of real root.
    #[default]
    Root,
    /// Those of an ordinary user.
    User(UserIds),
}

/// The ids that an ordinary user can map.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UserIds {
    /// The user; root of his namespace.
    pub user: u32,
    /// His group.
    pub group: u32,
    /// Those beside his own; without them there is nobody but root inside.
    pub more: Option<SubIds>,
}

/// A range of ids that the host's administrator gave to a user (`subuid(5)`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SubIds {
    /// The first user id; it is 1 inside.
    pub first_user: u32,
    /// The first group id; it is 1 inside.
    pub first_group: u32,
    /// How many there are of each.
    pub count: u32,
    /// The program that maps users (`newuidmap(1)`).
    pub map_users: PathBuf,
    /// The program that maps groups.
    pub map_groups: PathBuf,
}

impl Rights {
    /// Whether supplementary groups can be set; with one id alone the kernel refuses it (`user_namespaces(7)`).
    pub fn set_groups(&self) -> bool {
        match self {
            Rights::Root => true,
            Rights::User(ids) => ids.more.is_some(),
        }
    }
}
