# SPDX-License-Identifier: Apache-2.0
"""How strong the wall says it is, before and after a sandbox is started; and attempts to find it weaker."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from microsandbox import NodeSandbox, PythonSandbox

from host import PROGRAMS, Server, clean_environment, descendants, need, need_everything

# What a host of today has; the rest depends on how the home and its disks are.
USUAL = {
    "user_namespace",
    "id_range",
    "mount_namespace",
    "pid_namespace",
    "network_namespace",
    "ipc_namespace",
    "uts_namespace",
    "cgroup_namespace",
    "idmapped_layers",
    "masked_paths",
    "devices_closed",
    "set_id_powerless",
    "capabilities",
    "no_new_privs",
    "seccomp",
    "descriptors_closed",
    "core_dumps_off",
    "memory_limit",
    "cpu_limit",
    "pids_limit",
    "open_files_limit",
    "network_policy",
}
# How many domains of landlock can be stacked (linux/landlock.h).
LANDLOCK_LAYERS = 16


async def probe(sandbox: PythonSandbox, code: str) -> Any:
    """Run Python code inside, which leaves its finding in `found`, and return that."""
    execution = await sandbox.run(f"{textwrap.dedent(code)}\nimport json\nprint(json.dumps(found))")
    assert not execution.has_error(), await execution.error()
    return json.loads((await execution.output()).splitlines()[-1])


def msb(*arguments: object) -> subprocess.CompletedProcess[str]:
    need_everything()
    command = [PROGRAMS / "msb", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=clean_environment(), check=False)


def doctor(home: Path, *arguments: str) -> dict[str, Any]:
    done = msb("doctor", "--no-network", "--json", "--home", home, "--min-isolation", "any", *arguments)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def off(isolation: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {one["name"]: one for one in isolation["protections"] if not one["on"]}


# What it says


async def test_a_sandbox_tells_what_it_is_and_what_protects_it(python: PythonSandbox) -> None:
    info = await python.get_info()
    assert (info.name, info.namespace, info.running) == (python.name, "default", True)
    assert (info.image, info.image_source) == ("microsandbox/python", "host")
    assert (info.memory, info.cpus) == (512, 1.0)
    assert info.isolation is not None
    assert info.isolation.kind == "container"
    assert {name for name in USUAL if not info.isolation.has(name)} == set()
    for protection in info.isolation.protections:
        assert protection.on or protection.why, protection


async def test_the_doctor_says_the_same_before_anything_is_started(python: PythonSandbox, tmp_path: Path) -> None:
    info = await python.get_info()
    assert info.isolation is not None
    found = doctor(tmp_path)
    # Whether the home has limits on disks is asked of another home.
    of_the_home = {"disk_limit", "inode_limit"}
    expected = {(one.name, one.on) for one in info.isolation.protections if one.name not in of_the_home}
    assert expected <= {(one["name"], one["on"]) for one in found["isolation"]["protections"]}
    assert found["isolation"]["kind"] == "container"


def test_the_doctor_leaves_nothing_behind(tmp_path: Path) -> None:
    home = tmp_path / "none"
    groups = {str(path) for path in Path("/sys/fs/cgroup").glob("*/microsandbox/*")}
    mounts = len(Path("/proc/self/mountinfo").read_text().splitlines())
    found = doctor(home)
    assert not home.exists()
    assert found["server_runs"] is False
    assert not list(Path("/tmp").glob(".msb-doctor-*"))
    assert {str(path) for path in Path("/sys/fs/cgroup").glob("*/microsandbox/*")} <= groups
    assert len(Path("/proc/self/mountinfo").read_text().splitlines()) == mounts
    doctor(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_doctor_speaks_to_people_without_colours_where_nobody_sees_them(tmp_path: Path) -> None:
    done = msb("doctor", "--no-network", "--home", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "\x1b" not in done.stdout
    assert all(len(line) <= 100 for line in done.stdout.splitlines())
    for word in ("user_namespace", "disk_limit", "isolation contained  reached", "microsandbox/python", "does not run"):
        assert word in done.stdout, word


def test_the_doctor_says_which_images_would_be_taken(tmp_path: Path) -> None:
    without = {one["name"]: one for one in doctor(tmp_path)["images"]}
    assert set(without) == {"microsandbox/python", "microsandbox/node"}
    for one in without.values():
        assert one["source"] is None
        assert "--allow-host-image" in one["mend"]
    with_host = {one["name"]: one for one in doctor(tmp_path, "--allow-host-image")["images"]}
    assert with_host["microsandbox/python"]["source"] == "host"
    assert "Python 3" in with_host["microsandbox/python"]["what"]
    registry = {one["name"]: one for one in doctor(tmp_path, "--registry", "127.0.0.1:9")["images"]}
    assert registry["microsandbox/node"]["source"] == "registry"


async def test_the_doctor_sees_a_server(python: PythonSandbox, server: Server) -> None:
    assert doctor(server.home)["server_runs"] is True


def test_below_the_demanded_level_no_server_starts_and_it_says_what_is_missing(tmp_path: Path) -> None:
    missing = off(doctor(tmp_path)["isolation"])
    need(missing, "this host has every protection: nothing can be missing")
    done = msb(
        "server", "start", "--dev", "--no-network", "--port", "0", "--home", tmp_path, "--min-isolation", "complete"
    )
    assert done.returncode == 3, done.stderr
    assert done.stdout == ""
    for name, one in missing.items():
        assert name in done.stderr
        assert one["why"] in done.stderr
    assert msb("doctor", "--no-network", "--home", tmp_path, "--min-isolation", "complete").returncode == 3
    assert msb("doctor", "--no-network", "--home", tmp_path, "--min-isolation", "most").returncode == 2


async def test_at_the_demanded_level_sandboxes_start(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    need_everything()
    server = Server.start(tmp_path_factory.mktemp("home"), "--min-isolation", "limited")
    monkeypatch.setenv("MSB_SERVER_URL", server.url)
    async with PythonSandbox.create() as sandbox:
        assert await (await sandbox.run("print(6 * 7)")).output() == "42"
    server.end()


# Landlock


@pytest.fixture
def handed_in(tmp_path: Path) -> Iterator[list[int]]:
    """Give descriptors of a host directory that everybody may read, and of a file in it."""
    tmp_path.chmod(0o755)
    file = tmp_path / "canary"
    file.write_text("canary")
    file.chmod(0o644)
    descriptors = [os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY), os.open(file, os.O_RDONLY)]
    yield descriptors
    for descriptor in descriptors:
        os.close(descriptor)


def find_inside(server: Server, marker: str) -> Path:
    """Return a file of a sandbox as the host reaches it."""
    for pid in descendants(server.process.pid):
        path = Path(f"/proc/{pid}/root{marker}")
        if path.exists():
            return path
    raise AssertionError(f"no sandbox has {marker}")


async def test_a_leaked_directory_of_the_host_opens_nothing(
    python: PythonSandbox, server: Server, handed_in: list[int]
) -> None:
    info = await python.get_info()
    assert info.isolation is not None
    need(info.isolation.has("landlock"), "landlock is needed")
    marker = f"/tmp/{python.name}.sock"
    await probe(python, f"import socket\ns = socket.socket(socket.AF_UNIX)\ns.bind({marker!r})\ns.listen()\nfound = 1")
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(find_inside(server, marker)))
        socket.send_fds(client, [b"x"], handed_in)
        code = """
        import os
        peer, _ = s.accept()
        _, (directory, file), _, _ = socket.recv_fds(peer, 1, 2)
        def attempt(act):
            try:
                return str(act())
            except OSError as error:
                return type(error).__name__
        found = {
            'the file itself': os.read(file, 6).decode(),
            'its name in the directory': attempt(lambda: os.stat('canary', dir_fd=directory).st_size),
            'open beneath': attempt(lambda: os.open('canary', os.O_RDONLY, dir_fd=directory)),
            'open above': attempt(lambda: os.open('../../../etc/passwd', os.O_RDONLY, dir_fd=directory)),
            'open again': attempt(lambda: os.open(f'/proc/self/fd/{file}', os.O_RDONLY)),
            'list': attempt(lambda: os.open('.', os.O_RDONLY | os.O_DIRECTORY, dir_fd=directory)),
            'write': attempt(lambda: os.open('new', os.O_WRONLY | os.O_CREAT, dir_fd=directory)),
            'execute': attempt(lambda: os.execve(os.open('../../../bin/true', os.O_PATH, dir_fd=directory), ['x'], {})),
        }
        """
        found = await probe(python, code)
        owner = (await probe(python, "found = open('/proc/self/uid_map').read().split()"))[1]
    # The user id of the sandbox alone would let it: so it is not that.
    opens = f"import os; os.open('canary', os.O_RDONLY, dir_fd={handed_in[0]})"
    control = ["/usr/bin/python3", "-c", opens]
    subprocess.run(control, user=int(owner), group=int(owner), extra_groups=[], pass_fds=handed_in, cwd="/", check=True)
    # What was open when it came can be read: a descriptor of a file is the file. All else is shut.
    assert found.pop("the file itself") == "canary"
    assert found.pop("its name in the directory") == "6"
    assert set(found.values()) <= {"PermissionError"}, found


STACK = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
def layers():
    libc.prctl(38, 1, 0, 0, 0)
    for count in range(100):
        attributes = (ctypes.c_uint64 * 1)(1 << 2)
        ruleset = libc.syscall(444, ctypes.byref(attributes), 8, 0)
        if ruleset < 0 or libc.syscall(446, ruleset, 0) != 0:
            return count
        os.close(ruleset)
    return 100
read, write = os.pipe()
child = os.fork()
if child == 0:
    os.write(write, bytes([layers()]))
    os._exit(0)
os.close(write)
found = os.read(read, 1)[0]
os.waitpid(child, 0)
"""


