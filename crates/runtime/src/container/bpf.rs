// SPDX-License-Identifier: Apache-2.0
//! Turns a table of rules into a seccomp program: a binary search over the numbers of system calls.
//!
//! A chain of comparisons, one for each number, is what the usual libraries emit; a search tree over ranges is half as
//! dear to install and every call takes the same few steps. Limits of the machine: jumps of conditions reach 255
//! instructions, so a far branch goes through an unconditional one.

use std::collections::BTreeMap;

use super::seccomp::{Argument, Rule, Verdict};

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
        Rule::OneOf { argument, allowed } => choice(*argument, allowed, Verdict::Allow, Verdict::Refuse),
        Rule::NoneOf { argument, forbidden } => choice(*argument, forbidden, Verdict::Refuse, Verdict::Allow),
        Rule::Socket { families, netlink } => {
            let mut code = vec![load_low(Argument(0))];
            for family in families {
                code.extend([(JUMP_EQUAL, 0, 1, *family), give(Verdict::Allow)]);
            }
            code.extend([
                (JUMP_EQUAL, 1, 0, *netlink),
                give(Verdict::Refuse),
                load_low(Argument(2)),
                (JUMP_EQUAL, 0, 1, 0),
                give(Verdict::Allow),
                give(Verdict::Refuse),
            ]);
            Ok(code)
        }
    }
}

fn choice(
    argument: Argument,
    values: &[u32],
    hit: Verdict,
    miss: Verdict,
) -> Result<Vec<Instruction>, TooLarge> {
    let mut code = vec![load_low(argument)];
    for value in values {
        code.extend([(JUMP_EQUAL, 0, 1, *value), give(hit)]);
    }
    code.push(give(miss));
    Ok(code)
}

/// The low half of an argument is all the kernel looks at for the calls in our table.
fn load_low(argument: Argument) -> Instruction {
    (LOAD, 0, 0, 16 + 8 * u32::from(argument.0))
}

fn give(verdict: Verdict) -> Instruction {
    let value = match verdict {
        Verdict::Allow => RETURN_ALLOW,
        Verdict::Refuse => RETURN_ERRNO | EPERM,
        Verdict::Unknown => RETURN_ERRNO | ENOSYS,
    };
    (RETURN, 0, 0, value)
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use proptest::prelude::{any, prop_assert_eq, proptest};

    use super::*;
    use crate::container::seccomp::table;

    /// Runs a program as the kernel would, on one call.
    fn run(program: &[Instruction], architecture: u32, number: u32, arguments: [u32; 6]) -> u32 {
        let (mut at, mut accumulator) = (0, 0);
        loop {
            let (code, jump_true, jump_false, operand) = program[at];
            at += 1;
            let jump = |holds: bool| usize::from(if holds { jump_true } else { jump_false });
            match code {
                LOAD if operand == OFFSET_NUMBER => accumulator = number,
                LOAD if operand == OFFSET_ARCHITECTURE => accumulator = architecture,
                LOAD => accumulator = arguments[(operand as usize - 16) / 8],
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

    fn expected(rules: &BTreeMap<u32, Rule>, number: u32, arguments: [u32; 6]) -> u32 {
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
            for argument in [0, 1, 2, 3, 16, 17, 40, 0x0002_0000, 0x1000_0000, 0x5412, u32::MAX] {
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
    fn calls_of_another_architecture_do_not_exist() {
        let program = assemble(&table()).unwrap();
        for number in 0..500 {
            assert_eq!(run(&program, 0x4000_0003, number, [0; 6]), RETURN_ERRNO | ENOSYS);
        }
    }

    proptest! {
        #[test]
        fn any_call_with_any_arguments_is_decided_as_the_table_says(number in 0_u32..600, arguments in any::<[u32; 6]>()) {
            let (rules, program) = &*MADE;
            prop_assert_eq!(run(program, AUDIT_ARCH_X86_64, number, arguments), expected(rules, number, arguments));
        }
    }
}
