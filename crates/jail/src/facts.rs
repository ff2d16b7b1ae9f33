// SPDX-License-Identifier: Apache-2.0
//! What `msb-jail --probe DIRECTORY` found out about this host, by trying: one JSON document on its standard output.

use serde::{Deserialize, Serialize};

/// Every trial, in the order in which they were made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// The trials.
    pub trials: Vec<Trial>,
}

/// One thing that was tried.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trial {
    /// What was tried.
    pub what: What,
    /// Why it does not work here; nothing if it does.
    pub failed: Option<String>,
}

/// What can be tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// A new user namespace.
    UserNamespace,
    /// A new mount namespace in it.
    MountNamespace,
    /// A new pid namespace in it.
    PidNamespace,
    /// A new network namespace in it.
    NetworkNamespace,
    /// A new ipc namespace in it.
    IpcNamespace,
    /// A new uts namespace in it.
    UtsNamespace,
    /// A new cgroup namespace in it.
    CgroupNamespace,
    /// Mapping 65536 ids into it.
    IdRange,
    /// A mount of the directory with the ids of it.
    IdmappedLayers,
    /// A filter on system calls that refuses one.
    Seccomp,
    /// A process that landlock shuts out of every other directory.
    Landlock,
    /// A crash that leaves no core dump.
    CoreDumpsOff,
}

impl Facts {
    /// Returns why something does not work here; nothing if it does.
    ///
    /// What was not tried does not work.
    pub fn failure(&self, what: What) -> Option<&str> {
        match self.trials.iter().find(|trial| trial.what == what) {
            Some(trial) => trial.failed.as_deref(),
            None => Some("it could not be tried"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_tried_counts_as_missing() {
        let facts = Facts {
            trials: vec![
                Trial { what: What::Landlock, failed: None },
                Trial { what: What::IdRange, failed: Some("no".into()) },
            ],
        };
        assert_eq!(facts.failure(What::Landlock), None);
        assert_eq!(facts.failure(What::IdRange), Some("no"));
        assert!(facts.failure(What::Seccomp).is_some());
        let text = serde_json::to_string(&facts).unwrap();
        assert_eq!(serde_json::from_str::<Facts>(&text).unwrap(), facts);
    }
}
