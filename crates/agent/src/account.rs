// SPDX-License-Identifier: Apache-2.0
//! Who programs are: the user that the image names, looked up once in the image's own `/etc/passwd` and `/etc/group`.
//!
//! Both files are a stranger's: a link in them leads nowhere but into the image's own files, never into `/proc` or a
//! device; nothing but a regular file is read, and only so much of it. What they say can make programs somebody inside
//! the sandbox, and nobody else: the highest number is that of the sandbox's own range.

use std::fs::File;
use std::io::{self, Read};

use protocol::limits::{
    ACCOUNT_LINE_BYTES_MAX, ACCOUNTS_BYTES_MAX, DIRECTORY_PATH_BYTES_MAX, USER_GROUPS_MAX, USER_NUMBER_MAX,
};
use protocol::user::{Account, User, UserError};
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fstat, open, openat2};
use rustix::io::Errno;
use sys::spawn::Ids;

const PASSWD: &str = "/etc/passwd";
const GROUP: &str = "/etc/group";
/// The home of root where the image names none; every sandbox has this directory.
const ROOT_HOME: &str = "/root";
/// The home of any other user without one.
const NO_HOME: &str = "/";

/// A user that was found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Found {
    /// What programs become; nothing when they stay who the agent is.
    pub(crate) ids: Option<Ids>,
    /// An absolute path; it need not exist.
    pub(crate) home: String,
}

/// Why programs cannot be who the image says.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AccountError {
    #[error(transparent)]
    Text(#[from] UserError),
    #[error(
        "no {kind} '{name}' in the image's {file}: it must be a name from there, or a number from 0 to {USER_NUMBER_MAX}"
    )]
    Unknown { kind: &'static str, name: String, file: &'static str },
    #[error(
        "'{name}' has the number {number} in the image's {file}: 0 to {USER_NUMBER_MAX} are possible in a sandbox"
    )]
    Number { name: String, number: u32, file: &'static str },
    #[error("user '{0}' is in more than {USER_GROUPS_MAX} groups of the image's {GROUP}")]
    Groups(String),
    #[error("cannot read the image's {file}: {source}")]
    File {
        file: &'static str,
        #[source]
        source: io::Error,
    },
}

/// One line of the user file.
struct Entry<'a> {
    name: &'a str,
    user: u32,
    group: u32,
    home: Option<&'a str>,
}

/// Finds a user, or root when none is named; then what is wrong with the image's files does not matter.
pub(crate) fn find(user: Option<&str>) -> Result<Found, AccountError> {
    let Some(text) = user else {
        let passwd = read(PASSWD).unwrap_or_default();
        return Ok(Found { ids: None, home: home_of(entry(&passwd, &Account::Number(0)).as_ref(), 0) });
    };
    let user = User::parse(text)?;
    let file = |file| move |source| AccountError::File { file, source };
    look_up(&user, &read(PASSWD).map_err(file(PASSWD))?, &read(GROUP).map_err(file(GROUP))?)
}

/// Looks a user up in the text of both files, by the rules of Docker: a number needs no entry, its group is then 0; a
/// group that is named stands alone, else those count that have the user as a member.
fn look_up(wanted: &User, passwd: &str, groups: &str) -> Result<Found, AccountError> {
    let entry = entry(passwd, &wanted.user);
    let user = match (&wanted.user, &entry) {
        (_, Some(entry)) => bounded(entry.name, entry.user, PASSWD)?,
        (Account::Number(number), None) => *number,
        (Account::Name(name), None) => return Err(unknown("user", name, PASSWD)),
    };
    let (group, others) = match &wanted.group {
        Some(Account::Number(number)) => (*number, Vec::new()),
        Some(Account::Name(name)) => {
            let found = group_lines(groups).find(|(group, ..)| group == name);
            let (name, number, _) = found.ok_or_else(|| unknown("group", name, GROUP))?;
            (bounded(name, number, GROUP)?, Vec::new())
        }
        None => match &entry {
            Some(entry) => (bounded(entry.name, entry.group, PASSWD)?, groups_of(entry.name, groups)?),
            None => (0, Vec::new()),
        },
    };
    Ok(Found { ids: Some(Ids { user, group, groups: others }), home: home_of(entry.as_ref(), user) })
}

fn unknown(kind: &'static str, name: &str, file: &'static str) -> AccountError {
    AccountError::Unknown { kind, name: name.to_owned(), file }
}

fn bounded(name: &str, number: u32, file: &'static str) -> Result<u32, AccountError> {
    if number <= USER_NUMBER_MAX {
        return Ok(number);
    }
    // The name is the image's: whatever is in it, it is one short line when it is shown.
    let name = name.escape_debug().take(64).collect();
    Err(AccountError::Number { name, number, file })
}

