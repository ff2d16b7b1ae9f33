// SPDX-License-Identifier: Apache-2.0
//! The other ways into the kernel: what is refused the ordinary way, as 32-bit programs and as x32 do it.

use std::collections::BTreeSet;

use nix::libc;

use crate::abi::{as_i386, as_x32};
use crate::answer::Answer;
use crate::line::{Control, Group, Line, Probe, Wanted};

/// Makes the lines that try each call of other lines again. A call is tried once each way, with the arguments of the
/// first line that has it.
pub(super) fn lines(of: &[Line]) -> Vec<Line> {
    let mut seen = BTreeSet::new();
    let single = of.iter().filter_map(|line| match &line.probe {
        Probe::Calls(calls) if calls.len() == 1 && is_refused(&line.wall) => Some((line, &calls[0])),
        Probe::Calls(_) | Probe::Act(_) | Probe::Scene(_) => None,
    });
    let first = single.filter(|(_, call)| seen.insert(call.number));
    first
        .flat_map(|(line, call)| {
            let old = as_i386(call).map(|call| again(line, "i386", "as a 32-bit program", call));
            let x32 = again(line, "x32", "by its number of x32", as_x32(call));
            old.into_iter().chain([x32])
        })
        .collect()
}

fn is_refused(wall: &Wanted) -> bool {
    let refused = |answer: &Answer| matches!(answer, Answer::Error(libc::EPERM | libc::ENOSYS));
    matches!(wall, Wanted::Is(answer) if refused(answer))
}

fn again(line: &Line, suffix: &str, way: &str, call: sys::attempt::Call) -> Line {
    // The arguments are those of the ordinary way; where the kernel reads them otherwise, it still looks at them.
    let control = match &line.control {
        Control::Calls(calls, wanted) if calls.len() == 1 => {
            let other = if suffix == "x32" { Some(as_x32(&calls[0])) } else { as_i386(&calls[0]) };
            other.map_or(Control::Same(Wanted::Reached), |call| Control::Calls(vec![call], wanted.clone()))
        }
        Control::Needless(why) => Control::Needless(why),
        Control::Calls(..) | Control::Same(_) | Control::Within => Control::Same(Wanted::Reached),
    };
    Line {
        id: format!("{}-{suffix}", line.id),
        group: Group::OtherEntries,
        tries: format!("{}, {way}", line.tries),
        probe: Probe::Calls(vec![call]),
        wall: Wanted::Is(Answer::Error(libc::ENOSYS)),
        control,
        needs: line.needs,
    }
}

#[cfg(test)]
mod tests {
    use crate::abi::X32_BIT;
    use crate::list::list;

    use super::*;

    #[test]
    fn what_matters_is_tried_each_way() {
        let all = list();
        let ids: BTreeSet<&str> = all.iter().map(|line| line.id.as_str()).collect();
        for id in
            ["mount-tmpfs", "unshare-user", "clone-user", "ptrace-attach", "bpf-map", "add-key", "raw-icmp"]
        {
            assert!(ids.contains(format!("{id}-i386").as_str()), "{id}");
            assert!(ids.contains(format!("{id}-x32").as_str()), "{id}");
        }
    }

    #[test]
    fn no_call_is_tried_twice_one_way() {
        let mut seen = BTreeSet::new();
        for line in list().iter().filter(|line| line.id.ends_with("-x32")) {
            let Probe::Calls(calls) = &line.probe else { panic!("{}", line.id) };
            assert!(calls[0].number & X32_BIT != 0 && seen.insert(calls[0].number), "{}", line.id);
        }
    }
}
