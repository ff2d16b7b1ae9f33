// SPDX-License-Identifier: Apache-2.0
//! Who programs are, where they start and what they see, as an image asks for it.

use std::path::Path;
use std::sync::Arc;

use protocol::agent::{CommandEnd, Language, RunEnd};
use runtime::{Backend, Sandbox, SandboxSpec, StartError};

use crate::host::{Host, groups_of, missing, run, sh};

const FINE: CommandEnd = CommandEnd::Exited { code: 0 };

const PASSWD: &str =
    "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001::/home/app:/bin/sh\nhuge:x:70000:1::/:\n";
const GROUP: &str = "root:x:0:\nwheel:x:10:root,app\napps:x:1001:\n";

/// Makes a host whose image has users, and a home for one of them.
fn host_with_users(name: &str) -> Host {
    let host = Host::new(name);
    let root = host.home.join("root");
    fs_err::write(root.join("etc/passwd"), PASSWD).unwrap();
    fs_err::write(root.join("etc/group"), GROUP).unwrap();
    fs_err::create_dir_all(root.join("home/app")).unwrap();
    let (user, group) = (rustix::fs::Uid::from_raw(1000), rustix::fs::Gid::from_raw(1001));
    rustix::fs::chown(root.join("home/app"), Some(user), Some(group)).unwrap();
    host
}

async fn start(host: &Host, change: impl FnOnce(&mut SandboxSpec)) -> Arc<dyn Sandbox> {
    let mut spec = host.spec();
    change(&mut spec);
    host.backend.start(spec).await.unwrap()
}

async fn refusal(host: &Host, change: impl FnOnce(&mut SandboxSpec)) -> String {
    let mut spec = host.spec();
    change(&mut spec);
    match host.backend.start(spec).await {
        Err(StartError::Unfit(message)) => message,
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("it started"),
    }
}

#[tokio::test]
async fn programs_are_the_user_of_the_image_with_its_groups_home_and_rights() {
    if missing().is_some() {
        return;
    }
    let host = host_with_users("user");
    let sandbox = start(&host, |spec| spec.user = Some("app".into())).await;
    let script = "id -u; id -g; id -G; pwd; echo $HOME; echo ${USER-unset} ${LOGNAME-unset}; \
                  touch mine /tmp/mine && stat -c '%u %g' mine /tmp/mine; \
                  echo out > /dev/stdout; echo fd > /proc/self/fd/1; cat < /dev/stdin";
    let (end, said) = sh(&sandbox, script).await;
    assert_eq!(end, FINE, "{said}");
    let expected = "1000\n1001\n1001 10\n/home/app\n/home/app\nunset unset\n1000 1001\n1000 1001\nout\nfd\n";
    assert_eq!(said, expected);
    assert_eq!(sh(&sandbox, "echo err > /dev/stderr").await, (FINE, "err\n".to_owned()));
    let (end, said) =
        sh(&sandbox, "echo x > /etc/passwd || cat /root/x || echo x > /usr/x || mkdir /new").await;
    assert!(end != FINE && said.contains("denied"), "{said}");
    sandbox.stop().await.unwrap();
    host.close().await;
}

#[tokio::test]
async fn kernels_are_the_user_too_and_keep_their_variables() {
    if missing().is_some() {
        return;
    }
    let host = host_with_users("userkernels");
    let sandbox = start(&host, |spec| {
        spec.user = Some("1000:10".into());
        spec.prestart = Some(Language::Python);
    })
    .await;
    let code = "import os, tempfile, subprocess\n\
                with tempfile.NamedTemporaryFile() as f: f.write(b'x')\n\
                open('/dev/stdout', 'w').write('written\\n')\n\
                os.getresuid(), os.getresgid(), os.getgroups(), os.getcwd()";
    let (end, said) = run(&sandbox, Language::Python, code).await;
    let expected = "written\n((1000, 1000, 1000), (10, 10, 10), [], '/home/app')\n";
    assert_eq!((end, said.as_str()), (RunEnd::Success, expected), "{said}");
    let (end, said) = run(&sandbox, Language::Python, "subprocess.check_output(['id', '-u'])").await;
    assert_eq!((end, said.as_str()), (RunEnd::Success, "b'1000\\n'\n"));
    let (end, said) =
        run(&sandbox, Language::Node, "[process.getuid(), process.getgid(), process.cwd()]").await;
    assert_eq!((end, said.as_str()), (RunEnd::Success, "[ 1000, 10, '/home/app' ]\n"));
    sandbox.stop().await.unwrap();
    host.close().await;
}

