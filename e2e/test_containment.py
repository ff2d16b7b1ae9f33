# SPDX-License-Identifier: Apache-2.0
"""Tries, from inside, to see or reach what is outside of a sandbox; and what a sandbox has instead."""

from __future__ import annotations

import asyncio
import json
import os
import platform
import socket
import textwrap
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from microsandbox import NodeSandbox, PythonSandbox

from host import REPO, Server, need

PROBES = Path(__file__).parent / "probes"

# chown, dac_override, fowner, fsetid, kill, setgid, setuid, net_bind_service: capabilities(7) has the numbers.
CAPABILITIES = sum(1 << number for number in (0, 1, 3, 4, 5, 6, 7, 10))

# How long a neighbour may take to answer while a sandbox misbehaves, in seconds.
NEIGHBOUR_SECONDS_MAX = 2.5


async def probe(sandbox: PythonSandbox, code: str) -> Any:
    """Run Python code inside, which leaves its finding in `found`, and return that."""
    execution = await sandbox.run(f"{textwrap.dedent(code)}\nimport json\nprint(json.dumps(found))")
    assert not execution.has_error(), await execution.error()
    return json.loads((await execution.output()).splitlines()[-1])


async def status_of(sandbox: PythonSandbox | NodeSandbox, *command: str) -> dict[str, str]:
    """Return /proc/self/status of a command."""
    result = await sandbox.command.run(command[0], list(command[1:]))
    return dict(line.split(":\t", 1) for line in (await result.output()).splitlines() if ":\t" in line)


@pytest.fixture
def canary(tmp_path: Path) -> Iterator[list[Path]]:
    """Give files of the host in places that a sandbox has too."""
    places = [
        tmp_path,
        Path("/tmp"),
        Path("/root"),
        Path("/var/tmp"),
        Path("/etc"),
        Path("/usr/src"),
        Path("/usr/local/etc"),
    ]
    files = [place / f"msb-canary-{os.getpid()}" for place in places if place.is_dir()]
    for file in files:
        file.write_text("canary")
    yield files
    for file in files:
        file.unlink()


# What a process inside holds


def check_privileges(status: dict[str, str]) -> None:
    for key in ("CapEff", "CapPrm", "CapBnd"):
        assert int(status[key], 16) == CAPABILITIES, f"{key} {status[key]}"
    for key in ("CapInh", "CapAmb"):
        assert int(status[key], 16) & ~CAPABILITIES == 0
    assert status["NoNewPrivs"] == "1"
    assert status["Seccomp"] == "2"
    assert status["Uid"].split() == ["0"] * 4
    assert status["Gid"].split() == ["0"] * 4
    assert set(status["Groups"].split()) <= {"0"}


async def test_a_command_holds_no_capability_but_the_few(python: PythonSandbox) -> None:
    check_privileges(await status_of(python, "cat", "/proc/self/status"))


async def test_kernels_hold_no_capability_but_the_few(python: PythonSandbox, node: NodeSandbox) -> None:
    text = await probe(python, "found = open('/proc/self/status').read()")
    check_privileges(dict(line.split(":\t", 1) for line in text.splitlines()))
    text = await (await node.run("console.log(require('fs').readFileSync('/proc/self/status', 'utf8'))")).output()
    check_privileges(dict(line.split(":\t", 1) for line in text.splitlines()))


async def test_the_agent_holds_no_capability_but_the_few(python: PythonSandbox) -> None:
    status = await status_of(python, "cat", "/proc/1/status")
    assert int(status["CapBnd"], 16) == CAPABILITIES
    assert int(status["CapEff"], 16) & ~CAPABILITIES == 0
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")


async def test_root_inside_is_nobody_outside(python: PythonSandbox) -> None:
    found = await probe(python, "found = [open('/proc/self/' + n).read().split() for n in ('uid_map', 'gid_map')]")
    for inside, outside, count in found:
        assert inside == "0"
        assert int(outside) >= 65536
        assert int(count) <= 65536


