// SPDX-License-Identifier: Apache-2.0
//! What differs between the languages: how the interpreter is called and what it is given to run.

use protocol::agent::Language;

/// How to start one language's kernel.
pub(super) struct Driver {
    /// What the language is called in messages.
    pub(super) name: &'static str,
    /// What an image with it may be.
    pub(super) image: &'static str,
    /// The names under which images have the interpreter, best first.
    pub(super) interpreters: &'static [&'static str],
    /// The option that takes source text.
    pub(super) option: &'static str,
    /// The driver itself.
    pub(super) source: &'static str,
}

/// What stands in a driver's head in front of the source text that reads the driver and runs it.
const BOOTSTRAP: &str = " BOOTSTRAP: ";

const PYTHON: Driver = Driver {
    name: "python",
    image: "an image with Python, such as microsandbox/python",
    interpreters: &["python3", "python"],
    option: "-c",
    source: include_str!("python.py"),
};

const NODE: Driver = Driver {
    name: "node",
    image: "an image with Node.js, such as microsandbox/node",
    interpreters: &["node", "nodejs"],
    option: "-e",
    source: concat!(include_str!("node.mjs"), include_str!("errors.mjs"), include_str!("imports.mjs")),
};

impl Driver {
    /// Returns the source text with which the interpreter is started: one line that the driver itself names.
    pub(super) fn bootstrap(&self) -> &'static str {
        let mut lines = self.source.lines();
        let line = lines.find_map(|line| line.split_once(BOOTSTRAP));
        line.map_or("", |(_, bootstrap)| bootstrap)
    }
}

/// Returns what a language needs.
pub(super) fn of(language: Language) -> &'static Driver {
    match language {
        Language::Python => &PYTHON,
        Language::Node => &NODE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_drivers_name_their_bootstrap() {
        for driver in [PYTHON, NODE] {
            assert!(driver.bootstrap().contains("203"), "{}: {}", driver.name, driver.bootstrap());
        }
    }
}
