// SPDX-License-Identifier: Apache-2.0
//! Turns a table of rules into a seccomp program: a binary search over the numbers of system calls.
//!
//! A chain of comparisons, one for each number, is what the usual libraries emit; a search tree over ranges is half as
//! dear to install and every call takes the same few steps. Limits of the machine: jumps of conditions reach 255
//! instructions, so a far branch goes through an unconditional one.

use std::collections::BTreeMap;

use super::seccomp::{Argument, COMMAND_TYPE_MASK, FAMILIES, Rule, SOCKET_TYPE_MASK, Verdict};

/// One instruction: code, jump if true, jump if false, operand.
pub(crate) type Instruction = (u16, u8, u8, u32);

const LOAD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
const JUMP: u16 = 0x05; // BPF_JMP | BPF_JA
const JUMP_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
const JUMP_AT_LEAST: u16 = 0x35; // BPF_JMP | BPF_JGE | BPF_K
const AND: u16 = 0x54; // BPF_ALU | BPF_AND | BPF_K
const RETURN: u16 = 0x06; // BPF_RET | BPF_K

const RETURN_ALLOW: u32 = 0x7fff_0000;
const RETURN_ERRNO: u32 = 0x0005_0000;
const EPERM: u32 = 1;
const ENOSYS: u32 = 38;

const OFFSET_NUMBER: u32 = 0;
const OFFSET_ARCHITECTURE: u32 = 4;
const AUDIT_ARCH_X86_64: u32 = 0xc000_003e;