async def test_two_sandboxes_share_no_ids(server: Server) -> None:
    async with PythonSandbox.create() as one, PythonSandbox.create() as two:
        maps = [await probe(s, "found = open('/proc/self/uid_map').read().split()") for s in (one, two)]
    starts = sorted((int(start), int(count)) for _, start, count in maps)
    assert starts[0][0] + starts[0][1] <= starts[1][0]


async def test_no_descriptor_is_inherited(python: PythonSandbox) -> None:
    script = "for fd in /proc/self/fd/*; do readlink $fd; done"
    result = await python.command.run("sh", ["-c", script])
    for target in (await result.output()).splitlines():
        assert target.startswith(("pipe:", "/dev/null", "/proc/")), target


async def test_forbidden_kernel_calls_are_refused(python: PythonSandbox) -> None:
    need(platform.machine() == "x86_64", "the probe knows the numbers of kernel calls of x86_64 only")
    await python.run("open('/tmp/probe.py', 'w').write(" + repr((PROBES / "syscalls.py").read_text()) + ")")
    result = await python.command.run("python3", ["/tmp/probe.py"], timeout=60)
    assert result.success, await result.error()
    found = json.loads(await result.output())
    assert len(found) > 40
    refused = {"EPERM", "ENOSYS"}
    also = {
        "open_by_handle_at": set[str](),
        "vsock socket": {"EAFNOSUPPORT", "EACCES"},
        "packet socket": {"EAFNOSUPPORT", "EACCES"},
        "32-bit getpid": {"killed by signal 11", "killed by signal 31"},
        "x32 getpid": {"killed by signal 31"},
    }
    allowed = {name: got for name, got in found.items() if got not in refused | also.get(name, set())}
    assert allowed == {}


# What it can see


async def test_no_process_of_the_host_is_visible(python: PythonSandbox) -> None:
    code = """
    import os
    found = {}
    for pid in filter(str.isdecimal, os.listdir('/proc')):
        try:
            found[pid] = open(f'/proc/{pid}/cmdline').read().replace(chr(0), ' ')
        except OSError:
            found[pid] = ''
    """
    found = await probe(python, code)
    assert "1" in found
    assert len(found) < 8
    assert max(map(int, found)) < 1000
    for line in found.values():
        assert "server start" not in line
        assert "pytest" not in line


async def test_pid_1_is_closed(python: PythonSandbox) -> None:
    code = """
    import os
    def attempt(act):
        try:
            act()
        except OSError as error:
            return type(error).__name__
        return 'open'
    found = {
        'mem': attempt(lambda: open('/proc/1/mem', 'rb')),
        'root': attempt(lambda: os.listdir('/proc/1/root')),
        'root link': attempt(lambda: os.readlink('/proc/1/root')),
        'cwd': attempt(lambda: os.listdir('/proc/1/cwd')),
        'exe': attempt(lambda: os.readlink('/proc/1/exe')),
        # Its numbers can be listed by the root of its user namespace; what they are cannot be seen, nor opened.
        **{f'fd {n}': attempt(lambda: os.readlink(f'/proc/1/fd/{n}')) for n in os.listdir('/proc/1/fd')},
        **{f'open fd {n}': attempt(lambda: open(f'/proc/1/fd/{n}', 'rb')) for n in os.listdir('/proc/1/fd')},
        'environ': attempt(lambda: open('/proc/1/environ').read()),
        'maps': attempt(lambda: open('/proc/1/maps').read()),
    }
    """
    assert set((await probe(python, code)).values()) == {"PermissionError"}


async def test_pid_1_cannot_be_killed_from_inside(python: PythonSandbox) -> None:
    await python.run("import os, signal")
    for number in (9, 15, 2, 19, 11):
        await python.run(f"os.kill(1, {number})")
    assert await (await python.run("print('alive')")).output() == "alive"
    assert (await python.command.run("true")).success


