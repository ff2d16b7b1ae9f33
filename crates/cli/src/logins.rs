// SPDX-License-Identifier: Apache-2.0
//! `msb registry`: names and passwords for registries. A password is never an argument: others could read it there.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead, BufReader, IsTerminal, Read, Write};
use std::path::Path;

use image::registry::Registry;
use image::registry::credentials::{self, Credentials, Login, Secret};
use protocol::limits::PASSWORD_BYTES_MAX;
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use serde::Serialize;

use crate::args::{ListArgs, LoginArgs, LogoutArgs};
use crate::failure::{self, Failure};
use crate::interrupt::{blocking_unless_interrupted, unless_interrupted};
use crate::output::{print, print_json, table};
use crate::registry::{ConnectionArgs, docker_config};

/// Keeps a login that the registry takes.
pub(crate) fn login(arguments: LoginArgs) -> Result<(), Failure> {
    let LoginArgs { host, username, password_stdin, no_verify, connection, home } = arguments;
    let password = match password_stdin {
        true => first_line(std::io::stdin().lock())?,
        false => asked(&username, &host)?,
    };
    if password.is_empty() {
        return Err(Failure::NoPassword("the line is empty"));
    }
    let password = Secret::new(password);
    if !no_verify {
        verify(
            &host,
            Login::Password { username: username.clone(), password: password.clone() },
            connection,
        )?;
    }
    let home = failure::made_home(home)?;
    credentials::save_login(&home, &host, &username, password).map_err(Failure::Logins)?;
    let checked = if no_verify { "unchecked" } else { "and works" };
    print(&format!(
        "the login of {username} for {host} is kept, {checked}; the next pull uses it, and a server that is started after this"
    ))
}

/// Asks the registry whether it takes a login.
fn verify(host: &str, login: Login, connection: ConnectionArgs) -> Result<(), Failure> {
    let mut config = connection.config()?;
    config.credentials.add(host, login);
    let registry = Registry::new(config).map_err(Failure::Registry)?;
    let asking = async {
        let refused = |source| Failure::Login { host: host.to_owned(), source: Box::new(source) };
        registry.takes_login(host).await.map_err(refused)
    };
    match unless_interrupted(asking, "nothing was kept")? {
        true => Ok(()),
        false => Err(Failure::NoLoginWanted(host.to_owned())),
    }
}

/// Forgets a login.
pub(crate) fn logout(arguments: LogoutArgs) -> Result<(), Failure> {
    let home = failure::home(arguments.home)?;
    credentials::remove_login(&home, &arguments.host).map_err(Failure::Logins)?;
    print(&format!("the login for {} is forgotten", arguments.host))
}

/// A registry that there is a login for.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
struct Row {
    registry: String,
    /// Who keeps the login.
    kept_by: &'static str,
}

/// Lists the registries.
pub(crate) fn list(arguments: ListArgs) -> Result<(), Failure> {
    let home = failure::home(arguments.home)?;
    let rows = rows(&home, docker_config().as_deref())?;
    if arguments.json {
        return print_json(&rows);
    }
    if rows.is_empty() {
        return print("no logins yet: keep one with: msb registry login HOST -u USER");
    }
    let cells: Vec<[&str; 2]> = rows.iter().map(|row| [row.registry.as_str(), row.kept_by]).collect();
    print(&table(["REGISTRY", "KEPT BY"], &cells))
}

fn rows(home: &Path, docker: Option<&Path>) -> Result<BTreeSet<Row>, Failure> {
    let load = |docker| Credentials::load(home, docker).map_err(Failure::Logins);
    let own: BTreeSet<String> = load(None)?.registries().map(str::to_owned).collect();
    let all = load(docker)?;
    let row = |registry: &str| Row {
        registry: registry.to_owned(),
        kept_by: if own.contains(registry) { "msb" } else { "docker" },
    };
    Ok(all.registries().map(row).collect())
}

/// Reads a line, without its end.
fn first_line(from: impl Read) -> Result<String, Failure> {
    let mut line = Vec::new();
    let read = BufReader::new(from.take(PASSWORD_BYTES_MAX + 1)).read_until(b'\n', &mut line);
    read.map_err(Failure::system("read the password"))?;
    if line.len() as u64 > PASSWORD_BYTES_MAX {
        return Err(Failure::NoPassword("the line is too long"));
    }
    let line = String::from_utf8(line).map_err(|_| Failure::NoPassword("the line is not UTF-8"))?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

/// Asks on the terminal, without showing what is typed.
fn asked(username: &str, host: &str) -> Result<String, Failure> {
    let terminal = std::io::stdin();
    if !terminal.is_terminal() {
        return Err(Failure::NoPassword("standard input is no terminal to ask on"));
    }
    let cannot = |error: rustix::io::Errno| Failure::system("ask on the terminal")(error.into());
    let terminal = rustix::io::dup(&terminal).map(File::from).map_err(cannot)?;
    let quiet = Quiet::new(&terminal).map_err(cannot)?;
    // Nobody is there to read when standard error is closed.
    let _ = write!(std::io::stderr(), "Password of {username} for {host}: ");
    let input = terminal.try_clone().map_err(Failure::system("ask on the terminal"))?;
    let line = blocking_unless_interrupted(move || first_line(input), "nothing was kept");
    drop(quiet);
    let _ = writeln!(std::io::stderr());
    line
}

/// A terminal that does not show what is typed, as long as this lives.
struct Quiet<'a> {
    terminal: &'a File,
    before: Termios,
}

impl Quiet<'_> {
    fn new(terminal: &File) -> rustix::io::Result<Quiet<'_>> {
        let before = tcgetattr(terminal)?;
        let mut quiet = before.clone();
        quiet.local_modes.remove(LocalModes::ECHO);
        tcsetattr(terminal, OptionalActions::Flush, &quiet)?;
        Ok(Quiet { terminal, before })
    }
}

impl Drop for Quiet<'_> {
    fn drop(&mut self) {
        // A terminal that is gone shows nothing.
        let _ = tcsetattr(self.terminal, OptionalActions::Now, &self.before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_one_line() {
        for text in ["s3cret", "s3cret\n", "s3cret\r\n", "s3cret\nmore\n"] {
            assert_eq!(first_line(text.as_bytes()).unwrap(), "s3cret");
        }
        assert_eq!(first_line(" a b \n".as_bytes()).unwrap(), " a b ");
        assert!(first_line(&b"\xff\n"[..]).is_err());
        assert!(first_line(std::io::repeat(b'a')).is_err());
    }

    #[test]
    fn logins_are_listed_with_who_keeps_them() {
        let folder = tempfile::tempdir().unwrap();
        let docker = folder.path().join("config.json");
        fs_err::write(&docker, r#"{"auths":{"b.example":{"auth":"YW5uOnMzY3JldA=="}}}"#).unwrap();
        credentials::save_login(folder.path(), "a.example", "ann", Secret::new("s3cret")).unwrap();
        let rows = rows(folder.path(), Some(&docker)).unwrap();
        let found: Vec<(&str, &str)> = rows.iter().map(|row| (row.registry.as_str(), row.kept_by)).collect();
        assert_eq!(found, [("a.example", "msb"), ("b.example", "docker")]);
    }
}