async def test_programs_live_in_a_domain_of_landlock(python: PythonSandbox) -> None:
    outside = subprocess.run(
        [sys.executable, "-c", f"{STACK}\nprint(found)"], capture_output=True, text=True, check=True
    )
    need(outside.stdout.strip() == str(LANDLOCK_LAYERS), "landlock is needed")
    assert await probe(python, STACK) == LANDLOCK_LAYERS - 1


async def test_what_programs_need_works_in_it(python: PythonSandbox) -> None:
    script = """
    set -e
    cd /tmp
    mkdir -p a b /top && echo x > a/f && mv a/f b/f && ln b/f a/g && mv a /top/a && rm -rf /top/a b
    echo y > /top/new && cat /top/new
    mkfifo pipe && rm pipe
    echo 500 > /proc/self/oom_score_adj
    echo 0 > /proc/self/coredump_filter
    printf name > /proc/self/comm
    : > /dev/null
    ls /proc/self/fd /sys/class >/dev/null
    touch /dev/shm/x
    """
    result = await python.command.run("sh", ["-c", textwrap.dedent(script)])
    assert result.success, await result.error()
    code = """
    import os, pty, termios, fcntl, struct
    child, terminal = pty.fork()
    if child == 0:
        os.execvp('sh', ['sh', '-c', 'test -t 0 && stty size && echo from a terminal'])
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack('HHHH', 24, 80, 0, 0))
    said = b''
    try:
        while chunk := os.read(terminal, 4096):
            said += chunk
    except OSError:
        pass
    _, status = os.waitpid(child, 0)
    found = [status, said.decode()]
    """
    status, said = await probe(python, code)
    assert status == 0, said
    assert "from a terminal" in said