async def test_no_file_of_the_host_is_visible(python: PythonSandbox, server: Server, canary: list[Path]) -> None:
    hidden = [*map(str, canary), str(server.home), str(REPO), "/boot/vmlinuz", "/etc/shadow", "/root/.ssh"]
    found = await probe(python, f"import os\nfound = [path for path in {hidden!r} if os.path.exists(path)]")
    assert found == []
    for directory in ("/home", "/mnt", "/media", "/opt", "/srv", "/boot", "/usr/src", "/usr/local/etc"):
        listing = await probe(python, f"import os\nfound = os.path.isdir({directory!r}) and os.listdir({directory!r})")
        assert not listing, directory


async def test_the_host_is_not_named(python: PythonSandbox, server: Server) -> None:
    code = """
    import os, socket
    found = [socket.gethostname(), os.uname().nodename, open('/etc/hosts').read()]
    found.append(os.path.exists('/etc/hostname') and open('/etc/hostname').read())
    """
    host = socket.gethostname()
    found = await probe(python, code)
    assert host not in map(str, found)
    assert host not in found[2].split()


async def test_mounts_show_no_path_of_the_host(python: PythonSandbox, server: Server) -> None:
    text = await probe(python, "found = open('/proc/self/mountinfo').read() + open('/proc/self/mounts').read()")
    assert text
    for path in (str(server.home), str(REPO), "/var/lib", "pytest", "/tmp/", "sandboxes"):
        assert path not in text


async def test_proc_is_masked(python: PythonSandbox) -> None:
    code = """
    import os
    found = {}
    for path in ('/proc/kcore', '/proc/keys', '/proc/timer_list', '/proc/sched_debug', '/proc/latency_stats',
                 '/proc/acpi', '/proc/scsi', '/sys/firmware', '/proc/kallsyms', '/proc/sysrq-trigger'):
        try:
            found[path] = os.listdir(path) if os.path.isdir(path) else open(path, 'rb').read(4096).decode('latin-1')
        except OSError as error:
            found[path] = ''
    """
    found = await probe(python, code)
    addresses = {line.split()[0] for line in found.pop("/proc/kallsyms").splitlines()[:-1]}
    assert addresses <= {"0" * 16}
    assert {path: seen for path, seen in found.items() if seen} == {}


async def test_the_kernels_settings_cannot_be_written(python: PythonSandbox) -> None:
    code = """
    import os
    found = []
    paths = ['/proc/sys/kernel/hostname', '/proc/sys/kernel/core_pattern', '/proc/sys/vm/drop_caches',
             '/proc/sys/kernel/ns_last_pid', '/proc/sysrq-trigger', '/proc/sys/net/ipv4/ip_forward',
             '/proc/sys/user/max_user_namespaces', '/proc/irq/default_smp_affinity', '/sys/power/state']
    for top, directories, files in os.walk('/sys'):
        paths += [os.path.join(top, name) for name in files]
        if len(paths) > 3000:
            break
    for path in paths:
        try:
            os.close(os.open(path, os.O_WRONLY))
            found.append(path)
        except OSError:
            pass
    """
    opened = await probe(python, code)
    assert [path for path in opened if path != "/proc/sysrq-trigger"] == []
    if opened:  # behind /dev/null: it can be opened, and does nothing
        assert (await probe(python, "import os\nfound = os.stat('/proc/sysrq-trigger').st_rdev")) == os.makedev(1, 3)


async def test_devices_are_the_harmless_ones(python: PythonSandbox) -> None:
    code = """
    import os, stat
    found = []
    for top, directories, files in os.walk('/dev'):
        for name in files:
            path = os.path.join(top, name)
            mode = os.lstat(path).st_mode
            if stat.S_ISBLK(mode) or stat.S_ISCHR(mode):
                found.append(path)
    """
    harmless = {"null", "zero", "full", "random", "urandom", "tty", "ptmx", "console"}
    found = {path.removeprefix("/dev/") for path in await probe(python, code)}
    assert {path for path in found if not path.startswith("pts/")} <= harmless
    assert {"null", "zero", "urandom"} <= found


