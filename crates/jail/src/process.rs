// SPDX-License-Identifier: Apache-2.0
//! Which process is the first of a sandbox, written down so that a later server can end it: a pid alone could be
//! another process by then.

use std::fs::File;
use std::io::{self, Write, read_to_string};
use std::path::Path;

use serde::{Deserialize, Serialize};

/// One process of this host, told apart from all others before and after it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProcessRecord {
    /// Its pid.
    pub pid: i32,
    /// When it began, in ticks since the host did.
    pub began: u64,
    /// Which run of the host that was.
    pub boot: String,
}

impl ProcessRecord {
    /// Describes the process that has a pid now.
    ///
    /// # Errors
    /// When there is none.
    pub fn of(pid: i32) -> io::Result<ProcessRecord> {
        let stat = read_to_string(File::open(format!("/proc/{pid}/stat"))?)?;
        let boot = read_to_string(File::open("/proc/sys/kernel/random/boot_id")?)?.trim().to_owned();
        let began = began(&stat).ok_or_else(|| io::Error::other(format!("/proc/{pid}/stat has no start")))?;
        Ok(ProcessRecord { pid, began, boot })
    }

    /// Writes it down.
    ///
    /// # Errors
    /// What the file system says.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        File::create(path)?.write_all(&serde_json::to_vec(self)?)
    }

    /// Reads what was written down; `None` where nothing was, or not to the end.
    pub fn read(path: &Path) -> Option<ProcessRecord> {
        serde_json::from_str(&read_to_string(File::open(path).ok()?).ok()?).ok()
    }
}

/// The 22nd field; the second one may have spaces and brackets (`proc_pid_stat(5)`).
fn began(stat: &str) -> Option<u64> {
    stat.rsplit_once(") ")?.1.split(' ').nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_told_by_its_beginning_whatever_its_name() {
        let own = i32::try_from(std::process::id()).unwrap();
        let record = ProcessRecord::of(own).unwrap();
        assert_eq!(record, ProcessRecord::of(own).unwrap());
        assert!(record.began > 0 && record.boot.len() == 36);
        let fields: Vec<String> = (4..=30).map(|n| n.to_string()).collect();
        assert_eq!(began(&format!("7 (a) (b c) S {}", fields.join(" "))), Some(22));
        assert_eq!(began("7 (x) S 1"), None);
    }

    #[test]
    fn half_a_record_is_none() {
        let path = std::env::temp_dir().join(format!("process-record-{}", std::process::id()));
        let record = ProcessRecord { pid: 1, began: 2, boot: "b".into() };
        record.write(&path).unwrap();
        assert_eq!(ProcessRecord::read(&path), Some(record));
        File::create(&path).unwrap().write_all(b"{\"pid\":1,").unwrap();
        assert_eq!(ProcessRecord::read(&path), None);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(ProcessRecord::read(&path), None);
    }
}