async def test_tmux_works_in_it(python: PythonSandbox) -> None:
    need(Path("/usr/bin/tmux").exists(), "Debian's package tmux is needed")
    # The session must outlive the wait: without one, another server would be waited for.
    script = """
    export TERM=xterm
    tmux -f /dev/null new-session -d 'echo inside > /tmp/out; tmux wait-for -S done; exec sleep 60'
    tmux wait-for done && cat /tmp/out && tmux kill-server
    """
    result = await python.command.run("sh", ["-c", textwrap.dedent(script)], timeout=20)
    assert await result.output() == "inside", await result.error()


async def test_a_package_can_be_installed(python: PythonSandbox) -> None:
    need(Path("/usr/bin/pip").exists() or Path("/usr/bin/pip3").exists(), "Debian's package python3-pip is needed")
    code = """
    import zipfile
    with zipfile.ZipFile('/tmp/tiny_thing-1.0-py3-none-any.whl', 'w') as wheel:
        wheel.writestr('tiny_thing.py', 'answer = 42')
        folder = 'tiny_thing-1.0.dist-info'
        wheel.writestr(f'{folder}/METADATA', 'Metadata-Version: 2.1\\nName: tiny-thing\\nVersion: 1.0\\n')
        wheel.writestr(f'{folder}/WHEEL', 'Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n')
        wheel.writestr(f'{folder}/RECORD', '')
    found = 1
    """
    await probe(python, code)
    install = "python3 -m pip install --no-index --break-system-packages /tmp/tiny_thing-1.0-py3-none-any.whl"
    result = await python.command.run(
        "sh", ["-c", f"{install} && python3 -c 'import tiny_thing as t; print(t.answer)'"]
    )
    assert result.success, await result.error()
    assert (await result.output()).endswith("42")


