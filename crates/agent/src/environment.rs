// SPDX-License-Identifier: Apache-2.0
//! Who programs are, where they start and what they see: user, working directory, environment, and where they are
//! looked for. Nothing of it is the agent's own: that has an empty environment and stays root of the sandbox.

use std::ffi::CString;
use std::path::Path;

use protocol::config::AgentConfig;
use rustix::fs::{Access, access};
use sys::spawn::{Ids, Program};

use crate::account::{self, AccountError};
use crate::workdir::{self, WorkdirError};

/// Where programs are looked for if the configuration has no `PATH`.
const PATH_DEFAULT: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The environment of all kernels and commands, prepared once.
pub(crate) struct Environment {
    envp: Vec<CString>,
    search_path: String,
    workdir: CString,
    ids: Option<Ids>,
}

/// Why a sandbox cannot be what it shall be, for what its image has or lacks.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UnfitError {
    #[error(transparent)]
    User(#[from] AccountError),
    #[error(transparent)]
    Workdir(#[from] WorkdirError),
    #[error("the environment has a zero byte")]
    ZeroByte(#[from] std::ffi::NulError),
}

impl Environment {
    /// Takes it from the configuration: finds the user, and makes the working directory if it is missing.
    pub(crate) fn new(config: &AgentConfig) -> Result<Environment, UnfitError> {
        let found = account::find(config.user.as_deref())?;
        let workdir = match &config.workdir {
            Some(workdir) => {
                workdir::make(workdir)?;
                workdir.as_str()
            }
            // A home that does not exist is common: that of `nobody`.
            None if Path::new(&found.home).is_dir() => found.home.as_str(),
            None => "/",
        };
        let home = ("HOME".to_owned(), found.home.clone());
        let has_home = config.envs.iter().any(|(name, _)| name == "HOME");
        let envs = config.envs.iter().chain((!has_home).then_some(&home));
        let envp = envs.map(|(name, value)| CString::new(format!("{name}={value}")));
        let search_path = config.envs.iter().rev().find(|(name, _)| name == "PATH");
        Ok(Environment {
            envp: envp.collect::<Result<_, _>>()?,
            search_path: search_path.map_or(PATH_DEFAULT, |(_, value)| value).to_owned(),
            workdir: CString::new(workdir)?,
            ids: found.ids,
        })
    }

    /// Returns the directories in which programs are looked for, as `PATH` has them.
    pub(crate) fn search_path(&self) -> &str {
        &self.search_path
    }

    /// Returns the directory in which programs start.
    pub(crate) fn workdir(&self) -> String {
        self.workdir.to_string_lossy().into_owned()
    }

    /// Returns what is needed to start a command; `None` if its name or an argument holds a zero byte.
    pub(crate) fn program(&self, command: &str, args: &[String]) -> Option<Program> {
        let argv = std::iter::once(command).chain(args.iter().map(String::as_str)).map(CString::new);
        let paths = self.candidates(command).into_iter().map(CString::new);
        Some(Program {
            paths: paths.collect::<Result<_, _>>().ok()?,
            argv: argv.collect::<Result<_, _>>().ok()?,
            envp: self.envp.clone(),
            workdir: self.workdir.clone(),
            ids: self.ids.clone(),
        })
    }

    /// Returns the first of these names that is an executable file in an absolute directory of `PATH`.
    pub(crate) fn find(&self, names: &[&str]) -> Option<String> {
        let absolute = |path: &String| path.starts_with('/');
        let usable =
            |path: &String| Path::new(path).is_file() && access(path.as_str(), Access::EXEC_OK).is_ok();
        names.iter().find_map(|name| self.candidates(name).into_iter().filter(absolute).find(usable))
    }

    fn candidates(&self, command: &str) -> Vec<String> {
        if command.is_empty() || command.contains('/') {
            return vec![command.to_owned()];
        }
        let directories = self.search_path.split(':');
        // An empty entry is the working directory, as everywhere.
        directories.map(|d| format!("{}/{command}", if d.is_empty() { "." } else { d })).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(path: &str) -> Environment {
        let envs = vec![("A".into(), "1".into()), ("PATH".into(), path.into())];
        let config = AgentConfig {
            secret: String::new(),
            envs,
            workdir: Some("/".into()),
            user: None,
            prestart: None,
            program_group: false,
            program_nice: 0,
        };
        Environment::new(&config).unwrap()
    }

    #[test]
    fn names_are_looked_up_in_the_configured_path_and_paths_are_not() {
        let paths = |command: &str| environment("/a::b").program(command, &[]).unwrap().paths;
        assert_eq!(paths("x"), [c"/a/x".to_owned(), c"./x".to_owned(), c"b/x".to_owned()]);
        assert_eq!(paths("./x"), [c"./x".to_owned()]);
    }

    #[test]
    fn home_is_that_of_the_user_unless_the_environment_has_one() {
        let homes = |envs: &[(&str, &str)]| {
            let envs = envs.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
            let config = AgentConfig {
                secret: String::new(),
                envs,
                workdir: None,
                user: Some("4242:4242".into()),
                prestart: None,
                program_group: false,
                program_nice: 0,
            };
            let environment = Environment::new(&config).unwrap();
            assert_eq!(environment.workdir(), "/");
            let envp = environment.program("x", &[]).unwrap().envp;
            envp.into_iter().map(|pair| pair.into_string().unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(homes(&[("A", "b")]), ["A=b", "HOME=/"]);
        assert_eq!(homes(&[("HOME", "/mine")]), ["HOME=/mine"]);
    }

    #[test]
    fn zero_bytes_are_refused() {
        assert!(environment("/bin").program("a\0b", &[]).is_none());
        assert!(environment("/bin").program("a", &["\0".to_owned()]).is_none());
    }

    #[test]
    fn an_interpreter_is_the_first_executable_of_its_names() {
        assert_eq!(environment("/nowhere:/bin").find(&["no-such-name", "sh"]).as_deref(), Some("/bin/sh"));
        assert_eq!(environment("/etc").find(&["passwd"]), None, "not executable");
        assert_eq!(environment("bin:").find(&["sh"]), None, "relative");
    }
}
