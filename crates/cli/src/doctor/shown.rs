// SPDX-License-Identifier: Apache-2.0
//! What the doctor found, for people.

use std::fmt::Write;

use protocol::isolation::{Level, Protection, ProtectionName};

use super::Findings;

/// Where the second column begins.
const INDENT: usize = 26;

/// Colours of a terminal, or none.
struct Paint(bool);

impl Paint {
    fn with(&self, code: &str, text: &str) -> String {
        if self.0 { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn good(&self, text: &str) -> String {
        self.with("32", text)
    }

    fn bad(&self, text: &str) -> String {
        self.with("31", text)
    }

    fn title(&self, text: &str) -> String {
        self.with("1", text)
    }

    fn faint(&self, text: &str) -> String {
        self.with("2", text)
    }
}

/// Writes it all, in lines of at most so many columns.
pub(super) fn text(findings: &Findings, colours: bool, width: usize) -> String {
    let paint = Paint(colours);
    let who = if findings.root {
        "root"
    } else {
        "an ordinary user: sandboxes work, with fewer protections than root's"
    };
    let mut text = format!("microsandbox {} on Linux {}, as {who}\n", findings.version, findings.kernel);
    for level in [Level::Contained, Level::Limited, Level::Complete] {
        let reached = level.missing(&findings.isolation).is_empty();
        let state = if reached { paint.good("reached") } else { paint.bad("not reached") };
        let _ = write!(text, "\n{}  {state}\n", paint.title(&format!("isolation {level}")));
        for protection in findings.isolation.protections.iter().filter(|one| one.name.level() == level) {
            text.push_str(&shown(protection, &paint, width));
        }
    }
    let _ = write!(text, "\n{}\n", paint.title("images"));
    for image in &findings.images {
        let state = if image.source.is_some() { paint.good("on ") } else { paint.bad("off") };
        let _ = writeln!(text, "  {state} {}", column(image.name, &image.what, width));
        if let Some(mend) = &image.mend {
            text.push_str(&paragraph(&format!("mend: {mend}"), width));
        }
    }
    let server = if findings.server_runs { "runs" } else { "does not run" };
    let _ = write!(text, "\n{}\n  {server} with the home {}", paint.title("server"), findings.home.display());
    text
}

fn shown(protection: &Protection, paint: &Paint, width: usize) -> String {
    let name = protection.name;
    if protection.on {
        let special = protection.why.as_ref().map(|why| format!(" Here, {why}.")).unwrap_or_default();
        let meaning = format!("{}{special}", name.meaning());
        let meaning = paint_lines(&column(name.text(), &meaning, width), name, paint);
        return format!("  {} {meaning}\n", paint.good("on "));
    }
    let why = protection.why.as_deref().unwrap_or("nobody says why");
    let mut text = format!("  {} {}\n", paint.bad("off"), column(name.text(), why, width));
    if let Some(mend) = &protection.mend {
        text.push_str(&paragraph(&format!("mend: {mend}"), width));
    }
    text
}

/// Makes the explanation fainter than the name.
fn paint_lines(text: &str, name: ProtectionName, paint: &Paint) -> String {
    let (start, rest) = text.split_at(name.text().len());
    let lines: Vec<String> = rest
        .lines()
        .map(|line| {
            let words = line.trim_start();
            format!("{}{}", &line[..line.len() - words.len()], paint.faint(words))
        })
        .collect();
    format!("{start}{}", lines.join("\n"))
}

/// Writes a name, and beside it a text in as many lines as it needs.
fn column(name: &str, text: &str, width: usize) -> String {
    let lines = wrapped(text, width.saturating_sub(INDENT + 1));
    let beside = INDENT - 6;
    let gap = " ".repeat(INDENT);
    format!("{name:beside$}{}", lines.join(&format!("\n{gap}")))
}

/// Writes a text in the second column.
fn paragraph(text: &str, width: usize) -> String {
    let gap = " ".repeat(INDENT);
    let lines = wrapped(text, width.saturating_sub(INDENT + 1));
    lines.iter().fold(String::new(), |all, line| all + &gap + line + "\n")
}

fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use protocol::isolation::Isolation;

    use super::*;

    fn findings() -> Findings {
        let one = |name: &ProtectionName| match name {
            ProtectionName::SwapLimit => Protection::off(*name, "no swap is counted").mend("swapaccount=1"),
            _ => Protection::on(*name),
        };
        let isolation = Isolation::gather("container", ProtectionName::ALL.iter().map(one));
        Findings {
            version: "1.2.3",
            kernel: "6.1".to_owned(),
            root: true,
            home: "/h".into(),
            server_runs: false,
            level: isolation.level().text(),
            isolation,
            images: vec![],
        }
    }

    #[test]
    fn every_protection_is_there_and_what_is_off_says_why_and_what_mends_it() {
        let text = text(&findings(), false, 80);
        for name in ProtectionName::ALL {
            assert!(text.contains(name.text()), "{name}");
        }
        for line in ["off swap_limit          no swap is counted", "mend: swapaccount=1", "does not run"] {
            assert!(text.contains(line), "{line} is not in {text}");
        }
        assert!(
            text.contains("isolation contained  reached") && text.contains("isolation limited  not reached")
        );
        assert!(!text.contains('\x1b') && text.lines().all(|line| line.chars().count() <= 80), "{text}");
    }

    #[test]
    fn colours_change_nothing_but_the_colour() {
        let (plain, painted) = (text(&findings(), false, 70), text(&findings(), true, 70));
        assert!(painted.contains("\x1b[31m"));
        let mut without = String::new();
        for (place, part) in painted.split('\x1b').enumerate() {
            without.push_str(if place == 0 { part } else { part.split_once('m').unwrap().1 });
        }
        assert_eq!(without, plain);
    }
}