# System calls


async def test_sockets_that_are_attack_surface_cannot_be_made(python: PythonSandbox) -> None:
    code = """
    import socket
    def attempt(*arguments):
        try:
            socket.socket(*arguments).close()
            return 'made'
        except OSError as error:
            return error.errno
    def pair(family):
        import ctypes, errno
        libc = ctypes.CDLL(None, use_errno=True)
        made = libc.socketpair(family, 1, 0, (ctypes.c_int * 2)())
        return 'made' if made == 0 else ctypes.get_errno()
    S, D, R, P = socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW, socket.SOCK_SEQPACKET
    found = {
        'raw icmp': attempt(socket.AF_INET, R, 1), 'raw tcp': attempt(socket.AF_INET, R, 6),
        'raw v6': attempt(socket.AF_INET6, R, 58), 'raw all': attempt(socket.AF_INET, R, 255),
        'sctp': attempt(socket.AF_INET, S, 132), 'sctp seqpacket': attempt(socket.AF_INET, P, 132),
        'mptcp': attempt(socket.AF_INET, S, 262), 'dccp': attempt(socket.AF_INET, 6, 33),
        'packet': attempt(socket.AF_PACKET, R, 3), 'packet datagram': attempt(socket.AF_PACKET, D, 3),
        'vsock': attempt(socket.AF_VSOCK, S, 0), 'alg': attempt(38, P, 0), 'key': attempt(15, R, 2),
        'xdp': attempt(44, R, 0), 'tipc': attempt(30, S, 0), 'smc': attempt(43, S, 0), 'can': attempt(29, R, 1),
        'bluetooth': attempt(31, R, 1), 'kcm': attempt(41, D, 0), 'rds': attempt(21, P, 0), 'x25': attempt(9, P, 0),
        'uevents': attempt(socket.AF_NETLINK, R, 15), 'netfilter': attempt(socket.AF_NETLINK, R, 12),
        'audit': attempt(socket.AF_NETLINK, R, 9), 'xfrm': attempt(socket.AF_NETLINK, R, 6),
        'tipc pair': pair(30), 'rds pair': pair(21), 'alg pair': pair(38),
    }
    usual = {
        'tcp': attempt(socket.AF_INET, S), 'tcp v6': attempt(socket.AF_INET6, S), 'udp': attempt(socket.AF_INET, D, 17),
        'unix': attempt(socket.AF_UNIX, P), 'unix pair': pair(1), 'routes': attempt(socket.AF_NETLINK, R, 0),
    }
    found = [found, usual]
    """
    refused, usual = await probe(python, code)
    assert set(usual.values()) == {"made"}, usual
    assert {name: got for name, got in refused.items() if got != 1} == {}, "each gives EPERM"


async def test_commands_to_devices_of_no_use_are_refused(python: PythonSandbox) -> None:
    code = """
    import fcntl, os
    def attempt(command, fd):
        try:
            fcntl.ioctl(fd, command, b'x' * 64)
            return 0
        except OSError as error:
            return error.errno
    null = os.open('/dev/null', os.O_RDWR)
    main, terminal = os.openpty()
    found = {
        'push input': attempt(0x5412, terminal), 'paste': attempt(0x541c, terminal), 'kvm': attempt(0xae01, null),
        'kvm api': attempt(0xae00, null), 'loop': attempt(0x4c00, null), 'block': attempt(0x1268, null),
        'console': attempt(0x4b3a, terminal), 'vt': attempt(0x5600, terminal), 'namespace': attempt(0xb701, null),
    }
    found = [found, attempt(0x5413, terminal), attempt(0x5413, null)]
    """
    refused, of_terminal, of_null = await probe(python, code)
    assert set(refused.values()) == {1}, refused
    assert (of_terminal, of_null) == (0, 25), "the size of a terminal can be asked, and /dev/null is none"