async def test_cgroups_cannot_be_changed(python: PythonSandbox) -> None:
    code = """
    import os
    found = []
    for top in ('/sys/fs/cgroup', '/cgroup'):
        for directory, _, files in os.walk(top):
            found += [os.path.join(directory, f) for f in files if os.access(os.path.join(directory, f), os.W_OK)]
    """
    assert await probe(python, code) == []


# What it can reach


async def test_there_is_no_network_but_loopback(python: PythonSandbox, server: Server) -> None:
    own = {info[4][0] for info in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)}
    targets = [(host, server.port) for host in {"127.0.0.1", "127.0.0.2", *own, "8.8.8.8", "169.254.169.254"}]
    code = f"""
    import socket
    found = {{'interfaces': [name for _, name in socket.if_nameindex()], 'reached': []}}
    for target in {targets!r}:
        try:
            socket.create_connection(target, timeout=1)
            found['reached'].append(target)
        except OSError:
            pass
    """
    assert await probe(python, code) == {"interfaces": ["lo"], "reached": []}


async def test_loopback_works_inside(python: PythonSandbox) -> None:
    code = """
    import socket
    listener = socket.create_server(('127.0.0.1', 0))
    client = socket.create_connection(listener.getsockname())
    server, _ = listener.accept()
    client.sendall(b'hi')
    found = server.recv(2).decode()
    """
    assert await probe(python, code) == "hi"


async def test_the_servers_sockets_cannot_be_found(python: PythonSandbox) -> None:
    code = """
    import os, stat
    found = [line.split()[-1] for line in open('/proc/net/unix').read().splitlines()[1:] if len(line.split()) > 7]
    for top in ('/run', '/tmp', '/var', '/dev'):
        for directory, _, files in os.walk(top):
            paths = [os.path.join(directory, name) for name in files]
            found += [path for path in paths if stat.S_ISSOCK(os.lstat(path).st_mode)]
    """
    assert await probe(python, code) == []


# Neighbours


async def test_two_sandboxes_do_not_see_each_other(server: Server) -> None:
    leave = """
    import os, socket
    for path in ('/tmp/mine', '/dev/shm/mine', os.path.expanduser('~/mine'), '/usr/mine', '/etc/mine'):
        open(path, 'w').write('mine')
    abstract = socket.socket(socket.AF_UNIX)
    abstract.bind(chr(0) + 'mine')
    abstract.listen()
    found = True
    """
    look = """
    import os, socket
    found = [top for top in ('/tmp', '/dev/shm', os.path.expanduser('~'), '/usr', '/etc') if 'mine' in os.listdir(top)]
    try:
        socket.socket(socket.AF_UNIX).connect(chr(0) + 'mine')
        found.append('abstract socket')
    except OSError:
        pass
    found += [line for line in open('/proc/sysvipc/shm').read().splitlines()[1:]]
    pids = [pid for pid in os.listdir('/proc') if pid.isdecimal()]
    found += [pid for pid in pids if b'5417' in open(f'/proc/{pid}/cmdline', 'rb').read()]
    """
    async with PythonSandbox.create() as one, PythonSandbox.create() as two:
        await probe(one, leave)
        await one.command.run("sh", ["-c", "ipcmk -M 4096 >/dev/null; setsid sleep 5417 >/dev/null 2>&1 &"])
        assert len(await probe(one, look)) >= 7, "the probe finds what is there"
        assert await probe(two, look) == []


async def test_a_sandbox_of_the_same_name_finds_nothing_of_the_one_before(server: Server, name: str) -> None:
    paths = ["/tmp/old", "/root/old", "/dev/shm/old", "/etc/old", "/usr/lib/old", "/var/old"]
    async with PythonSandbox.create(name=name) as sandbox:
        await probe(sandbox, f"found = [open(path, 'w').write('old') for path in {paths!r}]")
        await sandbox.run("old = 1")
    async with PythonSandbox.create(name=name) as sandbox:
        assert await probe(sandbox, f"import os\nfound = [p for p in {paths!r} if os.path.exists(p)]") == []
        assert await probe(sandbox, "found = 'old' in globals()") is False
    assert not any(Path(path).exists() for path in paths)


