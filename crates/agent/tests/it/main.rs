// SPDX-License-Identifier: Apache-2.0
//! The real agent as PID 1 of a pid namespace of its own, spoken to over its socket as the server does.

mod commands;
mod connections;
mod kernels;
#[cfg(test)]
mod sandbox;
mod trees;

#[test]
fn no_test_file_is_forgotten() {
    let source = include_str!("main.rs");
    let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it");
    for entry in fs_err::read_dir(directory).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let module = name.trim_end_matches(".rs");
        assert!(module == "main" || source.contains(&format!("mod {module};")), "{name} is not in main.rs");
    }
}
