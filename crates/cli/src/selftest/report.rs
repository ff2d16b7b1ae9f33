// SPDX-License-Identifier: Apache-2.0
//! What a self-test found, for people and as JSON.

use attack::{Answer, Group, Line, Verdict, Wanted};
use serde::Serialize;

/// The whole report.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// The version of msb.
    pub(crate) version: &'static str,
    /// The release of the kernel.
    pub(crate) kernel: String,
    /// How many lines passed.
    pub(crate) passed: usize,
    /// How many failed.
    pub(crate) failed: usize,
    /// How many say nothing on this host.
    pub(crate) not_applicable: usize,
    /// Seconds that it took.
    pub(crate) seconds: u64,
    /// The middle of the times that a neighbour's answer takes when nothing else happens, in milliseconds.
    pub(crate) neighbour_idle_ms: f64,
    /// The lines.
    pub(crate) lines: Vec<Entry>,
}

/// One line of the report.
#[derive(Debug, Serialize)]
pub(crate) struct Entry {
    /// The line's name, or that of a look at the host after a group.
    pub(crate) id: String,
    /// Its group.
    pub(crate) group: Group,
    /// What was tried.
    pub(crate) tries: String,
    /// What became of it.
    pub(crate) verdict: Verdict,
    /// What the wall must answer.
    pub(crate) wanted: String,
    /// What came back inside.
    pub(crate) answer: String,
    /// What came back without the wall.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) control: Option<String>,
    /// Why it did not pass.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) why: String,
}

impl Entry {
    /// Judges a line of the list.
    pub(crate) fn judged(line: &Line, answer: &Answer, control: Option<&Answer>) -> Entry {
        let (verdict, why) = attack::judge(line, answer, control);
        Entry {
            id: line.id.clone(),
            group: line.group,
            tries: line.tries.clone(),
            verdict,
            wanted: line.wall.to_string(),
            answer: answer.to_string(),
            control: control.map(ToString::to_string),
            why,
        }
    }

    /// A line that this host, or this server, has nothing for.
    pub(crate) fn not_applicable(line: &Line, why: String) -> Entry {
        let answer = Answer::Unable(why.clone());
        Entry { verdict: Verdict::NotApplicable, why, ..Entry::judged(line, &answer, None) }
    }

    /// A look at the host or the neighbour after a group: everything is as it was, or what is not.
    pub(crate) fn look(group: Group, what: &str, tries: &str, changed: &[String]) -> Entry {
        Entry {
            id: format!("after-{}-{what}", group.name()),
            group,
            tries: tries.to_owned(),
            verdict: if changed.is_empty() { Verdict::Pass } else { Verdict::Fail },
            wanted: Wanted::Is(Answer::Said("as before".to_owned())).to_string(),
            answer: if changed.is_empty() { "as before".to_owned() } else { changed.join("; ") },
            control: None,
            why: changed.join("; "),
        }
    }
}

impl Report {
    /// Counts the lines.
    pub(crate) fn new(lines: Vec<Entry>, seconds: u64, neighbour_idle_ms: f64) -> Report {
        let count = |verdict| lines.iter().filter(|line| line.verdict == verdict).count();
        let kernel = rustix::system::uname().release().to_string_lossy().into_owned();
        Report {
            version: env!("CARGO_PKG_VERSION"),
            kernel,
            passed: count(Verdict::Pass),
            failed: count(Verdict::Fail),
            not_applicable: count(Verdict::NotApplicable),
            seconds,
            neighbour_idle_ms,
            lines,
        }
    }

    /// Writes the last lines of the table: what failed, what says nothing here, and how many.
    pub(crate) fn summary(&self) -> String {
        let mut text = String::new();
        for (verdict, title) in
            [(Verdict::Fail, "Failed"), (Verdict::NotApplicable, "Not applicable on this host")]
        {
            let lines: Vec<&Entry> = self.lines.iter().filter(|line| line.verdict == verdict).collect();
            if lines.is_empty() {
                continue;
            }
            text.push_str(&format!("\n{title}:\n"));
            for (why, ids) in by_reason(&lines) {
                text.push_str(&format!("  {why}\n      {}\n", ids.join(", ")));
            }
        }
        let Report { passed, failed, not_applicable, seconds, kernel, .. } = self;
        text.push_str(&format!(
            "\n{passed} passed, {failed} failed, {not_applicable} not applicable, in {seconds} s on Linux {kernel}"
        ));
        text
    }
}

/// Writes one line of the table.
pub(crate) fn row(entry: &Entry) -> String {
    let word = match entry.verdict {
        Verdict::Pass => "pass",
        Verdict::Fail => "FAIL",
        Verdict::NotApplicable => "n/a ",
    };
    let row = format!("  {word}  {:<28}  {}", entry.id, entry.tries);
    match entry.verdict {
        Verdict::Fail => format!("{row}\n        {}", entry.why),
        Verdict::Pass | Verdict::NotApplicable => row,
    }
}

/// Puts lines with the same reason together, in the order of their first.
fn by_reason<'a>(lines: &[&'a Entry]) -> Vec<(&'a str, Vec<&'a str>)> {
    let mut all: Vec<(&str, Vec<&str>)> = Vec::new();
    for line in lines {
        match all.iter_mut().find(|(why, _)| *why == line.why) {
            Some((_, ids)) => ids.push(&line.id),
            None => all.push((&line.why, vec![&line.id])),
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn looks() -> Vec<Entry> {
        let changed = ["a canary changed".to_owned()];
        vec![
            Entry::look(Group::Mounts, "host", "the host is as it was", &[]),
            Entry::look(Group::Agent, "host", "the host is as it was", &changed),
            Entry::look(Group::ProcAndSys, "host", "the host is as it was", &changed),
        ]
    }

    #[test]
    fn what_fails_is_counted_and_told_with_its_reason_once() {
        let report = Report::new(looks(), 3, 1.5);
        assert_eq!((report.passed, report.failed, report.not_applicable), (1, 2, 0));
        let text = report.summary();
        assert_eq!(text.matches("a canary changed").count(), 1, "{text}");
        assert!(text.contains("after-agent-host, after-proc-and-sys-host"), "{text}");
        assert!(text.contains("1 passed, 2 failed, 0 not applicable, in 3 s on Linux"), "{text}");
    }

    #[test]
    fn a_row_begins_with_the_verdict() {
        let rows: Vec<String> = looks().iter().map(row).collect();
        assert!(rows[0].starts_with("  pass  after-mounts-host"), "{rows:?}");
        assert!(rows[1].starts_with("  FAIL  after-agent-host"), "{rows:?}");
    }
}
