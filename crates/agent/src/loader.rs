// SPDX-License-Identifier: Apache-2.0
//! Why a program that is there does not start: what the kernel must load before it is missing.
//!
//! For a missing dynamic loader, and for a missing interpreter of a script, the kernel says no more than "no such file",
//! which people then look for in vain. The files are a stranger's: little of them is read, and nothing is believed.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use protocol::limits::{INTERPRETERS_DEPTH_MAX, PROGRAM_HEAD_BYTES_MAX};
use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, fstat, openat2};
use sys::spawn::Program;

/// The kernel's `PT_INTERP`: the loader that a program asks for (`elf(5)`).
const INTERPRETER_SEGMENT: u32 = 3;
/// Bytes of one entry in the table of segments of a 64-bit program.
const SEGMENT_BYTES: usize = 56;

/// What a program asks to be loaded by.
#[derive(Debug, PartialEq, Eq)]
enum Needs {
    /// `#!` in the first line of a script.
    Script(PathBuf),
    /// The dynamic loader of a C library.
    Loader(PathBuf),
    /// Nothing.
    Nothing,
}

/// Says what is missing for the first of a program's files that is there; `None` when none is, or nothing is missing.
pub(crate) fn missing_for(program: &Program) -> Option<String> {
    let workdir = Path::new(OsStr::from_bytes(program.workdir.as_bytes()));
    let mut paths = program.paths.iter().map(|path| workdir.join(OsStr::from_bytes(path.as_bytes())));
    let mut path = paths.find(|path| path.is_file())?;
    for _ in 0..INTERPRETERS_DEPTH_MAX {
        let (asked, by) = match needs(&path).ok()? {
            Needs::Script(asked) => (asked, "the first line of the script"),
            Needs::Loader(asked) => (asked, "the program"),
            Needs::Nothing => return None,
        };
        if !workdir.join(&asked).exists() {
            let help = if by == "the program" {
                "it was built for another C library than the image has (glibc or musl), or the image has none; a static program needs none"
            } else {
                "the image must have it"
            };
            return Some(format!(
                "{by} {} asks for {}, which is not in this image: {help}",
                shown(&path),
                shown(&asked)
            ));
        }
        path = workdir.join(asked);
    }
    None
}

fn shown(path: &Path) -> String {
    format!("'{}'", path.to_string_lossy().escape_debug().take(256).collect::<String>())
}

fn needs(path: &Path) -> io::Result<Needs> {
    let file = File::from(open_plain(path)?);
    let mut head = vec![0; PROGRAM_HEAD_BYTES_MAX];
    let count = file.read_at(&mut head, 0)?;
    head.truncate(count);
    if let Some(line) = head.strip_prefix(b"#!") {
        return Ok(script_needs(line));
    }
    let loader = loader_segment(&file, &head)?;
    Ok(loader.map_or(Needs::Nothing, Needs::Loader))
}

fn open_plain(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_MAGICLINKS)?;
    if FileType::from_raw_mode(fstat(&file)?.st_mode).is_file() {
        Ok(file)
    } else {
        Err(io::Error::other("no regular file"))
    }
}

fn script_needs(after_mark: &[u8]) -> Needs {
    let line = after_mark.split(|byte| *byte == b'\n').next().unwrap_or_default();
    // A carriage return belongs to the name, as the kernel sees it.
    let mut words = line.split(|byte| matches!(byte, b' ' | b'\t'));
    let name = words.find(|word| !word.is_empty()).unwrap_or_default();
    if name.is_empty() { Needs::Nothing } else { Needs::Script(OsStr::from_bytes(name).into()) }
}

