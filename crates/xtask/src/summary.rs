// SPDX-License-Identifier: Apache-2.0
//! Counts of tests, read from the last lines that the test runners print.

use std::fmt;
use std::ops::AddAssign;

/// How many tests passed, failed and were skipped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) skipped: u64,
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Counts) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

/// Reads nextest's last line: `Summary [   1.2s] 5 tests run: 4 passed (1 slow), 1 timed out, 0 skipped`.
pub(crate) fn nextest(line: &str) -> Option<Counts> {
    let (_, counts) = line.trim_start().strip_prefix("Summary [")?.split_once(':')?;
    let mut total = Counts::default();
    for (count, what) in counted(counts) {
        match what {
            "passed" => total.passed += count,
            // A test that could not be run at all is `exec failed`.
            "failed" | "timed" | "exec" => total.failed += count,
            "skipped" => total.skipped += count,
            _ => {}
        }
    }
    Some(total)
}

/// Reads pytest's last line: `=== 1 failed, 7 passed, 2 skipped, 1 warning in 1.20s ===`, quiet or not.
pub(crate) fn pytest(line: &str) -> Option<Counts> {
    let (counts, time) = line.trim_matches(['=', ' ']).rsplit_once(" in ")?;
    if !time.starts_with(|first: char| first.is_ascii_digit()) {
        return None;
    }
    let mut total = Counts::default();
    let mut known = counts == "no tests ran";
    for (count, what) in counted(counts) {
        match what {
            "passed" | "xpassed" => total.passed += count,
            "failed" | "error" | "errors" => total.failed += count,
            "skipped" | "xfailed" => total.skipped += count,
            _ => continue,
        }
        known = true;
    }
    known.then_some(total)
}

/// Reads the reason off a line of pytest's short summary: `SKIPPED [1] test_x.py:3: needs KVM`.
pub(crate) fn pytest_skip_reason(line: &str) -> Option<&str> {
    let (_, rest) = line.strip_prefix("SKIPPED [")?.split_once("] ")?;
    Some(rest.split_once(": ").map_or(rest, |(_, reason)| reason))
}

/// Splits `4 passed (1 slow), 1 timed out` into its numbers, each with the first word after it.
fn counted(text: &str) -> impl Iterator<Item = (u64, &str)> {
    text.split([',', '(']).filter_map(|part| {
        let mut words = part.split_whitespace();
        Some((words.next()?.parse().ok()?, words.next()?.trim_end_matches(')')))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(passed: u64, failed: u64, skipped: u64) -> Option<Counts> {
        Some(Counts { passed, failed, skipped })
    }

    #[test]
    fn nextest_summaries_are_read() {
        let check = |line, expected| assert_eq!(nextest(line), expected, "{line}");
        check("     Summary [   0.015s] 12 tests run: 12 passed, 0 skipped", counts(12, 0, 0));
        check("     Summary [   9.015s] 1 test run: 0 passed, 1 failed, 3 skipped", counts(0, 1, 3));
        check(
            "     Summary [  61.015s] 9/12 tests run: 5 passed (1 slow, 2 leaky), 2 failed, 1 timed out, 1 exec failed, 3 skipped",
            counts(5, 4, 3),
        );
        check("        PASS [   0.004s] xtask summary::tests::x", None);
        check("error: no tests to run", None);
    }

    #[test]
    fn pytest_summaries_are_read() {
        let check = |line, expected| assert_eq!(pytest(line), expected, "{line}");
        check("============ 3 passed, 1 skipped, 2 warnings in 0.12s ============", counts(3, 0, 1));
        check(
            "= 1 failed, 2 passed, 4 deselected, 1 xfailed, 1 error in 75.20s (0:01:15) =",
            counts(2, 2, 1),
        );
        check("12 passed in 3.01s", counts(12, 0, 0));
        check("============ no tests ran in 0.01s ============", counts(0, 0, 0));
        check("FAILED test_x.py::test_y - assert 1 in 2", None);
        check("waited 3 times in 4", None);
        check("", None);
    }

    #[test]
    fn reasons_of_skipped_tests_are_read() {
        assert_eq!(
            pytest_skip_reason("SKIPPED [2] e2e/test_x.py:31: needs root: really"),
            Some("needs root: really")
        );
        assert_eq!(pytest_skip_reason("PASSED test_x.py"), None);
    }

    #[test]
    fn the_last_line_has_the_form_that_is_promised() {
        let mut sum = Counts { passed: 1, failed: 0, skipped: 2 };
        sum += Counts { passed: 40, failed: 3, skipped: 0 };
        assert_eq!(sum.to_string(), "41 passed, 3 failed, 2 skipped");
    }
}