fn groups_of(user: &str, groups: &str) -> Result<Vec<u32>, AccountError> {
    let mut found = Vec::new();
    for (name, number, members) in group_lines(groups) {
        if members.split(',').any(|member| member == user) {
            found.push(bounded(name, number, GROUP)?);
        }
        if found.len() > USER_GROUPS_MAX {
            return Err(AccountError::Groups(user.escape_debug().take(64).collect()));
        }
    }
    Ok(found)
}

fn home_of(entry: Option<&Entry<'_>>, user: u32) -> String {
    let own = entry.and_then(|entry| entry.home);
    own.unwrap_or(if user == 0 { ROOT_HOME } else { NO_HOME }).to_owned()
}

/// Returns the first entry of a user.
fn entry<'a>(passwd: &'a str, wanted: &Account) -> Option<Entry<'a>> {
    lines(passwd).filter_map(parse_entry).find(|entry| match wanted {
        Account::Number(number) => entry.user == *number,
        Account::Name(name) => entry.name == name,
    })
}

/// Reads `name:password:user:group:comment:home:shell`; a line that is none counts as not there.
fn parse_entry(line: &str) -> Option<Entry<'_>> {
    let mut fields = line.split(':');
    let name = fields.next().filter(|name| !name.is_empty())?;
    let user = parse_number(fields.nth(1)?)?;
    let group = parse_number(fields.next()?)?;
    let usable = |home: &&str| {
        home.starts_with('/') && home.len() <= DIRECTORY_PATH_BYTES_MAX && !home.contains(char::is_control)
    };
    Some(Entry { name, user, group, home: fields.nth(1).filter(usable) })
}

/// Reads every `name:password:group:members`.
fn group_lines(groups: &str) -> impl Iterator<Item = (&str, u32, &str)> {
    lines(groups).filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let number = parse_number(fields.nth(1)?)?;
        Some((name, number, fields.next().unwrap_or_default()))
    })
}

fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.split('\n').filter(|line| line.len() <= ACCOUNT_LINE_BYTES_MAX && !line.starts_with('#'))
}

fn parse_number(field: &str) -> Option<u32> {
    let digits = !field.is_empty() && field.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| field.parse().ok()).flatten()
}

/// Reads one of the two files; none there is as good as an empty one. Bytes that are no text spoil their line alone.
fn read(path: &str) -> io::Result<String> {
    let root = open("/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    match read_beneath(&root, path) {
        Err(error) => match Errno::from_io_error(&error) {
            Some(Errno::NOENT | Errno::NOTDIR) => Ok(String::new()),
            _ => Err(error),
        },
        text => text,
    }
}