#[tokio::test]
async fn a_number_needs_no_entry() {
    if missing().is_some() {
        return;
    }
    let host = Host::new("number");
    for (user, ids) in [("4711", "4711 0 0"), ("65535:65535", "65535 65535 65535"), ("0:5", "0 5 5")] {
        let sandbox = start(&host, |spec| spec.user = Some(user.into())).await;
        let (end, said) = sh(&sandbox, "echo $(id -u; id -g; id -G); pwd; echo $HOME").await;
        let home = if user.starts_with("0:") { "/root" } else { "/" };
        assert_eq!((end, said.as_str()), (FINE, format!("{ids}\n{home}\n{home}\n").as_str()));
        sandbox.stop().await.unwrap();
    }
    host.close().await;
}

#[tokio::test]
async fn a_user_that_cannot_be_is_refused_by_name_and_nothing_is_left() {
    if missing().is_some() {
        return;
    }
    let host = host_with_users("nouser");
    for (user, needle) in [
        ("nobody", "no user 'nobody' in the image's /etc/passwd"),
        ("app:nogroup", "no group 'nogroup' in the image's /etc/group"),
        ("huge", "'huge' has the number 70000"),
        ("../../x", "is no user"),
        ("-1", "is no user"),
        ("65536", "is no user"),
        ("app\0", "is no user"),
    ] {
        let message = refusal(&host, |spec| spec.user = Some(user.into())).await;
        assert!(message.contains(needle) && message.contains("0 to 65535"), "{message}");
    }
    host.close().await;
}

