// SPDX-License-Identifier: Apache-2.0
//! Says whether a program is static: whether it names no interpreter (dynamic loader) in its program headers.

use anyhow::{Result, bail};

/// The program header that names the dynamic loader.
const PT_INTERP: u32 = 3;
const ELF64_LITTLE: &[u8] = b"\x7fELF\x02\x01";
/// Where a 64-bit ELF header says: the offset of the program headers, the size of one, how many there are.
const PHOFF_AT: usize = 32;
const PHENTSIZE_AT: usize = 54;
const PHNUM_AT: usize = 56;

/// Says whether the program needs no dynamic loader.
///
/// # Errors
/// When it is no 64-bit little-endian ELF file, or is cut short.
pub(crate) fn is_static(program: &[u8]) -> Result<bool> {
    if !program.starts_with(ELF64_LITTLE) {
        bail!("not a 64-bit little-endian ELF file");
    }
    let start = usize::try_from(u64::from_le_bytes(field(program, Some(PHOFF_AT))?))?;
    let size = usize::from(u16::from_le_bytes(field(program, Some(PHENTSIZE_AT))?));
    let count = usize::from(u16::from_le_bytes(field(program, Some(PHNUM_AT))?));
    if count == 0 {
        bail!("an ELF file without program headers");
    }
    for index in 0..count {
        let at = index.checked_mul(size).and_then(|offset| start.checked_add(offset));
        if u32::from_le_bytes(field(program, at)?) == PT_INTERP {
            return Ok(false);
        }
    }
    Ok(true)
}

fn field<const N: usize>(program: &[u8], at: Option<usize>) -> Result<[u8; N]> {
    let bytes = at.and_then(|at| program.get(at..at.checked_add(N)?));
    match bytes.and_then(|bytes| bytes.try_into().ok()) {
        Some(field) => Ok(field),
        None => bail!("an ELF file that is cut short"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(header_types: &[u32]) -> Vec<u8> {
        let mut bytes = vec![0; 64];
        bytes[..6].copy_from_slice(ELF64_LITTLE);
        bytes[PHOFF_AT] = 64;
        bytes[PHENTSIZE_AT] = 56;
        bytes[PHNUM_AT] = u8::try_from(header_types.len()).unwrap();
        for kind in header_types {
            bytes.extend(kind.to_le_bytes());
            bytes.extend([0; 52]);
        }
        bytes
    }

    #[test]
    fn an_interpreter_anywhere_in_the_headers_makes_a_program_dynamic() {
        assert!(is_static(&program(&[1, 1, 7])).unwrap());
        assert!(!is_static(&program(&[6, 3, 1])).unwrap());
        assert!(!is_static(&program(&[6, 1, 3])).unwrap());
    }

    #[test]
    fn the_running_test_is_dynamic() {
        let this = fs_err::read(std::env::current_exe().unwrap()).unwrap();
        assert!(!is_static(&this).unwrap());
    }

    #[test]
    fn what_is_no_whole_program_is_refused() {
        assert!(is_static(b"#!/bin/sh\n").is_err());
        assert!(is_static(&program(&[])).is_err());
        let whole = program(&[1, 1]);
        assert!(is_static(&whole[..100]).is_err());
        let mut far = whole;
        far[PHOFF_AT..PHOFF_AT + 8].fill(0xff);
        assert!(is_static(&far).is_err());
    }
}