async def test_no_device_node_of_any_kind_can_be_made(python: PythonSandbox) -> None:
    code = """
    import os, stat
    found = {}
    for place in ('/tmp', '/dev/shm', '/root', '/usr'):
        for kind, mode, major, minor in [
            ('null', stat.S_IFCHR, 1, 3), ('memory', stat.S_IFCHR, 1, 1), ('kvm', stat.S_IFCHR, 10, 232),
            ('deleted', stat.S_IFCHR, 0, 0), ('disk', stat.S_IFBLK, 8, 0), ('loop', stat.S_IFBLK, 7, 0),
        ]:
            try:
                os.mknod(f'{place}/{kind}', mode | 0o666, os.makedev(major, minor))
                found[f'{place}/{kind}'] = 'made'
            except OSError as error:
                found[f'{place}/{kind}'] = error.errno
    os.mkfifo('/tmp/fifo'), os.mknod('/tmp/file', stat.S_IFREG | 0o600), os.mknod('/tmp/plain', 0o600)
    """
    assert set((await probe(python, code)).values()) == {1}


async def test_only_harmless_personalities_can_be_had(python: PythonSandbox) -> None:
    code = """
    import ctypes
    libc = ctypes.CDLL(None, use_errno=True)
    def attempt(value):
        return ctypes.get_errno() if libc.personality(ctypes.c_ulong(value)) == -1 else 'had'
    # No randomised addresses, readable means executable, memory at 0, and what older systems had.
    found = [attempt(value) for value in (0x0040000, 0x0400000, 0x0100000, 0x0200000, 0x0800000, 4, 6)]
    found = [found, attempt(0xffffffff), attempt(0)]
    """
    refused, asked, usual = await probe(python, code)
    assert set(refused) == {1}, refused
    assert asked != 1
    assert usual == "had"


# Core dumps


async def test_a_crash_leaves_no_core_dump_whatever_programs_ask_for(python: PythonSandbox) -> None:
    code = """
    import os, resource, signal
    def crash():
        pid = os.fork()
        if pid == 0:
            os.chdir('/tmp')
            signal.signal(signal.SIGABRT, signal.SIG_DFL)
            os.abort()
        return os.WCOREDUMP(os.waitpid(pid, 0)[1])
    def attempt(act):
        try:
            act()
            return 'taken'
        except OSError as error:
            return error.errno
    core = resource.RLIMIT_CORE
    infinity = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    before = resource.getrlimit(core)
    asked = [attempt(lambda: resource.setrlimit(core, limits)) for limits in ((0, 0), infinity, (1 << 30, 1 << 30))]
    both = attempt(lambda: resource.prlimit(0, core, (0, 0)))
    other = attempt(lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (512, 1024)))
    cores = [name for name in os.listdir('/tmp') if 'core' in name]
    found = [before, asked, both, other, resource.getrlimit(core), crash(), cores]
    """
    before, asked, both, other, after, dumped, cores = await probe(python, code)
    # Exactly 1 is what stops a program of the host that takes dumps, too: core(5).
    assert before == after == [1, 1]
    assert asked == ["taken"] * 3, "programs that lower it for safety do not fail"
    assert (both, other) == (1, "taken")
    assert (dumped, cores) == (False, [])


# What can be seen


async def test_cgroups_show_no_path_of_the_host(python: PythonSandbox, node: NodeSandbox, server: Server) -> None:
    of_kernel = await probe(python, "found = [open(f'/proc/{p}/cgroup').read() for p in ('self', '1')]")
    of_command = await (await python.command.run("cat", ["/proc/self/cgroup"])).output()
    of_node = await (await node.run("console.log(require('fs').readFileSync('/proc/self/cgroup', 'utf8'))")).output()
    for text in (*of_kernel, of_command, of_node):
        paths = {line.split(":", 2)[2] for line in text.splitlines() if line}
        assert paths <= {"/", "/programs"}, text


