// SPDX-License-Identifier: Apache-2.0
//! `msb-probe`: tries lines of the attack list where it is, and prints what came back.
//!
//! It belongs inside a sandbox, started by `msb selftest`. Outside of one it works as a control alone, in kernel
//! namespaces that it makes for itself ([`control`]).

mod acts;
mod control;
mod play;
mod run;
mod traces;

use std::io::Write;
use std::process::ExitCode;

const USAGE: &str = "msb-probe is started by `msb selftest`, inside sandboxes and beside them";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["--version"] => say(concat!("msb-probe ", env!("CARGO_PKG_VERSION"))),
        ["hello"] => say("hello"),
        ["run", ids @ ..] => inside().and_then(|()| run::run(ids, run::Where::Inside)),
        ["control", root, ids @ ..] => control::control(root, ids),
        ["control-root", root, ids @ ..] => control::control_root(root, ids),
        ["control-run", ids @ ..] => run::run(ids, run::Where::Outside),
        ["leave"] => inside().and_then(|()| traces::leave()),
        ["find", name] => inside().and_then(|()| traces::find(name)),
        ["play", scene, rest @ ..] => inside().and_then(|()| play::play(scene, rest)),
        _ => Err(std::io::Error::other(USAGE)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody is there to read when standard error is closed.
            let _ = writeln!(std::io::stderr(), "msb-probe: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Writes a line to standard output.
fn say(text: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}")?;
    out.flush()
}

/// Refuses to go on where root is root of the host: there these attempts would succeed, for everybody.
fn inside() -> std::io::Result<()> {
    let map = fs_err::read_to_string("/proc/self/uid_map")?;
    // An ordinary user's sandbox is in a namespace that he made, of which 0 is 0 too; but the host has every id there is.
    let first: Vec<&str> = map.split_whitespace().take(3).collect();
    if first == ["0", "0", "4294967295"] && rustix::process::geteuid().is_root() {
        return Err(std::io::Error::other("this is no sandbox: here, root is root of the host"));
    }
    Ok(())
}
