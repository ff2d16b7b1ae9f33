// SPDX-License-Identifier: Apache-2.0
//! The server over real sockets, with the fake backend: what a client sees, byte by byte.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod client;

mod calls;
mod envelope;
mod hostile;
mod http;
mod isolation;
mod keys;
mod lifecycle;
mod mcp;
mod metrics;
mod repeats;
mod scopes;
mod shutdown;

/// A file that is not in the list above would never be compiled, and its tests never run.
#[test]
fn no_file_is_forgotten() {
    let listed = include_str!("main.rs");
    for entry in std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it").read_dir().unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap();
        assert!(name == "main" || listed.contains(&format!("mod {name};")), "{name}");
    }
}
