// SPDX-License-Identifier: Apache-2.0
//! From what came back, inside and outside, to a verdict: pure.

use std::fmt;

use nix::libc;
use serde::Serialize;

use crate::answer::Answer;
use crate::line::{Control, Line, Wanted};

/// What becomes of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// The wall answered as it must, and without it the attempt gets further.
    Pass,
    /// The wall did not answer as it must.
    Fail,
    /// The wall answered as it must, but on this host the attempt gets nowhere without it either.
    NotApplicable,
}

/// Judges a line by the wall's answer and the control's, and says why where it did not pass.
pub fn judge(line: &Line, wall: &Answer, control: Option<&Answer>) -> (Verdict, String) {
    if !line.wall.holds(wall) {
        return (Verdict::Fail, format!("the wall must answer {}, and the answer was {wall}", line.wall));
    }
    let wanted = match &line.control {
        Control::Within | Control::Needless(_) => return (Verdict::Pass, String::new()),
        Control::Same(wanted) | Control::Calls(_, wanted) => wanted,
    };
    match control {
        Some(answer) if wanted.holds(answer) => (Verdict::Pass, String::new()),
        Some(Answer::Unable(why)) => (Verdict::NotApplicable, why.clone()),
        Some(Answer::Error(libc::ENOSYS)) => {
            (Verdict::NotApplicable, "this kernel does not have the call".to_owned())
        }
        Some(answer) => {
            (Verdict::NotApplicable, format!("without the wall this host answers {answer}, not {wanted}"))
        }
        None => (Verdict::NotApplicable, "it was not tried without the wall".to_owned()),
    }
}

impl Wanted {
    /// Says whether an answer is one of those.
    pub fn holds(&self, answer: &Answer) -> bool {
        match self {
            Wanted::Is(wanted) => answer == wanted,
            Wanted::OneOf(wanted) => wanted.contains(answer),
            Wanted::AtMost(most) => match answer {
                Answer::Returned(value) => value <= most,
                Answer::Killed(signal) => *signal == libc::SIGKILL,
                Answer::Error(_) | Answer::Said(_) | Answer::Unable(_) => false,
            },
            Wanted::Hidden(most) => match answer {
                Answer::Returned(value) => value <= most,
                Answer::Error(number) => *number == libc::ENOENT,
                Answer::Killed(_) | Answer::Said(_) | Answer::Unable(_) => false,
            },
            Wanted::MoreThan(least) => matches!(answer, Answer::Returned(value) if value > least),
            Wanted::Done => matches!(answer, Answer::Returned(_)),
            Wanted::Reached => match answer {
                Answer::Returned(_) => true,
                Answer::Error(number) => !matches!(*number, libc::EPERM | libc::EACCES | libc::ENOSYS),
                Answer::Killed(_) | Answer::Said(_) | Answer::Unable(_) => false,
            },
        }
    }
}

impl fmt::Display for Wanted {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Wanted::Is(answer) => write!(out, "{answer}"),
            Wanted::OneOf(answers) => {
                let texts: Vec<String> = answers.iter().map(ToString::to_string).collect();
                out.write_str(&texts.join(" or "))
            }
            Wanted::AtMost(most) => write!(out, "at most {most}"),
            Wanted::Hidden(most) => write!(out, "ENOENT or at most {most}"),
            Wanted::MoreThan(least) => write!(out, "more than {least}"),
            Wanted::Done => out.write_str("done"),
            Wanted::Reached => out.write_str("anything but missing rights"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::line::{Group, Probe};

    fn line(control: Control) -> Line {
        Line {
            id: "x".into(),
            group: Group::Mounts,
            tries: "x".into(),
            probe: Probe::Calls(vec![]),
            wall: Wanted::Is(Answer::Error(libc::EPERM)),
            control,
            needs: None,
        }
    }

    #[test]
    fn a_wrong_answer_fails_whatever_the_control_says() {
        for control in [Some(Answer::Returned(0)), Some(Answer::Error(libc::EPERM)), None] {
            let line = line(Control::Same(Wanted::Done));
            assert_eq!(judge(&line, &Answer::Returned(0), control.as_ref()).0, Verdict::Fail);
            assert_eq!(judge(&line, &Answer::Error(libc::EINVAL), control.as_ref()).0, Verdict::Fail);
            assert_eq!(judge(&line, &Answer::Unable("x".into()), control.as_ref()).0, Verdict::Fail);
        }
    }

    #[test]
    fn a_right_answer_passes_only_where_the_control_gets_further() {
        let line = line(Control::Same(Wanted::Done));
        let refused = Answer::Error(libc::EPERM);
        assert_eq!(judge(&line, &refused, Some(&Answer::Returned(3))), (Verdict::Pass, String::new()));
        let (verdict, why) = judge(&line, &refused, Some(&Answer::Error(libc::ENODEV)));
        assert_eq!(verdict, Verdict::NotApplicable);
        assert!(why.contains("ENODEV"), "{why}");
        assert_eq!(judge(&line, &refused, None).0, Verdict::NotApplicable);
    }

    #[test]
    fn a_harmless_form_must_get_past_the_look_at_rights() {
        let reached = |answer| Wanted::Reached.holds(&answer);
        assert!(reached(Answer::Error(libc::EINVAL)) && reached(Answer::Returned(0)));
        for number in [libc::EPERM, libc::EACCES, libc::ENOSYS] {
            assert!(!reached(Answer::Error(number)));
        }
        assert!(!reached(Answer::Killed(11)));
    }

    #[test]
    fn a_limit_holds_when_less_was_given_or_the_taker_was_killed() {
        let limit = Wanted::AtMost(10);
        assert!(limit.holds(&Answer::Returned(10)) && limit.holds(&Answer::Killed(9)));
        assert!(!limit.holds(&Answer::Returned(11)) && !limit.holds(&Answer::Error(1)));
    }
}
