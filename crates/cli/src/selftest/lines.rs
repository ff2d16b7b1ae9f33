// SPDX-License-Identifier: Apache-2.0
//! Lines that `msb-probe` tries: in a sandbox, and as a control.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};

use attack::{Answer, Finding, Line, Probe};

use super::client::{CallError, Client};
use super::error::{Act, SelftestError};
use super::ground::Ground;

/// Most lines that are tried by one command.
const LINES_MAX: usize = 40;
/// How long they may take together, in seconds.
const SECONDS: u64 = 120;
/// The program inside.
const PROBE: &str = "/msb-probe";

/// What was found for each line.
pub(crate) type Findings = BTreeMap<String, Answer>;

/// Tries lines in a sandbox.
pub(crate) fn inside(client: &Client, sandbox: &str, lines: &[&Line]) -> Result<Findings, SelftestError> {
    let mut findings = Findings::new();
    // What takes memory or processes may take its own command along, and must not take others'.
    let (calls, acts): (Vec<&Line>, Vec<&Line>) =
        lines.iter().copied().partition(|line| matches!(line.probe, Probe::Calls(_)));
    for some in calls.chunks(LINES_MAX).chain(acts.chunks(1)) {
        let mut words = vec![PROBE, "run"];
        words.extend(some.iter().map(|line| line.id.as_str()));
        let ran = client.command(sandbox, &words, SECONDS);
        match ran {
            Ok(ran) => {
                findings.extend(read(&ran.output));
                if let ([line], Some(signal)) = (some, ran.signal) {
                    findings.entry(line.id.clone()).or_insert(Answer::Killed(signal));
                }
                missing(&mut findings, some, &format!("{} {}", ran.output, ran.error));
            }
            Err(CallError::Refused(refusal)) => missing(&mut findings, some, &refusal.text),
            Err(broken @ CallError::Broken(_)) => return Err(SelftestError::Server(broken.to_string())),
        }
    }
    Ok(findings)
}

/// Tries lines as a control.
pub(crate) fn outside(ground: &Ground, lines: &[&Line]) -> Result<Findings, SelftestError> {
    let mut findings = Findings::new();
    for some in lines.chunks(LINES_MAX) {
        let ran = Command::new(ground.probe())
            .arg("control")
            .arg(ground.control())
            .args(some.iter().map(|line| line.id.as_str()))
            .env_clear()
            .stdin(Stdio::null())
            .output()
            .act("start the control")?;
        findings.extend(read(&String::from_utf8_lossy(&ran.stdout)));
        if !ran.status.success() {
            let why = String::from_utf8_lossy(&ran.stderr).trim().to_owned();
            missing(&mut findings, some, &format!("the control ended with {}: {why}", ran.status));
        }
    }
    Ok(findings)
}

/// Notes why lines have no finding.
fn missing(findings: &mut Findings, lines: &[&Line], why: &str) {
    let why: String = why.chars().take(200).collect();
    for line in lines {
        findings.entry(line.id.clone()).or_insert_with(|| Answer::Unable(why.trim().to_owned()));
    }
}

fn read(output: &str) -> Findings {
    let findings = output.lines().filter_map(|line| serde_json::from_str::<Finding>(line).ok());
    findings.map(|finding| (finding.id, finding.answer)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_are_read_and_other_output_is_not() {
        let text = "noise\n{\"id\":\"a\",\"answer\":{\"error\":1}}\n{\"id\":\"b\"}\n";
        assert_eq!(read(text), Findings::from([("a".to_owned(), Answer::Error(1))]));
    }
}