/// A table that cannot become a program.
#[derive(Debug, thiserror::Error)]
#[error("the seccomp table does not fit a program: {0}")]
pub(crate) struct TooLarge(&'static str);

/// Assembles the program. Numbers above every rule, those of x32 among them, and calls of another architecture get
/// `ENOSYS`: to the caller this is a kernel that has never heard of them.
pub(crate) fn assemble(rules: &BTreeMap<u32, Rule>) -> Result<Vec<Instruction>, TooLarge> {
    let mut program = vec![
        (LOAD, 0, 0, OFFSET_ARCHITECTURE),
        (JUMP_EQUAL, 1, 0, AUDIT_ARCH_X86_64),
        (RETURN, 0, 0, RETURN_ERRNO | ENOSYS),
        (LOAD, 0, 0, OFFSET_NUMBER),
    ];
    let ranges = ranges(rules);
    program.extend(search(&ranges)?);
    if program.len() > 4096 {
        return Err(TooLarge("more than 4096 instructions"));
    }
    Ok(program)
}

/// The first number of each run of equal rules; the last run has no end.
fn ranges(rules: &BTreeMap<u32, Rule>) -> Vec<(u32, Rule)> {
    let mut ranges: Vec<(u32, Rule)> = Vec::new();
    let last = rules.keys().next_back().copied().unwrap_or(0);
    for number in 0..=last {
        let rule = rules.get(&number).cloned().unwrap_or(Rule::Always(Verdict::Refuse));
        if ranges.last().is_none_or(|(_, before)| *before != rule) {
            ranges.push((number, rule));
        }
    }
    ranges.push((last + 1, Rule::Always(Verdict::Unknown)));
    ranges
}

fn search(ranges: &[(u32, Rule)]) -> Result<Vec<Instruction>, TooLarge> {
    if let [(_, rule)] = ranges {
        return leaf(rule);
    }
    let (low, high) = ranges.split_at(ranges.len() / 2);
    let pivot = high.first().map_or(0, |(number, _)| *number);
    let (low, high) = (search(low)?, search(high)?);
    let mut code = Vec::with_capacity(low.len() + high.len() + 2);
    match u8::try_from(low.len()) {
        Ok(over) => code.push((JUMP_AT_LEAST, over, 0, pivot)),
        Err(_) => {
            let over = u32::try_from(low.len()).map_err(|_| TooLarge("a branch is too long"))?;
            code.push((JUMP_AT_LEAST, 0, 1, pivot));
            code.push((JUMP, 0, 0, over));
        }
    }
    code.extend(low);
    code.extend(high);
    Ok(code)
}

fn leaf(rule: &Rule) -> Result<Vec<Instruction>, TooLarge> {
    match rule {
        Rule::Always(verdict) => Ok(vec![give(*verdict)]),
        Rule::Flags { argument, forbidden } => Ok(vec![
            load_low(*argument),
            (AND, 0, 0, *forbidden),
            (JUMP_EQUAL, 0, 1, 0),
            give(Verdict::Allow),
            give(Verdict::Refuse),
        ]),
        Rule::OneOf { argument, allowed } => {
            let mut code = vec![load_low(*argument)];
            code.extend(choice(allowed, Verdict::Allow, give(Verdict::Refuse)));
            Ok(code)
        }
        Rule::Masked { argument, mask, allowed } => {
            let mut code = vec![load_low(*argument), (AND, 0, 0, *mask)];
            code.extend(choice(allowed, Verdict::Allow, give(Verdict::Refuse)));
            Ok(code)
        }
        Rule::Command { forbidden, forbidden_types } => {
            let mut code = vec![load_low(Argument(1))];
            code.extend(choice(forbidden, Verdict::Refuse, (AND, 0, 0, COMMAND_TYPE_MASK)));
            code.extend(choice(forbidden_types, Verdict::Refuse, give(Verdict::Allow)));
            Ok(code)
        }
        Rule::Socket { types, protocols } => socket(types, protocols),
        Rule::KeptLimit { argument, limit, new_and_old } => Ok(kept_limit(*argument, *limit, *new_and_old)),
    }
}

/// `socket(2)`, by family: unix is allowed, of netlink the protocol is looked at, of internet the type too.
fn socket(types: &[u32], protocols: &[u32]) -> Result<Vec<Instruction>, TooLarge> {
    let [unix, inet, inet6, netlink] = FAMILIES;
    let mut code = vec![
        load_low(Argument(0)),
        (JUMP_EQUAL, 0, 1, unix),
        give(Verdict::Allow),
        (JUMP_EQUAL, 0, 4, netlink),
        load_low(Argument(2)),
        (JUMP_EQUAL, 0, 1, 0),
        give(Verdict::Allow),
        give(Verdict::Refuse),
        (JUMP_EQUAL, 2, 0, inet),
        (JUMP_EQUAL, 1, 0, inet6),
        give(Verdict::Refuse),
        load_low(Argument(1)),
        (AND, 0, 0, SOCKET_TYPE_MASK),
    ];
    let count = u8::try_from(types.len()).map_err(|_| TooLarge("too many types of sockets"))?;
    for (place, kind) in (0..count).zip(types) {
        // Over the types that follow, and over the refusal.
        code.push((JUMP_EQUAL, count - place, 0, *kind));
    }
    code.extend([give(Verdict::Refuse), load_low(Argument(2))]);
    code.extend(choice(protocols, Verdict::Allow, give(Verdict::Refuse)));
    Ok(code)
}

/// A limit that cannot be changed: allowed for others, and where the new value is missing.
fn kept_limit(argument: Argument, limit: u32, new_and_old: Option<(Argument, Argument)>) -> Vec<Instruction> {
    let mut code = vec![load_low(argument), (JUMP_EQUAL, 1, 0, limit), give(Verdict::Allow)];
    let Some((new, old)) = new_and_old else {
        code.push(give(Verdict::Pretend));
        return code;
    };
    for (pointer, verdict) in [(new, Verdict::Allow), (old, Verdict::Pretend)] {
        code.extend([
            load_low(pointer),
            (JUMP_EQUAL, 0, 3, 0),
            load_high(pointer),
            (JUMP_EQUAL, 0, 1, 0),
            give(verdict),
        ]);
    }
    code.push(give(Verdict::Refuse));
    code
}

fn choice(values: &[u32], hit: Verdict, miss: Instruction) -> Vec<Instruction> {
    let mut code = Vec::new();
    for value in values {
        code.extend([(JUMP_EQUAL, 0, 1, *value), give(hit)]);
    }
    code.push(miss);
    code
}

/// The low half of an argument is all the kernel looks at where it takes an `int`.
fn load_low(argument: Argument) -> Instruction {
    (LOAD, 0, 0, 16 + 8 * u32::from(argument.0))
}

/// The other half, of a pointer.
fn load_high(argument: Argument) -> Instruction {
    (LOAD, 0, 0, 20 + 8 * u32::from(argument.0))
}

fn give(verdict: Verdict) -> Instruction {
    let value = match verdict {
        Verdict::Allow => RETURN_ALLOW,
        Verdict::Refuse => RETURN_ERRNO | EPERM,
        Verdict::Unknown => RETURN_ERRNO | ENOSYS,
        Verdict::Pretend => RETURN_ERRNO,
    };
    (RETURN, 0, 0, value)
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use nix::libc;
    use proptest::prelude::{any, prop_assert_eq, proptest};

    use super::*;
    use crate::container::seccomp::table;

    /// Runs a program as the kernel would, on one call.
    #[expect(clippy::cast_possible_truncation, reason = "the halves of an argument are meant")]
    fn run(program: &[Instruction], architecture: u32, number: u32, arguments: [u64; 6]) -> u32 {
        let (mut at, mut accumulator) = (0, 0);
        loop {
            let (code, jump_true, jump_false, operand) = program[at];
            at += 1;
            let jump = |holds: bool| usize::from(if holds { jump_true } else { jump_false });
            match code {
                LOAD if operand == OFFSET_NUMBER => accumulator = number,
                LOAD if operand == OFFSET_ARCHITECTURE => accumulator = architecture,
                LOAD => {
                    let whole = arguments[(operand as usize - 16) / 8];
                    accumulator = if operand % 8 == 0 { whole as u32 } else { (whole >> 32) as u32 };
                }
                AND => accumulator &= operand,
                JUMP => at += operand as usize,
                JUMP_EQUAL => at += jump(accumulator == operand),
                JUMP_AT_LEAST => at += jump(accumulator >= operand),
                RETURN => return operand,
                other => panic!("code {other}"),
            }
        }
    }

    /// The table and its program, made once.
    static MADE: LazyLock<(BTreeMap<u32, Rule>, Vec<Instruction>)> = LazyLock::new(|| {
        let rules = table();
        let program = assemble(&rules).unwrap();
        (rules, program)
    });

    fn expected(rules: &BTreeMap<u32, Rule>, number: u32, arguments: [u64; 6]) -> u32 {
        let verdict = match rules.get(&number) {
            None if number > *rules.keys().next_back().unwrap() => Verdict::Unknown,
            None => Verdict::Refuse,
            Some(rule) => rule.verdict(arguments),
        };
        give(verdict).3
    }

    #[test]
    fn the_program_decides_every_number_as_the_table_does() {
        let (rules, program) = &*MADE;
        for number in (0..2000).chain([0x4000_0000, 0x4000_0001, u32::MAX]) {
            for argument in
                [0, 1, 2, 3, 4, 16, 17, 40, 58, 0x2000, 0x4c01, 0x0002_0000, 0x1000_0000, 0x5412, 1 << 40]
            {
                let arguments = [argument; 6];
                assert_eq!(
                    run(program, AUDIT_ARCH_X86_64, number, arguments),
                    expected(rules, number, arguments),
                    "call {number} with {argument:#x}"
                );
            }
        }
    }

    #[test]
    fn calls_with_several_arguments_are_decided_as_the_table_does() {
        let (rules, program) = &*MADE;
        let values =
            [0, 1, 2, 3, 4, 5, 6, 7, 10, 16, 17, 58, 132, 262, 1 << 11, (1 << 11) | 2, 1 << 32, 1 << 47];
        let pairs = values.iter().flat_map(|one| values.map(|two| (*one, two)));
        let triples: Vec<[u64; 3]> =
            pairs.flat_map(|(one, two)| values.map(|three| [one, two, three])).collect();
        for number in [libc::SYS_socket, libc::SYS_socketpair, libc::SYS_prlimit64, libc::SYS_setrlimit] {
            let number = u32::try_from(number).unwrap();
            for &[one, two, three] in &triples {
                for arguments in [[one, two, three, 0, 0, 0], [0, one, two, three, 0, 0]] {
                    let decided = run(program, AUDIT_ARCH_X86_64, number, arguments);
                    assert_eq!(
                        decided,
                        expected(rules, number, arguments),
                        "call {number} with {arguments:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn calls_of_another_architecture_do_not_exist() {
        let program = assemble(&table()).unwrap();
        for number in 0..500 {
            assert_eq!(run(&program, 0x4000_0003, number, [0; 6]), RETURN_ERRNO | ENOSYS);
        }
    }

    proptest! {
        #[test]
        fn any_call_with_any_arguments_is_decided_as_the_table_says(number in 0_u32..600, arguments in any::<[u64; 6]>()) {
            let (rules, program) = &*MADE;
            prop_assert_eq!(run(program, AUDIT_ARCH_X86_64, number, arguments), expected(rules, number, arguments));
        }
    }
}