/// Finds the loader's name in a 64-bit little-endian ELF file.
fn loader_segment(file: &File, head: &[u8]) -> io::Result<Option<PathBuf>> {
    if !head.starts_with(b"\x7fELF\x02\x01") {
        return Ok(None);
    }
    let (Some(table), Some(size), Some(count)) = (u64_at(head, 32), u16_at(head, 54), u16_at(head, 56))
    else {
        return Ok(None);
    };
    if usize::from(size) != SEGMENT_BYTES {
        return Ok(None);
    }
    let mut segments = vec![0; SEGMENT_BYTES * usize::from(count.min(128))];
    file.read_exact_at(&mut segments, table)?;
    let Some(segment) = segments.chunks(SEGMENT_BYTES).find(|s| u32_at(s, 0) == Some(INTERPRETER_SEGMENT))
    else {
        return Ok(None);
    };
    let (Some(offset), Some(length)) = (u64_at(segment, 8), u64_at(segment, 32)) else { return Ok(None) };
    let mut name = vec![0; usize::try_from(length).unwrap_or(usize::MAX).min(PROGRAM_HEAD_BYTES_MAX)];
    file.read_exact_at(&mut name, offset)?;
    let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
    Ok((!name.is_empty()).then(|| OsStr::from_bytes(name).into()))
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use std::ffi::CString;

    use super::*;

    fn said(name: &str, content: &[u8]) -> Option<String> {
        let room = std::env::temp_dir().join(format!("loader-{name}-{}", std::process::id()));
        fs_err::create_dir_all(&room).unwrap();
        fs_err::write(room.join("program"), content).unwrap();
        let program = Program {
            paths: vec![c"/nowhere/program".to_owned(), c"./program".to_owned()],
            argv: vec![],
            envp: vec![],
            workdir: CString::new(room.to_str().unwrap()).unwrap(),
            ids: None,
        };
        let said = missing_for(&program);
        #[expect(clippy::disallowed_methods, reason = "a directory of this test alone")]
        std::fs::remove_dir_all(room).unwrap();
        said
    }

    /// A head with one segment that names a loader.
    fn elf(loader: &[u8], length: u64) -> Vec<u8> {
        let mut file = vec![0; 64 + SEGMENT_BYTES];
        file[..6].copy_from_slice(b"\x7fELF\x02\x01");
        file[32..40].copy_from_slice(&64_u64.to_le_bytes());
        file[54..56].copy_from_slice(&56_u16.to_le_bytes());
        file[56..58].copy_from_slice(&1_u16.to_le_bytes());
        file[64..68].copy_from_slice(&INTERPRETER_SEGMENT.to_le_bytes());
        file[72..80].copy_from_slice(&120_u64.to_le_bytes());
        file[96..104].copy_from_slice(&length.to_le_bytes());
        file.extend_from_slice(loader);
        file
    }

    #[test]
    fn a_missing_loader_or_interpreter_is_named() {
        let text = said("elf", &elf(b"/lib/ld-musl.so\0", 16)).unwrap();
        assert!(text.contains("'/lib/ld-musl.so'") && text.contains("C library"), "{text}");
        let text = said("script", b"#! /no/such/sh -e\necho").unwrap();
        assert!(text.contains("'/no/such/sh'") && text.contains("script"), "{text}");
        let text = said("crlf", b"#!/bin/sh\r\necho").unwrap();
        assert!(text.contains(r"/bin/sh\r"), "{text}");
    }

    #[test]
    fn nothing_is_said_of_what_lacks_nothing_or_is_no_program() {
        let own = fs_err::read("/proc/self/exe").unwrap();
        let cases: [(&str, &[u8]); 6] = [
            ("fine", b"#!/bin/sh\n"),
            ("own", &own),
            ("empty", b""),
            ("bare", b"#!\n"),
            ("cut", &elf(b"", 1 << 60)),
            ("short", &own[..40]),
        ];
        for (name, content) in cases {
            assert_eq!(said(name, content), None, "{name}");
        }
    }

    #[test]
    fn a_hostile_name_is_shown_as_one_short_line() {
        let text =
            said("hostile", &elf(format!("/\x1b[31m\n{}", "a".repeat(3000)).as_bytes(), 3007)).unwrap();
        assert!(text.len() < 800 && !text.contains(['\n', '\x1b']), "{text:?}");
    }
}