async def test_what_tells_about_the_host_is_empty(python: PythonSandbox) -> None:
    code = """
    import os
    names = ('cmdline', 'interrupts', 'diskstats', 'partitions', 'swaps', 'locks', 'key-users', 'keys', 'timer_list',
             'kallsyms', 'mdstat', 'modules')
    found = {name: len(open('/proc/' + name, 'rb').read(100)) for name in names if os.path.exists('/proc/' + name)}
    """
    found = await probe(python, code)
    assert len(found) > 5
    assert set(found.values()) == {0}, found


async def test_kernels_inherit_no_descriptor_of_the_host(python: PythonSandbox, node: NodeSandbox) -> None:
    code = """
    import os
    found = []
    for number in os.listdir('/proc/self/fd'):
        try:
            found.append(os.readlink(f'/proc/self/fd/{number}'))
        except FileNotFoundError:
            pass  # that of the listing itself
    """
    of_python = await probe(python, code)
    script = """
    const fs = require('fs')
    for (const n of fs.readdirSync('/proc/self/fd')) {
        try { console.log(fs.readlinkSync('/proc/self/fd/' + n)) } catch {}
    }
    """
    of_node = (await (await node.run(script)).output()).splitlines()
    for target in (*of_python, *of_node):
        if target.startswith("["):
            continue  # what Node echoes
        assert target.startswith(("pipe:", "socket:", "anon_inode:", "/dev/null", "/memfd:", "/proc/", "undefined")), (
            target
        )


# Rights


async def test_set_id_programs_and_file_capabilities_give_nothing(python: PythonSandbox) -> None:
    code = """
    import os, shutil, subprocess
    shutil.copy(shutil.which('id'), '/tmp/id')
    os.chmod('/tmp/id', 0o6755)
    found = [oct(os.stat('/tmp/id').st_mode & 0o7777)]
    done = subprocess.run(['/tmp/id', '-u'], user=1000, group=1000, capture_output=True, text=True)
    found.append(done.stdout.strip())
    # Capability 1 (dac_override), permitted and effective, as `setcap` writes it.
    value = bytes.fromhex('0100000202000000000000000000000000000000')
    shutil.copy(shutil.which('cat'), '/tmp/cat')
    try:
        os.setxattr('/tmp/cat', 'security.capability', value)
    except PermissionError:
        found.append('refused')
    with open('/tmp/secret', 'w') as secret:
        secret.write('secret')
    os.chmod('/tmp/secret', 0o600)
    done = subprocess.run(['/tmp/cat', '/tmp/secret'], user=1000, group=1000, capture_output=True, text=True)
    found.append(done.stdout)
    """
    assert await probe(python, code) == ["0o6755", "1000", "refused", ""]


async def test_what_is_in_the_page_cache_is_not_told(server: Server) -> None:
    """mincore(2) on a file of the image, which others share, is a call that the kernel does not have."""
    code = """
import ctypes, errno, mmap
libc = ctypes.CDLL(None, use_errno=True)
with open('/usr/bin/perl' if __import__('os').path.exists('/usr/bin/perl') else '/bin/sh', 'rb') as file:
    pages = mmap.mmap(file.fileno(), 4096, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE)
start = ctypes.addressof(ctypes.c_char.from_buffer(pages))
told = ctypes.create_string_buffer(1)
print(libc.mincore(ctypes.c_void_p(start), ctypes.c_size_t(4096), told), errno.errorcode.get(ctypes.get_errno()))
"""
    control = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert control.split()[0] == "0", control
    async with PythonSandbox.create(server_url=server.url) as sandbox:
        execution = await sandbox.run(code)
        assert (await execution.output()).split() == ["-1", "ENOSYS"]


async def test_files_behind_block_devices_are_not_named(server: Server) -> None:
    """A loop device of the host says which file is behind it, and so where a server's home is."""
    async with PythonSandbox.create(server_url=server.url) as sandbox:
        found = await sandbox.command.run("find", ["/sys/", "-name", "backing_file"])
        assert await found.output() == ""
        listed = await sandbox.command.run("ls", ["-A", "/sys/block", "/sys/devices/virtual/block"])
        assert (await listed.output()).split() == ["/sys/block:", "/sys/devices/virtual/block:"]