fn read_beneath(root: &impl std::os::fd::AsFd, path: &str) -> io::Result<String> {
    // Nothing that must be waited for (a FIFO), no terminal, no link out of the image's own files.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
    let file = openat2(root, path.trim_start_matches('/'), flags, Mode::empty(), resolve)?;
    if !FileType::from_raw_mode(fstat(&file)?.st_mode).is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    let mut bytes = Vec::new();
    File::from(file).take(ACCOUNTS_BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > ACCOUNTS_BYTES_MAX {
        return Err(io::Error::other(format!("it has more than {ACCOUNTS_BYTES_MAX} bytes")));
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;
    use std::path::PathBuf;

    use rustix::fs::CWD;

    use super::*;

    const USERS: &str = "\
root:x:0:0:root:/root:/bin/sh
# comment:x:7:7::/:
broken line
negative:x:-1:5::/:/bin/sh
app:x:1000:1001:An App:/home/app:/bin/sh
app:x:0:0:again:/root:/bin/sh
lost:x:1002:1002::not/absolute:
huge:x:70000:1::/:
hugegroup:x:5:4294967295::/:
short:x:9:9
";
    const GROUPS: &str = "\
root:x:0:
wheel:x:10:root,app
negative:x:-5:app
apps:x:1001:
docker:x:999:other,app,third
apple:x:998:apple
far:x:65536:lost
";

    fn found(text: &str) -> Result<(u32, u32, Vec<u32>, String), String> {
        let found = look_up(&User::parse(text).unwrap(), USERS, GROUPS).map_err(|error| error.to_string())?;
        let ids = found.ids.unwrap();
        Ok((ids.user, ids.group, ids.groups, found.home))
    }

    fn is(user: u32, group: u32, groups: &[u32], home: &str) -> Result<(u32, u32, Vec<u32>, String), String> {
        Ok((user, group, groups.to_vec(), home.to_owned()))
    }

    #[test]
    fn users_and_groups_are_found_by_name_and_number() {
        assert_eq!(found("app"), is(1000, 1001, &[10, 999], "/home/app"));
        assert_eq!(found("1000"), is(1000, 1001, &[10, 999], "/home/app"));
        assert_eq!(found("app:wheel"), is(1000, 10, &[], "/home/app"));
        assert_eq!(found("1000:4242"), is(1000, 4242, &[], "/home/app"));
        assert_eq!(found("4711"), is(4711, 0, &[], "/"));
        assert_eq!(found("4711:docker"), is(4711, 999, &[], "/"));
        assert_eq!(found("root"), is(0, 0, &[10], "/root"));
        assert_eq!(found("0"), is(0, 0, &[10], "/root"));
        assert_eq!(found("short"), is(9, 9, &[], "/"));
    }

    #[test]
    fn who_is_not_there_or_beyond_the_range_is_refused_by_name() {
        let refused = |text: &str, needle: &str| {
            let error = found(text).expect_err(text);
            assert!(error.contains(needle), "{error}");
        };
        refused("nobody", "no user 'nobody' in the image's /etc/passwd");
        refused("negative", "no user 'negative'");
        refused("broken", "no user 'broken'");
        refused("app:nogroup", "no group 'nogroup' in the image's /etc/group");
        refused("app:negative", "no group 'negative'");
        refused("huge", "'huge' has the number 70000");
        refused("hugegroup", "4294967295");
        refused("lost", "'far' has the number 65536");
    }

    #[test]
    fn a_home_must_be_an_absolute_path() {
        assert_eq!(found("1002:1"), is(1002, 1, &[], "/"));
    }

    #[test]
    fn files_without_an_end_of_groups_are_refused() {
        let groups: String = (0..=USER_GROUPS_MAX).map(|n| format!("g{n}:x:{n}:app\n")).collect();
        let error = look_up(&User::parse("app").unwrap(), USERS, &groups).unwrap_err();
        assert!(error.to_string().contains("more than 256 groups"), "{error}");
        let long = format!("app:x:1:{}\n{USERS}", "1".repeat(ACCOUNT_LINE_BYTES_MAX));
        assert_eq!(look_up(&User::parse("app").unwrap(), &long, "").unwrap().ids.unwrap().user, 1000);
    }

    /// A directory that stands for the image's root.
    fn root(name: &str) -> (PathBuf, OwnedFd) {
        let path = std::env::temp_dir().join(format!("account-{name}-{}", std::process::id()));
        fs_err::create_dir_all(path.join("etc")).unwrap();
        let root = open(&path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap();
        (path, root)
    }

    #[test]
    fn links_stay_inside_the_image_and_lead_to_files_alone() {
        let (path, root) = root("links");
        fs_err::create_dir_all(path.join("usr/lib")).unwrap();
        fs_err::write(path.join("usr/lib/passwd"), "a:x:1:1::/:").unwrap();
        let read_through = |target: &str| {
            let _ = fs_err::remove_file(path.join("etc/passwd"));
            fs_err::os::unix::fs::symlink(target, path.join("etc/passwd")).unwrap();
            read_beneath(&root, PASSWD)
        };
        assert_eq!(read_through("/usr/lib/passwd").unwrap(), "a:x:1:1::/:");
        assert_eq!(read_through("../../../../usr/lib/passwd").unwrap(), "a:x:1:1::/:");
        for target in
            ["/etc/shadow", "../../etc/shadow", "/proc/self/environ", "passwd", "/usr/lib", "/dev/zero"]
        {
            read_through(target).expect_err(target);
        }
        #[expect(clippy::disallowed_methods, reason = "a directory of this test alone")]
        std::fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn a_fifo_is_not_waited_for_a_directory_not_read_and_a_giant_not_held() {
        let (path, root) = root("kinds");
        let mode = Mode::from_raw_mode(0o666);
        rustix::fs::mknodat(CWD, path.join("etc/passwd"), FileType::Fifo, mode, 0).unwrap();
        let error = read_beneath(&root, PASSWD).unwrap_err();
        assert!(error.to_string().contains("no regular file"), "{error}");
        fs_err::create_dir(path.join("etc/group")).unwrap();
        read_beneath(&root, GROUP).unwrap_err();
        fs_err::remove_file(path.join("etc/passwd")).unwrap();
        let file = fs_err::File::create(path.join("etc/passwd")).unwrap();
        file.set_len(1 << 40).unwrap();
        let error = read_beneath(&root, PASSWD).unwrap_err();
        assert!(error.to_string().contains("more than"), "{error}");
        #[expect(clippy::disallowed_methods, reason = "a directory of this test alone")]
        std::fs::remove_dir_all(path).unwrap();
    }
}
