// SPDX-License-Identifier: Apache-2.0
//! How far a build is, from what `mmdebstrap` says it does.

/// A step of the build that begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Progress {
    /// How much of the whole is done.
    pub(crate) percent: u8,
    /// What is being done now.
    pub(crate) step: &'static str,
}

impl Progress {
    /// Nothing was started yet.
    pub(crate) const PREPARING: Progress = Progress { percent: 0, step: "preparing" };
    /// Node comes from its registry.
    pub(crate) const NODE: Progress = Progress { percent: 2, step: "fetching Node" };
    /// The image is there.
    pub(crate) const DONE: Progress = Progress { percent: 100, step: "done" };
}

/// What `mmdebstrap` says, and the step that begins with it (what it skips was done by a script of ours just then). The shares are those of a build on a machine with two
/// processors and a near mirror.
const STEPS: [(&str, Progress); 7] = [
    ("running apt-get update", Progress { percent: 5, step: "fetching package lists" }),
    ("downloading packages", Progress { percent: 10, step: "downloading packages" }),
    ("extracting archives", Progress { percent: 30, step: "unpacking the base system" }),
    ("installing essential packages", Progress { percent: 35, step: "installing the base system" }),
    ("installing remaining packages", Progress { percent: 55, step: "installing packages" }),
    ("skipping cleanup/apt", Progress { percent: 88, step: "cleaning" }),
    ("creating tarball", Progress { percent: 92, step: "writing the archive" }),
];

/// Finds the step that a line of output begins, if it does.
pub(crate) fn of(line: &str) -> Option<Progress> {
    let said = line.strip_prefix("I: ")?;
    STEPS.iter().find(|(start, _)| said.starts_with(start)).map(|(_, progress)| *progress)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_come_from_informational_lines_alone() {
        let step = |line| of(line).map(|progress| progress.step);
        assert_eq!(step("I: downloading packages with apt..."), Some("downloading packages"));
        assert_eq!(step("I: creating tarball..."), Some("writing the archive"));
        assert_eq!(step("W: creating tarball..."), None);
        assert_eq!(step("downloading packages"), None);
        assert_eq!(step("I: something else"), None);
    }

    #[test]
    fn progress_never_goes_back() {
        let percents: Vec<u8> = [Progress::PREPARING, Progress::NODE]
            .into_iter()
            .chain(STEPS.map(|(_, progress)| progress))
            .chain([Progress::DONE])
            .map(|progress| progress.percent)
            .collect();
        assert!(percents.is_sorted(), "{percents:?}");
    }
}