@asynccontextmanager
async def watched_neighbour() -> AsyncIterator[list[float]]:
    """Keep asking a sandbox; give the seconds that its answers took."""
    taken: list[float] = []
    async with PythonSandbox.create() as neighbour:
        await neighbour.run("1")

        async def ask() -> None:
            while True:
                began = time.monotonic()
                assert await (await neighbour.run("1")).output() == "1"
                taken.append(time.monotonic() - began)
                await asyncio.sleep(0.02)

        asking = asyncio.create_task(ask())
        try:
            yield taken
            if asking.done():
                asking.result()
        finally:
            asking.cancel()
            await asyncio.wait({asking})


FORK_BOMB = """
import os
while True:
    try:
        os.fork()
    except OSError:
        pass
"""
# Four times its limit, and no more: a limit that does not hold must not cost the host its memory.
MEMORY_BOMB = "b = []\nfor _ in range(256): b.append(bytearray(b'x') * 4_000_000)"
COUNT_FORKS = """
import os, signal
children = []
try:
    while len(children) < 1000:
        pid = os.fork()
        if pid == 0:
            signal.pause()
            os._exit(0)
        children.append(pid)
except OSError:
    pass
found = len(children)
for pid in children:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
"""


async def check_bomb(code: str, statuses: set[str], error: str) -> None:
    """Run a bomb beside a neighbour that must go on answering; then it must end and be removed."""
    async with watched_neighbour() as taken:
        async with PythonSandbox.create(memory=256) as sandbox:
            execution = await sandbox.run(code, timeout=4)
            assert execution.status in statuses, await execution.error()
            assert error in await execution.error()
            if "fork" not in code:
                assert await (await sandbox.run("print('next')")).output() == "next"
        assert len(taken) >= 5
        assert max(taken) < NEIGHBOUR_SECONDS_MAX


async def test_a_fork_bomb_ends_at_its_limit_while_a_neighbour_answers(python: PythonSandbox) -> None:
    assert await probe(python, COUNT_FORKS) <= 512, "without a limit the bomb would go off on the host"
    await check_bomb(FORK_BOMB, {"timeout", "crashed", "error", "out_of_memory"}, "")


async def test_a_memory_bomb_ends_at_its_limit_while_a_neighbour_answers(server: Server) -> None:
    await check_bomb(MEMORY_BOMB, {"out_of_memory"}, "memory")


async def test_an_endless_loop_ends_at_its_limit_while_a_neighbour_answers(server: Server) -> None:
    await check_bomb("while True: pass", {"timeout"}, "4 seconds")


async def test_processes_are_counted_and_limited(python: PythonSandbox) -> None:
    assert 50 < await probe(python, COUNT_FORKS) <= 512
    assert (await python.command.run("true")).success


async def test_memory_is_limited_to_what_was_asked_for(server: Server) -> None:
    grow = "block = bytearray(b'x') * (160 * 1024 * 1024); print(len(block))"
    async with PythonSandbox.create(memory=128) as small, PythonSandbox.create(memory=512) as large:
        assert (await small.run(grow)).status == "out_of_memory"
        assert await (await large.run(grow)).output() == str(160 * 1024 * 1024)
        shm = "open('/dev/shm/fill', 'wb').write(bytes(300 * 1024 * 1024))"
        assert (await small.run(shm)).has_error()
        assert await (await small.run("print('next')")).output() == "next"


async def test_one_core_is_one_core(server: Server) -> None:
    need((os.cpu_count() or 1) >= 2, "more than one core is needed to see that only one is given")
    code = """
    import os, time
    began, pids = time.monotonic(), []
    for _ in range(3):
        pid = os.fork()
        if pid == 0:
            while time.monotonic() - began < 3: pass
            os._exit(0)
        pids.append(pid)
    for pid in pids: os.waitpid(pid, 0)
    used = os.times()
    found = (used.children_user + used.children_system) / (time.monotonic() - began)
    """
    async with PythonSandbox.create(cpus=1) as sandbox:
        assert await probe(sandbox, code) < 1.3