#[tokio::test]
async fn files_of_accounts_that_are_traps_are_not_stepped_into() {
    if missing().is_some() {
        return;
    }
    let host = Host::new("traps");
    let passwd = host.home.join("root/etc/passwd");
    for target in ["/proc/self/environ", "/proc/1/fd/4", "/dev/zero", "/dev/tty", "passwd"] {
        fs_err::os::unix::fs::symlink(target, &passwd).unwrap();
        let message = refusal(&host, |spec| spec.user = Some("app".into())).await;
        assert!(message.contains("/etc/passwd"), "{message}");
        // Without a user nobody needs the file.
        let sandbox = host.start().await;
        assert_eq!(sh(&sandbox, "pwd").await, (FINE, "/root\n".to_owned()));
        sandbox.stop().await.unwrap();
        fs_err::remove_file(&passwd).unwrap();
    }
    let mode = rustix::fs::Mode::from_raw_mode(0o666);
    rustix::fs::mknodat(rustix::fs::CWD, &passwd, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    let message = refusal(&host, |spec| spec.user = Some("app".into())).await;
    assert!(message.contains("no regular file"), "{message}");
    host.close().await;
}

#[tokio::test]
async fn an_ordinary_user_reaches_neither_agent_nor_supervisors() {
    if missing().is_some() {
        return;
    }
    let host = host_with_users("reach");
    let sandbox = start(&host, |spec| spec.user = Some("app".into())).await;
    let code = r#"
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
def names(pid): return open(f'/proc/{pid}/comm').read().strip()
targets = [1] + [int(n) for n in os.listdir('/proc') if n.isdigit() and names(n) == 'msb-supervisor']
assert len(targets) >= 2, targets
reached = []
for pid in targets:
    for name in ('mem', 'environ', 'maps', 'fd', 'cwd', 'root', 'auxv', 'io', 'task/%d/mem' % pid):
        path = f'/proc/{pid}/{name}'
        try:
            os.readlink(path) if name in ('cwd', 'root') else os.listdir(path) if name == 'fd' else open(path, 'rb').read(1)
            reached.append(path)
        except PermissionError: pass
    for number in range(0, 12):
        try: open(f'/proc/{pid}/fd/{number}', 'rb'); reached.append((pid, number))
        except PermissionError: pass
    for signal in (0, 9, 19, 15):
        try: os.kill(pid, signal); reached.append((pid, 'signal', signal))
        except PermissionError: pass
    for request in (16, 0x4206):
        if libc.ptrace(request, pid, 0, 0) == 0: reached.append((pid, 'ptrace'))
    for call in (310, 311, 434):
        if call == 434:
            fd = libc.syscall(434, pid, 0)
            if fd >= 0 and libc.syscall(438, fd, 4, 0) >= 0: reached.append((pid, 'pidfd_getfd'))
            if fd >= 0 and libc.syscall(424, fd, 9, 0, 0) == 0: reached.append((pid, 'pidfd_send_signal'))
    for path in (f'/proc/{pid}/oom_score_adj', f'/proc/{pid}/comm', f'/proc/{pid}/clear_refs'):
        try: open(path, 'w').write('0'); reached.append(path)
        except (PermissionError, OSError): pass
    try: os.setpriority(os.PRIO_PROCESS, pid, 19); reached.append((pid, 'nice'))
    except PermissionError: pass
for become in (lambda: os.setuid(0), lambda: os.setgid(0), lambda: os.setgroups([0]), lambda: os.chown('/tmp', 1000, 1000)):
    try: become(); reached.append('became')
    except PermissionError: pass
status = dict(line.split(':\t', 1) for line in open('/proc/self/status').read().splitlines() if ':\t' in line)
reached, status['CapEff'], status['CapPrm'], status['CapInh'], status['CapAmb'], status['NoNewPrivs'], status['Seccomp']
"#;
    let (end, said) = run(&sandbox, Language::Python, code).await;
    let none = "0".repeat(16);
    let expected = format!("([], '{none}', '{none}', '{none}', '{none}', '1', '2')\n");
    assert_eq!((end, said), (RunEnd::Success, expected));
    sandbox.stop().await.unwrap();
    host.close().await;
}

#[tokio::test]
async fn programs_of_a_user_stay_in_their_cgroup_and_can_be_killed_by_the_agent() {
    if missing().is_some() {
        return;
    }
    let host = host_with_users("groups");
    let sandbox = start(&host, |spec| spec.user = Some("app".into())).await;
    let root_sandbox = host.start().await;
    // Seen from inside, each hierarchy begins at the sandbox's own group.
    let entered = async |sandbox| {
        let (_, said) = sh(sandbox, "cat /proc/self/cgroup").await;
        assert!(said.contains(":/programs\n") && !said.contains("microsandbox"), "{said}");
        said
    };
    assert_eq!(entered(&sandbox).await, entered(&root_sandbox).await);
    root_sandbox.stop().await.unwrap();

    let mut connection = sandbox.connect().await.unwrap();
    let script = "(setsid sh -c 'sleep 4711' &) ; trap '' INT TERM; sleep 4711";
    let args = vec!["-c".to_owned(), script.to_owned()];
    let request = protocol::agent::Request::Command { command: "sh".into(), args, timeout_ms: Some(500) };
    connection.request(request).await.unwrap();
    let reply = connection.next().await.unwrap();
    let timed_out = protocol::agent::Reply::Command { end: CommandEnd::TimedOut };
    assert_eq!(reply, runtime::agent::Event::Reply(timed_out));
    let (_, left) = sh(&sandbox, "cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' '").await;
    assert!(!left.contains("sleep 4711"), "{left}");
    sandbox.stop().await.unwrap();
    host.close().await;
}

#[tokio::test]
async fn a_working_directory_that_the_image_lacks_is_made_beneath_its_root() {
    if missing().is_some() {
        return;
    }
    let host = host_with_users("workdir");
    let root = host.home.join("root");
    fs_err::os::unix::fs::symlink("/srv/../../../data", root.join("link")).unwrap();
    let sandbox = start(&host, |spec| {
        spec.workdir = Some("/link/app".into());
        spec.user = Some("app".into());
    })
    .await;
    let (end, said) = sh(&sandbox, "pwd -P; stat -c '%u %g %a' . /data; ls -d /srv").await;
    assert_eq!((end, said.as_str()), (FINE, "/data/app\n0 0 755\n0 0 755\n/srv\n"));
    let (end, said) = run(&sandbox, Language::Python, "import os; os.getcwd()").await;
    assert_eq!((end, said.as_str()), (RunEnd::Success, "'/data/app'\n"));
    sandbox.stop().await.unwrap();
    assert!(!Path::new("/data/app").exists() && !root.join("data").exists(), "made outside");
    let message = refusal(&host, |spec| spec.workdir = Some("/etc/passwd/x".into())).await;
    assert!(message.contains("'/etc/passwd/x'") || message.contains("\"/etc/passwd/x\""), "{message}");
    assert!(message.contains("a file is in the way"), "{message}");
    host.close().await;
}

#[tokio::test]
async fn the_images_path_is_searched_and_its_loader_variables_reach_programs_alone() {
    if missing().is_some() {
        return;
    }
    let host = Host::new("envs");
    let bin = host.home.join("root/opt/bin");
    fs_err::create_dir_all(&bin).unwrap();
    let script = "#!/bin/sh\necho \"${LD_PRELOAD-} $LD_LIBRARY_PATH $GLIBC_TUNABLES\"\n";
    for (name, text) in [("own", script), ("python3", "#!/bin/sh\nWHOSE=mine exec /usr/bin/python3 \"$@\"\n")]
    {
        fs_err::write(bin.join(name), text).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs_err::set_permissions(bin.join(name), mode).unwrap();
    }
    let libraries = ["/usr/lib/x86_64-linux-gnu/libm.so.6", "/usr/lib64/libm.so.6"];
    let library = libraries.into_iter().find(|path| Path::new(path).exists()).unwrap();
    let sandbox = start(&host, |spec| {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        spec.envs = vec![
            pair("PATH", "/opt/bin:/usr/bin"),
            pair("LD_PRELOAD", library),
            pair("LD_LIBRARY_PATH", "/opt/evil"),
            pair("GLIBC_TUNABLES", "glibc.malloc.check=3"),
        ];
    })
    .await;
    let (_, said) = sh(&sandbox, "own").await;
    assert!(said.contains(&format!("{library} /opt/evil glibc.malloc.check=3")), "{said}");
    let (_, said) = sh(&sandbox, "grep -c libm.so /proc/self/maps").await;
    assert_ne!(said, "0\n", "the library was not loaded into a program, so the test shows nothing");
    let (end, said) = run(&sandbox, Language::Python, "import os; os.environ['WHOSE']").await;
    assert_eq!((end, said.lines().last()), (RunEnd::Success, Some("'mine'")), "{said}");

    let group = groups_of(&host.home).into_iter().next().unwrap();
    let id =
        fs_err::read_dir(&group).unwrap().find(|e| e.as_ref().unwrap().path().is_dir()).unwrap().unwrap();
    let agent = fs_err::read_to_string(id.path().join("cgroup.procs")).unwrap();
    let agent = agent.lines().next().unwrap();
    assert_eq!(fs_err::read_to_string(format!("/proc/{agent}/comm")).unwrap(), "msb-agent\n");
    assert_eq!(fs_err::read(format!("/proc/{agent}/environ")).unwrap(), b"");
    let maps = fs_err::read_to_string(format!("/proc/{agent}/maps")).unwrap();
    assert!(!maps.contains(".so"), "the agent is not static: {maps}");
    sandbox.stop().await.unwrap();
    host.close().await;
}