# What it has


async def test_the_environment_is_the_listed_one(python: PythonSandbox) -> None:
    result = await python.command.run("env")
    found = dict(line.split("=", 1) for line in (await result.output()).splitlines())
    assert {"HOME", "USER", "PATH", "LANG"} <= set(found)
    assert set(found) <= {
        "HOME",
        "USER",
        "LOGNAME",
        "PATH",
        "LANG",
        "LC_ALL",
        "SHELL",
        "TERM",
        "TMPDIR",
        "PWD",
        "HOSTNAME",
    }
    assert found["HOME"].startswith("/")
    assert "UTF-8" in found["LANG"].upper()
    assert "/usr/bin" in found["PATH"].split(":")
    assert ".pyenv" not in found["PATH"]
    of_kernel = await probe(python, "import os\nfound = dict(os.environ)")
    assert {key: of_kernel[key] for key in ("HOME", "USER", "PATH", "LANG")} == {
        key: found[key] for key in ("HOME", "USER", "PATH", "LANG")
    }


async def test_home_and_the_working_directory_can_be_written(python: PythonSandbox, node: NodeSandbox) -> None:
    code = """
    import os
    open('in-cwd', 'w').write('x')
    open(os.path.expanduser('~/in-home'), 'w').write('x')
    found = os.getcwd()
    """
    directory = await probe(python, code)
    result = await python.command.run("pwd")
    assert await result.output() == directory
    assert (await python.command.run("sh", ["-c", "touch x ~/y /tmp/z /var/tmp/z"])).success
    assert not (await node.run("require('fs').writeFileSync('in-cwd', 'x')")).has_error()


async def test_the_listed_files_are_there(python: PythonSandbox) -> None:
    code = """
    import getpass, os, pwd, socket, ssl
    found = {
        'uid': os.getuid(),
        'user': pwd.getpwuid(0).pw_name,
        'home': pwd.getpwuid(0).pw_dir == os.environ['HOME'],
        'me': getpass.getuser() == os.environ['USER'],
        'hosts': 'localhost' in open('/etc/hosts').read(),
        'resolv': os.path.isfile('/etc/resolv.conf'),
        'localhost': socket.gethostbyname('localhost'),
        'own name': socket.gethostbyname(socket.gethostname()).startswith('127.'),
        'certificates': len(ssl.create_default_context().get_ca_certs()) > 50,
        'random': len(os.urandom(8)),
        'tmp': oct(os.stat('/tmp').st_mode & 0o7777),
        'passwd': len(open('/etc/passwd').read().splitlines()) < 40,
    }
    """
    assert await probe(python, code) == {
        "uid": 0,
        "user": "root",
        "home": True,
        "me": True,
        "hosts": True,
        "resolv": True,
        "localhost": "127.0.0.1",
        "own name": True,
        "certificates": True,
        "random": 8,
        "tmp": "0o1777",
        "passwd": True,
    }


async def test_pip_is_there_and_packages_can_be_written(python: PythonSandbox) -> None:
    need(Path("/usr/bin/pip").exists() or Path("/usr/bin/pip3").exists(), "Debian's package python3-pip is needed")
    result = await python.command.run("pip" if Path("/usr/bin/pip").exists() else "pip3", ["--version"])
    assert result.success, await result.error()
    assert (await result.output()).startswith("pip ")
    code = """
    import os, sys
    path = next(p for p in sys.path if p.startswith('/usr') and os.path.isdir(p))
    open(os.path.join(path, 'brand_new.py'), 'w').write('x = 5')
    import brand_new
    found = brand_new.x
    """
    assert await probe(python, code) == 5


async def test_files_keep_owners_and_modes_inside(python: PythonSandbox) -> None:
    script = (
        "cd /tmp && touch f && chown 1000:1000 f && chmod 4755 f && stat -c '%u %g %a' f && stat -c '%u' /usr/bin/env"
    )
    result = await python.command.run("sh", ["-c", script])
    assert await result.output() == "1000 1000 4755\n0", await result.error()
